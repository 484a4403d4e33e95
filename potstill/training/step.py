"""One optimiser step: forward, loss, backward, update; of one training, or of several that see the same batches.

Gradients come from autograd. Where the loss is a table (`losses.ClosedForm`) and the network a stack of linear layers
and ReLUs, both passes are written out instead: the same products on the same numbers, without the record. Several such
trainings are stepped at once, each with the bits that it would have alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor, nn

from potstill import networks
from potstill.bayes import Divergence
from potstill.errors import PotstillError, TrainingError
from potstill.losses import TABLE_LIMIT, ClosedForm
from potstill.networks.drawn import DrawnStack
from potstill.networks.pieces import Piece
from potstill.networks.stack import Stack, exact, is_stack, shapes_of
from potstill.seeding import reseed_step
from potstill.training import optimizers
from potstill.training.hidden import hidden
from potstill.training.loss import Loss
from potstill.training.task import Task, not_finite, refuse_answers
from potstill.types import Batch, Outputs

Values = dict[str, float]  # the means of the loss's terms
Failures = dict[int, PotstillError]  # by the number of the training

# Multiply-adds of a network's largest product above which stepping several at once gains nothing. The passes of five
# networks take 0.75 of the time at 10 million (784-100, batch 128), 0.95 at 30, 1.05 at 80 (both cores of an AMD EPYC).
PAYS = 16_000_000

# Weights in a piece of a network whose weights are distributions (`networks.pieces`): halves of 784-800 take up to a
# fifth less time than the whole, by a teacher's prior, and eighths more (batches of 8, a core of an AMD EPYC).
PIECE = 2**19


class Failed(Exception):
    """Some trainings cannot take this step, so none has."""

    def __init__(self, failures: Failures) -> None:
        super().__init__()
        self.failures = failures


class Learner(NamedTuple):
    """What changes a network: its task, the loss, and the optimizer of its parameters."""

    task: Task
    loss: Loss
    optimizer: torch.optim.Optimizer

    @property
    def plain(self) -> bool:
        """Whether the loss's gradient with respect to the logits is all that the backward pass needs."""
        return self.loss.fixed and not self.task.penalties and self.task.engine.precision == "float32"


class Stepper(Protocol):
    """Takes the steps of one or more trainings."""

    def step(self, index: Tensor, view: int, number: int) -> Sequence[Values]:
        """Step `number` with the rows `index` of a view; the loss's terms of each training.

        Raises `Failed` for a loss that is not finite or a network that answers wrongly: before anything is updated, but
        for a divergence that turns out not finite after a part of a large variational network's weights has moved.
        """
        ...

    def release(self) -> None:
        """Leave networks and optimizers as if each had been stepped alone."""
        ...


def stepper(learners: Sequence[Learner]) -> Stepper:
    """What steps one training, or several that are `alike`; everything that does not change is looked up once."""
    stack = Stack.of([learner.task.network for learner in learners]) if all(own.plain for own in learners) else None
    if stack is not None:
        return _Together(learners, stack)
    written = _Drawn.of(learners[0]) if len(learners) == 1 else None
    if written is not None:
        return written
    if len(learners) > 1:
        raise ValueError(f"{len(learners)} trainings cannot be stepped at once: they are not alike.")
    return _Alone(learners[0])


def alike(a: Learner, b: Learner) -> bool:
    """Whether both see the same batches, with the same settings, and have networks of the same shape."""
    one, other = a.task, b.task
    return (
        a.plain
        and b.plain
        and (one.seed, one.training, one.engine) == (other.seed, other.training, other.engine)
        and all(one.settings[key] == other.settings[key] for key in ("data", "network"))
        and torch.equal(one.rows, other.rows)
        and shapes_of(one.network) == shapes_of(other.network)
        and is_stack(one.network)
        and is_stack(other.network)
        and a.loss.terms == b.loss.terms
    )


def pays(network: nn.Module, batch_size: int, rows: int) -> bool:
    """Whether several such networks take less time together than one after the other."""
    return is_stack(network) and min(batch_size, rows) * max(map(math.prod, shapes_of(network))) <= PAYS


