"""Tables as a source: which columns are targets, what their labels are, and the published sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill.data import columns
from potstill.data.parts import Contents, Part, Target
from potstill.data.table import MISSING, Format, Options, Table, Tabular, is_number, read
from potstill.errors import DataError
from potstill.registry import Registry
from potstill.types import Task


@dataclass(frozen=True)
class Tables:
    """A data set in tables: how each part, and any further file of the kind, is read.

    `target`: which columns are labels if nobody says otherwise. `features`: the columns that may be inputs without
    being named; all but the targets where it is empty.
    """

    name: str
    parts: Mapping[str, Callable[[], Table]]
    read: Callable[[Path], Table] = read
    options: Options = field(default_factory=Options)
    target: Target = 1
    features: tuple[str, ...] = ()

    def contents(self) -> Contents:
        """Before it is said which columns are labels."""
        return Contents(self.name, {}, tabular=True, targeted=self._targeted)

    def _targeted(self, target: Target, task: Task) -> Contents:
        first = self.parts["train"]()
        targets = target_names(self.target if target is None else target, first)
        for word in (*self.options.categorical, *self.options.numeric, *self.options.drop):
            first.column(word)
        if task == "regression":
            return self._told(targets, None)
        if len(targets) > 1:
            raise DataError(
                f'{first.where}: found {len(targets)} targets ({", ".join(targets)}) with task = "{task}", wanted one. '
                'Several are a regression: task = "regression".'
            )
        classes = self.options.classes or _classes(first, targets[0], self.options)
        return self._told(targets, classes)

    def _told(self, targets: tuple[str, ...], classes: tuple[str, ...] | None) -> Contents:
        parts = {name: partial(self._part, table, targets, classes) for name, table in self.parts.items()}

        def further(path: Path, drop: Mapping[str, Sequence[Any]]) -> Part:
            return self._part(lambda: without(self.read(path), drop), targets, classes)

        told = None if classes is not None else targets
        return Contents(self.name, parts, classes, targets=told, tabular=True, further=further)

    def _part(self, read: Callable[[], Table], targets: tuple[str, ...], classes: tuple[str, ...] | None) -> Part:
        """One part, rows without labels last."""
        table, missing = read(), self.options.missing
        for name in targets:
            table.column(name)
        lacks = np.zeros(len(table), bool)
        for name in targets:
            lacks |= np.array([not word for word in columns.words(table.column(name), missing)], bool)
        if not len(table) or lacks.all():
            raise DataError(f"{table.where}: no row has a value of {', '.join(targets)}; wanted at least one.")
        notes: tuple[str, ...] = ()
        if lacks.any():
            table = table.take(np.argsort(lacks, kind="stable"))
            notes = (f"{table.where}: {int(lacks.sum()):,} rows without {' or '.join(targets)} carry no label.",)
        labels = _labels(table, targets, classes, options=self.options)[: int((~lacks).sum())]
        left_out = {*targets, *self.options.drop}
        features = self.features or tuple(name for name in table.names if name not in left_out)
        told = Tabular(table, tuple(name for name in features if name not in left_out), targets, self.options)
        where = f"{table.where}[{', '.join(targets)}]"
        empty = np.zeros((len(table), 0), np.uint8)
        return Part(empty, labels, table.where, table.digests(told.identity), where, notes, table=told)


def without(table: Table, drop: Mapping[str, Sequence[Any]]) -> Table:
    """The table without the rows that hold one of some values in a column: `{"label": [2]}`."""
    keep = np.ones(len(table), bool)
    for name, values in drop.items():
        cells = {str(value) for value in values}
        keep &= np.array([cell not in cells for cell in table.texts(name)], bool)
    return table.take(np.flatnonzero(keep))


def target_names(target: Target, table: Table) -> tuple[str, ...]:
    """Names of the targets: a name, a list of names, or so many columns at the end. `DataError` for an unknown one."""
    if isinstance(target, bool) or target is None or (isinstance(target, int) and not 0 < target < len(table.names)):
        raise DataError(
            f"target = {target!r}: wanted the name of a column, a list of names, or how many of the {len(table.names)} "
            "columns at the end."
        )
    if isinstance(target, int):
        return table.names[-target:]
    names = (target,) if isinstance(target, str) else tuple(target)
    if not names or len(set(names)) < len(names):
        raise DataError(f"target = {list(names)}: wanted different columns, at least one.")
    for name in names:
        table.column(name)
    return names


def _classes(table: Table, target: str, options: Options) -> tuple[str, ...]:
    """The words of the target's column, numbers by size, then texts."""
    found = sorted(set(columns.words(table.column(target), options.missing)) - {""}, key=columns.natural)
    measured = [word for word in found if is_number(word) and not float(word).is_integer()]
    if measured and all(map(is_number, found)):
        raise DataError(
            f'{table.where}: the target "{target}" holds measured numbers, such as {measured[0]}; say task = '
            '"regression". (If they are names of classes, list them: classes = [...] in the table of the source.)'
        )
    return tuple(found)


