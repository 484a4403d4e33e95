"""Does a lower degree of uncertainty go with a higher accuracy? Their rank correlation across models, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from potstill.report import format as fmt
from potstill.report import generations, published, spread
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table
from potstill.study.correlation import spearman_value
from potstill.study.results import MetricValues

LEAST: Final = 4  # models, below which an order says little


def table(cast: Cast) -> Table | None:
    """A row for all models, and one for each chain's generations; None where there are too few."""
    groups = [(name, keys) for name, keys in _groups(cast) if len(keys) >= LEAST]
    known = spread.ordered({name: None for one in cast.results.models.values() for name in one.splits})
    rows = []
    for name, keys in groups:
        cells = [_cell(values(cast, keys, split)) for split in known]
        rows.append((Cell(name), Cell(fmt.count(len(keys))), *cells))
    if not rows:
        return None
    caption = (
        "Rank correlation (Spearman) of uncertainty with accuracy across models: mean over seeds, Student's 95 % "
        "interval over seeds"
    )
    return Table(caption, ("Across", "Models", *map(fmt.capital, known)), tuple(rows))


def _groups(cast: Cast) -> Iterator[tuple[str, list[str]]]:
    yield "all models", [key for key in cast.order if cast.results.models[key].splits]
    for chain in generations.chains(cast):
        yield f"generations of {chain.name}", [key for number, key in chain.keys if number]


def values(cast: Cast, keys: Sequence[str], split: str) -> MetricValues | None:
    """One correlation for every seed that all of these models have; None where it is not defined."""
    models = [cast.results.models[key] for key in keys]
    parts = [one.splits.get(split) for one in models]
    told = []
    for seed in (seed for seed in models[0].seeds if all(seed in one.seeds for one in models)):
        pairs = [
            (part.uncertainty.values[one.seeds.index(seed)], part.accuracy.values[one.seeds.index(seed)])
            for one, part in zip(models, parts, strict=True)
            if part is not None and part.accuracy is not None
        ]
        if len(pairs) == len(models):
            told.append(spearman_value(*np.array(pairs).T))
    if not told or not np.isfinite(told).all():
        return None
    once = all(one.shared for one in models)
    std = float(np.std(told, ddof=1)) if len(told) > 1 and not once else None
    return MetricValues(values=told, mean=float(np.mean(told)), std=std)


def _cell(found: MetricValues | None) -> Cell:
    if found is None:
        return Cell(fmt.MISSING, ("not defined in every seed",))
    ends = published.interval(found)
    shown = [fmt.number(float(np.clip(end, -1, 1)), 2, plus=True) for end in ends] if ends else []
    return Cell(fmt.number(found.mean, 2, plus=True), (f"[{shown[0]}, {shown[1]}]" if shown else "no interval",))
