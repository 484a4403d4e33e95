"""Quality against cost: every model as a point, and the front of those that no other beats in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

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
_SIZES: Final = {"wide": (560, 360), "narrow": (344, 380)}
_LETTER: Final = 7.2  # units that a letter is wide, about
_LEFT: Final = 52.0
_TICKS: Final = ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,))  # of each power of ten; at most so many:
_MOST_TICKS: Final = 6
_PLACES: Final = tuple(
    (side, step) for step in (0, 1, -1, 2, -2, 3, -3) for side in (1, -1)
)  # right, left; then lines up, down
_Box: TypeAlias = "tuple[float, float, float, float]"  # left, bottom, right, top
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
        wide = draw(cast, spots, best, words, prefix=ids.new("front", kind))
        narrow = draw(cast, spots, best, words, prefix=ids.new("front", kind, "narrow"), form="narrow")
        drawn = Markup('<div class="wide">{}</div><div class="no-wide">{}</div>').format(wide, narrow)
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


def draw(
    cast: Cast, spots: Sequence[Spot], best: Sequence[Spot], words: str, *, prefix: str, form: str = "wide"
) -> Markup:
    """Points on a logarithmic axis of cost, and the front as a stair: what is to be had for so much.

    `form`: `"wide"`, or `"narrow"` for pages of a telephone's width.
    """
    metric, (width, height) = cast.results.metric, _SIZES[form]
    figure = theme.canvas(width, height)
    ax = theme.axes(figure, (_LEFT, 28 + _legend(figure, spots), 18, 48))
    ax.set_xscale("log")
    for spot in spots:
        colour, mark = _MARKS[spot.role]
        ax.errorbar(
            spot.cost, spot.value, spot.std or None, fmt=mark, color=colour, ms=6.5, elinewidth=1.2, capsize=2.5
        )
    ax.margins(x=0.2, y=0.12)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    stair = [(spot.cost, spot.value) for spot in best] + [(ax.get_xlim()[1], best[-1].value)]
    ax.step(*zip(*stair, strict=True), where="post", color=QUIET, lw=1.4, ls=(0, (5, 3)), zorder=0)
    _cost_axis(ax)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(metric, y)))
    chosen = spots if len(spots) <= NAMED else best
    _name(ax, chosen, spots, stair)
    theme.write(figure, (2, 12), fmt.axis(metric), colour=QUIET)
    theme.write(figure, (width - 7, height - 8), words, colour=QUIET, align="right")
    told = "; ".join(
        f"{spot.name}: {fmt.value(metric, spot.value)} for {_shown(spot.cost)}"
        + (", on the front" if spot in best else "")
        for spot in spots
    )
    return svg.inline(figure, prefix=prefix, title=f"{fmt.metric_name(metric)} against {words}", description=told)


def _legend(figure: Figure, spots: Sequence[Spot]) -> float:
    """What the marks mean, in as many lines as that takes; returns how high they are."""
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    at, line = _LEFT, 0
    for role, (colour, mark) in _MARKS.items():
        if any(spot.role == role for spot in spots):
            room = 34 + _LETTER * len(_ROLES[role])
            if at > _LEFT and at + room > width:
                at, line = _LEFT, line + 1
            y = 32 + 18 * line
            figure.add_artist(Line2D([(at + 4) / width], [1 - (y - 4) / height], marker=mark, color=colour, ms=6.5))
            theme.write(figure, (at + 14, y), _ROLES[role])
            at += room
    return 18.0 * (line + 1)


def _cost_axis(ax: Axes) -> None:
    """Ticks at round numbers: as many as have room beside each other."""
    low, high = ax.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    given = [[step * 10.0**power for power in powers for step in steps] for steps in _TICKS]
    given += [list(MaxNLocator(n).tick_values(low, high)) for n in (4, 3, 2)]  # where both ends are near each other
    inside = ([one for one in ticks if low <= one <= high] for ticks in given)
    ticks = next((own for own in inside if 2 <= len(own) <= _MOST_TICKS and _apart(ax, own)), [low, high])
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))


def _apart(ax: Axes, ticks: Sequence[float]) -> bool:
    at = [float(ax.transData.transform((tick, 1.0))[0]) for tick in ticks]
    half = [_LETTER * len(_tick(tick)) / 2 for tick in ticks]
    return all(at[i] - at[i - 1] > half[i] + half[i - 1] + 4 for i in range(1, len(ticks)))


def _tick(cost: float) -> str:
    return fmt.count(cost) if cost >= 1000 else f"{cost:g}"


def _shown(cost: float) -> str:
    return fmt.count(cost) if cost >= 1000 else fmt.number(cost, 3)


def _name(ax: Axes, chosen: Sequence[Spot], spots: Sequence[Spot], stair: Sequence[tuple[float, float]]) -> None:
    """Names beside their points where there is room, if there is any away from bars and stair: the table has all."""
    bounds = ax.get_window_extent()
    drawn, names = _taken(ax, spots, stair), list[_Box]()
    points = drawn[: len(spots)]
    for spot in chosen:
        x, y = ax.transData.transform((spot.cost, spot.value))
        name = fmt.shorten(spot.name, 22)
        wide = _LETTER * len(name)
        free = []
        for side, step in _PLACES:
            start, bottom = x + 9 * side, y - 4 + 13.0 * step
            left = start if side > 0 else start - wide
            box = (left, bottom - 3, left + wide, bottom + 10)
            inside = bounds.x0 <= left and left + wide <= bounds.x1 + 12 and bounds.y0 <= box[1] <= box[3] <= bounds.y1
            if inside and not any(_meet(box, other) for other in (*points, *names)):
                free.append((any(_meet(box, other) for other in drawn), side, start, bottom, box))
        if free:
            _, side, start, bottom, box = min(free, key=lambda one: one[0])  # the first of those over no line
            names.append(box)
            at, up = ax.transData.inverted().transform((start, bottom))
            align = "left" if side > 0 else "right"
            ax.text(at, up, name, color=_MARKS[spot.role][0], fontsize=11, va="baseline", ha=align)


def _taken(ax: Axes, spots: Sequence[Spot], stair: Sequence[tuple[float, float]]) -> list[_Box]:
    """Where something is drawn: points, in their order, their bars, and the stair."""
    found: list[_Box] = []
    bars: list[_Box] = []
    for spot in spots:
        x, y = ax.transData.transform((spot.cost, spot.value))
        (_, low), (_, high) = (ax.transData.transform((spot.cost, spot.value + by)) for by in (-spot.std, spot.std))
        found.append((x - 5, y - 5, x + 5, y + 5))
        bars.append((x - 3, low, x + 3, high))
    found += bars
    corners = [ax.transData.transform(corner) for corner in stair]
    for (x, y), (following, up) in itertools.pairwise(corners):
        found += [(x, y - 1, following, y + 1), (following - 1, min(y, up), following + 1, max(y, up))]
    return found


def _meet(one: _Box, other: _Box) -> bool:
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