def _labels(
    table: Table, targets: tuple[str, ...], classes: tuple[str, ...] | None, *, options: Options
) -> NDArray[np.str_] | NDArray[np.float32]:
    """(n,) texts, or (n, D) float32 of a regression."""
    if classes is not None:
        return np.array(columns.words(table.column(targets[0]), options.missing))
    found = [columns.numbers(table.column(name), name, options.missing, where=table.where) for name in targets]
    return np.stack(found, axis=1).astype(np.float32)


def file(
    path: Path,
    *,
    separator: str | None = None,
    header: bool | None = None,
    columns: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    classes: tuple[str, ...] = (),
) -> Tables:
    """A table in a file: .csv, .tsv, .txt or .data (plain or .gz), .parquet, or .npz with one array of rows."""
    form, options = Format(separator, header, columns), Options(categorical, numeric, drop, missing, classes)
    name = path.name.partition(".")[0]
    return Tables(name, {"train": cache(partial(read, path, form))}, partial(read, form=form), options)


_registry: Final = Registry("table", {"file": file}, DataError)
KEYS: Final = tuple(_registry.parameters("file"))


def checked(table: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a source's table, converted; `DataError` for a wrong one."""
    return _registry.expand({"name": "file", **{key: table[key] for key in table if key != "name"}})


def open_file(path: Path, table: Mapping[str, Any]) -> Contents:
    """A file, with the keys of the source's table."""
    keys = checked(table)
    del keys["name"]
    return file(path, **keys).contents()


def _found(name: str, files: tuple[str, ...], where: str, folder: Path | None) -> list[Path]:
    """The files of a published set below the user's data folder, in its folder `tables`, or in it."""
    places = [] if folder is None else [folder / name, folder / "tables", folder]
    for place in places:
        paths = [next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None) for file in files]
        if None not in paths:
            return [path for path in paths if path is not None]
    looked = f"looked in {', '.join(map(str, places))}" if places else "no data folder is given"
    raise DataError(
        f'"{name}" is not there: {looked}. Wanted {" and ".join(files)}, plain or .gz, published at {where}. Give the '
        "folder that holds tables/: --data FOLDER, folder=... in Python, or $POTSTILL_DATA."
    )


_UCI: Final = "https://archive.ics.uci.edu"


def adult(folder: Path | None) -> Contents:
    """Adult (Becker and Kohavi 1996): does somebody earn above 50,000 dollars? 32,561 and 16,281 rows, 14 columns."""
    paths = _found("adult", ("adult.data", "adult.test"), f"{_UCI}/dataset/2/adult (with a header)", folder)
    parts = {name: cache(partial(read, path)) for name, path in zip(("train", "test"), paths, strict=True)}
    return Tables("adult", parts).contents()


def sarcos(folder: Path | None) -> Contents:
    """Inverse dynamics of a SARCOS arm (Vijayakumar and Schaal 2000): 4,449 rows, 21 columns, 7 torques to predict.

    Positions, velocities and accelerations of seven joints are the inputs; a torque that is no target is one only where
    it is named.
    """
    where = "http://gaussianprocess.org/gpml/data (sarcos_inv_test, as an array of 28 columns)"
    (path,) = _found("sarcos", ("sarcos_inv_test.npz",), where, folder)
    joints = [f"{what}{joint}" for what in ("position", "velocity", "acceleration") for joint in range(1, 8)]
    torques = [f"torque{joint}" for joint in range(1, 8)]
    form = Format(columns=(*joints, *torques))
    return Tables("sarcos", {"train": cache(partial(read, path, form))}, target=7, features=tuple(joints)).contents()


