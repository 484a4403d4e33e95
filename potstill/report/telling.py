"""The most telling errors as text: a table for each model whose test examples are texts."""

from __future__ import annotations

from typing import Final

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table
from potstill.study.plotted import Figures, TellingText

LONGEST: Final = 400  # characters of a text that are shown


def tables(cast: Cast, arrays: Figures) -> list[Table]:
    """In the order of the models; empty where no model has any."""
    columns = ("Text", "Is", "Predicted", "Confidence", "Wrong with")
    return [
        Table(f"{cast.full(key)}: surest errors on test data", columns, tuple(map(_row, found)), frozenset({0, 1, 2}))
        for key in cast.order
        if (found := arrays.texts.get(key))
    ]


def _row(one: TellingText) -> tuple[Cell, ...]:
    text = one.text if len(one.text) <= LONGEST else one.text[: LONGEST - 1] + "…"
    confidence = fmt.value("accuracy", one.confidence)
    return (
        Cell(text or "(empty)"),
        Cell(one.label),
        Cell(one.predicted),
        Cell(confidence),
        Cell(f"{one.wrong} of {fmt.plural(one.seeds, 'seed')}"),
    )
