"""The page's tables as plain data; the template draws them all alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from potstill.report import format as fmt
from potstill.report.curves import Line
from potstill.report.figures import Pair, Point
from potstill.report.names import Cast
from potstill.study.measured import MetricValues
from potstill.study.plotted import Reliability
from potstill.study.results import Decision, Verdict

MANY_CLASSES: Final = 20  # above this a confusion matrix is a list of its greatest entries
SAMPLED: Final = 9  # rows of a learning curve's table


@dataclass(frozen=True)
class Cell:
    """A value, smaller notes below it, a decision to badge, and a class of the style sheet."""

    text: str
    notes: tuple[str, ...] = ()
    decision: Decision | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Columns' headings; rows whose first cell heads the row. `words` are the columns that are not numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset({0})
    kind: str = ""


def cells(*texts: str) -> tuple[Cell, ...]:
    """Cells without notes."""
    return tuple(Cell(text) for text in texts)


def who(cast: Cast, key: str) -> Cell:
    """A row's head: the model's name, and its sweep point and generation below."""
    qualifier = cast.qualifier(key)
    return Cell(cast.name(key), (qualifier,) if qualifier else ())


def models(cast: Cast) -> Table:
    """Every model: what it is, its metric, its difference to the baseline, published numbers, seeds."""
    results, metric = cast.results, cast.results.metric
    published = any(cast.published(metric, key) for key in cast.order)
    columns = ["Model", "Network and objective", f"{fmt.capital(fmt.metric_name(metric))} on {cast.judged_on}"]
    columns += ["Against the baseline"] if results.baseline else []
    columns += ["Published"] if published else []
    columns.append("Seeds")
    rows = []
    for key in cast.order:
        one = results.models[key]
        values = one.metrics.get(metric)
        row = [who(cast, key), _what(cast, key)]
        row.append(
            Cell(fmt.value(metric, values.mean), (fmt.spread(metric, values.std),) if values.std is not None else ())
            if values
            else Cell("no result" if one.failures else fmt.MISSING, kind="bad" if one.failures else "")
        )
        row += [_against(cast, key)] if results.baseline else []
        row += [_published(cast, metric, key)] if published else []
        failed = fmt.plural(len(one.failures), "failure") if one.failures else ""
        shared = ("shared by all seeds",) if one.shared else ()
        row.append(
            Cell(fmt.count(len(one.seeds)), (failed, *shared) if failed else shared, kind="bad" if failed else "")
        )
        rows.append(tuple(row))
    caption = f"Models: {fmt.metric_name(metric)} on {cast.judged_on}, mean ± standard deviation over seeds"
    return Table(caption, tuple(columns), tuple(rows), frozenset({0, 1}))


def _what(cast: Cast, key: str) -> Cell:
    one = cast.results.models[key]
    network = one.network + (f" × {one.members} members" if one.members > 1 else "")
    notes = [*([f"{one.sees}: {cast.inputs[one.sees]}"] if one.sees in cast.inputs else []), one.objective]
    if one.teachers:
        found = [(name, cast.find(name, one)) for name in one.teachers]
        notes.append("teacher: " + ", ".join(name if at is None else cast.full(at) for name, at in found))
    return Cell(network, tuple(notes))


def _against(cast: Cast, key: str) -> Cell:
    metric, base = cast.results.metric, cast.baseline(key)
    for verdict in cast.results.verdicts:
        if (verdict.model, verdict.baseline, verdict.metric) == (key, base, metric):
            shown = fmt.difference(metric, verdict.difference)
            return Cell(shown, (fmt.interval(metric, verdict.interval),), verdict.decision)
    mine = cast.results.models[key].metrics.get(metric)
    other = cast.results.models[base].metrics.get(metric) if base in cast.results.models else None
    if cast.is_baseline(key):
        return Cell("baseline", kind="quiet")
    if mine is None or other is None:
        return Cell(fmt.MISSING)
    return Cell(fmt.difference(metric, mine.mean - other.mean), ("not compared",), kind="quiet")


def _published(cast: Cast, metric: str, key: str) -> Cell:
    found = cast.published(metric, key)
    ours = cast.results.models[key].metrics.get(metric)
    if not found:
        return Cell(fmt.MISSING)
    texts = [f"{fmt.value(metric, x)} {cast.mark(at)}".rstrip() for at, x in found]
    notes = (f"ours {fmt.difference(metric, ours.mean - found[0][1])}",) if ours else ()
    return Cell("; ".join(texts), notes)


def metrics(cast: Cast) -> Table | None:
    """Every metric of every model, with published numbers."""
    known = sorted({name for one in cast.results.models.values() for name in one.metrics})
    if not known:
        return None
    rows = []
    for key in cast.order:
        row = [who(cast, key)]
        for metric in known:
            one = cast.results.models[key].metrics.get(metric)
            notes = [fmt.spread(metric, one.std)] if one and one.std is not None else []
            notes += [f"published {fmt.value(metric, x)}" for _, x in cast.published(metric, key)]
            row.append(Cell(fmt.value(metric, one.mean if one else None), tuple(notes)))
        rows.append(tuple(row))
    caption = f"Every metric on {cast.results.on}, mean ± standard deviation over seeds"
    return Table(caption, ("Model", *(fmt.capital(fmt.metric_name(name)) for name in known)), tuple(rows))


def tests(cast: Cast) -> list[Table]:
    """Where there are several test sets: the verdict's metric on each, then every metric on those that it is not on."""
    models, on, metric = cast.results.models, cast.results.on, cast.results.metric
    names = list(dict.fromkeys([on, *(name for one in models.values() for name in one.tests)]))
    if len(names) == 1:
        return []
    title, spread = fmt.capital(fmt.metric_name(metric)), "mean ± standard deviation over seeds"
    heads = [f"On {name}" + (", as judged" if name == on else "") for name in names]
    found = [_by_test(cast, f"{title} on every test set, {spread}", heads, [(name, metric) for name in names])]
    for name in names:
        known = sorted({which for one in models.values() for which in one.tests.get(name, {})})
        if name != on and known:
            heads = [fmt.capital(fmt.metric_name(which)) for which in known]
            pairs = [(name, which) for which in known]
            found.append(_by_test(cast, f"Every metric on {name}, {spread}", heads, pairs))
    return found


