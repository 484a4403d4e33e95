"""A column of texts: lengths, vocabulary, markers, what is there twice but for its writing, examples."""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.data.text import words_of
from potstill.explore import telling, twins
from potstill.explore.columns import correlation_ratio
from potstill.explore.found import Floats, Lengths, TextExample, TextGroup, Texts, TextSplit, Twins
from potstill.explore.gather import Gathered, Rows
from potstill.explore.projection import chosen

PER_GROUP: Final = 6  # examples of each group that are shown
LONGEST: Final = 5
BINS: Final = 24
_MOST: Final = 0.999  # of the texts of a split; longer ones are in the last bin
_LINK: Final = re.compile(r"(?:https?://|www\.)\S+")
_LETTER: Final = re.compile(r"\w")


def _pattern(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).search


MARKERS: Final[Mapping[str, Callable[[str], object]]] = {
    "mention": _pattern(r"@\w"),
    "link": _pattern(r"https?://|www\.\w"),
    "hashtag": _pattern(r"#\w"),
    "HTML entity": _pattern(r"&(?:[a-zA-Z]+|#\d+|#x[0-9a-fA-F]+);"),
    "HTML tag": _pattern(r"</?[a-zA-Z][^<>]*>"),
    "smiley": _pattern(r"[:;=][-o']?[()\[\]DPp]|[()][-o']?[:;=]|<3|[\u2639-\u263b\U0001f300-\U0001faff]"),
    "digit": _pattern(r"\d"),
    "capitals only": str.isupper,
    "broken characters": _pattern(r"\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac"),
}


