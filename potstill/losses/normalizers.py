"""What makes prod_k q[k]^s[k] a density over a teacher's answers s, and what a paper printed instead: -log C(q).

All take `logits` (B, K), with q = softmax(logits / temperature), and return (B,), as losses do; `weight` and `where`
mean what they mean there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from potstill.errors import ObjectiveError
from potstill.losses.classification import log_softmax

MOST_CLASSES = 128  # of `simplex_normalizer`, whose time grows with their cube
_TINY = -15.0  # below it log(log(1 + e^t)) is t - e^t / 2 to the last bit of a float64


def simplex_normalizer(
    logits: Tensor, *, temperature: float = 1.0, weight: float = 1.0, where: Tensor | None = None
) -> Tensor:
    """(B,) log of the integral of prod_k q[k]^s[k] over all probability vectors s, in ds[1] ... ds[K-1].

    The normaliser of the continuous categorical (Gordon-Rodriguez, Loaiza-Ganem and Cunningham 2020, arXiv 2002.08563):
    the divided difference of exp at a[k] = log q[k], a corner of exp(A) where A has the a[k] on its diagonal and ones
    above it (Opitz). The sum over k of q[k] / prod_j (a[k] - a[j]), as it is printed, is lost where two classes are
    alike or there are many. The gradient is the mean of that distribution.

    In float64, with a relative error of about 1e-13; it takes time like K^3 per example. Raises `ObjectiveError` above
    128 classes.
    """
    classes = logits.shape[1]
    if classes > MOST_CLASSES:
        raise ObjectiveError(
            f"The exact normalizer takes time like the cube of the number of classes; found {classes}, wanted at most "
            f'{MOST_CLASSES}. Take normalizer = "none".'
        )
    log_q = log_softmax(logits.double(), temperature).sort(1, descending=True).values
    first = log_q[:, :1]
    below = log_q - first
    # Any numbers above the diagonal will do, and are divided out; these keep the corner near 1.
    above = -below[:, 1:].detach().clamp(max=-max(1.0, (classes - 1) / math.e))
    corner = torch.linalg.matrix_exp(torch.diag_embed(below) + torch.diag_embed(above, offset=1))[:, 0, -1]
    return _weighed(corner.log() - above.log().sum(1) + first[:, 0], logits, weight, where)


def printed_normalizer(
    logits: Tensor, *, temperature: float = 1.0, weight: float = 1.0, where: Tensor | None = None
) -> Tensor:
    """(B,) -sum_k log(-q[k] log q[k]): what paper 2 prints as -log C(q), but for a constant. It normalises nothing.

    Every addend is at least 1, which it is at q[k] = 1/e: the sum is above K (for K > 2), and pulls all classes there.

    Reference: paper 2, theorem 1; `docs/objectives.md` tells what is wrong with it.
    """
    log_q = log_softmax(logits, temperature)
    return _weighed(-(log_q + _log_negative(log_q)).sum(1), log_q, weight, where)


def _log_negative(log_q: Tensor) -> Tensor:
    """(B, K) log(-log q), also where q rounds to 1: the first class's is log(1 + e^t), t the log odds against."""
    place = log_q.argmax(1, keepdim=True)
    is_first = torch.zeros_like(log_q, dtype=torch.bool).scatter(1, place, True)
    odds = log_q.masked_fill(is_first, -math.inf).logsumexp(1, keepdim=True) - log_q.gather(1, place)
    tiny = odds < _TINY
    # What is not taken is 0 or 1 inside, so that no infinite slope gets into the gradient.
    usual = torch.nn.functional.softplus(odds.masked_fill(tiny, 0.0)).log()
    first = torch.where(tiny, odds - odds.exp() / 2, usual)
    return torch.where(is_first, first, (-log_q.masked_fill(is_first, -1.0)).log())


def _weighed(values: Tensor, logits: Tensor, weight: float, where: Tensor | None) -> Tensor:
    """Weighed, 0 where it does not count, and of the type that losses have for such logits."""
    found = values.to(torch.float64 if logits.dtype == torch.float64 else torch.float32) * weight
    return found if where is None else torch.where(where, found, 0.0)
