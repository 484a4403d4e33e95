"""How close a student is to its teacher. Both functions are `phi`s: log-probabilities (n, K) of student and teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.metric import Floats
from potstill.metrics.quality import LOG_FLOOR


def agreement(log_p: Floats, teacher: NDArray[Any]) -> Floats:
    """1 where student and teacher answer the same class (ties go to the lower one).

    In a binary task both answer "yes" where p > 0.5, strictly: this is the accuracy against soft labels of paper 1
    (Biryukova), equation 11, the teacher's probabilities being the labels.
    """
    return np.asarray(log_p.argmax(axis=1) == teacher.argmax(axis=1), np.float64)[:, None]


def teacher_kl(log_p: Floats, teacher: NDArray[Any]) -> Floats:
    """KL(teacher || student) in nats at temperature 1; 0 where both answer the same, at most 87.3.

    Both sides are clipped at the logarithm of float32's smallest normal number, and normalised in float64, so that
    rounding cannot make a KL negative.
    """
    student, target = _normalised(log_p), _normalised(teacher)
    kl = (np.exp(target) * (target - student)).sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(kl, 0.0), np.float64)


def _normalised(log_p: Floats) -> Floats:
    clipped = np.maximum(log_p, LOG_FLOOR)
    return np.asarray(clipped - np.log(np.exp(clipped).sum(axis=1, keepdims=True)), np.float64)
