"""Tables: columns by name, from CSV and other texts (plain or gzip), .npz arrays and Parquet; cells as written.

The standard library reads texts (adult, 32,561 rows of 15: 0.2 s); Parquet needs pyarrow (extra `tables`).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.data import arrays
from potstill.errors import DataError, MissingExtraError, unknown

Column: TypeAlias = "list[str] | NDArray[np.float64]"

TEXTS: Final = (".csv", ".tsv", ".txt", ".data", ".test")
SUFFIXES: Final = (*TEXTS, ".parquet")
MISSING: Final = ("", "?", "NA", "NaN", "nan", "null", "NULL")
SPACE: Final = "space"  # cells apart by any number of blanks and tabs
_SEPARATORS: Final = (",", ";", "\t", "|")
_LOOKED_AT: Final = 20  # rows that tell separator and header


@dataclass(frozen=True)
class Format:
    """How a text is cut into cells; its first rows tell what is None. `columns`: names, where there is no header."""

    separator: str | None = None
    header: bool | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name, equally long: texts without blanks around them, or numbers with NaN where there is none.

    `where` it is, for messages; `form`: how it was read.
    """

    columns: Mapping[str, Column] = field(repr=False)
    where: str
    form: Format = Format()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.columns)

    def column(self, name: str) -> Column:
        """One column; `DataError` where there is none of that name."""
        if name not in self.columns:
            raise DataError(f"{self.where}: {unknown('column', name, self.columns)}")
        return self.columns[name]

    def texts(self, name: str) -> list[str]:
        """The cells of one column as texts; numbers as they are written shortest, "" for NaN."""
        found = self.column(name)
        if isinstance(found, list):
            return found
        return ["" if number != number else _written(number) for number in found.tolist()]

    def take(self, rows: NDArray[np.int64]) -> Table:
        """These rows, in this order."""
        chosen = rows.tolist()
        columns = {
            name: [found[row] for row in chosen] if isinstance(found, list) else found[rows]
            for name, found in self.columns.items()
        }
        return replace(self, columns=columns)

    def digests(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """(n, 32) uint8: sha256 of each row's cells in these columns."""
        cells = zip(*(self.texts(name) for name in names), strict=True)
        joined = b"".join([hashlib.sha256("\x1f".join(row).encode()).digest() for row in cells])
        return np.frombuffer(bytearray(joined), np.uint8).reshape(-1, 32)


def _written(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


@dataclass(frozen=True)
class Options:
    """What a user says about columns: which are categories or numbers whatever they look like, which are left out.

    `missing`: what stands for no value. `classes`: of the target, in order; as they sort where there are none.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    missing: tuple[str, ...] = MISSING
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Tabular:
    """A table that is a part of a data set: the columns that are its inputs if nobody names others, and its targets."""

    table: Table
    features: tuple[str, ...]
    targets: tuple[str, ...]
    options: Options

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns by which rows are told apart: all but the targets."""
        return tuple(name for name in self.table.names if name not in self.targets)


def is_table(path: Path) -> bool:
    """By the end of its name."""
    return _suffix(path) in SUFFIXES


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def read(path: Path, form: Format = Format()) -> Table:
    """A table from a file, by the end of its name.

    `DataError` where it is damaged, its rows are of different lengths, or its columns cannot be told apart;
    `MissingExtraError` for Parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        return _named(_parquet(path), form, str(path))
    if path.suffix == ".npz":
        return _named(_npz(path), form, str(path))
    return parse(_text(path), str(path), form)


def parse(text: str, where: str, form: Format = Format()) -> Table:
    """A table from a text."""
    if not text.strip():
        raise DataError(f"{where} is empty: found no row, wanted a table.")
    separator = form.separator or _separator(text, where)
    rows = list(_rows(text, separator, where))
    header = _is_header(rows[0]) if form.header is None else form.header
    names = rows.pop(0) if header else list(form.columns) or [str(i + 1) for i in range(len(rows[0]))]
    if form.columns and header:
        raise DataError(f"{where}: found names of columns in its first row; leave columns out, or say header = false.")
    for number, row in enumerate(rows, 1 + header):
        if len(row) != len(names):
            raise DataError(
                f"{where}: row {number} has {len(row)} cells, wanted {len(names)} as in row 1: {', '.join(row[:4])}, "
                "... Say how cells are separated (separator), or mend the row."
            )
    if not rows:
        raise DataError(f"{where}: found names of columns and no row below them.")
    names = [name or f"column{i}" for i, name in enumerate(names, 1)]
    _different(names, where)
    columns: list[list[str]] = [list(cells) for cells in zip(*rows, strict=True)]
    return Table(
        dict(zip(names, columns, strict=True)), where, Format(separator, header, () if header else tuple(names))
    )


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Copy it again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8 ({error.reason} at byte {error.start}). Convert it.") from error


def _rows(text: str, separator: str, where: str) -> Iterator[list[str]]:
    """Cells row by row, without blanks around them; empty lines are left out."""
    if separator == SPACE:
        yield from filter(None, map(str.split, text.splitlines()))
        return
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True):
            cells = [cell.strip() for cell in row]
            if cells and cells != [""]:
                yield cells
    except csv.Error as error:
        raise DataError(f"{where} cannot be cut into cells ({error}).") from error


def _separator(text: str, where: str) -> str:
    """What cuts the first rows into equally many cells, more than one; else a comma, where it cuts none of them."""
    told: dict[str, set[int]] = {}
    for separator in (*_SEPARATORS, SPACE):
        try:
            told[separator] = {len(row) for row in islice(_rows(text, separator, where), _LOOKED_AT)}
        except DataError:
            continue
        if len(told[separator]) == 1 and told[separator] != {1}:
            return separator
    if told.get(",") == {1}:
        return ","
    raise DataError(
        f"{where}: its first rows are not cut into equally many cells by commas, semicolons, tabs, bars or blanks. Say "
        f'which: separator = ";" (or "{SPACE}") in the table of the source.'
    )


def _is_header(row: Sequence[str]) -> bool:
    """Names: different texts, none of them empty or a number."""
    return len(set(row)) == len(row) and not any(not cell or is_number(cell) for cell in row)


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _different(names: Sequence[str], where: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f'{where}: found two columns with the name "{twice}"; wanted different names.')


def _named(columns: Mapping[str, Column], form: Format, where: str) -> Table:
    """With names of the user's, where those of the file are only numbers."""
    names = list(form.columns or columns)
    if len(names) != len(columns):
        raise DataError(f"{where}: found {len(columns)} columns, and {len(names)} names for them in columns.")
    _different(names, where)
    return Table(dict(zip(names, columns.values(), strict=True)), where, Format(columns=tuple(names)))


def _npz(path: Path) -> dict[str, Column]:
    loaders = arrays.npz_loaders(path)
    found = {key: np.asarray(load()) for key, load in loaders.items()}
    if len(found) != 1 or next(iter(found.values())).ndim != 2:
        told = ", ".join(f"{key} {array.shape}" for key, array in found.items())
        raise DataError(f"{path}: found the arrays {told}; wanted one of rows and columns to take a target from.")
    array = next(iter(found.values()))
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: found an array of type {array.dtype}, wanted numbers.")
    return {str(i): column for i, column in enumerate(array.T.astype(np.float64), 1)}


def _parquet(path: Path) -> dict[str, Column]:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet needs pyarrow: pip install 'potstill[tables]', or save the table as CSV."
        ) from error
    try:
        found = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}).") from error
    columns: dict[str, Column] = {}
    for name in found.column_names:
        values: Any = found[name]
        numbers = types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type)
        cells: Iterable[Any] = values.to_pylist()
        if numbers or types.is_decimal(values.type):
            columns[name] = np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
        else:
            columns[name] = ["" if cell is None else str(cell).strip() for cell in cells]
    return columns