def _by_test(cast: Cast, caption: str, heads: Sequence[str], columns: Sequence[tuple[str, str]]) -> Table:
    """A row for every model, a column for every pair of test set and metric."""
    rows = []
    for key in cast.order:
        one = cast.results.models[key]
        values = [(metric, one.tests.get(name, {}).get(metric)) for name, metric in columns]
        rows.append((who(cast, key), *(_mean(metric, found) for metric, found in values)))
    return Table(caption, ("Model", *heads), tuple(rows))


def _mean(metric: str, found: MetricValues | None) -> Cell:
    notes = (fmt.spread(metric, found.std),) if found and found.std is not None else ()
    return Cell(fmt.value(metric, found.mean if found else None), notes)


def verdicts(cast: Cast) -> Table:
    """The numbers behind the verdicts."""
    method = {"crossed": "seeds and examples", "nested": "new data per seed", "scalar": "a value per seed"}
    rows = []
    for v in cast.results.verdicts:
        p = fmt.number(v.sign_flip_p, 3)
        least = (
            (f"least possible {fmt.number(v.sign_flip_smallest_p, 3)}",) if v.sign_flip_smallest_p is not None else ()
        )
        rows.append((
            Cell(cast.full(v.model), (f"against {cast.full(v.baseline)}",), v.decision),
            Cell(fmt.metric_name(v.metric), (f"{v.better} is better",)),
            Cell(fmt.value(v.metric, v.model_mean), (f"against {fmt.value(v.metric, v.baseline_mean)}",)),
            Cell(fmt.difference(v.metric, v.difference), (fmt.interval(v.metric, v.interval),)),
            Cell(fmt.difference(v.metric, v.margin).lstrip("+"), ("not worse by more",) if v.not_worse else ()),
            Cell(fmt.count(len(v.seeds)), (f"{fmt.count(v.examples)} examples",) if v.examples else ()),
            Cell(method[v.method] if v.method else "too few seeds", (f"look {v.look}",) if v.look > 1 else ()),
            Cell(p, least),
        ))  # fmt: skip
    columns = ("Comparison", "Metric", "Means", "Difference", "Margin", "Seeds", "Varies", "Sign-flip p")
    return Table("The numbers behind the verdicts", columns, tuple(rows), frozenset({0, 1, 6}))


def pairs(cast: Cast, verdict: Verdict, seeds: Sequence[Pair]) -> Table:
    """Each seed's baseline, model and difference."""
    rows = [
        cells(
            str(p.seed),
            fmt.value(verdict.metric, p.baseline),
            fmt.value(verdict.metric, p.model),
            fmt.difference(verdict.metric, p.model - p.baseline, bare=True),
        )
        for p in seeds
    ]
    who_is_who = f"{cast.full(verdict.model)} (model), {cast.full(verdict.baseline)} (baseline)"
    caption = f"{fmt.metric_name(verdict.metric)}: {who_is_who}"
    return Table(caption, ("Seed", "Baseline", "Model", "Difference"), tuple(rows))


