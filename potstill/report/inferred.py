"""Figures of areas under curves, and of weights that are distributions: what a prior left out, how sure answers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from potstill.report import curves, svg, theme
from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Cell, Table, cells
from potstill.report.theme import BAND, BASELINE, MODEL, PAPER, QUIET
from potstill.study.plotted import Along, Figures, RemovedLayer
from potstill.study.results import Verdict

NAMED: Final = 12  # neurons that a table names
REACH: Final = 1.96  # standard deviations of a 95 % interval
_MODEL_STYLE, _OTHER_STYLE = (MODEL, "-", 2.0), (BASELINE, (0, (5, 2)), 2.0)


class Side(NamedTuple):
    """One of two lines of a figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def areas(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """For every verdict on an area: both curves, and what lies between them."""
    found = []
    for v in cast.results.verdicts:
        lines = [_watched(arrays, key) for key in (v.model, v.baseline)]
        if lines[0] is None or lines[1] is None:
            continue
        metric, one, other = lines[0][0], lines[0][1], lines[1][1]
        heading = f"{cast.full(v.model)} against {cast.full(v.baseline)}"
        prefix = ids.new("area", v.model, "against", v.baseline)
        sides = (
            Side(cast.name(v.model), one.steps.tolist(), one.mean.tolist()),
            Side(cast.name(v.baseline), other.steps.tolist(), other.mean.tolist()),
        )
        drawn = _area(metric, sides, v, title=f"Area between {heading}", prefix=prefix)
        named = [curves.Line(side.label, "validation", band) for side, band in zip(sides, (one, other), strict=True)]
        found.append(Picture(heading, (drawn,), (_steps(metric, named, heading),), _said(v)))
    return found


def _watched(arrays: Figures, key: str) -> tuple[str, curves.Band] | None:
    """The metric of a model's curve, and the curve over seeds."""
    curve = arrays.areas.get(key)
    series = next(iter(curve.series), "") if curve else ""
    one = curves.band(curve, series) if curve else None
    return None if one is None else (series.removeprefix("validation_"), one)


def _said(v: Verdict) -> str:
    gap = fmt.difference(v.metric, v.difference)
    return f"Area of the model minus that of the other: {gap} ({v.decision}); {v.better} is better."


def _area(metric: str, sides: tuple[Side, Side], v: Verdict, *, title: str, prefix: str) -> Markup:
    figure, ax = _canvas([side.label for side in sides])
    one, other = sides
    grid = np.union1d(one.x, other.x)
    grid = grid[(grid >= max(one.x[0], other.x[0])) & (grid <= min(one.x[-1], other.x[-1]))]
    low, high = np.interp(grid, one.x, one.y), np.interp(grid, other.x, other.y)
    gains = low < high if v.better == "lower" else low > high
    for where, colour in ((gains, MODEL), (~gains, BASELINE)):
        ax.fill_between(grid, low, high, where=where.tolist(), interpolate=True, color=colour, alpha=0.22, lw=0)
    for side, (colour, dash, width) in zip(sides, (_MODEL_STYLE, _OTHER_STYLE), strict=True):
        ax.plot(side.x, side.y, color=colour, ls=dash, lw=width)
    curves.values_axis(ax, metric, (min(*one.y, *other.y), max(*one.y, *other.y)))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.count(x)))
    _words(figure, fmt.axis(metric), "optimiser steps")
    told = "; ".join(
        f"{side.label}: from {fmt.value(metric, side.y[0])} to {fmt.value(metric, side.y[-1])}" for side in sides
    )
    return svg.inline(figure, prefix=prefix, title=title, description=f"{told}; {_said(v)}")


def _steps(metric: str, lines: Sequence[curves.Line], name: str) -> Table:
    """Both curves at up to ten steps."""
    steps = lines[0].band.steps
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, 10).round().astype(int))]
    rows = []
    for step in chosen:
        told = [fmt.value(metric, float(np.interp(step, one.band.steps, one.band.mean))) for one in lines]
        rows.append(cells(fmt.count(float(step)), *told))
    heads = ("Step", *(line.label for line in lines))
    return Table(f"{fmt.capital(fmt.metric_name(metric))} on validation data, {name}", heads, tuple(rows))


