"""The page itself: everything a run found, in one HTML file without scripts and without the network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from potstill.report import (
    bars,
    classes,
    conditions,
    costs,
    epochs,
    errors,
    gain,
    generations,
    html,
    inferred,
    inherited,
    pareto,
    published,
    related,
    scatter,
    sections,
    speed,
    spread,
    svg,
    tables,
    telling,
    theme,
    tree,
    tuning,
)
from potstill.report import format as fmt
from potstill.report.figures import GLYPH
from potstill.report.inputs import load
from potstill.report.names import Cast
from potstill.storage import write_text
from potstill.study.plotted import Figures
from potstill.study.results import Results

SHOWN: Final = 12  # pictures of a gallery that are not folded away


def write(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, from its results.json and figures.json; returns its path.

    Raises `RunError` where the folder holds no finished run, `StorageError` where a file is damaged or the page
    cannot be written.
    """
    results, arrays = load(Path(folder))
    path = Path(folder) / "report.html"
    write_text(path, render(results, arrays))
    return path


def render(results: Results, arrays: Figures | None = None, wanted: svg.Wanted | None = None) -> str:
    """The page as HTML text. The same results give the same text. `wanted`: which figures are drawn, by name; all."""
    with theme.drawing(), svg.only(wanted):
        content = _content(results, arrays)
    return html.render("page.html", shown=SHOWN, **content)


@dataclass(frozen=True)
class Fact:
    """A word and what it says; `inner` are the facts of a table within a table."""

    name: str
    text: str
    inner: tuple[Fact, ...] = ()


def _facts(values: dict[str, Any]) -> tuple[Fact, ...]:
    return tuple(
        Fact(name.replace("_", " "), "", _facts(value)) if isinstance(value, dict) and value
        else Fact(name.replace("_", " "), fmt.anything(value))
        for name, value in values.items()
    )  # fmt: skip


def _content(results: Results, arrays: Figures | None) -> dict[str, Any]:
    cast = Cast(results)
    ids = sections.Ids()
    nodes = tree.family(cast)
    counts = Counter(verdict.decision for verdict in results.verdicts)
    return {
        "results": results,
        "story": [part.strip() for part in (results.story or "").split("\n\n") if part.strip()],
        "summary": [(decision, counts[decision]) for decision in GLYPH if counts[decision]],
        "verdicts": sections.said(cast),
        "forests": sections.forests(cast, ids),
        "verdict_numbers": tables.verdicts(cast) if results.verdicts else None,
        "notices": sections.notices(cast, arrays),
        "models": tables.models(cast),
        "published": published.table(cast),
        "metrics": tables.metrics(cast),
        "tests": tables.tests(cast),
        "tuning": tuning.section(cast, ids),
        "bars": bars.whole(cast, ids),
        "bars_at": bars.at_points(cast, ids),
        "gains": gain.pictures(cast, ids),
        "tree": tree.draw(nodes, ids.new("family")),
        "outline": tree.outline(nodes),
        "deep": max((node.depth for node in nodes), default=0) > 1,
        "pairs": sections.pairs(cast, ids),
        "trends": sections.trends(cast, ids),
        "areas": inferred.areas(cast, arrays, ids) if arrays else [],
        "removed": inferred.removed(cast, arrays, ids) if arrays else [],
        "along": inferred.lines(cast, arrays, ids) if arrays else [],
        "calibrations": inferred.calibrations(cast, arrays, ids) if arrays else [],
        "epochs": epochs.table(cast),
        "curves": sections.learning(cast, arrays, ids) if arrays else [],
        "confusions": sections.confusions(cast, arrays) if arrays else [],
        "by_class": classes.table(cast, arrays) if arrays else None,
        "texts": telling.tables(cast, arrays) if arrays else [],
        "turned": telling.turned(cast, arrays) if arrays else None,
        "turning": telling.turning(cast, arrays) if arrays else [],
        "calibration": sections.calibration(cast, arrays, ids) if arrays else [],
        "errors": errors.tables(cast),
        "errors_elsewhere": errors.others(cast),
        "points": scatter.pictures(cast, arrays, ids) if arrays else [],
        "coverage": errors.coverage(cast),
        "intervals": scatter.intervals(cast, arrays, ids) if arrays else [],
        "telling": errors.telling(cast, arrays),
        "shared_errors": errors.shared(cast),
        "splits": spread.splits(cast),
        "classes": spread.classes(cast),
        "related": related.table(cast),
        "conditions": conditions.tables(cast),
        "inherited": inherited.students(cast),
        "inherited_classes": inherited.classes(cast),
        "generations": generations.pictures(cast, arrays, ids),
        "frequencies": spread.pictures(cast, arrays, ids) if arrays else [],
        "counted": spread.axis(arrays) if arrays else "",
        "fronts": pareto.pictures(cast, ids),
        "costs": costs.costs(cast),
        "speed": speed.table(cast),
        "speed_turns": speed.turns(cast),
        "ship": costs.ship(cast),
        "reads": _reads(results),
        "environment": _facts(results.environment),
        "data": _facts(results.data | ({"inputs": cast.inputs} if cast.inputs else {})),
        "redrawn": bool((results.data.get("plan") or {}).get("redraw")),
        "metric": fmt.metric_name(results.metric),
        "judged_on": cast.judged_on,
        "margin": fmt.difference(results.metric, results.margin).lstrip("+"),
    }


def _reads(results: Results) -> tuple[str, str]:
    """How often the test set was read, and what that means."""
    reads, plans = results.test_reads.count, results.test_reads.plans
    found = f"The test set was read {fmt.plural(reads, 'time')}, by {fmt.plural(plans, 'plan')}."
    if len(results.test_reads.sets) > 1:
        each = ", ".join(f"{name} {fmt.plural(n, 'time')}" for name, n in results.test_reads.sets.items())
        found = f"Test sets were read {fmt.plural(reads, 'time')}, by {fmt.plural(plans, 'plan')}: {each}."
    if reads == 0:
        return found, "No model has been evaluated on it yet."
    if reads == 1 and results.test_reads.looks <= 1:
        return found, (
            "No model, setting or seed was chosen after looking at it; if the metric and the margin were not either, "
            "the intervals above mean what they say."
        )
    return found, (
        "Whoever changes seeds or settings after looking at test results makes the next intervals too optimistic: "
        "the more reads, the more a close verdict should be checked on fresh data."
    )
