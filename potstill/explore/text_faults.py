"""What a user should look at in texts before a study: told from what was found in them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from potstill.data import declared
from potstill.explore.found import Fault, TextGroup, Texts, TextSplit
from potstill.explore.telling import GIVEAWAY, told

APART: Final = 0.1  # between the shares of texts of two groups, or two splits, that have a marker,
TIMES: Final = 3.0  # or so many times as many of one as of the other: as much as is told
LENGTH: Final = 0.25  # of the variance of the number of words that lies between groups
MORE: Final = 1.25  # times as many unknown words as among training texts
FEW: Final = 0.001  # of the texts: fewer need no word
CUT: Final = inspect.signature(declared.tokens).parameters["length"].default  # words that word ids keep by default
_PLURAL: Final = {"capitals only": "texts in capitals only"}


def faults(texts: Texts, groups: Sequence[str], chance: float) -> Iterator[Fault]:
    """All of them; `chance` is that of a difference which is taken for one."""
    yield from _giveaways(texts)
    yield from _markers(texts, groups, chance)
    yield from _drift(texts, chance)
    yield from _unknown(texts, chance)
    yield from _lengths(texts)
    yield from _writing(texts)
    yield from _twins(texts)
    if texts.others:
        what = (
            f"{', '.join(texts.others)} hold{'s' if len(texts.others) == 1 else ''} texts too; this is {texts.column}."
        )
        yield Fault(what, "Look at one of them: --text COLUMN.")


def _percent(share: float) -> str:
    """A share in percent, with a decimal below ten.

    >>> _percent(0.554), _percent(0.0144), _percent(0.0031), _percent(0.0)
    ('55 %', '1.4 %', '0.31 %', '0 %')
    """
    shown = 100 * share
    return f"{shown:.0f} %" if not share or shown >= 10 else f"{shown:.1f} %" if shown >= 1 else f"{shown:.2g} %"


def plural(marker: str) -> str:
    """ "mentions", "HTML entities"."""
    if marker in _PLURAL:
        return _PLURAL[marker]
    return f"{marker[:-1]}ies" if marker.endswith("ty") else marker if marker.endswith("s") else f"{marker}s"


def _giveaways(texts: Texts) -> Iterator[Fault]:
    for one in texts.giveaways:
        what = (
            f'The word "{one.word}" all but tells the label: {_percent(one.inside)} of the texts of {one.group} have '
            f"it, and {_percent(one.outside)} of the others."
        )
        advice = "Does it come from how the data were made? Then a model learns that, and nothing of the text."
        yield Fault(what, advice, grave=True)


def _markers(texts: Texts, groups: Sequence[str], chance: float) -> Iterator[Fault]:
    """Markers whose share differs between the groups of the training texts."""
    there = [(name, one) for name, one in zip(groups, texts.splits["train"].groups, strict=True) if one is not None]
    if len(there) < 2:
        return
    sizes = np.array([one.texts for _, one in there])
    for marker in there[0][1].markers:
        having = np.array([one.markers[marker] for _, one in there])
        shares = having / sizes
        most, least = int(shares.argmax()), int(shares.argmin())
        grave = float(told(having[None], sizes)[0]) > GIVEAWAY
        apart = _apart(shares[most], shares[least]) and _differ(having, sizes) < chance
        if not (grave or apart):
            continue
        what = (
            f"{plural(marker).capitalize() if marker.islower() else plural(marker)} are in {_percent(shares[most])} of "
            f"the training texts of {there[most][0]} and in {_percent(shares[least])} of those of {there[least][0]}."
        )
        advice = "All but a label. Take them out of the texts." if grave else (
            "A model may learn from them what it should learn from words, also where mask makes them alike."
            if marker == "mention" else "A model may learn from them what it should learn from words."
        )  # fmt: skip
        yield Fault(what, advice, grave=grave)


def _apart(more: float, less: float) -> bool:
    """Whether two shares differ by much."""
    return more - less >= APART or (more > less and more >= TIMES * less)


def _differ(having: np.ndarray, sizes: np.ndarray) -> float:
    """The chance of shares as different as these (chi squared)."""
    from scipy.stats import chi2_contingency

    counts = np.stack([having, sizes - having])
    return float(chi2_contingency(counts).pvalue) if counts.sum(1).all() else 1.0


def _drift(texts: Texts, chance: float) -> Iterator[Fault]:
    """Markers whose share in another split differs from that of the training texts."""
    train = texts.splits["train"].whole
    for name, one in texts.splits.items():
        for marker, count in one.whole.markers.items():
            here, there = count / max(one.whole.texts, 1), train.markers[marker] / max(train.texts, 1)
            having = np.array([count, train.markers[marker]])
            if (
                not _apart(max(here, there), min(here, there))
                or _differ(having, np.array([one.whole.texts, train.texts])) >= chance
            ):
                continue
            what = (
                f"{plural(marker)} are in {_percent(here)} of the texts of {name}, and in {_percent(there)} of train."
            )
            yield Fault(what[0].upper() + what[1:], "These texts were written, or chosen, in another way.")


def _unknown(texts: Texts, chance: float) -> Iterator[Fault]:
    """Splits with another share of unknown words than training texts have among themselves."""
    from scipy.stats import norm

    train, bound = texts.splits["train"], float(norm.isf(chance / 2))
    for name, one in texts.splits.items():
        error = math.hypot(one.error, train.error)
        ratio = one.unknown / train.unknown if train.unknown else math.inf
        if name == "train" or not error or abs(one.unknown - train.unknown) <= bound * error:
            continue
        if 1 / MORE < ratio < MORE:
            continue
        more = "more" if ratio > 1 else "fewer"
        what = (
            f"{_percent(one.unknown)} of the words of {name} are in no training text; of a training text, "
            f"{_percent(train.unknown)} are in no other. That is {more} than chance makes."
        )
        advice = (
            "Texts of another time or topic: how a model does on them tells less of how it does on texts as in train."
        )
        yield Fault(what, advice if ratio > 1 else "Are these texts nearly those of train? Look at the duplicates.")


def _lengths(texts: Texts) -> Iterator[Fault]:
    if texts.length_told is not None and texts.length_told > LENGTH:
        what = f"The number of words alone tells {_percent(texts.length_told)} of the label."
        yield Fault(what, "Is that so where the model will be used? A text that is cut or padded tells its class too.")
    empty = {name: one.whole.empty for name, one in texts.splits.items() if one.whole.empty}
    if empty:
        what = f"Texts without any word: {_counts(empty)}."
        yield Fault(what, "Every model answers the same for them; leave them out.")
    long = {name: _longer(texts, one) for name, one in texts.splits.items()}
    if long["train"] > FEW * 10:
        what = f"{_percent(long['train'])} of the training texts have more than {CUT} words."
        yield Fault(what, f"Word ids (tokens) keep the first {CUT}; set length to keep more.")


def _longer(texts: Texts, one: TextSplit) -> float:
    """The share of texts with more words than are kept; 0 where the figure's bins cannot tell."""
    if one.whole.words.greatest <= CUT:
        return 0.0
    edges = np.array(texts.edges)
    inside = np.array(one.counts)[edges[:-1] >= CUT].sum()
    return float(inside / max(one.whole.texts, 1))


