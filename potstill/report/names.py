"""Who is who in a study: names to show, the order of models, each model's teacher and baseline."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from potstill.report.format import anything, count, is_number, metric_name, shape, value
from potstill.study.area import is_area
from potstill.study.measured import BEST_EPOCH, SECONDS
from potstill.study.results import ModelResult, Results


@dataclass(frozen=True)
class Cast:
    """The models of a study, by key of `Results.models`."""

    results: Results

    @property
    def judged_on(self) -> str:
        """What the compared metric is on: a test set, or validation data where it is an area under a curve."""
        return "validation data" if is_area(self.results.metric) else self.results.on

    @cached_property
    def order(self) -> list[str]:
        """Keys in the plan's order (JSON sorts them), sweep points by value or, if that is no number, in the plan's
        order, generations by number."""
        models = self.results.models

        def place(key: str) -> tuple[Any, ...]:
            one = models[key]
            point = [
                (0, v, "") if is_number(v) else (1, self._swept.get((k, anything(v)), 0), anything(v))
                for k, v in one.point.items()
            ]
            return (self.place(one.model), point, one.generation, key)

        return sorted(models, key=place)

    def place(self, model: str) -> int:
        """The place of a model's name in the plan; behind all others where it has none."""
        return self._places.get(model, len(self._places))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: at for at, name in enumerate(self._plan_names())}

    @cached_property
    def _swept(self) -> dict[tuple[str, str], int]:
        """The places of swept values in the plan, by key and value."""
        found = self.results.plan.get("sweep")
        sweep = found if isinstance(found, Mapping) else {}
        return {
            (key, anything(one)): at
            for keys, values in sweep.items()
            for at, value in enumerate(values)
            for key, one in zip(keys.split(", "), value if ", " in keys else [value], strict=False)
        }

    def _plan_names(self) -> list[str]:
        try:
            tables = tomllib.loads(self.results.plan_toml).get("models", {})
        except tomllib.TOMLDecodeError:
            tables = {}
        return list(tables) if isinstance(tables, dict) else []

    def name(self, key: str) -> str:
        """A model's name; a key that is no model of this study is shown as it is."""
        one = self.results.models.get(key)
        return key if one is None or not self.qualifier(key) else one.model

    def qualifier(self, key: str) -> str:
        """What tells a model from others of its name: sweep point and generation; mostly empty."""
        one = self.results.models.get(key)
        if one is None:
            return ""
        parts = [f"{name} = {anything(setting)}" for name, setting in one.point.items()]
        if one.generations > 1:
            parts.append(f"generation {one.generation} of {one.generations}")
        return ", ".join(parts)

    def bare(self, key: str) -> str:
        """Name and generation, without the sweep point."""
        one = self.results.models.get(key)
        if one is None or one.generations == 1:
            return self.name(key)
        return f"{self.name(key)} (generation {one.generation} of {one.generations})"

    def point(self, *keys: str) -> dict[str, Any]:
        """The sweep point of models that are compared with each other; one need not depend on every swept key."""
        models = self.results.models
        return {name: setting for key in keys if key in models for name, setting in models[key].point.items()}

    def where(self, point: Mapping[str, Any]) -> str:
        """A sweep point in short, by the last word of each key: "labelled = 30"."""
        shown = sorted(point.items(), key=lambda item: item[0])  # as in the file, whose keys are sorted
        return ", ".join(f"{self._last_words.get(name, name)} = {anything(setting)}" for name, setting in shown)

    @cached_property
    def _last_words(self) -> dict[str, str]:
        swept = {name: name.rpartition(".")[2] for one in self.results.models.values() for name in one.point}
        last = list(swept.values())
        return {name: word if last.count(word) == 1 else name for name, word in swept.items()}

    def full(self, key: str) -> str:
        """Name and qualifier on one line."""
        qualifier = self.qualifier(key)
        return f"{self.name(key)} ({qualifier})" if qualifier else self.name(key)

    def versus(self, model: str, other: str) -> str:
        """Who is compared with whom, on one line; a sweep point that both share is told once."""
        point = self.point(model)
        if not point or point != self.point(other):
            return f"{self.full(model)} against {self.full(other)}"
        return f"{self.bare(model)} against {self.bare(other)} ({self.where(point)})"

    def find(self, name: str, near: ModelResult) -> str | None:
        """The key that `name` (a key or a model's name) means for the model `near`; None where several could be meant.

        At a sweep point that is the model of the same point; of a chain of generations it is the last.
        """
        models = self.results.models
        wanted = models[name].model if name in models else name
        own = {key: one.point for key, one in models.items() if one.model == wanted}
        same = [key for key, point in own.items() if point.items() <= near.point.items()]
        if not same and all(point == next(iter(own.values())) for point in own.values()):
            same = list(own)
        if name in same:
            return name
        return max(same, key=lambda key: (len(own[key]), models[key].generation), default=None)

    def baseline(self, key: str) -> str | None:
        """The key of the baseline that a model is measured against; None where there is none, or for itself."""
        name = self.results.baseline
        found = None if name is None else self.find(name, self.results.models[key])
        return None if found == key else found

    def is_baseline(self, key: str) -> bool:
        """Whether others are measured against this model."""
        name = self.results.baseline
        return name is not None and self.find(name, self.results.models[key]) == key

    def teacher(self, key: str) -> str | None:
        """The key of the model that a student's cost is held against: its first teacher of another name."""
        models = self.results.models
        seen = {key}
        while True:
            here = models[key]
            found = [k for k in (self.find(name, here) for name in here.teachers) if k is not None]
            if not found or found[0] in seen:
                return None
            if models[found[0]].model != here.model:
                return found[0]
            key = found[0]
            seen.add(key)

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The form of every input that has a name: `{"small": "1 × 7 × 7", "tokens": "64 of 20,000 words"}`."""
        found = self.results.data.get("inputs") or {}
        return {
            name: shape(one["shape"]) + (f" of {count(one['vocabulary'])} words" if one.get("vocabulary") else "")
            for name, one in found.items()
        }

    def published(self, metric: str, key: str) -> list[tuple[int, float]]:
        """(number of the source, value) of every published number for this model.

        What is published under a model's name stands beside every point of a sweep, unless a point has its own.
        """
        one = self.results.models[key]
        last = one.generation == one.generations
        found = []
        for at, source in enumerate(self.results.published):
            values = source.metrics.get(metric, {})
            number = values.get(key, values.get(one.model) if last else None)
            if number is not None:
                found.append((at, number))
        return found

    def mark(self, source: int) -> str:
        """What tells a number's source from others: "[2]"; empty where all are from one."""
        return f"[{source + 1}]" if len(self.results.published) > 1 else ""

    def published_elsewhere(self) -> list[str]:
        """Published numbers that stand beside no number of ours, in words."""
        beside = {
            (at, metric, name)
            for key, one in self.results.models.items()
            for metric in (*one.metrics, *_quantities(one))
            for at, _ in self.published(metric, key)
            for name in (key, one.model)
        }
        return [
            f"{metric_name(metric)} of {name}: {value(metric, x)} ({source.source})"
            for at, source in enumerate(self.results.published)
            for metric, values in source.metrics.items()
            for name, x in values.items()
            if (at, metric, name) not in beside
        ]


def _quantities(one: ModelResult) -> Iterator[str]:
    """What is known of a model besides metrics, and may be published too."""
    if one.best is not None:
        yield BEST_EPOCH
    if one.cost is not None and any(row.turns_ms for row in one.cost.latency):
        yield SECONDS
