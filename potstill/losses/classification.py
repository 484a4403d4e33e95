"""Losses of a classifier: one number per example, computed in float32 or better, in nats.

All take `logits` (B, K), the raw scores, in any float precision, and return (B,): float32, or float64 for float64.
Targets are constants. Two keywords are common to all: `weight` multiplies the loss, and rows where `where` (B,) bool is
False give exactly 0 and no gradient, whatever their target holds (NaN too).

On a small student's step, half a millisecond, every tensor operation costs 3 to 5 us, mostly because its code is no
longer in the cache. So weights are folded into the targets; leave `where` out when all rows count.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from potstill.errors import ObjectiveError

# Below this many classes torch's softmax over the last axis falls back to scalar code (a vector register holds up to
# 16 float32); over the first axis it does not. For 128 x 10: 14 us against 3 us.
_NARROW = 16
_HALF = frozenset((torch.float16, torch.bfloat16))
_IGNORED = -100


def class_logits(logits: Tensor) -> Tensor:
    """(..., K) logits of classes: (..., 1), the one logit z of a binary task, becomes (..., 2) = [0, z]; others stay.

    softmax([0, z])[1] = sigmoid(z), so every loss of a classifier holds for both kinds of network.
    """
    if logits.shape[-1] != 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], -1)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, K) log of softmax(logits / temperature) over the classes; fast for few classes too.

    For few classes it is a transposed view.
    """
    if logits.dtype in _HALF:
        logits = logits.float()
    if temperature != 1.0:
        logits = logits * _number(1.0 / temperature, logits.dtype)
    if logits.shape[1] < _NARROW and not logits.is_cuda:
        return torch.log_softmax(logits.t(), 0).t()
    return torch.log_softmax(logits, 1)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """(B,) cross-entropy with `labels` (B,) int64.

    -(1 - s) log q[label] - s/K sum_k log q[k] with q = softmax(logits) and s = `label_smoothing`.

    s = 0: ordinary cross-entropy. s = 1: cross-entropy with the uniform distribution, labels are ignored.
    Label smoothing: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.
    """
    log_q = log_softmax(logits)
    if where is not None:
        labels = torch.where(where, labels, _IGNORED)
    factor = weight * (1.0 - label_smoothing)
    # A weight per class costs nothing; multiplying the result costs an operation forward and one backward.
    per_class = None if factor == 1.0 else _weights(factor, log_q.shape[1], log_q.dtype, log_q.device)
    loss = functional.nll_loss(log_q, labels, per_class, reduction="none", ignore_index=_IGNORED)
    if label_smoothing:
        smooth = log_q.mean(1)
        smooth = smooth if where is None else torch.where(where, smooth, 0.0)
        loss = torch.add(loss, smooth, alpha=-weight * label_smoothing)
    return loss


def soft_cross_entropy(
    logits: Tensor,
    target_probs: Tensor,
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """(B,) cross-entropy with a distribution: -sum_k p[k] log q[k], q = softmax(logits / temperature).

    `target_probs` (B, K) is p, softened already. The smallest value is the entropy of p, not 0: to imitate, take `kl`.
    """
    if logits.shape != target_probs.shape:
        raise _shapes(logits, target_probs)
    if where is not None:
        target_probs = torch.where(where.unsqueeze(1), target_probs, 0.0)
    log_q = log_softmax(logits, temperature)
    return (log_q * (target_probs * _number(-weight, log_q.dtype))).sum(1)


def kl(
    logits: Tensor,
    target_probs: Tensor,
    target_neg_entropy: Tensor,
    *,
    temperature: float,
    weight: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """(B,) KL(p || q) = sum_k p[k] (log p[k] - log q[k]) >= 0 with q = softmax(logits / temperature).

    `target_probs` (B, K) is p, softened already; `target_neg_entropy` (B,) is sum_k p[k] log p[k]. Zero, with zero
    gradient, where student = teacher. The factor T^2 of Hinton et al. is not in it.
    """
    cross = soft_cross_entropy(logits, target_probs, temperature=temperature, weight=weight, where=where)
    if where is not None:
        target_neg_entropy = torch.where(where, target_neg_entropy, 0.0)
    return torch.add(cross, target_neg_entropy, alpha=weight)


def squared_error(logits: Tensor, targets: Tensor, *, weight: float = 1.0, where: Tensor | None = None) -> Tensor:
    """(B,) mean over the K outputs of (logits - targets)^2; `targets` (B, K), K = 1 too.

    The mean, not the sum: Ba and Caruana 2014, equation 1, sum over outputs and halve, which is K/2 times this.
    """
    if logits.shape != targets.shape:
        raise _shapes(logits, targets)
    if logits.dtype in _HALF:
        logits = logits.float()
    targets = targets.to(logits.dtype)
    if where is not None:
        targets = torch.where(where.unsqueeze(1), targets, logits.detach())
    loss = functional.mse_loss(logits, targets, reduction="none").mean(1)
    return loss if weight == 1.0 else loss * _number(weight, loss.dtype)


@lru_cache(maxsize=256)
def _number(value: float, dtype: torch.dtype) -> Tensor:
    # Multiplying by a tensor of no dimensions takes half the time of multiplying by a Python float.
    with torch.inference_mode(False):  # validation may ask first; training keeps it for the backward pass
        return torch.tensor(value, dtype=dtype)


@lru_cache(maxsize=64)
def _weights(value: float, classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((classes,), value, dtype=dtype, device=device)


def _shapes(logits: Tensor, targets: Tensor) -> ObjectiveError:
    # Broadcasting would give a number all the same.
    return ObjectiveError(
        f"The student's outputs and their targets have different shapes, {tuple(logits.shape)} and "
        f"{tuple(targets.shape)}. Both need one output per class, or per target of a regression, in the same order."
    )
