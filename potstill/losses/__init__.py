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
from potstill.losses.regression import negative_log_likelihood, scaled_error

__all__ = [
    "TABLE_LIMIT",
    "ClosedForm",
    "Target",
    "class_logits",
    "cross_entropy",
    "kl",
    "label_target",
    "log_softmax",
    "negative_log_likelihood",
    "printed_normalizer",
    "scaled_error",
    "simplex_normalizer",
    "soft_cross_entropy",
    "soft_target",
    "squared_error",
]
