"""The test conditions: true or teacher's labels, plain examples or views; one table per metric."""

from __future__ import annotations

from collections.abc import Mapping

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.measured import Condition, ConditionValues


def tables(cast: Cast) -> list[Table]:
    """A table for each metric, accuracy first; empty where a study has the usual condition only."""
    models = cast.results.models
    keys = [key for key in cast.order if models[key].conditions]
    metrics = sorted({name for key in keys for one in models[key].conditions for name in one.metrics})
    found = []
    for metric in metrics:
        rows = []
        known = sorted({_place(one) for key in keys for one in models[key].conditions if metric in one.metrics})
        for key in keys:
            there = {_place(one): one.metrics for one in models[key].conditions}
            rows.append((who(cast, key), *(_cell(there.get(place, {}), metric, place[1]) for place in known)))
        name = fmt.capital(fmt.metric_name(metric))
        n = fmt.count(max(one.examples for key in keys for one in models[key].conditions))
        caption = f"{name} on {n} test examples in every condition, mean ± standard deviation over seeds"
        found.append(Table(caption, ("Model", *map(_heading, known)), tuple(rows)))
    return found


def _place(one: Condition) -> tuple[bool, int]:
    """Where a condition stands: true labels before the teacher's, plain before views."""
    return one.labels == "teacher", one.views


def _heading(place: tuple[bool, int]) -> str:
    labels = "Teacher's labels" if place[0] else "True labels"
    return f"{labels}, {fmt.plural(place[1], 'view') if place[1] else 'plain'}"


def _cell(there: Mapping[str, ConditionValues], metric: str, views: int) -> Cell:
    one = there.get(metric)
    if one is None:
        return Cell(fmt.MISSING)
    notes = [fmt.spread(metric, one.std)] if one.std is not None else []
    notes += [f"{fmt.spread(metric, one.over_views)} over views"] if one.over_views is not None else []
    if one.best_mean is not None and views > 1:
        notes.append(f"best of {views}: {fmt.value(metric, one.best_mean)}, optimistic")
    return Cell(fmt.value(metric, one.mean), tuple(notes))
