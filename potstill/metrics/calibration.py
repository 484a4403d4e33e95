"""Does a confidence of 80 % mean right in 80 % of the cases: calibration error, bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import SettingError
from potstill.metrics.metric import Floats, class_labels, log_probabilities

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equal bins of the top class's confidence: lower edge, examples, mean confidence and accuracy (None if empty)."""

    low: list[float]
    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


def calibration_error(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """(n, 15): (right - confidence) in the column of the example's bin.

    The bin's sum is count * (accuracy - confidence), all that Guo et al. 2017, eq. 3 needs; the number of bins is
    theirs too. Bins are open below and closed above.
    """
    confidence, right, number = _binned(log_p, labels, BINS)
    phi = np.zeros((len(right), BINS))
    phi[np.arange(len(right)), number] = right - confidence
    return phi


def expected_gap(sums: Floats, n: int) -> Floats:
    """(..., 15) sums of (right - confidence) to the expected calibration error: sum over bins of |sum| / n."""
    return np.asarray(np.abs(sums).sum(axis=-1) / n, np.float64)


def reliability(predictions: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> Reliability:
    """The bins of a reliability diagram, from log-probabilities (n, K) and labels (n,).

    Several seeds are pooled by concatenating them first. Raises `DataError` for predictions or labels that a metric
    would refuse, `SettingError` for fewer than one bin.
    """
    if bins < 1:
        raise SettingError(f"bins: found {bins}, wanted at least 1.")
    width = np.shape(predictions)[1] if np.ndim(predictions) == 2 else 0
    log_p = log_probabilities(predictions, width)
    confidence, right, number = _binned(log_p, class_labels(labels, len(log_p), width), bins)
    count = np.bincount(number, minlength=bins)
    return Reliability(
        low=[b / bins for b in range(bins)],
        count=[int(c) for c in count],
        confidence=_means(np.bincount(number, confidence, minlength=bins), count),
        accuracy=_means(np.bincount(number, right, minlength=bins), count),
    )


def _binned(log_p: Floats, labels: NDArray[Any], bins: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    # Rounding can lift a log-probability just above 0.
    confidence = np.minimum(np.exp(log_p.max(axis=1)), 1.0)
    right = np.asarray(log_p.argmax(axis=1) == labels, np.float64)
    edges = np.arange(1, bins) / bins
    return confidence, right, np.searchsorted(edges, confidence, side="left").astype(np.int64)


def _means(sums: NDArray[Any], count: NDArray[Any]) -> list[float | None]:
    return [float(s / c) if c else None for s, c in zip(sums, count, strict=True)]
