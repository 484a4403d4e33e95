"""What is found in a data set: frozen data, of which `Exploration.to_dict` makes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Form: TypeAlias = Literal["pictures", "rows", "table"]
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
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        del found["pictures"]
        return found
