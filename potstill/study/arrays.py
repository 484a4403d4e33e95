"""figures.json: the arrays behind the report's figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from potstill import metrics
from potstill.study import drawn, inferred, splits, telling
from potstill.study.collect import Reader
from potstill.study.plotted import Curve, Figures, Frequencies, Reliability
from potstill.study.tree import Family

Histograms: TypeAlias = Mapping[str, Mapping[str, Frequencies]]


def frequencies(reader: Reader, names: Sequence[str], classes: Sequence[str]) -> Histograms:
    """The prediction frequencies of every model on the splits of `names`."""
    told = {}
    for key in reader.tree.families:
        found = {name: splits.frequencies(reader.find(key), name, classes) for name in names}
        told[key] = {name: one for name, one in found.items() if one is not None}
    return told


def figures(
    reader: Reader, classes: Sequence[str], histograms: Histograms, *, compared: Sequence[tuple[str, str]] = ()
) -> Figures:
    """The arrays behind the report's figures; `compared` are the pairs of the verdicts."""
    targets = drawn.targets(reader)
    curves, confusion, reliability, texts = {}, {}, {}, {}
    areas, removed, lines = {}, {}, {}
    for key, family in reader.tree.families.items():
        found = reader.find(key)
        if not found.seeds:
            continue
        curve = _curve(reader.root, family, found.seeds)
        if curve:
            curves[key] = curve
        watched, left_out = inferred.watched(reader, found, family.plan.verdict.metric), inferred.removed(found)
        if watched:
            areas[key] = watched
        if left_out:
            removed[key] = left_out
        line = inferred.along(reader, found, targets) if targets else {}
        if line:
            lines[key] = line
        if targets:
            continue
        rows = [found.predictions[seed][family.plan.verdict.on] for seed in found.seeds]
        log_probs = np.concatenate([row.log_probs[row.labelled] for row in rows])
        labels = np.concatenate([row.labels[row.labelled] for row in rows])
        confusion[key] = metrics.confusion(log_probs, labels, log_probs.shape[1]).tolist()
        bins = metrics.reliability(log_probs, labels)
        reliability[key] = Reliability(
            low=list(bins.low), count=list(bins.count), confidence=list(bins.confidence), accuracy=list(bins.accuracy)
        )
        surest = telling.errors(reader.root, found, classes)
        if surest:
            texts[key] = surest
    return Figures(
        classes=list(classes),
        curves=curves,
        areas=areas,
        removed=removed,
        along=lines,
        confusion=confusion,
        reliability=reliability,
        frequencies={
            key: {name: splits.drawn(one) for name, one in by_split.items()} for key, by_split in histograms.items()
        },
        targets=targets,
        errors=drawn.errors(reader),
        telling=drawn.telling(reader),
        texts=texts,
        turning=telling.turning(reader, compared, classes) if texts else [],
    )


def _curve(root: Path, family: Family, seeds: Sequence[int]) -> Curve | None:
    """Learning curves; of an ensemble its first member's."""
    histories = []
    for seed in seeds:
        path = root / family.trainings[seed][0] / "history.jsonl"
        histories.append([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    if not all(histories):
        return None
    names = [n for n in histories[0][0] if n.startswith(("train_objective", "validation_"))]
    return Curve(
        seeds=list(seeds),
        steps=[[row["step"] for row in rows] for rows in histories],
        series={name: [[row[name] for row in rows] for rows in histories] for name in names},
    )
