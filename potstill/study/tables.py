"""The tables of a plan as pydantic models: what each key may hold.

The description of a field says what is wanted there; it completes the message of an error. Nothing is coerced: a
number in quotes is not a number. Names (of networks, objectives, ...) are checked by `checks`, before these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from potstill.data.parts import TEST

Table: TypeAlias = dict[str, Any]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
Natural: TypeAlias = Annotated[int, Field(ge=0)]
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Part: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


TRUTH: Final = "truth"
"""The law by which the data were drawn: weights, and a teacher that no plan has to declare as a model."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TestSet(_Frozen):
    """A test set with a name: a file, or the data's `own` test part; examples to `drop`, column = values."""

    __test__ = False

    file: Name | None = Field(default=None, description="a file of examples")
    own: bool = Field(default=False, description="true, for the test part that the data bring")
    drop: dict[str, tuple[Any, ...]] = Field(default={}, description="a table of column = list of values")


class Data(_Frozen):
    """`[data]`: the examples, and which of them carry labels."""

    source: Table = Field(description="a built-in name, a file, a folder, or a table with a name")
    task: Literal["multiclass", "binary", "regression"] = Field(
        default="multiclass", description='"multiclass", "binary" or "regression"'
    )
    scale_targets: bool | None = Field(default=None, description="true or false")
    validation: Natural | Part | None = Field(
        default=None, description="a fraction of the training examples between 0 and 1, or a number of examples"
    )
    test: Positive | Part | dict[str, TestSet] | None = Field(
        default=None,
        description="a fraction of the examples between 0 and 1, a number of examples, or a table of test sets by name",
    )
    train: Positive | None = Field(
        default=None, description="the number of labelled training examples that are used, at least 1"
    )
    labelled: Positive | None = Field(
        default=None, description="the number of training examples that carry labels, at least 1"
    )
    redraw: Literal["seed"] | None = Field(default=None, description='"seed", or no such key')
    target: Name | tuple[Name, ...] | Positive | None = Field(
        default=None, description="the name of a column, a list of names, or a number of columns at the end"
    )
    inputs: dict[str, Table] | None = Field(
        default=None, description="a table of inputs by name: { large = {}, small = { resize = 7 } }"
    )

    @property
    def test_names(self) -> tuple[str, ...]:
        """The names of the test sets."""
        return tuple(self.test) if isinstance(self.test, dict) else (TEST,)


class Training(_Frozen):
    """`[training]`, and a model's own `training`, where only what was given is set (the rest is None)."""

    optimizer: Table | None = Field(default=None, description="the name of an optimizer, or a table with a name")
    schedule: Table | None = Field(default=None, description="the name of a schedule, or a table with a name")
    batch_size: Literal["all"] | Positive | None = Field(
        default=None, description='a whole number of at least 1, or "all"'
    )
    epochs: Natural | None = Field(default=None, description="a whole number of at least 0")
    steps: Natural | None = Field(default=None, description="a whole number of at least 0")
    patience: Natural | None = Field(default=None, description="a whole number of epochs; 0 never stops early")
    monitor: Name | None = Field(default=None, description='"objective", "train_objective", or the name of a metric')
    select: Name | None = Field(default=None, description='the name of a metric, or "last"')
    augment: tuple[Table, ...] | None = Field(default=None, description="a list of augmentations")
    views: Literal["fresh"] | Positive | None = Field(
        default=None, description='"fresh", or a whole number of at least 1'
    )
    precision: Literal["float32", "bf16"] | None = Field(default=None, description='"float32" or "bf16"')
    channels_last: bool | None = Field(default=None, description="true or false")
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number of at least 0, the largest norm of the gradient; 0 does not clip"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = Field(default=None, description="a number in [0, 1)")


