"""From the files of a run to results.json and figures.json. Reads stored predictions, never data or models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill import metrics, storage
from potstill.data.parts import TEST
from potstill.evaluation import AGAINST_TEACHER, QUALITY, Predictions, load_predictions, measure
from potstill.study import area, conditions, epochs, splits, words
from potstill.study.evaluate import on_test, split_of
from potstill.study.plan import Plan
from potstill.study.results import (
    Cost,
    Curve,
    Failure,
    Figures,
    Frequencies,
    Latency,
    MetricValues,
    ModelResult,
    Reliability,
    Ship,
)
from potstill.study.tree import Family, Node, Tree


class Kept(Mapping[str, Predictions]):
    """A unit's stored predictions by name, read when asked for; those on training rows and views are let go."""

    def __init__(self, folder: Path) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
        self._held: dict[str, Predictions] = {}

    def __getitem__(self, name: str) -> Predictions:
        if name not in self._held:
            found = load_predictions(self._paths[name])
            if name == "train" or name != split_of(name):
                return found
            self._held[name] = found
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@dataclass(frozen=True)
class Found:
    """One family's files: per complete seed the predictions on each split, and its trainings' results."""

    family: Family
    predictions: Mapping[int, Mapping[str, Predictions]]
    results: Mapping[int, Sequence[Mapping[str, Any]]]
    failures: Sequence[Failure]

    @property
    def seeds(self) -> list[int]:
        """Seeds with predictions on the test split."""
        return sorted(self.predictions)


class Reader:
    """Reads a run folder family by family; every file once."""

    def __init__(self, root: Path, tree: Tree) -> None:
        self.root, self.tree = root, tree
        self._units: dict[str, Kept] = {}
        self._found: dict[str, Found] = {}

    def find(self, key: str) -> Found:
        """What there is of a family."""
        if key not in self._found:
            family = self.tree.families[key]
            predictions, results, failures = {}, {}, []
            for seed, unit in family.units.items():
                if (self.root / unit / "evaluation.json").is_file():
                    predictions[seed] = self._predictions(unit)
                    results[seed] = [storage.read_json(self.root / f / "result.json") for f in family.trainings[seed]]
                elif not family.brought:
                    failures.append(self._failure(family, seed))
            self._found[key] = Found(family, predictions, results, failures)
        return self._found[key]

    def _predictions(self, unit: str) -> Kept:
        if unit not in self._units:
            self._units[unit] = Kept(self.root / unit / "predictions")
        return self._units[unit]

    def _failure(self, family: Family, seed: int) -> Failure:
        for folder in family.trainings[seed]:
            path = self.root / folder / "failure.json"
            if path.is_file():
                return Failure(seed=seed, state="failed", reason=storage.read_json(path)["reason"].strip())
        node: Node | None = self.tree.nodes.get(next(iter(family.trainings[seed]), ""))
        blocked = self._failed_ancestor(node) if node else None
        return Failure(seed=seed, state="not run", reason=f"{blocked} failed" if blocked else "the run is not finished")

    def _failed_ancestor(self, node: Node) -> str | None:
        for need in node.needs:
            above = self.tree.nodes[need]
            if (self.root / need / "failure.json").is_file():
                return above.family
            found = self._failed_ancestor(above)
            if found:
                return found
        return None

    def teacher(self, family: Family, seed: int, split: str) -> Predictions | None:
        """What a student's teachers predict: the mean over all their members' probabilities, which count alike in
        training too; None if a teacher has no predictions."""
        told = [self.find(key).predictions.get(seed, {}).get(split) for key in family.teachers]
        if not told or any(one is None for one in told):
            return None
        rows = [one for one in told if one is not None]
        members = np.array([self.tree.families[key].settings["members"] for key in family.teachers], np.float64)
        weights = np.log(members / members.sum())[:, None, None]
        mean = np.logaddexp.reduce(np.stack([one.log_probs for one in rows]).astype(np.float64) + weights, axis=0)
        return Predictions(mean.astype(np.float32), rows[0].labels, rows[0].labelled)


def model_result(reader: Reader, key: str, plan: Plan, *, workers: int, classes: Sequence[str]) -> ModelResult:
    """One model's row of results.json."""
    found = reader.find(key)
    family, settings = found.family, found.family.settings
    metric = plan.verdict.metric
    validation = _metrics(reader, found, "validation")
    notes = sorted({note for rows in found.results.values() for row in rows for note in row["info"]["notes"]})
    return ModelResult(
        model=family.model,
        point=dict(family.point),
        generation=family.generation,
        generations=settings["generations"],
        members=settings["members"],
        network=words.network(settings["network"], settings["sees"]),
        sees=settings["sees"],
        teachers=list(family.teachers),
        objective=words.learns(settings),
        shared=settings["shared"],
        seeds=found.seeds,
        failures=list(found.failures),
        metrics=_metrics(reader, found, plan.verdict.on) | areas(reader, found, metric),
        validation=validation,
        tests=_tests(reader, found, plan),
        splits=splits.measures(found, plan.evaluation.splits, classes),
        conditions=conditions.conditions(reader, found, plan.evaluation),
        best=epochs.best_epoch(reader.root, found),
        cost=_cost(reader, found, workers),
        ship=_ship(found, validation, area.inner(metric)),
        notes=notes,
    )


