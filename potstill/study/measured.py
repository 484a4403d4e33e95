"""Parts of results.json: what models do on splits and classes, in test conditions, and beside their teachers.

Nothing here imports torch.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

BEST_EPOCH: Final = "best_epoch"
SECONDS: Final = "seconds_per_example"
QUANTITIES: Final = (BEST_EPOCH, SECONDS)  # what may be published besides metrics


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricValues(_Frozen):
    """One metric of one model: a value per seed of `ModelResult.seeds`, their mean and standard deviation (n-1).

    `std` is None with one seed, and of a model that is trained once for all seeds: its value is the same for each.
    """

    values: list[float]
    mean: float
    std: float | None = None


class BestEpoch(_Frozen):
    """The epoch (from 1) whose weights a model kept, and of how many: the first with its best `metric` on validation
    data. Of an ensemble means over its members.
    """

    metric: str
    epoch: MetricValues
    epochs: MetricValues


class ClassMeasures(_Frozen):
    """A model on the examples of one true class."""

    examples: int
    accuracy: MetricValues
    uncertainty: MetricValues


class SplitMeasures(_Frozen):
    """A model on one split. The degree of uncertainty is over all examples, the accuracy over the labelled ones.

    `classes` holds those with labelled examples; empty where there are more than 20.
    """

    examples: int
    labelled: int
    accuracy: MetricValues | None
    uncertainty: MetricValues
    classes: dict[str, ClassMeasures] = {}


class Coverage(_Frozen):
    """How often labels lie in a model's central normal intervals of the nominal `level`; mean `width` in own units."""

    level: float
    share: MetricValues
    width: MetricValues


class TargetMeasures(_Frozen):
    """A regression's model on one target, in the target's own units. `bias` is the mean of value minus label."""

    bias: MetricValues
    squared_error: MetricValues
    absolute_error: MetricValues
    r2: MetricValues
    coverage: list[Coverage] = []


class ValueMeasures(_Frozen):
    """A regression's model on the labelled examples of one split, by target.

    `variance`: whether intervals come of variances that the model answers, or of its errors on validation data, one
    variance for each target; None where there are none.
    """

    examples: int
    labelled: int
    variance: Literal["answered", "validation"] | None
    targets: dict[str, TargetMeasures]


class ConditionValues(_Frozen):
    """One metric in one condition: a value per seed of `ModelResult.seeds`, on views the mean over them.

    `over_views` is the standard deviation (n-1) over views, a mean over seeds. `best` is each seed's best view, picked
    after looking at all: it is optimistic, and the more so the more views there are. Both are None on plain examples.
    """

    values: list[float]
    mean: float
    std: float | None = None
    over_views: float | None = None
    best: list[float] | None = None
    best_mean: float | None = None


class Condition(_Frozen):
    """A model on test examples, plain (`views` 0) or on so many views that its own training's augmentation makes.

    With `labels` "teacher" right is what its teacher answers to the plain example; both thresholded. There
    `soft_cross_entropy` is against the teacher's probabilities instead.
    """

    labels: Literal["true", "teacher"]
    views: int
    examples: int
    metrics: dict[str, ConditionValues]


class Correlation(_Frozen):
    """A correlation over test examples, per seed and their mean; None where one is not defined (all values equal).

    `interval` is 95 % for fresh training runs and fresh test examples, from the jackknife's pseudo-values by the
    crossed analysis of the verdicts; alone, not simultaneous over models. None with one seed. With examples drawn anew
    for each seed it is Student's, of the values.
    """

    values: list[float | None]
    mean: float | None
    interval: tuple[float, float] | None


class SharedErrors(_Frozen):
    """What a student's residuals on a target have of its teachers', who count as one, on test examples.

    `correlation` is Pearson's; `baseline` that of the baseline and the same teachers, who never met: what examples that
    are far from all models give without any teaching. `distance` is the mean absolute difference of student and
    teachers, in the target's own units.
    """

    teachers: list[str]
    seeds: list[int]
    examples: int
    one_teacher: bool
    correlation: Correlation
    baseline: float | None = None
    distance: MetricValues


class Inherited(_Frozen):
    """Degree of uncertainty and error rate of teacher and student on test examples of one true class.

    Means over seeds; `name` is empty for all examples, which are counted over seeds that have their own. `difference`
    is student minus teacher in uncertainty, with an interval as in `Correlation`.
    """

    name: str
    examples: int
    teacher_uncertainty: float
    student_uncertainty: float
    difference: float
    interval: tuple[float, float] | None
    teacher_error_rate: float
    student_error_rate: float


class Inheritance(_Frozen):
    """What a student has of its teachers, who count as one, on test examples.

    `confidence` is Spearman's rank correlation of the probabilities of the predicted class, `errors` the phi
    coefficient of their errors. With `one_teacher` all seeds share the teachers: the intervals are for these.
    `baseline_confidence` and `baseline_errors` are those of the baseline and the same teachers, who never met: what
    examples that are hard for all give without any teaching.
    """

    teachers: list[str]
    seeds: list[int]
    examples: int
    one_teacher: bool
    confidence: Correlation
    errors: Correlation
    baseline_confidence: float | None = None
    baseline_errors: float | None = None
    classes: list[Inherited]
