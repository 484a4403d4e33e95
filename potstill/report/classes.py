"""How well each model tells each class: F1 by class, from the confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.plotted import Figures

MOST: Final = 20  # classes of a table: of more, those that are told worst


def f1(counts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """F1 of every class, (K,), of a confusion matrix (K, K) with true classes in rows: 2 tp / (2 tp + fp + fn).

    A class that is neither there nor predicted has 0, as in scikit-learn and in the metric `macro_f1`.

    >>> f1([[3, 1], [1, 5]]).round(3).tolist()
    [0.75, 0.833]
    """
    table = np.asarray(counts, np.float64)
    either = table.sum(axis=0) + table.sum(axis=1)
    found: NDArray[np.float64] = np.divide(2 * np.diag(table), either, out=np.zeros(len(table)), where=either > 0)
    return found


def table(cast: Cast, arrays: Figures) -> Table | None:
    """A row for every model, a column for every class, in per cent; None for two classes, and without matrices."""
    found = {key: f1(arrays.confusion[key]) for key in cast.order if arrays.confusion.get(key)}
    if not found or len(arrays.classes) < 3:
        return None
    worst = np.argsort(np.mean(list(found.values()), axis=0), kind="stable")[:MOST]
    shown = sorted(int(at) for at in worst)
    rows = [
        (who(cast, key), *(Cell(fmt.value("macro_f1", one[at], bare=True)) for at in shown))
        for key, one in found.items()
    ]
    some = f", the {MOST} worst of {len(arrays.classes)}" if len(arrays.classes) > MOST else ""
    caption = f"F1 by class in per cent{some}; test examples of all seeds together"
    return Table(caption, ("Model", *(arrays.classes[at] for at in shown)), tuple(rows))
