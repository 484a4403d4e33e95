"""Published numbers beside ours: the difference, and whether fresh training randomness of ours could explain it."""

from __future__ import annotations

import math

from scipy.special import stdtrit

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.results import MetricValues


def interval(values: MetricValues, level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean over seeds; None with fewer than two trainings."""
    n = len(values.values)
    if n < 2 or values.std is None:
        return None
    half = float(stdtrit(n - 1, (1 + level) / 2)) * values.std / math.sqrt(n)
    return values.mean - half, values.mean + half


def table(cast: Cast) -> Table | None:
    """Published, ours, their difference, our interval, and whether the published number lies inside it."""
    rows = []
    metrics = dict.fromkeys([cast.results.metric, *(m for source in cast.results.published for m in source.metrics)])
    for metric in metrics:
        for key in cast.order:
            ours = cast.results.models[key].metrics.get(metric)
            if ours is not None:
                for at, value in cast.published(metric, key):
                    rows.append(_row(cast, (metric, key), ours, published=value, source=cast.mark(at)))
    if not rows:
        return None
    columns = ("Model", "Published", "Ours", "Ours minus published", "Our interval of the mean", "Published is")
    caption = f"Published numbers beside ours on {cast.results.on}; our mean ± standard deviation over seeds"
    return Table(caption, columns, tuple(rows), frozenset({0, 5}))


def _row(cast: Cast, of: tuple[str, str], ours: MetricValues, *, published: float, source: str) -> tuple[Cell, ...]:
    metric, key = of
    ends = interval(ours)
    once = cast.results.models[key].shared
    shown, side = fmt.MISSING, "not known: one training" if once else "not known: one seed"
    if ends is not None:
        shown = f"{fmt.value(metric, ends[0], bare=True)} to {fmt.value(metric, ends[1])}"
        side = "inside our interval" if ends[0] <= published <= ends[1] else "outside our interval"
    head = who(cast, key)
    if metric != cast.results.metric:
        head = Cell(head.text, (*head.notes, fmt.metric_name(metric)))
    n = "one training for all seeds" if once else fmt.plural(len(ours.values), "seed")
    return (
        head,
        Cell(f"{fmt.value(metric, published)} {source}".rstrip()),
        Cell(fmt.value(metric, ours.mean), (", ".join(part for part in (fmt.spread(metric, ours.std), n) if part),)),
        Cell(fmt.difference(metric, ours.mean - published)),
        Cell(shown),
        Cell(side),
    )
