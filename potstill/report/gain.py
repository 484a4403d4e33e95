"""What a pair of models gains over each other across a swept number: each verdict's difference with its interval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill.report import figures, svg, theme
from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Cell, Table
from potstill.report.theme import BAND, INK, MODEL, PAPER, QUIET, SENTINEL
from potstill.study.results import Verdict

WIDE: Final = 20  # a sweep over this factor or more is drawn on a logarithmic axis
_CLOSE: Final = 0.06  # places nearer than this share of the axis would hide each other
_SIZE: Final = (340, 272)
_MARGINS: Final = (50, 58, 14, 48)  # left, top, right, bottom


_Where: TypeAlias = tuple[str, str, str, str]  # model, baseline, swept setting, the others


class Chain(NamedTuple):
    """The verdicts of one pair along one swept number; `rest` is where the other swept settings stand."""

    model: str
    baseline: str
    across: str
    rest: str
    places: tuple[tuple[float, Verdict], ...]

    @property
    def heading(self) -> str:
        """Which pair, and where."""
        return f"{self.model} against {self.baseline}" + (f" ({self.rest})" if self.rest else "")


def chains(cast: Cast) -> list[Chain]:
    """Every declared pair along every swept number, in the order of the verdicts; all else at a point is equal."""
    found: dict[tuple[_Where, str, str, float], list[tuple[float, Verdict]]] = defaultdict(list)
    for v in cast.results.verdicts:
        point = cast.point(v.model, v.baseline)
        for across, x in point.items():
            if fmt.is_number(x) and v.difference is not None:
                rest = cast.where({name: setting for name, setting in point.items() if name != across})
                where = (cast.bare(v.model), cast.bare(v.baseline), across, rest)
                found[where, v.metric, v.better, v.margin].append((float(x), v))
    return [
        Chain(*where, tuple(sorted(places, key=lambda place: place[0])))
        for (where, *_), places in found.items()
        if len({x for x, _ in places}) > 1
    ]


def pictures(cast: Cast, ids: Ids) -> list[Picture]:
    """The gain of every pair across every swept number."""
    metrics = {v.metric for v in cast.results.verdicts}
    known = chains(cast)
    several = {chain.across for chain in known}
    found = []
    for chain in known:
        metric = chain.places[0][1].metric
        words = ["gain", chain.model, "against", chain.baseline]
        words += ["across", chain.across] if len(several) > 1 else []
        words += [word for word in (chain.rest, metric if len(metrics) > 1 else "") if word]
        drawn = draw(chain, ids.new(*words))
        found.append(Picture(chain.heading, (drawn,), (_table(chain),)))
    return found


def draw(chain: Chain, prefix: str) -> Markup:
    """Gain with its interval as a band, the zero line and the margin's band; upwards the model is better."""
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, _MARGINS)
    first = chain.places[0][1]
    places = [x for x, _ in chain.places]
    at = _across(ax, places)
    low, high = _ends([v for _, v in chain.places])
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(first.metric, y, plus=True)))
    if first.margin:
        ax.axhspan(-first.margin, first.margin, color=BAND, lw=0)
    ax.axhline(0, color=INK, lw=1.2)
    known = [(at(x), *_turned(v)) for x, v in chain.places if v.interval is not None]
    if len(known) > 1:
        along, least, most = zip(*known, strict=True)
        ax.fill_between(along, least, most, color=MODEL, alpha=0.2, lw=0)
    ax.plot([at(x) for x in places], [_sign(v) * (v.difference or 0.0) for _, v in chain.places], color=MODEL, lw=1.8)
    for x, v in chain.places:
        _mark(ax, at(x), v, ends=(low, high))
    unit = f", {fmt.unit(first.metric)}".rstrip(", ")
    theme.write(figure, (2, 12), f"gain in {fmt.metric_name(first.metric)}{unit}")
    decisions = dict.fromkeys(v.decision for _, v in chain.places)
    at_pixel = _SIZE[0] - 7.0
    for decision in [one for one in figures.GLYPH if one in decisions][::-1]:
        text = f"{figures.GLYPH[decision]} {decision}"
        theme.write(figure, (at_pixel, 29), text, colour=SENTINEL[decision], align="right")
        at_pixel -= 7.0 * len(text) + 8
    theme.write(figure, (2, 48), "↑ model better", colour=QUIET)
    theme.write(figure, (2, _SIZE[1] - 8), "↓ model worse", colour=QUIET)
    theme.write(figure, (_SIZE[0] - 7, _SIZE[1] - 8), fmt.shorten(chain.across, 34), colour=QUIET, align="right")
    told = "; ".join(
        f"{chain.across} {fmt.place(x)}: difference {fmt.difference(v.metric, v.difference)}, "
        f"{fmt.interval(v.metric, v.interval)}, {v.decision}"
        for x, v in chain.places
    )
    title = f"Gain in {fmt.metric_name(first.metric)} of {chain.heading} across {chain.across}"
    return svg.inline(figure, prefix=prefix, title=title, description=told)


