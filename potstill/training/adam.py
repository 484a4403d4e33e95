"""Adam with a learning rate that decays with every step, and as Keras and paper 1 compute it.

With m and v the moving averages of the gradient g and of its square (betas b1, b2), t the number of the step from 1,
and r_t = learning_rate / (1 + decay (t - 1)), the step is a_t m / (s_t sqrt(v) + eps):

    torch   a_t = r_t / (1 - b1^t)                      s_t = 1 / sqrt(1 - b2^t)
    keras   a_t = r_t sqrt(1 - b2^t) / (1 - b1^t)       s_t = 1
    paper   as keras, and again a_t / (1 - b1^t) while t < 10, s_t / sqrt(1 - b2^t) while t < 1000
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Variant: TypeAlias = Literal["torch", "keras", "paper"]

_FIRST, _SECOND = 10, 1000  # the paper's k1 and k2


def scales(variant: Variant, t: int, betas: tuple[float, float]) -> tuple[float, float]:
    """a_t / r_t and s_t of the table above, for step t = 1, 2, ..."""
    first, second = 1 - betas[0] ** t, math.sqrt(1 - betas[1] ** t)
    if variant == "torch":
        return 1 / first, 1 / second
    factor = second / first
    if variant == "keras":
        return factor, 1.0
    return factor / (first if t < _FIRST else 1.0), 1 / (second if t < _SECOND else 1.0)


@final
class DecayedAdam(Optimizer):
    """Adam in one of three variants. `last_rate` of a parameter group is r_t of the last step.

    Its state has the names of torch's Adam: step, exp_avg, exp_avg_sq.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        variant: Variant,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decay: float,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decay": decay}
        super().__init__(parameters, settings | {"variant": variant, "last_rate": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for every parameter that has a gradient; `closure` computes them first, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        t, (beta1, beta2) = int(state["step"]), group["betas"]
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        group["last_rate"] = group["lr"] / (1 + group["decay"] * (t - 1))
        factor, scale = scales(group["variant"], t, group["betas"])
        parameter.addcdiv_(mean, square.sqrt().mul_(scale).add_(group["eps"]), value=-group["last_rate"] * factor)
