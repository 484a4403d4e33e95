"""A model on a split: predictions, metrics, cost; latency is measured by a study's last stage, alone on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potstill import engine, metrics, networks, storage
from potstill.errors import DataError, TeacherError
from potstill.losses import class_logits
from potstill.networks.model import Model
from potstill.types import DataSpec, Kind, Source, Teacher

QUALITY = ("accuracy", "error_rate", "cross_entropy", "macro_f1", "calibration_error", "brier", "uncertainty")
AGAINST_TEACHER = ("agreement", "teacher_kl")
QUALITY_OF_VALUES = ("squared_error", "absolute_error", "r2")
LIKELIHOOD = "negative_log_likelihood"
AGAINST_TEACHER_OF_VALUES = ("teacher_squared_error",)
_WARM_CALLS, _WARM_SECONDS = 5, 0.02
_LEAST_CALLS = 3
_STORED = ("log_probs", "values")  # names of the answers in a file: of classes, of a regression


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model predicts on a split: `answers` and, where known, labels.

    Of classes the answers are log-probabilities (n, K) float32, labels (n,) int64. Of a regression the answers are
    values (n, D) float32, labels too, both in the targets' own units; or (n, 2 D) with log variances after the values.
    """

    answers: NDArray[np.float32]
    labels: NDArray[Any]
    labelled: NDArray[np.bool_]

    @property
    def regression(self) -> bool:
        """Whether they are of a regression."""
        return self.labels.ndim == 2

    @property
    def log_probs(self) -> NDArray[np.float32]:
        """(n, K) log-probabilities. Raises `DataError` for a regression."""
        if self.regression:
            raise DataError("These are predictions of a regression: values, which have no probabilities.")
        return self.answers

    @property
    def values(self) -> NDArray[np.float32]:
        """(n, D) values in the targets' own units. Raises `DataError` for classes."""
        if not self.regression:
            raise DataError("These are predictions of classes: log-probabilities, and no values.")
        return self.answers[:, : self.labels.shape[1]]

    @property
    def log_variances(self) -> NDArray[np.float32] | None:
        """(n, D) natural logarithms of the values' variances; None where there are values alone."""
        targets = self.labels.shape[1]
        return None if self.values.shape == self.answers.shape else self.answers[:, targets:]

    @property
    def quality(self) -> tuple[str, ...]:
        """The metrics of quality that these predictions can be measured in."""
        if not self.regression:
            return QUALITY
        return QUALITY_OF_VALUES + (() if self.log_variances is None else (LIKELIHOOD,))

    def metric(self, name: str) -> metrics.Metric:
        """The metric `name` for as many classes or targets."""
        if self.regression:
            return metrics.get(name, targets=self.labels.shape[1])
        return metrics.get(name, classes=self.answers.shape[1])

    def with_variance_of(self, held: Predictions) -> Predictions:
        """The same values with one variance per target: the mean squared error of `held`, the same model's predictions
        on other labelled rows. Unchanged where there are variances.

        Raises `DataError` where no row of `held` carries a label.
        """
        if self.log_variances is not None:
            return self
        if not held.labelled.any():
            raise DataError("No row carries a label, so there are no errors to estimate a variance from.")
        errors = held.values[held.labelled].astype(np.float64) - held.labels[held.labelled]
        variance = np.maximum(np.square(errors).mean(axis=0), np.finfo(np.float32).tiny)
        logs = np.broadcast_to(np.log(variance).astype(np.float32), self.values.shape)
        return replace(self, answers=np.concatenate([self.values, logs], axis=1))

    def save(self, path: Path) -> str:
        """Write them as safetensors; returns the sha256."""
        return storage.write_tensors(
            path,
            {
                _STORED[self.regression]: torch.from_numpy(self.answers),
                "labels": torch.from_numpy(self.labels),
                "labelled": torch.from_numpy(self.labelled),
            },
        )


