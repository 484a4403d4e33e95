"""Objectives of a regression, whose students answer values.

Everything an objective sees is in the units in which networks answer: standard deviations from a mean of the labelled
training rows, unless the targets are taken as they are (`potstill.units`).
"""

from __future__ import annotations

from potstill.losses import terms
from potstill.objectives.objective import Objective


def squared_error() -> Objective:
    """Regression on the labels: ordinary training of values, the baseline of a regression. It has no dials.

    hard = mean_d (z[d] - y[d])^2 over the D targets, z the student's values; in standard deviations (unless targets are
    taken as they are), so that targets count alike. Up to a constant it is the negative log-likelihood of normal errors
    of standard deviation sqrt(D/2).
    """
    told = terms.squared_error_with_labels
    return Objective("squared_error", {}, told, needs_labels=True, needs_teacher=False, learns="values")
