"""Trials of the tuned models: one figure and one table each; who won, by how much, over what was searched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from potstill.report import format as fmt
from potstill.report import svg, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids, Picture
from potstill.report.tables import Cell, Table, cells
from potstill.report.theme import INK, MODEL, PAPER, QUIET, SENTINEL
from potstill.study.results import Trial, TunedModel, Tuning

PALEST, DARKEST = 0.05, 0.6  # opacity of the worst and the best cell of a heat map: ink stays readable on both
_CELL: Final = 30  # least width of a cell that holds a number
_TICKS: Final = 7
_OUTER: Final = 0.1


@dataclass(frozen=True)
class Tuned:
    """The section: what was done, in words, and a picture for each tuned model."""

    told: str
    pictures: tuple[Picture, ...]


def section(cast: Cast, ids: Ids) -> Tuned | None:
    """The section about tuning; None where nothing was tuned."""
    tuning = cast.results.tuning
    if tuning is None:
        return None
    order = sorted(tuning.models, key=lambda name: (cast.place(name), name))
    pictures = tuple(_picture(tuning, name, ids.new("tuning", name)) for name in order)
    return Tuned(_told(tuning), pictures)


def _told(tuning: Tuning) -> str:
    counts = sorted({len(one.trials) for one in tuning.models.values()})
    many = fmt.plural(counts[0], "trial") if len(counts) == 1 else f"{counts[0]} to {fmt.plural(counts[-1], 'trial')}"
    how = "all combinations" if tuning.method == "grid" else "drawn at random"
    what = "lowest" if tuning.better == "lower" else "highest"
    seeds = f"{'seed' if len(tuning.seeds) == 1 else 'seeds'} {', '.join(map(str, tuning.seeds))}"
    mean = "" if len(tuning.seeds) == 1 else " mean"
    return (
        f"{many} of each tuned model, {how}, on {seeds}, which the verdicts do not use. The {what}{mean} "
        f"{fmt.metric_name(tuning.metric)} on validation data wins. No trial read the test data; the models on this "
        "page were trained anew with the winners' settings."
    )


def _picture(tuning: Tuning, name: str, prefix: str) -> Picture:
    one = tuning.models[name]
    short = _short(one.trials)
    won = one.trials[one.winner - 1]
    value = f"{fmt.value(tuning.metric, won.mean)} {fmt.spread(tuning.metric, won.std)}".rstrip()
    note = f"Trial {won.number} won with {_settings(won.settings, short)}: {value}"
    failed = [trial.number for trial in one.trials if trial.state != "done"]
    if failed:
        word = "Trial" if len(failed) == 1 else "Trials"
        note += f". {word} {', '.join(map(str, failed))} failed and could not win"
    edges = [f"{short[key]} is {which} that was searched" for key in short if (which := _edge(one, key))]
    if edges:
        note += f". Its {' and its '.join(edges)}: a wider search may find better"
    drawing = draw(tuning, name, prefix)
    return Picture(name, (drawing,) if drawing else (), (table(tuning, name),), f"{note}.")


def _edge(one: TunedModel, key: str) -> str | None:
    """Whether the winner's number lies at an end of what was searched (three or more), or in a range's outer tenths."""
    space, won = one.search.get(key), one.trials[one.winner - 1].settings[key]
    if not fmt.is_number(won):
        return None
    if isinstance(space, Mapping) and "points" not in space:
        ends = space.get("log") or space["linear"]
        low, high, at = (math.log(x) if "log" in space else float(x) for x in (*ends, won))
        place = (at - low) / (high - low) if high > low else 0.5
        return "near the lowest" if place <= _OUTER else "near the highest" if place >= 1 - _OUTER else None
    numbers = _distinct(one, key)
    if len(numbers) < 3 or not all(map(fmt.is_number, numbers)):
        return None
    return "the lowest" if won == numbers[0] else "the highest" if won == numbers[-1] else None


def _short(trials: Sequence[Trial]) -> dict[str, str]:
    """Searched keys by their last word, where that is enough to tell them apart."""
    last = {key: key.rpartition(".")[2] for key in trials[0].settings}
    words = list(last.values())
    return {key: word if words.count(word) == 1 else key for key, word in last.items()}


def _settings(settings: Mapping[str, Any], short: Mapping[str, str]) -> str:
    return ", ".join(f"{short[key]} = {fmt.anything(value)}" for key, value in settings.items())


def table(tuning: Tuning, name: str) -> Table:
    """Every trial, the best first, those that failed last."""
    one, metric = tuning.models[name], tuning.metric
    short, sign = _short(one.trials), 1 if tuning.better == "lower" else -1
    ranked = sorted(one.trials, key=lambda t: (math.inf if t.mean is None else sign * t.mean, t.number))
    rows = []
    for trial in ranked:
        head = Cell(f"Trial {trial.number}", ("winner",) if trial.number == one.winner else ())
        mean = Cell(fmt.value(metric, trial.mean), (fmt.spread(metric, trial.std),) if trial.std is not None else ())
        if trial.state != "done":
            mean = Cell(trial.state, (trial.reason or "",), kind="bad")
        values = ", ".join(fmt.value(metric, x, bare=True) for x in trial.values) or fmt.MISSING
        settings = cells(*(fmt.anything(trial.settings[key]) for key in short))
        rows.append((head, mean, *settings, Cell(values), Cell(fmt.seconds(trial.seconds))))
    heads = ("Trial", f"Validation {fmt.metric_name(metric)}", *map(fmt.capital, short.values()), "Per seed", "Trained")
    return Table(f"Trials of {name}, the best first", heads, tuple(rows))


def draw(tuning: Tuning, name: str, prefix: str) -> Markup | None:
    """A heat map of a grid of two keys, a line over one number, else a mark for each trial; None if all failed."""
    one = tuning.models[name]
    keys = list(one.trials[0].settings)
    if all(trial.mean is None for trial in one.trials):
        return None
    title = f"Trials of {name}: validation {fmt.metric_name(tuning.metric)}"
    if len(keys) == 2:
        across, down = sorted(keys, key=lambda key: -len(_distinct(one, key)))
        if len(one.trials) == len(_distinct(one, across)) * len(_distinct(one, down)):
            return _heat(tuning, one, (across, down), prefix=prefix, title=title)
    number = keys[0] if len(keys) == 1 and all(fmt.is_number(t.settings[keys[0]]) for t in one.trials) else None
    return _marks(tuning, one, number, prefix=prefix, title=title)


def _distinct(one: TunedModel, key: str) -> list[Any]:
    """The values of a key: numbers by size, others as they come."""
    found = {fmt.anything(trial.settings[key]): trial.settings[key] for trial in one.trials}
    values = list(found.values())
    return sorted(values) if all(map(fmt.is_number, values)) else values


def _description(tuning: Tuning, one: TunedModel) -> str:
    """The numbers of a figure in words, for whoever does not see it."""
    short = _short(one.trials)
    return "; ".join(
        f"trial {trial.number} ({_settings(trial.settings, short)}): "
        + (fmt.value(tuning.metric, trial.mean) if trial.state == "done" else trial.state)
        + (", the winner" if trial.number == one.winner else "")
        for trial in one.trials
    )


def _heat(tuning: Tuning, one: TunedModel, keys: tuple[str, str], *, prefix: str, title: str) -> Markup:
    columns, rows = (_distinct(one, key) for key in keys)
    short, metric = _short(one.trials), tuning.metric
    names = fmt.brief(rows, 8)
    left, width = 14 + 7 * max(map(len, names)), 340
    cell = (width - left - 8) / len(columns)
    figure = theme.canvas(width, 44 + 36 * len(rows) + 42)
    ax = theme.axes(figure, (left, 44, 8, 42))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))  # the least value below
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.set_xticks(range(len(columns)), fmt.brief(columns, max(int(cell / 7), 3)))
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(length=0)
    depth = _depth(tuning, one)
    at = [[fmt.anything(value) for value in values] for values in (columns, rows)]
    for trial in one.trials:
        x, y = (places.index(fmt.anything(trial.settings[key])) for places, key in zip(at, keys, strict=True))
        won = trial.number == one.winner
        if trial.mean is not None:
            ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, color=MODEL, alpha=depth[trial.number], lw=0))
        if won:
            ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, ec=INK, lw=2.4, clip_on=False))
        text = "×" if trial.mean is None else fmt.value(metric, trial.mean, bare=True)
        if trial.mean is None or cell >= _CELL:
            ax.text(x, y, text, ha="center", va="center", color=INK if trial.mean is not None else SENTINEL["worse"])
    theme.write(figure, (2, 12), f"validation {fmt.axis(metric)}; the stronger, the better", colour=QUIET)
    theme.write(figure, (2, 34), short[keys[1]], colour=QUIET)
    theme.write(figure, (333, 44 + 36 * len(rows) + 36), short[keys[0]], colour=QUIET, align="right")
    return svg.inline(figure, prefix=prefix, title=title, description=_description(tuning, one))


def _depth(tuning: Tuning, one: TunedModel) -> dict[int, float]:
    """Opacity of each cell by rank, so that one bad trial does not make all others alike."""
    sign = 1 if tuning.better == "lower" else -1
    means = sorted({sign * trial.mean for trial in one.trials if trial.mean is not None}, reverse=True)
    step = (DARKEST - PALEST) / max(len(means) - 1, 1)
    return {t.number: PALEST + step * means.index(sign * t.mean) for t in one.trials if t.mean is not None}


def _marks(tuning: Tuning, one: TunedModel, key: str | None, *, prefix: str, title: str) -> Markup:
    """Mean and standard deviation of every trial: over a number, joined by a line, or by the trial's number."""
    figure = theme.canvas(340, 230)
    ax = theme.axes(figure, (46, 24, 14, 46))
    done = [trial for trial in one.trials if trial.mean is not None]
    places = {trial.number: float(trial.settings[key]) if key else float(trial.number) for trial in one.trials}
    done.sort(key=lambda trial: places[trial.number])
    x = [places[trial.number] for trial in done]
    y = [trial.mean or 0.0 for trial in done]
    if key and min(places.values()) > 0 and _is_log(one.search.get(key), list(places.values())):
        ax.set_xscale("log")
    error = [trial.std or 0.0 for trial in done]
    line = "-" if key else "none"
    ax.errorbar(x, y, error, color=MODEL, ls=line, lw=1.6, elinewidth=1.2, capsize=2, zorder=2)
    for trial in done:
        won = trial.number == one.winner
        ax.plot([places[trial.number]], [trial.mean or 0.0], "o", ms=9 if won else 5.5, mew=1.8 if won else 1.3,
                mfc=MODEL if won else PAPER, mec=INK if won else MODEL, zorder=4 if won else 3)  # fmt: skip
    _failed(ax, [places[trial.number] for trial in one.trials if trial.mean is None])
    ax.xaxis.set_minor_locator(NullLocator())
    if key and ax.get_xscale() == "log" and max(places.values()) / min(places.values()) >= 10:
        ax.xaxis.set_major_locator(LogLocator(numticks=_TICKS))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:g}"))
    elif key:
        shown = x if len(x) <= _TICKS else [x[round(i * (len(x) - 1) / (_TICKS - 3))] for i in range(_TICKS - 2)]
        ax.set_xticks(shown, [f"{place:.3g}" for place in shown])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(_TICKS, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.tick(tuning.metric, value)))
    ax.margins(x=0.06, y=0.12)
    theme.write(figure, (2, 12), f"validation {fmt.axis(tuning.metric)}", colour=QUIET)
    theme.write(figure, (333, 222), _short(one.trials)[key] if key else "trial", colour=QUIET, align="right")
    return svg.inline(figure, prefix=prefix, title=title, description=_description(tuning, one))


def _failed(ax: Axes, places: Sequence[float]) -> None:
    """A cross at the foot for each trial without a value."""
    for place in places:
        ax.plot([place], [0.03], "x", color=SENTINEL["worse"], ms=7, mew=1.8, transform=ax.get_xaxis_transform())


def _is_log(search: Any, places: Sequence[float]) -> bool:
    """Whether the places belong on a logarithmic axis: so searched, or far apart."""
    if isinstance(search, Mapping):
        return "log" in search
    return max(places) / min(places) >= 20
