"""results.json: what a study found. Its JSON Schema is published in the docs (`docs/results.schema.json`).

Nothing here imports torch. Metrics are in their own unit (accuracy and error rate in [0, 1]); times in seconds or
milliseconds as the name says; sizes in bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from potstill.study.measured import BestEpoch, Condition, Inheritance, SharedErrors, SplitMeasures, ValueMeasures
from potstill.study.measured import MetricValues as MetricValues

FORMAT = 1

Decision = Literal["better", "worse", "equivalent", "undecided"]
Method = Literal["crossed", "nested", "scalar"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Frozen):
    """Milliseconds per call of `batch` examples on the CPU, in a process with `threads` threads, in the last stage.

    Median, 90th percentile and mean are of all calls. `turns_ms` are medians of turns in which the models alternated:
    number i of one model was measured beside number i of any other.
    """

    batch: int
    threads: int
    median_ms: float
    p90_ms: float
    mean_ms: float | None = None
    turns_ms: list[float] = []


class Cost(_Frozen):
    """What a model costs. Seconds are means over seeds, for all members together, on one of `workers` processes."""

    parameters: int
    multiply_adds: int
    bytes: int
    latency: list[Latency] = []
    machine: str | None = Field(default=None, description="what the latency was measured on")
    train_seconds: float | None = None
    record_seconds: float | None = None
    workers: int = 1


class Failure(_Frozen):
    """A seed whose model failed, or was not run because something it learns from failed."""

    seed: int
    state: Literal["failed", "not run"]
    reason: str


class Ship(_Frozen):
    """Which seed to ship: the best on validation data (ties: the lower seed)."""

    seed: int
    folder: str
    metric: str
    value: float


class ModelResult(_Frozen):
    """One model of the study; a generation or a sweep point is a model of its own.

    `metrics` are on the test set of the verdicts (`Results.on`); where there are several, `tests` holds those on each.
    """

    model: str
    point: dict[str, Any] = {}
    generation: int = 1
    generations: int = 1
    members: int = 1
    network: str
    sees: str | None = Field(default=None, description="the input that it is handed, where there are several")
    teachers: list[str] = []
    objective: str
    shared: bool = False
    seeds: list[int]
    failures: list[Failure] = []
    metrics: dict[str, MetricValues] = {}
    validation: dict[str, MetricValues] = {}
    tests: dict[str, dict[str, MetricValues]] = {}
    splits: dict[str, SplitMeasures] = Field(default={}, description="of classes, by split")
    values: dict[str, ValueMeasures] = Field(default={}, description="of a regression, by split")
    conditions: list[Condition] = []
    best: BestEpoch | None = None
    cost: Cost | None = None
    ship: Ship | None = None
    notes: list[str] = []


class Trial(_Frozen):
    """One trial: settings (key relative to the model), its metric on validation data for every seed of the trials.

    `seconds` are those of all its trainings. A trial that is not "done" has no values and cannot win.
    """

    number: int
    settings: dict[str, Any]
    values: list[float] = []
    mean: float | None = None
    std: float | None = None
    seconds: float = 0.0
    state: Literal["done", "failed", "not run"] = "done"
    reason: str | None = None


class TunedModel(_Frozen):
    """What was searched for one model, every trial, and the number of the winner."""

    search: dict[str, Any]
    trials: list[Trial]
    winner: int


class Tuning(_Frozen):
    """How models were tuned: the best mean of `metric` over `seeds` on validation data wins.

    `plan` is what the report's models were trained by: without [tune], with the winners' settings.
    """

    method: Literal["grid", "random"]
    metric: str
    better: Literal["higher", "lower"]
    seeds: list[int]
    models: dict[str, TunedModel]
    plan: dict[str, Any]


class Verdict(_Frozen):
    """One comparison. `difference` is model minus baseline in the metric's unit and own sign; `interval` is 95 %.

    The interval is simultaneous over `comparisons` declared comparisons. `not_worse`: the whole interval lies on the
    good side of minus the margin. `method` None: too few seeds for an interval. The means and the difference are
    None when no seed is complete for both models.
    """

    model: str
    baseline: str
    metric: str
    better: Literal["higher", "lower"]
    model_mean: float | None
    baseline_mean: float | None
    difference: float | None
    interval: tuple[float, float] | None
    decision: Decision
    beyond_margin: bool
    not_worse: bool
    margin: float
    seeds: list[int]
    differences: list[float]
    examples: int | None
    on: str = Field(default="test", description="the test set")
    method: Method | None
    comparisons: int
    level: float = 0.95
    look: int = 1
    sign_flip_p: float | None = None
    sign_flip_smallest_p: float | None = None
    would_decide: str | None = None
    differs_in: list[str] = []
    tuned: str | None = None
    failed: list[str] = []
    cost: str | None = None
    sentence: str


class Published(_Frozen):
    """Numbers printed beside ours: metric -> model -> value."""

    source: str
    metrics: dict[str, dict[str, float]]


class TestReads(_Frozen):
    """How often this run folder's test sets were read, by how many different plans, and how many looks that makes.

    `sets` counts for each by its name.
    """

    __test__ = False

    count: int
    plans: int
    looks: int = 1
    sets: dict[str, int] = {}


class Results(_Frozen):
    """The whole of results.json."""

    format: int = FORMAT
    potstill: str
    title: str
    story: str | None = None
    metric: str
    on: str = "test"
    margin: float
    baseline: str | None
    seeds: list[int]
    data: dict[str, Any]
    models: dict[str, ModelResult]
    verdicts: list[Verdict]
    tuning: Tuning | None = None
    inheritance: dict[str, Inheritance] = Field(default={}, description="of classes, by student")
    shared_errors: dict[str, dict[str, SharedErrors]] = Field(
        default={}, description="of a regression, by student and target"
    )
    published: list[Published] = []
    test_reads: TestReads
    plan: dict[str, Any]
    plan_toml: str
    environment: dict[str, Any]
    seconds: float = Field(description="wall time of the runs so far")
    workers: int
