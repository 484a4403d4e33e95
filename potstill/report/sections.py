"""What the page shows besides tables: verdicts in words, galleries of figures, notices."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup

from potstill.report import curves, figures, tables
from potstill.report import format as fmt
from potstill.report.figures import Pair, Point
from potstill.report.names import Cast
from potstill.report.tables import Table
from potstill.study.plotted import Curve, Figures
from potstill.study.results import Decision, Verdict

PANELS: Final = 2  # learning curves of a model that are not folded away
LONGEST: Final = 100  # characters of a figure's name


class Ids:
    """Prefixes that are unique on the page, whatever the case of letters; a figure's file is named by its prefix."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, *words: str) -> str:
        """A prefix that tells what is drawn: "forest-error_rate"; with a number behind where it is taken."""
        told = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(words)).strip("-.") or "figure"
        if len(told) > LONGEST:
            told = f"{told[: LONGEST // 2]}-{told[-LONGEST // 2 :]}"
        numbered = (told if at == 1 else f"{told}-{at}" for at in itertools.count(1))
        found = next(name for name in numbered if name.casefold() not in self._taken)
        self._taken.add(found.casefold())
        return found


@dataclass(frozen=True)
class Said:
    """A verdict in words."""

    heading: str
    decision: Decision
    badge: str
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Drawings with one heading, and the numbers behind them; `more` drawings are folded away with the numbers."""

    heading: str
    drawings: tuple[Markup, ...]
    numbers: tuple[Table, ...]
    note: str = ""
    more: tuple[Markup, ...] = ()


@dataclass(frozen=True)
class Forest:
    """The forest of one metric, drawn for wide and for narrow pages."""

    wide: Markup
    narrow: Markup
    comparisons: int
    level: str


@dataclass
class Notices:
    """What must not be overlooked: failures by model, and notes."""

    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def said(cast: Cast) -> list[Said]:
    """Every verdict. What the sentence already says is not said twice."""
    found = []
    for v in cast.results.verdicts:
        badge = v.decision + (" by more than the margin" if v.decision == "better" and v.beyond_margin else "")
        extra = {
            "": [v.would_decide] if v.would_decide else [],
            "Failed: ": v.failed,
            "Differs besides the method in: ": v.differs_in,
            "Cost: ": [v.cost] if v.cost else [],
        }
        notes = []
        for head, texts in extra.items():
            unsaid = [text for text in texts if text not in v.sentence]
            if unsaid:
                notes.append(head + ", ".join(unsaid))
        heading = cast.versus(v.model, v.baseline)
        found.append(Said(heading, v.decision, badge, v.sentence, tuple(notes)))
    return found


def forests(cast: Cast, ids: Ids) -> list[Forest]:
    """One forest per metric, direction and margin."""
    groups: dict[tuple[str, str, float], list[Verdict]] = defaultdict(list)
    for v in cast.results.verdicts:
        groups[v.metric, v.better, v.margin].append(v)
    found = []
    for group in groups.values():
        rows = [
            figures.Row(cast.bare(v.model), cast.bare(v.baseline), v, cast.where(cast.point(v.model, v.baseline)))
            for v in group
        ]
        wide = figures.forest(rows, ids.new("forest", group[0].metric), wide=True)
        narrow = figures.forest(rows, ids.new("forest", group[0].metric, "narrow"), wide=False)
        found.append(Forest(wide, narrow, max(v.comparisons for v in group), f"{100 * group[0].level:g} %"))
    return found


def notices(cast: Cast, arrays: Figures | None) -> Notices:
    """Failures with their seeds and reasons, notes of models, published numbers that found no place."""
    found = Notices()
    for key in cast.order:
        one = cast.results.models[key]
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for failure in one.failures:
            groups[failure.state, failure.reason].append(failure.seed)
        for (state, reason), seeds in groups.items():
            numbers = ", ".join(map(str, seeds))
            found.failures.append(
                (cast.full(key), f"{'seed' if len(seeds) == 1 else 'seeds'} {numbers} {state}", reason)
            )
        found.notes += [(cast.full(key), note) for note in one.notes]
    found.notes += [("Published, but no number of ours to stand beside", text) for text in cast.published_elsewhere()]
    if arrays is None:
        found.notes.append(("Figures", "figures.json is missing, so curves, confusion and calibration are not drawn."))
    return found


def seed_pairs(cast: Cast, verdict: Verdict) -> list[Pair]:
    """Each seed's values. The verdict's differences lead; a shared teacher's one value stands for every seed."""
    known = [_by_seed(cast, name, verdict) for name in (verdict.baseline, verdict.model)]
    found = []
    for seed, gap in zip(verdict.seeds, verdict.differences, strict=False):
        low, high = (values.get(seed) for values in known)
        if high is None and low is None:
            low = 0.0
        if high is None:
            high = (low or 0.0) + gap
        found.append(Pair(seed, high - gap if low is None else low, high))
    return found


def _by_seed(cast: Cast, key: str, verdict: Verdict) -> dict[int, float]:
    one = cast.results.models.get(key)
    values = one.metrics.get(verdict.metric) if one else None
    if one is None or values is None:
        return {}
    if one.shared and len(values.values) == 1:
        return dict.fromkeys(verdict.seeds, values.values[0])
    return dict(zip(one.seeds, values.values, strict=False))


