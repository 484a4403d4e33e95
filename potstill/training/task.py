"""What one training is made of: its parts resolved, checked against each other, and refused where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from potstill import networks, objectives, storage
from potstill.engine import Engine
from potstill.errors import DataError, ObjectiveError, TeacherError
from potstill.outputs import Live, Stored
from potstill.outputs.check import probabilities_of
from potstill.registry import Spec
from potstill.training.order import rows_for
from potstill.training.settings import Training
from potstill.training.validation import Validation
from potstill.types import Answers, ObjectiveFunction, Penalty, Source, Teacher

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

    @property
    def name(self) -> str:
        """The network, for messages."""
        return networks.label(self.settings["network"]) if self.settings.get("network") else "the network"

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training."""
        return self.training.total_steps(len(self.train))


def pick_objective(objective: ObjectiveFunction | Spec | None, teacher: object) -> ObjectiveFunction:
    if objective is None:
        return objectives.hard_labels() if teacher is None else objectives.hinton()
    if callable(objective):
        return objective
    return objectives.build(objective)


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
        # A recording knows; asking it for probabilities would soften them all at a temperature that nobody wants.
        known = isinstance(answers, Stored) and answers.kind != "values"
        found = answers.number if known else told.probs(1.0).shape[-1]  # type: ignore[attr-defined]
        if found != len(train.spec.classes):
            raise TeacherError(
                f"The teacher answers for {found} classes; the student's data has {len(train.spec.classes)}."
            )
    rows = rows_for(objective, train, answers)
    if len(rows) == 0:
        raise DataError("No training row carries a label or a known teacher's answer that the objective could use.")
    return rows


def pick_monitor(
    training: Training, objective: ObjectiveFunction, validation: Source | None, answers: Answers | None
) -> Training:
    """Fall back where the wanted monitor or selection cannot be had; the model's info records what was used."""
    changes: dict[str, Any] = {}
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
            changes["monitor"] = "cross_entropy"
    return Training.of(training, changes)


# What torch calls the last operation of a graph, and those that only carry numbers on.
_ENDS = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
_LINEAR = {"AddmmBackward0", "MmBackward0"}
_CARRY = re.compile(r"(To|Clone|Alias|View|UnsafeView|Reshape|Squeeze|Unsqueeze|T|Transpose|Permute|Slice|Clamp)\w*")


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
