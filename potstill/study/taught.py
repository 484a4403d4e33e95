"""Students beside their teachers, who count as one, or whoever stands in a student's place: predictions of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from potstill.evaluation import Predictions
from potstill.study.splits import trainings

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader

Beside: TypeAlias = list[tuple[Predictions, Predictions]]


def taught(reader: Reader, baseline: str | None) -> Iterator[tuple[Found, Beside, Beside]]:
    """Every student that can be held beside its teachers, with (teacher, student) of each training, and with (teacher,
    baseline), who never met; `baseline` names the model that is one, and there may be none.
    """
    for key in reader.tree.families:
        student = reader.find(key)
        pairs = _beside(reader, student, student)
        if pairs:
            other = reader.baseline(student, baseline)
            yield student, pairs, [] if other is None else _beside(reader, student, other)


def _beside(reader: Reader, student: Found, other: Found) -> Beside:
    """Empty where there is no teacher, or none that answers test examples."""
    pairs, on = [], student.family.plan.verdict.on
    for seed in trainings(student) if student.family.teachers else ():
        teacher = reader.teacher(student.family, seed, on)
        if teacher is None or not teacher.labelled.all():
            return []
        if seed in other.predictions:
            pairs.append((teacher, other.predictions[seed][on]))
    return pairs