def _metrics(reader: Reader, found: Found, split: str) -> dict[str, MetricValues]:
    names = QUALITY + (AGAINST_TEACHER if found.family.teachers else ())
    rows: dict[str, list[float]] = {}
    for seed in found.seeds:
        predictions = found.predictions[seed].get(split)
        if predictions is None or not predictions.labelled.any():
            return {}
        for name, value in measure(predictions, names, reader.teacher(found.family, seed, split)).items():
            rows.setdefault(name, []).append(value)
    once = found.family.settings["shared"]
    return {name: splits.values(many, once=once) for name, many in rows.items() if len(many) == len(found.seeds)}


def _tests(reader: Reader, found: Found, plan: Plan) -> dict[str, dict[str, MetricValues]]:
    """The metrics on every test set that is evaluated; empty where that is one, which has no name of its own."""
    names = [name for name in plan.evaluation.splits if on_test(name)]
    return {} if names == [TEST] else {name: _metrics(reader, found, name) for name in names}


def areas(reader: Reader, found: Found, metric: str) -> dict[str, MetricValues]:
    """The area under the curve that a plan judges by, of a model of which every seed has one."""
    if not area.is_area(metric) or not found.seeds:
        return {}
    folders = ([reader.root / folder for folder in found.family.trainings[seed]] for seed in found.seeds)
    values = [area.read(one, area.inner(metric)) for one in folders]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {}
    return {metric: splits.values(known, once=found.family.settings["shared"])}


def _cost(reader: Reader, found: Found, workers: int) -> Cost | None:
    path = reader.root / Path(next(iter(found.family.units.values()))).parent / "cost.json"
    if not found.seeds or not path.is_file():
        return None
    stored = storage.read_json(path)
    trained = [sum(row["seconds"] for row in rows) for rows in found.results.values()]
    recorded: dict[str, float] = {}  # by seed: a teacher may be recorded for several sets of views
    for node in reader.tree.nodes.values():
        result = reader.root / node.folder / "result.json"
        if node.kind == "record" and node.family == found.family.key and result.is_file():
            recorded[result.parent.name] = recorded.get(result.parent.name, 0.0) + storage.read_json(result)["seconds"]
    return Cost(
        parameters=stored["parameters"],
        multiply_adds=stored["multiply_adds"],
        bytes=stored["bytes"],
        latency=[Latency(**row) for row in stored["latency"]],
        machine=stored.get("machine"),
        train_seconds=float(np.mean(trained)),
        record_seconds=float(np.mean(list(recorded.values()))) if recorded else None,
        workers=workers,
    )


def _ship(found: Found, validation: Mapping[str, MetricValues], metric: str) -> Ship | None:
    if metric not in validation:
        return None
    values = validation[metric].values
    higher = metrics.get(metric, classes=2).better == "higher"
    best = max(range(len(values)), key=lambda i: (values[i] if higher else -values[i], -i))
    seed = found.seeds[best]
    return Ship(seed=seed, folder=found.family.units[seed], metric=metric, value=values[best])


Histograms: TypeAlias = Mapping[str, Mapping[str, Frequencies]]


def frequencies(reader: Reader, names: Sequence[str], classes: Sequence[str]) -> Histograms:
    """The prediction frequencies of every model on the splits of `names`."""
    told = {}
    for key in reader.tree.families:
        found = {name: splits.frequencies(reader.find(key), name, classes) for name in names}
        told[key] = {name: one for name, one in found.items() if one is not None}
    return told


def figures(reader: Reader, classes: Sequence[str], histograms: Histograms) -> Figures:
    """The arrays behind the report's figures."""
    curves, confusion, reliability = {}, {}, {}
    for key, family in reader.tree.families.items():
        found = reader.find(key)
        if not found.seeds:
            continue
        rows = [found.predictions[seed][family.plan.verdict.on] for seed in found.seeds]
        log_probs = np.concatenate([row.log_probs[row.labelled] for row in rows])
        labels = np.concatenate([row.labels[row.labelled] for row in rows])
        confusion[key] = metrics.confusion(log_probs, labels, log_probs.shape[1]).tolist()
        bins = metrics.reliability(log_probs, labels)
        reliability[key] = Reliability(
            low=list(bins.low), count=list(bins.count), confidence=list(bins.confidence), accuracy=list(bins.accuracy)
        )
        curve = _curve(reader.root, family, found.seeds)
        if curve:
            curves[key] = curve
    return Figures(
        classes=list(classes),
        curves=curves,
        confusion=confusion,
        reliability=reliability,
        frequencies={
            key: {name: splits.drawn(one) for name, one in by_split.items()} for key, by_split in histograms.items()
        },
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


def phis(found: Found, metric: metrics.Metric, seeds: Sequence[int], reader: Reader) -> list[NDArray[np.float64]]:
    """The metric's parts (n, d) on the test set of the verdicts, one array per seed."""
    rows, on = [], found.family.plan.verdict.on
    for seed in seeds:
        predictions = found.predictions[seed][on]
        second: Any = predictions.labels
        if metric.needs_teacher:
            teacher = reader.teacher(found.family, seed, on)
            if teacher is None:
                return []
            second = teacher.log_probs
        rows.append(metric.phi(predictions.log_probs, second))
    return rows
