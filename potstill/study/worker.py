"""What a worker process does with one node: paths and JSON in, files and a short outcome out (decision 7)."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from potstill import objectives, outputs, storage
from potstill.data import Data
from potstill.errors import Interrupted, StorageError, TrainingError, UsageError
from potstill.networks.model import Model
from potstill.study import inference
from potstill.study.answers import manifests_of, models_as_teacher, teachers
from potstill.study.opened import data_of, forget
from potstill.study.tables import TRUTH
from potstill.study.tree import FORMAT, Node
from potstill.training import together
from potstill.training.fit import prepare
from potstill.training.settings import Training
from potstill.training.task import Task
from potstill.types import Answers

STOP = ".stop"
RUNNING = ".running"
_LOOK_SECONDS = 0.05


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


def begin(place: Place) -> None:
    """Make this process the study's: it may be a worker that an earlier run of the same program left."""
    if os.getpid() != place.parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us through the stop file
        os.chdir(place.here)
    torch.set_num_threads(1)
    forget(place.began)


def run_nodes(nodes: Sequence[Node], place: Place) -> list[Outcome]:
    """Do some nodes in this process, trainings of the same batches together; never raises, so that others go on."""
    begin(place)
    if place.stopping():
        return [Outcome(node.folder, "interrupted") for node in nodes]
    try:
        for node in nodes:
            _mark(place.running(node.folder), node, 0, 1)
        trainings = [node for node in nodes if node.kind == "train"]
        return [_record(node, place) for node in nodes if node.kind == "record"] + _train(trainings, place)
    finally:
        for node in nodes:
            place.running(node.folder).unlink(missing_ok=True)


def _ended_by(error: Exception, node: Node, place: Place) -> Outcome:
    if isinstance(error, Interrupted):
        return Outcome(node.folder, "interrupted")
    if isinstance(error, TrainingError):
        return failed(node, place, str(error))
    if isinstance(error, (UsageError, StorageError)):
        return Outcome(node.folder, "refused", f"{type(error).__name__}: {error}")
    # A bug, or a user's own code: the rest of the study goes on.
    return failed(node, place, "".join(traceback.format_exception(error, limit=-6)))


def failed(node: Node, place: Place, reason: str) -> Outcome:
    """Write down why a node failed; its descendants are not run, the rest goes on."""
    try:
        storage.write_json(
            place.root / node.folder / "failure.json", {"reason": reason, "settings": dict(node.settings)}
        )
    except StorageError as error:  # the disk is full, say: nobody can go on
        return Outcome(node.folder, "refused", f"StorageError: {error}")
    return Outcome(node.folder, "failed", reason)


def _mark(marker: Path, node: Node, step: int, total: int) -> None:
    """Progress for whoever looks: not fsynced, lost without harm."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"folder": node.folder, "step": step, "total": total, "pid": os.getpid()}))


def _now_and_then(stopping: Callable[[], bool]) -> Callable[[], bool]:
    """The same question for a training that asks after every epoch, however short: a look at the disk takes time."""
    last = -math.inf

    def asked() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < _LOOK_SECONDS:
            return False
        last = now
        return stopping()

    return asked


def _reporter(marker: Path, node: Node) -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(step: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5:
            last = time.monotonic()
            _mark(marker, node, step, total)

    return report


def _record(node: Node, place: Place) -> Outcome:
    began = time.monotonic()
    try:
        data = data_of(node, place.data_folder)
        teacher = models_as_teacher(place.root, node.work["models"])
        augment, views = node.settings["augment"], tuple(node.settings["views"])
        train = data.train.with_augment(augment) if augment else data.train
        folder = place.root / node.folder
        outputs.record(teacher, train, folder / "train", views=views, should_stop=place.stopping)
        if data.validation is not None:
            outputs.record(teacher, data.validation, folder / "validation", should_stop=place.stopping)
        manifests = [storage.sha256_file(path) for path in sorted(folder.glob("*/manifest.json"))]
        models, seconds = evaluated_models(place.root, node.work["models"]), time.monotonic() - began
        write_result(folder, node, {"seconds": seconds, "manifests": manifests, "models": models})
        return Outcome(node.folder, "done", seconds=seconds)
    except Exception as error:
        return _ended_by(error, node, place)


def _train(nodes: Sequence[Node], place: Place) -> list[Outcome]:
    outcomes: list[Outcome] = []
    ready: list[tuple[Node, Task]] = []
    for node in nodes:
        try:
            ready.append((node, _task(node, place)))
        except Exception as error:
            outcomes.append(_ended_by(error, node, place))

    def ended(number: int, found: Model | Exception) -> None:
        node, _ = ready[number]
        try:
            if isinstance(found, Exception):
                raise found
            info = dict(found.info)
            facts = {"seconds": info["seconds"], "info": info, "manifests": manifests_of(place.root, node)}
            write_result(place.root / node.folder, node, facts)
            outcomes.append(Outcome(node.folder, "done", seconds=info["seconds"]))
        except Exception as error:
            outcomes.append(_ended_by(error, node, place))

    together.train([task for _, task in ready], ended)
    return outcomes


def _task(node: Node, place: Place) -> Task:
    data, training = data_of(node, place.data_folder), training_of(node)
    augmented = data.train.with_augment(training.augment) if training.augment else data.train
    told = settings_of(node, data, answers=teachers(node, place.root, data, augmented))
    told["inference"] = inference.build(node, inference.teacher(node, place.root, data))
    report, stopping = _reporter(place.running(node.folder), node), _now_and_then(place.stopping)
    return prepare(data=data, **told, folder=place.root / node.folder, should_stop=stopping, progress=report)


def settings_of(node: Node, data: Data, *, answers: tuple[Answers | None, Answers | None]) -> dict[str, Any]:
    """What `fit` is told of a node, besides the data; `answers` are the teacher's on training and validation rows."""
    settings, seed = node.settings, node.settings["seed"]
    law = data.truth if node.work["weights"] == TRUTH else None
    return {
        "network": settings["network"],
        "objective": objectives.build(settings["objective"]),
        "teacher": answers[0],
        "validation_teacher": answers[1],
        "training": training_of(node),
        "weights": node.work["weights"] if law is None else law.weights(),
        "sees": settings.get("sees", ""),
        "every": settings.get("every"),
        "watch": settings.get("watch", ()),
        **{name: seed[name] for name in ("seed", "member", "generation")},
    }


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


def evaluated_models(root: Path, folders: list[str]) -> list[str]:
    """What an evaluation was made from: the sha256 of each member's weights."""
    return [storage.read_json(root / folder / "network.json")["weights_sha256"] for folder in folders]
