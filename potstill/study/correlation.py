"""Rank correlation, correlations of errors, with the jackknife's pseudo-values that an interval needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.study.statistics import Floats, crossed, half_width, paired

_BLOCKS = 128  # pieces in which points are counted


class Jackknife(NamedTuple):
    """A correlation of n pairs, and its n pseudo-values n r - (n-1) r_i; NaN where it is not defined."""

    value: float
    pseudo: Floats


def spearman(x: NDArray[Any], y: NDArray[Any]) -> Jackknife:
    """Spearman's rank correlation of (n,) and (n,) numbers; equal numbers share the mean of their ranks.

    Each example is left out exactly, ranks and all: r_i is Spearman's correlation of the other n-1 pairs.
    """
    n, a, b = len(x), _Ranks(x), _Ranks(y)
    both = _both_above(a.code, b.code)
    product = a.rank @ b.rank - a.rank * b.rank - a.above(b.rank) - b.above(a.rank) + both
    return _jackknife(_whole(a, b), _pearson(product, a.squares(), b.squares(), n - 1))


def spearman_value(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The correlation alone, which takes a fraction of the time."""
    return float(_whole(_Ranks(x), _Ranks(y)))


def errors(a: NDArray[Any], b: NDArray[Any]) -> Jackknife:
    """The phi coefficient of two (n,) rows of 0 and 1: Pearson's correlation of the errors of two models."""
    n = len(a)
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    value = _phi(one.sum(), other.sum(), one @ other, n)
    return _jackknife(value, _phi(one.sum() - one, other.sum() - other, one @ other - one * other, n - 1))


def linear(a: NDArray[Any], b: NDArray[Any]) -> Jackknife:
    """Pearson's correlation of (n,) and (n,) numbers."""
    n, x, y = len(a), np.asarray(a, np.float64) - np.mean(a), np.asarray(b, np.float64) - np.mean(b)
    sums = [(one.sum(), one) for one in (x, y, x * x, y * y, x * y)]
    return _jackknife(
        _moments([whole for whole, _ in sums], n), _moments([whole - each for whole, each in sums], n - 1)
    )


def linear_value(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The correlation alone."""
    return linear(a, b).value


def interval(found: list[Jackknife], *, nested: bool = False) -> tuple[float, float] | None:
    """95 % for fresh seeds and fresh examples, around the mean over seeds; within [-1, 1].

    The two-way analysis of `statistics.crossed` of the pseudo-values (S, n); `nested`, where every seed has examples of
    its own, Student's interval of the values. None with fewer than two seeds or examples, and where a correlation is
    not defined, with every example or with one left out.
    """
    if len(found) < 2 or (not nested and len(found[0].pseudo) < 2):
        return None
    values = np.array([one.value for one in found])
    middle, table = float(values.mean()), [values] if nested else [one.pseudo for one in found]
    if not np.isfinite(table).all():
        return None
    half = float(half_width(paired(values) if nested else crossed(np.stack(table)), 1))
    return max(middle - half, -1.0), min(middle + half, 1.0)


class _Ranks:
    """The ranks of (n,) numbers, from 1."""

    def __init__(self, numbers: NDArray[Any]) -> None:
        _, code, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        self.code: NDArray[np.int64] = code.reshape(-1)
        self._counts, self._last = counts, counts.cumsum()
        self.rank = (self._last - (counts - 1) / 2)[self.code]

    def above(self, values: Floats) -> Floats:
        """(n,) the sum of `values` over those of higher rank, and half of it over the others of the same rank.

        So much the sum of rank times value loses where an example is left out.
        """
        sums = np.bincount(self.code, values, len(self._counts))
        higher = sums.sum() - sums.cumsum()
        return np.asarray(higher[self.code] + (sums[self.code] - values) / 2, np.float64)

    def squares(self) -> Floats:
        """(n,) the sum of the other examples' squared ranks where an example is left out."""
        higher = (len(self.code) - self._last)[self.code] + (self._counts[self.code] - 1) / 4
        return np.asarray(self.rank @ self.rank - self.rank**2 - 2 * self.above(self.rank) + higher, np.float64)


def _whole(a: _Ranks, b: _Ranks) -> Floats:
    return _pearson(a.rank @ b.rank, a.rank @ a.rank, b.rank @ b.rank, len(a.rank))


def _both_above(a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
    """(n,) the others j of higher rank in both; a tie counts one half, in both one quarter."""
    up = [(a + i, b + k) for i in (0, 1) for k in (0, 1)]
    counts = _at_least(a, b, np.concatenate([u for u, _ in up]), np.concatenate([v for _, v in up]))
    return np.asarray((counts.reshape(4, -1).sum(axis=0) - 1) / 4, np.float64)  # less the example itself


def _at_least(
    a: NDArray[np.int64], b: NDArray[np.int64], low_a: NDArray[np.int64], low_b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(q,) how many of n points have a >= low_a and b >= low_b: points in falling a, counted block by block."""
    order = np.argsort(-a, kind="stable")
    rest, size = b[order], -(-len(a) // _BLOCKS)
    first = np.searchsorted(-a[order], -low_a, side="right")  # so many points have a >= low_a
    counts = np.zeros(len(low_a), np.int64)
    before = np.zeros(int(b.max()) + 3, np.int64)  # of the points of earlier blocks those with b >= index
    asked = np.argsort(first // size, kind="stable")
    ends = np.searchsorted((first // size)[asked], np.arange(_BLOCKS + 2))
    for block in range(_BLOCKS + 1):
        here = rest[block * size : (block + 1) * size]
        rows = asked[ends[block] : ends[block + 1]]
        inside = np.arange(len(here)) < (first[rows] - block * size)[:, None]
        counts[rows] = before[low_b[rows]] + (inside & (here >= low_b[rows][:, None])).sum(axis=1)
        before += np.bincount(here, minlength=len(before))[::-1].cumsum()[::-1]
    return counts


def _pearson(product: Any, first: Any, second: Any, n: int) -> Floats:
    """Of ranks 1 .. n, whose mean is (n+1)/2, from sums of products and squares; NaN where all ranks are equal."""
    middle = n * ((n + 1) / 2) ** 2
    spread = np.asarray((first - middle) * (second - middle), np.float64)
    found = np.divide(product - middle, np.sqrt(spread), out=np.full_like(spread, np.nan), where=spread > 1e-9)
    return np.asarray(found, np.float64)


def _phi(a: Any, b: Any, both: Any, n: int) -> Floats:
    spread = np.asarray(a * (n - a) * b * (n - b), np.float64)
    found = np.divide(n * both - a * b, np.sqrt(spread), out=np.full_like(spread, np.nan), where=spread > 0)
    return np.asarray(found, np.float64)


def _moments(sums: Sequence[Any], n: int) -> Floats:
    """From sums of x, y, xx, yy and xy over n pairs; NaN where all numbers of one side are equal."""
    x, y, xx, yy, xy = sums
    first, second = np.asarray(xx - x * x / n), np.asarray(yy - y * y / n)
    varied = (first > 1e-12 * xx) & (second > 1e-12 * yy)
    spread = np.sqrt(np.where(varied, first * second, 1.0))
    return np.asarray(np.where(varied, (xy - x * y / n) / spread, np.nan), np.float64)


def _jackknife(value: Floats, without: Floats) -> Jackknife:
    n = len(without)
    return Jackknife(float(value), n * value - (n - 1) * without)