def load_predictions(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote."""
    found = {name: tensor.numpy() for name, tensor in storage.read_tensors(path).items()}
    return Predictions(found[_STORED["values" in found]], found["labels"], found["labelled"])


def predict(model: Teacher, source: Source, *, view: int = 0, batch_size: int | None = None) -> Predictions:
    """Log-probabilities of a model, or of an ensemble: the log of the MEAN of its members' probabilities at T = 1.

    Of a regression the values, of an ensemble their mean; where models answer variances, those too, of an ensemble that
    of its members' mixture. (How far members that answer values alone are apart says nothing of the noise, so it is no
    variance of a prediction.) Raises `TeacherError` where the model is of another task than the data.
    """
    values = model.kind in ("values", "gaussian")
    if values != (source.spec.task == "regression"):
        found = model.kind if values else f"{model.kind} of classes"
        raise TeacherError(
            f'The model answers {found}; the data\'s task is "{source.spec.task}". Use one of that task.'
        )
    answers = engine.predict(model, source, view=view, batch_size=batch_size)
    if answers.dim() == 2:
        answers = answers[:, None, :]
    if values:
        return _values(answers.double(), model.kind, source)
    if model.kind == "probabilities":
        if answers.shape[-1] == 1:
            answers = torch.cat([1 - answers, answers], -1)
        logs = answers.double().clamp_min(float(np.finfo(np.float32).tiny)).log()
    else:
        logs = class_logits(answers.double()).log_softmax(-1)
    mean = logs.logsumexp(1) - np.log(logs.shape[1])
    return Predictions(mean.float().numpy(), source.labels.numpy(), source.labelled.numpy())


def _values(answers: torch.Tensor, kind: Kind, source: Source) -> Predictions:
    """From (n, members, D) or (n, members, 2 D) float64."""
    targets = answers.shape[2] // (2 if kind == "gaussian" else 1)
    if targets != source.spec.outputs:
        named = ", ".join(source.spec.targets)
        raise TeacherError(f"The model answers {targets} values; the data has {source.spec.outputs}: {named}.")
    means = answers[..., :targets]
    found = mean = means.mean(1)
    if kind == "gaussian":
        variance = answers[..., targets:].exp().mean(1) + (means - mean[:, None]).square().mean(1)
        found = torch.cat([mean, variance.log()], 1)
    return Predictions(found.float().numpy(), source.labels.numpy(), source.labelled.numpy())


@dataclass(frozen=True)
class Evaluation(Mapping[str, float]):
    """Metrics of one model on one split, by name; `examples` counts the labelled rows they are means over."""

    values_by_name: Mapping[str, float]
    examples: int

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __str__(self) -> str:
        width = max(map(len, self))
        rows = [f"{name:<{width}}  {value:.4f}" for name, value in self.items()]
        return "\n".join([f"{self.examples:,} examples", *rows])


def measure(found: Predictions, names: Sequence[str] | None = None, teacher: Predictions | None = None) -> Evaluation:
    """Metrics of predictions on their labelled rows; agreement with a teacher's predictions on all rows.

    By default those of quality (`Predictions.quality`).
    """
    names = found.quality if names is None else names
    rows = found.labelled
    if not rows.any():
        raise DataError("No row of this split carries a label: there is nothing to evaluate on.")
    values = {}
    for name in names:
        metric = found.metric(name)
        if not metric.needs_teacher:
            values[name] = metric.value(found.answers[rows], found.labels[rows])
        elif teacher is not None:
            values[name] = metric.value(found.answers, teacher.answers)
    return Evaluation(values, int(rows.sum()))


def evaluate(
    model: Teacher,
    source: Source,
    *,
    teacher: Teacher | None = None,
    names: Sequence[str] | None = None,
    validation: Source | None = None,
) -> Evaluation:
    """Metrics of a model (or ensemble) on a split; with a `teacher`, agreement with it too.

    `validation`: other labelled rows of a regression. A model that answers values alone then has a likelihood too, with
    one variance per target: its mean squared error there (a little small where these rows picked its weights).

    >>> ps.evaluate(student, data.test)["accuracy"]  # doctest: +SKIP
    0.938
    """
    found = predict(model, source)
    if validation is not None and found.regression:
        found = found.with_variance_of(predict(model, validation))
    if names is None:
        against = AGAINST_TEACHER_OF_VALUES if found.regression else AGAINST_TEACHER
        names = found.quality + (against if teacher is not None else ())
    return measure(found, tuple(names), predict(teacher, source) if teacher is not None else None)


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, multiply-adds per example and bytes of the weights, summed over the members."""

    parameters: int
    multiply_adds: int
    bytes: int


def cost(models: Sequence[Model]) -> Cost:
    """What one prediction costs: the sum over an ensemble's members."""
    rows = [networks.cost(model.network, model.spec.shape, vocabulary=model.spec.vocabulary) for model in models]
    return Cost(*(sum(row[i] for row in rows) for i in range(3)))


def _drawn(spec: DataSpec, batch: int) -> Tensor:
    """Some examples: uniform numbers, or texts of the full length."""
    generator = torch.Generator().manual_seed(0)
    if spec.vocabulary:
        return torch.randint(1, spec.vocabulary, (batch, *spec.shape), generator=generator)
    return torch.rand(batch, *spec.shape, generator=generator)


def call_times(
    models: Sequence[Model], batch: int, *, seconds: float = 0.05, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds of each CPU call on `batch` examples, all members one after the other: at least 3 calls, and
    `seconds` long. Up to 5 calls before, for up to 0.02 s, are not counted.

    With the threads of this process, and in plain torch's precision of float32 products, as the models run where they
    are shipped: the engine's own setting makes large products twice as fast and small ones twice as slow.
    """
    inputs = _drawn(models[0].spec, batch)
    times: list[float] = []
    with torch.inference_mode(), engine.products("highest"):
        modules = [model.network.cpu().eval() for model in models]

        def call() -> float:
            """When it ended."""
            for module in modules:
                module(inputs)
            return clock()

        begun = now = clock()
        for _ in range(_WARM_CALLS):
            now = call()
            if now - begun >= _WARM_SECONDS:
                break
        end = now + seconds
        while len(times) < _LEAST_CALLS or now < end:
            begun = clock()
            now = call()
            times.append(1e3 * (now - begun))
    return times
