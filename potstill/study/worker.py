"""What a worker process does with one node: paths and JSON in, files and a short outcome out (decision 7)."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from potstill import data as data_module
from potstill import objectives, outputs, storage
from potstill.data import Data
from potstill.errors import DataError, Interrupted, StorageError, TrainingError, UsageError
from potstill.evaluation import predict
from potstill.networks.model import Model
from potstill.study.answers import manifests_of, models_as_teacher, seed_of, teachers
from potstill.study.tree import FORMAT, Node
from potstill.training.fit import fit
from potstill.training.settings import Training
from potstill.types import Answers, Source

SPLITS = ("train", "validation", "test")
STOP = ".stop"
RUNNING = ".running"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a node ended. "refused" is a user's or the disk's error: it ends the study; "failed" ends its descendants."""

    folder: str
    state: Literal["done", "failed", "refused", "interrupted"]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study runs: its folder, the user's data folder, the parent's process number, and when it began.

    `here`: the parent's working folder, where relative paths start.
    """

    root: Path
    data_folder: str | None
    parent: int
    began: int = 0
    here: Path = Path()

    def stopping(self) -> bool:
        """Whether to save and leave: the parent asked everybody to, or was killed, and another run may begin here."""
        return self.parent not in (os.getpid(), os.getppid()) or (self.root / STOP).exists()

    def running(self, folder: str) -> Path:
        """The file that says which process works on a node, and how far it is."""
        return self.root / RUNNING / (storage.fingerprint(folder)[:16] + ".json")


_BEGAN = [0]


def forget(began: int) -> None:
    """Drop the data that this process keeps from an earlier run: files may have changed since."""
    if _BEGAN[0] != began:
        _BEGAN[0] = began
        _open.cache_clear()


@lru_cache(maxsize=4)
def _open(text: str, seed: int, folder: str | None, splits: tuple[str, ...]) -> Data:
    table = json.loads(text)
    return data_module.open(table.pop("source"), **table, seed=seed, folder=folder, splits=splits)


def open_data(
    table: Mapping[str, Any], seed: int, folder: str | None, splits: tuple[str, ...] = ("train", "validation")
) -> Data:
    """The data of a plan for one seed; without the test split unless it is asked for."""
    return _open(storage.canonical(storage.plain(table)), seed if table.get("labelled") else 0, folder, splits)


def data_facts(table: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """What identifies training and validation data (rows, order, labels), and what a plan needs to know of its data.

    All labels count, also those that `labelled` hides: which ones it hides is a matter of the seed.
    """
    data = open_data({**table, "labelled": None}, 0, folder)
    prints = {}
    for name, part in (("train", data.train), ("validation", data.validation)):
        prints[name] = None if part is None else _part_fingerprint(part)
    spec = data.spec
    validation = 0 if data.validation is None else len(data.validation)
    return {
        "fingerprints": prints,
        "rows": len(data.train),
        "validation_rows": validation,
        "shape": spec.shape,
        "outputs": spec.outputs,
        "classes": spec.classes,
    }


def _begin(place: Place) -> None:
    """Make this process the study's: it may be a worker that an earlier run of the same program left."""
    if os.getpid() != place.parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us through the stop file
        os.chdir(place.here)
    torch.set_num_threads(1)
    forget(place.began)


def run_node(node: Node, place: Place) -> Outcome:
    """Do one node in this process; never raises, so that the others go on."""
    _begin(place)
    began = time.monotonic()
    marker = place.running(node.folder)
    try:
        if place.stopping():
            return Outcome(node.folder, "interrupted")
        _mark(marker, node, 0, 1)
        {"train": _train, "record": _record}[node.kind](node, place)
        return Outcome(node.folder, "done", seconds=time.monotonic() - began)
    except Interrupted:
        return Outcome(node.folder, "interrupted")
    except TrainingError as error:
        return failed(node, place, str(error))
    except (UsageError, StorageError) as error:
        return Outcome(node.folder, "refused", f"{type(error).__name__}: {error}")
    except Exception:  # a bug, or a user's own code: the rest of the study goes on
        return failed(node, place, traceback.format_exc(limit=-6))
    finally:
        marker.unlink(missing_ok=True)


def failed(node: Node, place: Place, reason: str) -> Outcome:
    """Write down why a node failed; its descendants are not run, the rest goes on."""
    storage.write_json(place.root / node.folder / "failure.json", {"reason": reason, "settings": dict(node.settings)})
    return Outcome(node.folder, "failed", reason)


