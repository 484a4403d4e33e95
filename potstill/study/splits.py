"""What a model does on every evaluated split, and for every class: uncertainty, accuracy, prediction frequencies."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill import metrics
from potstill.evaluation import Predictions
from potstill.study.measured import ClassMeasures, MetricValues, SplitMeasures
from potstill.study.plotted import Frequencies

if TYPE_CHECKING:
    from potstill.study.collect import Found

MOST_CLASSES: Final = 20  # above this nothing is told class by class
DRAWN_CLASSES: Final = 4  # above this no histogram of a single class is drawn
EVERY: Final = ""  # the class column of a row about all examples


def values(found: Sequence[float], *, once: bool) -> MetricValues:
    """One value per seed. One training that stands for every seed (`once`) has no spread."""
    std = float(np.std(found, ddof=1)) if len(found) > 1 and not once else None
    return MetricValues(values=[float(value) for value in found], mean=float(np.mean(found)), std=std)


def measures(found: Found, names: Sequence[str], classes: Sequence[str]) -> dict[str, SplitMeasures]:
    """The splits of `names` for which every seed has predictions."""
    told = {}
    for name in names:
        if found.seeds and all(name in found.predictions[seed] for seed in found.seeds):
            told[name] = _measures([_Parts(found.predictions[seed][name]) for seed in found.seeds], found, classes)
    return told


class _Parts:
    """One seed's numbers per example."""

    def __init__(self, one: Predictions) -> None:
        width = one.log_probs.shape[1]
        self.labels = np.where(one.labelled, one.labels, -1)
        self.uncertainty = metrics.get("uncertainty", classes=width).phi(one.log_probs, one.labels)[:, 0]
        self.right = np.asarray(one.log_probs.argmax(axis=1) == self.labels, np.float64)

    def rows(self, number: int | None) -> NDArray[np.bool_]:
        """The labelled examples, or those of one class."""
        return np.asarray(self.labels >= 0 if number is None else self.labels == number)


def _measures(seeds: Sequence[_Parts], found: Found, classes: Sequence[str]) -> SplitMeasures:
    once = found.family.settings["shared"]

    def accuracy(number: int | None) -> MetricValues:
        return values([one.right[one.rows(number)].mean() for one in seeds], once=once)

    told = {}
    for number, name in enumerate(classes if len(classes) <= MOST_CLASSES else ()):
        if all(one.rows(number).any() for one in seeds):
            uncertain = values([one.uncertainty[one.rows(number)].mean() for one in seeds], once=once)
            count = int(seeds[0].rows(number).sum())
            told[name] = ClassMeasures(examples=count, accuracy=accuracy(number), uncertainty=uncertain)
    return SplitMeasures(
        examples=len(seeds[0].labels),
        labelled=int(seeds[0].rows(None).sum()),
        accuracy=accuracy(None) if all(one.rows(None).any() for one in seeds) else None,
        uncertainty=values([one.uncertainty.mean() for one in seeds], once=once),
        classes=told,
    )


def frequencies(found: Found, split: str, classes: Sequence[str]) -> Frequencies | None:
    """The histogram of every training on a split; None where one has no predictions."""
    seeds = trainings(found)
    if not seeds or not all(split in found.predictions[seed] for seed in seeds):
        return None
    counts: list[list[int]] = []
    told: dict[str, list[list[int]]] = {name: [] for name in classes} if len(classes) <= MOST_CLASSES else {}
    for seed in seeds:
        one = found.predictions[seed][split]
        chosen = metrics.probability(one.log_probs)
        counts.append(metrics.frequencies(chosen).tolist())
        for number, rows in enumerate(told.values()):
            rows.append(metrics.frequencies(chosen[one.labelled & (one.labels == number)]).tolist())
    return Frequencies(seeds=seeds, low=metrics.lows(), counts=counts, classes=told)


def drawn(one: Frequencies) -> Frequencies:
    """What a figure needs of it."""
    return one if len(one.classes) <= DRAWN_CLASSES else one.model_copy(update={"classes": {}})


def trainings(found: Found) -> list[int]:
    """The seeds with a training of their own: one for a model that all share."""
    first: dict[str, int] = {}
    for seed in found.seeds:
        first.setdefault(found.family.units[seed], seed)
    return list(first.values())


def frequency_table(found: Mapping[str, Mapping[str, Frequencies]]) -> str:
    """CSV, one row per model, seed, split, class and bin; the class is empty in rows about all examples."""
    head = ("model", "seed", "split", "class", "bin_low", "bin_high", "count", "share")
    return _csv(head, _frequency_rows(found))


def _frequency_rows(found: Mapping[str, Mapping[str, Frequencies]]) -> Iterator[tuple[Any, ...]]:
    for key, by_split in found.items():
        for split, one in by_split.items():
            ends = [*one.low[1:], 1.0]
            for name, seeds in {EVERY: one.counts, **one.classes}.items():
                for seed, counts in zip(one.seeds, seeds, strict=True):
                    total = sum(counts) or 1
                    for low, high, count in zip(one.low, ends, counts, strict=True):
                        yield key, seed, split, name, f"{low:.2f}", f"{high:.2f}", count, f"{count / total:.6g}"


def uncertainty_table(found: Mapping[str, tuple[list[int], Mapping[str, SplitMeasures]]]) -> str:
    """CSV, one row per model, seed, split and class; `found` is, per model, its seeds and what they do."""
    head = ("model", "seed", "split", "class", "examples", "labelled", "uncertainty", "accuracy")
    return _csv(head, _uncertainty_rows(found))


def _uncertainty_rows(
    found: Mapping[str, tuple[list[int], Mapping[str, SplitMeasures]]],
) -> Iterator[tuple[Any, ...]]:
    for key, (seeds, by_split) in found.items():
        for split, whole in by_split.items():
            rows: dict[str, SplitMeasures | ClassMeasures] = {EVERY: whole, **whole.classes}
            for name, one in rows.items():
                labelled = one.labelled if isinstance(one, SplitMeasures) else one.examples
                for at, seed in enumerate(seeds):
                    accuracy = "" if one.accuracy is None else f"{one.accuracy.values[at]:.6g}"
                    uncertain = f"{one.uncertainty.values[at]:.6g}"
                    yield key, seed, split, name, one.examples, labelled, uncertain, accuracy


def _csv(head: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
