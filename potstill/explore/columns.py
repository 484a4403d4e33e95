"""Columns of a table, and features of rows: what they hold, what is missing, and how much they tell of the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill.data import columns as cells
from potstill.data.table import is_number
from potstill.explore.found import Column, Floats
from potstill.explore.gather import Gathered

BINS: Final = 12
WORDS: Final = 5  # most frequent ones that are told
MOST: Final = 200  # features of rows that are told one by one


def columns(found: Gathered) -> tuple[Column, ...]:
    """Of a table all columns but those of texts, targets last; of rows the features; of pictures none.

    About the training examples.
    """
    if found.tabular is not None:
        return _of_table(found)
    if found.form == "rows" and found.data.spec.shape[0] <= MOST:
        return _of_rows(found)
    return ()


def _of_table(found: Gathered) -> tuple[Column, ...]:
    told = found.tabular
    if told is None or found.train.table is None:
        return ()
    names = [name for name in told.table.names if name not in (*told.targets, *found.texts)]
    made = []
    for name in (*names, *told.targets):
        missing = {}
        for split, rows in found.splits.items():
            if rows.table is not None:
                missing[split] = sum(not word for word in cells.words(rows.table.column(name), told.options.missing))
        column = found.train.table.column(name)
        words = cells.words(column, told.options.missing)
        there = [word for word in words if word]
        category = name in told.options.categorical or not (
            name in told.options.numeric or not isinstance(column, list) or all(map(is_number, there))
        )
        label = None if name in told.targets else _label(found)
        if category or not there:
            made.append(_category(name, words, missing, label))
        else:
            values = cells.numbers(column, name, told.options.missing, where=told.table.where)
            made.append(number(name, values, missing, label))
    return tuple(made)


def _of_rows(found: Gathered) -> tuple[Column, ...]:
    """Features of the training rows, one after the other."""
    matrix = np.concatenate([block for _, block in found.train.flat()])
    label = _label(found)
    return tuple(number(str(i), matrix[:, i], {}, label) for i in range(matrix.shape[1]))


def _label(found: Gathered) -> NDArray[Any]:
    """(n,) classes, -1 without a label; of a regression the first target, NaN without."""
    source = found.train.source
    if found.data.spec.task != "regression":
        return found.train.groups
    return np.where(source.labelled.numpy(), source.labels[:, 0].double().numpy(), np.nan)


def number(name: str, values: Floats, missing: Mapping[str, int], label: NDArray[Any] | None) -> Column:
    """A column of numbers, NaN where there is none."""
    there = ~np.isnan(values)
    known = values[there]
    quartiles = np.quantile(known, [0.25, 0.5, 0.75])
    told = {
        "least": float(known.min()),
        "lower quartile": float(quartiles[0]),
        "median": float(quartiles[1]),
        "upper quartile": float(quartiles[2]),
        "greatest": float(known.max()),
        "mean": float(known.mean()),
        "std": float(known.std()),
    }
    histogram = np.histogram(known, BINS)[0] if told["least"] < told["greatest"] else np.array([len(known)])
    share = None
    if label is not None:
        discrete = label.dtype.kind == "i"
        share = correlation_ratio(known, label[there]) if discrete else _r_squared(known, label[there])
    return Column(
        name,
        "number",
        dict(missing),
        len(np.unique(known)),
        told,
        told=share,
        histogram=tuple(map(int, histogram)),
    )


def _category(name: str, words: list[str], missing: Mapping[str, int], label: NDArray[Any] | None) -> Column:
    counts = Counter(word for word in words if word)
    share = None
    if label is not None and counts:
        places = {word: i for i, word in enumerate(counts)}
        codes = np.array([places.get(word, -1) for word in words])
        there = codes >= 0
        if label.dtype.kind == "i":
            share = cramer(codes[there], label[there])
        else:
            share = correlation_ratio(label[there].astype(np.float64), codes[there])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], cells.natural(item[0])))
    return Column(name, "category", dict(missing), len(counts), words=tuple(ordered[:WORDS]), told=share)


def correlation_ratio(values: Floats, groups: NDArray[Any]) -> float | None:
    """Eta squared: the part of the variance that lies between groups (those of -1, and NaN, are left out)."""
    there = (groups >= 0) & np.isfinite(values)
    known, group = values[there], groups[there].astype(np.int64)
    total = ((known - known.mean()) ** 2).sum() if len(known) else 0.0
    if not total:
        return None
    sizes = np.bincount(group)
    means = np.bincount(group, weights=known) / np.maximum(sizes, 1)
    return float((sizes * (means - known.mean()) ** 2).sum() / total)


def cramer(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Cramer's V squared of two categories (those of -1 are left out): chi squared / (n (the fewer - 1))."""
    there = (first >= 0) & (second >= 0)
    if not there.any():
        return None
    a, b = (np.unique(one[there], return_inverse=True)[1].reshape(-1) for one in (first, second))
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    if min(counts.shape) < 2:
        return None
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum() / counts.sum() / (min(counts.shape) - 1))


def _r_squared(values: Floats, label: Floats) -> float | None:
    there = np.isfinite(values) & np.isfinite(label)
    if there.sum() < 2 or not values[there].std() or not label[there].std():
        return None
    return float(np.corrcoef(values[there], label[there])[0, 1] ** 2)
