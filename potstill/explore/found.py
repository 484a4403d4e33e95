"""What is found in a data set: frozen data, of which `Exploration.to_dict` makes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Form: TypeAlias = Literal["pictures", "rows", "table", "texts"]
Place: TypeAlias = tuple[str, int]  # split, and row of the part as it was read (from 0)


@dataclass(frozen=True)
class Fault:
    """What a user should look at. `grave`: it spoils what a study would find; else it only should be known."""

    what: str
    advice: str
    grave: bool = False


@dataclass(frozen=True)
class Split:
    """Examples of a split; those with a label, and of each group; and how many are different."""

    examples: int
    labelled: int
    per_group: tuple[int, ...]
    different: int


@dataclass(frozen=True)
class Values:
    """All numbers of the inputs, as they are stored. Histograms have `edges`, and counts of each split."""

    least: float
    greatest: float
    mean: float
    std: float
    zeros: float
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[int, ...]]
    channels: tuple[tuple[float, float], ...] = ()  # mean and standard deviation of each, of pictures
    constant: int = 0  # places that hold the same number in all training examples
    blank: int = 0  # examples of any split whose numbers are all the same


@dataclass(frozen=True)
class Column:
    """A column of a table, or a feature of rows. `told`: how much of it, or of the label, one tells of the other.

    Of a number: range, mean, standard deviation, quartiles; of a category: its most frequent words with their counts.
    `missing` and `different` are counts; `missing` of each split. `told` lies in [0, 1]: the correlation ratio
    (eta squared) of a number by class, Cramer's V squared of a category, with a target r squared or eta squared.
    """

    name: str
    kind: Literal["number", "category"]
    missing: Mapping[str, int]
    different: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    words: tuple[tuple[str, int], ...] = ()
    told: float | None = None
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two groups, and the distance of their means: root of the mean square difference per number."""

    first: str
    second: str
    distance: float


@dataclass(frozen=True)
class Twins:
    """Examples that are there more than once, in one split or in two.

    `extra`: examples that have an equal one before them, or in the first of two splits; `conflicts`: those among them
    whose label differs. `shown`: some of them, with the one they equal.
    """

    splits: tuple[str, ...]
    extra: int
    conflicts: int
    shown: tuple[tuple[Place, Place], ...]


@dataclass(frozen=True)
class Near:
    """Examples of two splits that are nearly equal: nearer than `radius`, a part of the distance of any two."""

    splits: tuple[str, str]
    count: int
    conflicts: int
    radius: float
    typical: float
    shown: tuple[tuple[Place, Place, float], ...]


@dataclass(frozen=True)
class Projection:
    """Training examples on their first two principal components: (x, y, group) of each, group -1 without a label.

    `shares`: of the variance, for the first components. They were found on `rows` of `of` examples.
    """

    shares: tuple[float, ...]
    points: tuple[tuple[float, float, int], ...]
    rows: int
    of: int


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in one unit: least, 5th, 50th and 95th percentile, greatest, mean."""

    least: float
    low: float
    median: float
    high: float
    greatest: float
    mean: float


@dataclass(frozen=True)
class TextGroup:
    """Texts of one group of a split, or of all groups: how many, how long, and how many have each kind of marker.

    `empty`: texts without any word. `markers`: of `potstill.explore.markers`, in its order.
    """

    texts: int
    words: Lengths
    characters: Lengths
    empty: int
    markers: Mapping[str, int]


@dataclass(frozen=True)
class TextSplit:
    """Texts of a split, all and by group (None for a group without any).

    `unknown`: the share of its words that no training text has; of training words those that no other training text
    has, so that both say the same of texts that are drawn alike. `error`: standard error of that share over texts.
    `counts`: of texts with a number of words between the edges of `Texts`.
    """

    whole: TextGroup
    groups: tuple[TextGroup | None, ...]
    tokens: int
    unknown: float
    error: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Word:
    """A word: the share of a group's training texts that have it, that of the others, and the z of their log odds."""

    word: str
    inside: float
    outside: float
    z: float


@dataclass(frozen=True)
class Telling:
    """A word whose presence tells the label: how much of it (Cramer's V squared), and shares of the group that has it
    most and of the other groups."""

    word: str
    group: str
    told: float
    inside: float
    outside: float


@dataclass(frozen=True)
class TextExample:
    """A training text: its row, its group, and for one that reads like another group that one's name and by how much:
    the difference of naive Bayes' log odds."""

    row: int
    group: str
    text: str
    like: str = ""
    by: float = 0.0


@dataclass(frozen=True)
class Texts:
    """A column of texts. `others`: names of further columns of texts, which were not looked at.

    `vocabulary`: different words of the training texts, and `once` those that one text alone has; words as networks are
    given them, with mentions masked. `length_told`: how much the number of words tells of the group (eta squared).
    `twins`: texts that are equal but for case, mentions, links, blanks and signs, and not equal as they are. `shown`:
    the texts that twins show, by split and row ("train 3").
    """

    column: str
    others: tuple[str, ...]
    vocabulary: int
    once: int
    edges: tuple[float, ...]
    splits: Mapping[str, TextSplit]
    frequent: tuple[tuple[Word, ...], ...]
    telling: tuple[tuple[Word, ...], ...]
    giveaways: tuple[Telling, ...]
    length_told: float | None
    twins: tuple[Twins, ...]
    examples: tuple[tuple[TextExample, ...], ...]
    against: tuple[TextExample, ...]
    longest: tuple[TextExample, ...]
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exploration:
    """Everything that is found. `pictures` (not in JSON): arrays of raw numbers for the page, by what they show.

    Groups are the classes; of a regression they are four quarters of the first target.
    """

    name: str
    task: str
    form: Form
    shape: tuple[int, ...]
    groups: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[Fault, ...]
    splits: Mapping[str, Split]
    labels: Mapping[str, Mapping[str, float]]  # of each target: mean, std, least, greatest
    values: Values | None
    columns: tuple[Column, ...]
    nearest: tuple[Pair, ...]
    farthest: tuple[Pair, ...]
    within: float | None  # distance of a training example from its group's mean, as that of means
    twins: tuple[Twins, ...]
    near: tuple[Near, ...]
    projection: Projection | None
    atypical: tuple[tuple[int, str, float], ...] = ()  # training rows farthest from their group's mean
    preprocessing: Mapping[str, float] = field(default_factory=dict)
    texts: Texts | None = None
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        del found["pictures"]
        return found
