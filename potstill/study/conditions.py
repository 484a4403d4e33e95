"""The test conditions of a plan: true or teacher's labels, plain or augmented examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from potstill import metrics
from potstill.evaluation import Predictions, measure
from potstill.study.evaluate import TEST, view_name
from potstill.study.measured import Condition, ConditionValues
from potstill.study.tables import Evaluation

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader

NAMES: Final = ("accuracy", "cross_entropy")
USUAL: Final = [("true", 0)]  # what every study measures


def conditions(reader: Reader, found: Found, evaluation: Evaluation) -> list[Condition]:
    """Every wanted condition that a model has: views need its own augmentation, teacher's labels a teacher.

    Empty where only the usual one is wanted. The teacher's label is its answer to the plain example, p > 0.5 or its
    most probable class, in every condition: a label belongs to an example, not to a view of it.
    """
    wanted = [(labels, views) for labels in evaluation.labels for views in evaluation.views]
    if wanted == USUAL or not found.seeds:
        return []
    told = []
    for labels, views in wanted:
        answers = [_labelled(reader, found, seed, teacher=labels == "teacher") for seed in found.seeds]
        known = [one for one in answers if one is not None]
        names = [view_name(view) for view in range(1, views + 1)] or [TEST]
        there = all(name in found.predictions[seed] for name in names for seed in found.seeds)
        if there and len(known) == len(answers):
            told.append(_condition(found, labels, views, names=names, answers=known))
    return told


def _labelled(reader: Reader, found: Found, seed: int, *, teacher: bool) -> NDArray[np.int64] | None:
    """(n,) labels; -1 where there is none."""
    plain = found.predictions[seed][TEST]
    if not teacher:
        return np.where(plain.labelled, plain.labels, -1)
    told = reader.teacher(found.family, seed, TEST) if found.family.teachers else None
    return None if told is None else np.asarray(told.log_probs.argmax(axis=1), np.int64)


def _condition(
    found: Found, labels: str, views: int, *, names: Sequence[str], answers: Sequence[NDArray[np.int64]]
) -> Condition:
    rows = []
    for seed, label in zip(found.seeds, answers, strict=True):
        for name in names:
            one = Predictions(found.predictions[seed][name].log_probs, np.maximum(label, 0), label >= 0)
            rows.append(list(measure(one, NAMES).values()))
    table = np.array(rows).reshape(len(found.seeds), len(names), len(NAMES))
    once = found.family.settings["shared"]
    return Condition.model_validate({
        "labels": labels,
        "views": views,
        "examples": int((answers[0] >= 0).sum()),
        "metrics": {
            metric: _values(table[..., at], metric, plain=not views, once=once) for at, metric in enumerate(NAMES)
        },
    })  # fmt: skip


def _values(table: NDArray[np.float64], metric: str, *, plain: bool, once: bool) -> ConditionValues:
    """From (seeds, views) values of a metric."""
    means = table.mean(axis=1)
    higher = metrics.get(metric, classes=2).better == "higher"
    best = table.max(axis=1) if higher else table.min(axis=1)
    several = table.shape[1] > 1
    return ConditionValues(
        values=means.tolist(),
        mean=float(means.mean()),
        std=float(means.std(ddof=1)) if len(means) > 1 and not once else None,
        over_views=float(table.std(axis=1, ddof=1).mean()) if several else None,
        best=None if plain else best.tolist(),
        best_mean=None if plain else float(best.mean()),
    )