def _sign(verdict: Verdict) -> int:
    return 1 if verdict.better == "higher" else -1


def _turned(verdict: Verdict) -> tuple[float, float]:
    """Both ends of the interval of the gain."""
    low, high = verdict.interval or (0.0, 0.0)
    return (low, high) if verdict.better == "higher" else (-high, -low)


def _ends(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    low, high = figures.span(verdicts)
    return (low, high) if verdicts[0].better == "higher" else (-high, -low)


def _mark(ax: Axes, x: float, verdict: Verdict, *, ends: tuple[float, float]) -> None:
    """One place: the interval as a line with an arrow where it leaves the figure, and the decision's mark."""
    colour = SENTINEL[verdict.decision]
    if verdict.interval is not None:
        wanted = _turned(verdict)
        shown = [min(max(end, ends[0]), ends[1]) for end in wanted]
        ax.plot([x, x], shown, color=colour, lw=1.4)
        for y, end, arrow in zip(shown, wanted, "v^", strict=True):
            if y != end:
                ax.plot([x], [y], arrow, color=colour, ms=6, clip_on=False)
    face = PAPER if verdict.decision == "undecided" else colour
    y = _sign(verdict) * (verdict.difference or 0.0)
    ax.plot([x], [y], figures.MARK[verdict.decision], ms=8.5, mfc=face, mec=colour, mew=1.8, zorder=5)


def _across(ax: Axes, places: Sequence[float]) -> Callable[[float], float]:
    """Prepare the horizontal axis; returns where a place stands on it.

    Logarithmic where the values span a factor of `WIDE`; evenly spaced where some would hide each other otherwise.
    """
    order = sorted(set(places))
    log = order[0] > 0 and order[-1] / order[0] >= WIDE
    moved = [math.log(x) if log else x for x in order]
    near = min(b - a for a, b in pairwise(moved)) < _CLOSE * (moved[-1] - moved[0])
    at = {x: float(rank) for rank, x in enumerate(order)} if near else dict(zip(order, moved, strict=True))
    room = 0.08 * (at[order[-1]] - at[order[0]])
    ends = (at[order[0]] - room, at[order[-1]] + room)
    ax.set_xlim(*ends)
    per = (_SIZE[0] - _MARGINS[0] - _MARGINS[2]) / (ends[1] - ends[0])
    labels = [fmt.place(x) for x in order]
    every = next(step for step in range(1, len(order) + 1) if _fits(order[::step], labels[::step], at, per=per))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([at[x] for x in order[::every]], labels[::every])
    return lambda x: at[x]


def _fits(places: Sequence[float], labels: Sequence[str], at: dict[float, float], *, per: float) -> bool:
    """Whether labels of 6.8 pixels a letter stand beside each other."""
    pairs = list(zip(places, labels, strict=True))
    return all(
        per * (at[right] - at[left]) > 3.4 * (len(one) + len(other)) + 6
        for (left, one), (right, other) in pairwise(pairs)
    )


def _table(chain: Chain) -> Table:
    rows = tuple(
        (
            Cell(fmt.place(x), decision=v.decision),
            Cell(fmt.difference(v.metric, v.difference), (fmt.interval(v.metric, v.interval),)),
            Cell(fmt.value(v.metric, v.model_mean)),
            Cell(fmt.value(v.metric, v.baseline_mean)),
            Cell(fmt.count(len(v.seeds))),
        )
        for x, v in chain.places
    )
    first = chain.places[0][1]
    caption = f"Differences in {fmt.metric_name(first.metric)} ({first.better} is better), {chain.heading}"
    return Table(caption, (chain.across, "Model minus baseline", "Model", "Baseline", "Seeds"), rows)
