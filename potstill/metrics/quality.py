"""How right the predictions are: accuracy, error rate, cross-entropy, Brier score, macro F1, confusion matrix.

Every function named after a metric is its `phi`: log-probabilities (n, K) float64 and labels (n,) to (n, d).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.metric import Floats, class_labels, log_probabilities

# Smallest normal float32, 1.2e-38: a predicted log-probability below its logarithm, -87.3, counts as this one.
LOG_FLOOR = float(np.log(np.finfo(np.float32).tiny))


def accuracy(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """1 where the most probable class is the label; a tie goes to the lower class, so binary "yes" needs p > 0.5."""
    return np.asarray(log_p.argmax(axis=1) == labels, np.float64)[:, None]


def error_rate(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """1 - accuracy."""
    return 1.0 - accuracy(log_p, labels)


def cross_entropy(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """-log p of the label, in nats, at most 87.3: log p is clipped at the logarithm of float32's smallest normal
    number, so that one impossible label does not make the mean infinite."""
    chosen = np.take_along_axis(log_p, labels[:, None], axis=1)
    return 0.0 - np.maximum(chosen, LOG_FLOOR)


def brier(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """Sum over classes of (p - onehot(label))^2, in [0, 2] (Brier 1950); for K = 2 half of it, (p - y)^2 in [0, 1].

    The same convention as scikit-learn's `brier_score_loss`.
    """
    gap = np.exp(log_p)
    gap[np.arange(len(labels)), labels] -= 1.0
    score = np.square(gap).sum(axis=1, keepdims=True)
    return np.asarray(score / 2 if log_p.shape[1] == 2 else score, np.float64)


def macro_f1(log_p: Floats, labels: NDArray[Any]) -> Floats:
    """(n, 3K): whether the example is a true positive, false positive, false negative of each class."""
    n, classes = log_p.shape
    rows, predicted = np.arange(n), log_p.argmax(axis=1)
    phi = np.zeros((n, 3, classes))
    hit = predicted == labels
    phi[rows[hit], 0, labels[hit]] = 1
    phi[rows[~hit], 1, predicted[~hit]] = 1
    phi[rows[~hit], 2, labels[~hit]] = 1
    return phi.reshape(n, 3 * classes)


def mean_f1(sums: Floats, n: int) -> Floats:
    """(..., 3K) counts to the mean over ALL K classes of 2 tp / (2 tp + fp + fn); n is not used.

    A class that is neither present nor predicted counts as 0 (scikit-learn: `labels=range(K), zero_division=0`).
    """
    del n
    true, false, missed = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    denominator = 2 * true + false + missed
    f1 = np.divide(2 * true, denominator, out=np.zeros_like(true), where=denominator > 0)
    return np.asarray(f1.mean(axis=-1), np.float64)


def confusion(predictions: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(K, K) counts, [true class, predicted class], from log-probabilities (n, K) and labels (n,).

    Raises `DataError` for predictions or labels that a metric would refuse.
    """
    predicted = log_probabilities(predictions, classes).argmax(axis=1)
    true = class_labels(labels, len(predicted), classes)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.int64)
