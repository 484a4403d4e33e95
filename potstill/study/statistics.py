"""The numbers of a verdict: how much a difference would move with fresh seeds and fresh test examples.

Multi-reader multi-case analysis (Dorfman, Berbaum, Metz 1992; Hillis 2007): seeds are the readers, test examples the
cases, both are random. A bootstrap over seeds and examples covers too little with few seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from potstill.metrics import Metric

Floats: TypeAlias = NDArray[np.float64]

MOST_SEEDS = 200
_LEVEL = 0.95
_CHUNK = 2**21  # numbers held at once while examples are left out one by one
_MOST_FLIPS = 40  # seeds; two halves of 2^20 signs each
_NORMAL = 1e8  # degrees of freedom from which t is the normal distribution to eight digits


@dataclass(frozen=True, slots=True)
class Components:
    """Where the variance of the mean difference over S seeds and n test examples comes from.

    `seed`, `example`, `residual` are the variance components of one seed, one example and both together (s_A, s_B, s_E
    are never negative), `variance` is that of the mean, `nu` its degrees of freedom; all have the leading axes of the
    differences. `examples` is None where the method knows seeds only.
    """

    seeds: int
    examples: int | None
    seed: Floats
    example: Floats
    residual: Floats
    variance: Floats
    nu: Floats


def pseudo_values(metric: Metric, phi: Floats) -> Floats:
    """(n, d) parts of a metric to n numbers whose mean stands for the metric.

    For a mean over examples these are the examples' own numbers; else the jackknife's pseudo-values (Tukey 1958)
    n g(sum) - (n-1) g(sum - phi_i), which need n >= 2.
    """
    if metric.per_example:
        return metric.combine(phi, 1)
    n, sums = len(phi), phi.sum(axis=0)
    values = np.empty(n)
    rows = max(1, _CHUNK // phi.shape[1])
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        values[part] = metric.combine(sums - phi[part], n - 1)
    return np.asarray(n * metric.combine(sums, n) - (n - 1) * values, np.float64)


def crossed(differences: NDArray[Any]) -> Components:
    """Every seed answers the same test examples: differences (..., S, n), S >= 2, n >= 2.

    Two-way analysis of variance with random seeds and random examples, one observation per cell. The seeds' mean
    square is never taken below the residual one, nor the examples' component below zero, which is conservative. The
    degrees of freedom are Hillis' (2007). In simulations 95 % intervals cover at least .935 with four seeds or more;
    with three as little as .92, where seeds give four fifths or more of the variance and examples most of the rest.
    """
    seeds, n = differences.shape[-2:]
    grand = differences.mean(axis=(-2, -1), keepdims=True)
    by_seed = differences.mean(axis=-1, keepdims=True) - grand
    by_example = differences.mean(axis=-2, keepdims=True) - grand
    ms_a = n * np.square(by_seed).sum(axis=(-2, -1)) / (seeds - 1)
    ms_b = seeds * np.square(by_example).sum(axis=(-2, -1)) / (n - 1)
    ms_e = np.square(differences - grand - by_seed - by_example).sum(axis=(-2, -1)) / ((seeds - 1) * (n - 1))
    a = np.maximum(ms_a, ms_e)
    v = a + np.maximum(ms_b - ms_e, 0.0)
    return Components(
        seeds=seeds,
        examples=n,
        seed=np.maximum(ms_a - ms_e, 0.0) / n,
        example=np.maximum(ms_b - ms_e, 0.0) / seeds,
        residual=ms_e,
        variance=v / (seeds * n),
        nu=_degrees(v, a, seeds),
    )


def paired(differences: NDArray[Any]) -> Components:
    """One difference per seed, (..., S), S >= 2: the paired t interval, nu = S - 1."""
    seeds = differences.shape[-1]
    variance = np.asarray(differences.var(axis=-1, ddof=1), np.float64)
    zero = np.zeros_like(variance)
    return Components(
        seeds=seeds,
        examples=None,
        seed=variance,
        example=zero,
        residual=zero,
        variance=variance / seeds,
        nu=np.full_like(variance, seeds - 1),
    )


def half_width(components: Components, comparisons: int) -> Floats:
    """Half the length of the 95 % interval, simultaneous over `comparisons` (Bonferroni)."""
    return _quantile(components.nu, comparisons) * np.sqrt(components.variance)


@dataclass(frozen=True, slots=True)
class Needed:
    """What would decide: `seeds` with the same test examples, else `examples` with `with_seeds` seeds.

    None: not within 200 seeds. `never`: with the same test examples no number of seeds would do.
    """

    seeds: int | None
    examples: int | None
    with_seeds: int | None
    never: bool


def needed(components: Components, target: float, comparisons: int) -> Needed:
    """How many seeds, or examples, bring the half width below `target` > 0, if the components stay as they are."""
    s_a, s_b, s_e = (float(part) for part in (components.seed, components.example, components.residual))
    n = components.examples or 1
    counts = np.arange(max(3, components.seeds), max(MOST_SEEDS, components.seeds) + 1)
    room = np.square(target / _quantile(counts - 1.0, comparisons))
    enough = (counts > components.seeds) & (s_a / counts + s_b / n + s_e / (counts * n) < room)
    if enough.any():
        return Needed(int(counts[enough.argmax()]), None, None, False)
    never = bool(s_b / n >= np.square(target / _quantile(np.array(np.inf), comparisons)))
    # The fewest seeds that use up at most half of the room: with fewer the examples would have to be very many.
    left = room - s_a / counts
    roomy = np.flatnonzero(left >= room / 2)
    if components.examples is None or not len(roomy):
        return Needed(None, None, None, never)
    at = roomy[0]
    return Needed(None, math.floor((s_b + s_e / counts[at]) / left[at]) + 1, int(counts[at]), never)


def sign_flip_p(differences: NDArray[Any]) -> float | None:
    """Exact two-sided p of the sign-flip test on the mean of (S,) differences; None for more than 40 seeds.

    The smallest p that S seeds can give is 2^(1-S).
    """
    seeds = len(differences)
    if not 1 <= seeds <= _MOST_FLIPS:
        return None
    first, rest = _signed_sums(differences[: seeds // 2]), np.sort(_signed_sums(differences[seeds // 2 :]))
    # Equal sums may differ in their last bits.
    bound = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    as_far = len(rest) - np.searchsorted(rest, bound - first) + np.searchsorted(rest, -bound - first, side="right")
    return min(1.0, int(as_far.sum()) / 2.0**seeds)


def _signed_sums(values: NDArray[Any]) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _degrees(v: Floats, a: Floats, seeds: int) -> Floats:
    # v >= a, so at least S - 1. Without any variance of the seeds the examples alone count: the normal distribution.
    ratio = np.divide(v, a, out=np.where(v > 0, np.inf, 1.0), where=a > 0)
    with np.errstate(over="ignore"):
        return np.asarray((seeds - 1) * np.square(ratio), np.float64)


def _quantile(nu: NDArray[Any], comparisons: int) -> Floats:
    upper = 1 - (1 - _LEVEL) / 2 / comparisons
    return np.asarray(special.stdtrit(np.minimum(nu, _NORMAL), upper), np.float64)
