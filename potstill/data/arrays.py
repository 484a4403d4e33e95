"""Arrays with names: .npz files, folders of .npy files, and arrays from Python.

A key names a part and a role, in either order, joined by "_", in any case: `train_inputs`, `x_train`, `test_labels`,
`y_test`. Parts: train (or training), validation (val, valid), test, unlabelled (unlabeled); without a part the arrays
are one set, which `open` splits. Roles: inputs (input, x, images, data, features) and labels (label, y, target,
targets); `unlabelled` alone is inputs. `classes` (or class_names): names of the classes, in the order of the labels; in
a regression `target_names`: names of the targets, in the order of the labels' columns. Several inputs have names:
`inputs.x`, `train_inputs.x_star`. Object arrays are refused: reading them could run code.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.data import cache, checks
from potstill.data.parts import Contents, Part, labelled_part
from potstill.data.tree import PART_NAMES
from potstill.errors import DataError, did_you_mean
from potstill.types import Task

_ROLES: Final = {
    **dict.fromkeys(("inputs", "input", "x", "images", "data", "features"), "inputs"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets"), "labels"),
}
_CLASSES: Final = ("classes", "class_names")
_TARGETS: Final = ("target_names",)
_WANTED: Final = (
    "inputs and labels (or x and y), train_inputs, train_labels, test_inputs, test_labels (or x_train, y_train, "
    "x_test, y_test), validation_inputs, validation_labels, unlabelled, classes"
)

Loader = Callable[[], Any]


def slot(key: str) -> tuple[str, str] | None:
    """(part, role) of a key, part "train" where it names none; None for a key that says nothing.

    >>> slot("x_train"), slot("val_labels"), slot("Y"), slot("unlabelled"), slot("ids")
    (('train', 'inputs'), ('validation', 'labels'), ('train', 'labels'), ('unlabelled', 'inputs'), None)
    >>> slot("test_inputs.x_star")
    ('test', 'inputs.x_star')
    """
    head, dot, name = key.partition(".")
    words = head.lower().split("_")
    if dot:
        place = slot(head)
        return (place[0], f"inputs.{name}") if place is not None and place[1] == "inputs" and name else None
    if words in (["unlabelled"], ["unlabeled"]):
        return "unlabelled", "inputs"
    if len(words) == 1:
        return ("train", _ROLES[words[0]]) if words[0] in _ROLES else None
    for part, role in (words, words[::-1]) if len(words) == 2 else ():
        if part in PART_NAMES and role in _ROLES:
            return PART_NAMES[part], _ROLES[role]
    return None


def contents(
    name: str,
    loaders: Mapping[str, Loader],
    where: str,
    *,
    task: Task,
    digest: str = "",
    given: Sequence[Any] | None = None,
    wanted: Sequence[str] = (),
) -> Contents:
    """A data set from loaders by key. `digest`: sha256 of the files, for the cache; empty for arrays in memory.

    `given`: names of the classes, or of a regression's targets. `wanted`: arrays that are inputs, by name; where any of
    them is there, arrays of other names are left alone.
    """
    slots: dict[tuple[str, str], str] = {}
    names, values = given, task == "regression"
    loaders, chosen = _renamed(loaders, wanted)
    for key, load in loaders.items():
        if key in (_TARGETS if values else _CLASSES):
            names = names if names is not None else checks.as_array(load(), f"{where}[{key}]").tolist()
            continue
        place = slot(key)
        if place is None or place == ("unlabelled", "labels"):
            if chosen:
                continue
            known = [f"{part}_{role}" for part in ("train", "validation", "test") for role in ("inputs", "labels")]
            suggestion = did_you_mean(key, ["inputs", "labels", "unlabelled", "classes", *_TARGETS, *known])
            raise DataError(f'{where}: found the key "{key}".{suggestion} Wanted: {_WANTED}.')
        if place in slots:
            raise DataError(f'{where}: the keys "{slots[place]}" and "{key}" mean the same array; keep one.')
        slots[place] = key
    inputs = _input_names(slots, chosen, loaders, where)
    roles = [f"inputs.{one}" for one in inputs] or ["inputs"]

    def reader(part: str) -> Loader:
        def decode() -> Part:
            return _part(loaders, slots, part, inputs=inputs, where=where, values=values)

        recipe: dict[str, Any] = {"kind": "arrays", "part": part, "sha256": digest} | (
            {"labels": "values"} if values else {}
        )
        recipe |= {"inputs": inputs} if inputs else {}
        place, place_labels = (f"{where}[{slots[part, role]}]" for role in (roles[0], "labels"))
        return (lambda: replace(cache.cached(recipe, place, decode), where_labels=place_labels)) if digest else decode

    parts = {part: reader(part) for part, role in slots if role == roles[0] and part != "unlabelled"}
    told = None if names is None else tuple(str(name) for name in names)
    classes, targets = (None, told) if values else (told, None)
    return Contents(name, parts, classes, targets=targets, inputs=tuple(inputs))


def _renamed(loaders: Mapping[str, Loader], wanted: Sequence[str]) -> tuple[dict[str, Loader], list[str]]:
    """Keys of wanted arrays as `PART_inputs.NAME`, and those that are there; other inputs are then left out."""
    keys = {key: _wanted_key(key, wanted) or key for key in loaders}
    for old, new in keys.items():
        if old != new and list(keys.values()).count(new) > 1:
            raise DataError(
                f"The keys {' and '.join(o for o, n in keys.items() if n == new)} mean one array; keep one."
            )
    there = {name for key in keys.values() for dot, name in [key.partition(".")[1:]] if dot and slot(key)}
    named = [name for name in wanted if name in there]

    def kept(key: str) -> bool:
        role = (slot(key) or ("", ""))[1]
        return not role.startswith("inputs") or role.partition(".")[2] in named

    return {new: loaders[old] for old, new in keys.items() if not named or kept(new)}, named


def _wanted_key(key: str, wanted: Sequence[str]) -> str | None:
    for name in wanted:
        for word, part in {"": "train", **PART_NAMES}.items():
            if key in ((f"{word}_{name}", f"{name}_{word}") if word else (name,)):
                return f"{part}_inputs.{name}"
    return None


def _input_names(
    slots: Mapping[tuple[str, str], str], chosen: Sequence[str], loaders: Mapping[str, Loader], where: str
) -> list[str]:
    """The names of the inputs, none where they have none; `DataError` where something is missing."""
    given = {role.partition(".")[2]: None for _, role in slots if role.startswith("inputs.")}
    names = list(chosen) or list(given)
    if names and any(role == "inputs" for _, role in slots):
        raise DataError(f"{where}: found inputs without a name beside the inputs {', '.join(names)}; name them all.")
    roles = [*(f"inputs.{name}" for name in names)] or ["inputs"]
    for part in ("train", "validation", "test", "unlabelled"):
        has = [role for role in (*roles, "labels") if (part, role) in slots]
        if (not has and part != "train") or len(has) == len(roles) + (part != "unlabelled"):
            continue
        lacks = " and ".join(role for role in (*roles, "labels") if role not in has)
        raise DataError(
            f"{where}: found the keys {', '.join(loaders) or 'nothing'}; {lacks} of the {part} part are missing. "
            f"Wanted: {_WANTED}."
        )
    return names


def _part(
    loaders: Mapping[str, Loader],
    slots: Mapping[tuple[str, str], str],
    part: str,
    *,
    inputs: Sequence[str],
    where: str,
    values: bool,
) -> Part:
    def load(part: str, role: str) -> tuple[NDArray[Any], str]:
        key = slots[part, role]
        place = f"{where}[{key}]"
        return checks.as_array(loaders[key](), place), place

    roles = {name: f"inputs.{name}" for name in inputs} or {"": "inputs"}
    read = {name: load(part, role) for name, role in roles.items()}
    labels, place_labels = load(part, "labels")
    told = (checks.targets if values else checks.labels)(labels, place_labels)
    whole = {
        name: labelled_part(checks.inputs(array, place), told, place, place_labels)
        for name, (array, place) in read.items()
    }
    found = {name: one.inputs for name, one in whole.items()}
    if part == "train" and ("unlabelled", next(iter(roles.values()))) in slots:
        found = {name: _with_more(found[name], *load("unlabelled", role)) for name, role in roles.items()}
    first = next(iter(whole))
    return Part(found[first], told, whole[first].where, where_labels=place_labels, named=found if inputs else {})


def _with_more(inputs: NDArray[Any], array: NDArray[Any], place: str) -> NDArray[Any]:
    """Training examples, and the unlabelled ones after them."""
    more = checks.inputs(array, place)
    if more.shape[1:] != inputs.shape[1:] or more.dtype != inputs.dtype:
        raise DataError(
            f"{place}: found unlabelled examples of shape {more.shape[1:]} and type {more.dtype}, wanted "
            f"the training examples' {inputs.shape[1:]} and {inputs.dtype}."
        )
    return np.concatenate([inputs, more])


def from_npz(
    path: Path, *, task: Task = "multiclass", names: Sequence[Any] | None = None, wanted: Sequence[str] = ()
) -> Contents:
    """A .npz file; `names` are those of classes or targets. `DataError` where it is damaged or holds object arrays."""
    digest = storage.sha256_file(path)
    return contents(path.stem, npz_loaders(path), str(path), task=task, digest=digest, given=names, wanted=wanted)


def npz_loaders(path: Path) -> dict[str, Loader]:
    """The arrays of a .npz file by key, each read when it is asked for."""

    def load(key: str) -> Any:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[key]

    def keys() -> list[str]:
        with path.open("rb") as file:  # ours, because np.load leaves its own open where it fails
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array, of the kind .npy")
            return list(archive.files)

    found: list[str] = _numbers(keys, str(path))
    return {key: partial(_numbers, partial(load, key), f"{path}[{key}]") for key in found}


def load_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, memory-mapped."""
    array: NDArray[Any] = _numbers(partial(np.load, path, mmap_mode="c", allow_pickle=False), str(path))
    return array


