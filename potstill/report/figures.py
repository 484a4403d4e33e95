"""Figures of the verdicts: the forest of intervals, each seed's pair, and trends over a sweep or over generations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.theme import BAND, BASELINE, INK, MODEL, PAPER, QUIET, SENTINEL
from potstill.study.results import Decision, Verdict

MARK: Final[dict[Decision, str]] = {"better": "^", "worse": "v", "equivalent": "s", "undecided": "o"}
MANY: Final = 24  # seeds, above which their lines and marks are drawn smaller, and counted
GLYPH: Final[dict[Decision, str]] = {"better": "▲", "worse": "▼", "equivalent": "■", "undecided": "○"}


class Row(NamedTuple):
    """One line of a forest: whose difference, the verdict, and the sweep point in short."""

    model: str
    baseline: str
    verdict: Verdict
    where: str = ""

    def lines(self) -> tuple[str, str]:
        """Who is compared with whom, on two lines."""
        pair = f"{self.model} against {self.baseline}"
        return (pair, self.where) if self.where else (self.model, f"against {self.baseline}")

    def line(self) -> str:
        """The same on one line."""
        return (", " if self.where else " ").join(self.lines())


def span(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """Both ends of an axis of differences. One interval from two seeds must not flatten all others: it is cut, with
    an arrow.
    """
    ends = [(*(v.interval or ()), v.difference or 0.0) for v in verdicts]
    gaps = [abs(v.difference or 0.0) for v in verdicts]
    margin = max(v.margin for v in verdicts)
    most = max(3 * statistics.median(max(map(abs, row)) for row in ends), 1.15 * max(gaps), 1.6 * margin, 1e-9)
    low, high = max(min(map(min, ends)), -most), min(max(map(max, ends)), most)
    room = max(1.6 * margin, 0.15 * (max(high, 0.0) - min(low, 0.0)), 1e-9)
    low, high = min(low, -room), max(high, room)
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def forest(rows: Sequence[Row], prefix: str, *, wide: bool) -> Markup:
    """Differences with intervals, zero line and margin band; all rows are of one metric, direction and margin.

    `wide` puts names and numbers beside the intervals (860 units); otherwise they stand above them (360 units).
    """
    first = rows[0].verdict
    low, high = span([row.verdict for row in rows])
    swept = any(row.where for row in rows)
    tall = wide and any(len(_told(row)) > 2 for row in rows)
    step, width, head, foot = (52 if tall else 38, 860, 44, 50) if wide else (74 if swept else 54, 360, 40, 50)
    left, right = (290, max(190, 24 + 7 * max(len(_numbers(row)) for row in rows))) if wide else (8, 8)
    figure = theme.canvas(width, head + step * len(rows) + foot)
    ax = theme.axes(figure, (left, head, right, foot))
    ax.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(False)
    ax.yaxis.set_major_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(7 if wide else 5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.tick(first.metric, x, plus=True)))
    for at, row in enumerate(rows):
        middle, half = (at, 0.51) if wide else (at + 0.26, 0.2)  # narrow: labels stand between the strips
        if first.margin:
            ax.fill_betweenx([middle - half, middle + half], -first.margin, first.margin, color=BAND, lw=0)
        ax.plot([0, 0], [middle - half, middle + half], color=INK, lw=1.2, solid_capstyle="butt")
        _bar(ax, middle, row.verdict, ends=(low, high))
        _labels(ax, at, row, wide=wide)
    unit = fmt.unit(first.metric)
    centre = (left + width - right) / 2
    what = f"difference in {fmt.metric_name(first.metric)}" + (f", {unit}" if unit else "")
    theme.write(figure, (centre, head + step * len(rows) + 38), what, align="center")
    higher = first.better == "higher"
    theme.write(figure, (left, 18), "← model worse" if higher else "← model better", colour=QUIET)
    theme.write(figure, (width - right, 18), f"model {'better' if higher else 'worse'} →", colour=QUIET, align="right")
    zero = left - low / (high - low) * (width - left - right)
    band = f"margin ±{fmt.tick(first.metric, first.margin)} {unit}".rstrip() if first.margin else "0"
    theme.write(figure, (min(max(zero, left + 60), width - right - 60), 34), band, colour=QUIET, align="center")
    told = "; ".join(
        f"{row.line()}: {fmt.difference(first.metric, row.verdict.difference)}, "
        f"{fmt.interval(first.metric, row.verdict.interval)}, {row.verdict.decision}"
        for row in rows
    )
    title = f"Differences in {fmt.metric_name(first.metric)} with intervals"
    return svg.inline(figure, prefix=prefix, title=title, description=told)


def _told(row: Row) -> list[str]:
    """A row's lines beside its interval."""
    first, second = row.lines()
    return [fmt.shorten(first, 42), *fmt.wrap(second, 42)]


def _numbers(row: Row) -> str:
    """The difference and its interval."""
    v = row.verdict
    return f"{fmt.difference(v.metric, v.difference, bare=True)}  {fmt.interval(v.metric, v.interval)}"


def _bar(ax: Axes, y: float, verdict: Verdict, *, ends: tuple[float, float]) -> None:
    colour = SENTINEL[verdict.decision]
    if verdict.interval is not None:
        shown = [min(max(end, ends[0]), ends[1]) for end in verdict.interval]
        ax.plot(shown, [y, y], color=colour, lw=2.6)
        for x, end, arrow in zip(shown, verdict.interval, "<>", strict=True):
            ax.plot([x], [y], marker="|" if x == end else arrow, color=colour, ms=8, mew=2, clip_on=False)
    if verdict.difference is not None:
        face = PAPER if verdict.decision == "undecided" else colour
        ax.plot([verdict.difference], [y], MARK[verdict.decision], ms=9, mfc=face, mec=colour, mew=1.8)


