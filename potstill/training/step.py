"""One optimiser step as a function: forward, loss, backward, update.

Gradients come from autograd. Where the loss is a table (`losses.ClosedForm`) and the network a stack of linear layers
and ReLUs, both passes are written out instead: the same products on the same numbers, without the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from potstill.errors import TrainingError
from potstill.networks.stack import Stack
from potstill.seeding import reseed_step
from potstill.training import optimizers
from potstill.training.checkpoint import State
from potstill.training.loss import Loss
from potstill.training.task import Task, not_finite, refuse_probabilities

Step = Callable[[Tensor, int, State], None]


class Passes(NamedTuple):
    """Inputs to logits; from the roots of the loss and their gradients to every `.grad`; from there to new weights."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[list[Tensor], list[Any]], None]
    update: Callable[[], Any]


def stepper(task: Task, optimizer: torch.optim.Optimizer) -> Step:
    """A function of (rows of the batch, view, state). Everything that does not change between steps is looked up once.

    It raises `TrainingError` for a loss that is not finite, before anything is updated.
    """
    seed, clip, parameters, penalties = task.seed, task.training.clip, list(task.network.parameters()), task.penalties
    loss, n = Loss(task), len(task.train)
    forward, backward, update = _passes(task, loss, optimizer)

    def step_once(index: Tensor, view: int, state: State) -> None:
        batch, inputs = loss.take(index, view)
        reseed_step(seed, state.step)
        logits = forward(inputs)
        if state.step == 0:
            refuse_probabilities(logits, task.name)
        values, roots, gradients = loss(logits, batch, index, view)
        for i, penalty in enumerate(penalties):
            roots.append(penalty(task.network) / n)
            gradients.append(None)
            values[f"penalty{i or ''}"] = roots[-1].item()
        if not math.isfinite(sum(values.values())):
            raise TrainingError(not_finite(values, state.step), step=state.step)
        backward(roots, gradients)
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        update()
        weight = len(index)
        state.rows += weight
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + value * weight

    return step_once


def _passes(task: Task, loss: Loss, optimizer: torch.optim.Optimizer) -> Passes:
    network, engine, parameters = task.network, task.engine, list(task.network.parameters())
    plain = loss.fixed and not task.penalties and engine.precision == "float32"
    stack = Stack.of(network) if plain else None
    if stack is not None:
        return Passes(stack.forward, lambda _, gradients: stack.backward(gradients[0]), optimizers.updater(optimizer))

    def forward(inputs: Tensor) -> Tensor:
        with engine.autocast():
            logits: Tensor = network(inputs)
        return logits

    def backward(roots: list[Tensor], gradients: list[Any]) -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(roots, gradients)

    return Passes(forward, backward, optimizer.step)
