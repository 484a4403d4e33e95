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
from potstill.losses.features import angles, attention, distances, mean_square, similarities
from potstill.losses.normalizers import printed_normalizer, simplex_normalizer
from potstill.losses.regression import negative_log_likelihood, scaled_error
from potstill.losses.relations import column_correlation, others_kl, row_correlation, target_kl

__all__ = [
    "TABLE_LIMIT",
    "ClosedForm",
    "Target",
    "angles",
    "attention",
    "class_logits",
    "column_correlation",
    "cross_entropy",
    "distances",
    "kl",
    "label_target",
    "log_softmax",
    "mean_square",
    "negative_log_likelihood",
    "others_kl",
    "printed_normalizer",
    "row_correlation",
    "scaled_error",
    "similarities",
    "simplex_normalizer",
    "soft_cross_entropy",
    "soft_target",
    "squared_error",
    "target_kl",
]
