"""Quality against cost: every model as a point, and the front of those that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill import metrics
from potstill.report import format as fmt
from potstill.report import groups, svg, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Cell, Table
from potstill.report.theme import BASELINE, INK, MODEL, QUIET
from potstill.study.results import Cost

LEAST: Final = 3  # models of different cost, below which a table says it better
NAMED: Final = 24  # models whose names stand in the figure; of more, those on the front
_SIZE: Final = (560, 360)
_LETTER: Final = 7.2  # pixels of a letter, about
_PLACES: Final = tuple(
    (side, step) for step in (0, 1, -1, 2, -2, 3, -3) for side in (1, -1)
)  # right, left; then lines up, down
_MARKS: Final = {"student": (MODEL, "o"), "teacher": (INK, "s"), "other": (BASELINE, "D")}
_ROLES: Final = {"student": "learns from a model", "teacher": "teaches", "other": "learns from labels alone"}


class Spot(NamedTuple):
    """A model: its cost, and mean and standard deviation of the metric over seeds."""

    key: str
    name: str
    role: str
    cost: float
    value: float
    std: float


def pictures(cast: Cast, ids: Ids) -> list[Picture]:
    """The compared metric against parameters, multiply-adds and latency, where models differ in them; no sweeps."""
    metric, found = cast.results.metric, list[Picture]()
    higher = _higher(cast)
    if higher is None or len(groups.points(cast)) > 1:
        return found
    for kind, words in _kinds(cast):
        spots = _spots(cast, kind)
        if len({spot.cost for spot in spots}) < LEAST:
            continue
        best = front(spots, higher=higher)
        heading = f"{fmt.capital(fmt.metric_name(metric))} against {words}"
        drawn = draw(cast, spots, best, words, prefix=ids.new("front", kind))
        found.append(Picture(heading, (drawn,), (_table(cast, spots, best, words),)))
    return found


def front(spots: Sequence[Spot], *, higher: bool) -> list[Spot]:
    """The models that none of equal or lower cost equals or beats, by rising cost: each is better than all before.

    Of models with equal cost and value the first stands for all.
    """
    sign = 1 if higher else -1
    found: list[Spot] = []
    for spot in sorted(spots, key=lambda one: (one.cost, -sign * one.value)):
        if not found or sign * spot.value > sign * found[-1].value:
            found.append(spot)
    return found


def _higher(cast: Cast) -> bool | None:
    """Whether more of the compared metric is better; None where that is not known."""
    metric = cast.results.metric
    found = next((verdict.better for verdict in cast.results.verdicts if verdict.metric == metric), None)
    if found is None and metric in metrics.names():
        found = metrics.declared(metric).better
    return None if found is None else found == "higher"


def _kinds(cast: Cast) -> list[tuple[str, str]]:
    kinds = [("parameters", "parameters"), ("multiply_adds", "multiply-adds per example")]
    timing = _timing(cast)
    if timing:
        batch, threads = timing
        kinds.append(("latency", f"ms per call, batch {batch}, {fmt.plural(threads, 'thread')}"))
    return kinds


def _timing(cast: Cast) -> tuple[int, int] | None:
    """The smallest batch and fewest threads that were timed."""
    costs = [one.cost for one in cast.results.models.values() if one.cost]
    return min(((t.batch, t.threads) for cost in costs for t in cost.latency), default=None)


def _spots(cast: Cast, kind: str) -> list[Spot]:
    results, timing = cast.results, _timing(cast)
    taught = {cast.find(name, one) for one in results.models.values() for name in one.teachers}
    found = []
    for key in cast.order:
        one = results.models[key]
        values = one.metrics.get(results.metric)
        price = None if one.cost is None else _price(one.cost, kind, timing)
        if values is None or not price or not math.isfinite(values.mean):
            continue
        role = "student" if one.teachers else "teacher" if key in taught else "other"
        found.append(Spot(key, cast.full(key), role, price, values.mean, values.std or 0.0))
    return found


def _price(cost: Cost, kind: str, timing: tuple[int, int] | None) -> float | None:
    if kind != "latency":
        return float(getattr(cost, kind))
    return next((t.median_ms for t in cost.latency if (t.batch, t.threads) == timing), None)


def draw(cast: Cast, spots: Sequence[Spot], best: Sequence[Spot], words: str, *, prefix: str) -> Markup:
    """Points on a logarithmic axis of cost, and the front as a stair: what is to be had for so much."""
    metric = cast.results.metric
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, (52, 46, 18, 48))
    ax.set_xscale("log")
    for spot in spots:
        colour, mark = _MARKS[spot.role]
        ax.errorbar(
            spot.cost, spot.value, spot.std or None, fmt=mark, color=colour, ms=6.5, elinewidth=1.2, capsize=2.5
        )
    ax.margins(x=0.2, y=0.12)
    ax.set_xlim(*ax.get_xlim())
    ax.step(
        [spot.cost for spot in best] + [ax.get_xlim()[1]],
        [spot.value for spot in best] + [best[-1].value],
        where="post", color=QUIET, lw=1.4, ls=(0, (5, 3)), zorder=0,
    )  # fmt: skip
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.count(x) if x >= 1000 else f"{x:g}"))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(metric, y)))
    chosen = spots if len(spots) <= NAMED else best
    _name(ax, chosen, spots)
    theme.write(figure, (2, 12), fmt.axis(metric), colour=QUIET)
    theme.write(figure, (_SIZE[0] - 7, _SIZE[1] - 8), words, colour=QUIET, align="right")
    at = 52.0
    for role in _MARKS:
        if any(spot.role == role for spot in spots):
            colour, mark = _MARKS[role]
            ax.plot([(at + 4 - 52) / (_SIZE[0] - 70)], [1 + 18 / (_SIZE[1] - 94)], mark, color=colour, ms=6.5,
                    transform=ax.transAxes, clip_on=False)  # fmt: skip
            theme.write(figure, (at + 14, 32), _ROLES[role])
            at += 34 + _LETTER * len(_ROLES[role])
    told = "; ".join(
        f"{spot.name}: {fmt.value(metric, spot.value)} for {_shown(spot.cost)}"
        + (", on the front" if spot in best else "")
        for spot in spots
    )
    return svg.inline(figure, prefix=prefix, title=f"{fmt.metric_name(metric)} against {words}", description=told)


def _shown(cost: float) -> str:
    return fmt.count(cost) if cost >= 1000 else fmt.number(cost, 3)


def _name(ax: Axes, chosen: Sequence[Spot], spots: Sequence[Spot]) -> None:
    """Names beside their points where there is room: the table has all of them."""
    bounds = ax.get_window_extent()
    points = [tuple(ax.transData.transform((spot.cost, spot.value))) for spot in spots]
    taken = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in points]
    for spot in chosen:
        x, y = ax.transData.transform((spot.cost, spot.value))
        name = fmt.shorten(spot.name, 22)
        wide = _LETTER * len(name)
        for side, step in _PLACES:
            start, bottom = x + 9 * side, y - 4 + 13.0 * step
            left = start if side > 0 else start - wide
            box = (left, bottom - 3, left + wide, bottom + 10)
            inside = bounds.x0 <= left and left + wide <= bounds.x1 + 12 and bounds.y0 <= box[1] <= box[3] <= bounds.y1
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                at, up = ax.transData.inverted().transform((start, bottom))
                align = "left" if side > 0 else "right"
                ax.text(at, up, name, color=_MARKS[spot.role][0], fontsize=11, va="baseline", ha=align)
                break


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _table(cast: Cast, spots: Sequence[Spot], best: Sequence[Spot], words: str) -> Table:
    metric = cast.results.metric
    rows = []
    for spot in sorted(spots, key=lambda one: one.cost):
        std = (fmt.spread(metric, spot.std),) if spot.std else ()
        rows.append(
            (
                Cell(spot.name),
                Cell(_shown(spot.cost)),
                Cell(fmt.value(metric, spot.value), std),
                Cell("yes" if spot in best else ""),
            )
        )
    columns = ("Model", fmt.capital(words), fmt.capital(fmt.metric_name(metric)), "On the front")
    return Table(f"{fmt.capital(fmt.metric_name(metric))} and {words}, by rising cost", columns, tuple(rows))
