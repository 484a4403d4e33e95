"""Losses of a regression: one number per example, computed in float32 or better.

All take `values` (B, D), a student's, in any float precision, and `targets` (B, D), which are constants; they return
(B,). Rows where `where` (B,) bool is False give exactly 0 and no gradient, whatever their target holds (NaN too).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from potstill.errors import ObjectiveError

_HALF = frozenset((torch.float16, torch.bfloat16))
_LOG_TAU = math.log(2 * math.pi)


def scaled_error(
    values: Tensor, targets: Tensor, log_sigma: Tensor, *, kept: bool = True, where: Tensor | None = None
) -> Tensor:
    """(B,) sum_d [ (value - target)^2 / (2 sigma^2) + log sigma ], `log_sigma` (D,), (B, D) or ().

    That is the negative log-likelihood of normal errors without its constant log(2 pi)/2 per target. `kept` False
    leaves log sigma out too, which is right for a sigma that does not change: the least value is 0 then.
    sigma -> infinity: 0, or log sigma alone; sigma -> 0: the error counts without bounds.
    """
    if values.shape != targets.shape:
        raise ObjectiveError(
            f"The student's values and their targets have different shapes, {tuple(values.shape)} and "
            f"{tuple(targets.shape)}. Both need one number per target, in the same order."
        )
    if values.dtype in _HALF:
        values = values.float()
    targets, log_sigma = targets.to(values.dtype), log_sigma.to(values.dtype)
    if where is not None:
        targets = torch.where(where[:, None], targets, values.detach())
    loss = 0.5 * (values - targets).square() * torch.exp(-2.0 * log_sigma)
    if kept:
        logs = log_sigma.expand(loss.shape)
        loss = loss + (logs if where is None else torch.where(where[:, None], logs, 0.0))
    return loss.sum(1)


def negative_log_likelihood(
    values: Tensor, targets: Tensor, log_sigma: Tensor, *, where: Tensor | None = None
) -> Tensor:
    """(B,) -log prod_d N(target; value, sigma^2), in nats; `log_sigma` as in `scaled_error`."""
    constant = 0.5 * _LOG_TAU * values.shape[1]
    loss = scaled_error(values, targets, log_sigma, where=where) + constant
    return loss if where is None else torch.where(where, loss, 0.0)
