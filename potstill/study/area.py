"""Areas under curves: how a metric on validation data went while a model was trained, as one number per seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from potstill.study.plan_text import Where
from potstill.study.tables import Tables

PREFIX: Final = "area_under_"
CURVE: Final = "curve.jsonl"


def inner(metric: str) -> str:
    """The metric whose area it is; any other metric is itself.

    >>> inner("area_under_squared_error"), inner("accuracy")
    ('squared_error', 'accuracy')
    """
    return metric.removeprefix(PREFIX)


def is_area(metric: str) -> bool:
    """Whether a metric is an area under a curve."""
    return metric.startswith(PREFIX)


def watched(every: int | None, metric: str) -> dict[str, Any]:
    """What a training is told: after how many steps to look, and at which metric besides; empty without curves."""
    return {} if every is None else {"every": every, "watch": [inner(metric)] if is_area(metric) else []}


def under(curve: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """By the trapezoid rule over steps, in units of the metric times steps; None of a curve of less than two points.

    It begins at the curve's first point, which is not step 0.

    >>> under([{"step": 100, "validation_accuracy": 0.5}, {"step": 200, "validation_accuracy": 0.7}], "accuracy")
    60.0
    """
    if len(curve) < 2:
        return None
    values = [row[f"validation_{metric}"] for row in curve]
    return float(np.trapezoid(values, [row["step"] for row in curve]))


def read(folders: Sequence[Path], metric: str) -> float | None:
    """The mean over a model's trainings (the members of an ensemble) of the area below each one's curve."""
    areas = []
    for folder in folders:
        path = folder / CURVE
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        area = under([json.loads(line) for line in lines], metric)
        if area is None:
            return None
        areas.append(area)
    return float(np.mean(areas)) if areas else None


def check(plan: Tables, where: Where) -> None:
    """Curves are on validation data; an area is of curves that end at the same step."""
    if plan.evaluation.every is not None and plan.data.validation == 0:
        raise where.fault(("evaluation", "every"), "a curve is on validation data, and data.validation is 0.")
    if not is_area(plan.verdict.metric):
        return
    if plan.evaluation.every is None:
        raise where.fault(("verdict", "metric"), "an area needs a curve: say evaluation.every, a number of steps.")
    for path, training in (
        (("training",), plan.training),
        *((("models", n, "training"), m.training) for n, m in plan.models.items()),
    ):
        steps = training.steps or plan.training.steps
        if steps and steps < 2 * plan.evaluation.every:
            raise where.fault(
                ("evaluation", "every"),
                f"found {plan.evaluation.every} with {'.'.join((*path, 'steps'))} = {steps}; an area needs two points "
                f"of a curve, which is a look after {steps // 2} steps at most.",
            )
        if training.patience:
            raise where.fault((*path, "patience"), "a training that stops early ends its curve early: no area is fair.")
