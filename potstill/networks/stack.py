"""Forward and backward passes of fully connected networks, written out: of one, or of several at once.

Autograd records every operation and walks the record backwards: about 130 us of the 600 that a step of a small network
takes. A stack of linear layers and ReLUs needs no record: its gradients are three products per layer
(Rumelhart, Hinton, Williams 1986), written straight into the parameters' `.grad`.

Networks of one shape that see the same batches need one product for all their first layers, and one call for each of
the other operations. A batch's examples are the columns here, so that a network's rows of that product are the same
bits as those of its own: training several at once changes nothing but the time. `exact` tells where, by trying.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

# Multiply-adds below which float32 products of full precision are faster than those of a lower one, which start with a
# search for a kernel: 10 us each (measured at 5 thousand to 8 million, batches of 32 and 128; equal near a million).
_SMALL = 600_000
_COMPARED, _FEW_ROWS = 500, 8
ALIGNED = 16  # numbers: 64 bytes, a cache line, the widest vector


class _Layer(NamedTuple):
    """The same layer of k networks: views of their weights (k, out, in), biases (k, out, 1), and of the gradients."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor


@final
class Stack:
    """k networks of linear layers with ReLUs between them, all of one shape. `Stack.of` tells whether they are such.

    `values` and `gradients` are flat tensors that hold all parameters and their gradients; `like` makes others for an
    optimizer, and `views` cuts one up. Between parameters are zeros, so that every operation runs over whole vectors.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = list(networks)
        rows = [list(network.parameters()) for network in networks]
        self.shapes = [tuple(p.shape) for p in rows[0]]
        self._starts = [0]
        for shape in self.shapes:
            self._starts.append(self._starts[-1] + _whole(len(rows) * math.prod(shape)))
        self.values, self.gradients = self.like(), self.like()
        for parameters, values, gradients in zip(
            rows, self.views(self.values), self.views(self.gradients), strict=True
        ):
            for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
                value.copy_(parameter.detach())
                parameter.data, parameter.grad = value, gradient
        self._layers = _layers(self._blocks(self.values), self._blocks(self.gradients))
        self._passes: list[tuple[list[_Layer], list[Tensor]]] = []
        self._together: dict[int, bool] = {}

    @staticmethod
    def of(networks: Sequence[nn.Module]) -> Stack | None:
        """The passes of `networks`; None where one holds anything else, is not float32 on the CPU, or has hooks.

        None too where their shapes differ. Hooks, or a `forward` set on a module itself, are looked for here: what is
        put in later goes unnoticed.

        From then on the parameters lie side by side in one storage, until `release`, and their `.grad` is overwritten
        by every backward pass, not added to.
        """
        fits = networks and all(map(is_stack, networks))
        return Stack(networks) if fits and len({shapes_of(network) for network in networks}) == 1 else None

    def like(self) -> Tensor:
        """Zeros, as many as `values` has."""
        return torch.zeros(self._starts[-1])

    def views(self, flat: Tensor) -> list[list[Tensor]]:
        """For every network, the parts of a flat tensor that belong to its parameters, in their order and shapes."""
        blocks = self._blocks(flat)
        return [[block[number] for block in blocks] for number in range(len(self.networks))]

    def _blocks(self, flat: Tensor) -> list[Tensor]:
        count = len(self.networks)
        return [
            flat[start : start + count * math.prod(shape)].view(count, *shape)
            for start, shape in zip(self._starts, self.shapes, strict=False)
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        """(k, outputs, B) logits of (B, ...) inputs; keeps what `backward` needs."""
        here = inputs.flatten(1)
        at_once = self._together.get(len(here))
        if at_once is None:
            count, precision = len(self.networks), torch.get_float32_matmul_precision()
            at_once = count == 1 or exact(tuple(self.shapes), count, len(here), precision)
            self._together[len(here)] = at_once
        # In turn, each in memory of its own: where a tensor begins can decide how its sums round.
        parts = [self._layers] if at_once else [_alone(self._layers, k) for k in range(len(self.networks))]
        passes = [_forward(layers, here) for layers in parts]
        self._passes = [(layers, kept) for layers, (kept, _) in zip(parts, passes, strict=True)]
        return passes[0][1] if at_once else torch.cat([logits for _, logits in passes])

    def backward(self, gradient: Tensor) -> None:
        """From the loss's gradient with respect to the logits, (k, outputs, B), to every parameter's `.grad`."""
        if self._passes[0][0] is self._layers:
            _backward(*self._passes[0], gradient)
            return
        for k, (layers, kept) in enumerate(self._passes):
            _backward(layers, kept, gradient[k : k + 1].clone())
            for own, layer in zip(layers, self._layers, strict=True):
                layer.weight_gradient[k] = own.weight_gradient[0]
                layer.bias_gradient[k] = own.bias_gradient[0]

    def release(self) -> None:
        """Give every parameter memory of its own again, and no gradient."""
        for network in self.networks:
            for parameter in network.parameters():
                parameter.data, parameter.grad = parameter.detach().clone(), None


Shapes = tuple[tuple[int, ...], ...]


def shapes_of(network: nn.Module) -> Shapes:
    """The shapes of all parameters."""
    return tuple(tuple(p.shape) for p in network.parameters())


@cache
def exact(shapes: Shapes, count: int, rows: int, precision: str) -> bool:
    """Whether so many networks can take a batch of `rows` at once with the bits that each has alone, found by trying.

    Sums in another order can round alike by chance, so every tensor is compared in at least `_COMPARED` numbers.
    Batches of few rows, and networks with one output, are said not to be. `precision`: of float32 products.
    """
    outputs = shapes[-1][0]
    if rows < _FEW_ROWS or outputs < 2:
        return False
    generator = torch.Generator().manual_seed(0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        draws = -(-_COMPARED // (count * min(shape[0] for shape in shapes)))
        return all(_agree(shapes, count, rows, generator=generator) for _ in range(draws))
    finally:
        torch.set_float32_matmul_precision(before)


def _agree(shapes: Shapes, count: int, rows: int, *, generator: torch.Generator) -> bool:
    """Whether passes at once and passes alone give the same numbers for one draw of weights, inputs and gradient."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    blocks = [draw(count, *shape) / shape[-1] ** 0.5 for shape in shapes]
    whole = _layers(blocks, list(map(torch.empty_like, blocks)))
    inputs, gradient = draw(rows, shapes[0][1]), draw(count, shapes[-1][0], rows)

    def passes(layers: list[_Layer], gradient: Tensor) -> list[Tensor]:
        kept, logits = _forward(layers, inputs)
        _backward(layers, kept, gradient)
        return [logits, *(t for layer in layers for t in (layer.weight_gradient, layer.bias_gradient))]

    alone = [passes(_alone(whole, k), gradient[k : k + 1].clone()) for k in range(count)]
    wanted = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    return all(map(torch.equal, passes(whole, gradient), wanted))


