"""`explore`: a data set gone through once for counts, values, groups, duplicates, a projection, and faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from potstill.data.parts import Target
from potstill.explore import columns, faults, projection, texts, twins, values
from potstill.explore.found import Exploration, Near, Pair, Projection, Split, Values
from potstill.explore.gather import Gathered, Rows, gather
from potstill.types import Task

PER_GROUP: Final = 8  # examples of each group that are shown
ATYPICAL: Final = 12  # examples farthest from their group's mean
_SHOWN_GROUPS: Final = 40  # groups whose pictures are shown


def explore(
    source: Any,
    *,
    folder: str | Path | None = None,
    task: Task = "multiclass",
    target: Target = None,
    validation: float | None = None,
    test: float | Mapping[str, Any] | None = None,
    text: str | None = None,
) -> Exploration:
    """Look at a data set, its test examples too: whoever does has taken a look at them.

    Arguments as of `data.open`. `text`: the column of texts to look at, where a table has several or what holds them is
    not told by its cells. Rows are gone through in blocks: 60,000 pictures take no more memory than a few thousand.
    Pictures that cannot be read are left out and told. Raises `DataError` for data that cannot be opened.
    """
    found = gather(
        source,
        folder=None if folder is None else Path(folder),
        task=task,
        target=target,
        validation=validation,
        test=test,
        text=text,
    )
    numbers = _numbers(found)
    equal = twins.twins(found)
    told = columns.columns(found)
    words = texts.texts(found, equal)
    splits = {name: _split(rows, len(found.groups)) for name, rows in found.splits.items()}
    spec, opened = found.data.spec, found.data
    return Exploration(
        name=opened.name,
        task=spec.task,
        form=found.form,
        shape=tuple(spec.shape),
        groups=tuple(found.groups),
        targets=tuple(spec.targets),
        notes=tuple(opened.notes),
        faults=faults.faults(
            splits=splits,
            groups=found.groups,
            regression=spec.task == "regression",
            columns=told,
            values=numbers.values,
            twins=equal,
            near=numbers.near,
            notes=opened.notes,
            features=int(np.prod(spec.shape)),
            texts=words,
        ),
        splits=splits,
        labels=_labels(found),
        values=None if found.form == "table" else numbers.values,
        columns=told,
        nearest=numbers.nearest,
        farthest=numbers.farthest,
        within=numbers.within,
        twins=equal,
        near=numbers.near,
        projection=numbers.projection,
        atypical=numbers.atypical,
        preprocessing={"scale": spec.preprocessing.scale, "offset": spec.preprocessing.offset},
        texts=words,
        pictures=numbers.pictures,
    )


class _Numbers(NamedTuple):
    """What is told of examples that are numbers; nothing of texts."""

    values: Values | None = None
    nearest: tuple[Pair, ...] = ()
    farthest: tuple[Pair, ...] = ()
    within: float | None = None
    near: tuple[Near, ...] = ()
    projection: Projection | None = None
    atypical: tuple[tuple[int, str, float], ...] = ()
    pictures: Mapping[str, np.ndarray[Any, Any]] = {}


def _numbers(found: Gathered) -> _Numbers:
    if found.form == "texts":
        return _Numbers()
    numbers, grouped = values.values(found), values.groups(found)
    nearest, farthest = values.pairs(found.groups, grouped.means)
    parts = projection.components(found)
    return _Numbers(
        numbers,
        nearest,
        farthest,
        grouped.within,
        twins.near(found, parts.vectors, parts.typical),
        parts.projection,
        _atypical(found, grouped.distances),
        _pictures(found, grouped) if found.form == "pictures" else {},
    )


def _split(rows: Rows, groups: int) -> Split:
    labelled = rows.groups[rows.groups >= 0]
    counts = np.bincount(labelled, minlength=groups)
    return Split(len(rows), len(labelled), tuple(map(int, counts)), twins.different(rows))


def _labels(found: Gathered) -> dict[str, dict[str, float]]:
    """Of each target of a regression, over the labelled training examples."""
    source, spec = found.train.source, found.data.spec
    if spec.task != "regression":
        return {}
    labels = source.labels[source.labelled].double().numpy()
    return {
        name: {
            "mean": float(column.mean()),
            "std": float(column.std()),
            "least": float(column.min()),
            "greatest": float(column.max()),
        }
        for name, column in zip(spec.targets, labels.T, strict=True)
    }


def _atypical(found: Gathered, distances: np.ndarray[Any, Any]) -> tuple[tuple[int, str, float], ...]:
    """Training examples that are farthest from their group's mean: place, group, distance."""
    known = np.flatnonzero(np.isfinite(distances))
    rows = known[np.argsort(-distances[known], kind="stable")][:ATYPICAL]
    train = found.train
    return tuple((int(train.places[row]), found.groups[train.groups[row]], float(distances[row])) for row in rows)


def _pictures(found: Gathered, grouped: values.Groups) -> dict[str, np.ndarray[Any, Any]]:
    """`means` (K, C, H, W) float64; `examples` (K, m, C, H, W), `atypical` (m, C, H, W) as stored."""
    train, shape = found.train, found.data.spec.shape
    number = min(len(found.groups), _SHOWN_GROUPS)
    order = projection.chosen(len(train), len(train))
    examples = np.zeros((number, PER_GROUP, *shape), train.take(order[:0]).dtype)
    for group in range(number):
        rows = order[train.groups[order] == group][:PER_GROUP]
        examples[group, : len(rows)] = train.take(np.sort(rows))
    known = np.flatnonzero(np.isfinite(grouped.distances))
    rows = known[np.argsort(-grouped.distances[known], kind="stable")][:ATYPICAL]
    means = np.nan_to_num(grouped.means[:number].reshape(number, *shape))
    return {"means": means, "examples": examples, "atypical": train.take(rows)}
