"""Arrays beside a data set: inputs to predict on, a teacher's answers, row numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data import arrays, checks, idx, named
from potstill.data.source import ArraySource
from potstill.errors import DataError
from potstill.types import DataSpec, Preprocessing


def inputs(source: Any, spec: DataSpec, *, folder: str | Path | None = None) -> ArraySource:
    """All examples of an array, a .npy or idx file, or a .npz file with one array of inputs, for a model of `spec`.

    The numbers must be raw, as those the model learnt from: uint8 where `spec.preprocessing` scales, else float32 or
    what becomes it. No example carries a label. `DataError` where shape or type differ.
    """
    array, where = _read(source, folder)
    stored = checks.inputs(array, where)
    wanted = np.float32 if spec.preprocessing == Preprocessing() else np.uint8
    if stored.shape[1:] != spec.shape or stored.dtype != wanted:
        advice = ""
        if wanted == np.uint8 and stored.dtype != wanted:
            advice = ' Whole numbers from 0 to 255 in another type: give array.astype("uint8").'
        raise DataError(
            f"{where}: found examples of shape {stored.shape[1:]} and type {array.dtype}, wanted {spec.shape} and "
            f"{np.dtype(wanted)}, raw as the model's training data (it scales by {spec.preprocessing.scale:g} itself)."
            f"{advice}"
        )
    n = len(stored)
    return ArraySource(
        torch.from_numpy(stored), torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool), spec
    )


def read_array(path: str | Path) -> NDArray[Any]:
    """The array of a .npy file, or of a .npz file that holds one (a teacher's logits, row numbers); never objects.

    `DataError` where it is not there, damaged, or something else.
    """
    path = Path(path)
    _must_be_there(path, "a .npy file, or a .npz file with one array")
    if path.suffix != ".npz":
        return arrays.load_npy(path)
    loaders = arrays.npz_loaders(path)
    if len(loaders) != 1:
        raise DataError(f"{path}: found the keys {', '.join(loaders) or 'none'}, wanted one array.")
    return checks.as_array(next(iter(loaders.values()))(), str(path))


def _read(source: Any, folder: str | Path | None) -> tuple[NDArray[Any], str]:
    if not isinstance(source, (str, os.PathLike)):
        return np.array(checks.as_array(source, "source")), "source"
    path = named.resolve(os.fspath(source), folder)
    _must_be_there(path, "a .npy, .npz or idx file of inputs")
    if path.suffix == ".npy":
        return arrays.load_npy(path), str(path)
    if path.suffix != ".npz":
        return idx.read(path, axes=(2, 3, 4)), str(path)
    loaders = arrays.npz_loaders(path)
    keys = [key for key in loaders if (place := arrays.slot(key)) and place[1] == "inputs"]
    if len(keys) != 1:
        raise DataError(f"{path}: found the keys {', '.join(loaders)}, wanted one array of inputs (such as `inputs`).")
    return loaders[keys[0]](), f"{path}[{keys[0]}]"


def _must_be_there(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is not there, or is not a file; wanted {wanted}.")
