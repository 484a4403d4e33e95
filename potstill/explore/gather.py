"""A data set for exploring: its splits with their rows, labels as groups, and the columns of a table as written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import data
from potstill.data import columns, named
from potstill.data.fitted import Fitted, Made, Ready
from potstill.data.parts import Contents, Part, Target, row_digests
from potstill.data.table import Table, Tabular, is_number
from potstill.errors import DataError
from potstill.explore.found import Floats, Form
from potstill.types import Task

QUARTERS: Final = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
_BLOCK: Final = 1 << 22  # numbers that are looked at at a time
_WORDS: Final = 3  # on average, of a cell of a column of texts,
_DIFFERENT: Final = 0.5  # of whose cells so many are different


@dataclass(frozen=True, eq=False)
class Rows:
    """One split. `groups` (n,) int64: class, or quarter of the first target, -1 without a label.

    `places` (n,): rows of the part as it was read; `digests` (n, 32) uint8 tell examples apart; `table`: its columns.
    `unit` (F,): what numbers are divided by where examples are compared, so that features of any unit weigh alike.
    """

    source: data.ArraySource
    groups: NDArray[np.int64]
    table: Table | None
    unit: Floats | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def places(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.source.rows.numpy()
        return found

    @property
    def digests(self) -> NDArray[np.uint8]:
        known = self.source.digests
        if known is not None:
            found: NDArray[np.uint8] = known.numpy()[self.places]
            return found
        return np.concatenate([row_digests(block) for _, block in self.raw()])

    def raw(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Blocks of raw examples, as stored, with the number of their first."""
        size = int(np.prod(self.source.raw.shape[1:]))
        step = max(1, _BLOCK // max(size, 1))
        for start in range(0, len(self), step):
            yield start, self.take(np.arange(start, min(start + step, len(self))))

    def flat(self) -> Iterator[tuple[int, Floats]]:
        """Blocks (b, F) float64 of raw examples, with the number of their first."""
        for start, block in self.raw():
            yield start, block.reshape(len(block), -1).astype(np.float64)

    def compared(self) -> Iterator[tuple[int, Floats]]:
        """The same in the units in which examples are compared."""
        for start, block in self.flat():
            yield start, block if self.unit is None else block / self.unit

    def some(self, rows: NDArray[np.int64]) -> Floats:
        """Some examples (b, F) in the units in which they are compared."""
        block = self.take(rows).reshape(len(rows), -1).astype(np.float64)
        return block if self.unit is None else block / self.unit

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some raw examples, as stored."""
        found: NDArray[Any] = self.source.raw.index_select(0, torch.from_numpy(self.places[rows])).numpy()
        return found


@dataclass(frozen=True, eq=False)
class Gathered:
    """A data set, opened for exploring. `texts`: its columns of texts, of which the first is looked at."""

    data: data.Data
    splits: Mapping[str, Rows]
    groups: tuple[str, ...]
    tabular: Tabular | None
    texts: tuple[str, ...] = ()

    @property
    def train(self) -> Rows:
        """The training split."""
        return self.splits["train"]

    @property
    def form(self) -> Form:
        """What kind of examples these are."""
        if self.texts:
            return "texts"
        if self.tabular is not None:
            return "table"
        return "pictures" if len(self.data.spec.shape) == 3 else "rows"


def gather(
    source: Any,
    *,
    folder: Path | None,
    task: Task,
    target: Target,
    validation: float | None,
    test: float | Mapping[str, Any] | None,
    text: str | None = None,
) -> Gathered:
    """Open a data set with all its splits. What pictures cannot be read, or are there twice, is told, not refused.

    `text`: the column of texts to look at; the first one where it is None.
    """
    told = _bearing(source, folder)
    contents = named.locate(told, folder, task, target=target) if isinstance(told, Mapping) else None
    parts = contents.parts if contents is not None else {}
    tabular = contents is not None and contents.tabular
    tables = {"train": parts["train"]().table if tabular else None}
    words = _text_columns(tables["train"], text, contents)
    opened = data.open(
        told,
        folder=folder,
        task=task,
        target=target,
        validation=validation,
        test=test,
        scale_targets=False,
        inputs={words[0]: _unmade(words[0])} if words else None,
    )
    sources = {"train": opened.train, "validation": opened.validation, **opened.tests}
    known = {name: one for name, one in sources.items() if one is not None}
    bounds = _bounds(opened) if task == "regression" else None
    splits = {}
    for name, one in known.items():
        part = name if name in parts or name not in ("validation", "test") else "train"
        if part not in tables:
            tables[part] = parts[part]().table if part in parts and tabular else None
        told_table = tables[part]
        table = None if told_table is None else told_table.table.take(one.rows.numpy())
        splits[name] = Rows(one, _groups(one, bounds), table)
    groups = QUARTERS if bounds is not None else opened.spec.classes
    if len(opened.spec.shape) == 1 and not tabular:
        unit = _unit(splits["train"])
        splits = {name: replace(one, unit=unit) for name, one in splits.items()}
    return Gathered(opened, splits, groups, tables["train"], words)


def _text_columns(told: Tabular | None, text: str | None, contents: Contents | None) -> tuple[str, ...]:
    """The columns of texts, `text` first: those of many words and few equal cells that nobody calls a category."""
    if told is None:
        if text is not None:
            where = "this data set" if contents is None else contents.name
            raise DataError(f'text = "{text}": {where} is no table with columns.')
        return ()
    table, taken = told.table, {*told.targets, *told.options.categorical, *told.options.numeric}
    if text is not None:
        table.column(text)
        if text in told.targets:
            raise DataError(f'text = "{text}": {table.where}: this column is the target.')
    found = [name for name in told.features if name not in taken and _holds_texts(table, name, told)]
    return tuple(dict.fromkeys([*([] if text is None else [text]), *found]))


def _holds_texts(table: Table, name: str, told: Tabular) -> bool:
    column = table.column(name)
    if not isinstance(column, list):
        return False
    there = [cell for cell in columns.words(column, told.options.missing) if cell]
    if not there or all(map(is_number, there)):
        return False
    return sum(len(cell.split()) for cell in there) >= _WORDS * len(there) and len(set(there)) > _DIFFERENT * len(there)


def _unmade(column: str) -> Ready:
    """An input of no numbers: texts are looked at as they are."""

    def make(part: Part) -> Made:
        return Made(torch.zeros(len(part.inputs), 0))

    return Ready(Fitted((0,), make, recipe={"column": column}))


def _unit(train: Rows) -> Floats:
    """Standard deviations of the features over the training examples; 1 for one that does not vary."""
    number = int(np.prod(train.source.raw.shape[1:]))
    total, square = np.zeros(number), np.zeros(number)
    for _, block in train.flat():
        total += block.sum(0)
    for _, block in train.flat():
        square += ((block - total / len(train)) ** 2).sum(0)
    spread = np.sqrt(square / len(train))
    return np.where(spread > 0, spread, 1.0)


def _bearing(source: Any, folder: Path | None) -> Any:
    """Pictures that cannot be read are left out, and so are those of the training part that are test pictures too."""
    table = {"name": source} if isinstance(source, str) else source
    if isinstance(source, Path):
        table = {"name": str(source.absolute())}
    if isinstance(table, Mapping) and "name" in table and named.holds_pictures(table["name"], folder):
        return {"corrupt": "skip", "duplicates": "drop", **table}
    return table


def _bounds(opened: data.Data) -> Floats:
    """Quartiles of the first target over the labelled training examples."""
    labels = opened.train.labels[opened.train.labelled][:, 0].double().numpy()
    return np.asarray(np.quantile(labels, [0.25, 0.5, 0.75]), np.float64)


def _groups(source: data.ArraySource, bounds: Floats | None) -> NDArray[np.int64]:
    labels = source.labels.numpy()
    found = labels.astype(np.int64) if bounds is None else np.searchsorted(bounds, labels[:, 0], side="right")
    return np.where(source.labelled.numpy(), found, -1).astype(np.int64)
