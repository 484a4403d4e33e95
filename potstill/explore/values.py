"""The numbers of the inputs: range, spread, histogram; and those of each group of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from potstill.explore.found import Floats, Pair, Values
from potstill.explore.gather import Gathered, Rows

BINS: Final = 32
SHOWN: Final = 5  # pairs of groups, of either end


def values(found: Gathered) -> Values:
    """Of all splits together; whole numbers of one byte are counted, others are gone through twice."""
    splits = found.splits
    if found.train.source.raw.dtype.itemsize == 1:
        edges, counts, moments = _counted(splits)
    else:
        edges, counts, moments = _binned(splits)
    channels = _channels(found.train) if len(found.data.spec.shape) == 3 else ()
    many = int(np.prod(found.data.spec.shape)) > 1  # one number alone is no blank picture
    blank = sum(int((one == one[:, :1]).all(1).sum()) for rows in splits.values() for _, one in rows.flat() if many)
    return Values(
        *moments,
        tuple(edges.tolist()),
        {name: tuple(map(int, one)) for name, one in counts.items()},
        channels,
        _constant(found.train),
        blank,
    )


class Moments(NamedTuple):
    """Of all numbers: the part that is exactly zero is `zeros`."""

    least: float
    greatest: float
    mean: float
    std: float
    zeros: float


def _counted(splits: Mapping[str, Rows]) -> tuple[Floats, dict[str, Floats], Moments]:
    """From how often each of 256 numbers is there; bins hold equally many of those between the least and greatest."""
    exact = {
        name: np.sum([np.bincount(block.reshape(-1), minlength=256) for _, block in rows.raw()], axis=0)
        for name, rows in splits.items()
    }
    whole = np.sum(list(exact.values()), axis=0).astype(np.float64)
    numbers, total = np.arange(256.0), whole.sum()
    mean = float((whole * numbers).sum() / total)
    std = math.sqrt(float((whole * (numbers - mean) ** 2).sum() / total))
    there = np.flatnonzero(whole)
    least, greatest = int(there[0]), int(there[-1])
    width = max(1, math.ceil((greatest - least + 1) / BINS))
    edges = np.arange(least, greatest + width + 1, width, dtype=np.float64) - 0.5
    if edges[-1] < greatest:
        edges = np.append(edges, edges[-1] + width)
    binned = {name: np.histogram(numbers, edges, weights=one)[0] for name, one in exact.items()}
    return edges, binned, Moments(least, greatest, mean, std, float(whole[0] / total))


def _binned(splits: Mapping[str, Rows]) -> tuple[Floats, dict[str, Floats], Moments]:
    blocks = [block for rows in splits.values() for block in _outlines(rows)]
    total = sum(one[0] for one in blocks)
    least, greatest = min(one[1] for one in blocks), max(one[2] for one in blocks)
    mean = sum(one[3] for one in blocks) / total
    zeros = sum(one[4] for one in blocks) / total
    edges = np.linspace(least, greatest, BINS + 1) if greatest > least else np.array([least - 0.5, least + 0.5])
    counts = {name: np.zeros(len(edges) - 1) for name in splits}
    square = 0.0
    for name, rows in splits.items():
        for _, block in rows.flat():
            counts[name] += np.histogram(block, edges)[0]
            square += float(((block - mean) ** 2).sum())
    return edges, counts, Moments(least, greatest, mean, math.sqrt(square / total), zeros)


def _outlines(rows: Rows) -> list[tuple[int, float, float, float, int]]:
    """Of each block: how many numbers, the least, the greatest, their sum, how many zeros."""
    return [
        (block.size, float(block.min()), float(block.max()), float(block.sum()), int((block == 0).sum()))
        for _, block in rows.flat()
    ]


def _channels(train: Rows) -> tuple[tuple[float, float], ...]:
    """Mean and standard deviation of each channel over the training pictures."""
    channels = train.source.raw.shape[1]
    sums, squares, count = np.zeros(channels), np.zeros(channels), 0
    for _, block in train.raw():
        numbers = block.astype(np.float64)
        sums += numbers.sum((0, 2, 3))
        squares += (numbers**2).sum((0, 2, 3))
        count += numbers[:, 0].size
    means = sums / count
    return tuple(zip(means.tolist(), np.sqrt(np.maximum(squares / count - means**2, 0)).tolist(), strict=True))


def _constant(train: Rows) -> int:
    """Places that hold the same number in all training examples."""
    first: Floats | None = None
    same: np.ndarray | None = None
    for _, block in train.flat():
        if first is None or same is None:
            first, same = block[0].copy(), np.ones(block.shape[1], bool)
        same &= (block == first).all(0)
    return 0 if same is None else int(same.sum())


class Groups(NamedTuple):
    """Of the labelled training examples: `means` (K, F), NaN for a group without any; distances (n,) of all rows from
    the mean of their group, NaN without a label; `within`, the root of the mean square of those."""

    means: Floats
    distances: Floats
    within: float | None


def groups(found: Gathered) -> Groups:
    """Means of the groups, and how far examples are from them; distances per number, as `Pair` has them."""
    train, number = found.train, len(found.groups)
    size = int(np.prod(found.data.spec.shape))
    sums, counts = np.zeros((number, size)), np.zeros(number)
    for start, block in train.compared():
        mine = train.groups[start : start + len(block)]
        chosen = np.zeros((number, len(block)))
        chosen[mine[mine >= 0], np.flatnonzero(mine >= 0)] = 1
        sums += chosen @ block
        counts += chosen.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts[:, None]
    distances = np.full(len(train), np.nan)
    for start, block in train.compared():
        mine = train.groups[start : start + len(block)]
        inside = np.flatnonzero(mine >= 0)
        distances[start + inside] = np.sqrt(((block[inside] - means[mine[inside]]) ** 2).mean(1))
    known = distances[np.isfinite(distances)]
    return Groups(means, distances, float(np.sqrt((known**2).mean())) if len(known) else None)


def pairs(names: tuple[str, ...], means: Floats) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """The groups whose means are nearest to each other, and those that are farthest, each in order."""
    known = [i for i in range(len(names)) if np.isfinite(means[i]).all()]
    found = [
        Pair(names[a], names[b], float(np.sqrt(((means[a] - means[b]) ** 2).mean())))
        for at, a in enumerate(known)
        for b in known[at + 1 :]
    ]
    found.sort(key=lambda pair: pair.distance)
    return tuple(found[:SHOWN]), tuple(found[: -SHOWN - 1 : -1])
