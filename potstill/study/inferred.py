"""The arrays behind the figures of models whose weights are distributions, and of areas under curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from potstill import storage
from potstill.study import area
from potstill.study.plotted import Along, Curve, Removed, RemovedLayer

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader


def watched(reader: Reader, found: Found, metric: str) -> Curve | None:
    """The curves whose areas are judged, one per seed; of an ensemble the first member's. None without areas."""
    if not area.is_area(metric):
        return None
    paths = [reader.root / found.family.trainings[seed][0] / area.CURVE for seed in found.seeds]
    if not paths or not all(path.is_file() for path in paths):
        return None
    rows = [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]
    name = f"validation_{area.inner(metric)}"
    return Curve(
        seeds=list(found.seeds),
        steps=[[row["step"] for row in one] for one in rows],
        series={name: [[row[name] for row in one] for one in rows]},
    )


def removed(found: Found) -> Removed | None:
    """What the prior of the first seed's training left out of its teacher's posterior; None of a model without one."""
    if not found.seeds:
        return None
    told = found.results[found.seeds[0]][0]["info"].get("reduced")
    if told is None:
        return None
    layers = [
        RemovedLayer(
            layer=row["layer"],
            removed=row["neurons"],
            removed_scores=row["scores"],
            kept=row["kept"],
            kept_scores=row["kept_scores"],
        )
        for row in told["neurons"]
    ]
    return Removed(seed=found.seeds[0], neurons=layers, layers=told["layers"], added=told["added"])


def along(reader: Reader, found: Found, targets: Sequence[str]) -> dict[str, Along]:
    """What a model of the first seed says along one input, by target."""
    if not found.seeds:
        return {}
    seed, family = found.seeds[0], found.family
    told = storage.read_json(reader.root / family.units[seed] / "evaluation.json").get("along")
    if told is None:
        return {}
    logs = found.judged(seed, family.plan.verdict.on).log_variances
    lines = {}
    for at, target in enumerate(targets):
        sigmas = told["sigmas"][at] if told["sigmas"] else []
        if not sigmas and logs is not None:  # one for all examples
            sigmas = [float(np.exp(logs[0, at] / 2))] * len(told["at"])
        points = {"points": told["points"], "labels": told["labels"][at]} if "points" in told else {}
        values = told["values"][at]
        lines[target] = Along(seed=seed, input=told["input"], at=told["at"], values=values, sigmas=sigmas, **points)
    return lines