def trend(metric: str, across: str, mine: Sequence[Point], *, others: Sequence[Point], title: str) -> Table:
    """A model and its baseline at every place of a sweep, or at every generation."""
    beside = {point.x: point for point in others}
    rows = []
    for point in mine:
        other = beside.get(point.x)
        row = [Cell(fmt.place(point.x)), Cell(fmt.value(metric, point.mean), (fmt.spread(metric, point.std),))]
        row += [Cell(fmt.value(metric, other.mean if other else None))] if others else []
        rows.append(tuple(row))
    columns = (across, fmt.metric_name(metric), *(("baseline",) if others else ()))
    return Table(title, columns, tuple(rows))


def curve(metric: str, lines: Sequence[Line], name: str) -> Table:
    """A learning curve at a few of its steps; where seeds have stopped it tells how many are left."""
    most = max((int(line.band.seeds.max()) for line in lines), default=0)
    steps = sorted({float(x) for line in lines for x in line.band.steps})
    if len(steps) > SAMPLED:
        steps = [steps[round(at * (len(steps) - 1) / (SAMPLED - 1))] for at in range(SAMPLED)]
    rows = []
    for step in steps:
        row = [Cell(fmt.count(step))]
        for line in lines:
            at = [place for place, x in enumerate(line.band.steps) if x == step]
            if not at:
                row.append(Cell(fmt.MISSING))
                continue
            low, high = float(line.band.low[at[0]]), float(line.band.high[at[0]])
            n = int(line.band.seeds[at[0]])
            ends = f"{fmt.value(metric, low, bare=True)} to {fmt.value(metric, high, bare=True)}"
            left = "" if n == most else f", {fmt.plural(n, 'seed')}"
            row.append(Cell(fmt.value(metric, float(line.band.mean[at[0]])), (f"{ends}{left}",)))
        rows.append(tuple(row))
    caption = f"{fmt.metric_name(metric)} of {name}: mean, least and greatest over seeds"
    return Table(caption, ("Step", *(line.label for line in lines)), tuple(rows))


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], name: str) -> Table:
    """A confusion matrix over all seeds; for many classes the greatest confusions."""
    labels = [classes[at] if at < len(classes) else str(at) for at in range(len(counts))]
    if len(counts) > MANY_CLASSES:
        return _confused(counts, labels, name)
    rows = []
    for true, row in enumerate(counts):
        total = sum(row) or 1
        cells = [Cell(labels[true])]
        for guess, n in enumerate(row):
            level = min(9, round(9 * n / total)) if guess == true else min(9, -(-27 * n // total))
            cells.append(Cell(fmt.count(n), kind=f"{'hit' if guess == true else 'miss'} h{level}"))
        rows.append(tuple(cells))
    caption = f"Confusion matrix of {name}: rows are true classes, columns predicted ones; test examples of all seeds"
    return Table(caption, ("true \\ predicted", *labels[: len(counts[0]) if counts else 0]), tuple(rows), kind="matrix")


def _confused(counts: Sequence[Sequence[int]], labels: Sequence[str], name: str) -> Table:
    found = [(n, true, guess) for true, row in enumerate(counts) for guess, n in enumerate(row) if guess != true and n]
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    rows = [
        cells(labels[true], labels[guess], fmt.count(n), f"{100 * n / max(1, sum(counts[true])):.1f} %")
        for n, true, guess in found[:MANY_CLASSES]
    ]
    right = sum(row[at] for at, row in enumerate(counts) if at < len(row))
    caption = (
        f"Most frequent confusions of {name} ({len(counts)} classes; {fmt.count(right)} of "
        f"{fmt.count(sum(map(sum, counts)))} test predictions right, all seeds together)"
    )
    return Table(caption, ("True class", "Predicted", "Examples", "Of the class"), tuple(rows), frozenset({0, 1}))


def reliability(one: Reliability, name: str) -> Table:
    """Bins of confidence with their accuracy."""
    ends = [*one.low[1:], 1.0]
    rows = []
    for low, high, n, confidence, accuracy in zip(one.low, ends, one.count, one.confidence, one.accuracy, strict=False):
        shown = [fmt.MISSING if x is None else f"{100 * x:.1f} %" for x in (confidence, accuracy)]
        rows.append(cells(f"{100 * low:.0f} to {100 * high:.0f} %", fmt.count(n), *shown))
    return Table(f"Calibration of {name}", ("Confidence", "Examples", "Mean confidence", "Accuracy"), tuple(rows))
