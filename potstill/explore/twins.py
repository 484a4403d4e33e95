"""Examples that are there more than once: exactly, told by their hashes, and nearly, told by their distance."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.explore.found import Floats, Near, Place, Twins
from potstill.explore.gather import Gathered, Rows

SHOWN: Final = 8
RADIUS: Final = {
    "pictures": 0.05,
    "rows": 0.02,
    "table": 0.02,
    "texts": 0.0,
}  # of the usual distance: nearer is nearly equal
_NEIGHBOURS: Final = 5  # of a projected example, whose distance is then measured in full


class _All(NamedTuple):
    """All rows of all splits, one split after the other; `twin`: the same number for equal examples.

    `equal`: where those are only alike, the same number for those that are equal too, which are not told.
    """

    names: tuple[str, ...]
    split: NDArray[np.int64]
    row: NDArray[np.int64]
    group: NDArray[np.int64]
    twin: NDArray[np.int64]
    equal: NDArray[np.int64] | None = None
    size: NDArray[np.int64] | None = None

    def place(self, number: int, splits: dict[str, Rows]) -> Place:
        name = self.names[self.split[number]]
        return name, int(splits[name].places[self.row[number]])


def different(rows: Rows) -> int:
    """How many examples are different."""
    return len(np.unique(_keys(rows.digests)))


def twins(
    found: Gathered,
    alike: Mapping[str, NDArray[np.uint8]] | None = None,
    *,
    sizes: Mapping[str, NDArray[np.int64]] | None = None,
) -> tuple[Twins, ...]:
    """Of every split, and of every two; those without any are left out.

    `alike` (n, 32) uint8 of each split: examples with equal ones are alike, and those are told that are not equal.
    `sizes` (n,): large examples are shown first.
    """
    splits = dict(found.splits)
    whole = _all(splits, {name: rows.digests for name, rows in splits.items()})
    if alike is not None:
        whole = _all(splits, alike)._replace(equal=whole.twin)
    if sizes is not None:
        whole = whole._replace(size=np.concatenate([sizes[name] for name in whole.names]))
    told = []
    for name in whole.names:
        told.append(_between(whole, splits, (name,)))
    for names in combinations(whole.names, 2):
        told.append(_between(whole, splits, names))
    return tuple(one for one in told if one.extra)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(digests).view(np.dtype((np.void, digests.shape[1])))[:, 0]


def _all(splits: dict[str, Rows], told: Mapping[str, NDArray[np.uint8]]) -> _All:
    names = tuple(splits)
    digests = np.concatenate([_keys(told[name]) for name in names])
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
    extra = _only_alike(whole, extra, numbers, same=first == last)
    clashes = [(a, b) for a, b in extra if _clash(whole, a, b)]
    shown = _shown(whole, clashes, extra)
    return Twins(
        names,
        len(extra),
        len(clashes),
        tuple((whole.place(a, splits), whole.place(b, splits)) for a, b in shown),
    )


def _shown(whole: _All, clashes: list[tuple[int, int]], extra: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Some pairs, those with other labels first, then large ones, of which each kind of example is there once."""
    rest = [*clashes, *(pair for pair in extra if pair not in set(clashes))]
    if whole.size is None:
        return rest[:SHOWN]
    size, known = whole.size, set(clashes)
    rest.sort(key=lambda pair: (pair not in known, -int(size[pair[1]])))
    kinds: dict[int, tuple[int, int]] = {}
    for pair in rest:
        kinds.setdefault(int(whole.twin[pair[1]]), pair)
    return list(kinds.values())[:SHOWN]


def _only_alike(
    whole: _All, extra: list[tuple[int, int]], numbers: NDArray[np.int64], *, same: bool
) -> list[tuple[int, int]]:
    """Without the pairs whose second example has an equal one before it, or among the first split's `numbers`."""
    if whole.equal is None:
        return extra
    if same:
        _, firsts = np.unique(whole.equal[numbers], return_index=True)
        fresh = set(numbers[firsts].tolist())
        return [pair for pair in extra if pair[1] in fresh]
    known = set(whole.equal[numbers].tolist())
    return [pair for pair in extra if int(whole.equal[pair[1]]) not in known]


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
