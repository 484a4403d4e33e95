"""figures.json: what the report's figures draw.

Nothing here imports torch.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from potstill.study.results import FORMAT


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Curve(_Frozen):
    """Learning curves of one model: per series one list per seed (seeds stop early: lists differ in length)."""

    seeds: list[int]
    steps: list[list[int]]
    series: dict[str, list[list[float]]]


class Reliability(_Frozen):
    """Calibration in equal bins of confidence, summed over seeds; a bin's mean is None where it is empty."""

    low: list[float]
    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


class Frequencies(_Frozen):
    """How many examples of a split a model gives which probability, in bins of 0.05 (the last one holds 1 too).

    Of two classes it is the probability of the second, of more that of the predicted class. `counts` and each of
    `classes` (true classes, where there are at most four) hold one list per training: a model that all seeds share
    has one.
    """

    seeds: list[int]
    low: list[float]
    counts: list[list[int]]
    classes: dict[str, list[list[int]]] = {}


class TargetErrors(_Frozen):
    """A regression's model on one target, test examples.

    `true` and `predicted` are some examples of the first training. `counts` are residuals (label minus value) in the
    bins between `edges`, `covered` shares of labels in intervals of the nominal `levels`: one list per training. What
    lies beyond the bins counts in the outermost. Without variances there are no levels.
    """

    seeds: list[int]
    true: list[float]
    predicted: list[float]
    edges: list[float]
    counts: list[list[int]]
    levels: list[float] = []
    covered: list[list[float]] = []


class Along(_Frozen):
    """What a regression's model says of one target along one input, the others at their means; one seed's.

    `sigmas` are standard deviations, of a model that answers values alone those of its errors on validation data;
    empty where there are none. `points` and `labels` are some examples, where an example is one number.
    """

    seed: int
    input: str
    at: list[float]
    values: list[float]
    sigmas: list[float]
    points: list[float] = []
    labels: list[float] = []


class RemovedLayer(_Frozen):
    """The neurons of a teacher's layer that a prior left out, and those it kept, with their scores: the lowest went."""

    layer: str
    removed: list[int]
    removed_scores: list[float]
    kept: list[int]
    kept_scores: list[float]


class Removed(_Frozen):
    """What of a teacher's posterior a student's prior left out, for one seed; `layers` were merged or dropped."""

    seed: int
    neurons: list[RemovedLayer]
    layers: list[str]
    added: list[str]


class TellingRow(_Frozen):
    """A test example (its row, from 0): its inputs, where they are few, its label, and what each model predicts, the
    mean over seeds."""

    row: int
    inputs: list[float | str | None] = []
    label: float
    predicted: dict[str, float]


class Telling(_Frozen):
    """The test examples of which all models together miss a target by most; `inputs` are the names of theirs."""

    target: str
    inputs: list[str] = []
    rows: list[TellingRow]


class TellingText(_Frozen):
    """A test example that is a text, about which a model is sure and wrong.

    `confidence`: its mean probability of the wrong answer over the `wrong` of `seeds` that err; `predicted`: the answer
    of most of them. `row`: of the test set of the verdicts, from 0.
    """

    row: int
    text: str
    label: str
    predicted: str
    confidence: float
    wrong: int
    seeds: int


class TurningText(_Frozen):
    """A test example that is a text, which two compared models answer differently.

    `right`: of the seeds that both have, how many answer rightly, of the model and of the other; `true`: their mean
    probabilities of the label, of classes by name `said` what most seeds of each answer.
    """

    row: int
    text: str
    label: str
    said: tuple[str, str]
    right: tuple[int, int]
    true: tuple[float, float]


class Turning(_Frozen):
    """Texts of a comparison: those that the model answers rightly and the other does not, and the other way round.

    Of the texts that were kept, the surest errors of any model. `seeds`: those that both have. `gained`, `lost`,
    `neither`: of all test examples, the mean over seeds of those that one alone, or none, of them answers rightly.
    """

    model: str
    other: str
    seeds: int
    gained: float
    lost: float
    neither: float
    better: list[TurningText]
    worse: list[TurningText]


class Figures(_Frozen):
    """figures.json: the arrays behind the report's figures. Keys are those of `Results.models`."""

    format: int = FORMAT
    classes: list[str]
    curves: dict[str, Curve] = {}
    areas: dict[str, Curve] = Field(default={}, description="curves that areas are under")
    removed: dict[str, Removed] = {}
    along: dict[str, dict[str, Along]] = Field(default={}, description="model -> target -> a line")
    confusion: dict[str, list[list[int]]] = {}
    reliability: dict[str, Reliability] = {}
    frequencies: dict[str, dict[str, Frequencies]] = Field(default={}, description="model -> split -> histogram")
    targets: list[str] = []
    errors: dict[str, dict[str, TargetErrors]] = Field(default={}, description="model -> target -> errors")
    telling: list[Telling] = []
    texts: dict[str, list[TellingText]] = Field(default={}, description="by model, the surest error first")
    turning: list[Turning] = Field(default=[], description="of texts, in the order of the verdicts")
