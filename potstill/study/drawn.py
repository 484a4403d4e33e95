"""The arrays behind a regression's figures: points, residuals, intervals, and the rows that all models miss most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.study.plotted import TargetErrors, Telling, TellingRow
from potstill.study.splits import trainings
from potstill.study.values import Errors

if TYPE_CHECKING:
    from potstill.study.collect import Reader

POINTS: Final = 400  # of one model and target, at most
BINS: Final = (11, 31)  # of residuals, at least and at most; an odd number, so that one is around zero
KEPT: Final = 0.995  # of all residuals lie inside the bins; the others count in the outermost
NOMINAL: Final = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.99)
TELLING: Final = 10  # rows that are told of one target
FEW_INPUTS: Final = 40  # numbers of an example, up to which they are told with the row


def targets(reader: Reader) -> list[str]:
    """Names of a regression's targets, in order; of a sweep over targets those of all its points."""
    return list(dict.fromkeys(name for key in reader.tree.families for name in reader.find(key).targets))


def errors(reader: Reader) -> dict[str, dict[str, TargetErrors]]:
    """Of every model and target, on test examples."""
    seeds = {key: trainings(reader.find(key)) for key in reader.tree.families}
    on = {key: family.plan.verdict.on for key, family in reader.tree.families.items()}
    names = {key: reader.find(key).targets for key, own in seeds.items() if own}
    found = {
        key: [Errors.of(reader.find(key).judged(seed, on[key])) for seed in seeds[key]] for key in names if names[key]
    }
    ends = {
        name: _end(
            [
                one.residuals[:, names[key].index(name)]
                for key, rows in found.items()
                if name in names[key]
                for one in rows
            ]
        )
        for name in targets(reader)
    }
    return {
        key: {name: _target(rows, at, seeds[key], end=ends[name]) for at, name in enumerate(names[key])}
        for key, rows in found.items()
    }


def _end(residuals: Sequence[NDArray[np.float64]]) -> float:
    """Where the bins of a target's residuals end, to either side."""
    return float(np.quantile(np.abs(np.concatenate(residuals)), KEPT)) or 1.0


def _target(rows: Sequence[Errors], at: int, seeds: Sequence[int], *, end: float) -> TargetErrors:
    first = rows[0]
    chosen = np.unique(np.linspace(0, len(first.labels) - 1, POINTS).round().astype(int))
    bins = min(max(2 * round(len(first.labels) ** (1 / 3)) + 1, BINS[0]), BINS[1])  # Rice's rule
    edges = np.linspace(-end, end, bins + 1)
    counts = [np.histogram(np.clip(one.residuals[:, at], -end, end), edges)[0].tolist() for one in rows]
    shares = [] if first.sigmas is None else [[float(one.covered(x)[at]) for x in NOMINAL] for one in rows]
    return TargetErrors(
        seeds=list(seeds),
        true=first.labels[chosen, at].tolist(),
        predicted=first.values[chosen, at].tolist(),
        edges=edges.tolist(),
        counts=counts,
        levels=list(NOMINAL) if shares else [],
        covered=shares,
    )


def worst_rows(labels: NDArray[Any], found: NDArray[Any], labelled: NDArray[np.bool_]) -> list[int]:
    """The rows with the largest residuals (n, D) of each target: twice as many as are told, in order."""
    size = np.where(labelled[:, None], np.abs(labels.astype(np.float64) - found), -1.0)
    count = min(2 * TELLING, int(labelled.sum()))
    return sorted({int(row) for column in size.T for row in np.argsort(-column, kind="stable")[:count]})


def telling(reader: Reader) -> list[Telling]:
    """For each target the test examples that all models together miss by most: the mean over models of the mean over
    seeds of the absolute residual. Where every seed has examples of its own, those of the first.
    """
    told = (_telling(reader, name) for name in targets(reader))
    return [one for one in told if one is not None]


def _telling(reader: Reader, target: str) -> Telling | None:
    """Of one target; None where models have test sets of different sizes."""
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}  # labels and values, by seed
    inputs: dict[int, list[Any]] = {}
    names: list[str] = []
    rows = np.empty(0, np.int64)
    for key, family in reader.tree.families.items():
        one, on = reader.find(key), family.plan.verdict.on
        if target not in one.targets:
            continue
        seeds = trainings(one)[: 1 if family.plan.data.redraw == "seed" else None]
        at = one.targets.index(target)
        many = [Errors.of(one.predictions[seed][on]) for seed in seeds]
        found[key] = [(part.labels[:, at], part.values[:, at]) for part in many]
        rows = np.flatnonzero(one.predictions[seeds[0]][on].labelled)
        for seed in seeds:
            told = storage.read_json(reader.root / family.units[seed] / "evaluation.json").get("telling", {}).get(on)
            if told is not None:
                names = told["names"]
                inputs |= {int(row): values for row, values in told["rows"].items()}
    if len({len(many[0][0]) for many in found.values()}) > 1:
        return None
    return Telling(target=target, inputs=names, rows=_worst(found, rows, inputs))


def _worst(
    found: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]],
    rows: NDArray[np.int64],
    inputs: Mapping[int, list[Any]],
) -> list[TellingRow]:
    score = np.mean(
        [np.mean([np.abs(labels - got) for labels, got in many], axis=0) for many in found.values()], axis=0
    )
    order = [int(place) for place in np.argsort(-score, kind="stable")[: 4 * TELLING]]
    chosen = [place for place in order if not inputs or int(rows[place]) in inputs][:TELLING]
    truth = next(iter(found.values()))[0][0]
    return [
        TellingRow(
            row=int(rows[place]),
            inputs=inputs.get(int(rows[place]), []),
            label=float(truth[place]),
            predicted={key: float(np.mean([got[place] for _, got in many])) for key, many in found.items()},
        )
        for place in chosen
    ]
