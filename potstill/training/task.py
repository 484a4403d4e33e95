"""What one training is made of: its parts resolved, checked against each other, and refused where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from potstill import networks, objectives, seeding, storage, types, units
from potstill.bayes import Inference
from potstill.engine import Engine
from potstill.errors import DataError, ObjectiveError, SettingError, TeacherError
from potstill.outputs import Live, Stored
from potstill.outputs.check import probabilities_of
from potstill.registry import Spec
from potstill.training.hidden import hidden
from potstill.training.order import rows_for
from potstill.training.settings import Training
from potstill.training.validation import Validation
from potstill.types import Answers, DataSpec, ObjectiveFunction, Penalty, Source, Teacher

WATCHED = (("accuracy", "cross_entropy"), ("squared_error", "squared_error"))
"""Of classes, of values: the metric that selects weights by default, and the one to watch instead of an objective."""

Progress = Callable[[int, int], None]


class TrainingData(Protocol):
    """What `fit` reads of its data: never a test set."""

    @property
    def train(self) -> Source: ...
    @property
    def validation(self) -> Source | None: ...


@dataclass(frozen=True)
class Task:
    """Everything one training needs, resolved."""

    network: nn.Module
    train: Source
    validation: Validation | None
    objective: ObjectiveFunction
    answers: Answers | None
    rows: Tensor
    seed: int
    training: Training
    engine: Engine
    penalties: Sequence[Penalty]
    settings: Mapping[str, Any]
    folder: Path | None
    checkpoint_seconds: float
    progress: Progress | None
    should_stop: Callable[[], bool] | None
    specification: Mapping[str, Any] | None = None
    start: networks.Start | None = None
    inference: Inference | None = None
    rebuild: Mapping[str, Any] | None = None
    reduced: Mapping[str, Any] = field(default_factory=dict)
    every: int | None = None

    @property
    def name(self) -> str:
        """The network, for messages."""
        return networks.label(self.settings["network"]) if self.settings.get("network") else "the network"

    @property
    def owned(self) -> nn.Module | None:
        """The objective's own parameters."""
        found: nn.Module | None = getattr(self.objective, "owned", None)
        return found

    @property
    def variances(self) -> bool:
        """Whether the network answers log variances too."""
        return getattr(self.objective, "learns", "") == "gaussian"

    @property
    def outputs(self) -> int:
        """Numbers that the network answers for an example."""
        return outputs_of(self.train.spec, self.objective)

    def parameters(self) -> list[nn.Parameter]:
        """All that a step changes: the network's parameters, then the objective's own."""
        return [*self.network.parameters(), *(self.owned.parameters() if self.owned is not None else ())]

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training."""
        return self.training.total_steps(len(self.train))


def pick_objective(objective: ObjectiveFunction | Spec | None, teacher: object, spec: DataSpec) -> ObjectiveFunction:
    """The objective, by default the task's own; one that learns something else than the task wants is refused."""
    values = spec.task == "regression"
    if objective is None and values:
        return objectives.squared_error() if teacher is None else objectives.probabilistic_regression()
    if objective is None:
        return objectives.hard_labels() if teacher is None else objectives.hinton()
    goal = objective if callable(objective) else objectives.build(objective)
    learns = getattr(goal, "learns", "anything")
    if learns not in ("anything", *(("values", "gaussian") if values else ("classes",))):
        raise ObjectiveError(f'"{goal.name}" learns {learns}; the data\'s task is "{spec.task}".')  # type: ignore[attr-defined]
    return goal


def outputs_of(spec: DataSpec, objective: ObjectiveFunction) -> int:
    """How many numbers a network answers: one per class or target, twice as many with log variances."""
    return spec.outputs * (2 if getattr(objective, "learns", "") == "gaussian" else 1)


