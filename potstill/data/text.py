"""Texts as inputs: hashed or weighted words, word ids, frozen sentence embeddings.

Words are runs of letters and digits, in lower case, with apostrophes inside ("don't"), mentions ("@user"), and runs of
other signs (":-)", "!!"). What has to be fitted is fitted on training rows; what a column became is kept in the cache.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import storage
from potstill.data import cache
from potstill.data.columns import layout, table_of
from potstill.data.fitted import Fitted, Made
from potstill.data.parts import Part
from potstill.data.sparse import Sparse
from potstill.errors import DataError

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
Maker: TypeAlias = Callable[[Sequence[str]], Arrays]

FORMAT: Final = 1
UNKNOWN: Final = 1  # the id of a word that is not in the vocabulary; 0 pads
_MENTION: Final = re.compile(r"@\w+")
_WORD: Final = re.compile(r"@?\w+(?:['\u2019]\w+)*|[^\w\s]+")


def words_of(text: str, *, mask: bool = False) -> list[str]:
    """The words of a text; with `mask` every mention is "@user".

    >>> words_of("@Ann: I don't know... :-)", mask=True)
    ['@user', ':', 'i', "don't", 'know', '...', ':-)']
    """
    if mask:
        text = masked(text)
    return _WORD.findall(text.lower())


def masked(text: str) -> str:
    """With "@user" for every mention."""
    return _MENTION.sub("@user", text)


@dataclass(frozen=True)
class Hashing:
    """Counts of words (and of `ngrams` of them) in `width` columns by hash, with signs, scaled to length 1."""

    kind: ClassVar[str] = "hashing"
    column: str
    width: int
    ngrams: int
    mask: bool

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:  # noqa: ARG002 - nothing is fitted
        """Nothing has to be fitted."""
        at_least(self.kind, width=self.width, ngrams=self.ngrams)
        return hashed({"kind": self.kind, **asdict(self), **layout_of(part, self.column)})


def hashed(recipe: Mapping[str, Any]) -> Fitted:
    """By its recipe. Weinberger et al. 2009, "Feature hashing for large scale multitask learning", section 2."""

    def make(texts: Sequence[str]) -> Arrays:
        from sklearn.feature_extraction.text import HashingVectorizer

        found = HashingVectorizer(n_features=recipe["width"], dtype=np.float32, **_cutting(recipe)).transform(texts)
        return _compressed(found)

    return fitted(recipe, (recipe["width"],), make)


@dataclass(frozen=True)
class Weighted:
    """Words weighted by how rare they are in the training rows: at most `features` of those that `least` rows hold."""

    kind: ClassVar[str] = "tfidf"
    column: str
    features: int
    least: int
    ngrams: int
    mask: bool

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:
        """Vocabulary and weights of the training rows."""
        at_least(self.kind, features=self.features, least=self.least, ngrams=self.ngrams)
        recipe = {"kind": self.kind, **asdict(self), **layout_of(part, self.column)}
        texts = table_of(part).table.take(rows).texts(self.column)

        def learn() -> dict[str, Any]:
            from sklearn.feature_extraction.text import TfidfVectorizer

            vectorizer = TfidfVectorizer(min_df=self.least, max_features=self.features, **_cutting(recipe))
            try:
                vectorizer.fit(texts)
            except ValueError as error:
                raise DataError(
                    f'{part.where}: the column "{self.column}" has no words to learn from ({error}).'
                ) from None
            return {"words": vectorizer.get_feature_names_out().tolist(), "weights": vectorizer.idf_.tolist()}

        return weighted({**recipe, **_learnt(recipe, texts, learn)})


def weighted(recipe: Mapping[str, Any]) -> Fitted:
    """By its recipe: count of a word times ln((1 + n) / (1 + rows with it)) + 1, scaled to length 1 (scikit-learn)."""

    def make(texts: Sequence[str]) -> Arrays:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vocabulary = {word: i for i, word in enumerate(recipe["words"])}
        vectorizer = TfidfVectorizer(vocabulary=vocabulary, dtype=np.float32, **_cutting(recipe))
        vectorizer.idf_ = np.array(recipe["weights"])
        return _compressed(vectorizer.transform(texts))

    return fitted(recipe, (len(recipe["words"]),), make)


@dataclass(frozen=True)
class Tokens:
    """Word ids, `length` of each text, padded: of the `words` most frequent ones that `least` training rows hold."""

    kind: ClassVar[str] = "tokens"
    column: str
    words: int
    least: int
    length: int
    mask: bool

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:
        """The vocabulary of the training rows, frequent words first, equally frequent ones as they sort."""
        at_least(self.kind, words=self.words, least=self.least, length=self.length)
        recipe = {"kind": self.kind, **asdict(self), **layout_of(part, self.column)}
        texts = table_of(part).table.take(rows).texts(self.column)

        def learn() -> dict[str, Any]:
            cut = [words_of(text, mask=self.mask) for text in texts]
            count = Counter(chain.from_iterable(cut))
            spread = Counter(chain.from_iterable(map(set, cut)))
            kept = [word for word in sorted(count, key=lambda w: (-count[w], w)) if spread[word] >= self.least]
            return {"vocabulary": kept[: self.words]}

        return tokenised({**recipe, **_learnt(recipe, texts, learn)})


def tokenised(recipe: Mapping[str, Any]) -> Fitted:
    """By its recipe: 0 pads, 1 is any other word, the vocabulary begins at 2."""

    def make(texts: Sequence[str]) -> Arrays:
        place = {word: i for i, word in enumerate(recipe["vocabulary"], UNKNOWN + 1)}
        ids = np.zeros((len(texts), recipe["length"]), np.int32)
        for row, text in zip(ids, texts, strict=True):
            found = [place.get(word, UNKNOWN) for word in words_of(text, mask=recipe["mask"])[: len(row)]]
            row[: len(found)] = found
        return {"ids": ids}

    size = len(recipe["vocabulary"]) + UNKNOWN + 1
    return fitted(recipe, (recipe["length"],), make, vocabulary=size)


def fitted(recipe: Mapping[str, Any], shape: tuple[int, ...], make: Maker, *, vocabulary: int = 0) -> Fitted:
    """An input that `make` makes of the texts of `recipe["column"]`, kept in the cache."""
    told = storage.fingerprint(storage.plain(recipe))

    def made(part: Part) -> Made:
        texts = table_of(part).table.texts(recipe["column"])
        found = cache.arrays({"recipe": told, "texts": digest(texts), "format": FORMAT}, partial(make, texts))
        return Made(_rows(found, shape[0]))

    return Fitted(shape, made, recipe=recipe, vocabulary=vocabulary)


def _rows(found: Arrays, width: int) -> torch.Tensor | Sparse:
    tensors = {name: torch.from_numpy(array) for name, array in found.items()}
    if "starts" in tensors:
        return Sparse(tensors["starts"], tensors["columns"], tensors["values"], width)
    return next(iter(tensors.values()))


def _learnt(recipe: Mapping[str, Any], texts: Sequence[str], learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `learn` learns from training texts, from the cache where it is there."""

    def make() -> Arrays:
        return {"json": np.frombuffer(json.dumps(learn()).encode(), np.uint8)}

    told = storage.fingerprint(storage.plain(recipe))
    found = cache.arrays({"learnt": told, "texts": digest(texts), "format": FORMAT}, make)["json"]
    read: dict[str, Any] = json.loads(found.tobytes())
    return read


