"""Examples that are there more than once: exactly, told by their hashes, and nearly, told by their distance."""

from __future__ import annotations

from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.explore.found import Floats, Near, Place, Twins
from potstill.explore.gather import Gathered, Rows

SHOWN: Final = 8
RADIUS: Final = {"pictures": 0.05, "rows": 0.02, "table": 0.02}  # of the usual distance: nearer is nearly equal
_NEIGHBOURS: Final = 5  # of a projected example, whose distance is then measured in full


class _All(NamedTuple):
    """All rows of all splits, one split after the other; `twin`: the same number for equal examples."""

    names: tuple[str, ...]
    split: NDArray[np.int64]
    row: NDArray[np.int64]
    group: NDArray[np.int64]
    twin: NDArray[np.int64]

    def place(self, number: int, splits: dict[str, Rows]) -> Place:
        name = self.names[self.split[number]]
        return name, int(splits[name].places[self.row[number]])


def different(rows: Rows) -> int:
    """How many examples are different."""
    return len(np.unique(_keys(rows.digests)))


def twins(found: Gathered) -> tuple[Twins, ...]:
    """Of every split, and of every two; those without any are left out."""
    splits = dict(found.splits)
    whole = _all(splits)
    told = []
    for name in whole.names:
        told.append(_between(whole, splits, (name,)))
    for names in combinations(whole.names, 2):
        told.append(_between(whole, splits, names))
    return tuple(one for one in told if one.extra)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(digests).view(np.dtype((np.void, digests.shape[1])))[:, 0]


def _all(splits: dict[str, Rows]) -> _All:
    names = tuple(splits)
    digests = np.concatenate([_keys(splits[name].digests) for name in names])
    lengths = [len(splits[name]) for name in names]
    return _All(
        names,
        np.repeat(np.arange(len(names)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate([splits[name].groups for name in names]),
        np.unique(digests, return_inverse=True)[1].reshape(-1),
    )


def _between(whole: _All, splits: dict[str, Rows], names: tuple[str, ...]) -> Twins:
    """Extra examples of one split, or examples of the second split that are in the first."""
    first, last = (whole.names.index(name) for name in (names[0], names[-1]))
    known: dict[int, int] = {}
    numbers = np.flatnonzero(whole.split == first)
    extra: list[tuple[int, int]] = []
    if first == last:
        for number in numbers.tolist():
            twin = int(whole.twin[number])
            if twin in known:
                extra.append((known[twin], number))
            else:
                known[twin] = number
    else:
        known = {int(whole.twin[number]): number for number in reversed(numbers.tolist())}
        others = np.flatnonzero(whole.split == last).tolist()
        extra = [(known[twin], number) for number in others if (twin := int(whole.twin[number])) in known]
    clashes = [(a, b) for a, b in extra if _clash(whole, a, b)]
    shown = [*clashes, *(pair for pair in extra if pair not in set(clashes))][:SHOWN]
    return Twins(
        names,
        len(extra),
        len(clashes),
        tuple((whole.place(a, splits), whole.place(b, splits)) for a, b in shown),
    )


def _clash(whole: _All, a: int, b: int) -> bool:
    return bool(whole.group[a] >= 0 and whole.group[b] >= 0 and whole.group[a] != whole.group[b])


def near(found: Gathered, components: Floats, typical: float) -> tuple[Near, ...]:
    """Examples of other splits that are nearly training examples, and not equal to one.

    `components` (k, F), orthonormal: no two examples are nearer than their projections are, so that neighbours there
    are all that have to be measured. `typical`: the median distance of two training examples (Euclidean).
    """
    from scipy.spatial import cKDTree

    train, radius = found.train, RADIUS[found.form] * typical
    if radius == 0 or len(train) < 2:
        return ()
    tree = cKDTree(_projected(train, components))
    known = set(map(bytes, train.digests))
    told = []
    for name, rows in found.splits.items():
        if name == "train":
            continue
        digests = rows.digests
        neighbours = min(_NEIGHBOURS, len(train))
        gaps, nearest = tree.query(_projected(rows, components), k=neighbours, distance_upper_bound=radius)
        gaps, nearest = np.reshape(gaps, (len(rows), -1)), np.reshape(nearest, (len(rows), -1))
        pairs: list[tuple[int, int, float]] = []
        for row in np.flatnonzero(np.isfinite(gaps[:, 0])).tolist():
            if bytes(digests[row]) in known:
                continue
            others = nearest[row][np.isfinite(gaps[row])].astype(np.int64)
            distances = np.sqrt(((train.some(others) - rows.some(np.array([row]))) ** 2).sum(1))
            best = int(distances.argmin())
            if distances[best] <= radius:
                pairs.append((row, int(others[best]), float(distances[best])))
        if pairs:
            told.append(_near(found, name, pairs, radius, typical))
    return tuple(told)


def _near(found: Gathered, name: str, pairs: list[tuple[int, int, float]], radius: float, typical: float) -> Near:
    train, rows = found.train, found.splits[name]
    clashes = [
        pair for pair in pairs if min(rows.groups[pair[0]], train.groups[pair[1]]) >= 0
        and rows.groups[pair[0]] != train.groups[pair[1]]
    ]  # fmt: skip
    shown = sorted(pairs, key=lambda pair: (pair not in clashes, pair[2]))[:SHOWN]
    return Near(
        ("train", name),
        len(pairs),
        len(clashes),
        radius,
        typical,
        tuple((("train", int(train.places[b])), (name, int(rows.places[a])), gap) for a, b, gap in shown),
    )


def _projected(rows: Rows, components: Floats) -> Floats:
    return np.concatenate([block @ components.T for _, block in rows.compared()])
