"""Tables of what the models cost, and of the seeds to ship."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.results import Cost, Latency

_UNKNOWN: Final = Cost(parameters=0, multiply_adds=0, bytes=0)


def costs(cast: Cast) -> Table | None:
    """What each model costs, and how many times less than its teacher."""
    models = cast.results.models
    known = [key for key in cast.order if models[key].cost]
    timings = sorted({(t.batch, t.threads) for key in known for t in _cost(cast, key).latency})
    if not known:
        return None
    threads = {t for _, t in timings}
    columns = ["Model", "Parameters", "Multiply-adds", "Size"]
    columns += [
        f"Latency, batch {b}" + (f", {fmt.plural(t, 'thread')}" if len(threads) > 1 else "") for b, t in timings
    ]
    columns += ["Training", "Recording"]
    rows = [_cost_row(cast, key, timings) for key in known]
    caption = "Cost of each model, and how it compares with its teacher's"
    if len(threads) == 1:
        caption += f"; latency on the CPU with {fmt.plural(next(iter(threads)), 'thread')}, median of a call"
    return Table(caption, tuple(columns), tuple(rows))


def _cost(cast: Cast, key: str) -> Cost:
    cost = cast.results.models[key].cost
    return cost or _UNKNOWN


def _cost_row(cast: Cast, key: str, timings: Sequence[tuple[int, int]]) -> tuple[Cell, ...]:
    mine = _cost(cast, key)
    above = cast.teacher(key)
    other = cast.results.models[above].cost if above else None
    theirs = other or _UNKNOWN
    head = who(cast, key)
    if above and other:
        head = Cell(head.text, (*head.notes, f"against {cast.full(above)}"))

    def cell(text: str, x: float | None, y: float | None, *, words: tuple[str, str]) -> Cell:
        note = fmt.ratio(x, y, less=words[0], more=words[1])
        return Cell(text, (note,) if note else ())

    row = [
        head,
        cell(fmt.count(mine.parameters), mine.parameters, theirs.parameters, words=("fewer", "more")),
        cell(fmt.count(mine.multiply_adds), mine.multiply_adds, theirs.multiply_adds, words=("fewer", "more")),
        cell(fmt.size(mine.bytes), mine.bytes, theirs.bytes, words=("smaller", "larger")),
    ]
    for timing in timings:
        here, there = _latency(mine, timing), _latency(theirs, timing)
        median = there.median_ms if there else None
        if here is None:
            row.append(Cell(fmt.MISSING))
            continue
        compared = fmt.ratio(here.median_ms, median, less="faster", more="slower")
        tail = f"90 %: {fmt.milliseconds(here.p90_ms)}"
        row.append(Cell(fmt.milliseconds(here.median_ms), (compared, tail) if compared else (tail,)))
    row.append(cell(fmt.seconds(mine.train_seconds), mine.train_seconds, theirs.train_seconds, words=("less", "more")))
    row.append(Cell(fmt.seconds(mine.record_seconds)))
    return tuple(row)


def _latency(cost: Cost, timing: tuple[int, int]) -> Latency | None:
    found = [t for t in cost.latency if (t.batch, t.threads) == timing]
    return found[0] if found else None


def ship(cast: Cast) -> Table | None:
    """Which seed of each model to ship."""
    rows = []
    for key in cast.order:
        one = cast.results.models[key]
        if one.ship:
            best = fmt.value(one.ship.metric, one.ship.value)
            tested = one.metrics.get(cast.results.metric)
            at = dict(zip(one.seeds, tested.values, strict=False)).get(one.ship.seed) if tested else None
            rows.append((
                who(cast, key),
                Cell(str(one.ship.seed)),
                Cell(best, () if one.ship.metric == cast.results.metric else (fmt.metric_name(one.ship.metric),)),
                Cell(fmt.value(cast.results.metric, at)),
                Cell(one.ship.folder, kind="path"),
            ))  # fmt: skip
    if not rows:
        return None
    what = fmt.capital(fmt.metric_name(cast.results.metric))
    columns = ("Model", "Seed", f"{what} on validation data", f"{what} on {cast.results.on}", "Folder")
    return Table("The seed to ship: the best on validation data", columns, tuple(rows), frozenset({0, 4}))
