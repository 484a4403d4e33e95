"""Several test sets by name: files or arrays beside a data set, or its own test part, less what is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.data import named
from potstill.data.parts import TEST, Contents, Part
from potstill.errors import DataError, unknown
from potstill.types import Task

Parts: TypeAlias = "Mapping[str, Callable[[], Part]]"
KEYS: Final = ("file", "own", "drop")
_LABELS: Final = ("label", "labels")


def find(
    test: Mapping[str, Any], contents: Contents, folder: str | Path | None, *, task: Task, wanted: Sequence[str] = ()
) -> Parts:
    """The parts of named test sets, each read when it is asked for.

    A set is a file of the kind of the data: a table, or arrays with or without a part's name (the test part, else all
    of it); arrays (x, y) from Python; `True` for the test part of the data; or a table of these,
    `{"file": ..., "drop": {"label": [2]}}` or `{"own": True, "drop": ...}`: examples whose label (of a table of rows:
    whose value in that column) is one of these are left out. `DataError` for anything else.
    """
    if not test:
        raise DataError("test = {}: found no test set, wanted at least one: a name and a file.")
    found: dict[str, Callable[[], Part]] = {}
    for name, value in test.items():
        if name in ("train", "validation"):
            raise DataError(f'test.{name}: a test set cannot be called "{name}"; give it another name.')
        table = _table(name, value)
        source, drop = table.get("file"), table.get("drop", {})
        if source is None:
            if TEST not in contents.parts:
                raise DataError(f"test.{name}: {contents.name} has no test part of its own; give a file.")
            found[name] = partial(_kept, name, contents.parts[TEST], drop)
        elif contents.further is not None:
            found[name] = partial(_further, name, contents.further, source, folder, drop)
        else:
            found[name] = partial(_kept, name, partial(_read, name, source, folder, task, tuple(wanted)), drop)
    return found


def look_for(test: Mapping[str, Any], names: Sequence[str], folder: str | Path | None) -> None:
    """Raise `DataError` where the file of one of these sets is not there; nothing is read."""
    for name in names:
        source = _table(name, test[name]).get("file")
        if isinstance(source, str | Path) and named.is_path(str(source)):
            path = named.resolve(str(source), folder)
            if not path.exists():
                raise DataError(
                    f"test.{name}: {path} is not there. Check the path; relative paths start in the data folder "
                    "(--data) or here."
                )


def unused(test: Mapping[str, Any], contents: Contents) -> tuple[str, ...]:
    """A sentence where the data have a test part of their own, which none of the sets is."""
    own = any(_table(name, value).get("own") for name, value in test.items())
    if own or TEST not in contents.parts:
        return ()
    return (f"The test part of {contents.name} itself is not used: test names other sets. NAME = true would name it.",)


def _table(name: str, value: Any) -> Mapping[str, Any]:
    if value is True:
        return {"own": True}
    if not isinstance(value, Mapping) or not set(value) & set(KEYS):
        return {"file": value}
    for key in value:
        if key not in KEYS:
            raise DataError(f"test.{name}: {unknown('key of a test set', key, KEYS)}")
    if (value.get("file") is None) != bool(value.get("own")):
        raise DataError(f'test.{name}: wanted is either "file" or own = true.')
    return value


def _read(name: str, source: Any, folder: str | Path | None, task: Task, wanted: Sequence[str]) -> Part:
    try:
        contents = named.locate(source, folder, task, wanted=wanted)
    except DataError as error:
        raise DataError(f"test.{name}: {error}") from error
    return contents.parts[TEST if TEST in contents.parts else "train"]()


def _further(name: str, read: Any, source: Any, folder: str | Path | None, drop: Mapping[str, Any]) -> Part:
    """A part of a data set in tables, from another file."""
    if not isinstance(source, str | Path):
        raise DataError(
            f"test.{name}: found {type(source).__name__}, wanted the path of a table as the training data are."
        )
    try:
        part: Part = read(named.resolve(str(source), folder), drop)
    except DataError as error:
        raise DataError(f"test.{name}: {error}") from error
    return part


def _kept(name: str, read: Callable[[], Part], drop: Mapping[str, Any]) -> Part:
    """A part without the examples whose column has one of these values."""
    part = read()
    if not drop:
        return part
    if part.table is not None:
        raise DataError(f"test.{name}.drop: rows are dropped of a file; give the table's file as this test set.")
    keep = np.ones(len(part.inputs), bool)
    for column, values in drop.items():
        keep &= ~_has(part, column, values, f"test.{name}.drop.{column}")
    if not keep.any():
        raise DataError(f"test.{name}.drop: every example is dropped; leave fewer values out.")
    return replace(
        part,
        inputs=part.inputs[keep],
        labels=part.labels[keep[: len(part.labels)]],
        digests=None if part.digests is None else part.digests[keep],
        named={key: array[keep] for key, array in part.named.items()},
    )


def _has(part: Part, column: str, values: Any, where: str) -> NDArray[np.bool_]:
    """(n,) whether an example's value is among some; one without a label has none. `DataError` for no such column."""
    numbers = {key: array for key, array in part.named.items() if array.ndim == 1}
    if column not in _LABELS and column not in numbers:
        raise DataError(f"{where}: {unknown('column', column, ['label', *numbers])}")
    if not isinstance(values, list | tuple) or not values:
        raise DataError(f"{where}: found {values!r}, wanted a list of at least one value.")
    found = part.labels if column in _LABELS else numbers[column]
    if found.ndim != 1:
        raise DataError(f"{where}: found {found.shape[1]} targets, wanted one label per example.")
    texts = found.dtype.kind == "U"
    if any(isinstance(value, str) != texts for value in values):
        kind = "texts" if texts else "numbers"
        raise DataError(f"{where}: found {list(values)}, and these values are {kind}.")
    hit = np.zeros(len(part.inputs), bool)
    hit[: len(found)] = np.isin(found, list(values))
    return hit
