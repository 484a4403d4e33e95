"""Losses: pure functions that return one number per example, (B,)."""

from potstill.losses.classification import (
    class_logits,
    cross_entropy,
    kl,
    log_softmax,
    soft_cross_entropy,
    squared_error,
)
from potstill.losses.closed_form import TABLE_LIMIT, ClosedForm, Target, label_target, soft_target
from potstill.losses.normalizers import printed_normalizer, simplex_normalizer

__all__ = [
    "TABLE_LIMIT",
    "ClosedForm",
    "Target",
    "class_logits",
    "cross_entropy",
    "kl",
    "label_target",
    "log_softmax",
    "printed_normalizer",
    "simplex_normalizer",
    "soft_cross_entropy",
    "soft_target",
    "squared_error",
]
