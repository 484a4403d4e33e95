"""Tables of a study page, as Markdown: splits, generations, test conditions, inheritance, speed where there are any."""

from __future__ import annotations

import re

import numpy as np

from potstill.report import classes as by_class
from potstill.report import conditions, epochs, errors, generations, inherited, related, speed, spread, tables
from potstill.report import format as fmt
from potstill.report.figures import GLYPH
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, cells, who
from potstill.study.plotted import Figures

MOST = 40  # rows of a table that a page shows
FEW = 4  # classes that are told apart
SEVERAL = 20  # seeds that are named one by one
ALIKE = 6  # models whose frequencies stand side by side


def parts(cast: Cast, arrays: Figures | None) -> list[tuple[str, list[Table]]]:
    """Headings and their tables, of what the results tell."""
    chains = generations.chains(cast)
    few = all(len(split.classes) <= FEW for one in cast.results.models.values() for split in one.splits.values())
    found: dict[str, list[Table | None]] = {
        "Uncertainty and accuracy on every split": [
            None if chains else spread.splits(cast),
            *(generations.table(cast, chain) for chain in chains),
            spread.classes(cast) if few else None,
            related.table(cast),
        ],
        "Prediction frequencies": [frequencies(cast, arrays) if arrays else None],
        "F1 by class": [by_class.table(cast, arrays), _best_confusion(cast, arrays)] if arrays else [],
        "Errors": [*errors.tables(cast)],
        "Intervals": [*errors.coverage(cast)],
        "Test conditions": [*conditions.tables(cast)],
        "What students have of their teachers": [
            inherited.students(cast),
            inherited.classes(cast) if few else None,
            errors.shared(cast),
        ],
        "Epochs of the best weights": [epochs.table(cast)],
        "Speed": [speed.table(cast)],
    }
    kept = {head: [one for one in made if one and len(one.rows) <= MOST] for head, made in found.items()}
    return [(head, made) for head, made in kept.items() if made]


def _best_confusion(cast: Cast, arrays: Figures) -> Table | None:
    """The confusion matrix of the model with the highest macro F1; None where matrices are not kept."""
    key = max(arrays.confusion, key=lambda one: cast.results.models[one].metrics["macro_f1"].mean, default=None)
    return None if key is None else tables.confusion(arrays.confusion[key], arrays.classes, cast.full(key))


def seeds(found: list[int]) -> str:
    """Every seed; of many in a row the first and the last.

    >>> seeds([0, 1, 5]), seeds(list(range(40)))
    ('0, 1, 5', '0 to 39')
    """
    row = len(found) > SEVERAL and found == list(range(found[0], found[0] + len(found)))
    return f"{found[0]} to {found[-1]}" if row else fmt.anything(found)


def frequencies(cast: Cast, arrays: Figures) -> Table | None:
    """Mean shares of every bin on test examples, a column for each model; None where there are too many."""
    keys = [key for key in cast.order if "test" in arrays.frequencies.get(key, {})]
    if not keys or len(keys) > ALIKE:
        return None
    low = arrays.frequencies[keys[0]]["test"].low
    shares = []
    for key in keys:
        counts = np.asarray(arrays.frequencies[key]["test"].counts, np.float64)
        shares.append((counts / counts.sum(axis=1, keepdims=True)).mean(axis=0))
    rows = [
        (*cells(f"{start:.2f} to {end:.2f}"), *(Cell(f"{100 * share[at]:.2f} %") for share in shares))
        for at, (start, end) in enumerate(zip(low, [*low[1:], 1.0], strict=True))
    ]
    caption = f"Share of test examples to which a model gives which {spread.axis(arrays)}, mean over seeds"
    return Table(caption, ("Bin", *(who(cast, key).text for key in keys)), tuple(rows))


def escape(text: str) -> str:
    """Text that Markdown shows as it is.

    >>> escape("a|b [c] <d>")
    'a\\\\|b \\\\[c\\\\] &lt;d>'
    """
    return re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(fmt.clean(text).split())).replace("<", "&lt;")


def markdown(table: Table) -> str:
    rules = ["---" if at in table.words else "---:" for at in range(len(table.columns))]
    rows = [list(map(escape, table.columns)), rules, *([_cell(one) for one in row] for row in table.rows)]
    return f"{escape(table.caption)}.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(one: Cell) -> str:
    text = escape(one.text)
    for note in one.notes:
        text += (" " if note.startswith("±") else "<br>") + escape(note)
    return text + (f"<br>{GLYPH[one.decision]} {one.decision}" if one.decision else "")