def removed(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """For every model with a prior made of a teacher: the neurons by their scores, those that went and those kept."""
    found = []
    for key in cast.order:
        one = arrays.removed.get(key)
        if one is None or not (one.neurons or one.layers or one.added):
            continue
        drawn = tuple(
            _scores(layer, cast.full(key), prefix=ids.new("removed", key, layer.layer)) for layer in one.neurons
        )
        told = [f"Seed {one.seed}."]
        told += [f"Layers of the teacher that are no more: {', '.join(one.layers)}."] if one.layers else []
        told += [f"Layers added: {', '.join(one.added)}."] if one.added else []
        told += [] if one.neurons else ["No neuron was removed."]
        tables = (_removed(one.neurons, cast.full(key)),) if one.neurons else ()
        found.append(Picture(cast.full(key), drawn, tables, " ".join(told)))
    return found


def _scores(layer: RemovedLayer, name: str, *, prefix: str) -> Markup:
    """Scores in order: to the left what was removed, to the right what was kept."""
    figure, ax = _canvas(["kept", "removed"], dots=True)
    gone, left = sorted(layer.removed_scores), sorted(layer.kept_scores)
    for scores, start, face, edge in ((gone, 0, PAPER, BASELINE), (left, len(gone), MODEL, MODEL)):
        places = np.arange(start, start + len(scores)) + 1
        ax.plot(places, scores, "o", mfc=face, mec=edge, ms=4 if len(gone) + len(left) < 120 else 2.4, mew=1)
    known = [*gone, *left]
    if known and min(known) > 0 and max(known) / min(known) > 50:
        curves.values_axis(ax, "score", (min(known), max(known)))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.round_number(y)))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _words(figure, f"score, {layer.layer}", "neurons, by their scores")
    told = f"{fmt.plural(len(gone), 'neuron')} of {len(known)} removed"
    return svg.inline(figure, prefix=prefix, title=f"Scores of the neurons of {layer.layer}, {name}", description=told)


def _removed(layers: Sequence[RemovedLayer], name: str) -> Table:
    rows = []
    for one in layers:
        gone = ", ".join(map(str, one.removed[:NAMED])) + (", ..." if len(one.removed) > NAMED else "")
        ends = [fmt.number(max(one.removed_scores, default=None)), fmt.number(min(one.kept_scores, default=None))]
        counts = (str(len(one.removed) + len(one.kept)), str(len(one.kept)))
        rows.append((*cells(one.layer, *counts, *ends), Cell(gone)))
    heads = ("Layer", "Neurons", "Kept", "Highest score removed", "Lowest score kept", "First to go")
    return Table(f"Neurons that the prior of {name} left out", heads, tuple(rows))


def lines(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """Predictive intervals in one dimension: the only input, or the one that goes most with the target."""
    found = []
    for target in arrays.targets:
        for key in cast.order:
            one = arrays.along.get(key, {}).get(target)
            if one is None or not one.sigmas:
                continue
            base = cast.baseline(key)
            other = arrays.along.get(base, {}).get(target) if base is not None else None
            same = other if other is not None and other.at == one.at and other.sigmas else None
            name = f"{target} by {cast.full(key)}"
            drawn = _along(
                one, same, name, labels=(cast.name(key), cast.name(base or "")), prefix=ids.new("along", key, target)
            )
            rest = "" if one.points else ", the other inputs at their means"
            note = f"Seed {one.seed}, along {one.input}{rest}; 95 % intervals."
            found.append(Picture(name, (drawn,), (_places(one, name),), note))
    return found


def _along(one: Along, other: Along | None, name: str, *, labels: tuple[str, str], prefix: str) -> Markup:
    figure, ax = _canvas(labels if other else labels[:1])
    at, values, sigmas = (np.asarray(part) for part in (one.at, one.values, one.sigmas))
    ax.fill_between(at, values - REACH * sigmas, values + REACH * sigmas, color=BAND, lw=0)
    ax.plot(at, values, color=MODEL, lw=2)
    if other is not None:
        theirs, wide = np.asarray(other.values), REACH * np.asarray(other.sigmas)
        colour, dash, _ = _OTHER_STYLE
        for line, width in ((theirs, 2.0), (theirs - wide, 1.0), (theirs + wide, 1.0)):
            ax.plot(at, line, color=colour, ls=dash, lw=width)
    if one.points:
        ax.plot(one.points, one.labels, "o", color=QUIET, ms=3, alpha=0.6, mew=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda x, _: fmt.round_number(x)))
    _words(figure, "value", one.input)
    told = f"standard deviation from {fmt.number(float(sigmas.min()))} to {fmt.number(float(sigmas.max()))}"
    return svg.inline(figure, prefix=prefix, title=f"Predictive interval of {name} along {one.input}", description=told)


