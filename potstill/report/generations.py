"""Chains of generations: accuracy and uncertainty of each on every split, trends, all histograms in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from potstill.report import format as fmt
from potstill.report import spread, svg, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.spread import Steps
from potstill.report.tables import Cell, Table
from potstill.report.theme import BASELINE, INK, MODEL, QUIET
from potstill.study.measured import MetricValues
from potstill.study.plotted import Figures

METRICS: Final = ("accuracy", "uncertainty")
_LOOKS: Final = {"validation": (BASELINE, (0, (5, 2)), "s"), "train": (QUIET, (0, (2, 2)), "^")}
_TESTS: Final = ((MODEL, "-", "o"), (MODEL, (0, (1.5, 1.8)), "D"), (MODEL, (0, (5, 2, 1, 2)), "v"))
_STUDENT: Final[spread.Look] = (MODEL, "-", 1.6)
_TEACHER: Final[spread.Look] = (BASELINE, (0, (5, 2)), 1.6)
_SIZE: Final = (340, 236)
_PALEST: Final = 0.25  # the first generation's line


@dataclass(frozen=True)
class Chain:
    """Generations of one model, with their teacher as number 0 where results tell its splits."""

    name: str
    keys: tuple[tuple[int, str], ...]


def chains(cast: Cast) -> list[Chain]:
    """Every chain of which at least two generations were evaluated."""
    models, found = cast.results.models, dict[tuple[str, str], list[tuple[int, str]]]()
    for key in cast.order:
        one = models[key]
        if one.generations > 1 and one.splits:
            rest = cast.where(one.point)
            found.setdefault((one.model, rest), []).append((one.generation, key))
    told = []
    for (name, rest), keys in found.items():
        above = models[keys[0][1]].teachers if keys[0][0] == 1 else []
        first = [(0, above[0])] if len(above) == 1 and above[0] in models and models[above[0]].splits else []
        if len(keys) > 1:
            told.append(Chain(f"{name} ({rest})" if rest else name, (*first, *sorted(keys))))
    return told


def pictures(cast: Cast, arrays: Figures | None, ids: Ids) -> list[Picture]:
    """Every chain: trends of uncertainty and accuracy, histograms of all generations, the table behind them."""
    found = []
    for chain in chains(cast):
        drawn = [trend(cast, chain, metric, ids.new("generations", chain.name, metric)) for metric in METRICS]
        histograms = _histograms(chain, arrays, ids, cast.results.on) if arrays else []
        more = tuple(histograms[1:])
        found.append(Picture(chain.name, (*drawn, *histograms[:1]), (table(cast, chain),), more=more))
    return found


def table(cast: Cast, chain: Chain) -> Table:
    """A row per generation; the teacher is number 0."""
    known = _splits(cast, chain)
    rows = []
    for number, key in chain.keys:
        by_split = cast.results.models[key].splits
        cells = [cell for split in known for cell in spread.both(by_split.get(split))]
        rows.append(
            (Cell(str(number) if number else "0", () if number else (f"the teacher, {cast.full(key)}",)), *cells)
        )
    caption = f"Generations of {chain.name}: mean ± standard deviation over seeds"
    return Table(caption, ("Generation", *spread.columns(known)), tuple(rows))


def _splits(cast: Cast, chain: Chain) -> list[str]:
    return spread.ordered({name: None for _, key in chain.keys for name in cast.results.models[key].splits})


def trend(cast: Cast, chain: Chain, metric: str, prefix: str) -> Markup:
    """Mean over seeds on every split across generations; the band from the least to the greatest seed."""
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, (50, 42, 14, 42))
    told, at = [], 50.0
    tests = sorted((name for name in _splits(cast, chain) if name not in _LOOKS), key=lambda n: n != cast.results.on)
    for split in reversed(_splits(cast, chain)):
        places = [(number, one) for number, key in chain.keys if (one := _values(cast, key, split, metric)) is not None]
        if not places:
            continue
        colour, dash, mark = _LOOKS[split] if split in _LOOKS else _TESTS[tests.index(split) % len(_TESTS)]
        x = [number for number, _ in places]
        if any(len(set(one.values)) > 1 for _, one in places):
            ax.fill_between(x, [min(one.values) for _, one in places], [max(one.values) for _, one in places],
                            color=colour, alpha=0.2, lw=0)  # fmt: skip
        ax.plot(x, [one.mean for _, one in places], color=colour, ls=dash, lw=1.8, marker=mark, ms=5)
        figure.add_artist(Line2D([at / 340, (at + 22) / 340], [1 - 28 / 236] * 2, color=colour, ls=dash, lw=1.8))
        theme.write(figure, (at + 26, 32), split)
        at += 44 + 6.6 * len(split)
        told.append(f"{split}: " + ", ".join(f"generation {n} {fmt.value(metric, one.mean)}" for n, one in places))
    ax.set_xticks([number for number, _ in chain.keys])
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(metric, y)))
    ax.margins(x=0.06, y=0.12)
    theme.write(figure, (2, 12), fmt.axis(metric), colour=QUIET)
    theme.write(figure, (333, 230), "generation" + (" (0: the teacher)" if not chain.keys[0][0] else ""),
                colour=QUIET, align="right")  # fmt: skip
    title = f"{fmt.capital(fmt.metric_name(metric))} of {chain.name} across generations"
    return svg.inline(figure, prefix=prefix, title=title, description="; ".join(told))


def _values(cast: Cast, key: str, split: str, metric: str) -> MetricValues | None:
    one = cast.results.models[key].splits.get(split)
    if one is None:
        return None
    return one.accuracy if metric == "accuracy" else one.uncertainty


def _histograms(chain: Chain, arrays: Figures, ids: Ids, on: str) -> list[Markup]:
    """All generations over each other: test examples first, then their true classes, then the other splits."""
    found = []
    what = spread.axis(arrays)
    known = {key: arrays.frequencies.get(key, {}) for _, key in chain.keys}
    splits = spread.ordered({name: None for by_split in known.values() for name in by_split})
    for split in sorted(splits, key=lambda name: name != on):
        there = {key: by_split[split] for key, by_split in known.items() if split in by_split}
        names = dict.fromkeys(name for one in there.values() for name in one.classes)
        for name in ("", *names):
            lines = []
            for number, key in chain.keys:
                counts = (there[key].classes.get(name) if name else there[key].counts) if key in there else None
                one = spread.steps(f"generation {number}" if number else "the teacher", counts or [])
                if one is not None:
                    lines.append((number, one))
            if lines:
                title = f"Prediction frequencies of all generations of {chain.name} on {split} examples"
                title += f" of true class {name}" if name else ""
                prefix = ids.new("generations", chain.name, "frequencies", split, name)
                found.append(
                    overlay(lines, what, title, note=f"{split}, true {name}" if name else split, prefix=prefix)
                )
    return found


def overlay(lines: Sequence[tuple[int, Steps]], what: str, title: str, *, note: str, prefix: str) -> Markup:
    """One histogram per generation, from pale to strong; the teacher's dashed."""
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, (50, 42, 14, 42))
    floor = spread.ground([one for _, one in lines])
    numbers = [number for number, _ in lines if number]
    shades = dict(zip(numbers, np.linspace(_PALEST, 1.0, len(numbers)) if len(numbers) > 1 else [1.0], strict=True))
    for number, one in lines:
        look = _STUDENT if number else _TEACHER
        spread.stairs(ax, one, floor, look=look, alpha=float(shades.get(number, 1.0)), band=False)
    spread.frame(ax, floor)
    at = 50.0
    for number, label in _legend(numbers, teacher=not lines[0][0]):
        colour, dash, width = _STUDENT if number else _TEACHER
        figure.add_artist(Line2D([at / 340, (at + 22) / 340], [1 - 28 / 236] * 2, color=colour, ls=dash, lw=width,
                                 alpha=float(shades.get(number, 1.0))))  # fmt: skip
        theme.write(figure, (at + 26, 32), label)
        at += 44 + 6.6 * len(label)
    theme.write(figure, (2, 12), "share of examples, %", colour=QUIET)
    theme.write(figure, (333, 12), fmt.shorten(note, 24), colour=INK, align="right")
    theme.write(figure, (333, 230), fmt.shorten(what, 40), colour=QUIET, align="right")
    return svg.inline(figure, prefix=prefix, title=title, description="; ".join(spread.told(one) for _, one in lines))


def _legend(numbers: Sequence[int], *, teacher: bool) -> list[tuple[int, str]]:
    """The ends of the shades, and the teacher."""
    ends = [numbers[0], numbers[-1]] if len(numbers) > 1 else list(numbers)
    return [*((number, f"no. {number}") for number in ends), *([(0, "teacher")] if teacher else [])]
