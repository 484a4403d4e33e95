"""What a metric is: numbers per example that add up, and a function of their sum.

This form is what an interval needs: the value without one example is `combine(sum - phi_i, n - 1)`, so the jackknife
of a metric that is no mean (macro F1, calibration error) costs one subtraction per example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError

Floats: TypeAlias = NDArray[np.float64]
Phi: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], Floats]
Combine: TypeAlias = Callable[[Floats, int], Floats]
Reads: TypeAlias = Literal["labels", "teacher", "predictions"]

# Log-probabilities in float16 sum to one within about 1e-3; logits and probabilities miss by far more than this.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as a sum over examples and a function of that sum.

    `phi(predictions (n, K), labels (n,)) -> (n, d) float64`; with `needs_teacher` the second argument is the teacher's
    predictions (n, K), and without `needs_labels` it is not looked at. `combine(sums (..., d), n) -> (...)`, where n is
    the number of examples in the sum. `per_example`: the value is the mean of one number per example (d = 1).
    `fraction`: the value lies in [0, 1] and reads best in per cent. `needs_variances`: a regression's values alone are
    refused.

    Predictions are log-probabilities; a binary task has K = 2. `phi` raises `DataError` for what it cannot use. A
    metric of a regression has the same form: labels are (n, D), in the targets' own units, and so are predictions, or
    (n, 2 D) with log variances after the values.
    """

    name: str
    better: Literal["higher", "lower"]
    phi: Phi
    combine: Combine
    per_example: bool
    needs_teacher: bool = False
    needs_labels: bool = True
    fraction: bool = False
    needs_variances: bool = False

    def value(self, predictions: NDArray[Any], labels: NDArray[Any]) -> float:
        """The metric over all examples: `combine(phi(predictions, labels).sum(0), n)`."""
        phi = self.phi(predictions, labels)
        return float(self.combine(phi.sum(axis=0), len(phi)))


def build(
    name: str,
    better: Literal["higher", "lower"],
    raw: Phi,
    *,
    classes: int,
    reads: Reads = "labels",
    combine: Combine | None = None,
    fraction: bool = False,
) -> Metric:
    """A metric from `raw(log_probabilities (n, K) float64, second) -> (n, d)`, whose arguments it checks first.

    Without `combine` it is a mean over examples.
    """
    phi = partial(_checked, raw=raw, classes=classes, reads=reads)
    return _metric(name, better, phi, reads=reads, combine=combine, fraction=fraction)


def build_of_values(
    name: str,
    better: Literal["higher", "lower"],
    raw: Phi,
    *,
    targets: int,
    reads: Reads = "labels",
    combine: Combine | None = None,
    variances: bool = False,
) -> Metric:
    """The same from `raw(values (n, D) float64, second (n, D) float64) -> (n, d)`, for D targets.

    With `variances` from (n, 2 D), log variances after the values; predictions must have them then.
    """
    phi = partial(_checked_values, raw=raw, targets=targets, reads=reads, variances=variances)
    found = _metric(name, better, phi, reads=reads, combine=combine, fraction=False)
    return replace(found, needs_variances=variances)


def _metric(
    name: str,
    better: Literal["higher", "lower"],
    phi: Phi,
    *,
    reads: Reads,
    combine: Combine | None,
    fraction: bool,
) -> Metric:
    return Metric(
        name=name,
        better=better,
        phi=phi,
        combine=combine or mean,
        per_example=combine is None,
        needs_teacher=reads == "teacher",
        needs_labels=reads == "labels",
        fraction=fraction,
    )


def mean(sums: Floats, n: int) -> Floats:
    """(..., 1) sums over n examples to their mean (...)."""
    return np.asarray(sums[..., 0] / n, np.float64)


