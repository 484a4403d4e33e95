"""How often a model gives which probability: a histogram in steps of 0.05, for tables and figures."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.metric import Floats, log_probabilities

STEPS: Final = 20
_DIGITS = 6  # what float32 keeps: log(1/2) in float32 is not to fall below 1/2


def lows() -> list[float]:
    """The lower ends of the bins [0, 0.05), [0.05, 0.1), ..., [0.95, 1]."""
    return [step / STEPS for step in range(STEPS)]


def probability(predictions: NDArray[Any]) -> Floats:
    """(n,) what is counted: of two classes the probability of the second, of more that of the predicted class.

    `predictions` (n, K) are log-probabilities; raises `DataError` for what a metric would refuse. With K classes the
    smallest possible number is 1/K.
    """
    log_p = log_probabilities(predictions, np.shape(predictions)[1] if np.ndim(predictions) == 2 else 0)
    chosen = log_p[:, 1] if log_p.shape[1] == 2 else log_p.max(axis=1)
    return np.asarray(np.clip(np.exp(chosen).round(_DIGITS), 0.0, 1.0), np.float64)


def frequencies(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """(20,) how many of (n,) probabilities lie in each bin. A bin holds its lower end; the last one holds 1 too.

    >>> frequencies(np.array([0.0, 0.049, 0.05, 0.5, 0.95, 1.0]))[[0, 1, 9, 10, 18, 19]].tolist()
    [2, 1, 0, 1, 0, 2]
    """
    edges = np.arange(1, STEPS) / STEPS
    numbers = np.searchsorted(edges, probabilities, side="right")
    return np.bincount(numbers, minlength=STEPS).astype(np.int64)