def most(learner: Learner, wanted: int) -> int:
    """How many such trainings can be stepped at once, up to `wanted`: as many as keep the bits of each, and pay.

    With several threads it is one: torch cuts work for them where sums and vectors then begin elsewhere.
    """
    task, rows = learner.task, len(learner.task.train)
    if wanted < 2 or torch.get_num_threads() > 1 or not learner.plain:
        return 1
    if not pays(task.network, task.training.batch(rows), rows):
        return 1
    shapes, precision = shapes_of(task.network), torch.get_float32_matmul_precision()
    size, table = min(task.training.batch(rows), rows), ClosedForm.size(rows, len(task.train.spec.classes), 2)
    wanted = min(wanted, max(TABLE_LIMIT // table, 1))
    return next((n for n in range(wanted, 1, -1) if exact(shapes, n, size, precision)), 1)


@final
class _Alone:
    """One training, with gradients from autograd."""

    def __init__(self, learner: Learner) -> None:
        self._task, self._loss, self._optimizer = learner
        self._parameters, self._n = self._task.parameters(), len(self._task.rows)
        self._hidden = hidden(self._task.objective).student

    def step(self, index: Tensor, view: int, number: int) -> Sequence[Values]:
        task = self._task
        batch, inputs = self._loss.take(index, view)
        reseed_step(task.seed, number)
        with task.engine.autocast():
            outputs = networks.forward(task.network, inputs, self._hidden)
        if number == 0:
            _check([task], [outputs.logits])
        values, roots, gradients = self._loss(outputs, batch, index, view)
        for i, penalty in enumerate(task.penalties):
            roots.append(penalty(task.network) / self._n)
            gradients.append(None)
            values[f"penalty{i or ''}"] = roots[-1].item()
        _refuse_infinite([values], number)
        for parameter in self._parameters:
            parameter.grad = None
        torch.autograd.backward(roots, gradients)
        if task.training.clip:
            nn.utils.clip_grad_norm_(self._parameters, task.training.clip)
        self._optimizer.step()
        return [values]

    def release(self) -> None:
        pass


@final
class _Drawn:
    """One training of a stack whose weights are distributions, with one divergence for a penalty: both written out."""

    def __init__(self, learner: Learner, stack: DrawnStack, penalty: Divergence) -> None:
        self._task, self._loss, self._optimizer = learner
        self._stack, self._penalty, self._n = stack, penalty, len(self._task.rows)
        self._update = optimizers.updater([self._optimizer], stack, stack.cuts)

    @staticmethod
    def of(learner: Learner) -> _Drawn | None:
        """None for another kind of training."""
        task = learner.task
        only = task.penalties[0] if len(task.penalties) == 1 else None
        if not isinstance(only, Divergence) or not only.apart or task.owned is not None:
            return None
        if task.engine.precision != "float32" or hidden(task.objective).student:
            return None
        whole = task.training.clip or not optimizers.in_pieces(learner.optimizer)
        stack = DrawnStack.of(task.network, None if whole else PIECE)
        return None if stack is None else _Drawn(learner, stack, only)

    def step(self, index: Tensor, view: int, number: int) -> Sequence[Values]:
        task = self._task
        batch, inputs = self._loss.take(index, view)
        reseed_step(task.seed, number)
        answers = self._stack.forward(inputs)
        if number == 0:
            _check([task], [answers])
        values, gradient = self._back(answers, batch, index, view)
        _refuse_infinite([values], number)
        values["penalty"] = 0.0

        def done(piece: Piece) -> None:
            values["penalty"] += self._penalty.descend(self._stack, piece, 1 / self._n)
            _refuse_infinite([values], number)
            if task.training.clip:
                nn.utils.clip_grad_norm_(task.network.parameters(), task.training.clip)
            self._update(piece.number)

        self._stack.backward(gradient, done)
        return [values]

    def _back(self, answers: Tensor, batch: Batch | None, index: Tensor, view: int) -> tuple[Values, Tensor]:
        """The terms' means, and the gradient of their sum with respect to the answers."""
        if not self._loss.fixed:
            answers.requires_grad_()
        values, roots, gradients = self._loss(Outputs(answers), batch, index, view)
        if gradients[0] is not None:
            return values, gradients[0]
        torch.autograd.backward(roots)
        return values, torch.zeros_like(answers) if answers.grad is None else answers.grad

    def release(self) -> None:
        self._stack.release()
        optimizers.separate(self._optimizer)


@final
class _Together:
    """Trainings of stacks with tables for losses: one pass and one update for all. Nothing in them is random."""

    def __init__(self, learners: Sequence[Learner], stack: Stack) -> None:
        self._tasks = [learner.task for learner in learners]
        self._losses = [learner.loss for learner in learners]
        self._optimizers = [learner.optimizer for learner in learners]
        self._stack, self._clip = stack, self._tasks[0].training.clip
        self._update = optimizers.updater(self._optimizers, stack)
        self._forms: list[ClosedForm] = []
        self._joined: ClosedForm | None = None

    def step(self, index: Tensor, view: int, number: int) -> Sequence[Values]:
        _, inputs = self._losses[0].take(index, view)
        logits = self._stack.forward(inputs)
        if number == 0:
            _check(self._tasks, [rows.t() for rows in logits])
        values, gradient = self._form(view)(logits, index)
        _refuse_infinite(values, number)
        self._stack.backward(gradient)
        if self._clip:
            for task in self._tasks:
                nn.utils.clip_grad_norm_(task.network.parameters(), self._clip)
        self._update()
        return values

    def _form(self, view: int) -> ClosedForm:
        forms = [loss.form(view) for loss in self._losses]
        if len(forms) == 1:
            return forms[0]
        if self._joined is None or forms != self._forms:
            self._forms, self._joined = forms, ClosedForm.join(forms)
        return self._joined

    def release(self) -> None:
        self._stack.release()
        for optimizer in self._optimizers:
            optimizers.separate(optimizer)


def _check(tasks: Sequence[Task], logits: Sequence[Tensor]) -> None:
    failures: Failures = {}
    for i, (task, rows) in enumerate(zip(tasks, logits, strict=True)):
        try:
            refuse_answers(rows, task)
        except PotstillError as error:
            failures[i] = error
    if failures:
        raise Failed(failures)


def _refuse_infinite(values: Sequence[Values], number: int) -> None:
    if not math.isfinite(sum(sum(row.values()) for row in values)):
        raise Failed(
            {
                i: TrainingError(not_finite(row, number), step=number)
                for i, row in enumerate(values)
                if not math.isfinite(sum(row.values()))
            }
        )
