"""Learning curves with bands, and reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.theme import BASELINE, MODEL, QUIET
from potstill.study.plotted import Curve, Reliability

PLACES: Final = 160  # points of a line: more than a figure of 340 pixels can show is weight without sight
Floats = NDArray[np.float64]


class Band(NamedTuple):
    """Mean, least and greatest over the seeds that had reached each step; (p,) each."""

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats
    seeds: NDArray[np.int64]


def band(curve: Curve, series: str) -> Band | None:
    """A series over seeds. Seeds that stopped early leave the mean; between its own steps a seed is interpolated."""
    seeds = []
    for steps, values in zip(curve.steps, curve.series.get(series, []), strict=False):
        known = [(s, v) for s, v in zip(steps, values, strict=False) if math.isfinite(v)]
        if known:
            table = np.asarray(sorted(known), np.float64)
            seeds.append((table[:, 0], table[:, 1]))
    if not seeds:
        return None
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    if len(grid) > PLACES:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, PLACES).round().astype(int))]
    rows = np.stack([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in seeds])
    there = np.isfinite(rows)
    grid, rows, there = grid[there.any(0)], rows[:, there.any(0)], there[:, there.any(0)]
    count = there.sum(0)
    return Band(grid, np.nansum(rows, 0) / count, np.nanmin(rows, 0), np.nanmax(rows, 0), count)


class Line(NamedTuple):
    """One line of a panel: whose it is, and how it is drawn."""

    label: str
    role: str
    band: Band


_STYLE: Final = {
    "validation": (MODEL, "-", 2.0),
    "train": (QUIET, (0, (5, 2)), 1.6),
    "baseline": (BASELINE, (0, (1.5, 1.8)), 2.0),
}


def panel(metric: str, lines: Sequence[Line], title: str, *, prefix: str) -> Markup:
    """Learning curves of one model and one quantity, in optimiser steps: mean over seeds, band least to greatest."""
    figure = theme.canvas(340, 236)
    ax = theme.axes(figure, (50, 42, 14, 42))
    at = 50.0
    for line in lines:
        colour, dash, width = _STYLE[line.role]
        one = line.band
        if (one.seeds > 1).any():
            ax.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.2, lw=0)
        ax.plot(one.steps, one.mean, color=colour, ls=dash, lw=width, marker="" if len(one.steps) > 1 else "o")
        label = fmt.shorten(line.label, 16)
        figure.add_artist(Line2D([at / 340, (at + 22) / 340], [1 - 28 / 236] * 2, color=colour, ls=dash, lw=width))
        theme.write(figure, (at + 26, 32), label)
        at += 44 + 6.6 * len(label)
    least = min(float(line.band.low.min()) for line in lines)
    most = max(float(line.band.high.max()) for line in lines)
    values_axis(ax, metric, (least, most))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.count(x)))
    theme.write(figure, (2, 12), fmt.axis(metric), colour=QUIET)
    theme.write(figure, (333, 230), "optimiser steps", colour=QUIET, align="right")
    told = "; ".join(
        f"{line.label}: from {fmt.value(metric, float(line.band.mean[0]))} "
        f"to {fmt.value(metric, float(line.band.mean[-1]))} at step {fmt.count(float(line.band.steps[-1]))}"
        for line in lines
    )
    return svg.inline(figure, prefix=prefix, title=title, description=told)


def values_axis(ax: Axes, metric: str, span: tuple[float, float]) -> None:
    """The vertical axis: logarithmic where a loss falls by more than a factor of fifty."""
    least, most = span
    if not fmt.is_share(metric) and least > 0 and most / least > 50:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(metric, y)))


def reliability(one: Reliability, title: str, *, prefix: str) -> Markup:
    """Accuracy against confidence per bin, the diagonal of perfect calibration, and the bins' shares of examples."""
    figure = theme.canvas(300, 344)
    ax = theme.axes(figure, (46, 24, 14, 130))
    below = theme.axes(figure, (46, 246, 14, 44))
    ends = [*one.low[1:], 1.0]
    ax.plot([0, 1], [0, 1], color=QUIET, ls=(0, (4, 3)), lw=1.4)
    total = max(1, sum(one.count))
    known = [
        (c, a, n) for c, a, n in zip(one.confidence, one.accuracy, one.count, strict=False)
        if c is not None and a is not None
    ]  # fmt: skip
    for confidence, accuracy, _ in known:
        ax.plot([confidence, confidence], [confidence, accuracy], color=BASELINE, lw=2)
    if known:
        x, y, _ = zip(*known, strict=True)
        ax.plot(x, y, "o-", color=MODEL, lw=1.6, ms=6, clip_on=False)
    for low, high, n in zip(one.low, ends, one.count, strict=False):
        below.bar(low, n / total, width=0.92 * (high - low), align="edge", color=MODEL)
    percent = FuncFormatter(lambda x, _: f"{100 * x:.0f}")
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], xticklabels=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    below.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 1])
    for axis in (ax.yaxis, below.xaxis, below.yaxis):
        axis.set_major_formatter(percent)
    theme.write(figure, (2, 12), "accuracy, %", colour=QUIET)
    theme.write(figure, (2, 234), "share of examples, %", colour=QUIET)
    theme.write(figure, (293, 338), "confidence, %", colour=QUIET, align="right")
    told = "; ".join(f"confidence {100 * c:.0f} %: accuracy {100 * a:.0f} %, {n} examples" for c, a, n in known)
    return svg.inline(figure, prefix=prefix, title=title, description=told or "no examples")
