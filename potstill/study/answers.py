"""What a student's teachers answer: recorded in this run, brought by the user, or asked live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill import data as data_module
from potstill import networks, outputs, storage
from potstill.data import Data
from potstill.engine import Engine
from potstill.errors import DataError, OutputsError
from potstill.outputs import Live, Stored
from potstill.seeding import permutation
from potstill.study.tree import Node
from potstill.teachers import Ensemble
from potstill.types import Answers, Source, Teacher


def models_as_teacher(root: Path, folders: list[str]) -> Teacher:
    """One model, or an ensemble of several, from their folders, on the device where this process computes."""
    device = Engine.pick().device
    models = [networks.load(root / folder).on(device) for folder in folders]
    return models[0] if len(models) == 1 else Ensemble(models)


def teachers(node: Node, root: Path, data: Data, train: Source) -> tuple[Answers | None, Answers | None]:
    """Answers on training and validation rows of all the node's teachers, as one."""
    told = node.work["teachers"]
    if not told:
        return None, None
    if any("models" in work for work in told):
        if not all("models" in work for work in told):
            raise OutputsError(
                'Live and recorded teachers cannot be mixed for one model: set answers = "live" for all.'
            )
        teacher = models_as_teacher(root, [folder for work in told for folder in work["models"]])
        live: Answers = Live(teacher, train).with_known(known_rows(node, data))
        return live, _watched(node, data, Live(teacher, data.validation)) if data.validation is not None else None
    kept = [stored(root, work, data.train, "train") for work in told]
    answers = (kept[0] if len(kept) == 1 else Stored.combine(kept)).with_known(known_rows(node, data))
    if data.validation is None or any("file" in work for work in told):
        return answers, None
    looked = [stored(root, work, data.validation, "validation") for work in told]
    return answers, _watched(node, data, looked[0] if len(looked) == 1 else Stored.combine(looked))


def _watched(node: Node, data: Data, answers: Live | Stored) -> Answers:
    """Answers on validation rows; those with a label where the teacher is asked about labelled rows only."""
    if node.work["known"] != "labelled" or data.validation is None:
        return answers
    return answers.with_known(data.validation.labelled)


def stored(root: Path, work: Mapping[str, Any], source: Source, split: str) -> Stored:
    """One teacher's answers for the rows of `source`: recorded in this run, or a file or folder of the user's.

    Every byte of a recording is hashed before a student learns from it.
    """
    if "outputs" in work:
        folder = root / work["outputs"]
        try:
            return outputs.open(folder / split, verify=True)
        except OutputsError as error:
            raise OutputsError(
                f"The recording {folder} of this run cannot be used: delete it, and run the plan again. Found: {error}",
                field=error.field,
            ) from error
    path = Path(work["file"])
    if path.is_dir():
        return outputs.open(path, source=source, verify=True)
    array = data_module.read_array(path)
    return outputs.from_array(
        array, kind=work["kind"] or "logits", rows=len(source), labels=source.labels, labelled=source.labelled
    )


def check_brought(nodes: Iterable[Node], root: Path, opened: Callable[[Node], Data]) -> None:
    """Read every file of answers that a user brings once, before anything is trained. Raises as `stored` does."""
    seen: set[str] = set()
    for node in nodes:
        for work in node.work.get("teachers", ()):
            key = storage.canonical(storage.plain([work, node.settings["data"]["plan"]]))
            if "file" in work and key not in seen:
                seen.add(key)
                stored(root, work, opened(node).train, "train")


def known_rows(node: Node, data: Data) -> Tensor:
    """(n,) bool: the rows whose teacher's answer is known, keyed by the seed."""
    known, n = node.work["known"], len(data.train)
    if known is None:
        return torch.ones(n, dtype=torch.bool)
    if known == "labelled":
        return data.train.labelled.clone()
    mask = torch.zeros(n, dtype=torch.bool)
    if isinstance(known, str):
        rows = torch.as_tensor(data_module.read_array(Path(known)).astype("int64")).flatten()
        if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= n:
            raise DataError(f"known: {known} must hold row numbers from 0 to {n - 1} of the training rows.")
        mask[rows] = True
        return mask
    mask[permutation(n, "known", seed_of(node))[: max(round(known * n), 1)]] = True
    return mask


def seed_of(node: Node) -> int:
    """The seed of a node's data and known rows."""
    return int(node.settings["seed"]["seed"]) if "seed" in node.settings else node.seed


def manifests_of(root: Path, node: Node) -> list[str]:
    """sha256 of the manifests of the recorded outputs that a student learns from."""
    folders = [root / work["outputs"] for work in node.work.get("teachers", ()) if "outputs" in work]
    return [storage.sha256_file(path) for folder in folders for path in sorted(folder.glob("*/manifest.json"))]
