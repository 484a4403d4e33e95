"""The most telling errors as text: a table for each model whose test examples are texts, and one for each verdict."""

from __future__ import annotations

from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table
from potstill.study.plotted import Figures, TellingText, Turning, TurningText

LONGEST: Final = 400  # characters of a text that are shown


def tables(cast: Cast, arrays: Figures) -> list[Table]:
    """In the order of the models; empty where no model has any."""
    columns = ("Text", "Is", "Predicted", "Confidence", "Wrong with")
    return [
        Table(
            f"{cast.full(key)}: surest errors on test data",
            columns,
            tuple(map(_row, found)),
            frozenset({0, 1, 2}),
            "texts",
        )
        for key in cast.order
        if (found := arrays.texts.get(key))
    ]


def turned(cast: Cast, arrays: Figures) -> Table | None:
    """For each comparison, how many test examples one of the models alone answers rightly; None without texts."""
    columns = ("Model", "Against", "Right with the model alone", "With the other alone", "With neither", "Seeds")
    rows = [
        (
            Cell(cast.full(one.model)),
            Cell(cast.full(one.other)),
            *(Cell(f"{count:,.1f}".removesuffix(".0")) for count in (one.gained, one.lost, one.neither)),
            Cell(str(one.seeds)),
        )
        for one in arrays.turning
    ]
    return Table("Test examples, means over seeds", columns, tuple(rows), frozenset({0, 1})) if rows else None


def turning(cast: Cast, arrays: Figures) -> list[Table]:
    """For each comparison of models whose test examples are texts: what one of them alone answers rightly."""
    return [_turning(cast, one) for one in arrays.turning if one.better or one.worse]


def _turning(cast: Cast, one: Turning) -> Table:
    model, other = cast.full(one.model), cast.full(one.other)
    columns = ("Text", "Is", "Right with", model, other)
    rows = [
        (_shown(text.text), Cell(text.label), Cell(winner), *_sides(text, one.seeds))
        for winner, texts in ((model, one.better), (other, one.worse))
        for text in texts
    ]
    return Table(f"{model} against {other}", columns, tuple(rows), frozenset({0, 1, 2}), "texts")


def _sides(text: TurningText, seeds: int) -> tuple[Cell, ...]:
    """Of either model: how often it is right, and the mean probability of the label."""
    return tuple(
        Cell(f"{right} of {seeds}", (f"{fmt.value('accuracy', true)} for {fmt.shorten(text.label, 20)}",))
        for right, true in zip(text.right, text.true, strict=True)
    )


def _shown(text: str) -> Cell:
    return Cell((text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…") or "(empty)")


def _row(one: TellingText) -> tuple[Cell, ...]:
    confidence = fmt.value("accuracy", one.confidence)
    return (
        _shown(one.text),
        Cell(one.label),
        Cell(one.predicted),
        Cell(confidence),
        Cell(f"{one.wrong} of {fmt.plural(one.seeds, 'seed')}"),
    )
