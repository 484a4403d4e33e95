"""The data of a study in this process: opened once, and refused where they changed while the study ran."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from potstill import data as data_module
from potstill import storage
from potstill.data import Data, testsets
from potstill.errors import DataError, unknown
from potstill.study.answers import seed_of
from potstill.study.plan import Plan
from potstill.study.tree import Node, data_table
from potstill.types import DataSpec, Source

_BEGAN = [0]


def forget(began: int) -> None:
    """Drop the data that this process keeps from an earlier run: files may have changed since."""
    if _BEGAN[0] != began:
        _BEGAN[0] = began
        _open.cache_clear()


@lru_cache(maxsize=4)
def _open(text: str, seed: int, folder: str | None, splits: tuple[str, ...]) -> Data:
    table = json.loads(text)
    given = {key: value for key, value in table.items() if not (key == "scale_targets" and value is None)}
    return data_module.open(given.pop("source"), **given, seed=seed, folder=folder, splits=splits)


def open_data(
    table: Mapping[str, Any], seed: int, folder: str | None, splits: tuple[str, ...] = ("train", "validation")
) -> Data:
    """The data of a plan for one seed; without the test split unless it is asked for."""
    depends = table.get("labelled") or table.get("redraw")
    text = json.dumps(storage.plain(table))  # not sorted: the first of several inputs is the default
    return _open(text, seed if depends else 0, folder, splits)


def test_files(plan: Plan, folder: str | None) -> None:
    """Raise `DataError` where the file of an evaluated test set is not there: it is read after all training."""
    test = data_table(plan)["test"]
    if isinstance(test, Mapping):
        testsets.look_for(test, [name for name in test if name in plan.evaluation.splits], folder)


def data_facts(table: Mapping[str, Any], seed: int, folder: str | None) -> dict[str, Any]:
    """What identifies training and validation data (rows, order, labels), and what a plan needs to know of its data.

    All labels count, also those that `labelled` hides: which ones it hides is a matter of the seed. So are the
    examples where they are drawn anew; their number and form are not.
    """
    data = open_data({**table, "labelled": None}, seed, folder)
    prints = {}
    for name, part in (("train", data.train), ("validation", data.validation)):
        prints[name] = None if part is None else part_fingerprint(part)
    spec, several = data.spec, data.train.several
    validation = 0 if data.validation is None else len(data.validation)
    return {
        "fingerprints": prints,
        "rows": len(data.train),
        "validation_rows": validation,
        "shape": spec.shape,
        **({"vocabulary": spec.vocabulary} if spec.vocabulary else {}),
        **({"inputs": {name: _form(one.spec) for name, one in several.items()}} if several else {}),
        "outputs": spec.outputs,
        "classes": spec.classes,
        **({"targets": spec.targets} if spec.targets else {}),
        "notes": data.notes,
        **({} if data.truth is None else {"truth": {"network": data.truth.network(), "law": data.truth.fingerprint()}}),
    }


def _form(spec: DataSpec) -> dict[str, Any]:
    return {"shape": spec.shape, "vocabulary": spec.vocabulary}


def form_of(facts: Mapping[str, Any], sees: str | None) -> tuple[tuple[int, ...], int]:
    """Shape and vocabulary of what a model sees, from what `data_facts` tells; `DataError` for another input."""
    several = facts.get("inputs", {})
    if sees and several and sees not in several:
        raise DataError(f"sees: {unknown('input', sees, several)}")
    seen = several.get(sees, facts)
    return tuple(seen["shape"]), int(seen.get("vocabulary", 0))


def data_of(node: Node, folder: str | None) -> Data:
    """The node's data; refused if it is not what the study was planned with."""
    wanted = node.settings["data"]
    found = data_facts(wanted["plan"], seed_of(node), folder)["fingerprints"]
    for name, value in found.items():
        if value != wanted[name]:
            raise DataError(
                f"The {name} data changed while the study ran (fingerprint {value}, was {wanted[name]}). "
                "Run again with --fresh, or another --out."
            )
    return open_data(wanted["plan"], seed_of(node), folder)


def part_fingerprint(part: Source) -> str:
    """Hash of a split's examples, their order and their labels."""
    return storage.fingerprint([part.fingerprint(), storage.tensor_sha256(part.labels)])
