"""Parts of what a teacher's probabilities say: of one class against the others, among the others, in their order.

All take the student's `logits` (B, K) and constants of the teacher, and return (B,), as losses do; `weight` and `where`
mean what they mean there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from potstill.errors import ObjectiveError
from potstill.losses.classification import log_softmax


def target_kl(
    logits: Tensor,
    teacher_log_probs: Tensor,
    classes: Tensor,
    *,
    temperature: float,
    weight: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """(B,) KL between the teacher's and the student's (p, 1 - p), p the probability of `classes` (B,) int64.

    Zhao et al. 2022, "Decoupled knowledge distillation", section 3.1: TCKD. The student's is softened by `temperature`,
    `teacher_log_probs` (B, K) are it already.
    """
    (log_p, other_p), (log_q, other_q), _ = _split(logits, teacher_log_probs, classes, temperature, where)
    value = log_p.exp() * (log_p - log_q) + other_p.exp() * (other_p - other_q)
    return _weighed(value, weight, where)


def others_kl(
    logits: Tensor,
    teacher_log_probs: Tensor,
    classes: Tensor,
    *,
    temperature: float,
    weight: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """(B,) KL between the teacher's and the student's probabilities of all other classes, which add up to 1 for each.

    Zhao et al. 2022: NCKD. With p of `target_kl`, the KL of all classes is target_kl + (1 - p) others_kl (equation 6).
    Two classes have one other, and it is 0.
    """
    (_, other_p), (_, other_q), (log_p, log_q, rest) = _split(logits, teacher_log_probs, classes, temperature, where)
    inner_p, inner_q = log_p - other_p.unsqueeze(1), log_q - other_q.unsqueeze(1)
    value = torch.where(rest, inner_p.exp() * (inner_p - inner_q), 0.0).sum(1)
    return _weighed(value, weight, where)


def row_correlation(
    logits: Tensor, probs: Tensor, *, temperature: float, weight: float = 1.0, where: Tensor | None = None
) -> Tensor:
    """(B,) 1 minus the correlation over classes of an example's probabilities, student's and teacher's `probs` (B, K).

    Huang et al. 2022, "Knowledge distillation from a stronger teacher", equation 5; in [0, 2], and 1/2 where either
    knows no difference between classes. Raises `ObjectiveError` for two classes: any two orders of two correlate with
    1 or -1.
    """
    if logits.shape[1] < 3:
        raise ObjectiveError(
            "The correlation over classes of an example says nothing about two classes: it is 1 or -1. Set inter = 0."
        )
    return _weighed(_halved(*_standard(logits, probs, temperature, where, axis=1)).sum(1), weight, where)


def column_correlation(
    logits: Tensor, probs: Tensor, *, temperature: float, weight: float = 1.0, where: Tensor | None = None
) -> Tensor:
    """(B,) an example's part in 1 minus the correlation over a batch of a class's probabilities, the mean over classes.

    Huang et al. 2022, equation 7. The mean of the parts over the examples that count is the batch's value.
    """
    rows = len(logits) if where is None else where.sum()
    return _weighed(_halved(*_standard(logits, probs, temperature, where, axis=0)).mean(1) * rows, weight, where)


def _split(
    logits: Tensor, teacher_log_probs: Tensor, classes: Tensor, temperature: float, where: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities (B,) of the class and of all others together, teacher's and student's; those of all (B, K)."""
    log_q = log_softmax(logits, temperature)
    log_p = teacher_log_probs.to(log_q.dtype)
    if where is not None:
        log_p = torch.where(where.unsqueeze(1), log_p, -math.log(log_q.shape[1]))
    index = classes.unsqueeze(1)
    rest = torch.ones_like(log_q, dtype=torch.bool).scatter(1, index, False)

    def parts(log_probs: Tensor) -> tuple[Tensor, Tensor]:
        others = log_probs.masked_fill(~rest, -math.inf).logsumexp(1)
        return log_probs.gather(1, index).squeeze(1), others

    return parts(log_p), parts(log_q), (log_p, log_q, rest)


def _standard(
    logits: Tensor, probs: Tensor, temperature: float, where: Tensor | None, *, axis: int
) -> tuple[Tensor, Tensor]:
    """Both sides' probabilities, centred and of length 1 along an axis; 0 where they do not vary, or do not count."""
    q = log_softmax(logits, temperature).exp()
    counts = torch.ones_like(q[:, :1]) if where is None else where.unsqueeze(1).to(q.dtype)
    p = probs.to(q.dtype) if where is None else torch.where(where.unsqueeze(1), probs.to(q.dtype), 0.0)

    def standard(rows: Tensor) -> Tensor:
        if axis == 1:
            centred = rows - rows.mean(1, keepdim=True)
        else:
            centred = (rows - (rows * counts).sum(0) / counts.sum().clamp_min(1.0)) * counts
        squares = centred.square().sum(axis, keepdim=True)
        # What is left of equal numbers is rounding, of which lengths and slopes would be made.
        rounding = (4 * torch.finfo(rows.dtype).eps) ** 2 * rows.detach().square().sum(axis, keepdim=True)
        varies = squares > rounding.clamp_min(torch.finfo(rows.dtype).tiny)
        return torch.where(varies, centred / torch.where(varies, squares, 1.0).sqrt(), 0.0)

    return standard(p), standard(q)


def _halved(p: Tensor, q: Tensor) -> Tensor:
    """Half the squared difference: of vectors of length 1 its sum is 1 minus their product."""
    return (p - q).square() / 2


def _weighed(values: Tensor, weight: float, where: Tensor | None) -> Tensor:
    values = values * weight
    return values if where is None else torch.where(where, values, 0.0)
