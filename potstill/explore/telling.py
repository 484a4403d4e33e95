"""Which words tell a group of texts from the others, counted in texts; and which texts read like another group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.explore.found import Floats, Telling, Word

WORDS: Final = 15  # of each group, of either kind
AGAINST: Final = 10  # texts
GIVEAWAY: Final = 0.5  # of the label: a word that tells more all but gives it away
_HALF: Final = 0.5  # added to counts of texts, so that a word that a group lacks has finite odds


class Counted(NamedTuple):
    """`with_word` (V, K): texts of each group that have a word; `texts` (K,): texts of each group; `spread` (V,): texts
    with the word, also those without a label."""

    with_word: NDArray[np.int64]
    texts: NDArray[np.int64]
    spread: NDArray[np.int64]


def count(
    ids: NDArray[np.int64], text: NDArray[np.int64], group: NDArray[np.int64], words: int, groups: int
) -> Counted:
    """Of training texts: `ids` (m,) of all words, the `text` (m,) of each, and the `group` (n,) of each text."""
    word, of = _once(ids, text, words)
    there = group[of] >= 0
    with_word = np.bincount(word[there] * groups + group[of][there], minlength=words * groups).reshape(words, groups)
    return Counted(with_word, np.bincount(group[group >= 0], minlength=groups), np.bincount(word, minlength=words))


def _once(ids: NDArray[np.int64], text: NDArray[np.int64], words: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every word of a text once: words and their texts."""
    pairs = np.unique(text * words + ids)
    return pairs % max(words, 1), pairs // max(words, 1)


def odds(counted: Counted, group: int) -> Floats:
    """(V,) z of each word's log odds ratio, texts of a group against those of the others, with half a text added.

    Positive where the group has it more often (Monroe, Colaresi and Quinn 2008, "Fightin' words", equations 16 to 22,
    with counts of texts and a prior of one half).
    """
    inside = counted.with_word[:, group].astype(np.float64)
    outside = counted.with_word.sum(1) - inside
    size = float(counted.texts[group])
    rest = float(counted.texts.sum()) - size
    cells = np.stack([inside, size - inside, outside, rest - outside]) + _HALF
    ratio = np.log(cells[0]) - np.log(cells[1]) - np.log(cells[2]) + np.log(cells[3])
    found: Floats = ratio / np.sqrt((1 / cells).sum(0))
    return found


def telling(counted: Counted, words: Sequence[str]) -> tuple[tuple[Word, ...], ...]:
    """Of each group the words that tell it from the others, the surest first."""
    found = []
    for group in range(len(counted.texts)):
        z = odds(counted, group)
        order = [row for row in np.argsort(-z, kind="stable")[:WORDS].tolist() if z[row] > 0]
        found.append(tuple(_word(counted, words, row, group, z=float(z[row])) for row in order))
    return tuple(found)


def frequent(counted: Counted, words: Sequence[str]) -> tuple[tuple[Word, ...], ...]:
    """Of each group the words that most of its texts have."""
    found = []
    for group in range(len(counted.texts)):
        having, z = counted.with_word[:, group], odds(counted, group)
        order = [row for row in np.argsort(-having, kind="stable")[:WORDS].tolist() if having[row]]
        found.append(tuple(_word(counted, words, row, group, z=float(z[row])) for row in order))
    return tuple(found)


def _word(counted: Counted, words: Sequence[str], row: int, group: int, *, z: float) -> Word:
    inside, outside = _shares(counted, row, group)
    return Word(words[row], inside, outside, z)


def _shares(counted: Counted, row: int, group: int) -> tuple[float, float]:
    having, size = int(counted.with_word[row, group]), int(counted.texts[group])
    rest, others = int(counted.with_word[row].sum()) - having, int(counted.texts.sum()) - size
    return having / max(size, 1), rest / max(others, 1)


def told(with_word: NDArray[np.int64], texts: NDArray[np.int64]) -> Floats:
    """(V,) how much a word's presence tells of the group: Cramer's V squared of two by K counts; 0 for one everywhere.

    `with_word` (V, K) of `texts` (K,).
    """
    size = texts[texts > 0].astype(np.float64)
    share = with_word[:, texts > 0] / size
    mean = with_word.sum(1) / max(size.sum(), 1)
    varies = mean * (1 - mean)
    between = (size * (share - mean[:, None]) ** 2).sum(1) / max(size.sum(), 1)
    found: Floats = np.divide(between, varies, out=np.zeros_like(between), where=varies > 0)
    return found


def giveaways(counted: Counted, words: Sequence[str], groups: Sequence[str]) -> tuple[Telling, ...]:
    """Words whose presence all but tells the label, the most telling first."""
    share = told(counted.with_word, counted.texts)
    rows = [row for row in np.argsort(-share, kind="stable")[:WORDS].tolist() if share[row] > GIVEAWAY]
    found = []
    for row in rows:
        group = int((counted.with_word[row] / np.maximum(counted.texts, 1)).argmax())
        found.append(Telling(words[row], groups[group], float(share[row]), *_shares(counted, row, group)))
    return tuple(found)


def against(
    ids: NDArray[np.int64], text: NDArray[np.int64], group: NDArray[np.int64], counted: Counted
) -> list[tuple[int, int, float]]:
    """Texts that read like another group: row, that group, and how much more.

    By naive Bayes over the words that a text has, each text's own left out of the counts; half a text is added.
    """
    number, known = len(counted.texts), group >= 0
    word, of = _once(ids, text, len(counted.spread))
    size = counted.texts.astype(np.float64)
    full = np.log(counted.with_word + _HALF) - np.log(size + 2 * _HALF)
    less = np.log(np.maximum(counted.with_word - 1, 0) + _HALF) - np.log(np.maximum(size - 1, 0) + 2 * _HALF)
    scores = np.stack([np.bincount(of, full[word, k], len(group)) for k in range(number)], axis=1)
    scores += np.log(size + _HALF)
    rows = np.flatnonzero(known)
    mine = known[of]
    own = np.bincount(of[mine], less[word[mine], group[of[mine]]], len(group))[rows]
    own += np.log(np.maximum(size[group[rows]] - 1, 0) + _HALF)
    others = scores[rows]
    others[np.arange(len(rows)), group[rows]] = -np.inf
    others[:, size == 0] = -np.inf
    if not len(rows) or (size > 0).sum() < 2:
        return []
    like, gap = others.argmax(1), others.max(1) - own
    order = np.argsort(-gap, kind="stable")[:AGAINST]
    return [(int(rows[i]), int(like[i]), float(gap[i])) for i in order if gap[i] > 0]
