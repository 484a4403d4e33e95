"""How uncertain and how right each model is on every split and class, and how often it gives which probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Cell, Table, cells, who
from potstill.report.theme import BASELINE, INK, MODEL, QUIET
from potstill.study.measured import ClassMeasures, MetricValues, SplitMeasures
from potstill.study.plotted import Figures, Frequencies

ORDER: Final = ("train", "validation")  # test sets follow
MOST_ROWS: Final = 200  # of the table of classes; a longer one is left to the file
_STYLES: Final = (
    (MODEL, "-", 2.0),
    (BASELINE, (0, (5, 2)), 1.8),
    (INK, (0, (1.5, 1.8)), 1.8),
    (QUIET, (0, (5, 2, 1, 2)), 1.6),
)
_SIZE: Final = (340, 236)
Look: TypeAlias = tuple[str, Any, float]  # colour, dashes, width of a line
Floats = NDArray[np.float64]


def ordered(names: Mapping[str, object]) -> list[str]:
    """Splits in the order of use, test sets as they are declared."""
    return [*(name for name in ORDER if name in names), *(name for name in names if name not in ORDER)]


def splits(cast: Cast) -> Table | None:
    """Uncertainty and accuracy of every model on every split; None where no results tell them."""
    known = ordered({name: None for one in cast.results.models.values() for name in one.splits})
    keys = [key for key in cast.order if cast.results.models[key].splits]
    if not keys:
        return None
    rows = []
    for key in keys:
        by_split = cast.results.models[key].splits
        rows.append((who(cast, key), *[cell for split in known for cell in both(by_split.get(split))]))
    caption = f"Degree of uncertainty and accuracy ({_sizes(cast, known)}), mean ± standard deviation over seeds"
    return Table(caption, ("Model", *columns(known)), tuple(rows))


def classes(cast: Cast) -> Table | None:
    """The same for every true class; None where nothing is known, or where it is too long for a page."""
    known = ordered({name: None for one in cast.results.models.values() for name in one.splits})
    place = {name: at for at, name in enumerate(cast.results.data.get("classes") or ())}
    rows = []
    for key in cast.order:
        by_split = cast.results.models[key].splits
        names = dict.fromkeys(name for split in known if split in by_split for name in by_split[split].classes)
        for name in sorted(names, key=lambda name: place.get(name, len(place))):
            row = [Cell(cast.full(key), (name,))]
            for split in known:
                one = by_split[split].classes.get(name) if split in by_split else None
                row += both(one)
            rows.append(tuple(row))
    if not rows or len(rows) > MOST_ROWS:
        return None
    return Table("Degree of uncertainty and accuracy by true class", ("Model and class", *columns(known)), tuple(rows))


def columns(known: Sequence[str]) -> list[str]:
    """Headings of what `both` gives for every split."""
    return [f"{what}, {split}" for split in known for what in ("Uncertainty", "Accuracy")]


def both(one: SplitMeasures | ClassMeasures | None) -> tuple[Cell, Cell]:
    """Uncertainty and accuracy, each with its spread."""
    if one is None:
        return Cell(fmt.MISSING), Cell(fmt.MISSING)
    return _cell("uncertainty", one.uncertainty), _cell("accuracy", one.accuracy)


def _cell(metric: str, values: MetricValues | None) -> Cell:
    if values is None:
        return Cell(fmt.MISSING)
    return Cell(fmt.value(metric, values.mean), (fmt.spread(metric, values.std),) if values.std is not None else ())


def _sizes(cast: Cast, known: Sequence[str]) -> str:
    """How many examples each split has, and how many of them carry a label."""
    told = []
    for split in known:
        found = [one.splits[split] for one in cast.results.models.values() if split in one.splits]
        n, labels = found[-1].examples, sorted({one.labelled for one in found if one.labelled < one.examples})
        words = f", {' or '.join(map(fmt.count, labels))} labelled" if labels else ""
        told.append(f"{split}: {fmt.count(n)} examples{words}")
    return "; ".join(told)


class Steps(NamedTuple):
    """One line of a histogram: (20,) shares, mean, least and greatest over the trainings."""

    label: str
    mean: Floats
    low: Floats
    high: Floats
    trainings: int
    examples: int


def steps(label: str, counts: Sequence[Sequence[int]]) -> Steps | None:
    """Shares from the counts of every training; None where there are no examples."""
    table = np.asarray(counts, np.float64)
    if not table.size or not (table.sum(axis=1) > 0).all():
        return None
    shares = table / table.sum(axis=1, keepdims=True)
    n = int(table[0].sum())
    return Steps(label, shares.mean(axis=0), shares.min(axis=0), shares.max(axis=0), len(table), n)


def pictures(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """Every model's prediction frequencies beside its teacher's; folded away: classes, and splits but the verdict's."""
    found = []
    what = axis(arrays)
    for key in (key for key in cast.order if arrays.frequencies.get(key)):
        by_split = arrays.frequencies[key]
        taught = arrays.frequencies.get(cast.results.models[key].teachers[0], {}) if _single(cast, key) else {}
        drawn = []
        for split in sorted(ordered(by_split), key=lambda name: name != cast.results.on):
            lines = [steps("this model", by_split[split].counts)]
            lines += [steps("its teacher", taught[split].counts)] if split in taught else []
            title = f"Prediction frequencies of {cast.full(key)} on {split} examples"
            drawn.append(histogram(lines, what, title, prefix=ids.new("frequencies", key, split)))
            if by_split[split].classes:
                lines = [steps(f"true {name}", counts) for name, counts in by_split[split].classes.items()]
                prefix = ids.new("frequencies", key, split, "classes")
                drawn.append(histogram(lines, what, f"{title}, by true class", prefix=prefix))
        made = [one for one in drawn if one is not None]
        found.append(Picture(cast.full(key), tuple(made[:1]), (_bins(by_split, cast.full(key)),), more=tuple(made[1:])))
    return found


