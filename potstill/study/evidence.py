"""From the parts of a metric, per seed, to what a verdict may rest on; what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError
from potstill.metrics import Metric
from potstill.study.results import Method
from potstill.study.statistics import Components, Floats, crossed, paired, pseudo_values


class Evidence(NamedTuple):
    """What the numbers of S seeds give.

    `examples`: different test examples, over all seeds. `components`: None where there is nothing to take an interval
    from (one seed, one example). `identical`: no test example differs. `no_spread`: the seeds' differences are equal
    though examples differ.
    """

    method: Method
    examples: int | None
    components: Components | None
    identical: bool
    no_spread: bool


def read_parts(
    phis: Sequence[NDArray[Any]], other_phis: Sequence[NDArray[Any]], seeds: Sequence[int], *, nested: bool, where: str
) -> tuple[list[Floats], list[Floats]]:
    """Both models' (n, d) per seed as float64; raises `DataError` if they do not fit together or are not finite."""
    if not len(phis) == len(other_phis) == len(seeds):
        raise DataError(
            f"{where}: found {len(phis)} and {len(other_phis)} seeds, wanted the {len(seeds)} complete for both."
        )
    ours, theirs = ([np.asarray(phi, np.float64) for phi in side] for side in (phis, other_phis))
    for seed, phi, other in zip(seeds, ours, theirs, strict=True):
        if phi.ndim != 2 or phi.shape != other.shape or 0 in phi.shape or phi.shape[1:] != ours[0].shape[1:]:
            raise DataError(
                f"{where}, seed {seed}: found parts of shapes {phi.shape} and {other.shape}, wanted the same (n, d)."
            )
        if not nested and len(phi) != len(ours[0]):
            raise DataError(
                f"{where}, seed {seed}: found {len(phi)} test examples, wanted {len(ours[0])} as in seed {seeds[0]} "
                "(only test data drawn anew per seed may differ)."
            )
        if not (np.isfinite(phi).all() and np.isfinite(other).all()):
            raise DataError(f"{where}, seed {seed}: found NaN or infinity, wanted finite numbers.")
    return ours, theirs


def read_values(values: Sequence[float], seeds: int, *, where: str) -> Floats:
    """One finite number per seed as (S,) float64, or a `DataError`."""
    array = np.asarray(values, np.float64)
    if array.shape != (seeds,) or not np.isfinite(array).all():
        raise DataError(f"{where}: found {array.tolist()}, wanted {seeds} finite numbers, one per seed.")
    return array


def seed_values(metric: Metric, phis: Sequence[Floats]) -> Floats:
    """(S,): the metric of every seed."""
    return np.array([float(metric.combine(phi.sum(axis=0), len(phi))) for phi in phis], np.float64)


def from_parts(metric: Metric, ours: Sequence[Floats], theirs: Sequence[Floats], *, nested: bool) -> Evidence:
    """Evidence from parts as `read_parts` returns them."""
    if not ours:
        return Evidence("nested" if nested else "crossed", None, None, identical=False, no_spread=False)
    if nested:
        return _nested(metric, ours, theirs)
    n = len(ours[0])
    if n == 1:
        return Evidence("crossed", n, None, identical=False, no_spread=False)
    parts = np.stack([pseudo_values(metric, a) - pseudo_values(metric, b) for a, b in zip(ours, theirs, strict=True)])
    components = crossed(parts) if len(ours) > 1 else None
    return Evidence("crossed", n, components, identical=not parts.any(), no_spread=False)


def from_values(ours: Floats, theirs: Floats, *, nested: bool = False) -> Evidence:
    """Evidence from one number per seed and model; `nested` where each seed has data of its own."""
    components = paired(ours - theirs) if len(ours) > 1 else None
    return Evidence("nested" if nested else "scalar", None, components, identical=False, no_spread=False)


def _nested(metric: Metric, ours: Sequence[Floats], theirs: Sequence[Floats]) -> Evidence:
    identical = all(np.array_equal(phi, other) for phi, other in zip(ours, theirs, strict=True))
    differences = seed_values(metric, ours) - seed_values(metric, theirs)
    components = paired(differences) if len(ours) > 1 else None
    # With few examples per seed the differences can be equal by chance, up to rounding: that measures no spread.
    rounding = np.square(1e-12 * np.abs(differences).max())
    still = components is not None and not identical and bool(components.variance <= rounding)
    return Evidence("nested", sum(map(len, ours)), components, identical, still)