def from_npy_folder(
    folder: Path, *, task: Task = "multiclass", names: Sequence[Any] | None = None, wanted: Sequence[str] = ()
) -> Contents:
    """A folder of .npy files, whose names without .npy are the keys."""
    files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    digest = storage.fingerprint({key: storage.sha256_file(path) for key, path in files.items()})
    loaders = {key: partial(load_npy, path) for key, path in files.items()}
    return contents(folder.name, loaders, str(folder), task=task, digest=digest, given=names, wanted=wanted)


def _numbers(load: Loader, where: str) -> Any:
    try:
        return load()
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        if any(word in str(error) for word in ("Object arrays", "Python objects")):
            raise DataError(f"{where}: {checks.OBJECTS}") from None
        fault = "it is no .npy or .npz file" if "pickle" in str(error) else str(error).rstrip(".")
        raise DataError(
            f"{where} is not a whole numpy array: {fault}. Write it again with numpy.save or numpy.savez."
        ) from error


def from_python(
    source: Any, *, task: Task = "multiclass", name: str = "arrays", wanted: Sequence[str] = ()
) -> Contents:
    """Arrays (numpy, torch, lists): a pair (inputs, labels), or a dictionary of arrays or pairs.

    `{"train": (x, y), "test": (x, y), "unlabelled": x, "classes": [...]}` or flat keys as above. In place of inputs a
    dictionary of several by name: `({"x": a, "x_star": b}, y)`. Copied, so that later changes to the caller's arrays do
    not reach the source.
    """
    loaders = {key: _copy(value, key) for key, value in flat(source).items()}
    return contents(name, loaders, "source", task=task, wanted=wanted)


def flat(source: Any) -> dict[str, Any]:
    """Arrays as `from_python` takes them, by the keys of a file."""
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DataError(f"source: found a tuple of {len(source)}, wanted a pair (inputs, labels).")
        source = {"inputs": source[0], "labels": source[1]}
    found: dict[str, Any] = {}
    for key, value in source.items():
        part = PART_NAMES.get(str(key).lower(), "unlabelled")
        if part == "unlabelled" or isinstance(value, Mapping):
            found |= _each_input(str(key), value)
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            found |= {**_each_input(f"{key}_inputs", value[0]), f"{key}_labels": value[1]}
        else:
            raise DataError(f'source["{key}"]: found {type(value).__name__}, wanted a pair (inputs, labels).')
    return found


def _each_input(key: str, value: Any) -> dict[str, Any]:
    return {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}


def _copy(value: Any, key: str) -> Loader:
    return lambda: np.array(checks.as_array(value, f"source[{key}]"))
