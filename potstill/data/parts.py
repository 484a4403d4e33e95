"""What a reader hands over: parts (train, validation, test) that are read when they are asked for, and not before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError
from potstill.types import Task

if TYPE_CHECKING:
    from potstill.data.table import Tabular

Target: TypeAlias = "str | int | Sequence[str] | None"

TEST: Final = "test"
"""The name of a test set that has none of its own."""


@dataclass(frozen=True)
class Part:
    """One part as stored (see `checks`): inputs (n, *shape); labels (m,), of a regression (m, D) float32, of the first
    m <= n rows; the rest has none.

    `digests` (n, 32) uint8 is the sha256 of each row's bytes, where it is known already. For messages: `where` the
    inputs are, and `where_labels` the labels, if in another array. `notes`: sentences for the user. `named`: every
    input by name, where they have names; `inputs` is then the first of them, and `digests` tells all of them. `table`:
    the columns from which inputs are made; `inputs` is then (n, 0).
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]
    where: str
    digests: NDArray[np.uint8] | None = None
    where_labels: str = ""
    notes: tuple[str, ...] = ()
    named: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    table: Tabular | None = None

    def __post_init__(self) -> None:
        if len(self.labels) > len(self.inputs):
            raise DataError(f"{self.where}: found {len(self.labels)} labels for {len(self.inputs)} examples.")
        for name, array in self.named.items():
            if len(array) != len(self.inputs):
                first = next(iter(self.named))
                raise DataError(
                    f'{self.where}: found {len(self.inputs)} examples of the input "{first}" and {len(array)} of '
                    f'"{name}", wanted both of every example.'
                )


@dataclass(frozen=True)
class Contents:
    """A data set before it is split. `parts` has "train" and perhaps "validation" and "test".

    `scale` is the preprocessing of uint8 inputs. `classes`, `targets`: the names, where the reader knows them.
    `redrawn(seed)`: the same with examples drawn anew, where the program draws them. `truth()`: (F, K) the linear law
    of the logits by which labels are drawn, where it is such a one. `inputs`: the names of the inputs, in order; none
    where the data have one without a name. `tabular`: whether parts are tables. `targeted(target, task)`: the same once
    it is said which columns are labels, before which it has no parts. `further(path, drop)`: a part from another file
    of the kind, without the rows that hold one of some values in a column.
    """

    name: str
    parts: Mapping[str, Callable[[], Part]]
    classes: tuple[str, ...] | None = None
    scale: float = 1 / 255
    redrawn: Callable[[int], Contents] | None = None
    targets: tuple[str, ...] | None = None
    truth: Callable[[], NDArray[np.float32]] | None = None
    inputs: tuple[str, ...] = ()
    tabular: bool = False
    targeted: Callable[[Target, Task], Contents] | None = None
    further: Callable[[Path, Mapping[str, Sequence[Any]]], Part] | None = None


def labelled_part(inputs: NDArray[Any], labels: NDArray[Any], where: str, where_labels: str) -> Part:
    """A part whose every row has a label; `DataError` where the counts differ."""
    if len(inputs) != len(labels):
        raise DataError(
            f"{where} and {where_labels}: found {len(inputs)} examples and {len(labels)} labels, wanted equally many."
        )
    return Part(inputs, labels, where, where_labels=where_labels)


def row_digests(inputs: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, 32) uint8: sha256 of each row's bytes. About 1 us per row of 784 bytes."""
    rows = np.ascontiguousarray(inputs).reshape(len(inputs), -1).view(np.uint8)
    joined = b"".join([hashlib.sha256(row.data).digest() for row in rows])
    return np.frombuffer(bytearray(joined), np.uint8).reshape(len(inputs), 32)


def joint_digests(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """(n, 32) uint8: sha256 of each row of all inputs (sha256 of the sha256 of every one's row, sorted by name)."""
    return row_digests(np.concatenate([row_digests(inputs[name]) for name in sorted(inputs)], axis=1))
