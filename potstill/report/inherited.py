"""What students have of their teachers: tables of confidence, errors and uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table
from potstill.study.measured import Correlation, Inheritance, Inherited

MOST_ROWS: Final = 200  # of the table of classes


def students(cast: Cast) -> Table | None:
    """A row for every student; None without one."""
    found = known(cast)
    rows = []
    for key, one in found.items():
        whole = next(part for part in one.classes if not part.name)
        rows.append((
            _who(cast, key, one),
            _correlation(one.confidence, one.baseline_confidence),
            _correlation(one.errors, one.baseline_errors),
            *_both(whole),
            Cell(fmt.count(len(one.seeds)), ("one teacher for all",) if one.one_teacher else ()),
        ))  # fmt: skip
    if not rows:
        return None
    n = fmt.count(max(one.examples for one in found.values()))
    caption = f"Students beside their teachers on {n} test examples: means over seeds, with 95 % intervals"
    columns = ("Student", "Rank correlation of confidence", "Correlation of errors", *_COLUMNS, "Seeds")
    return Table(caption, columns, tuple(rows))


_COLUMNS: Final = ("Uncertainty", "Difference in uncertainty", "Error rate")


def classes(cast: Cast) -> Table | None:
    """A row for every student and true class; None without one, or where they are too many for a page."""
    rows = []
    for key, one in known(cast).items():
        for part in one.classes:
            if part.name:
                row = Cell(cast.full(key), (part.name,))
                rows.append((row, *_both(part), Cell(fmt.count(part.examples))))
    if not 0 < len(rows) <= MOST_ROWS:
        return None
    caption = "Students beside their teachers by true class, on test examples: means over seeds, with 95 % intervals"
    return Table(caption, ("Student and class", *_COLUMNS, "Examples"), tuple(rows))


def known(cast: Cast) -> Mapping[str, Inheritance]:
    """Students in the order of the models."""
    found = cast.results.inheritance
    return {key: found[key] for key in cast.order if key in found}


def _who(cast: Cast, key: str, one: Inheritance) -> Cell:
    taught = " and ".join(cast.full(name) for name in one.teachers)
    return Cell(cast.full(key), (f"taught by {taught}",))


def _correlation(one: Correlation, baseline: float | None) -> Cell:
    beside = (f"baseline {fmt.number(baseline, 3, plus=True)}",) if baseline is not None else ()
    if one.mean is None:
        return Cell(fmt.MISSING, ("not defined", *beside))
    return Cell(fmt.number(one.mean, 3, plus=True), (_interval(one.interval), *beside))


def _interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    if ends is None:
        return "no interval"
    return f"[{fmt.number(ends[0], digits, plus=True)}, {fmt.number(ends[1], digits, plus=True)}]"


def _both(part: Inherited) -> tuple[Cell, ...]:
    return (
        _beside("uncertainty", part.student_uncertainty, part.teacher_uncertainty),
        Cell(fmt.number(part.difference, plus=True), (_interval(part.interval, 4),)),
        _beside("error_rate", part.student_error_rate, part.teacher_error_rate),
    )


def _beside(metric: str, student: float, teacher: float) -> Cell:
    return Cell(fmt.value(metric, student), (f"teacher {fmt.value(metric, teacher)}",))