def _checked(predictions: NDArray[Any], second: NDArray[Any], *, raw: Phi, classes: int, reads: Reads) -> Floats:
    log_p = log_probabilities(predictions, classes)
    if reads == "labels":
        return raw(log_p, class_labels(second, len(log_p), classes))
    if reads == "teacher":
        teacher = log_probabilities(second, classes, "the teacher's predictions")
        if len(teacher) != len(log_p):
            raise DataError(
                f"{len(log_p)} predictions but {len(teacher)} of the teacher: both must answer the same examples in "
                "the same order."
            )
        return raw(log_p, teacher)
    return raw(log_p, log_p)


def _checked_values(
    predictions: NDArray[Any], second: NDArray[Any], *, raw: Phi, targets: int, reads: Reads, variances: bool
) -> Floats:
    found = target_values(predictions, targets, "predictions", variances=variances)
    if reads == "labels":
        other = target_values(second, targets, "labels", alone=True)
    else:
        other = target_values(second, targets, "the teacher's predictions")
    if len(found) != len(other):
        raise DataError(
            f"{len(found)} predictions but {len(other)} {'labels' if reads == 'labels' else 'of the teacher'}: both "
            "must be of the same examples in the same order."
        )
    return raw(found, other)


def target_values(
    values: NDArray[Any], targets: int, what: str, *, variances: bool = False, alone: bool = False
) -> Floats:
    """The first D columns of `values` (n, D) or (n, 2 D), float64 and finite, or a `DataError` that says what is wrong.

    With `variances` all 2 D, which must be there; `alone`: there must be D.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise DataError(f"{what}: found dtype {array.dtype}, wanted floating-point values.")
    if variances and array.shape[1:] == (targets,):
        raise DataError(
            f"{what}: found values alone, of shape {array.shape}; a likelihood wants variances too. Use a model that "
            "answers them, or the errors on validation data (ps.evaluate(..., validation=data.validation))."
        )
    if array.ndim != 2 or array.shape[1] not in ((targets,) if alone else (targets, 2 * targets)):
        raise DataError(f"{what}: found shape {array.shape}, wanted (n, {targets}): one row of targets per example.")
    if len(array) == 0:
        raise DataError(f"{what}: there are no examples; a metric needs at least one.")
    _refuse_rows(~np.isfinite(array).all(axis=1), what, "NaN or infinity")
    return array[:, : targets * (1 + variances)].astype(np.float64)


def log_probabilities(values: NDArray[Any], classes: int, what: str = "predictions") -> Floats:
    """`values` as (n, K) float64 log-probabilities, or a `DataError` that says what is wrong with them."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise DataError(f"{what}: found dtype {array.dtype}, wanted floating-point log-probabilities.")
    if array.ndim != 2 or array.shape[1] != classes:
        raise DataError(
            f"{what}: found shape {array.shape}, wanted (n, {classes}): one row of log-probabilities per example "
            "(a binary task has two: log(1 - p), log p)."
        )
    if len(array) == 0:
        raise DataError(f"{what}: there are no examples; a metric needs at least one.")
    array = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~(np.abs(np.exp(array) @ np.ones(classes) - 1) <= _SUM_TOLERANCE)  # true of NaN too
    if wrong.any():
        _refuse_rows(np.isnan(array).any(axis=1), what, "NaN")
        _refuse_rows(wrong, what, "probabilities that do not sum to one; wanted log-probabilities (log_softmax)")
    return array


def class_labels(labels: NDArray[Any], n: int, classes: int) -> NDArray[np.int64]:
    """`labels` as (n,) int64 in 0 .. K-1, or a `DataError`: every row must carry a label."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DataError(f"labels: found dtype {array.dtype}, wanted class numbers (integers).")
    if array.shape != (n,):
        raise DataError(f"labels: found shape {array.shape}, wanted ({n},): one label per prediction.")
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"labels: row {row} has label {array[row]}, wanted 0 to {classes - 1}. Drop rows without a label first."
        )
    return array.astype(np.int64)


def _refuse_rows(wrong: NDArray[np.bool_], what: str, fault: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{what}: row {row} (and {int(wrong.sum()) - 1} more) has {fault}.")
