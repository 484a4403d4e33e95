"""Columns of a table as numbers: scaled, or one for each category, by what the training rows alone tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data.fitted import Fitted, Made
from potstill.data.parts import Part
from potstill.data.table import Column, Options, Table, Tabular, is_number
from potstill.errors import DataError, unknown

_MOST: Final = 1000  # categories of a column
_SHOWN: Final = 5  # names in a message
_OWN: Final = 0.5  # a column with more words than so many times the rows is likely no category,
_FEW: Final = 20  # if there are more than so many


@dataclass(frozen=True)
class Number:
    """A column of numbers: (x - mean) / std, 0 where there is none; then `flagged` adds 1 in a column of its own."""

    name: str
    mean: float
    std: float
    flagged: bool

    @property
    def width(self) -> int:
        return 1 + self.flagged

    def encode(self, column: Column, options: Options, where: str) -> NDArray[np.float64]:
        """(n, width)."""
        values = numbers(column, self.name, options.missing, where=where)
        lacks = np.isnan(values)
        scaled = np.where(lacks, 0.0, (values - self.mean) / self.std)
        return np.stack([scaled, lacks], axis=1)[:, : self.width]


@dataclass(frozen=True)
class Category:
    """A column of words: 1 for its own of `values`, 0 for the others; all 0 for a word that training rows do not have.

    A missing word is a word like others.
    """

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.values)

    def encode(self, column: Column, options: Options, where: str) -> NDArray[np.float64]:  # noqa: ARG002
        """(n, width)."""
        place = {word: i for i, word in enumerate(self.values)}
        found = np.array([place.get(word, -1) for word in words(column, options.missing)])
        return np.asarray(found[:, None] == np.arange(len(self.values)), np.float64)


Encoder: TypeAlias = Number | Category


def encoded(table: Table, encoders: Sequence[Encoder], options: Options) -> NDArray[np.float32]:
    """(n, F) float32: every column by its encoder, side by side."""
    out = np.empty((len(table), sum(one.width for one in encoders)), np.float32)
    start = 0
    for one in encoders:
        out[:, start : start + one.width] = one.encode(table.column(one.name), options, table.where)
        start += one.width
    return out


def recipe_of(encoders: Sequence[Encoder]) -> list[dict[str, Any]]:
    """Encoders as JSON."""
    kinds = {Number: "number", Category: "category"}
    return [{"as": kinds[type(one)], **asdict(one)} for one in encoders]


def from_recipe(told: Sequence[Mapping[str, Any]]) -> list[Encoder]:
    """The inverse of `recipe_of`."""
    made: list[Encoder] = []
    for one in told:
        if one["as"] == "number":
            made.append(Number(one["name"], one["mean"], one["std"], one["flagged"]))
        else:
            made.append(Category(one["name"], tuple(one["values"])))
    return made


@dataclass(frozen=True)
class Columns:
    """Columns of a table as one row of numbers: those that match `columns` (names, or patterns such as "age*"), or all.

    All are those that are neither a target nor dropped by the source.
    """

    columns: tuple[str, ...] = ()

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:
        """What encodes, from the training rows (m,) of a part."""
        told = table_of(part)
        chosen = told.table.take(rows)
        made = [_encoder(chosen, name, told.options) for name in self.names(told)]
        encoders = [one for one in made if one is not None]
        if not encoders:
            raise DataError(f"{part.where}: no column holds a value in the training rows; wanted at least one.")
        recipe = {"kind": "table", "columns": recipe_of(encoders), **layout(told)}
        return replace(by_recipe(recipe), notes=_notes(chosen, encoders, made, told))

    def names(self, told: Tabular) -> list[str]:
        """The columns that are meant, in the order of the table; `DataError` for a pattern that matches none."""
        if not self.columns:
            return list(told.features)
        known = [name for name in told.table.names if name not in (*told.targets, *told.options.drop)]
        for pattern in self.columns:
            if any(fnmatchcase(name, pattern) for name in known):
                continue
            meant = [name for name in told.targets if fnmatchcase(name, pattern)]
            if pattern in told.targets:
                raise DataError(f'{told.table.where}: the column "{pattern}" is a target and cannot be an input too.')
            if meant:
                raise DataError(
                    f'{told.table.where}: all columns that match "{pattern}" are targets ({_some(meant)}), which '
                    f'cannot be inputs too. Name those that are targets: target = "{meant[0]}".'
                )
            raise DataError(f"{told.table.where}: {unknown('column', pattern, known)}")
        return [name for name in known if any(fnmatchcase(name, pattern) for pattern in self.columns)]


def by_recipe(recipe: Mapping[str, Any]) -> Fitted:
    """As it was fitted before, whatever the rows are now."""
    encoders, missing = from_recipe(recipe["columns"]), tuple(recipe["missing"])

    def make(part: Part) -> Made:
        return Made(torch.from_numpy(encoded(table_of(part).table, encoders, Options(missing=missing))))

    return Fitted((sum(one.width for one in encoders),), make, recipe=recipe)


def decoded(recipe: Mapping[str, Any], row: Sequence[float]) -> dict[str, float | str | None]:
    """One row as `encoded`, back to what the columns hold; None where something was missing or unknown."""
    found: dict[str, float | str | None] = {}
    start = 0
    for one in from_recipe(recipe["columns"]):
        part = list(row[start : start + one.width])
        start += one.width
        if isinstance(one, Category):
            found[one.name] = one.values[part.index(max(part))] if max(part, default=0) > 0 else None
        else:
            found[one.name] = None if one.flagged and part[1] else _told(part[0], one)
    return found


def _told(scaled: float, one: Number) -> float:
    """A number as it was, to the digits that float32 keeps beside the column's mean and spread."""
    size = max(abs(one.mean), abs(one.std), abs(scaled * one.std))
    return round(scaled * one.std + one.mean, 6 - math.floor(math.log10(size))) if size > 0 else one.mean