def _labels(ax: Axes, at: int, row: Row, *, wide: bool) -> None:
    numbers = _numbers(row)
    decision = f"{GLYPH[row.verdict.decision]} {row.verdict.decision}"
    colour = SENTINEL[row.verdict.decision]
    edge = ax.get_yaxis_transform()
    if wide:
        for line, text in enumerate(_told(row)):
            ax.annotate(text, (0, at), (-282, 3 - 15 * line), xycoords=edge, textcoords="offset pixels",
                        color=QUIET if line else INK, ha="left", annotation_clip=False)  # fmt: skip
        for dy, text, tint in ((-3, decision, colour), (12, numbers, INK)):
            ax.annotate(text, (1, at), (16, -dy), xycoords=edge, textcoords="offset pixels", color=tint,
                        ha="left", annotation_clip=False)  # fmt: skip
        return
    above = row.lines() if row.where else (row.line(),)
    for line, text in enumerate(above):
        ax.annotate(fmt.shorten(text, 52), (0, at), (0, 14 * (len(above) - line)), xycoords=edge,
                    textcoords="offset pixels", color=INK, ha="left", annotation_clip=False)  # fmt: skip
    ax.annotate(f"{decision}  {numbers}", (0, at), (0, 0), xycoords=edge, textcoords="offset pixels", color=colour,
                ha="left", annotation_clip=False)  # fmt: skip


class Pair(NamedTuple):
    """One seed's baseline and model, in the metric's own unit."""

    seed: int
    baseline: float
    model: float


def pairs(verdict: Verdict, title: str, seeds: Sequence[Pair], *, prefix: str) -> Markup:
    """Each seed's baseline and model joined by a line: solid where the model is better, dashed where it is not."""
    figure = theme.canvas(300, 230)
    ax = theme.axes(figure, (46, 22, 14, 30))
    size = min(1.0, MANY / len(seeds)) ** 0.7  # of lines and marks, which hide each other where seeds are many
    ax.set_xlim(-0.35, 1.35)
    ax.set_xticks([0, 1], ["baseline", "model"])
    _scale(ax, verdict.metric)
    for pair in seeds:
        dash = "-" if _better(verdict, pair) else (0, (3 / size, 3 / size))
        ax.plot([0, 1], [pair.baseline, pair.model], color=QUIET, lw=1.2 * size, ls=dash)
        ax.plot([0], [pair.baseline], "D", color=BASELINE, ms=5.5 * size, clip_on=False)
        ax.plot([1], [pair.model], "o", color=MODEL, ms=6.5 * size, clip_on=False)
    for x, ends, colour in ((-0.2, [p.baseline for p in seeds], BASELINE), (1.2, [p.model for p in seeds], MODEL)):
        ax.plot([x - 0.08, x + 0.08], [statistics.fmean(ends)] * 2, color=colour, lw=3)
    theme.write(figure, (2, 12), fmt.axis(verdict.metric), colour=QUIET)
    told = "; ".join(
        f"seed {p.seed}: {fmt.value(verdict.metric, p.baseline)} to {fmt.value(verdict.metric, p.model)}" for p in seeds
    )
    return svg.inline(figure, prefix=prefix, title=f"{title}, seed by seed", description=told)


def _better(verdict: Verdict, pair: Pair) -> bool:
    return (pair.model - pair.baseline) * (1 if verdict.better == "higher" else -1) > 0


def counted(verdict: Verdict, seeds: Sequence[Pair]) -> str:
    """In how many seeds the model is better, in words."""
    return f"Better in {sum(_better(verdict, pair) for pair in seeds)} of {len(seeds)} seeds."


def _scale(ax: Axes, metric: str) -> None:
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(metric, y)))
    ax.margins(y=0.12)


class Point(NamedTuple):
    """One place of a trend: mean and standard deviation over seeds."""

    x: float
    mean: float
    std: float


def trend(
    metric: str, across: str, mine: Sequence[Point], *, others: Sequence[Point], title: str, prefix: str
) -> Markup:
    """A model's metric across a swept setting or its generations, with the baseline's beside it where there is one."""
    figure = theme.canvas(340, 220)
    ax = theme.axes(figure, (46, 24, 14, 46))
    places = sorted({point.x for point in (*mine, *others)})
    if places[0] > 0 and places[-1] / places[0] >= 20:
        ax.set_xscale("log")
    for points, colour, mark, dash in ((others, BASELINE, "D", (0, (5, 3))), (mine, MODEL, "o", "-")):
        if points:
            x, y, error = zip(*points, strict=True)
            ax.errorbar(x, y, error, color=colour, fmt=mark, ls=dash, ms=6, lw=1.8, elinewidth=1.4, capsize=3)
    ax.xaxis.set_minor_locator(NullLocator())
    shown = places if len(places) <= 6 else places[:: math.ceil(len(places) / 6)]
    ax.set_xticks(shown, [fmt.place(x) for x in shown])
    ax.margins(x=0.08)
    _scale(ax, metric)
    theme.write(figure, (2, 12), fmt.axis(metric), colour=QUIET)
    theme.write(figure, (333, 212), across, colour=QUIET, align="right")
    told = "; ".join(f"{across} {fmt.place(point.x)}: {fmt.value(metric, point.mean)}" for point in mine)
    return svg.inline(figure, prefix=prefix, title=title, description=told)
