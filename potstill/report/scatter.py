"""Figures of a regression: predicted against true, residuals against predicted, residuals, and how intervals hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Table, cells
from potstill.report.theme import BAND, BASELINE, MODEL, QUIET
from potstill.study.plotted import Figures, TargetErrors

MOST: Final = 36  # pairs of model and target that are drawn; of the others there are tables
_SIZE: Final = (300, 250)
_MARGINS: Final = (52.0, 24.0, 14.0, 42.0)
_TICKS: Final = FuncFormatter(lambda x, _: fmt.round_number(x))


def pictures(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """For every model and target: points, residuals, their distribution beside the baseline's."""
    found: list[Picture] = []
    for target in arrays.targets:
        of_all = [one for told in arrays.errors.values() if (one := told.get(target)) is not None and one.true]
        for key in cast.order:
            one = arrays.errors.get(key, {}).get(target)
            if one is None or not one.true or len(found) >= MOST:
                continue
            scale = Scale.of(one, of_all)
            name = f"{target} by {cast.full(key)}"
            base = cast.baseline(key)
            other = arrays.errors.get(base, {}).get(target) if base is not None else None
            lines = [Residuals(cast.full(key), one), *([Residuals(cast.full(base or ""), other)] if other else [])]
            first = (
                against(one, name, scale, prefix=ids.new("predicted", key, target)),
                leftover(one, name, scale, prefix=ids.new("residuals", key, target)),
            )
            more = (spread(lines, name, prefix=ids.new("distribution", key, target)),)
            note = f"Points: {_points(one)}."
            found.append(Picture(name, first, (_numbers(one, name),), note, more))
    return found


class Scale(NamedTuple):
    """Ends of a target's axes, the same for all models, so that they can be compared by eye."""

    low: float
    high: float
    residual: float

    @staticmethod
    def of(one: TargetErrors, of_all: Sequence[TargetErrors]) -> Scale:
        """Of one model beside all others. One that is far off does not flatten the figures of the others: an axis is
        at most three times as long as the model itself needs."""
        values, sizes = _range(one), _largest(one)
        middle, half = sum(values) / 2, 1.5 * (values[1] - values[0])
        low, high = zip(*map(_range, of_all), strict=True)
        ends = max(min(low), middle - half), min(max(high), middle + half)
        room = 0.04 * (ends[1] - ends[0]) or 1.0
        return Scale(ends[0] - room, ends[1] + room, 1.06 * min(max(map(_largest, of_all)), 3 * sizes) or 1.0)


def _range(one: TargetErrors) -> tuple[float, float]:
    return min(*one.true, *one.predicted), max(*one.true, *one.predicted)


def _largest(one: TargetErrors) -> float:
    return float(np.abs(np.subtract(one.true, one.predicted)).max())


def _points(one: TargetErrors) -> str:
    total = sum(one.counts[0]) if one.counts else len(one.true)
    some = f"{fmt.count(len(one.true))} of {fmt.count(total)}" if total > len(one.true) else fmt.count(total)
    return f"{some} test examples, seed {one.seeds[0]}"


def _axes(figure: Figure, across: str, up: str) -> Axes:
    ax = theme.axes(figure, _MARGINS)
    ax.grid(True, axis="both")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(_TICKS)
    theme.write(figure, (2, 12), up, colour=QUIET)
    theme.write(figure, (_SIZE[0] - 7, _SIZE[1] - 6), across, colour=QUIET, align="right")
    return ax


def against(one: TargetErrors, name: str, scale: Scale, *, prefix: str) -> Markup:
    """What was predicted for which label; on the dashed diagonal it is right."""
    figure = theme.canvas(*_SIZE)
    ax = _axes(figure, "label", "predicted")
    ends = (scale.low, scale.high)
    ax.set(xlim=ends, ylim=ends)
    ax.plot(ends, ends, color=QUIET, ls=(0, (4, 3)), lw=1.4)
    ax.plot(one.true, one.predicted, "o", color=MODEL, ms=4, alpha=0.5, mew=0)
    told = f"{_points(one)}; labels from {fmt.number(min(one.true))} to {fmt.number(max(one.true))}"
    return svg.inline(figure, prefix=prefix, title=f"Predicted against true {name}", description=told)


def leftover(one: TargetErrors, name: str, scale: Scale, *, prefix: str) -> Markup:
    """Label minus predicted, against predicted: a bend or a fan is something the model did not learn."""
    figure = theme.canvas(*_SIZE)
    ax = _axes(figure, "predicted", "label − predicted")
    ax.set(xlim=(scale.low, scale.high), ylim=(-scale.residual, scale.residual))
    residuals = np.subtract(one.true, one.predicted)
    ax.axhline(0.0, color=QUIET, ls=(0, (4, 3)), lw=1.4)
    ax.plot(one.predicted, residuals, "o", color=MODEL, ms=4, alpha=0.5, mew=0)
    told = (
        f"{_points(one)}; residuals from {fmt.number(float(residuals.min()))} to {fmt.number(float(residuals.max()))}"
    )
    return svg.inline(figure, prefix=prefix, title=f"Residuals against predicted {name}", description=told)


