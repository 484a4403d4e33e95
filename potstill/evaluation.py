"""A model on a split: predictions, metrics, cost; latency is measured by a study's last stage, alone on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import engine, metrics, networks, storage
from potstill.errors import DataError, TeacherError
from potstill.losses import class_logits
from potstill.networks.model import Model
from potstill.types import Source, Teacher

QUALITY = ("accuracy", "error_rate", "cross_entropy", "macro_f1", "calibration_error", "brier", "uncertainty")
AGAINST_TEACHER = ("agreement", "teacher_kl")
_WARM_CALLS, _WARM_SECONDS = 5, 0.02
_LEAST_CALLS = 3


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model predicts on a split: log-probabilities (n, K) float32 and, where known, labels (n,) int64."""

    log_probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: NDArray[np.bool_]

    def save(self, path: Path) -> str:
        """Write them as safetensors; returns the sha256."""
        return storage.write_tensors(
            path,
            {
                "log_probs": torch.from_numpy(self.log_probs),
                "labels": torch.from_numpy(self.labels),
                "labelled": torch.from_numpy(self.labelled),
            },
        )


def load_predictions(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote."""
    found = {name: tensor.numpy() for name, tensor in storage.read_tensors(path).items()}
    return Predictions(found["log_probs"], found["labels"], found["labelled"])


def predict(model: Teacher, source: Source, *, view: int = 0, batch_size: int | None = None) -> Predictions:
    """Log-probabilities of a model, or of an ensemble: the log of the MEAN of its members' probabilities at T = 1."""
    answers = engine.predict(model, source, view=view, batch_size=batch_size)
    if model.kind == "values":
        raise TeacherError("This model answers values, not logits or probabilities; only classification is built.")
    if answers.dim() == 2:
        answers = answers[:, None, :]
    if model.kind == "probabilities":
        if answers.shape[-1] == 1:
            answers = torch.cat([1 - answers, answers], -1)
        logs = answers.double().clamp_min(float(np.finfo(np.float32).tiny)).log()
    else:
        logs = class_logits(answers.double()).log_softmax(-1)
    mean = logs.logsumexp(1) - np.log(logs.shape[1])
    return Predictions(mean.float().numpy(), source.labels.numpy(), source.labelled.numpy())


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


def measure(found: Predictions, names: Sequence[str] = QUALITY, teacher: Predictions | None = None) -> Evaluation:
    """Metrics of predictions on their labelled rows; agreement with a teacher's predictions on all rows."""
    rows = found.labelled
    if not rows.any():
        raise DataError("No row of this split carries a label: there is nothing to evaluate on.")
    values = {}
    for name in names:
        metric = metrics.get(name, classes=found.log_probs.shape[1])
        if not metric.needs_teacher:
            values[name] = metric.value(found.log_probs[rows], found.labels[rows])
        elif teacher is not None:
            values[name] = metric.value(found.log_probs, teacher.log_probs)
    return Evaluation(values, int(rows.sum()))


def evaluate(
    model: Teacher, source: Source, *, teacher: Teacher | None = None, names: Sequence[str] | None = None
) -> Evaluation:
    """Metrics of a model (or ensemble) on a split; with a `teacher`, agreement with it too.

    >>> ps.evaluate(student, data.test)["accuracy"]  # doctest: +SKIP
    0.938
    """
    chosen = tuple(names) if names is not None else QUALITY + (AGAINST_TEACHER if teacher is not None else ())
    return measure(predict(model, source), chosen, predict(teacher, source) if teacher is not None else None)


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, multiply-adds per example and bytes of the weights, summed over the members."""

    parameters: int
    multiply_adds: int
    bytes: int


def cost(models: Sequence[Model]) -> Cost:
    """What one prediction costs: the sum over an ensemble's members."""
    rows = [networks.cost(model.network, model.spec.shape) for model in models]
    return Cost(*(sum(row[i] for row in rows) for i in range(3)))


def call_times(
    models: Sequence[Model], batch: int, *, seconds: float = 0.05, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds of each CPU call on `batch` examples, all members one after the other: at least 3 calls, and
    `seconds` long. Up to 5 calls before, for up to 0.02 s, are not counted.

    With the threads of this process, and in plain torch's precision of float32 products, as the models run where they
    are shipped: the engine's own setting makes large products twice as fast and small ones twice as slow.
    """
    inputs = torch.rand(batch, *models[0].spec.shape, generator=torch.Generator().manual_seed(0))
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
