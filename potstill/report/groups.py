"""Teachers beside their students, and the baseline: what the bars show, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table

Role = Literal["teacher", "student", "baseline"]
CALLED: Final[dict[Role, str]] = {"teacher": "teacher", "student": "distilled student", "baseline": "baseline"}


class Bar(NamedTuple):
    """One model: mean and standard deviation over its seeds, and (source, value) of numbers published for it."""

    name: str
    role: Role
    mean: float
    std: float | None
    seeds: int
    published: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Groups:
    """The bars of a study, or of one point of its sweep: each teacher with its students, then the baseline."""

    metric: str
    better: str
    groups: tuple[tuple[Bar, ...], ...]
    where: str = ""

    @property
    def title(self) -> str:
        """What is compared, and where."""
        what = f"{fmt.capital(fmt.metric_name(self.metric))} of teachers, their students and the baseline"
        return f"{what}, {self.where}" if self.where else what

    @property
    def bars(self) -> list[Bar]:
        """All of them, in order."""
        return [bar for group in self.groups for bar in group]


def points(cast: Cast) -> list[dict[str, Any]]:
    """The points of a sweep in the order of the models; one empty point without a sweep.

    A model that does not depend on every swept key stands at several of them.
    """
    found: list[dict[str, Any]] = []
    for key in cast.order:
        point = cast.results.models[key].point
        if point not in found:
            found.append(point)
    return [one for one in found if not any(one != other and one.items() <= other.items() for other in found)]


def groups(cast: Cast, point: Mapping[str, Any]) -> Groups | None:
    """Who learnt from whom at a point; None where there is no baseline, or no student of a model of this study."""
    models, metric = cast.results.models, cast.results.metric
    here = [
        key
        for key in cast.order
        if models[key].point.items() <= point.items() and models[key].generation == models[key].generations
    ]
    baseline = next((key for key in here if cast.is_baseline(key) or models[key].model == cast.results.baseline), None)
    if baseline is None or metric not in models[baseline].metrics:
        return None
    taught: dict[str, list[str]] = {}
    for key in here:
        teacher = cast.teacher(key)
        if teacher is not None and key != baseline and metric in models[key].metrics:
            taught.setdefault(teacher, []).append(key)
    found = []
    for teacher in (key for key in cast.order if key in taught):
        head = [_bar(cast, teacher, "baseline" if teacher == baseline else "teacher")]
        found.append((*[bar for bar in head if bar], *[bar for key in taught[teacher] if (bar := _bar(cast, key))]))
    if not found:
        return None
    if baseline not in taught:
        found.append(tuple(bar for bar in [_bar(cast, baseline, "baseline")] if bar))
    better = next((v.better for v in cast.results.verdicts if v.metric == metric), "")
    return Groups(metric, better, tuple(found), cast.where(point))


def _bar(cast: Cast, key: str, role: Role = "student") -> Bar | None:
    one = cast.results.models[key]
    values = one.metrics.get(cast.results.metric)
    if values is None:
        return None
    published = tuple(cast.published(cast.results.metric, key))
    seeds = 1 if one.shared else len(values.values)
    return Bar(cast.bare(key), role, values.mean, values.std, seeds, published)


def table(of: Groups, cast: Cast) -> Table:
    """The numbers behind the bars."""
    published = any(bar.published for bar in of.bars)
    rows = []
    for bar in of.bars:
        row = [Cell(bar.name, (CALLED[bar.role],)), Cell(fmt.value(of.metric, bar.mean))]
        row += [Cell(fmt.value(of.metric, bar.std)), Cell(fmt.count(bar.seeds))]
        if published:
            told = [f"{fmt.value(of.metric, x)} {cast.mark(at)}".rstrip() for at, x in bar.published]
            row.append(Cell("; ".join(told) or fmt.MISSING))
        rows.append(tuple(row))
    name = fmt.metric_name(of.metric)
    columns = ("Model", fmt.capital(name), "Standard deviation", "Seeds", *(("Published",) if published else ()))
    return Table(of.title, columns, tuple(rows))
