"""Figures of a data set: examples of each group, the distribution of values, the first two principal components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.theme import QUIET, SENTINEL

MOST_GROUPS: Final = 40  # bars of a figure
_WIDE: Final = 380  # units: a telephone's width, so that text can be read there as well as on a desk
_COLOURS: Final = tuple(SENTINEL[role] for role in ("model", "baseline", "better", "undecided", "worse", "equivalent"))
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final = ("-", (0, (5, 2)), (0, (1.5, 1.8)))


def style(number: int) -> tuple[str, str]:
    """Colour and mark of a group; the pair repeats after 42."""
    return _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]


def counts(groups: Sequence[str], splits: Mapping[str, Sequence[int]], *, prefix: str) -> Markup:
    """Labelled examples of each group: a bar for each split."""
    shown = groups[:MOST_GROUPS]
    thick = 11.0
    height = 34 + len(shown) * (len(splits) * thick + 8)
    figure = theme.canvas(_WIDE, height)
    longest = max((len(fmt.shorten(name, 20)) for name in shown), default=0)
    left = 8 + 6.9 * longest
    ax = theme.axes(figure, (left, 26, 48, 4))
    span = len(splits) * thick + 8
    most = max((max(one) for one in splits.values() if len(one)), default=1) or 1
    for at, (name, values) in enumerate(splits.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        for i, value in enumerate(values[:MOST_GROUPS]):
            y = i * span + (at + 0.5) * thick
            ax.barh(y, value, height=thick - 2, color=colour)
            ax.text(value + 0.01 * most, y, fmt.count(value), va="center", color=QUIET, fontsize=9.5)
        x = 4 + (_WIDE - 8) / len(splits) * at
        theme.write(figure, (x + 16, 16), fmt.shorten(name, 14))
        figure.add_artist(Line2D([(x + 2) / _WIDE, (x + 9) / _WIDE], [1 - 12 / height] * 2, color=colour, lw=7))
    ax.set(
        xlim=(0, most * 1.02), ylim=(len(shown) * span, -2), yticks=[(i + 0.5) * span - 4 for i in range(len(shown))]
    )
    ax.set_yticklabels([fmt.shorten(name, 20) for name in shown])
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.grid(visible=False)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{group} {fmt.count(value)}" for group, value in zip(shown, values, strict=False))
        for name, values in splits.items()
    )
    return svg.inline(figure, prefix=prefix, title="Labelled examples of each group", description=told)


def histogram(
    edges: Sequence[float],
    parts: Mapping[str, Sequence[int]],
    *,
    prefix: str,
    of: str = "numbers",
    value: str = "value as stored",
) -> Markup:
    """The share of numbers (or `of` other things) in each bin, a line for each split."""
    figure = theme.canvas(_WIDE, 240)
    ax = theme.axes(figure, (56, 42, 14, 40))
    step = (_WIDE - 60) / max(len(parts), 1)
    for at, (name, numbers) in enumerate(parts.items()):
        colour, dash = _COLOURS[at % len(_COLOURS)], _DASHES[at % len(_DASHES)]
        shares = np.asarray(numbers, np.float64) / max(sum(numbers), 1)
        ax.stairs(shares, edges, color=colour, ls=dash, lw=1.8)
        x = 56 + step * at
        figure.add_artist(Line2D([x / _WIDE, (x + 22) / _WIDE], [1 - 28 / 240] * 2, color=colour, ls=dash, lw=2))
        theme.write(figure, (x + 27, 32), fmt.shorten(name, 11))
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(
        LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 30 else "all")
    )
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.round_number(x)))
    theme.write(figure, (2, 12), f"share of all {of}, %", colour=QUIET)
    theme.write(figure, (_WIDE - 7, 234), value, colour=QUIET, align="right")
    told = f"{len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g}"
    return svg.inline(
        figure, prefix=prefix, title=fmt.capital(value) if of != "numbers" else "Values", description=told
    )


def small_histogram(numbers: Sequence[int], name: str, *, prefix: str) -> Markup:
    """The shape of a column's distribution, without axes."""
    figure = theme.canvas(96, 26)
    ax = theme.axes(figure, (0, 1, 0, 1))
    ax.bar(range(len(numbers)), numbers, width=0.9, color=theme.MODEL)
    ax.set_axis_off()
    told = ", ".join(map(str, numbers))
    return svg.inline(figure, prefix=prefix, title=f"Distribution of {name}", description=told)


def scatter(
    points: Sequence[tuple[float, float, int]], groups: Sequence[str], shares: Sequence[float], *, prefix: str
) -> Markup:
    """Examples on the first two principal components, a colour and mark for each group, with the groups' names."""
    height = 380
    figure = theme.canvas(_WIDE, height)
    ax = theme.axes(figure, (6, 10, 120, 50))
    table = np.asarray([(x, y) for x, y, _ in points], np.float64).reshape(-1, 2)
    mine = np.asarray([group for *_, group in points])
    present = [group for group in range(len(groups)) if (mine == group).any()]
    if (mine < 0).any():
        ax.plot(*table[mine < 0].T, ".", color=QUIET, ms=4, alpha=0.5)
    for group in present:
        colour, mark = style(group)
        ax.plot(*table[mine == group].T, mark, color=colour, ms=3.6, alpha=0.55, mew=0)
    named = present[: MOST_GROUPS // 2]
    for row, group in enumerate(named):
        colour, mark = style(group)
        x, y = _WIDE - 108, 24 + min(21, (height - 70) / len(named)) * row
        figure.add_artist(Line2D([x / _WIDE], [1 - (y - 4) / height], color=colour, marker=mark, ms=7, mew=0, ls=""))
        theme.write(figure, (x + 10, y), fmt.shorten(groups[group], 14))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines["bottom"].set_visible(False)
    ax.grid(visible=False)
    for row, (which, share) in enumerate(zip(("first component, across", "second, up"), shares, strict=False)):
        said = f"{which}: {100 * share:.0f} % of the variance"
        theme.write(figure, (6, height - 24 + 17 * row), said, colour=QUIET)
    told = "; ".join(
        f"{groups[group]} around ({_middle(table, mine == group, 0)}, {_middle(table, mine == group, 1)})"
        for group in present
    )
    return svg.inline(figure, prefix=prefix, title="Two principal components", description=told or "no labels")


def _middle(table: np.ndarray, rows: np.ndarray, axis: int) -> str:
    value = float(np.median(table[rows, axis]))
    return f"{value:.3g}" if math.isfinite(value) else fmt.MISSING
