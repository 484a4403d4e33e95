"""How right a regression's values are: squared and absolute error, R2, likelihood; how far from the teacher's.

Every function named after a metric is its `phi`: values (n, D) and labels (n, D), or the teacher's values, both float64
in the targets' own units, to (n, d). Several targets count alike, whatever their units: a mean over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.metric import Floats


def squared_error(values: Floats, labels: NDArray[Any]) -> Floats:
    """Mean over the targets of (value - label)^2: as a mean over examples, the mean squared error."""
    return np.asarray(np.square(values - labels).mean(axis=1, keepdims=True), np.float64)


def absolute_error(values: Floats, labels: NDArray[Any]) -> Floats:
    """Mean over the targets of |value - label|."""
    return np.asarray(np.abs(values - labels).mean(axis=1, keepdims=True), np.float64)


def r2(values: Floats, labels: NDArray[Any]) -> Floats:
    """(n, 3D): of each target y, y^2 and (value - y)^2, y the label."""
    return np.concatenate([labels, np.square(labels), np.square(values - labels)], axis=1)


def explained(sums: Floats, n: int) -> Floats:
    """(..., 3D) sums over n examples to the mean over targets of R2 = 1 - sum (value - y)^2 / sum (y - mean y)^2.

    1 is perfect, 0 as good as the mean of these labels, and there is no least value. A target that is the same in all
    examples (to six digits of its size) counts as 1 where every value is right, else as 0, as scikit-learn has it.
    """
    first, second, left = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    spread = second - np.square(first) / n
    varied = spread > 1e-13 * second
    ratio = np.divide(left, spread, out=np.asarray(left > 0, np.float64), where=varied)
    return np.asarray((1.0 - ratio).mean(axis=-1), np.float64)


def negative_log_likelihood(answers: Floats, labels: NDArray[Any]) -> Floats:
    """-log of the normal density of the label, in nats: the SUM over targets of its logarithm, for one example.

    `answers` (n, 2 D): means, then log variances, so that it is 1/2 sum (log 2 pi + log v + (y - m)^2 / v). In other
    units of a target it is another number: a factor c adds log c.
    """
    means, logs = np.split(answers, 2, axis=1)
    terms = np.log(2 * np.pi) + logs + np.square(labels - means) * np.exp(-logs)
    return np.asarray(terms.sum(axis=1, keepdims=True) / 2, np.float64)
