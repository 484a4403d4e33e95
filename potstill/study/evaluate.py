"""What a worker does with one trained model: its predictions on the splits and views that a plan asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from potstill import storage
from potstill.data import ArraySource, Data
from potstill.data.parts import TEST
from potstill.errors import StorageError, UsageError
from potstill.evaluation import predict
from potstill.study.answers import models_as_teacher
from potstill.study.opened import open_data, part_fingerprint
from potstill.study.plan import Plan
from potstill.study.tree import FORMAT, Family
from potstill.study.worker import Outcome, Place, begin, evaluated_models

_TRAINED: Final = ("train", "validation")  # every other split is a test set
_VIEW: Final = "-view-"
_BEFORE: Final = ("validation", TEST)  # what was asked before the file told


def view_name(split: str, view: int) -> str:
    """The name of the predictions on a view of a test set's examples; view 0 is the plain example."""
    return f"{split}{_VIEW}{view}" if view else split


def split_of(name: str) -> str:
    """The split on which predictions of this name are.

    >>> split_of("test"), split_of("test-view-3")
    ('test', 'test')
    """
    return name.partition(_VIEW)[0]


def wanted_names(plan: Plan, family: Family) -> tuple[str, ...]:
    """The predictions that a plan asks for of a model: its splits; if it augments, views of the verdict's test set."""
    views = max(plan.evaluation.views) if family.settings["training"]["augment"] else 0
    return (*plan.evaluation.splits, *(view_name(plan.verdict.on, view) for view in range(1, views + 1)))


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
    return name not in _TRAINED


def evaluate_unit(
    unit: str,
    folders: list[str],
    table: Mapping[str, Any],
    seed: int,
    place: Place,
    names: tuple[str, ...],
    augment: Sequence[Mapping[str, Any]] = (),
) -> Outcome:
    """Store the predictions `names` of one model (or ensemble): the only place that opens test sets.

    Each is opened where a name asks for it. `augment` makes the views.
    """
    begin(place)
    began = time.monotonic()
    if place.stopping():
        return Outcome(unit, "interrupted")
    try:
        data = open_data(table, seed, place.data_folder, tuple(dict.fromkeys(("train", *map(split_of, names)))))
        model, folder = models_as_teacher(place.root, folders), place.root / unit
        hashes = {}
        for name in names:
            part, view = data.split(split_of(name)), 0
            if part is None:
                continue
            if name != split_of(name):
                part, view = part.with_augment(list(augment)), int(name.rpartition("-")[2])
            hashes[name] = predict(model, part, view=view).save(folder / "predictions" / f"{name}.safetensors")
        _write(folder, evaluated_models(place.root, folders), names, hashes, data)
        return Outcome(unit, "done", seconds=time.monotonic() - began)
    except (UsageError, StorageError) as error:
        return Outcome(unit, "refused", f"{type(error).__name__}: {error}")


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
            "test": _prints(data.tests) or before.get("test"),
        },
    )


def _prints(tests: Mapping[str, ArraySource]) -> str | dict[str, str] | None:
    """Fingerprints of test sets: of one that has no name of its own as a text."""
    prints = {name: part_fingerprint(part) for name, part in tests.items()}
    return prints[TEST] if tuple(prints) == (TEST,) else prints or None
