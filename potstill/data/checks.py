"""From the arrays a user has to the stored forms: inputs uint8 or float32, channel first; labels int64, text, float32.

Every refusal is a `DataError` that says where, what was found, what was wanted, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError, did_you_mean

OBJECTS = (
    "found an object array (Python objects; reading them could run code), wanted numbers. Convert it first, for "
    "example with np.stack(list(array)) for inputs of one size or array.astype(str) for text labels."
)


def as_array(value: Any, where: str) -> NDArray[Any]:
    """A numpy array from an array, a tensor or a list; not copied where that is possible."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor
        value = value.detach().cpu()
        value = value.numpy() if str(value.dtype) != "torch.bfloat16" else value.float().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{where}: found rows of different lengths, wanted an array ({error}).") from error
    if array.dtype.kind == "O":
        raise DataError(f"{where}: {OBJECTS}")
    return array


def inputs(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Inputs as stored: (n, F) rows or (n, C, H, W) pictures, C-contiguous, uint8 as it is, other numbers as float32.

    (n, H, W) becomes (n, 1, H, W). (n, H, W, 1) and (n, H, W, 3) become channel first where H and W are both above 3
    (so a channel-first array with 1 or 3 channels is left alone). Refused: no rows, another number of axes, text,
    complex numbers, NaN and infinity (also a float64 that is too large for float32).
    """
    if array.dtype.kind not in "buif":
        raise DataError(
            f"{where}: found inputs of type {array.dtype}, wanted numbers (uint8, or what float32 can hold)."
        )
    if array.ndim not in (2, 3, 4):
        advice = " Reshape a single column to (n, 1)." if array.ndim == 1 else ""
        raise DataError(
            f"{where}: found inputs of shape {array.shape}, wanted (n, features), (n, height, width), "
            f"(n, channels, height, width) or (n, height, width, channels).{advice}"
        )
    if 0 in array.shape:
        raise DataError(f"{where} is empty: found inputs of shape {array.shape}, wanted at least one example.")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and min(array.shape[1:3]) > 3:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=np.float32)
    _finite(stored, where)
    return stored


def _finite(array: NDArray[Any], where: str) -> None:
    good = np.isfinite(array).reshape(len(array), math.prod(array.shape[1:])).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        flat = array[row].reshape(-1)
        value = flat[int(np.argmin(np.isfinite(flat)))]
        raise DataError(
            f"{where}: row {row} (from 0) holds {value} in float32, and {int((~good).sum())} of {len(array)} rows hold "
            "such numbers; wanted finite numbers. Drop these rows or fill the gaps."
        )


def labels(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels as stored: (n,) int64 counted from 0, or text. Floats with whole values are accepted; (n, 1) too."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        advice = " One-hot labels: take labels.argmax(axis=1)." if array.ndim == 2 else ""
        raise DataError(f"{where}: found labels of shape {array.shape}, wanted (n,).{advice}")
    if array.dtype.kind == "S":
        try:
            return array.astype(np.str_)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: found labels of bytes that are not ASCII; decode them to text first.") from error
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "buif":
        raise DataError(f"{where}: found labels of type {array.dtype}, wanted whole numbers or text.")
    if array.dtype.kind == "f":
        _whole(array, where)
    whole = array.astype(np.int64)
    if len(whole) and whole.min() < 0:
        row = int(np.argmax(whole < 0))
        raise DataError(
            f"{where}: row {row} (from 0) has the label {whole[row]}; classes count from 0. Rows without a label go "
            'under "unlabelled".'
        )
    return whole


def _whole(array: NDArray[Any], where: str) -> None:
    bad = ~np.isfinite(array) | (array != np.floor(array)) | (np.abs(array) > 2**53)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{where}: row {row} (from 0) has the label {array[row]}, wanted a whole number or text. "
            'If labels are measured numbers, say so: task = "regression".'
        )


def targets(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Labels of a regression as stored: (n, D) float32, finite; one target may come as (n,)."""
    if array.dtype.kind not in "buif":
        raise DataError(f'{where}: found labels of type {array.dtype}; task = "regression" wants numbers.')
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{where}: found labels of shape {array.shape}, wanted (n,) or (n, targets).")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=np.float32)
    _finite(stored, where)
    return stored


def target_names(number: int, given: Sequence[Any] | None, where: str) -> tuple[str, ...]:
    """Names of targets: the given ones; else "target", or "target1" .. "targetD" of several."""
    if given is None:
        return ("target",) if number == 1 else tuple(f"target{i}" for i in range(1, number + 1))
    names = tuple(str(name) for name in given)
    if len(names) != number or len(set(names)) < number:
        raise DataError(f"{where}: found the target names {list(names)}, wanted {number} different ones.")
    return names


def class_names(labels: NDArray[Any], given: Sequence[Any] | None, where: str) -> tuple[str, ...]:
    """Class names: the given ones; else the sorted texts; else "0" .. "K-1" where each number has an example.

    Labels: those of the training part. `DataError` where they are of one class or skip a number.
    """
    if not len(labels):
        raise DataError(f"{where}: found no labelled example, wanted at least one of each of two classes.")
    present = np.unique(labels)
    if given is not None:
        names = tuple(str(name) for name in given)
        if len(names) < 2 or len(set(names)) < len(names):
            raise DataError(f"{where}: found the class names {list(names)}, wanted two or more different ones.")
        encode(labels, names, where)
    elif present.dtype.kind == "U":
        names = tuple(str(name) for name in present)
    else:
        missing = next((i for i, number in enumerate(present) if i != number), None)
        if missing is not None and len(present) > 1:
            raise DataError(
                f"{where}: no training example has the label {missing}, but some have {present[missing]}. Classes "
                "count from 0 without gaps: renumber the labels, or name all classes in order (classes = [...])."
            )
        names = tuple(str(number) for number in present)
    if len(present) < 2:
        raise DataError(f"{where}: all training examples are of one class ({present[0]}), wanted two or more classes.")
    return names


def encode(labels: NDArray[Any], classes: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Labels as positions in `classes`, (n,) int64; `DataError` naming the first label outside them."""
    if labels.dtype.kind != "U":
        if len(labels) and labels.max() >= len(classes):
            row = int(np.argmax(labels >= len(classes)))
            raise DataError(
                f"{where}: row {row} (from 0) has the label {labels[row]}, wanted 0 to {len(classes) - 1} for the "
                f"{len(classes)} classes of the training part."
            )
        return labels.astype(np.int64, copy=False)
    place = {name: i for i, name in enumerate(classes)}
    texts, inverse = np.unique(labels, return_inverse=True)
    for text in texts:
        if str(text) not in place:
            row = int(np.argmax(labels == text))
            raise DataError(
                f'{where}: row {row} (from 0) has the label "{text}", which is no class of the training part.'
                f"{did_you_mean(str(text), classes)} Known: {', '.join(classes)}."
            )
    positions = np.array([place[str(text)] for text in texts], dtype=np.int64)
    return positions[inverse.reshape(-1)]