def _mark(marker: Path, node: Node, step: int, total: int) -> None:
    """Progress for whoever looks: not fsynced, lost without harm."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"folder": node.folder, "step": step, "total": total, "pid": os.getpid()}))


def _reporter(marker: Path, node: Node) -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(step: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5:
            last = time.monotonic()
            _mark(marker, node, step, total)

    return report


def _data(node: Node, place: Place) -> Data:
    """The node's data; refused if it is not what the study was planned with."""
    wanted = node.settings["data"]
    found = data_facts(wanted["plan"], place.data_folder)["fingerprints"]
    for name, value in found.items():
        if value != wanted[name]:
            raise DataError(
                f"The {name} data changed while the study ran (fingerprint {value}, was {wanted[name]}). "
                "Run again with --fresh, or another --out."
            )
    return open_data(wanted["plan"], seed_of(node), place.data_folder)


def _record(node: Node, place: Place) -> None:
    data = _data(node, place)
    teacher = models_as_teacher(place.root, node.work["models"])
    train = data.train.with_augment(node.settings["augment"]) if node.settings["augment"] else data.train
    folder = place.root / node.folder
    began = time.monotonic()
    outputs.record(teacher, train, folder / "train", views=tuple(node.settings["views"]), should_stop=place.stopping)
    if data.validation is not None:
        outputs.record(teacher, data.validation, folder / "validation", should_stop=place.stopping)
    manifests = [storage.sha256_file(path) for path in sorted(folder.glob("*/manifest.json"))]
    models = evaluated_models(place.root, node.work["models"])
    write_result(folder, node, {"seconds": time.monotonic() - began, "manifests": manifests, "models": models})


def _train(node: Node, place: Place) -> None:
    data, training = _data(node, place), training_of(node)
    augmented = data.train.with_augment(training.augment) if training.augment else data.train
    folder = place.root / node.folder
    model = fit_node(
        node,
        data,
        training,
        answers=teachers(node, place.root, data, augmented),
        folder=folder,
        should_stop=place.stopping,
        progress=_reporter(place.running(node.folder), node),
    )
    write_result(
        folder,
        node,
        {
            "seconds": model.info["seconds"],
            "info": dict(model.info),
            "manifests": manifests_of(place.root, node),
        },
    )


def fit_node(
    node: Node, data: Data, training: Training, *, answers: tuple[Answers | None, Answers | None], **others: Any
) -> Model:
    """The node's model, trained as its settings say; `answers` are the teacher's on training and validation rows."""
    settings, seed = node.settings, node.settings["seed"]
    return fit(
        settings["network"],
        data,
        objectives.build(settings["objective"]),
        teacher=answers[0],
        validation_teacher=answers[1],
        seed=seed["seed"],
        member=seed["member"],
        generation=seed["generation"],
        training=training,
        weights=node.work["weights"],
        **others,
    )


def training_of(node: Node) -> Training:
    """How a node is trained."""
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in node.settings["training"].items()
    }
    return Training.of(None, given)


def write_result(folder: Path, node: Node, facts: Mapping[str, Any]) -> None:
    """`result.json`, written last: the node is complete, whatever happened to it before."""
    (folder / "failure.json").unlink(missing_ok=True)
    storage.write_json(
        folder / "result.json",
        {"format": FORMAT, "fingerprint": node.fingerprint, "settings": storage.plain(node.settings), **facts},
    )


def evaluate_unit(
    unit: str, folders: list[str], table: Mapping[str, Any], seed: int, place: Place, splits: tuple[str, ...] = SPLITS
) -> Outcome:
    """Predictions of one model (or ensemble) on validation and test data: the only place that opens the test set.

    `splits` are those that are opened; a trial's are without the test set.
    """
    _begin(place)
    began = time.monotonic()
    if place.stopping():
        return Outcome(unit, "interrupted")
    try:
        data = open_data(table, seed, place.data_folder, splits)
        model = models_as_teacher(place.root, folders)
        folder = place.root / unit
        hashes = {
            name: predict(model, part).save(folder / "predictions" / f"{name}.safetensors")
            for name, part in (("validation", data.validation), ("test", data.test))
            if part is not None
        }
        storage.write_json(
            folder / "evaluation.json",
            {
                "format": FORMAT,
                "sha256": hashes,
                "models": evaluated_models(place.root, folders),
                "test": None if data.test is None else _part_fingerprint(data.test),
            },
        )
        return Outcome(unit, "done", seconds=time.monotonic() - began)
    except (UsageError, StorageError) as error:
        return Outcome(unit, "refused", f"{type(error).__name__}: {error}")


def _part_fingerprint(part: Source) -> str:
    """Hash of a split's examples, their order and their labels."""
    return storage.fingerprint([part.fingerprint(), storage.tensor_sha256(part.labels)])


def evaluated_models(root: Path, folders: list[str]) -> list[str]:
    """What an evaluation was made from: the sha256 of each member's weights."""
    return [storage.read_json(root / folder / "network.json")["weights_sha256"] for folder in folders]
