"""Metrics by name: what they read, which direction is better, and how they add up over examples.

>>> import numpy as np
>>> predictions = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
>>> round(get("accuracy", classes=2).value(predictions, np.array([0, 1, 1])), 3)
0.667
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from potstill.errors import SettingError, unknown
from potstill.metrics import agreement as _agreement
from potstill.metrics import calibration as _calibration
from potstill.metrics import quality as _quality
from potstill.metrics import uncertainty as _uncertainty
from potstill.metrics import values as _values
from potstill.metrics.calibration import Reliability, reliability
from potstill.metrics.frequencies import frequencies, lows, probability
from potstill.metrics.metric import Metric, build, build_of_values
from potstill.metrics.quality import confusion
from potstill.types import DataSpec

__all__ = [
    "FRACTIONS",
    "Metric",
    "Reliability",
    "confusion",
    "declared",
    "fitting",
    "frequencies",
    "get",
    "lows",
    "names",
    "probability",
    "reliability",
]

_CLASSES: Mapping[str, Callable[..., Metric]] = MappingProxyType(
    {
        name: partial(make, name)
        for name, make in {
            "accuracy": partial(build, better="higher", raw=_quality.accuracy, fraction=True),
            "agreement": partial(build, better="higher", raw=_agreement.agreement, reads="teacher", fraction=True),
            "brier": partial(build, better="lower", raw=_quality.brier),
            "calibration_error": partial(
                build,
                better="lower",
                raw=_calibration.calibration_error,
                combine=_calibration.expected_gap,
                fraction=True,
            ),
            "cross_entropy": partial(build, better="lower", raw=_quality.cross_entropy),
            "error_rate": partial(build, better="lower", raw=_quality.error_rate, fraction=True),
            "macro_f1": partial(build, better="higher", raw=_quality.macro_f1, combine=_quality.mean_f1, fraction=True),
            "teacher_kl": partial(build, better="lower", raw=_agreement.teacher_kl, reads="teacher"),
            "uncertainty": partial(build, better="lower", raw=_uncertainty.uncertainty, reads="predictions"),
        }.items()
    }
)

_VALUES: Mapping[str, Callable[..., Metric]] = MappingProxyType(
    {
        name: partial(make, name)
        for name, make in {
            "absolute_error": partial(build_of_values, better="lower", raw=_values.absolute_error),
            "negative_log_likelihood": partial(
                build_of_values, better="lower", raw=_values.negative_log_likelihood, variances=True
            ),
            "r2": partial(build_of_values, better="higher", raw=_values.r2, combine=_values.explained),
            "squared_error": partial(build_of_values, better="lower", raw=_values.squared_error),
            "teacher_squared_error": partial(
                build_of_values, better="lower", raw=_values.squared_error, reads="teacher"
            ),
        }.items()
    }
)


def names(*, regression: bool | None = None) -> tuple[str, ...]:
    """The known metrics, sorted; with `regression`, those of values, or those of classes."""
    tables = (_CLASSES, _VALUES) if regression is None else (_VALUES if regression else _CLASSES,)
    return tuple(sorted(name for table in tables for name in table))


def get(name: str, *, classes: int | None = None, targets: int | None = None) -> Metric:
    """The metric `name` for `classes` classes (a binary task has 2), or for the `targets` of a regression.

    Raises `SettingError` for an unknown name, for one of the other kind of task, and for fewer than two classes or one
    target.
    """
    if name not in _CLASSES and name not in _VALUES:
        raise SettingError(unknown("metric", name, names(regression=targets is not None)))
    if (name in _VALUES) != (targets is not None):
        has, wants = ("values", "classes") if name in _VALUES else ("classes", "values")
        known = ", ".join(names(regression=targets is not None))
        raise SettingError(f'The metric "{name}" is one of {has}, and here are {wants}. Known: {known}.')
    if targets is not None:
        if targets < 1:
            raise SettingError(f"targets: found {targets}, wanted at least 1.")
        return _VALUES[name](targets=targets)
    if classes is None or classes < 2:
        raise SettingError(f"classes: found {classes}, wanted at least 2 (a binary task has 2).")
    return _CLASSES[name](classes=classes)


def fitting(name: str, spec: DataSpec) -> Metric:
    """The metric `name` for data: for its classes, or for its targets."""
    if spec.task == "regression":
        return get(name, targets=len(spec.targets))
    return get(name, classes=len(spec.classes))


def declared(name: str) -> Metric:
    """A metric's direction, and what it reads and is; whatever the task and the number of classes or targets."""
    return get(name, targets=1) if name in _VALUES else get(name, classes=2)


FRACTIONS = frozenset(name for name in names() if declared(name).fraction)
"""Names of the metrics in [0, 1] that read best in per cent; their differences in points."""