def digest(texts: Sequence[str]) -> str:
    """Hash of texts and their order."""
    return storage.fingerprint(list(texts))


def _cutting(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """How scikit-learn's vectorizers cut texts into words."""
    cut = partial(words_of, mask=recipe["mask"])
    return {"tokenizer": cut, "token_pattern": None, "lowercase": False, "ngram_range": (1, recipe["ngrams"])}


def _compressed(found: Any) -> Arrays:
    """Of a matrix of SciPy."""
    found.sum_duplicates()
    return {
        "starts": found.indptr.astype(np.int64),
        "columns": found.indices.astype(np.int32),
        "values": found.data.astype(np.float32),
    }


def layout_of(part: Part, column: str) -> dict[str, Any]:
    """What a table of new rows has to be read by; `DataError` where the column is not there, or a target."""
    told = table_of(part)
    told.table.column(column)
    if column in told.targets:
        raise DataError(f'{part.where}: the column "{column}" is a target and cannot be an input too.')
    return layout(told)


def at_least(kind: str, **values: int) -> None:
    """Refuse what is below 1."""
    for word, value in values.items():
        if value < 1:
            raise DataError(f'{word} of the kind of input "{kind}" is {value}; wanted is a whole number of at least 1.')


BY_RECIPE: Final[dict[str, Callable[[Mapping[str, Any]], Fitted]]] = {
    "hashing": hashed,
    "tfidf": weighted,
    "tokens": tokenised,
}
