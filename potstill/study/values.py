"""What a regression's models do on every evaluated split, for every target: errors, how often intervals hold, and
what a student's errors have of its teacher's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from potstill import metrics
from potstill.evaluation import Predictions
from potstill.study.correlation import Jackknife, interval, linear, linear_value
from potstill.study.measured import Correlation, Coverage, MetricValues, SharedErrors, TargetMeasures, ValueMeasures
from potstill.study.splits import trainings, values
from potstill.study.taught import Beside, taught

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader

LEVELS: Final = (0.5, 0.8, 0.9, 0.95)  # nominal, of the intervals that are told
Floats = NDArray[np.float64]


class Errors(NamedTuple):
    """One seed's labelled examples of a split: labels, values, and standard deviations where there are any; (n, D)."""

    labels: Floats
    values: Floats
    sigmas: Floats | None

    @staticmethod
    def of(one: Predictions) -> Errors:
        rows, logs = one.labelled, one.log_variances
        sigmas = None if logs is None else np.exp(logs[rows].astype(np.float64) / 2)
        return Errors(one.labels[rows].astype(np.float64), one.values[rows].astype(np.float64), sigmas)

    @property
    def residuals(self) -> Floats:
        """(n, D) label minus value: what the model left over."""
        return self.labels - self.values

    def covered(self, level: float) -> Floats:
        """(D,) the share of labels in the central interval of a normal distribution that holds so much of it."""
        if self.sigmas is None:
            raise ValueError("there are no variances")
        return np.asarray((np.abs(self.residuals) <= reach(level) * self.sigmas).mean(axis=0), np.float64)


def reach(level: float) -> float:
    """How many standard deviations the central interval of that probability reaches to either side."""
    return float(special.ndtri((1 + level) / 2))


def measures(found: Found, names: Sequence[str]) -> dict[str, ValueMeasures]:
    """The splits of `names` for which every seed has predictions of labelled examples."""
    told = {}
    for name in names:
        there = found.seeds and all(name in found.predictions[seed] for seed in found.seeds)
        if there and all(found.predictions[seed][name].labelled.any() for seed in found.seeds):
            told[name] = _measures(found, name)
    return told


def _measures(found: Found, split: str) -> ValueMeasures:
    first = found.predictions[found.seeds[0]][split]
    seeds = [Errors.of(found.judged(seed, split)) for seed in found.seeds]
    answered = first.log_variances is not None
    return ValueMeasures(
        examples=len(first.labelled),
        labelled=int(first.labelled.sum()),
        variance=None if seeds[0].sigmas is None else "answered" if answered else "validation",
        targets={
            name: _target(seeds, at, once=found.family.settings["shared"]) for at, name in enumerate(found.targets)
        },
    )


def _target(seeds: Sequence[Errors], at: int, *, once: bool) -> TargetMeasures:
    def each(name: str) -> MetricValues:
        metric, column = metrics.get(name, targets=1), slice(at, at + 1)
        return values([metric.value(one.values[:, column], one.labels[:, column]) for one in seeds], once=once)

    return TargetMeasures(
        bias=values([-one.residuals[:, at].mean() for one in seeds], once=once),
        squared_error=each("squared_error"),
        absolute_error=each("absolute_error"),
        r2=each("r2"),
        coverage=[
            Coverage(
                level=level,
                share=values([one.covered(level)[at] for one in seeds], once=once),
                width=values([2 * reach(level) * one.sigmas[:, at].mean() for one in seeds], once=once),  # type: ignore[index]
            )
            for level in (LEVELS if seeds[0].sigmas is not None else ())
        ],
    )


def table(found: Mapping[str, tuple[list[int], Mapping[str, ValueMeasures]]]) -> str:
    """CSV, one row per model, seed, split and target; `found` is, per model, its trainings' seeds and what they do."""
    head = ("model", "seed", "split", "target", "examples", "bias", "squared_error", "absolute_error", "r2")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*head, *(f"covered_{level:g}" for level in LEVELS)))
    writer.writerows(_rows(found))
    return text.getvalue()


def _rows(found: Mapping[str, tuple[list[int], Mapping[str, ValueMeasures]]]) -> Iterator[tuple[Any, ...]]:
    for key, (seeds, by_split) in found.items():
        for split, whole in by_split.items():
            for target, one in whole.targets.items():
                shares = {part.level: part.share for part in one.coverage}
                for at, seed in enumerate(seeds):
                    numbers = [one.bias, one.squared_error, one.absolute_error, one.r2]
                    told = [*numbers, *(shares.get(level) for level in LEVELS)]
                    shown = ["" if number is None else f"{number.values[at]:.6g}" for number in told]
                    yield (key, seed, split, target, whole.labelled, *shown)


def shared(reader: Reader, baseline: str | None) -> dict[str, dict[str, SharedErrors]]:
    """What every student's errors have of its teachers', by key and target; `baseline` names the model that is one."""
    told = {}
    for student, beside, never_met in taught(reader, baseline):
        pairs, strangers = _residuals(beside), _residuals(never_met)
        told[student.family.key] = {
            name: _shared(reader, student, at, pairs=pairs, never_met=strangers)
            for at, name in enumerate(student.targets)
        }
    return told


_Pair = tuple[Floats, Floats]


def _residuals(beside: Beside) -> list[_Pair]:
    """(n, D) of a student's teachers, who count as one, and of whoever is beside them."""
    return [(Errors.of(teacher).residuals, Errors.of(other).residuals) for teacher, other in beside]


def _shared(
    reader: Reader, student: Found, at: int, *, pairs: Sequence[_Pair], never_met: Sequence[_Pair]
) -> SharedErrors:
    found: list[Jackknife] = [linear(teacher[:, at], own[:, at]) for teacher, own in pairs]
    nested = student.family.plan.data.redraw == "seed"
    told = [one.value for one in found]
    mean = float(np.mean(told)) if np.isfinite(told).all() else None
    beside = [linear_value(teacher[:, at], own[:, at]) for teacher, own in never_met]
    once = student.family.settings["shared"]
    return SharedErrors(
        teachers=list(student.family.teachers),
        seeds=trainings(student),
        examples=sum(len(one) for one, _ in (pairs if nested else pairs[:1])),
        one_teacher=all(reader.tree.families[name].settings["shared"] for name in student.family.teachers),
        correlation=Correlation(
            values=[value if np.isfinite(value) else None for value in told],
            mean=mean,
            interval=None if mean is None else interval(found, nested=nested),
        ),
        baseline=float(np.mean(beside)) if beside and np.isfinite(beside).all() else None,
        distance=values([float(np.abs(teacher - own)[:, at].mean()) for teacher, own in pairs], once=once),
    )
