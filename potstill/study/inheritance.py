"""What a student takes over from its teacher on test examples: confidence, errors, uncertainty by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill import metrics
from potstill.evaluation import Predictions
from potstill.study.collect import Found, Reader
from potstill.study.correlation import Jackknife, errors, interval, spearman, spearman_value
from potstill.study.measured import Correlation, Inheritance, Inherited
from potstill.study.splits import EVERY, MOST_CLASSES, trainings
from potstill.study.statistics import crossed, half_width, paired
from potstill.study.taught import Beside, taught

Floats = NDArray[np.float64]


class _Numbers(NamedTuple):
    """One model and seed, per test example: (n,) each."""

    confidence: Floats
    error: Floats
    uncertainty: Floats


class _Pair(NamedTuple):
    """A student and its teachers, or whoever stands in the student's place; `labels` (n,) are the true ones."""

    teacher: _Numbers
    student: _Numbers
    labels: NDArray[np.int64]

    def rows(self, number: int | None) -> NDArray[np.bool_]:
        """The examples of a class, or all."""
        return np.ones(len(self.labels), bool) if number is None else self.labels == number


def inherited(reader: Reader, baseline: str | None, classes: Sequence[str]) -> dict[str, Inheritance]:
    """Every student that can be held beside its teachers, by key; `baseline` is the name of the model that is one."""
    return {
        found.family.key: _student(reader, found, _pairs(beside), classes=classes, never_met=_pairs(never_met))
        for found, beside, never_met in taught(reader, baseline)
    }


def _pairs(beside: Beside) -> list[_Pair]:
    return [_Pair(_numbers(teacher), _numbers(other), teacher.labels) for teacher, other in beside]


def _student(
    reader: Reader,
    found: Found,
    pairs: Sequence[_Pair],
    *,
    classes: Sequence[str],
    never_met: Sequence[_Pair],
) -> Inheritance:
    parts: list[tuple[str, int | None]] = [(EVERY, None)]
    if len(classes) <= MOST_CLASSES:
        there = [number for number in range(len(classes)) if all(one.rows(number).any() for one in pairs)]
        parts += [(classes[number], number) for number in there]
    nested = found.family.plan.data.redraw == "seed"
    reference = [
        [spearman_value(one.teacher.confidence, one.student.confidence) for one in never_met],
        [errors(one.teacher.error, one.student.error).value for one in never_met],
    ]
    return Inheritance(
        teachers=list(found.family.teachers),
        seeds=trainings(found),
        examples=sum(len(one.labels) for one in (pairs if nested else pairs[:1])),
        one_teacher=all(reader.tree.families[name].settings["shared"] for name in found.family.teachers),
        confidence=_correlation([_ranks(one, nested) for one in pairs], nested),
        errors=_correlation([errors(one.teacher.error, one.student.error) for one in pairs], nested),
        baseline_confidence=_mean(reference[0]),
        baseline_errors=_mean(reference[1]),
        classes=[_inherited(pairs, name, number, nested=nested) for name, number in parts],
    )


def _numbers(one: Predictions) -> _Numbers:
    width = one.log_probs.shape[1]
    return _Numbers(
        confidence=np.asarray(one.log_probs.max(axis=1), np.float64),  # of the same order as the probability
        error=np.asarray(one.log_probs.argmax(axis=1) != one.labels, np.float64),
        uncertainty=metrics.get("uncertainty", classes=width).phi(one.log_probs, one.labels)[:, 0],
    )


def _ranks(one: _Pair, nested: bool) -> Jackknife:
    """The rank correlation of confidence; its pseudo-values where seeds share their examples, which take time."""
    x, y = one.teacher.confidence, one.student.confidence
    return Jackknife(spearman_value(x, y), np.zeros(0)) if nested else spearman(x, y)


def _correlation(found: list[Jackknife], nested: bool) -> Correlation:
    values = [one.value for one in found]
    mean = _mean(values)
    told = [value if np.isfinite(value) else None for value in values]
    return Correlation(values=told, mean=mean, interval=None if mean is None else interval(found, nested=nested))


def _mean(values: Sequence[float]) -> float | None:
    """None where there is no value, or where one is not defined."""
    return float(np.mean(values)) if values and np.isfinite(values).all() else None


def _inherited(pairs: Sequence[_Pair], name: str, number: int | None, *, nested: bool) -> Inherited:
    """Uncertainty and errors of teacher and student on the examples of a class, or all."""
    rows = [one.rows(number) for one in pairs]
    both = [(one.teacher, one.student) for one in pairs]
    uncertain = [np.stack([t.uncertainty[at], s.uncertainty[at]]) for (t, s), at in zip(both, rows, strict=True)]
    wrong = [np.stack([t.error[at], s.error[at]]) for (t, s), at in zip(both, rows, strict=True)]
    if nested:  # every seed has examples of its own, which count alike in its mean
        uncertain, wrong = ([part.mean(axis=1, keepdims=True) for part in parts] for parts in (uncertain, wrong))
    numbers, mistakes = np.stack(uncertain), np.stack(wrong)
    gaps = numbers[:, 1] - numbers[:, 0]
    middle, half = float(gaps.mean()), None
    if len(gaps) > 1 and (nested or gaps.shape[1] > 1):
        half = float(half_width(paired(gaps[:, 0]) if nested else crossed(gaps), 1))
    return Inherited(
        name=name,
        examples=int(sum(at.sum() for at in (rows if nested else rows[:1]))),
        teacher_uncertainty=float(numbers[:, 0].mean()),
        student_uncertainty=float(numbers[:, 1].mean()),
        difference=middle,
        interval=None if half is None else (middle - half, middle + half),
        teacher_error_rate=float(mistakes[:, 0].mean()),
        student_error_rate=float(mistakes[:, 1].mean()),
    )