def prepared(
    objective: ObjectiveFunction, network: nn.Module, train: Source, answers: Answers | None, *, key: Mapping[str, int]
) -> ObjectiveFunction:
    """The objective with parameters of its own, if it has any, made for the first rows; initial values by key."""
    if getattr(objective, "owns", None) is None:
        return objective
    index: Any = torch.arange(min(2, len(train)))
    view = 1 if train.augmentation else 0
    batch = replace(train.fetch(index, view), teacher=None if answers is None else answers.lookup(index, view))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = networks.forward(network.eval(), batch.inputs, hidden(objective).student)
        torch.default_generator.manual_seed(seeding.key("objective", *key.values()))
        made: ObjectiveFunction = objective.prepared(outputs, units.learnt_batch(batch, train.spec.scaling))  # type: ignore[attr-defined]
    return made


def describe_objective(objective: ObjectiveFunction) -> Any:
    if isinstance(objective, objectives.Objective):
        return {"name": objective.name, "settings": storage.plain(objective.settings)}
    return {"name": getattr(objective, "__qualname__", repr(type(objective))), "settings": {}}


def describe_data(
    train: Source, answers: Answers | None, validation: Source | None, validation_answers: Answers | None
) -> dict[str, Any]:
    """What identifies rows, labels and answers: those trained on, and those that decide which weights are kept."""
    held: list[str | None] = [] if validation is None else [*_identity(validation)]
    if validation is not None:
        held.append(None if validation_answers is None else validation_answers.fingerprint())
    return {
        "data": _identity(train),
        "teacher": None if answers is None else [answers.fingerprint(), storage.tensor_sha256(answers.known)],
        "validation": held,
    }


def _identity(source: Source) -> list[str]:
    return [source.fingerprint(), storage.tensor_sha256(source.labels), storage.tensor_sha256(source.labelled)]


@overload
def seeing(source: Source, name: str) -> Source: ...
@overload
def seeing(source: Source | None, name: str) -> Source | None: ...
def seeing(source: Source | None, name: str) -> Source | None:
    """The source with one input alone: the one of that name, or the first. `DataError` where it is not there."""
    if source is None or (not name and not getattr(source, "several", None)):
        return source
    narrowed: Source = source.seeing(name)  # type: ignore[attr-defined]
    return narrowed


def pick_answers(
    teacher: Answers | Teacher | None, for_validation: Answers | None, train: Source, validation: Source | None
) -> tuple[Answers | None, Answers | None]:
    """Answers on the training rows and on the validation rows; a teacher that can be asked is asked live."""
    if teacher is None or isinstance(teacher, Answers):
        return teacher, for_validation
    live = Live(teacher, train)
    return live, for_validation or (Live(teacher, validation) if validation is not None else None)


def pick_rows(objective: ObjectiveFunction, train: Source, answers: Answers | None) -> Tensor:
    """The usable rows; refuses a training that has nothing to learn from, or a teacher that does not fit."""
    if len(train) == 0:
        raise DataError("The training set is empty: nothing can be learned from it.")
    if answers is None and getattr(objective, "needs_teacher", False):
        name = getattr(objective, "name", "this objective")
        raise ObjectiveError(f'"{name}" learns from a teacher, but there is none. Pass teacher=...')
    if answers is not None:
        if len(answers.known) != len(train):
            raise TeacherError(f"The teacher's answers are for {len(answers.known)} rows; the data has {len(train)}.")
        told = answers.lookup(torch.arange(1), 0 if not train.augmentation else 1)  # type: ignore[arg-type]
        what = "targets" if train.spec.task == "regression" else "classes"
        # A recording knows; asking it for probabilities would soften them all at a temperature that nobody wants.
        known = isinstance(answers, Stored) and answers.kind != "values"
        if what == "targets":
            found = told.values().shape[-1]
        else:
            found = answers.number if known else told.probs(1.0).shape[-1]  # type: ignore[attr-defined]
        if found != len(train.spec.names):
            raise TeacherError(
                f"The teacher answers for {found} {what}; the student's data has {len(train.spec.names)}."
            )
    rows = rows_for(objective, train, answers)
    if len(rows) == 0:
        raise DataError("No training row carries a label or a known teacher's answer that the objective could use.")
    return rows


