"""A regression's errors: tables by target and split, what students' have of their teachers', the most telling rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.spread import ordered
from potstill.report.tables import Cell, Table, cells, who
from potstill.study.measured import Correlation, MetricValues, TargetMeasures
from potstill.study.plotted import Figures, Telling

SIDE_BY_SIDE: Final = 6  # models of a table of telling rows
COLUMNS: Final = 12  # inputs of such a table that have a column each; more stand in one, by name
_COLUMNS: Final = ("R²", "Mean squared error", "Mean absolute error", "Bias")


def tables(cast: Cast) -> list[Table]:
    """One table per target: every model's errors on the split that is judged; empty for a study of classes."""
    return [_target(cast, name, cast.results.on) for name in targets(cast, cast.results.on)]


def others(cast: Cast) -> list[Table]:
    """The same on the other splits."""
    known = ordered({name: None for one in cast.results.models.values() for name in one.values})
    return [_target(cast, name, on) for on in known if on != cast.results.on for name in targets(cast, on)]


def targets(cast: Cast, split: str) -> list[str]:
    """Names of the targets, in the data's order."""
    known = {name for one in cast.results.models.values() for name in _of(one.values.get(split))}
    listed = cast.results.data.get("targets") or sorted(known)
    return [name for name in listed if name in known]


def _of(measures: object) -> dict[str, TargetMeasures]:
    return getattr(measures, "targets", {})


def _target(cast: Cast, target: str, split: str) -> Table:
    rows, examples = [], 0
    for key in cast.order:
        whole = cast.results.models[key].values.get(split)
        one = None if whole is None else whole.targets.get(target)
        if whole is not None and one is not None:
            examples = whole.labelled
            numbers = (_r2(one.r2), _values(one.squared_error), _values(one.absolute_error))
            rows.append((who(cast, key), *numbers, _values(one.bias, plus=True)))
    caption = (
        f"Errors of {target} on {fmt.count(examples)} {split} examples, in its own units: mean ± standard deviation "
        "over seeds"
    )
    return Table(caption, ("Model", *_COLUMNS), tuple(rows))


def _values(one: MetricValues, *, plus: bool = False) -> Cell:
    notes = (f"± {fmt.measured(one.std)}",) if one.std is not None else ()
    return Cell(fmt.measured(one.mean, plus=plus), notes)


def _r2(one: MetricValues) -> Cell:
    return Cell(fmt.value("r2", one.mean), (fmt.spread("r2", one.std),) if one.std is not None else ())


def coverage(cast: Cast) -> list[Table]:
    """One table per target: how often labels lie in the models' intervals; empty where no model has any."""
    return [table for name in targets(cast, cast.results.on) for table in _coverage(cast, name)]


def _coverage(cast: Cast, target: str) -> Iterator[Table]:
    told = []
    for key in cast.order:
        whole = cast.results.models[key].values.get(cast.results.on)
        one = None if whole is None else whole.targets.get(target)
        if whole is not None and one is not None and one.coverage:
            told.append((key, whole.variance, one.coverage))
    if not told:
        return
    levels = [part.level for part in told[0][2]]
    rows = []
    for key, variance, parts in told:
        whose = "variances that it answers" if variance == "answered" else "errors on validation data"
        shares = [
            Cell(
                f"{100 * part.share.mean:.1f} %",
                (
                    *((f"± {100 * part.share.std:.1f}",) if part.share.std is not None else ()),
                    f"{fmt.measured(part.width.mean)} wide",
                ),
            )
            for part in parts
        ]
        rows.append((who(cast, key), Cell(whose), *shares))
    caption = f"How many labels of {target} lie in intervals that should hold so many, on {cast.results.on}"
    yield Table(caption, ("Model", "Intervals of", *(f"{100 * x:g} %" for x in levels)), tuple(rows), frozenset({0, 1}))


def shared(cast: Cast) -> Table | None:
    """A row for every student and target; None without one."""
    rows = []
    for key in cast.order:
        for target, one in cast.results.shared_errors.get(key, {}).items():
            taught = " and ".join(cast.full(name) for name in one.teachers)
            beside = (f"baseline {fmt.number(one.baseline, 3, plus=True)}",) if one.baseline is not None else ()
            rows.append((
                Cell(cast.full(key), (f"taught by {taught}",)),
                Cell(target),
                _correlation(one.correlation, beside),
                _values(one.distance),
                Cell(fmt.count(len(one.seeds)), ("one teacher for all",) if one.one_teacher else ()),
            ))  # fmt: skip
    columns = ("Student", "Target", "Correlation of errors", "Mean distance from the teacher", "Seeds")
    caption = "Students beside their teachers on test examples: means over seeds, with 95 % intervals"
    return Table(caption, columns, tuple(rows), frozenset({0, 1})) if rows else None


def _correlation(one: Correlation, beside: tuple[str, ...]) -> Cell:
    if one.mean is None:
        return Cell(fmt.MISSING, ("not defined", *beside))
    ends = one.interval
    told = "no interval"
    if ends is not None:
        told = f"[{fmt.number(ends[0], 3, plus=True)}, {fmt.number(ends[1], 3, plus=True)}]"
    return Cell(fmt.number(one.mean, 3, plus=True), (told, *beside))


def telling(cast: Cast, arrays: Figures | None) -> list[Table]:
    """One table per target: the examples that all models miss by most, beside what each predicts."""
    found = [] if arrays is None else [_telling(cast, one) for one in arrays.telling if one.rows]
    return found


def _telling(cast: Cast, one: Telling) -> Table:
    shown = _shown(cast, one)
    rows = []
    for row in one.rows:
        inputs = [_input(x) for x in row.inputs]
        if len(inputs) > COLUMNS:
            inputs = ["; ".join(f"{name} {x}" for name, x in zip(one.inputs, inputs, strict=True))]
        line = [*cells(str(row.row), *inputs), Cell(fmt.measured(row.label))]
        for key in shown:
            value = row.predicted[key]
            line.append(Cell(fmt.measured(value), (f"off by {fmt.measured(row.label - value, plus=True)}",)))
        rows.append(tuple(line))
    names = one.inputs if len(one.inputs) <= COLUMNS else ["Inputs"]
    columns = ["Row", *names, "Label", *(cast.full(key) for key in shown)]
    left = len(one.rows[0].predicted) - len(shown)
    beside = f"; {fmt.plural(left, 'further model')} not shown" if left else ""
    caption = f"The {fmt.plural(len(one.rows), 'test example')} of which all models miss {one.target} by most{beside}"
    left_aligned = frozenset({0, 1}) if len(one.inputs) > COLUMNS else frozenset({0})
    return Table(caption, tuple(columns), tuple(rows), left_aligned)


def _input(x: float | str | None) -> str:
    return f"{x:.4g}".replace("-", "\u2212") if isinstance(x, float) else fmt.anything(x)


def _shown(cast: Cast, one: Telling) -> Sequence[str]:
    """The baseline first, then models in the plan's order, as many as fit side by side."""
    known = [key for key in cast.order if key in one.rows[0].predicted]
    return sorted(known, key=lambda key: not cast.is_baseline(key))[:SIDE_BY_SIDE]