class Model(_Frozen):
    """`[models.X]`: what a model is, and what it learns from."""

    network: Table | None = Field(default=None, description="the name of a network, or a table with a name")
    sees: Name | None = Field(default=None, description="the name of an input")
    teacher: tuple[Name, ...] = Field(default=(), description="the name of a model of this plan, or a list of names")
    objective: Table | tuple[Table, ...] | None = Field(
        default=None, description="the name of an objective, a table, or a list of those"
    )
    inference: Table | None = Field(default=None, description="the name of an inference, or a table with a name")
    labelled: Positive | Literal["all"] | None = Field(
        default=None, description='the number of training examples that carry labels for this model, or "all"'
    )
    members: Positive = Field(default=1, description="a whole number of at least 1")
    generations: Positive = Field(default=1, description="a whole number of at least 1; it counts the first model")
    known: Annotated[float, Field(gt=0, le=1)] | Name | None = Field(
        default=None, description='a fraction in (0, 1], "labelled", or a file of indices'
    )
    weights: Name | None = Field(
        default=None, description='the folder of a model, a safetensors file, hub:NAME, or "truth"'
    )
    outputs: Name | None = Field(default=None, description="a file or folder that holds a teacher's answers")
    kind: Literal["logits", "probabilities", "values", "gaussian"] | None = Field(
        default=None, description='"logits", "probabilities", or of a regression "values" or "gaussian"'
    )
    shared: bool = Field(default=False, description="true or false")
    answers: Literal["stored", "live"] | None = Field(default=None, description='"stored" or "live"')
    training: Training = Field(default_factory=Training, description="a table with keys of [training]")


class Latency(_Frozen):
    """`evaluation.latency`: each batch size is timed with each number of threads; without any, nothing is timed."""

    batch: tuple[Positive, ...] = Field(default=(1, 256), description="a list of batch sizes of at least 1")
    threads: tuple[Positive, ...] = Field(
        default=(1,), min_length=1, description="a list of numbers of threads of at least 1"
    )


class Evaluation(_Frozen):
    """`[evaluation]`: what is measured, on what."""

    splits: tuple[Name, ...] = Field(default=("validation", "test"), min_length=1, description="a list of splits")
    labels: tuple[Name, ...] = Field(default=("true",), min_length=1, description='a list of "true" and "teacher"')
    views: tuple[Natural, ...] = Field(
        default=(0,), min_length=1, description="a list of numbers of views; 0 is the plain example"
    )
    every: Positive | None = Field(default=None, description="a number of steps of at least 1, or no such key")
    latency: Latency = Field(default_factory=Latency, description="a table with the keys batch and threads")


class Verdict(_Frozen):
    """`[verdict]`: which differences are judged, in what metric, and how small is too small to matter."""

    metric: Name = Field(default="accuracy", description='the name of a metric, or { area_under = "NAME" }')
    baseline: Name | None = Field(default=None, description="the name of a model of this plan")
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0, description="a number of at least 0, in the metric's unit"
    )
    compare: tuple[tuple[Name, Name], ...] | None = Field(default=None, description="a list of pairs [model, other]")
    on: Name = Field(default=TEST, description="the name of a test set")


class Tune(_Frozen):
    """`[tune]`: which settings are tried for which models, before the models are trained on the report's seeds."""

    method: Literal["grid", "random"] = Field(default="grid", description='"grid" or "random"')
    trials: Positive | None = Field(default=None, description="a number of trials of at least 1")
    seeds: Positive | tuple[Natural, ...] = Field(
        default=2, description="a number of seeds of at least 1, or a list of different whole numbers"
    )
    search: dict[str, dict[str, Any]] = Field(
        min_length=1, description="a table [tune.search.MODEL] for each model that is tuned: dotted key = values"
    )


class Published(_Frozen):
    """`[published]`: numbers printed beside ours; in the TOML the metrics stand beside `source`."""

    source: Name = Field(description="where the numbers were printed")
    metrics: dict[str, dict[str, Finite]] = Field(default={}, description="a table of model = number for each metric")


class Tables(_Frozen):
    """A whole plan, expanded: shorthand strings are tables, defaults of [data], [training] and the models filled in."""

    title: str = Field(default="Untitled study", description="a text")
    story: str | None = Field(default=None, description="a text")
    seeds: Positive | tuple[Natural, ...] = Field(
        default=5, description="a number of seeds of at least 1, or a list of different whole numbers"
    )
    data: Data = Field(description="a table [data] with a source")
    training: Training = Field(default_factory=Training, description="a table")
    models: dict[str, Model] = Field(min_length=1, description="at least one table [models.NAME]")
    tune: Tune | None = Field(default=None, description="a table with search")
    sweep: dict[str, tuple[Any, ...]] = Field(
        default={},
        description='a list of values for each dotted key, which stands in quotes: "data.labelled" = [100, 300]',
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="a table")
    verdict: Verdict = Field(default_factory=Verdict, description="a table")
    published: Published | None = Field(default=None, description="a table with a source")
