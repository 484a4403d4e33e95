"""The test conditions of a plan: true or teacher's labels, plain or augmented examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill import metrics
from potstill.evaluation import Predictions, measure
from potstill.metrics.quality import LOG_FLOOR
from potstill.study.evaluate import view_name
from potstill.study.measured import Condition, ConditionValues
from potstill.study.tables import Evaluation

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader

NAMES: Final = ("accuracy", "cross_entropy")
OF_VALUES: Final = ("squared_error", "absolute_error")  # of a regression
SOFT: Final = "soft_cross_entropy"  # against the teacher's probabilities, not its thresholded answer
USUAL: Final = [("true", 0)]  # what every study measures


def conditions(reader: Reader, found: Found, evaluation: Evaluation) -> list[Condition]:
    """Every wanted condition that a model has: views need its own augmentation, teacher's labels a teacher.

    On the test set of the verdicts.
    Empty where only the usual one is wanted. The teacher's label is its answer to the plain example, p > 0.5 or its
    most probable class, in every condition: a label belongs to an example, not to a view of it.
    """
    on = found.family.plan.verdict.on
    wanted = [(labels, views) for labels in evaluation.labels for views in evaluation.views]
    if wanted == USUAL or not found.seeds:
        return []
    told = []
    for labels, views in wanted:
        told_by = [_told(reader, found, seed, teacher=labels == "teacher") for seed in found.seeds]
        known = [one for one in told_by if one is not None]
        names = [view_name(on, view) for view in range(1, views + 1)] or [on]
        there = all(name in found.predictions[seed] for name in names for seed in found.seeds)
        if there and len(known) == len(told_by):
            told.append(_condition(found, labels, views, names=names, answers=known))
    return told


class _Answers(NamedTuple):
    """What is right: labels (n,), of a regression (n, D), where they are known (n,); a teacher's also as (n, K)
    probabilities."""

    labels: NDArray[Any]
    known: NDArray[np.bool_]
    soft: NDArray[np.float64] | None = None


def _told(reader: Reader, found: Found, seed: int, *, teacher: bool) -> _Answers | None:
    """None where there is no teacher, or none that answers test examples."""
    on = found.family.plan.verdict.on
    plain = found.predictions[seed][on]
    if not teacher:
        return _Answers(plain.labels, plain.labelled)
    told = reader.teacher(found.family, seed, on) if found.family.teachers else None
    if told is None:
        return None
    every = np.ones(len(told.labels), bool)
    if told.regression:
        return _Answers(told.values, every)
    return _Answers(told.log_probs.argmax(axis=1), every, np.exp(told.log_probs.astype(np.float64)))


def soft_cross_entropy(log_probs: NDArray[Any], soft: NDArray[np.float64]) -> float:
    """Mean of -sum_k q_k log p_k, in nats, of (n, K) log p and q; log p is clipped as in `cross_entropy`.

    Two classes: Biryukova, Knowledge distillation for binary classification, eq. 1 with a soft y. At least q's entropy.
    """
    logs = np.maximum(log_probs.astype(np.float64), LOG_FLOOR)
    return float(-(soft * logs).sum(axis=1).mean())


def _condition(
    found: Found, labels: str, views: int, *, names: Sequence[str], answers: Sequence[_Answers]
) -> Condition:
    rows = []
    wanted = OF_VALUES if answers[0].labels.ndim == 2 else NAMES
    for seed, (label, known, soft) in zip(found.seeds, answers, strict=True):
        for name in names:
            one = Predictions(found.predictions[seed][name].answers, label, known)
            rows.append(list(measure(one, wanted).values()))
            if soft is not None:
                rows[-1].append(soft_cross_entropy(one.log_probs, soft))
    asked = wanted if answers[0].soft is None else (*wanted, SOFT)
    table = np.array(rows).reshape(len(found.seeds), len(names), len(asked))
    once = found.family.settings["shared"]
    return Condition.model_validate({
        "labels": labels,
        "views": views,
        "examples": int(answers[0].known.sum()),
        "metrics": {
            metric: _values(table[..., at], metric, plain=not views, once=once) for at, metric in enumerate(asked)
        },
    })  # fmt: skip


def _values(table: NDArray[np.float64], metric: str, *, plain: bool, once: bool) -> ConditionValues:
    """From (seeds, views) values of a metric."""
    means = table.mean(axis=1)
    higher = metric in metrics.names() and metrics.declared(metric).better == "higher"
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
