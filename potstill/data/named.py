"""Data sets by name or path: built-in ones, drawn ones, files and folders of idx, numpy, pictures, tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from potstill.data import arrays, photos, pixels, published, synthetic, tabular, tree, unpack
from potstill.data.parts import Contents, Target
from potstill.data.table import is_table
from potstill.errors import DataError, did_you_mean
from potstill.registry import Registry
from potstill.types import Task

_NAMES: Final = ("classes", "target_names")
SUPPORTED: Final = (
    "the names digits, diabetes, mnist, fashion-mnist, cats-dogs-64, softmax-linear, linear, privileged and those of "
    "published tables (adult, ...); a folder with idx files (plain or .gz) or with .npy files; a .npz file; a table "
    "(.csv, .tsv, .txt, .data, plain or .gz, .parquet); a folder of pictures in folders of classes (CLASS/*.jpg, or "
    "train/CLASS/*.jpg and test/CLASS/*.jpg), or a .tar, .tar.xz, .tar.gz, .tar.bz2 or .zip of one; arrays from Python"
)


registry: Final = Registry(
    "data source",
    {
        **published.SOURCES,
        "cats-dogs-64": photos.cats_dogs_64,
        **tabular.SOURCES,
        **synthetic.SOURCES,
    },
    DataError,
)


def resolve(text: str, folder: str | Path | None) -> Path:
    """A path; a relative one starts in the user's data folder if it is there, else in the working folder."""
    path, place = Path(text).expanduser(), _data_folder(folder)
    if path.is_absolute() or place is None:
        return path
    if (place / path).exists():
        return place / path
    return place if place.name == path.name and not path.exists() else path


def _from_path(path: Path, table: Mapping[str, Any], task: Task, *, wanted: Sequence[str], target: Target) -> Contents:
    if not path.exists():
        raise DataError(
            f"{path} is not there. Check the path; relative paths start in the data folder (--data) or here."
        )
    if is_table(path) or (path.suffix == ".npz" and target is not None):
        return tabular.open_file(path, table)
    idx_files = path.is_dir() and (any(path.glob("*-ubyte")) or any(path.glob("*-ubyte.gz")))
    if not idx_files and (unpack.is_archive(path) or _holds_pictures(path)):
        return photos.contents(path, table)
    for word in table:
        if word not in ("name", *_NAMES):
            raise DataError(
                f'source: "{word}" is a key of pictures, and the data in "{path}" are none. Known: {", ".join(_NAMES)}.'
            )
    wrong, right = _NAMES if task == "regression" else _NAMES[::-1]
    if wrong in table:
        raise DataError(f'source: found "{wrong}" with task = "{task}", whose names are called "{right}".')
    names = table.get(right)
    if idx_files:
        return published.from_idx_folder(path, classes=table.get("classes"))
    if path.is_dir() and any(path.glob("*.npy")):
        return arrays.from_npy_folder(path, task=task, names=names, wanted=wanted)
    if path.is_dir():
        raise DataError(
            f"{path}: found a folder with neither idx nor .npy files nor pictures. Supported now: {SUPPORTED}."
        )
    if photos.is_picture(path):
        raise DataError(f"{path}: found one picture, wanted a folder of them. Supported now: {SUPPORTED}.")
    if path.suffix == ".npz":
        return arrays.from_npz(path, task=task, names=names, wanted=wanted)
    if path.suffix == ".npy":
        raise DataError(
            f"{path}: found one array, wanted inputs and labels. Put inputs.npy and labels.npy into one folder and "
            "give the folder, or write both into one .npz file."
        )
    raise DataError(
        f'{path}: found a file of the kind "{"".join(path.suffixes) or "unknown"}". Supported now: {SUPPORTED}.'
    )


def _data_folder(folder: str | Path | None) -> Path | None:
    found = folder or os.environ.get("POTSTILL_DATA")
    return Path(found).expanduser() if found else None


def names() -> list[str]:
    """Names of the built-in data sets, sorted."""
    return list(registry)