def aligned(network: nn.Module) -> nn.Module:
    """The network, or a copy of it where a parameter begins amid a vector, which can decide how its sums round."""
    apart = all(p.data_ptr() % (4 * ALIGNED) == 0 for p in network.parameters())
    return network if apart else copy.deepcopy(network)


def _alone(layers: Sequence[_Layer], number: int) -> list[_Layer]:
    """The layers of one network, in memory of its own."""
    return [_Layer(*(tensor[number : number + 1].clone() for tensor in layer)) for layer in layers]


def _layers(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[_Layer]:
    """Layers from weights (k, out, in) and biases (k, out) in turn."""
    pairs = zip(values[::2], values[1::2], gradients[::2], gradients[1::2], strict=True)
    return [_Layer(weight, bias.unsqueeze(2), *others) for weight, bias, *others in pairs]


def _forward(layers: Sequence[_Layer], inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """The inputs of every layer, (B, in) of the first and (k, in, B) of the others, and the logits (k, outputs, B)."""
    kept = [inputs]
    with Precision(len(inputs)) as precision:
        count, outputs, width = layers[0].weight.shape
        precision.choose(layers[0].weight)
        weight, bias = layers[0].weight.view(-1, width), layers[0].bias.reshape(-1, 1)
        here = torch.addmm(bias, weight, inputs.t()).view(count, outputs, -1)
        for layer in layers[1:]:
            kept.append(here.relu_())
            precision.choose(layer.weight)
            here = torch.baddbmm(layer.bias, layer.weight, here)
    return kept, here


def _backward(layers: Sequence[_Layer], kept: Sequence[Tensor], gradient: Tensor) -> None:
    with Precision(gradient.shape[2]) as precision:
        for number in range(len(layers) - 1, -1, -1):
            layer, inputs = layers[number], kept[number]
            precision.choose(layer.weight)
            torch.sum(gradient, 2, out=layer.bias_gradient)
            if number == 0:
                width = layer.weight.shape[2]
                torch.mm(gradient.flatten(0, 1), inputs, out=layer.weight_gradient.view(-1, width))
                return
            torch.bmm(gradient, inputs.transpose(1, 2), out=layer.weight_gradient)
            back = torch.bmm(layer.weight.transpose(1, 2), gradient)
            # A ReLU's output is positive exactly where its input is.
            gradient = torch.ops.aten.threshold_backward(back, inputs, 0)


@final
class Precision:
    """Full precision for small products inside the block, the precision that was set before for the others.

    What is small is told by one network's product, so that the number of networks changes nothing.
    """

    __slots__ = ("_largest", "_set", "_usual")

    def __init__(self, rows: int) -> None:
        self._largest = _SMALL // max(rows, 1)

    def __enter__(self) -> Precision:
        self._usual = self._set = torch.get_float32_matmul_precision()
        return self

    def choose(self, weight: Tensor) -> None:
        """Set what suits a product of the batch with a `weight` (k, out, in)."""
        self.suit(weight.shape[1] * weight.shape[2])

    def suit(self, numbers: int) -> None:
        """Set what suits a product of the batch with a matrix of so many numbers."""
        wanted = "highest" if numbers < self._largest else self._usual
        if wanted != self._set:
            torch.set_float32_matmul_precision(wanted)
            self._set = wanted

    def __exit__(self, *_: object) -> None:
        if self._set != self._usual:
            torch.set_float32_matmul_precision(self._usual)


def _whole(number: int) -> int:
    """The next number that is whole vectors long."""
    return -(-number // ALIGNED) * ALIGNED


def is_stack(network: nn.Module) -> bool:
    """Whether a network is linear layers with ReLUs between them, to be computed as anybody would, and no more."""
    modules = list(network.children()) if type(network) is nn.Sequential else []
    modules = [m for m in modules if not (type(m) is nn.Dropout and m.p == 0)]
    if not modules or type(modules[0]) is not nn.Flatten or (modules[0].start_dim, modules[0].end_dim) != (1, -1):
        return False
    kinds = itertools.cycle((nn.Linear, nn.ReLU))
    if len(modules) % 2 or any(type(m) is not kind for m, kind in zip(modules[1:], kinds, strict=False)):
        return False
    linear = [m for m in modules if type(m) is nn.Linear]
    if _has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    if any(map(watched, network.modules())) or not all(map(_plain, linear)):
        return False
    return len({id(p) for p in network.parameters()}) == 2 * len(linear)  # no layers that share parameters


def _plain(module: nn.Linear) -> bool:
    """Whether all there is to a layer is a trained float32 weight and bias on the CPU."""
    parameters = list(module.parameters())
    return len(parameters) == 2 and all(
        p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad and not hooked(p) for p in parameters
    )


def hooked(parameter: nn.Parameter) -> bool:
    """Whether somebody's hooks wait for a parameter's gradient."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def watched(module: nn.Module) -> bool:
    """Whether somebody's hooks wait for a module's passes, or its own forward pass was replaced."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
