"""From the files of a run to results.json. Reads stored predictions, never data or models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill import metrics, storage
from potstill.data.parts import TEST
from potstill.evaluation import AGAINST_TEACHER, AGAINST_TEACHER_OF_VALUES, Predictions, load_predictions, measure
from potstill.study import area, conditions, epochs, splits, values, words
from potstill.study.evaluate import on_test, split_of
from potstill.study.plan import Plan
from potstill.study.results import (
    Cost,
    Failure,
    Latency,
    MetricValues,
    ModelResult,
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
    """One family's files: per complete seed the predictions on each split, and its trainings' results.

    `targets`: of a regression their names, which a sweep may change.
    """

    family: Family
    predictions: Mapping[int, Mapping[str, Predictions]]
    results: Mapping[int, Sequence[Mapping[str, Any]]]
    failures: Sequence[Failure]
    targets: tuple[str, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """Seeds with predictions on the test split."""
        return sorted(self.predictions)

    def judged(self, seed: int, split: str) -> Predictions:
        """The predictions that metrics are measured on. A regression's model that answers values alone has a variance
        from its errors on validation data, where there are any."""
        one, held = self.predictions[seed][split], self.predictions[seed].get("validation")
        if not one.regression or held is None or not held.labelled.any():
            return one
        return one.with_variance_of(held)


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
            names = self._targets(family, next(iter(predictions), None))
            self._found[key] = Found(family, predictions, results, failures, names)
        return self._found[key]

    def _targets(self, family: Family, seed: int | None) -> tuple[str, ...]:
        if seed is None:
            return ()
        return tuple(storage.read_json(self.root / family.trainings[seed][0] / "network.json").get("targets", ()))

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
        """What a student's teachers predict: the mean over all their members' probabilities, or values, which count
        alike in training too; None if a teacher has no predictions."""
        told = [self.find(key).predictions.get(seed, {}).get(split) for key in family.teachers]
        if not told or any(one is None for one in told):
            return None
        rows = [one for one in told if one is not None]
        members = np.array([self.tree.families[key].settings["members"] for key in family.teachers], np.float64)
        weights = (members / members.sum())[:, None, None]
        if rows[0].regression:
            mean = (np.stack([one.values for one in rows]).astype(np.float64) * weights).sum(axis=0)
        else:
            logs = np.stack([one.log_probs for one in rows]).astype(np.float64)
            mean = np.logaddexp.reduce(logs + np.log(weights), axis=0)
        return Predictions(mean.astype(np.float32), rows[0].labels, rows[0].labelled)

    def baseline(self, student: Found, name: str | None) -> Found | None:
        """The baseline `name` at the student's point of a sweep; None if that is the student, or its teacher."""
        for family in self.tree.families.values():
            same = all(student.family.point.get(key, value) == value for key, value in family.point.items())
            if family.model == name and family.model != student.family.model and same and not family.brought:
                return None if family.key in student.family.teachers else self.find(family.key)
        return None


def model_result(reader: Reader, key: str, plan: Plan, *, workers: int, classes: Sequence[str]) -> ModelResult:
    """One model's row of results.json; `classes` are the data's."""
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
        splits={} if found.targets else splits.measures(found, plan.evaluation.splits, classes),
        values=values.measures(found, plan.evaluation.splits) if found.targets else {},
        conditions=conditions.conditions(reader, found, plan.evaluation),
        best=epochs.best_epoch(reader.root, found),
        cost=_cost(reader, found, workers),
        ship=_ship(found, validation, area.inner(metric)),
        notes=notes,
    )


def _metrics(reader: Reader, found: Found, split: str) -> dict[str, MetricValues]:
    rows: dict[str, list[float]] = {}
    for seed in found.seeds:
        if split not in found.predictions[seed] or not found.predictions[seed][split].labelled.any():
            return {}
        predictions = found.judged(seed, split)
        against = AGAINST_TEACHER_OF_VALUES if predictions.regression else AGAINST_TEACHER
        names = predictions.quality + (against if found.family.teachers else ())
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
    higher = metrics.declared(metric).better == "higher"
    best = max(range(len(values)), key=lambda i: (values[i] if higher else -values[i], -i))
    seed = found.seeds[best]
    return Ship(seed=seed, folder=found.family.units[seed], metric=metric, value=values[best])


def phis(found: Found, metric: metrics.Metric, seeds: Sequence[int], reader: Reader) -> list[NDArray[np.float64]]:
    """The metric's parts (n, d) on the test set of the verdicts, one array per seed."""
    rows, on = [], found.family.plan.verdict.on
    for seed in seeds:
        predictions = found.judged(seed, on)
        second: Any = predictions.labels
        if metric.needs_teacher:
            teacher = reader.teacher(found.family, seed, on)
            if teacher is None:
                return []
            second = teacher.answers
        rows.append(metric.phi(predictions.answers, second))
    return rows
