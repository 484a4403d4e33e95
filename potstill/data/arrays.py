"""Arrays with names: .npz files, folders of .npy files, and arrays from Python.

A key names a part and a role, in either order, joined by "_", in any case: `train_inputs`, `x_train`, `test_labels`,
`y_test`. Parts: train (or training), validation (val, valid), test, unlabelled (unlabeled); without a part the arrays
are one set, which `open` splits. Roles: inputs (input, x, images, data, features) and labels (label, y, target,
targets); `unlabelled` alone is inputs. `classes` (or class_names): names of the classes, in the order of the labels; in
a regression `target_names`: names of the targets, in the order of the labels' columns. Object arrays are refused:
reading them could run code.
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
    """
    words = key.lower().split("_")
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
) -> Contents:
    """A data set from loaders by key. `digest`: sha256 of the files, for the cache; empty for arrays in memory.

    `given`: names of the classes, or of a regression's targets.
    """
    slots: dict[tuple[str, str], str] = {}
    names, values = given, task == "regression"
    for key, load in loaders.items():
        if key in (_TARGETS if values else _CLASSES):
            names = names if names is not None else checks.as_array(load(), f"{where}[{key}]").tolist()
            continue
        place = slot(key)
        if place is None or place == ("unlabelled", "labels"):
            known = [f"{part}_{role}" for part in ("train", "validation", "test") for role in ("inputs", "labels")]
            suggestion = did_you_mean(key, ["inputs", "labels", "unlabelled", "classes", *_TARGETS, *known])
            raise DataError(f'{where}: found the key "{key}".{suggestion} Wanted: {_WANTED}.')
        if place in slots:
            raise DataError(f'{where}: the keys "{slots[place]}" and "{key}" mean the same array; keep one.')
        slots[place] = key
    for part in ("train", "validation", "test"):
        has = [role for role in ("inputs", "labels") if (part, role) in slots]
        if len(has) == 1 or (part == "train" and not has):
            found = ", ".join(loaders) or "nothing"
            lacks = "inputs and labels" if not has else "inputs" if has == ["labels"] else "labels"
            raise DataError(
                f"{where}: found the keys {found}; {lacks} of the {part} part are missing. Wanted: {_WANTED}."
            )

    def reader(part: str) -> Loader:
        def decode() -> Part:
            return _part(loaders, slots, part, where=where, values=values)

        recipe = {"kind": "arrays", "part": part, "sha256": digest} | ({"labels": "values"} if values else {})
        place, place_labels = (f"{where}[{slots[part, role]}]" for role in ("inputs", "labels"))
        return (lambda: replace(cache.cached(recipe, place, decode), where_labels=place_labels)) if digest else decode

    parts = {part: reader(part) for part, role in slots if role == "inputs" and part != "unlabelled"}
    told = None if names is None else tuple(str(name) for name in names)
    return Contents(name, parts, targets=told) if values else Contents(name, parts, told)


def _part(
    loaders: Mapping[str, Loader], slots: Mapping[tuple[str, str], str], part: str, *, where: str, values: bool
) -> Part:
    def load(part: str, role: str) -> tuple[NDArray[Any], str]:
        key = slots[part, role]
        place = f"{where}[{key}]"
        return checks.as_array(loaders[key](), place), place

    array, place = load(part, "inputs")
    labels, place_labels = load(part, "labels")
    told = (checks.targets if values else checks.labels)(labels, place_labels)
    whole = labelled_part(checks.inputs(array, place), told, place, place_labels)
    if part != "train" or ("unlabelled", "inputs") not in slots:
        return whole
    array, place_more = load("unlabelled", "inputs")
    more = checks.inputs(array, place_more)
    if more.shape[1:] != whole.inputs.shape[1:] or more.dtype != whole.inputs.dtype:
        raise DataError(
            f"{place_more}: found unlabelled examples of shape {more.shape[1:]} and type {more.dtype}, wanted "
            f"the training examples' {whole.inputs.shape[1:]} and {whole.inputs.dtype}."
        )
    return Part(np.concatenate([whole.inputs, more]), whole.labels, place, where_labels=place_labels)


def from_npz(path: Path, *, task: Task = "multiclass", names: Sequence[Any] | None = None) -> Contents:
    """A .npz file; `names` are those of classes or targets. `DataError` where it is damaged or holds object arrays."""
    digest = storage.sha256_file(path)
    return contents(path.stem, npz_loaders(path), str(path), task=task, digest=digest, given=names)


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


def from_npy_folder(folder: Path, *, task: Task = "multiclass", names: Sequence[Any] | None = None) -> Contents:
    """A folder of .npy files, whose names without .npy are the keys."""
    files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    digest = storage.fingerprint({key: storage.sha256_file(path) for key, path in files.items()})
    loaders = {key: partial(load_npy, path) for key, path in files.items()}
    return contents(folder.name, loaders, str(folder), task=task, digest=digest, given=names)


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


def from_python(source: Any, *, task: Task = "multiclass", name: str = "arrays") -> Contents:
    """Arrays (numpy, torch, lists): a pair (inputs, labels), or a dictionary of arrays or pairs.

    `{"train": (x, y), "test": (x, y), "unlabelled": x, "classes": [...]}` or flat keys as above. Copied, so
    that later changes to the caller's arrays do not reach the source.
    """
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DataError(f"source: found a tuple of {len(source)}, wanted a pair (inputs, labels).")
        source = {"inputs": source[0], "labels": source[1]}
    loaders: dict[str, Loader] = {}
    for key, value in source.items():
        if PART_NAMES.get(str(key).lower(), "unlabelled") == "unlabelled":
            loaders[str(key)] = _copy(value, key)
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            loaders |= {f"{key}_inputs": _copy(value[0], key), f"{key}_labels": _copy(value[1], key)}
        else:
            raise DataError(f'source["{key}"]: found {type(value).__name__}, wanted a pair (inputs, labels).')
    return contents(name, loaders, "source", task=task)


def _copy(value: Any, key: str) -> Loader:
    return lambda: np.array(checks.as_array(value, f"source[{key}]"))