def _places(one: Along, name: str) -> Table:
    rows = []
    for at in np.unique(np.linspace(0, len(one.at) - 1, 7).round().astype(int)):
        x, y, s = one.at[at], one.values[at], one.sigmas[at]
        rows.append(cells(fmt.number(x), fmt.number(y), fmt.number(y - REACH * s), fmt.number(y + REACH * s)))
    return Table(f"{name} along {one.input}", (one.input, "Value", "From", "To"), tuple(rows))


def calibrations(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """For every verdict about a model with a prior made of a teacher: both calibrations in one figure."""
    found = []
    for v in cast.results.verdicts:
        if v.model not in arrays.removed:
            continue
        pairs = [(cast.name(key), _calibrated(arrays, key)) for key in (v.model, v.baseline)]
        sides = tuple(Side(label, line[0], line[1]) for label, line in pairs if line is not None)
        if len(sides) < 2:
            continue
        heading = f"{cast.full(v.model)} against {cast.full(v.baseline)}"
        prefix = ids.new("calibrated", v.model, "against", v.baseline)
        drawn = _calibration(sides, heading, regression=bool(arrays.targets), prefix=prefix)
        found.append(Picture(heading, (drawn,), (_calibrations(sides, heading),)))
    return found


def _calibrated(arrays: Figures, key: str) -> tuple[list[float], list[float]] | None:
    """What should be and what is: confidence and accuracy, or nominal and true shares of intervals (first target)."""
    one = arrays.reliability.get(key)
    if one is not None:
        pairs = zip(one.confidence, one.accuracy, strict=True)
        known = [(c, a) for c, a in pairs if c is not None and a is not None]
        return ([c for c, _ in known], [a for _, a in known]) if known else None
    target = arrays.errors.get(key, {}).get(arrays.targets[0]) if arrays.targets else None
    if target is None or not target.levels:
        return None
    return list(target.levels), np.asarray(target.covered, np.float64).mean(axis=0).tolist()


def _calibration(sides: tuple[Side, ...], heading: str, *, regression: bool, prefix: str) -> Markup:
    figure, ax = _canvas([side.label for side in sides])
    ax.plot([0, 1], [0, 1], color=QUIET, ls=(0, (4, 3)), lw=1.4)
    for side, (colour, dash, width) in zip(sides, (_MODEL_STYLE, _OTHER_STYLE), strict=True):
        ax.plot(side.x, side.y, "o", color=colour, ls=dash, lw=width, ms=4, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}"))
    _words(figure, *(("labels inside, %", "should be inside, %") if regression else ("accuracy, %", "confidence, %")))
    told = "; ".join(f"{side.label}: {_gap(side)}" for side in sides)
    return svg.inline(figure, prefix=prefix, title=f"Calibration of {heading}", description=told)


def _gap(side: Side) -> str:
    gaps = np.abs(np.subtract(side.x, side.y))
    return f"at most {100 * float(gaps.max()):.0f} points from the diagonal"


def _calibrations(sides: tuple[Side, ...], name: str) -> Table:
    rows = [
        cells(side.label, f"{100 * x:.0f} %", f"{100 * y:.0f} %")
        for side in sides
        for x, y in zip(side.x, side.y, strict=True)
    ]
    return Table(f"Calibration of {name}", ("Model", "Should be", "Is"), tuple(rows))


def _canvas(labels: Sequence[str], *, dots: bool = False) -> tuple[Figure, Axes]:
    """A figure with a legend of one or two lines above its axes: the model's, and the other's dashed (or hollow)."""
    figure = theme.canvas(340, 236)
    ax = theme.axes(figure, (50, 42, 14, 42))
    at = 50.0
    for label, (colour, dash, width) in zip(labels, (_MODEL_STYLE, _OTHER_STYLE), strict=False):
        height = 1 - 28 / 236
        if dots:
            face = colour if colour == MODEL else PAPER
            figure.add_artist(Line2D([(at + 15) / 340], [height], marker="o", mfc=face, mec=colour, ms=5, ls=""))
        else:
            figure.add_artist(Line2D([at / 340, (at + 22) / 340], [height] * 2, color=colour, ls=dash, lw=width))
        told = fmt.shorten(label, 18)
        theme.write(figure, (at + 26, 32), told)
        at += 40 + 6.2 * len(told)
    return figure, ax


def _words(figure: Figure, up: str, across: str) -> None:
    theme.write(figure, (2, 12), up, colour=QUIET)
    theme.write(figure, (333, 230), across, colour=QUIET, align="right")
