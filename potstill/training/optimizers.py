"""Optimisers and learning-rate schedules by name.

An optimiser is a function of the parameters, a schedule a function of the step; both take their settings as
keyword-only arguments, which are the keys of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer
from torch.optim.adam import adam as adam_step

from potstill.errors import SettingError
from potstill.registry import Registry

Parameters = Iterable[nn.Parameter]
Schedule = Callable[[int, int], float]


def _check(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise SettingError(f"{name} is {value}; it must be a finite number of at least 0.")


def _fused(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has its fused step for these parameters: floating point on CPU or CUDA."""
    return all(p.is_floating_point() and p.device.type in {"cpu", "cuda"} for p in parameters)


def adam(
    parameters: Parameters,
    *,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay: float = 0.0,
) -> Optimizer:
    """Adam (Kingma and Ba 2015), fused where torch has it; `weight_decay` is added to the gradient.

    `decay` (Keras: learning rate / (1 + decay * step)) is accepted at 0 only for now.
    """
    _check(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay, decay=decay)
    if decay:
        raise SettingError(f"Adam with decay = {decay} is not built yet; use decay = 0.0 and a schedule.")
    rows = list(parameters)
    return Adam(rows, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fused(rows))


def adamw(
    parameters: Parameters,
    *,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019), fused where torch has it; weight decay apart from the gradient."""
    _check(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
    rows = list(parameters)
    return AdamW(rows, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fused(rows))


def sgd(
    parameters: Parameters,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum, fused where torch has it."""
    _check(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    if nesterov and not momentum:
        raise SettingError("Nesterov's step needs a momentum above 0; found momentum = 0.")
    rows = list(parameters)
    return SGD(
        rows, lr=learning_rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=_fused(rows)
    )


def adadelta(
    parameters: Parameters,
    *,
    learning_rate: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Adadelta (Zeiler 2012); torch has no fused step for it. Keras' default learning rate is 0.001, torch's 1.0."""
    _check(learning_rate=learning_rate, rho=rho, eps=eps, weight_decay=weight_decay)
    return Adadelta(list(parameters), lr=learning_rate, rho=rho, eps=eps, weight_decay=weight_decay)


def constant() -> Schedule:
    """The same learning rate throughout."""
    return lambda step, total: 1.0  # noqa: ARG005


def cosine(*, warmup: float = 0.0, floor: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `floor` over all steps (Loshchilov and Hutter 2017), after a linear warm-up.

    `warmup` is the fraction of all steps that the warm-up takes, in [0, 1).
    """
    if not 0 <= warmup < 1 or not 0 <= floor <= 1:
        raise SettingError(f"cosine needs 0 <= warmup < 1 and 0 <= floor <= 1; found {warmup} and {floor}.")

    def factor(step: int, total: int) -> float:
        rise = warmup * total
        if step < rise:
            return (step + 1) / (rise + 1)
        done = (step - rise) / max(total - rise, 1)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor


def step(*, at: tuple[float, ...] = (0.5, 0.75), gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` at each fraction `at` of all steps."""
    if not all(0 < a < 1 for a in at) or gamma <= 0:
        raise SettingError(f"step needs fractions between 0 and 1 and gamma > 0; found at = {at}, gamma = {gamma}.")
    return lambda step, total: gamma ** sum(step >= a * total for a in at)


REGISTRY = Registry("optimizer", {"adam": adam, "adamw": adamw, "sgd": sgd, "adadelta": adadelta}, SettingError)
SCHEDULES = Registry("schedule", {"constant": constant, "cosine": cosine, "step": step}, SettingError)


def updater(optimizer: Optimizer) -> Callable[[], None]:
    """`optimizer.step` for gradients that stay in the same tensors from step to step.

    For fused Adam the lists of tensors are then made once: a quarter of what its step costs for a small network.
    """
    group = optimizer.param_groups[0]
    if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) > 1 or not group["fused"]:
        return optimizer.step
    fixed = {name: group[name] for name in ("amsgrad", "weight_decay", "eps", "maximize", "decoupled_weight_decay")}
    beta1, beta2 = group["betas"]
    lists: list[list[torch.Tensor]] = []

    def update() -> None:
        if not lists:
            optimizer.step()  # makes the state where there is none yet
            rows = group["params"]
            moments = [[optimizer.state[p][name] for p in rows] for name in ("exp_avg", "exp_avg_sq", "step")]
            lists.extend([[p.detach() for p in rows], [p.grad for p in rows], *moments])
            return
        values, gradients, first, second, steps = lists
        adam_step(
            values, gradients, first, second, [], steps, fused=True, beta1=beta1, beta2=beta2, lr=group["lr"], **fixed
        )

    return update


def state_tensors(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as named tensors (numbers become 0-d tensors), for a checkpoint."""
    found: dict[str, torch.Tensor] = {}
    for row, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                found[f"{row}/{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return found


def load_state(optimizer: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` gave. The tensors are cloned: an optimiser writes into its state."""
    state: dict[int, dict[str, Any]] = {}
    for path, tensor in tensors.items():
        row, name = path.split("/", 1)
        state.setdefault(int(row), {})[name] = tensor.clone()
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