def _single(cast: Cast, key: str) -> bool:
    return len(cast.results.models[key].teachers) == 1


def axis(arrays: Figures) -> str:
    """What the horizontal axis counts."""
    if len(arrays.classes) == 2:
        return f"probability of {arrays.classes[1]}"
    return "probability of the predicted class"


def histogram(found: Sequence[Steps | None], what: str, title: str, *, prefix: str) -> Markup | None:
    """Steps over [0, 1] with shares on a logarithmic axis; a share of zero lies on the ground."""
    lines = [one for one in found if one is not None]
    if not lines:
        return None
    figure = theme.canvas(*_SIZE)
    ax = theme.axes(figure, (50, 42, 14, 42))
    floor = ground(lines)
    at = 50.0
    for one, (colour, dash, width) in zip(lines, _STYLES, strict=False):
        stairs(ax, one, floor, look=(colour, dash, width))
        label = fmt.shorten(one.label, 16)
        figure.add_artist(Line2D([at / 340, (at + 22) / 340], [1 - 28 / 236] * 2, color=colour, ls=dash, lw=width))
        theme.write(figure, (at + 26, 32), label)
        at += 44 + 6.6 * len(label)
    frame(ax, floor)
    theme.write(figure, (2, 12), "share of examples, %", colour=QUIET)
    theme.write(figure, (333, 230), fmt.shorten(what, 40), colour=QUIET, align="right")
    return svg.inline(figure, prefix=prefix, title=title, description="; ".join(map(told, lines)))


def ground(lines: Sequence[Steps]) -> float:
    """The lower end of the axis: the power of ten, in percent, below the smallest share that is not zero."""
    shares = np.concatenate([share for one in lines for share in (one.low, one.mean)])  # the least may all be zero
    least = float(shares[shares > 0].min())
    return 10.0 ** math.floor(math.log10(100 * least) - 1e-9)


def stairs(ax: Axes, one: Steps, floor: float, *, look: Look, alpha: float = 1.0, band: bool = True) -> None:
    """One line, and its band where there are several trainings."""
    colour, dash, width = look
    edges = np.linspace(0, 1, len(one.mean) + 1)
    mean, low, high = (np.maximum(100 * np.append(y, y[-1]), floor) for y in (one.mean, one.low, one.high))
    if one.trainings > 1 and band:
        ax.fill_between(edges, low, high, step="post", color=colour, alpha=0.2, lw=0)
    ax.plot(edges, mean, drawstyle="steps-post", color=colour, ls=dash, lw=width, alpha=alpha)


def frame(ax: Axes, floor: float) -> None:
    """Both axes of a histogram."""
    ax.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_yscale("log")
    ax.set_ylim(floor, 130)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def told(one: Steps) -> str:
    """The shares in words; bins without an example are left out."""
    high = [*np.arange(1, len(one.mean)) / len(one.mean), 1.0]
    parts = [
        f"{end - 1 / len(one.mean):.2f} to {end:.2f}: {100 * share:.2f} %"
        for end, share in zip(high, one.mean, strict=True)
        if share
    ]
    return f"{one.label}, {fmt.count(one.examples)} examples: " + ", ".join(parts)


def _bins(by_split: Mapping[str, Frequencies], name: str) -> Table:
    """Mean shares of every bin, with the least and the greatest over the trainings."""
    known = ordered(by_split)
    found = {split: steps(split, by_split[split].counts) for split in known}
    low = by_split[known[0]].low
    rows = []
    for at, (start, end) in enumerate(zip(low, [*low[1:], 1.0], strict=True)):
        row = [*cells(f"{start:.2f} to {end:.2f}")]
        for one in found.values():
            several = one is not None and one.trainings > 1
            notes = (f"{100 * one.low[at]:.2f} to {100 * one.high[at]:.2f}",) if one is not None and several else ()
            row.append(Cell(fmt.MISSING if one is None else f"{100 * one.mean[at]:.2f} %", notes))
        rows.append(tuple(row))
    caption = f"Prediction frequencies of {name}: share of examples, mean, and least to greatest over seeds"
    return Table(caption, ("Probability", *map(fmt.capital, known)), tuple(rows))