def drawn() -> list[str]:
    """Names of the sources that the program draws, sorted: those that can be drawn anew."""
    return sorted(synthetic.SOURCES)


def check(table: Mapping[str, Any]) -> None:
    """Refuse settings of a source that cannot be; `DataError`. Files are not looked for."""
    if table["name"] in registry.table:
        registry.expand(table)
        _drawn(table)
    elif is_table(Path(table["name"])):
        tabular.checked(table)


def has_truth(table: Mapping[str, Any]) -> bool:
    """Whether a source's table is one of data with a truth (`Data.truth`)."""
    contents = _drawn(table)
    return contents is not None and contents.truth is not None


def _drawn(table: Mapping[str, Any]) -> Contents | None:
    """A source that the program draws; nothing is drawn yet."""
    found: Contents | None = registry.call(table, None) if table["name"] in synthetic.SOURCES else None
    return found


def options(name: str) -> tuple[str, ...]:
    """Keys that a source's table may have beside `name`; `DataError` for what is neither a built-in name nor a path."""
    if name in registry.table:
        return tuple(registry.parameters(name))
    if not is_path(name):
        raise DataError(_unknown(name))
    return path_options(name)


def path_options(name: str) -> tuple[str, ...]:
    """The same for a path, whether there is something or not: keys of pictures too, where these may be there."""
    if is_table(Path(name)):
        return tabular.KEYS
    return _NAMES if name.endswith((".npz", ".npy")) else (_NAMES[0], *pixels.KEYS, *_NAMES[1:])


def _holds_pictures(path: Path) -> bool:
    return path.is_dir() and not any(path.glob("*.npy")) and tree.has_pictures(path)


def holds_pictures(name: str, folder: str | Path | None) -> bool:
    """Whether a source is pictures to be decoded, whose table may say `corrupt` and `duplicates`."""
    if name in registry.table:
        return "corrupt" in options(name)
    path = resolve(name, folder)
    return (path.is_file() and unpack.is_archive(path)) or _holds_pictures(path)


def is_path(name: str) -> bool:
    """Whether a source is written as a path, or is one."""
    return "/" in name or "." in name or Path(name).exists()


def _unknown(name: str) -> str:
    return f'Unknown data source "{name}".{did_you_mean(name, registry)} Supported now: {SUPPORTED}.'


def locate(
    source: Any,
    folder: str | Path | None,
    task: Task = "multiclass",
    *,
    wanted: Sequence[str] = (),
    target: Target = None,
) -> Contents:
    """The data set that `source` means: a name, a path, a table `{"name": ..., options}`, or arrays.

    `wanted`: names of arrays that are inputs. `target`: the columns of a table that are labels.
    """
    contents = _locate(source, folder, task, wanted=wanted, target=target)
    if contents.targeted is not None:
        return contents.targeted(target, task)
    if target is not None:
        raise DataError(
            f"target = {target!r}: {contents.name} is no table and has labels of its own. Leave target out."
        )
    return contents


def _locate(source: Any, folder: str | Path | None, task: Task, *, wanted: Sequence[str], target: Target) -> Contents:
    if isinstance(source, tuple) or (isinstance(source, Mapping) and "name" not in source):
        return arrays.from_python(source, task=task, wanted=wanted)
    if isinstance(source, os.PathLike):
        source = str(Path(source).absolute())
    table = {"name": source} if isinstance(source, str) else source
    if not isinstance(table, Mapping) or not isinstance(table["name"], str):
        raise DataError(f"source: found {type(source).__name__}. Supported now: {SUPPORTED}.")
    name = table["name"]
    if name in registry.table:
        contents: Contents = registry.call(table, _data_folder(folder))
        return contents
    path = resolve(name, folder)
    if not (path.exists() or is_path(name)):
        raise DataError(_unknown(name))
    known = path_options(name)
    for word in table:
        if word not in ("name", *known):
            near = did_you_mean(word, known)
            raise DataError(f'source: the data in "{name}" has no key "{word}".{near} Known: {", ".join(known)}.')
    return _from_path(path, table, task, wanted=wanted, target=target)
