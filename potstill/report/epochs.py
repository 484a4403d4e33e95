"""Which epoch's weights each model kept, beside the baseline's and the published ones."""

from __future__ import annotations

from typing import Final

import numpy as np

from potstill.report import format as fmt
from potstill.report import published
from potstill.report.names import Cast
from potstill.report.tables import Cell, Table, who
from potstill.study.measured import BEST_EPOCH, BestEpoch
from potstill.study.results import MetricValues

_DIGITS: Final = 3
_SEEDS: Final = 10  # that are told one by one


def table(cast: Cast) -> Table | None:
    """A row for every model that picked its weights; None without one."""
    found = {key: cast.results.models[key].best for key in cast.order}
    known = {key: best for key, best in found.items() if best is not None}
    if not known:
        return None
    printed = any(cast.published(BEST_EPOCH, key) for key in known)
    columns = ["Model", "Best epoch", "Of epochs", "Best by validation"]
    columns += ["Against the baseline"] if cast.results.baseline else []
    columns += ["Published"] if printed else []
    rows = []
    for key, best in known.items():
        row = [who(cast, key), _epoch(best), Cell(fmt.number(best.epochs.mean, _DIGITS))]
        row.append(Cell(fmt.metric_name(best.metric)))
        row += [_against(cast, key, best)] if cast.results.baseline else []
        row += [_published(cast, key)] if printed else []
        rows.append(tuple(row))
    caption = (
        "The epoch whose weights were kept: of the best on validation data the first; mean ± standard deviation over "
        "seeds, differences with Student's 95 % interval over seeds, each for itself"
    )
    return Table(caption, tuple(columns), tuple(rows), frozenset({0, 3}))


def _epoch(best: BestEpoch) -> Cell:
    values, std = best.epoch.values, best.epoch.std
    notes = [f"± {fmt.number(std, _DIGITS)}"] if std is not None else []
    if std is not None and len(values) <= _SEEDS:
        notes.append("seed by seed: " + ", ".join(f"{value:g}" for value in values))
    return Cell(fmt.number(best.epoch.mean, _DIGITS), tuple(notes))


def _against(cast: Cast, key: str, best: BestEpoch) -> Cell:
    base = cast.baseline(key)
    if cast.is_baseline(key):
        return Cell("baseline", kind="quiet")
    other = cast.results.models[base].best if base in cast.results.models else None
    if base is None or other is None:
        return Cell(fmt.MISSING)
    ours, theirs = (dict(zip(cast.results.models[k].seeds, b.epoch.values, strict=True))
                    for k, b in ((key, best), (base, other)))  # fmt: skip
    gaps = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not gaps:
        return Cell(fmt.MISSING)
    once = cast.results.models[key].shared and cast.results.models[base].shared
    std = float(np.std(gaps, ddof=1)) if len(gaps) > 1 and not once else None
    ends = published.interval(MetricValues(values=gaps, mean=float(np.mean(gaps)), std=std))
    shown = "no interval" if ends is None else "[{}, {}]".format(*(fmt.number(x, _DIGITS, plus=True) for x in ends))
    return Cell(fmt.number(float(np.mean(gaps)), _DIGITS, plus=True), (shown,))


def _published(cast: Cast, key: str) -> Cell:
    found = cast.published(BEST_EPOCH, key)
    return Cell("; ".join(f"{value:g} {cast.mark(at)}".rstrip() for at, value in found) or fmt.MISSING)
