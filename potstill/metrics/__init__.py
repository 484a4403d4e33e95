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
from potstill.metrics.calibration import Reliability, reliability
from potstill.metrics.frequencies import frequencies, lows, probability
from potstill.metrics.metric import Metric, build
from potstill.metrics.quality import confusion

__all__ = [
    "FRACTIONS",
    "Metric",
    "Reliability",
    "confusion",
    "frequencies",
    "get",
    "lows",
    "names",
    "probability",
    "reliability",
]

_METRICS: Mapping[str, Callable[..., Metric]] = MappingProxyType(
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


def names() -> tuple[str, ...]:
    """The known metrics, sorted."""
    return tuple(sorted(_METRICS))


def get(name: str, *, classes: int) -> Metric:
    """The metric `name` for `classes` classes (a binary task has 2).

    Raises `SettingError` for an unknown name and for fewer than two classes.
    """
    if name not in _METRICS:
        raise SettingError(unknown("metric", name, names()))
    if classes < 2:
        raise SettingError(f"classes: found {classes}, wanted at least 2 (a binary task has 2).")
    return _METRICS[name](classes=classes)


FRACTIONS = frozenset(name for name in names() if get(name, classes=2).fraction)
"""Names of the metrics in [0, 1] that read best in per cent; their differences in points."""
