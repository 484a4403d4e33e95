"""How far a model's probabilities are from its own answers; no labels are needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.metric import Floats


def uncertainty(log_p: Floats, _: NDArray[Any]) -> Floats:
    """Degree of uncertainty: 1/2 ||p - onehot(argmax p)||^2.

    For K = 2 this is (p - y)^2 with y the model's own answer, p > 0.5 (Biryukova, Knowledge distillation for binary
    classification, eq. 15); for more classes it is the natural extension. In [0, (K-1)/(2K)], 0 = always certain.
    Lower counts as better, as for an error, though a model can be certain and wrong: read it beside the accuracy.
    Means over the rows of one class give the degree of uncertainty of that class.
    """
    gap = np.exp(log_p)
    gap[np.arange(len(gap)), log_p.argmax(axis=1)] -= 1.0
    return np.asarray(np.square(gap).sum(axis=1, keepdims=True) / 2, np.float64)