def _writing(texts: Texts) -> Iterator[Fault]:
    for marker, advice in {
        "HTML entity": "They were not turned back into signs (html.unescape): words are cut at them.",
        "HTML tag": "They are cut into words like others; take them out.",
        "broken characters": "The file was once read in another encoding than it was written in. Mend it.",
    }.items():
        having = _having(texts.splits, marker)
        train: TextGroup = texts.splits["train"].whole
        if train.markers[marker] > FEW * train.texts:
            what = f"Texts with {plural(marker)}: {_counts(having)}."
            yield Fault(what, advice)


def _having(splits: Mapping[str, TextSplit], marker: str) -> dict[str, int]:
    return {name: count for name, one in splits.items() if (count := one.whole.markers[marker])}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} in {name}" for name, count in counts.items())


def _twins(texts: Texts) -> Iterator[Fault]:
    """One for texts within splits, and one for those of two splits."""
    for number, advice in (
        (1, "Long ones are copies, and should be there once."),
        (2, "Of long ones a model has seen the answer before it is judged."),
    ):
        told = [one for one in texts.twins if len(one.splits) == number]
        if not told:
            continue
        where = "There before" if number == 1 else "In two splits"
        counts = ", ".join(f"{one.extra:,} in {' and '.join(one.splits)}{_clash(one.conflicts)}" for one in told)
        what = f"{where} but for case, mentions, links, blanks and signs: {counts}."
        yield Fault(what, f"Short texts may well be equal. {advice}")


def _clash(conflicts: int) -> str:
    return f" ({conflicts:,} with another label)" if conflicts else ""
