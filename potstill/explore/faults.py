"""What a user should look at before a study: told from what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from potstill.explore import text_faults
from potstill.explore.found import Column, Fault, Near, Split, Texts, Twins, Values

IMBALANCE: Final = 3.0  # the largest class against the smallest
FEW: Final = 10  # labelled examples of a class
TELLING: Final = 0.98  # of the label: a column that all but is the label
DRIFT: Final = 1e-4  # chance with which shares of classes as different as these would be drawn
_SHOWN: Final = 6
_BORDER: Final = 0.5  # of all places, that centred pictures may well have for a border


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def faults(
    *,
    splits: Mapping[str, Split],
    groups: Sequence[str],
    regression: bool,
    columns: Sequence[Column],
    values: Values | None,
    twins: Sequence[Twins],
    near: Sequence[Near],
    notes: Sequence[str],
    features: int,
    texts: Texts | None = None,
) -> tuple[Fault, ...]:
    """All of them, grave ones first."""
    found = [
        *(Fault(note, "") for note in notes),
        *_twins(twins),
        *_near(near),
        *_unlabelled(splits),
        *([] if regression else _classes(splits, groups)),
        *_columns(columns),
        *_values(values, columns, features),
        *([] if texts is None else text_faults.faults(texts, groups, DRIFT)),
    ]
    return tuple(sorted(found, key=lambda fault: not fault.grave))


def _are(count: int, of: str) -> str:
    return f"{count:,} examples of {of} are" if count != 1 else f"1 example of {of} is"


def _clashing(conflicts: int) -> str:
    return f", {conflicts:,} of them with another label" if conflicts else ""


def _twins(twins: Sequence[Twins]) -> Iterator[Fault]:
    for one in twins:
        if len(one.splits) == 2:
            what = f"{_are(one.extra, one.splits[1])} in {one.splits[0]} too{_clashing(one.conflicts)}."
            yield Fault(what, "A model is judged by what it has seen: leave one of each pair out.", grave=True)
        else:
            what = f"{_are(one.extra, one.splits[0])} there before{_clashing(one.conflicts)}."
            advice = "Labels that contradict each other cannot both be learnt." if one.conflicts else (
                "Repeated examples weigh more, and may fall on both sides of a split that is drawn anew."
            )  # fmt: skip
            yield Fault(what, advice, grave=bool(one.conflicts))


def _near(near: Sequence[Near]) -> Iterator[Fault]:
    for one in near:
        what = (
            f"{_are(one.count, one.splits[1])} nearly in train (nearer than "
            f"{one.radius / one.typical:.0%} of the distance of any two){_clashing(one.conflicts)}."
        )
        yield Fault(what, "Look whether they are the same thing taken twice; then one of each pair should go.")


def _classes(splits: Mapping[str, Split], groups: Sequence[str]) -> Iterator[Fault]:
    train = splits["train"].per_group
    present = [count for count in train if count]
    if present and max(present) > IMBALANCE * min(present):
        most, least = groups[int(np.argmax(train))], groups[int(np.argmin(np.where(np.array(train), train, np.inf)))]
        what = f"{most} has {max(present) / min(present):.3g} times as many training labels as {least}."
        yield Fault(what, "Accuracy is then mostly about the large classes; macro F1 weighs all alike.")
    few = [name for name, count in zip(groups, train, strict=True) if count < FEW]
    if few:
        what = f"Fewer than {FEW} training labels: {listed(few)}."
        yield Fault(what, "What is learnt of such a class is little more than these examples.", grave=True)
    for name, split in splits.items():
        missing = [g for g, here, there in zip(groups, split.per_group, train, strict=True) if there and not here]
        if name != "train" and missing and split.labelled:
            what = f"{name} has no example of {listed(missing)}."
            yield Fault(what, "What a model does on such a class is not measured.", grave=True)
    yield from _drift(splits)


def _unlabelled(splits: Mapping[str, Split]) -> Iterator[Fault]:
    for name, split in splits.items():
        if split.labelled < split.examples:
            what = f"{split.examples - split.labelled:,} of {split.examples:,} examples of {name} carry no label."
            yield Fault(what, "A teacher can answer for them; hard labels cannot be learnt from them.")


def _drift(splits: Mapping[str, Split]) -> Iterator[Fault]:
    """Splits whose classes have other shares than those of the training split."""
    from scipy.stats import chi2_contingency

    train = np.array(splits["train"].per_group)
    for name, split in splits.items():
        counts = np.stack([train, np.array(split.per_group)])
        counts = counts[:, counts.sum(0) > 0]
        if name == "train" or counts.shape[1] < 2 or not counts.sum(1).all():
            continue
        if chi2_contingency(counts).pvalue < DRIFT:
            yield Fault(
                f"The classes have other shares in {name} than in train.",
                "A model that takes the training shares for granted is judged by others.",
            )


def _columns(columns: Sequence[Column]) -> Iterator[Fault]:
    constant = [one.name for one in columns if one.different <= 1]
    if constant:
        yield Fault(f"The same in all training examples: {listed(constant)}.", "They tell nothing; drop them.")
    for one in columns:
        told = {name: count for name, count in one.missing.items() if count}
        if told:
            where = ", ".join(f"{count:,} in {name}" for name, count in told.items())
            yield Fault(
                f"{one.name}: no value ({where}).", "Numbers are filled with the mean and flagged; words are a word."
            )
        if one.told is not None and one.told > TELLING:
            what = f"{one.name} all but tells the label ({one.told:.1%} of it)."
            yield Fault(what, "Is it known when a prediction is made? If not, drop it.", grave=True)


def _values(values: Values | None, columns: Sequence[Column], features: int) -> Iterator[Fault]:
    if values is None:
        return
    if values.blank:
        what = f"{values.blank:,} example{'s hold' if values.blank != 1 else ' holds'} one number alone."
        yield Fault(what, "Look at them: blank pictures teach nothing.")
    if values.constant > features * _BORDER and not columns:
        what = f"{values.constant:,} of {features:,} places hold the same number in all training examples."
        yield Fault(what, "They tell nothing. Is a part of the pictures missing, or all of one colour?")
