"""Which epoch's weights the trainings of a model kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.study import splits
from potstill.study.measured import BestEpoch

if TYPE_CHECKING:
    from potstill.study.collect import Found


def best_epoch(root: Path, found: Found) -> BestEpoch | None:
    """None where nothing was picked: the last weights were kept, or there was no training."""
    epoch, epochs, metrics = [], [], set()
    for seed in found.seeds:
        rows = found.results[seed]
        told = [_picked(root / at, row["info"]) for at, row in zip(found.family.trainings[seed], rows, strict=True)]
        known = [one for one in told if one is not None]
        if not known or len(known) < len(told):
            return None
        means = np.mean(known, axis=0)
        epoch.append(float(means[0]))
        epochs.append(float(means[1]))
        metrics |= {row["info"]["select"] for row in rows}
    if len(metrics) != 1:
        return None
    once = found.family.settings["shared"]
    return BestEpoch(
        metric=metrics.pop(), epoch=splits.values(epoch, once=once), epochs=splits.values(epochs, once=once)
    )


def _picked(folder: Path, info: Mapping[str, Any]) -> tuple[int, int] | None:
    """The number of the epoch, from 1, and how many there were."""
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    if info["select"] == "last" or info["best_step"] not in steps:
        return None
    return steps.index(info["best_step"]) + 1, len(steps)
