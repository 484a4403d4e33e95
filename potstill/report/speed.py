"""Time per example of every model on this CPU, and how many times as fast as its teacher, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.measured import SECONDS
from potstill.study.results import Latency

MOST_ROWS: Final = 200  # of a page
DISTURBED: Final = 1.5  # times the least turn, above which the greatest had company
Asked = tuple[int, int]  # threads, batch


def table(cast: Cast) -> Table | None:
    """A row for every model, batch size and number of threads; None where nothing was timed in turns."""
    found = {key: _timed(cast, key) for key in cast.order}
    asked = sorted({pair for rows in found.values() for pair in rows})
    rows = [(pair, key) for pair in asked for key in cast.order if pair in found[key]]
    if not 0 < len(rows) <= MOST_ROWS:
        return None
    printed = any(cast.published(SECONDS, key) for key in cast.order)
    n = _examples(cast)
    columns = ["Model", "Threads", "Batch", "Time per example", "Examples per second", "Mean, s per example"]
    columns += [f"Total for {fmt.count(n)} test examples"] if n else []
    columns += ["Times as fast as its teacher"] + (["Published"] if printed else [])
    told = []
    for pair, key in rows:
        row = [who(cast, key), Cell(str(pair[0])), Cell(str(pair[1])), *_times(found[key][pair], n)]
        above = cast.teacher(key)
        row.append(_ratio(found[key][pair], found[above].get(pair) if above else None))
        row += [_published(cast, key)] if printed else []
        told.append(tuple(row))
    machines = {one.cost.machine for one in cast.results.models.values() if one.cost and one.cost.machine}
    caption = f"Speed on {', '.join(sorted(machines)) or 'the CPU'}: medians, and the least and the greatest turn"
    return Table(caption, tuple(columns), tuple(told))


def turns(cast: Cast) -> int:
    """How many turns there were, at most."""
    return max((len(row.turns_ms) for key in cast.order for row in _timed(cast, key).values()), default=0)


def _timed(cast: Cast, key: str) -> Mapping[Asked, Latency]:
    cost = cast.results.models[key].cost
    return {(row.threads, row.batch): row for row in (cost.latency if cost else ()) if row.turns_ms}


def _examples(cast: Cast) -> int | None:
    """Test examples, where all models were evaluated on as many."""
    on = cast.results.on
    known = {one.splits[on].examples for one in cast.results.models.values() if on in one.splits}
    return known.pop() if len(known) == 1 else None


def _times(row: Latency, n: int | None) -> tuple[Cell, ...]:
    each = [turn / row.batch for turn in row.turns_ms]
    notes = [_ends(*map(fmt.milliseconds, (min(each), max(each))))]
    notes += ["disturbed"] if max(each) > DISTURBED * min(each) else []
    found = [
        Cell(fmt.milliseconds(row.median_ms / row.batch), tuple(notes)),
        Cell(fmt.number(1e3 * row.batch / row.median_ms, 3)),
        Cell(_seconds(_mean(row))),
    ]
    return (*found, Cell(fmt.seconds(n * _mean(row)))) if n else tuple(found)


def _seconds(x: float) -> str:
    """Four digits, as papers print it: 0.07168."""
    return f"{x:.4g}"


def _mean(row: Latency) -> float:
    """Seconds per example."""
    return (row.median_ms if row.mean_ms is None else row.mean_ms) / row.batch / 1e3


def _ratio(mine: Latency, teacher: Latency | None) -> Cell:
    if teacher is None or len(teacher.turns_ms) != len(mine.turns_ms):
        return Cell(fmt.MISSING)
    found = [theirs / ours for theirs, ours in zip(teacher.turns_ms, mine.turns_ms, strict=True)]
    return Cell(fmt.number(median(found), 3), (_ends(fmt.number(min(found), 3), fmt.number(max(found), 3)),))


def _ends(low: str, high: str) -> str:
    return f"{low} to {high}"


def _published(cast: Cast, key: str) -> Cell:
    """The seconds, and the ratio where the teacher's were published too, by the same source."""
    above = cast.teacher(key)
    theirs = dict(cast.published(SECONDS, above)) if above else {}
    shown, notes = [], []
    for at, value in cast.published(SECONDS, key):
        shown.append(f"{_seconds(value)} s {cast.mark(at)}".rstrip())
        if at in theirs and value:
            notes.append(f"{fmt.number(theirs[at] / value, 3)} times as fast {cast.mark(at)}".rstrip())
    return Cell("; ".join(shown) or fmt.MISSING, tuple(notes))