class Residuals(NamedTuple):
    """One line of a distribution."""

    label: str
    errors: TargetErrors

    def shares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, least and greatest over the trainings, (bins,) each."""
        table = np.asarray(self.errors.counts, np.float64)
        table = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        return table.mean(axis=0), table.min(axis=0), table.max(axis=0)


def spread(lines: Sequence[Residuals], name: str, *, prefix: str) -> Markup:
    """How residuals are distributed: a model's, with a band over seeds, and the baseline's dashed."""
    figure = theme.canvas(340, 236)
    ax = theme.axes(figure, (50, 42, 14, 42))
    at = 50.0
    for line, (colour, dash) in zip(lines, ((MODEL, "-"), (BASELINE, (0, (5, 2)))), strict=False):
        mean, low, high = (np.repeat(part, 2) for part in line.shares())
        edges = np.repeat(line.errors.edges, 2)[1:-1]
        if len(line.errors.counts) > 1 and colour == MODEL:
            ax.fill_between(edges, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(edges, mean, color=colour, ls=dash, lw=1.8)
        label = fmt.shorten(line.label, 20)
        figure.add_artist(Line2D([at / 340, (at + 22) / 340], [1 - 28 / 236] * 2, color=colour, ls=dash, lw=1.8))
        theme.write(figure, (at + 26, 32), label)
        at += 44 + 6.6 * len(label)
    ax.axvline(0.0, color=QUIET, ls=(0, (4, 3)), lw=1.2)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(_TICKS)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g}"))
    theme.write(figure, (2, 12), "examples, %", colour=QUIET)
    theme.write(figure, (333, 230), "label − predicted", colour=QUIET, align="right")
    bins = np.asarray(lines[0].errors.edges)
    told = f"{len(bins) - 1} bins from {fmt.number(float(bins[0]))} to {fmt.number(float(bins[-1]))}"
    return svg.inline(figure, prefix=prefix, title=f"Distribution of residuals of {name}", description=told)


def _numbers(one: TargetErrors, name: str) -> Table:
    """The distribution of residuals by fifths of all bins."""
    mean, _, _ = Residuals(name, one).shares()
    groups = np.array_split(np.arange(len(mean)), 5)
    rows = []
    for group in groups:
        low, high = one.edges[int(group[0])], one.edges[int(group[-1]) + 1]
        rows.append(cells(f"{fmt.number(low, 3)} to {fmt.number(high, 3)}", f"{100 * mean[group].sum():.1f} %"))
    caption = f"Residuals of {name}: shares of test examples, mean over seeds; what lies beyond counts at the ends"
    return Table(caption, ("Label − predicted", "Examples"), tuple(rows))


def intervals(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """For every model and target with variances: how many labels intervals hold, of how many they should."""
    found: list[Picture] = []
    for target in arrays.targets:
        for key in cast.order:
            one = arrays.errors.get(key, {}).get(target)
            if one is not None and one.levels and len(found) < MOST:
                name = f"{target} by {cast.full(key)}"
                drawn = held(one, name, prefix=ids.new("intervals", key, target))
                found.append(Picture(name, (drawn,), (_held(one, name),)))
    return found


def held(one: TargetErrors, name: str, *, prefix: str) -> Markup:
    """Shares of labels in intervals against their nominal levels: mean over seeds, with a band."""
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, _MARGINS)
    table = np.asarray(one.covered, np.float64)
    ax.plot([0, 1], [0, 1], color=QUIET, ls=(0, (4, 3)), lw=1.4)
    if len(table) > 1:
        ax.fill_between(one.levels, table.min(axis=0), table.max(axis=0), color=BAND, lw=0)
    ax.plot(one.levels, table.mean(axis=0), "o-", color=MODEL, lw=1.6, ms=4.5, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_minor_locator(NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}"))
    theme.write(figure, (2, 12), "labels inside, %", colour=QUIET)
    theme.write(figure, (_SIZE[0] - 7, _SIZE[1] - 6), "should be inside, %", colour=QUIET, align="right")
    told = "; ".join(f"{100 * x:g} %: {100 * y:.0f} %" for x, y in _levels(one).items())
    return svg.inline(figure, prefix=prefix, title=f"How intervals hold, {name}", description=told)


def _levels(one: TargetErrors) -> Mapping[float, float]:
    means = np.asarray(one.covered, np.float64).mean(axis=0)
    return dict(zip(one.levels, map(float, means), strict=True))


def _held(one: TargetErrors, name: str) -> Table:
    rows = [cells(f"{100 * x:g} %", f"{100 * y:.1f} %") for x, y in _levels(one).items()]
    return Table(f"How intervals hold, {name}", ("Should be inside", "Labels inside"), tuple(rows))