def layout(told: Tabular) -> dict[str, Any]:
    """What a table of new rows has to be read by."""
    return {
        "missing": list(told.options.missing),
        "targets": list(told.targets),
        "header": told.table.form.header,
        "names": list(told.table.names),
    }


def table_of(part: Part) -> Tabular:
    """The table of a part; `DataError` where it has none."""
    if part.table is None:
        raise DataError(f"{part.where}: found no table, which this input is made from.")
    return part.table


def numbers(column: Column, name: str, missing: Collection[str], *, where: str) -> NDArray[np.float64]:
    """(n,) float64, NaN where there is none; `DataError` for a cell that is no finite number."""
    if not isinstance(column, list):
        values = column
    else:
        cells = ["nan" if cell in missing else cell for cell in column]
        try:
            values = np.array(list(map(float, cells)), np.float64)
        except ValueError:
            row = next(i for i, cell in enumerate(cells) if not is_number(cell))
            raise DataError(
                f'{where}: row {row} (from 0) of column "{name}" holds "{cells[row]}", where the training rows hold '
                f'numbers. Mend it, say that it is missing (missing = [..., "{cells[row]}"]), or take the column as '
                f'categories (categorical = ["{name}"]).'
            ) from None
    if np.isinf(values).any():
        raise DataError(f'{where}: row {int(np.isinf(values).argmax())} (from 0) of column "{name}" is infinite.')
    return values


def words(column: Column, missing: Collection[str]) -> list[str]:
    """(n,) texts; "" for what is missing."""
    cells = Table({"": column}, "").texts("")
    return ["" if cell in missing else cell for cell in cells]


def _encoder(chosen: Table, name: str, options: Options) -> Encoder | None:
    """Of one column, from training rows; None where these hold no value."""
    column = chosen.column(name)
    there = sorted({word for word in words(column, options.missing) if word})
    if not there:
        return None
    numeric = name in options.numeric or (
        name not in options.categorical and (not isinstance(column, list) or all(map(is_number, there)))
    )
    if numeric:
        values = numbers(column, name, options.missing, where=chosen.where)
        known = values[~np.isnan(values)]
        flagged = len(known) < len(values)
        if known.min() == known.max():  # whose standard deviation may come out as a rounding error
            return Number(name, float(known[0]), 1.0, flagged)
        return Number(name, float(known.mean()), float(known.std()), flagged)
    found = sorted(set(words(column, options.missing)), key=natural)
    if len(found) > _MOST:
        raise DataError(
            f'{chosen.where}: the column "{name}" holds {len(found):,} different words, such as "{found[-1][:40]}", '
            f"more than {_MOST:,} categories. Leave it out (drop), or take it as text: "
            f'inputs = {{ words = {{ column = "{name}", as = "hashing" }} }}.'
        )
    return Category(name, tuple(found))


def natural(word: str) -> tuple[float, str]:
    """Order of words: numbers by size, then texts."""
    return (float(word), word) if is_number(word) and math.isfinite(float(word)) else (math.inf, word)


def _notes(
    chosen: Table, encoders: Sequence[Encoder], made: Sequence[Encoder | None], told: Tabular
) -> tuple[str, ...]:
    """What was missing."""
    lacks: dict[str, NDArray[np.bool_]] = {}
    for one in encoders:
        empty = np.array([not word for word in words(chosen.column(one.name), told.options.missing)], bool)
        if empty.any():
            lacks[one.name] = empty
    notes = []
    if lacks:
        rows = int(np.any(list(lacks.values()), axis=0).sum())
        numeric = any(isinstance(one, Number) and one.name in lacks for one in encoders)
        how = ["numbers are filled with the mean and flagged"] if numeric else []
        how += (
            ["a missing category is one of its own"]
            if any(isinstance(one, Category) and one.name in lacks for one in encoders)
            else []
        )
        notes.append(
            f"{chosen.where}: {rows:,} of {len(chosen):,} training rows lack a value, in {_some(list(lacks))}; "
            f"{' and '.join(how)}."
        )
    for one in encoders:
        if isinstance(one, Category) and len(one.values) > max(_OWN * len(chosen), _FEW):
            notes.append(
                f'{chosen.where}: the column "{one.name}" holds {len(one.values):,} different words in {len(chosen):,} '
                f'training rows, and each becomes an input. Is it a name or a key? Leave it out: drop = ["{one.name}"].'
            )
    empty_columns = len(made) - len(encoders)
    if empty_columns:
        notes.append(f"{chosen.where}: {empty_columns} columns hold no value in the training rows and are left out.")
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
