"""Losses: pure functions that return one number per example, (B,)."""

from potstill.losses.classification import (
    class_logits,
    cross_entropy,
    kl,
    log_softmax,
    soft_cross_entropy,
    squared_error,
)

__all__ = [
    "class_logits",
    "cross_entropy",
    "kl",
    "log_softmax",
    "soft_cross_entropy",
    "squared_error",
]
