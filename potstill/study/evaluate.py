"""What a worker does with one trained model: its predictions on the splits and views that a plan asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from potstill import storage
from potstill.data import ArraySource, Data
from potstill.errors import StorageError, UsageError
from potstill.evaluation import predict
from potstill.study.answers import models_as_teacher
from potstill.study.opened import open_data, part_fingerprint
from potstill.study.tables import Evaluation
from potstill.study.tree import FORMAT, Family
from potstill.study.worker import Outcome, Place, begin, evaluated_models

SPLITS: Final = ("train", "validation", "test")
TEST: Final = "test"
_BEFORE: Final = ("validation", TEST)  # what was asked before the file told


def view_name(view: int) -> str:
    """The name of the predictions on a view of the test examples; view 0 is the plain example."""
    return f"{TEST}-view-{view}" if view else TEST


def wanted_names(evaluation: Evaluation, family: Family) -> tuple[str, ...]:
    """The predictions that a plan asks for of a model: its splits, then views of test examples if it augments."""
    views = max(evaluation.views) if family.settings["training"]["augment"] else 0
    return (*evaluation.splits, *(view_name(view) for view in range(1, views + 1)))


def missing_names(root: Path, unit: str, folders: list[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted predictions that are not stored, or not those of the weights as they are now.

    Predictions on test examples are made together, so that all are of the same examples.
    """
    path = root / unit / "evaluation.json"
    found = storage.read_json(path) if path.is_file() else None
    if found is None or found["models"] != evaluated_models(root, folders):
        return tuple(wanted)
    asked = found.get("asked", _BEFORE)
    missing = [name for name in wanted if name not in asked]
    if any(map(on_test, missing)):
        missing = [name for name in wanted if on_test(name) or name in missing]
    return tuple(missing)


def on_test(name: str) -> bool:
    """Whether predictions of this name are on test examples."""
    return name == TEST or name.startswith(f"{TEST}-view-")


def evaluate_unit(
    unit: str,
    folders: list[str],
    table: Mapping[str, Any],
    seed: int,
    place: Place,
    names: tuple[str, ...],
    augment: Sequence[Mapping[str, Any]] = (),
) -> Outcome:
    """Store the predictions `names` of one model (or ensemble): the only place that opens the test set.

    It is opened where a name asks for it. `augment` makes the views.
    """
    begin(place)
    began = time.monotonic()
    if place.stopping():
        return Outcome(unit, "interrupted")
    try:
        opened = {"train", *(TEST if on_test(name) else name for name in names)}
        data = open_data(table, seed, place.data_folder, tuple(name for name in SPLITS if name in opened))
        model, folder = models_as_teacher(place.root, folders), place.root / unit
        hashes = {}
        for name in names:
            part = _part(data, name)
            if part is None:
                continue
            view = 0
            if name not in SPLITS:
                part, view = part.with_augment(list(augment)), int(name.rpartition("-")[2])
            hashes[name] = predict(model, part, view=view).save(folder / "predictions" / f"{name}.safetensors")
        _write(folder, evaluated_models(place.root, folders), names, hashes, data)
        return Outcome(unit, "done", seconds=time.monotonic() - began)
    except (UsageError, StorageError) as error:
        return Outcome(unit, "refused", f"{type(error).__name__}: {error}")


def _part(data: Data, name: str) -> ArraySource | None:
    return {"train": data.train, "validation": data.validation}.get(name, data.test)


def _write(folder: Path, models: list[str], names: Sequence[str], hashes: Mapping[str, str], data: Data) -> None:
    """`evaluation.json`: what was asked and made, now and before from the same weights."""
    path = folder / "evaluation.json"
    before: dict[str, Any] = storage.read_json(path) if path.is_file() else {"models": None}
    if before["models"] != models:
        before = {"asked": [], "sha256": {}, "test": None}
    storage.write_json(
        path,
        {
            "format": FORMAT,
            "asked": sorted({*before.get("asked", _BEFORE), *names}),
            "sha256": {**before["sha256"], **hashes},
            "models": models,
            "test": before.get("test") if data.test is None else part_fingerprint(data.test),
        },
    )
