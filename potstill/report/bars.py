"""Each teacher's bar beside those of its students, and the baseline's: who is how good, and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill.report import format as fmt
from potstill.report import groups as casting
from potstill.report import svg, theme
from potstill.report.groups import CALLED, Bar, Groups, Role
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Table
from potstill.report.theme import BASELINE, INK, MODEL, PAPER, QUIET

UPRIGHT: Final = 12  # more bars than this lie, one below the other
FLAT: Final = 0.8  # where the least value exceeds this share of the greatest, bars from zero would show nothing
_COLOUR: Final[dict[Role, str]] = {"teacher": QUIET, "student": MODEL, "baseline": BASELINE}
_SOURCES: Final = "DsPX"  # marks of the published sources
_GAP: Final = 0.7  # between groups, in bars
_LETTER: Final = 6.8  # pixels


@dataclass(frozen=True)
class Bars:
    """The bars of a study, drawn for wide and for narrow pages."""

    wide: Markup
    narrow: Markup
    note: str
    numbers: Table


def whole(cast: Cast, ids: Ids) -> Bars | None:
    """The bars of a study without a sweep; None where nothing is distilled from a model of the study."""
    points = casting.points(cast)
    of = casting.groups(cast, points[0]) if len(points) == 1 else None
    if of is None:
        return None
    wide = upright(of, ids.new("bars", of.metric)) if len(of.bars) <= UPRIGHT else lying(of, ids.new("bars", of.metric))
    narrow = lying(of, ids.new("bars", of.metric, "narrow"), wide=False)
    return Bars(wide, narrow, _note(of), casting.table(of, cast))


def at_points(cast: Cast, ids: Ids) -> list[Picture]:
    """The bars at every point of a sweep, all folded away."""
    points = casting.points(cast)
    found = []
    for point in points if len(points) > 1 else []:
        of = casting.groups(cast, point)
        if of is not None:
            drawn = lying(of, ids.new("bars", of.metric, of.where), wide=False)
            numbers = casting.table(of, cast)
            found.append(Picture(of.where, (), (numbers,), "", (drawn,)))
    return found


def _note(of: Groups) -> str:
    seeds = sorted({bar.seeds for bar in of.bars})
    n = fmt.plural(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {fmt.plural(seeds[-1], 'seed')}"
    told = f"Means over {n}" if seeds[-1] > 1 else "One seed, without a spread"
    told += "; the thin lines are one standard deviation over seeds to both sides" if seeds[-1] > 1 else ""
    if any(bar.published for bar in of.bars):
        told += "; hollow marks are published numbers"
    told += f". {fmt.capital(of.better)} is better." if of.better else "."
    return told + ("" if _from_zero(of) else " The axis does not begin at zero, so there are marks instead of bars.")


def _values(of: Groups) -> list[float]:
    ends = [bar.mean + sign * (bar.std or 0.0) for bar in of.bars for sign in (-1, 1)]
    return ends + [x for bar in of.bars for _, x in bar.published]


def _from_zero(of: Groups) -> bool:
    """Whether lengths from zero can be told apart."""
    means = [bar.mean for bar in of.bars] + [x for bar in of.bars for _, x in bar.published]
    return min(means) >= 0 and min(means) <= FLAT * max(means)


def _axis(of: Groups) -> tuple[float, float]:
    values = _values(of)
    low, high = (0.0, max(values)) if _from_zero(of) else (min(values), max(values))
    room = (high - low) or abs(high) or 1.0
    return (0.0 if _from_zero(of) else low - 0.08 * room), high + 0.08 * room


def _places(of: Groups, gap: float) -> list[float]:
    """Where the bars stand: one apart, groups further."""
    found, at = [], 0.0
    for group in of.groups:
        found += [at + place for place in range(len(group))]
        at += len(group) + gap
    return found


def upright(of: Groups, prefix: str) -> Markup:
    """Bars side by side with their names below, for at most `UPRIGHT` of them (860 units)."""
    places = _places(of, _GAP)
    slots = max(places[-1] + 1, 6.0)
    spare = (slots - places[-1] - 1) / 2
    slot = (860 - 50 - 10) / slots
    letters = int(slot / _LETTER)
    names = [fmt.wrap(bar.name, letters, 3) for bar in of.bars]
    foot = 14 + 16 * max(map(len, names))
    height = 62 + 230 + foot
    figure = theme.canvas(860, height)
    ax = theme.axes(figure, (50, 62, 10, foot))
    low, high = _axis(of)
    ax.set(xlim=(-0.5 - spare, slots - 0.5 - spare), ylim=(low, high + 0.06 * (high - low)))
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: fmt.tick(of.metric, y)))
    for x, bar, lines in zip(places, of.bars, names, strict=True):
        _bar(ax, x, bar, size=0.62, upright=True, zero=_from_zero(of))
        top = max([bar.mean + (bar.std or 0.0), *(value for _, value in bar.published)])
        ax.annotate(fmt.value(of.metric, bar.mean, bare=True), (x, top), (0, 9), textcoords="offset pixels",
                    ha="center", color=INK, annotation_clip=False)  # fmt: skip
        for at, line in enumerate(lines):
            ax.annotate(line, (x, 0), (0, -16 - 16 * at), xycoords=ax.get_xaxis_transform(), ha="center",
                        textcoords="offset pixels", color=INK, annotation_clip=False)  # fmt: skip
    theme.write(figure, (2, 12), _what(of), colour=QUIET)
    _legend(figure, of, (50.0, 36.0))
    return svg.inline(figure, prefix=prefix, title=of.title, description=_told(of))


def lying(of: Groups, prefix: str, *, wide: bool = True) -> Markup:
    """Bars one below the other: names beside them (860 units), or above them for narrow pages (360 units)."""
    step, width = (30, 860) if wide else (46, 360)
    left, right = (290, 170) if wide else (8, 10)
    places = [step * place for place in _places(of, 0.5)]
    entries = len({bar.role for bar in of.bars}) + len({source for bar in of.bars for source, _ in bar.published})
    head, length = 52 if wide else 36 + 20 * -(-entries // 2), places[-1] + step
    figure = theme.canvas(width, head + length + 44)
    ax = theme.axes(figure, (left, head, right, 44))
    low, high = _axis(of)
    ax.set(xlim=(low, high), ylim=(length - step / 2, -step / 2))
    ax.grid(False)
    ax.grid(True, axis="x")
    ax.yaxis.set_major_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(7 if wide else 5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: fmt.tick(of.metric, x)))
    edge = ax.get_yaxis_transform()
    for y, bar in zip(places, of.bars, strict=True):
        _bar(ax, y if wide else y + 9, bar, size=16, upright=False, zero=_from_zero(of))
        number = " ".join(part for part in (fmt.value(of.metric, bar.mean), fmt.spread(of.metric, bar.std)) if part)
        name = fmt.shorten(bar.name, 40 if wide else 48 - len(number))
        ends = ((0, (-282, -4), name, "left"), (1, (12, -4), number, "left"))
        if not wide:
            ends = ((0, (0, 7), name, "left"), (1, (0, 7), number, "right"))
        for x, shift, text, align in ends:
            ax.annotate(text, (x, y), shift, xycoords=edge, textcoords="offset pixels", ha=align, color=INK,
                        annotation_clip=False)  # fmt: skip
    theme.write(figure, (2, 12), _what(of) + (f", {fmt.shorten(of.where, 40)}" if wide and of.where else ""))
    _legend(figure, of, (2.0, 34.0), wrap=not wide)
    return svg.inline(figure, prefix=prefix, title=of.title, description=_told(of))


def _bar(ax: Axes, at: float, bar: Bar, *, size: float, upright: bool, zero: bool) -> None:
    """A bar or a mark, its standard deviation, and hollow marks of what was published."""
    colour = _COLOUR[bar.role]
    if zero:
        corner, extent = (
            ((at - size / 2, 0.0), (size, bar.mean)) if upright else ((0.0, at - size / 2), (bar.mean, size))
        )
        ax.add_patch(Rectangle(corner, *extent, facecolor=colour, alpha=0.3, lw=0))
        ax.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, lw=1.6))
    ends = [bar.mean - (bar.std or 0.0), bar.mean + (bar.std or 0.0)]
    places = [at, at]
    if bar.std is not None:
        line, caps = ((places, ends), "_") if upright else ((ends, places), "|")
        ax.plot(*line, color=INK if zero else colour, lw=1.6, marker=caps, ms=9, mew=1.6)
    if not zero:
        ax.plot(*_at(at, bar.mean, upright), "o", color=colour, ms=9)
    for source, value in bar.published:
        beside = at + (0.22 * size if upright else 0.0)
        mark = _SOURCES[source % len(_SOURCES)]
        ax.plot(*_at(beside, value, upright), mark, ms=7.5, mfc=PAPER, mec=INK, mew=1.6, clip_on=False, zorder=5)


def _at(along: float, value: float, upright: bool) -> tuple[list[float], list[float]]:
    return ([along], [value]) if upright else ([value], [along])


def _legend(figure: Figure, of: Groups, start: tuple[float, float], *, wrap: bool = False) -> None:
    """What the colours and the hollow marks are; one below the other in pairs where `wrap`."""
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    roles = [role for role in CALLED if any(bar.role == role for bar in of.bars)]
    sources = sorted({source for bar in of.bars for source, _ in bar.published})
    entries = [(CALLED[role], role, 0) for role in roles]
    x, y = start
    for at, (text, role, source) in enumerate([*entries, *(("published", None, source) for source in sources)]):
        if role is None:
            text += f" [{source + 1}]" if len(sources) > 1 else ""
            mark = _SOURCES[source % len(_SOURCES)]
            figure.add_artist(Line2D([(x + 7) / width], [1 - (y - 4) / height], marker=mark, ms=7.5, mfc=PAPER,
                                     mec=INK, mew=1.6, ls=""))  # fmt: skip
        else:
            box = (x / width, 1 - (y + 1) / height), 14 / width, 11 / height
            figure.add_artist(Rectangle(*box, facecolor=_COLOUR[role], alpha=0.3, lw=0))
            figure.add_artist(Rectangle(*box, fill=False, edgecolor=_COLOUR[role], lw=1.6))
        theme.write(figure, (x + 20, y), text)
        x, y = (start[0] + 170 * ((at + 1) % 2), y + 20 * (at % 2)) if wrap else (x + 44 + _LETTER * len(text), y)


def _what(of: Groups) -> str:
    return fmt.axis(of.metric) + (f" ({of.better} is better)" if of.better else "")


def _told(of: Groups) -> str:
    parts = []
    for bar in of.bars:
        text = f"{bar.name} ({CALLED[bar.role]}): {fmt.value(of.metric, bar.mean)}"
        text += f" {fmt.spread(of.metric, bar.std)}" if bar.std is not None else ""
        parts.append(text + "".join(f", published {fmt.value(of.metric, x)}" for _, x in bar.published))
    return "; ".join(parts)
