"""A teacher that is not here: only its answers are, as an array or a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potstill.errors import OutputsError, StorageError, TeacherError
from potstill.outputs.check import as_members, check_logits, check_values
from potstill.outputs.parts import ArrayPart
from potstill.outputs.soften import OF_VALUES
from potstill.outputs.store import Stored
from potstill.types import Kind

_FEWEST_LABELS = 50  # with fewer, chance and a fair teacher cannot be told apart
_LEVEL = 0.01


def from_array(
    array: NDArray[Any] | str | Path,
    *,
    kind: Kind,
    rows: int,
    labels: Tensor | None = None,
    labelled: Tensor | None = None,
) -> Stored:
    """Answers (rows, K), (rows, 1) or (rows, members, K) brought as an array or the path of a .npy file.

    Row i must be the answer to example i. With `labels` (rows,) int64 (and `labelled` (rows,) bool), at least 50 of
    them, the order is checked: answers whose argmax agrees with the labels no better than by chance are refused. Chance
    is agreement in a shuffled order, q = sum over classes of the shares of that class among labels and answers; refused
    is a number of agreements whose one-sided binomial p-value under q is above 0.01. A regression's values, with labels
    (rows, D), are refused where those of no target go along with its labels: the least of D one-sided p-values of
    Pearson's correlation, times D, is above 0.01. A teacher that knows nothing is refused too; leave `labels` out to
    bring it nevertheless.

    Raises `OutputsError` (object array, row count, order) or `TeacherError` (not finite, another kind than declared).
    """
    where = str(array) if isinstance(array, (str, Path)) else "the array"
    loaded = _load(Path(array)) if isinstance(array, (str, Path)) else np.asarray(array)
    if loaded.dtype.kind not in "fiu":
        raise OutputsError(
            f"{where} has type {loaded.dtype}; wanted float32 numbers. Object arrays are never read, since they "
            "can run code."
        )
    if loaded.ndim == 0 or loaded.shape[0] != rows:
        raise OutputsError(
            f"{where} has shape {loaded.shape}, the data has {rows} rows; wanted one answer per example, in its order.",
            field="rows",
        )
    answers = as_members(torch.from_numpy(np.array(loaded, order="C")), rows).float()
    check_values(answers, torch.arange(rows), kind=kind, limit=torch.finfo(torch.float32).max, where=where)
    if kind == "logits":
        check_logits(answers, where)
    stored = Stored([ArrayPart(answers, kind=kind, name=where)])
    if labels is not None:
        known = torch.ones(len(labels), dtype=torch.bool) if labelled is None else labelled
        if kind not in OF_VALUES:
            _check_order(stored, labels, known, where=where)
        elif labels.dim() == 2:
            _check_values_order(stored, labels, known, where=where)
    return stored


def _load(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise OutputsError(f"{path} does not exist; wanted a .npy file of a teacher's answers.") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error}. Wanted a .npy file of numbers.") from error
    except ValueError as error:
        raise OutputsError(
            f"{path} is not a plain .npy file of numbers ({error}). Save a float32 array with numpy.save; "
            "object arrays are never read, since they can run code."
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise OutputsError(f"{path} holds several arrays (.npz); wanted one array in a .npy file.")
    return loaded


def _check_order(stored: Stored, labels: Tensor, labelled: Tensor, *, where: str) -> None:
    from scipy.stats import binom

    if labels.shape != (len(stored),) or labelled.shape != labels.shape:
        raise OutputsError(f"There are {len(labels)} labels for {len(stored)} answers; wanted one per example.")
    rows = labelled.nonzero()[:, 0]
    number = stored.number
    truth = labels.index_select(0, rows)
    if truth.numel() and not (int(truth.min()) >= 0 and int(truth.max()) < number):
        raise TeacherError(
            f"{where} has answers for {number} classes, the labels go up to {int(truth.max())}. "
            "Use answers of a teacher trained on the same classes."
        )
    if len(rows) < _FEWEST_LABELS:
        return
    guess = stored.lookup(rows, 0).probs(1.0).argmax(dim=-1)  # type: ignore[arg-type]
    shares = [torch.bincount(x, minlength=number).double() / len(rows) for x in (truth, guess)]
    chance = float((shares[0] * shares[1]).sum())
    agreements = int((truth == guess).sum())
    if chance < 1.0 and binom.sf(agreements - 1, len(rows), chance) > _LEVEL:
        raise OutputsError(
            f"{where} agrees with {agreements} of {len(rows)} labels, chance alone gives {chance * len(rows):.0f}: its "
            "rows look shuffled. Save the answers in the order of the data (no shuffling loader), or pass no labels."
        )


def _check_values_order(stored: Stored, labels: Tensor, labelled: Tensor, *, where: str) -> None:
    from scipy.stats import pearsonr

    if labels.shape != (len(stored), stored.number) or labelled.shape != labels.shape[:1]:
        raise OutputsError(
            f"There are labels {tuple(labels.shape)} for answers {(len(stored), stored.number)}; wanted are as many."
        )
    rows = labelled.nonzero()[:, 0]
    if len(rows) < _FEWEST_LABELS:
        return
    told = stored.lookup(rows, 0).values().double()  # type: ignore[arg-type]
    truth = labels.index_select(0, rows).double()
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(told.t(), truth.t(), strict=True)]
    varied = [(a, b) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
    least = min((pearsonr(a, b, alternative="greater").pvalue for a, b in varied), default=1.0)
    if least * len(pairs) > _LEVEL:
        raise OutputsError(
            f"{where} does not go along with the labels of {len(rows)} rows, in no target: its rows look shuffled. "
            "Save the answers in the order of the data (no shuffling loader), or pass no labels."
        )
