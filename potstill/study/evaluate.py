"""What a worker does with one trained model: its predictions on the splits and views that a plan asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from potstill import storage
from potstill.data import ArraySource, Data, columns
from potstill.data.parts import TEST
from potstill.errors import StorageError, UsageError
from potstill.evaluation import Predictions, predict
from potstill.study import telling
from potstill.study.along import along
from potstill.study.answers import models_as_teacher
from potstill.study.drawn import FEW_INPUTS, worst_rows
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
        hashes: dict[str, str] = {}
        told: dict[str, Any] = {}
        for name in names:
            part, view = data.split(split_of(name)), 0
            if part is None:
                continue
            if name != split_of(name):
                part, view = part.with_augment(list(augment)), int(name.rpartition("-")[2])
            found = predict(model, part, view=view)
            hashes[name] = found.save(folder / "predictions" / f"{name}.safetensors")
            if on_test(name) and not view:
                told |= {name: kept} if (kept := _worst(found, part)) else {}
                telling.keep(folder, name, part, found)
        line = along(model, data) if any(map(on_test, names)) else {}
        _write(folder, evaluated_models(place.root, folders), names, hashes, data, rows=told, line=line)
        return Outcome(unit, "done", seconds=time.monotonic() - began)
    except (UsageError, StorageError) as error:
        return Outcome(unit, "refused", f"{type(error).__name__}: {error}")


def _worst(found: Predictions, part: ArraySource) -> dict[str, Any]:
    """The inputs of a regression's worst rows, as they are in the data, where an example has few; else empty."""
    if not found.regression or len(part.spec.shape) != 1:
        return {}
    told = {row: _inputs(part, row) for row in worst_rows(found.labels, found.values, found.labelled)}
    names = list(next(iter(told.values()), {}))
    if not 0 < len(names) <= FEW_INPUTS:
        return {}
    return {"names": names, "rows": {str(row): list(inputs.values()) for row, inputs in told.items()}}


def _inputs(part: ArraySource, row: int) -> dict[str, float | str | None]:
    raw, recipe = part.raw.index_select(0, part.rows[row : row + 1])[0].tolist(), part.spec.recipe
    if recipe.get("kind") == "table":
        return columns.decoded(recipe, raw)
    return {f"x{at}": x for at, x in enumerate(raw, 1)}


def _write(
    folder: Path,
    models: list[str],
    names: Sequence[str],
    hashes: Mapping[str, str],
    data: Data,
    *,
    rows: Mapping[str, Any],
    line: Mapping[str, Any],
) -> None:
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
        }
        | ({"telling": kept} if (kept := before.get("telling", {}) | rows) else {})
        | ({"along": dict(kept)} if (kept := line or before.get("along", {})) else {}),
    )


def _prints(tests: Mapping[str, ArraySource]) -> str | dict[str, str] | None:
    """Fingerprints of test sets: of one that has no name of its own as a text."""
    prints = {name: part_fingerprint(part) for name, part in tests.items()}
    return prints[TEST] if tuple(prints) == (TEST,) else prints or None
