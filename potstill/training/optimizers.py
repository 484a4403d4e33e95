"""Optimisers and learning-rate schedules by name.

An optimiser is a function of the parameters, a schedule a function of the step; both take their settings as
keyword-only arguments, which are the keys of a plan.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer

from potstill.errors import SettingError
from potstill.registry import Registry
from potstill.training.adam import DecayedAdam, Variant

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
    variant: Variant = "torch",
) -> Optimizer:
    """Adam (Kingma and Ba 2015), fused where torch has it; `weight_decay` is added to the gradient.

    `decay` d: the learning rate of step t = 1, 2, ... is divided by 1 + d (t - 1). `variant`: `"torch"`; `"keras"`, eps
    beside the square root of the uncorrected moment (paper 1, Biryukova, equation 9; Keras' own eps is 1e-7);
    `"paper"`, paper 1's equations 6 to 10 literally, which correct the bias of early steps twice. Formulas:
    `potstill.training.adam`.
    """
    _check(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay, decay=decay)
    if weight_decay and variant != "torch":
        raise SettingError(f'Adam\'s variant "{variant}" has no weight_decay; found {weight_decay}.')
    if not all(0 <= beta < 1 for beta in betas):
        raise SettingError(f"betas are {betas}; wanted are two numbers from 0 up to, not including, 1.")
    rows = list(parameters)
    if variant == "torch" and not decay:
        return Adam(rows, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fused(rows))
    return DecayedAdam(
        rows, variant=variant, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, decay=decay
    )


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


class Storage(Protocol):
    """Parameters of several networks and their gradients in two flat tensors (`networks.stack.Stack`)."""

    values: Tensor
    gradients: Tensor

    def like(self) -> Tensor:
        """Zeros, as many as `values` has."""
        ...

    def views(self, flat: Tensor) -> list[list[Tensor]]:
        """For every network, the parts of a flat tensor that belong to its parameters."""
        ...


class Update(Protocol):
    """Takes a step, or what a step does to a piece; the pieces of a step in their order, from number 0."""

    def __call__(self, piece: int = 0, /) -> None: ...


Cuts = Sequence[Sequence[tuple[slice, Tensor]]]  # for every piece: stretches of a storage's values and their gradients


def in_pieces(optimizer: Optimizer) -> bool:
    """Whether its steps can be taken a piece at a time."""
    groups = optimizer.param_groups
    return type(optimizer) in (Adam, AdamW) and len(groups) == 1 and bool(groups[0]["fused"])


def updater(optimizers: Sequence[Optimizer], storage: Storage, cuts: Cuts | None = None) -> Update:
    """The steps of several equal optimizers that stand at the same step, one per network of a storage.

    For fused Adam that is one call for everything, with the same numbers. Only the running means below the smallest
    normal float32 become zero (where that is `_harmless`): where a pixel is seldom lit they fall there, and a CPU takes
    many times as long for such numbers (for 4 % of them, as with MNIST, half as long again for the whole update). A
    step is a mean over at least eps: with torch's settings it loses less than 1e-29, less than the rounding of any
    weight above 1e-21.
    """
    first = optimizers[0]
    group = first.param_groups[0]
    if not in_pieces(first):

        def each(_: int = 0, /) -> None:
            for optimizer in optimizers:
                optimizer.step()

        return each
    moments, step = (storage.like(), storage.like()), torch.zeros(())
    parts = zip(*map(storage.views, moments), strict=True)
    for optimizer, (means, squares) in zip(optimizers, parts, strict=True):
        for parameter, mean, square in zip(optimizer.param_groups[0]["params"], means, squares, strict=True):
            before = optimizer.state.get(parameter)
            if before:
                mean.copy_(before["exp_avg"])
                square.copy_(before["exp_avg_sq"])
                step.copy_(before["step"])
            optimizer.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
    fixed = {name: group[name] for name in ("amsgrad", "weight_decay", "eps", "maximize")}
    beta1, beta2 = group["betas"]
    pieces = [
        (
            [storage.values[stretch] for stretch, _ in cut],
            [gradient for _, gradient in cut],
            *([moment[stretch] for stretch, _ in cut] for moment in moments),
            [],
            [step] * len(cut),
        )
        for cut in cuts or [[(slice(None), storage.gradients)]]
    ]
    # What torch.optim.adam.adam calls for these tensors: it sorts them by device first, which takes 30 us each step.
    fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    harmless = _harmless(group["eps"], beta2)

    def at_once(piece: int = 0, /) -> None:
        if piece == 0:
            step.add_(1)
        with _flushing(harmless):
            fused(*pieces[piece], beta1=beta1, beta2=beta2, lr=group["lr"], **fixed)

    return at_once


def _harmless(eps: float, beta2: float) -> bool:
    """Whether what the mean of squares loses, if numbers below the smallest normal float32 are zero, vanishes in eps.

    Each step loses less than that number, so all of them less than it over 1 - beta2. With an eps of 0 such a mean is
    all that a step is divided by.
    """
    limits = torch.finfo(torch.float32)
    return math.sqrt(limits.tiny / (1 - beta2)) <= eps * limits.eps / 4


@contextmanager
def _flushing(wanted: bool) -> Iterator[None]:
    """Inside the block this thread takes numbers below the smallest normal one for zero, if that is wanted.

    Not with several threads of torch: those that are started inside the block would do so for ever.
    """
    already = sys.float_info.min / 2 == 0  # Python's numbers obey the same setting
    if already or not wanted or torch.get_num_threads() > 1:
        yield
        return
    try:
        torch.set_flush_denormal(True)
        yield
    finally:
        torch.set_flush_denormal(False)


def separate(optimizer: Optimizer) -> None:
    """Give every parameter a state of its own, after an `updater` has shared memory among them."""
    for parameter, state in optimizer.state.items():
        own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
        optimizer.state[parameter] = own


def rate(optimizer: Optimizer) -> float:
    """The learning rate of the last step, or of the first one before it."""
    group = optimizer.param_groups[0]
    return float(group.get("last_rate", group["lr"]))


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors (numbers become 0-d tensors), for a checkpoint."""
    found: dict[str, Tensor] = {}
    for row, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                found[f"{row}/{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def load_state(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_tensors` gave. The tensors are copied: an optimiser writes into its state.

    What belongs to each number of a parameter gets the parameter's layout in memory: torch's fused steps go through
    memory from end to end, whatever the layouts.
    """
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for path, tensor in tensors.items():
        row, name = path.split("/", 1)
        own = parameters[int(row)].detach()
        alike = torch.empty_like(own, dtype=tensor.dtype) if own.shape == tensor.shape else torch.empty_like(tensor)
        state.setdefault(int(row), {})[name] = alike.copy_(tensor)
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
