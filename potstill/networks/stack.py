"""Forward and backward passes of fully connected networks, written out.

Autograd records every operation and walks the record backwards: about 130 us of the 600 that a step of a small network
takes. A stack of linear layers and ReLUs needs no record: its gradients are three products per layer
(Rumelhart, Hinton, Williams 1986), written straight into the parameters' `.grad`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

# Multiply-adds below which float32 products of full precision are faster than those of a lower one, which start with a
# search for a kernel: 10 us each (measured at 5 thousand to 8 million, batches of 32 and 128; equal near a million).
_SMALL = 600_000


class _Layer(NamedTuple):
    """A linear layer, seen without autograd: views of its parameters, and where their gradients go."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor


@final
class Stack:
    """A network of linear layers with ReLUs between them. `Stack.of` tells whether a network is one."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self._layers = layers
        self._inputs: list[Tensor] = []

    @staticmethod
    def of(network: nn.Module) -> Stack | None:
        """The passes of `network`, or None where it holds anything else, is not float32 on the CPU, or has hooks.

        Hooks, or a `forward` set on a module itself, are looked for here: what is put in later goes unnoticed.

        From then on `.grad` of its parameters is overwritten by every backward pass, not added to.
        """
        modules = list(network.children()) if type(network) is nn.Sequential else []
        modules = [m for m in modules if not (type(m) is nn.Dropout and m.p == 0)]
        if not modules or type(modules[0]) is not nn.Flatten or (modules[0].start_dim, modules[0].end_dim) != (1, -1):
            return None
        kinds = itertools.cycle((nn.Linear, nn.ReLU))
        if len(modules) % 2 or any(type(m) is not kind for m, kind in zip(modules[1:], kinds, strict=False)):
            return None
        linear = [m for m in modules if type(m) is nn.Linear]
        if _has_any_global_hook():  # type: ignore[no-untyped-call]
            return None
        if any(map(_watched, network.modules())) or not all(map(_plain, linear)):
            return None
        if len({id(p) for p in network.parameters()}) != 2 * len(linear):
            return None  # layers that share parameters
        return Stack([_layer(m) for m in linear])

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, outputs) logits of (B, ...) inputs; keeps what `backward` needs."""
        here = inputs.flatten(1)
        self._inputs = kept = []
        last = len(self._layers) - 1
        with _Precision(len(here)) as precision:
            for number, layer in enumerate(self._layers):
                kept.append(here)
                precision.choose(layer.weight)
                here = torch.addmm(layer.bias, here, layer.weight.t())
                if number < last:
                    here.relu_()
        return here

    def backward(self, gradient: Tensor) -> None:
        """From the loss's gradient with respect to the logits, (B, outputs), to every parameter's `.grad`."""
        with _Precision(len(gradient)) as precision:
            for number in range(len(self._layers) - 1, -1, -1):
                layer, inputs = self._layers[number], self._inputs[number]
                precision.choose(layer.weight)
                torch.mm(gradient.t(), inputs, out=layer.weight_gradient)
                torch.sum(gradient, 0, out=layer.bias_gradient)
                if number:
                    # A ReLU's output is positive exactly where its input is.
                    gradient = torch.ops.aten.threshold_backward(gradient.mm(layer.weight), inputs, 0)


@final
class _Precision:
    """Full precision for small products inside the block, the precision that was set before for the others."""

    __slots__ = ("_largest", "_set", "_usual")

    def __init__(self, rows: int) -> None:
        self._largest = _SMALL // max(rows, 1)

    def __enter__(self) -> _Precision:
        self._usual = self._set = torch.get_float32_matmul_precision()
        return self

    def choose(self, weight: Tensor) -> None:
        """Set what suits a product of the batch with `weight`."""
        wanted = "highest" if weight.numel() < self._largest else self._usual
        if wanted != self._set:
            torch.set_float32_matmul_precision(wanted)
            self._set = wanted

    def __exit__(self, *_: object) -> None:
        if self._set != self._usual:
            torch.set_float32_matmul_precision(self._usual)


def _layer(module: nn.Linear) -> _Layer:
    module.weight.grad = torch.empty_like(module.weight)
    module.bias.grad = torch.empty_like(module.bias)
    return _Layer(module.weight.detach(), module.bias.detach(), module.weight.grad, module.bias.grad)


def _plain(module: nn.Linear) -> bool:
    """Whether all there is to a layer is a trained float32 weight and bias on the CPU."""
    parameters = list(module.parameters())
    return len(parameters) == 2 and all(
        p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad and not _hooked(p) for p in parameters
    )


def _hooked(parameter: nn.Parameter) -> bool:
    """Whether somebody's hooks wait for a parameter's gradient."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def _watched(module: nn.Module) -> bool:
    """Whether somebody's hooks wait for a module's passes, or its own forward pass was replaced."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
