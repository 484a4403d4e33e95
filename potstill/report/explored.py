"""The page about a data set: `write(exploration, path)`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from potstill.explore.found import Column, Exploration, Pair, Values
from potstill.report import explored_figures as figures
from potstill.report import explored_texts, html, raster, theme
from potstill.report import format as fmt
from potstill.report.sections import Ids
from potstill.report.tables import Cell, Table, cells
from potstill.storage import write_text

_MOST: Final = 60  # columns of a table that are not folded away


@dataclass(frozen=True)
class Strip:
    """Pictures side by side: what they show, the image, its height on the page and its width in pixels."""

    label: str
    image: str
    width: int
    height: int


def write(found: Exploration, path: Path) -> Path:
    """Write the page; returns its path. Raises `StorageError` where that cannot be."""
    write_text(path, render(found))
    return path


def render(found: Exploration) -> str:
    """The page as HTML text. The same exploration gives the same text."""
    with theme.drawing():
        content = _content(found)
    return html.render("explored.html", pictures=bool(found.pictures), **content)


def _content(found: Exploration) -> dict[str, Any]:
    ids, regression = Ids(), found.task == "regression"
    labelled = {name: split.per_group for name, split in found.splits.items() if split.labelled}
    values, projection = found.values, found.projection
    return {
        "found": found,
        "version": metadata.version("potstill"),
        "title": f"Data: {found.name}",
        "lead": _lead(found),
        "looked": bool(set(found.splits) - {"train", "validation"}),
        "splits": _splits(found),
        "counts": figures.counts(found.groups, labelled, prefix=ids.new("counts")) if labelled else None,
        "counted": fmt.plural(len(found.groups), "class", "classes") if not regression else "quarters",
        "labels": _labels(found) if regression else None,
        "histogram": None
        if values is None
        else figures.histogram(values.edges, values.counts, prefix=ids.new("values")),
        "numbers": None if values is None else _values(found, values),
        "columns": _columns(found, ids) if found.columns else None,
        "means": _means(found),
        "examples": _examples(found),
        "atypical": _atypical(found),
        "nearest": _pairs("Nearest", found.nearest, found.within) if found.nearest else None,
        "farthest": _pairs("Farthest", found.farthest, found.within) if found.farthest else None,
        "twins": _twins(found),
        "projection": projection
        and figures.scatter(projection.points, found.groups, projection.shares, prefix=ids.new("components")),
        "texts": explored_texts.section(found, ids),
        "shares": projection and ", ".join(f"{100 * share:.1f} %" for share in projection.shares[:8]),
        "unit": "standard deviations" if found.form != "pictures" else "the unit of the pictures",
    }


def _lead(found: Exploration) -> str:
    shape = " x ".join(map(str, found.shape))
    kind = {
        "pictures": f"pictures of {shape}",
        "rows": f"rows of {shape} numbers",
        "table": "rows of a table",
        "texts": "texts",
    }
    examples = sum(split.examples for split in found.splits.values())
    named = fmt.plural(len(found.groups), "class", "classes")
    what = named if found.task != "regression" else fmt.plural(len(found.targets), "target")
    return f"{fmt.plural(examples, 'example')}: {kind[found.form]}, {what}"


def _splits(found: Exploration) -> Table:
    rows = [
        cells(name, fmt.count(one.examples), fmt.count(one.labelled), fmt.count(one.different))
        for name, one in found.splits.items()
    ]
    return Table("Splits", ("Split", "Examples", "With a label", "Different examples"), tuple(rows))


def _labels(found: Exploration) -> Table:
    keys = ("mean", "std", "least", "greatest")
    rows = [cells(name, *(fmt.number(one[key]) for key in keys)) for name, one in found.labels.items()]
    return Table(
        "Targets of the labelled training examples",
        ("Target", "Mean", "Standard deviation", "Least", "Greatest"),
        tuple(rows),
    )


def _values(found: Exploration, one: Values) -> Table:
    rows = [
        cells("least, greatest", f"{fmt.number(one.least)}, {fmt.number(one.greatest)}"),
        cells("mean ± standard deviation", f"{fmt.number(one.mean)} ± {fmt.number(one.std)}"),
        cells("exactly zero", f"{100 * one.zeros:.1f} %"),
        cells("places that never change in training", fmt.count(one.constant)),
        cells("examples that hold one number alone", fmt.count(one.blank)),
    ]
    for number, (mean, std) in enumerate(one.channels, 1):
        if len(one.channels) > 1:
            rows.append(cells(f"channel {number}", f"{fmt.number(mean)} ± {fmt.number(std)}"))
    scale, offset = (found.preprocessing.get(key, default) for key, default in (("scale", 1.0), ("offset", 0.0)))
    rows.append(cells("a network is given", f"value × {scale:.6g}" + (f" + {offset:.6g}" if offset else "")))
    return Table("All numbers, as they are stored", ("", "Value"), tuple(rows), frozenset({0, 1}))


def _columns(found: Exploration, ids: Ids) -> Table:
    several = len(found.splits) > 1 and any(any(one.missing.values()) for one in found.columns)
    head = ["Column", "Shape", "Range or most frequent", "Mean ± std", "Different", "Missing", "Tells of the label"]
    rows = [_column(one, ids, several=several) for one in found.columns]
    return Table("Columns, over the training examples", tuple(head), tuple(rows), frozenset({0, 1, 2}))


def _column(one: Column, ids: Ids, *, several: bool) -> tuple[Cell, ...]:
    numbers = one.numbers
    drawn = figures.small_histogram(one.histogram, one.name, prefix=ids.new("column")) if one.histogram else ""
    if one.kind == "number":
        span = f"{fmt.number(numbers['least'])} to {fmt.number(numbers['greatest'])}"
        notes: tuple[str, ...] = (f"median {fmt.number(numbers['median'])}",)
        mean = f"{fmt.number(numbers['mean'])} ± {fmt.number(numbers['std'])}"
    else:
        span = ", ".join(f"{fmt.shorten(word, 24)} ({fmt.count(count)})" for word, count in one.words)
        notes, mean = (), fmt.MISSING
    missing = one.missing.get("train", 0)
    others = tuple(f"{name}: {fmt.count(count)}" for name, count in one.missing.items() if name != "train")
    return (
        Cell(fmt.shorten(one.name, 40)),
        Cell(drawn or "words"),
        Cell(span, notes),
        Cell(mean),
        Cell(fmt.count(one.different), kind="bad" if one.different <= 1 else ""),
        Cell(fmt.count(missing), others if several else (), kind="bad" if missing else ""),
        Cell(fmt.MISSING if one.told is None else f"{100 * one.told:.1f} %"),
    )


def _span(found: Exploration) -> tuple[float, float]:
    values = found.values
    return (values.least, values.greatest) if values is not None else (0.0, 1.0)


def _strip(label: str, pictures: Any, span: tuple[float, float]) -> Strip:
    number, _, height, width = pictures.shape
    times = raster.scale(height)
    return Strip(
        label, raster.strip(pictures, span), times * (number * (width + raster.GAP) - raster.GAP), times * height
    )


def _means(found: Exploration) -> list[Strip]:
    if "means" not in found.pictures:
        return []
    return [
        _strip(name, found.pictures["means"][i : i + 1], _span(found))
        for i, name in enumerate(found.groups[: len(found.pictures["means"])])
    ]


def _examples(found: Exploration) -> list[Strip]:
    if "examples" not in found.pictures:
        return []
    counts = found.splits["train"].per_group
    rows = found.pictures["examples"]
    return [
        _strip(name, rows[i][: counts[i]], _span(found))
        for i, name in enumerate(found.groups[: len(rows)])
        if counts[i]
    ]


def _atypical(found: Exploration) -> Strip | None:
    if not len(found.pictures.get("atypical", ())):
        return None
    told = ", ".join(f"{name} (row {place:,})" for place, name, _ in found.atypical)
    return _strip(told, found.pictures["atypical"], _span(found))


def _pairs(what: str, pairs: tuple[Pair, ...], within: float | None) -> Table:
    rows = [
        cells(
            f"{pair.first} and {pair.second}",
            fmt.number(pair.distance),
            fmt.MISSING if not within else f"{pair.distance / within:.2f}",
        )
        for pair in pairs
    ]
    return Table(f"{what} means", ("Groups", "Distance of the means", "Of the spread within"), tuple(rows))


def _twins(found: Exploration) -> list[Table]:
    told = []
    alike = () if found.texts is None else found.texts.twins
    for number, one in enumerate((*found.twins, *alike)):
        what = (
            "Equal examples" if number < len(found.twins) else "Equal but for case, mentions, links, blanks and signs"
        )
        rows = [tuple(_place(found, split, row) for split, row in pair) for pair in one.shown]
        caption = f"{what} in {' and '.join(one.splits)}: {one.extra:,}"
        told.append(
            Table(caption, ("One", "The other"), tuple(rows), frozenset({0, 1}), "texts" if found.texts else "")
        )
    for near in found.near:
        rows = [
            cells(f"{a[0]}, row {a[1]:,}", f"{b[0]}, row {b[1]:,}", f"{100 * gap / near.typical:.1f} %")
            for a, b, gap in near.shown
        ]
        caption = f"Nearly equal examples in {' and '.join(near.splits)}: {near.count:,}"
        columns = ("One", "The other", "Of the usual distance")
        told.append(Table(caption, columns, tuple(rows), frozenset({0, 1})))
    return told


def _place(found: Exploration, split: str, row: int) -> Cell:
    """Where an example is; of a text what it says, too."""
    where = f"{split}, row {row:,}"
    text = None if found.texts is None else found.texts.shown.get(f"{split} {row}")
    return Cell(where) if text is None else Cell(explored_texts.shown(text), (where,))