class Cut(NamedTuple):
    """Texts of a split in words: `ids` (m,) of all words, one text after the other, -1 for one that no training text
    has; `starts` (n + 1,) of the texts."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) words of each text."""
        return np.diff(self.starts)

    @property
    def text(self) -> NDArray[np.int64]:
        """(m,) the text of each word."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)


def texts(found: Gathered, equal: Sequence[Twins]) -> Texts | None:
    """What the first column of texts holds; None where there is none. `equal`: examples that are there twice."""
    if not found.texts:
        return None
    column, *others = found.texts
    written = {name: texts_of(rows) for name, rows in found.splits.items()}
    vocabulary: dict[str, int] = {}
    cuts = {"train": cut(written["train"], vocabulary, grow=True)}
    cuts |= {name: cut(one, vocabulary) for name, one in written.items() if name != "train"}
    train, groups = cuts["train"], found.train.groups
    counted = telling.count(train.ids, train.text, groups, len(vocabulary), len(found.groups))
    edges = _edges(cuts)
    nearly = twins.twins(
        found,
        {name: alike(one) for name, one in written.items()},
        sizes={name: one.lengths for name, one in cuts.items()},
    )
    words = tuple(vocabulary)
    return Texts(
        column=column,
        others=tuple(others),
        vocabulary=len(vocabulary),
        once=int((counted.spread == 1).sum()),
        edges=tuple(edges.tolist()),
        splits={
            name: _split(written[name], cuts[name], rows.groups, groups=len(found.groups), edges=edges,
                         least=counted.spread if name == "train" else None)
            for name, rows in found.splits.items()
        },
        frequent=telling.frequent(counted, words),
        telling=telling.telling(counted, words),
        giveaways=telling.giveaways(counted, words, found.groups),
        length_told=correlation_ratio(train.lengths.astype(np.float64), groups),
        twins=nearly,
        examples=_examples(found, written["train"]),
        against=_against(found, written["train"], train, counted),
        longest=_longest(found, written["train"], train),
        shown={
            f"{split} {row}": found.splits[split].source.texts[row]
            for one in (*equal, *nearly) for pair in one.shown for split, row in pair
        },
    )  # fmt: skip


def texts_of(rows: Rows) -> list[str]:
    """The texts of a split."""
    return [rows.source.texts[row] for row in rows.places.tolist()]


def cut(texts: Sequence[str], vocabulary: dict[str, int], *, grow: bool = False) -> Cut:
    """Words by number; with `grow`, words that are new get the next one."""
    ids: list[int] = []
    starts = [0]
    for text in texts:
        words = words_of(text, mask=True)
        if grow:
            ids += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        else:
            ids += [vocabulary.get(word, -1) for word in words]
        starts.append(len(ids))
    return Cut(np.array(ids, np.int64), np.array(starts, np.int64))


def alike(texts: Sequence[str]) -> NDArray[np.uint8]:
    """(n, 32) uint8: sha256 of each text as `normal` writes it."""
    joined = b"".join(hashlib.sha256(normal(text).encode("utf-8", "surrogatepass")).digest() for text in texts)
    return np.frombuffer(bytearray(joined), np.uint8).reshape(-1, 32)


def normal(text: str) -> str:
    """Its words in lower case, with one word for every mention and one for every link, without signs.

    A text of signs alone is those, and HTML entities are what they stand for.

    >>> normal("@ann &lt;3 THIS... http://t.co/x1")
    '@user 3 this http'
    """
    words = words_of(_LINK.sub("http", html.unescape(text)), mask=True)
    return " ".join([word for word in words if _LETTER.search(word)] or words)


def _edges(cuts: Mapping[str, Cut]) -> Floats:
    """Of bins that hold whole numbers of words, the last one those of all longer texts."""
    most = max((int(np.quantile(one.lengths, _MOST)) for one in cuts.values() if len(one.lengths)), default=1)
    width = max(1, math.ceil((most + 1) / BINS))
    return np.asarray(np.arange(0, most + width + 1, width) - 0.5, np.float64)


def _split(
    written: Sequence[str],
    one: Cut,
    group: NDArray[np.int64],
    *,
    groups: int,
    edges: Floats,
    least: NDArray[np.int64] | None,
) -> TextSplit:
    """`least`: of a training split, in how many texts each word is."""
    unknown = one.ids < 0 if least is None else least[one.ids] == 1
    share, error = _ratio(
        np.bincount(one.text, unknown, len(one.lengths)).astype(np.float64), one.lengths.astype(np.float64)
    )
    marks = {name: np.array([bool(has(text)) for text in written], bool) for name, has in MARKERS.items()}
    characters = np.array([len(text) for text in written], np.int64)
    counts = np.histogram(np.minimum(one.lengths, edges[-1] - 0.5), edges)[0]

    def told(rows: NDArray[Any]) -> TextGroup:
        having = {name: int(has[rows].sum()) for name, has in marks.items()}
        words = one.lengths[rows]
        return TextGroup(len(rows), _lengths(words), _lengths(characters[rows]), int((words == 0).sum()), having)

    every = (np.flatnonzero(group == k) for k in range(groups))
    return TextSplit(
        told(np.arange(len(written))),
        tuple(told(rows) if len(rows) else None for rows in every),
        len(one.ids),
        share,
        error,
        tuple(map(int, counts)),
    )


def _lengths(numbers: NDArray[np.int64]) -> Lengths:
    least, low, median, high, greatest = np.quantile(numbers, [0, 0.05, 0.5, 0.95, 1]).tolist()
    return Lengths(least, low, median, high, greatest, float(numbers.mean()))


def _ratio(some: Floats, of: Floats) -> tuple[float, float]:
    """The ratio of two sums over texts, and its standard error (by the delta method)."""
    total = float(of.sum())
    if not total:
        return 0.0, 0.0
    ratio = float(some.sum()) / total
    return ratio, float(np.sqrt(((some - ratio * of) ** 2).sum())) / total


def _examples(found: Gathered, written: Sequence[str]) -> tuple[tuple[TextExample, ...], ...]:
    """Training texts of each group, drawn at random."""
    train = found.train
    order = chosen(len(train), len(train))
    return tuple(
        tuple(_example(found, written, int(row)) for row in order[train.groups[order] == k][:PER_GROUP])
        for k in range(len(found.groups))
    )


def _example(found: Gathered, written: Sequence[str], row: int) -> TextExample:
    group = int(found.train.groups[row])
    return TextExample(int(found.train.places[row]), found.groups[group] if group >= 0 else "", written[row])


def _against(found: Gathered, written: Sequence[str], train: Cut, counted: telling.Counted) -> tuple[TextExample, ...]:
    """Training texts that read most like another group."""
    return tuple(
        replace(_example(found, written, row), like=found.groups[like], by=by)
        for row, like, by in telling.against(train.ids, train.text, found.train.groups, counted)
    )


def _longest(found: Gathered, written: Sequence[str], train: Cut) -> tuple[TextExample, ...]:
    order = np.argsort(-train.lengths, kind="stable")[:LONGEST]
    return tuple(_example(found, written, int(row)) for row in order)