def pairs(cast: Cast, ids: Ids) -> list[Picture]:
    """Each verdict seed by seed."""
    found = []
    for v in cast.results.verdicts:
        seeds = seed_pairs(cast, v)
        if seeds:
            heading = cast.versus(v.model, v.baseline)
            drawn = figures.pairs(v, heading, seeds, prefix=ids.new("seeds", v.model, "against", v.baseline))
            note = figures.counted(v, seeds) if len(seeds) > figures.MANY else ""
            found.append(Picture(heading, (drawn,), (tables.pairs(cast, v, seeds),), note))
    return found


def learning(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """The learning curves of every model: the compared metric first, with the baseline's beside it."""
    found = []
    for key in cast.order:
        curve = arrays.curves.get(key)
        if curve is None:
            continue
        base = cast.baseline(key)
        drawings, numbers = [], []
        for quantity in _quantities(curve, cast.results.metric):
            lines = _lines(curve, quantity)
            other = curves.band(arrays.curves[base], f"validation_{quantity}") if base in arrays.curves else None
            if lines and other is not None and quantity != "objective":
                lines.append(curves.Line(cast.name(base or ""), "baseline", other))
            if lines:
                title = f"{fmt.metric_name(quantity)} of {cast.full(key)} while training"
                drawings.append(curves.panel(quantity, lines, title, prefix=ids.new("curves", key, quantity)))
                numbers.append(tables.curve(quantity, lines, cast.full(key)))
        if drawings:
            first, rest = tuple(drawings[:PANELS]), tuple(drawings[PANELS:])
            found.append(Picture(cast.full(key), first, tuple(numbers), more=rest))
    return found


def _quantities(curve: Curve, metric: str) -> list[str]:
    names = dict.fromkeys(name.removeprefix("train_").removeprefix("validation_") for name in curve.series)
    return sorted(names, key=lambda name: (name != metric, name != "objective", name))


def _lines(curve: Curve, quantity: str) -> list[curves.Line]:
    series = {"train": f"train_{quantity}", "validation": f"validation_{quantity}", "": quantity}
    bands = {role: curves.band(curve, name) for role, name in series.items()}
    return [curves.Line(role or quantity, role or "validation", one) for role, one in bands.items() if one is not None]


def calibration(cast: Cast, arrays: Figures, ids: Ids) -> list[Picture]:
    """A reliability diagram per model."""
    return [
        Picture(
            cast.full(key),
            (curves.reliability(one, f"Reliability diagram of {cast.full(key)}", prefix=ids.new("calibration", key)),),
            (tables.reliability(one, cast.full(key)),),
        )
        for key, one in ((key, arrays.reliability.get(key)) for key in cast.order)
        if one is not None and one.low
    ]


@dataclass(frozen=True)
class Confused:
    """A model's confusion matrix, and whether it is unfolded."""

    name: str
    table: Table
    open: bool


def confusions(cast: Cast, arrays: Figures) -> list[Confused]:
    """Every model's confusion matrix: open for the baseline and the model with the greatest gain over it."""
    known = [key for key in cast.order if arrays.confusion.get(key)]
    gains = {
        v.model: (v.difference or 0.0) * (1 if v.better == "higher" else -1)
        for v in cast.results.verdicts
        if v.model in known and v.baseline == cast.baseline(v.model)
    }
    best = max(gains, key=lambda key: gains[key], default=known[0] if known else "")
    shown = {best, cast.baseline(best) if known else None}
    return [
        Confused(cast.full(key), tables.confusion(arrays.confusion[key], arrays.classes, cast.full(key)), key in shown)
        for key in known
    ]


def trends(cast: Cast, ids: Ids) -> list[Picture]:
    """The compared metric across every numeric swept setting and across generations."""
    found = []
    metric = cast.results.metric
    for across, heading, keys, places in _runs(cast):
        mine = [_place(cast, key, x) for key, x in zip(keys, places, strict=True)]
        bases = [cast.baseline(key) or "" for key in keys]
        others = [_place(cast, base, x) for base, x in zip(bases, places, strict=True)]
        points = [p for p in mine if p is not None]
        if len(points) > 1 and (any(bases) or cast.results.baseline is None):
            title = f"{fmt.metric_name(metric)} of {heading} across {across}"
            beside = [p for p in others if p is not None]
            prefix = ids.new("trend", heading, "across", across)
            drawn = figures.trend(metric, across, points, others=beside, title=title, prefix=prefix)
            note = "The dashed line is the baseline." if beside else ""
            found.append(
                Picture(heading, (drawn,), (tables.trend(metric, across, points, others=beside, title=title),), note)
            )
    return found


def _place(cast: Cast, key: str, x: float) -> Point | None:
    one = cast.results.models[key].metrics.get(cast.results.metric) if key in cast.results.models else None
    return Point(x, one.mean, one.std or 0.0) if one else None


def _runs(cast: Cast) -> Iterator[tuple[str, str, list[str], list[float]]]:
    """(setting, model, keys, places) of every chain of models that differ in one number only."""
    models = cast.results.models
    chains: dict[tuple[str, str, str], list[tuple[float, str]]] = defaultdict(list)
    for key in cast.order:
        one = models[key]
        settings: dict[str, Any] = {**one.point, "generation": one.generation}
        for name, x in settings.items():
            if fmt.is_number(x):
                kept = {k: v for k, v in settings.items() if k != name and (k != "generation" or one.generations > 1)}
                chains[name, one.model, fmt.anything(kept) if kept else ""].append((x, key))
    for (across, model, rest), chain in chains.items():
        if len({x for x, _ in chain}) > 1:
            places = sorted(chain)
            heading = f"{model} ({rest})" if rest else model
            yield across, heading, [key for _, key in places], [float(x) for x, _ in places]