_WINE: Final = (
    "fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide",
    "total sulfur dioxide", "density", "pH", "sulphates", "alcohol", "quality",
)  # fmt: skip
_NAVAL: Final = (
    "lever position", "ship speed", "turbine shaft torque", "turbine rate", "generator rate", "starboard torque",
    "port torque", "turbine exit temperature", "inlet temperature", "outlet temperature", "turbine exit pressure",
    "inlet pressure", "outlet pressure", "exhaust pressure", "injection control", "fuel flow", "compressor decay",
    "turbine decay",
)  # fmt: skip
_CONCRETE: Final = (
    "cement", "slag", "fly ash", "water", "superplasticizer", "coarse aggregate", "fine aggregate", "age", "strength",
)  # fmt: skip
_YACHT: Final = (
    "buoyancy", "prismatic coefficient", "length-displacement", "beam-draught", "length-beam", "Froude number",
    "resistance",
)  # fmt: skip
_POWER: Final = ("temperature", "exhaust vacuum", "pressure", "humidity", "energy")


def _regression(name: str, names: tuple[str, ...], where: str, folder: Path | None, *, targets: int = 1) -> Contents:
    """Numbers without a header, the targets last, none of which is an input of another."""
    (path,) = _found(name, (f"{name}.txt",), f"{_UCI}/dataset/{where}", folder)
    form = Format(header=False, columns=names)
    return Tables(
        name, {"train": cache(partial(read, path, form))}, target=targets, features=names[:-targets]
    ).contents()


def concrete(folder: Path | None) -> Contents:
    """Compressive strength of concrete (Yeh 1998): 1,030 rows, 8 columns."""
    return _regression("concrete", _CONCRETE, "165", folder)


def power_plant(folder: Path | None) -> Contents:
    """Energy of a combined cycle power plant (Tufekci 2014): 9,568 rows, 4 columns."""
    return _regression("power-plant", _POWER, "294", folder)


def wine_quality_red(folder: Path | None) -> Contents:
    """Quality of red wines from 3 to 8 (Cortez et al. 2009), as classes or as a number: 1,599 rows, 11 columns."""
    return _regression("wine-quality-red", _WINE, "186", folder)


def yacht(folder: Path | None) -> Contents:
    """Resistance of sailing yachts (Gerritsma, Onnink and Versluis 1981): 308 rows, 6 columns."""
    return _regression("yacht", _YACHT, "243", folder)


def naval_propulsion_plant(folder: Path | None) -> Contents:
    """Decay of a gas turbine's compressor and turbine (Coraddu et al. 2014): 11,934 rows, 16 columns, 2 targets."""
    return _regression("naval-propulsion-plant", _NAVAL, "316", folder, targets=2)


def tweets(folder: Path | None) -> Contents:
    """Tweets that are glad (1) or sad (0), of Sentiment140 (Go, Bhayani and Huang 2009): 98,204, and 9,981 to test.

    The columns are `label` and `text`: an input has to say what becomes of the text. Training labels were set by the
    smileys that were taken out, and glad and sad ones are of different dates.
    """
    where = "https://huggingface.co/datasets/stanfordnlp/sentiment140 (a part of it, as CSV with a header label,text)"
    paths = _found("tweets", ("train.csv", "test-random.csv"), where, folder)
    parts = {name: cache(partial(read, path)) for name, path in zip(("train", "test"), paths, strict=True)}
    return Tables("tweets", parts, target="label").contents()


SOURCES: Final[Mapping[str, Callable[..., Contents]]] = {
    "adult": adult,
    "concrete": concrete,
    "naval-propulsion-plant": naval_propulsion_plant,
    "power-plant": power_plant,
    "sarcos": sarcos,
    "tweets": tweets,
    "wine-quality-red": wine_quality_red,
    "yacht": yacht,
}