def pick_monitor(
    training: Training,
    objective: ObjectiveFunction,
    validation: Source | None,
    answers: Answers | None,
    *,
    task: types.Task,
) -> Training:
    """Fall back where the wanted monitor or selection cannot be had; the model's info records what was used."""
    quality, loss = WATCHED[task == "regression"]
    changes: dict[str, Any] = {"select": quality} if training.select == WATCHED[False][0] else {}
    empty = validation is None or len(validation) == 0
    unlabelled = empty or not bool(validation.labelled.any())  # type: ignore[union-attr]
    if training.select != "last" and unlabelled:
        changes["select"] = "last"
    watched = training.monitor not in ("objective", "train_objective")
    if empty or (watched and unlabelled):
        changes["monitor"] = "train_objective"
    elif training.monitor == "objective":
        asks = getattr(objective, "needs_teacher", answers is not None)
        told = asks and answers is not None and bool(answers.known.any())
        if unlabelled and not told:  # no row that the objective could be measured on
            changes["monitor"] = "train_objective"
        elif asks and answers is None:
            changes["monitor"] = loss
    return Training.of(training, changes)


# What torch calls the last operation of a graph, and those that only carry numbers on.
_ENDS = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
_LINEAR = {"AddmmBackward0", "MmBackward0"}
_CARRY = re.compile(r"(To|Clone|Alias|View|UnsafeView|Reshape|Squeeze|Unsqueeze|T|Transpose|Permute|Slice|Clamp)\w*")


def refuse_smoothing(training: Training) -> None:
    """A regression has no classes to spread a label over."""
    if training.label_smoothing:
        raise SettingError(f"label_smoothing is {training.label_smoothing}; a regression has none. Leave it out.")


def refuse_answers(answers: Tensor, task: Task) -> None:
    """What a network answers to its first batch: probabilities for logits, or another shape, are refused."""
    spec = task.train.spec
    if spec.task != "regression":
        refuse_probabilities(answers, task.name)
    elif answers.shape[1:] != (task.outputs,):
        raise TeacherError(
            f'The network "{task.name}" answers a tensor of shape {tuple(answers.shape)}; wanted is '
            f"(batch, {task.outputs}), a value {'and a log variance ' * task.variances}per target."
        )


def refuse_probabilities(logits: Tensor, name: str) -> None:
    """Networks answer logits (B, K); one that ends in softmax or sigmoid would be softened twice (paper 3).

    Told by the last operation, and by the numbers where that hides it (a softmax written out, weights from elsewhere).
    One output of a linear layer may well reach from near 0 to near 1: those of a fresh network with batch norms do.
    """
    rows = logits.detach()
    if rows.dim() != 2:
        raise TeacherError(f"The network answers a tensor of shape {tuple(rows.shape)}; wanted is (batch, classes).")
    node = logits.grad_fn
    while node is not None and _CARRY.fullmatch(node.name().removesuffix("Backward0")):
        node = node.next_functions[0][0]
    end = _ENDS.get(node.name()) if node is not None else None
    linear = node is not None and node.name() in _LINEAR and rows.shape[1] == 1
    if end is None and (linear or probabilities_of(rows[:, None]) is None):
        return
    found = f"its last operation is a {end}" if end else "every row is in [0, 1] and sums to 1"
    row = [round(float(x), 3) for x in rows[0, :5]]
    raise TeacherError(
        f'The network "{name}" answers probabilities where logits are wanted ({found}; the first are {row}). '
        f"Remove its last {end or 'softmax'}: objectives and metrics apply their own. "
        "If they are logits all the same, add 1 to each, which softmax undoes."
    )


def not_finite(values: Mapping[str, float], step: int) -> str:
    """The message for a loss that is NaN or infinite."""
    found = ", ".join(f"{name} = {value}" for name, value in values.items())
    return (
        f"The loss is not finite at step {step} ({found}). Nothing was updated by that step. "
        "Try a lower learning rate, clip = 1.0, or float32 precision."
    )
