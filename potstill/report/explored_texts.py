"""The part of a data set's page that is about texts: lengths, markers, words of each group, examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from potstill.explore.found import Exploration, Lengths, TextExample, TextGroup, Texts, Word
from potstill.report import explored_figures as figures
from potstill.report import format as fmt
from potstill.report.sections import Ids
from potstill.report.tables import Cell, Table, cells

LONGEST: Final = 300  # characters of a text that are shown
GROUPS: Final = 20  # whose words and examples are not folded away


@dataclass(frozen=True)
class TextSection:
    """What the page shows of texts. `folded` are the examples of further groups."""

    column: str
    others: tuple[str, ...]
    figure: Markup
    lengths: Table
    markers: Table
    vocabulary: Table
    words: Table
    examples: list[Table]
    folded: list[Table]
    against: Table | None
    longest: Table


def section(found: Exploration, ids: Ids) -> TextSection | None:
    """None where the data are no texts."""
    texts = found.texts
    if texts is None:
        return None
    counts = {name: one.counts for name, one in texts.splits.items()}
    examples = [
        _examples(f"Training texts of {name}", some)
        for name, some in zip(found.groups, texts.examples, strict=True)
        if some
    ]
    return TextSection(
        column=texts.column,
        others=texts.others,
        figure=figures.histogram(texts.edges, counts, prefix=ids.new("words"), of="texts", value="words of a text"),
        lengths=_lengths(texts, found.groups),
        markers=_markers(texts, found.groups),
        vocabulary=_vocabulary(texts),
        words=_words(texts, found.groups),
        examples=examples[:GROUPS],
        folded=examples[GROUPS:],
        against=_against(texts.against) if texts.against else None,
        longest=_examples("Texts with the most words", texts.longest),
    )


def _rows(texts: Texts, groups: Sequence[str]) -> Iterable[tuple[str, str, TextGroup]]:
    """Split, group and what was counted: all texts of a split, then those of each group."""
    for split, one in texts.splits.items():
        yield split, "all", one.whole
        for name, mine in zip(groups, one.groups, strict=True):
            if mine is not None:
                yield split, name, mine


def _lengths(texts: Texts, groups: Sequence[str]) -> Table:
    rows = [
        cells(split, group, fmt.count(one.texts), *_range(one.words), *_range(one.characters), fmt.count(one.empty))
        for split, group, one in _rows(texts, groups)
    ]
    head = (
        "Split",
        "Texts of",
        "Texts",
        "Words, median",
        "5 to 95 %",
        "most",
        "Characters, median",
        "5 to 95 %",
        "most",
    )
    return Table("How long texts are", (*head, "Without a word"), tuple(rows), frozenset({0, 1}))


def _range(one: Lengths) -> tuple[str, str, str]:
    return fmt.count(one.median), f"{fmt.count(one.low)} to {fmt.count(one.high)}", fmt.count(one.greatest)


def _markers(texts: Texts, groups: Sequence[str]) -> Table:
    train = texts.splits["train"]
    there = [(name, one) for name, one in zip(groups, train.groups, strict=True) if one is not None][:GROUPS]
    splits = [(name, one.whole) for name, one in texts.splits.items()]
    shown = [*((f"train, {name}", one) for name, one in there), *splits]
    rows = [
        (Cell(fmt.capital(marker)), *(Cell(percent(one.markers[marker] / max(one.texts, 1))) for _, one in shown))
        for marker in train.whole.markers
        if any(one.markers[marker] for _, one in shown)
    ]
    return Table("Share of texts that have", ("", *(name for name, _ in shown)), tuple(rows))


def percent(share: float) -> str:
    """A share in percent, two digits where it is small.

    >>> percent(0.554), percent(0.0031), percent(0.0)
    ('55.4 %', '0.31 %', '0 %')
    """
    return "0 %" if not share else f"{100 * share:.1f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def _vocabulary(texts: Texts) -> Table:
    rows = [
        cells(name, fmt.count(one.tokens), f"{percent(one.unknown)} ± {100 * one.error:.2f}")
        for name, one in texts.splits.items()
    ]
    caption = (
        f"{fmt.count(texts.vocabulary)} different words in training texts, {fmt.count(texts.once)} of them in one text "
        "only"
    )
    return Table(caption, ("Split", "Words", "In no other training text"), tuple(rows))


def _words(texts: Texts, groups: Sequence[str]) -> Table:
    rows = [
        (Cell(name), Cell(_list(telling)), Cell(_list(frequent)))
        for name, telling, frequent in zip(groups, texts.telling, texts.frequent, strict=True)
    ]
    columns = ("Texts of", "Words that tell them from the others", "Words that most of them have")
    return Table("Words of training texts", columns, tuple(rows), frozenset({0, 1, 2}), "texts")


def _list(words: Sequence[Word]) -> str:
    told = (f"{fmt.shorten(one.word, 24)} {_bare(one.inside)} | {_bare(one.outside)}" for one in words)
    return ",  ".join(told) or fmt.MISSING


def _bare(share: float) -> str:
    return percent(share).removesuffix(" %")


def shown(text: str) -> str:
    """A text, cut where it is long."""
    return (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…") or "(empty)"


def _examples(caption: str, some: Sequence[TextExample]) -> Table:
    rows = [(Cell(shown(one.text)), Cell(one.group or fmt.MISSING), Cell(fmt.count(one.row))) for one in some]
    return Table(caption, ("Text", "Is", "Row"), tuple(rows), frozenset({0, 1}), "texts")


def _against(some: Sequence[TextExample]) -> Table:
    rows = [
        (Cell(shown(one.text)), Cell(one.group), Cell(one.like), Cell(fmt.number(one.by, 3)), Cell(fmt.count(one.row)))
        for one in some
    ]
    columns = ("Text", "Is", "Reads like", "By", "Row")
    return Table("Training texts that read like another group", columns, tuple(rows), frozenset({0, 1, 2}), "texts")
