"""Where each weight of a network lies in a posterior's flat vector, and how the layers follow each other.

A layer's weights come first, row by row, then its biases; layers come in the order in which the network runs them,
which is the order of `named_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from potstill.errors import PosteriorError, unknown

Part: TypeAlias = Literal["weight", "bias"]

RELU = "ReLU()"
# What may stand between two layers of a chain. Dropout and flattening change no number that a posterior speaks of.
_SILENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_POINTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.ReLU6,
    nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.Softsign, nn.LogSigmoid,
)  # fmt: skip
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def is_network(found: object) -> None:
    """Raise `PosteriorError` for what is no network: a trained model holds one, which is meant."""
    if not isinstance(found, nn.Module):
        hint = " Take model.network." if hasattr(found, "network") else ""
        raise PosteriorError(f"Found a {type(found).__name__}; wanted is a network, an nn.Module.{hint}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear or convolution layer.

    `weight` is its shape, (out, in) or (out, in, height, width); `settings` tells a convolution's stride, padding and
    dilation; `after` what stands between it and the next layer; `spread` how many numbers one of its neurons hands to
    each neuron of the next: height x width where a convolution is flattened, else 1.
    """

    name: str
    weight: tuple[int, ...]
    bias: bool
    start: int = 0
    settings: str = ""
    after: tuple[str, ...] = ()
    spread: int = 1

    @property
    def outputs(self) -> int:
        """Neurons, or channels of a convolution."""
        return self.weight[0]

    @property
    def weights(self) -> int:
        """Numbers in the weight."""
        return math.prod(self.weight)

    @property
    def size(self) -> int:
        """Numbers in weight and bias."""
        return self.weights + (self.outputs if self.bias else 0)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Height and width of a convolution's kernel; empty for a linear layer."""
        return self.weight[2:]

    @property
    def block(self) -> slice:
        """Its part of the flat vector."""
        return slice(self.start, self.start + self.size)

    def grid(self) -> Tensor:
        """int64, of the weight's shape: the flat index of every weight."""
        return torch.arange(self.start, self.start + self.weights).reshape(self.weight)

    def biases(self) -> Tensor:
        """(out,) int64: the flat index of every bias; empty without biases."""
        return torch.arange(self.start + self.weights, self.start + self.size)


@dataclass(frozen=True, slots=True)
class Layout:
    """All layers that a posterior speaks of. `obstacle` says why they are no chain of layers; empty where they are."""

    layers: tuple[Layer, ...]
    obstacle: str = ""

    @staticmethod
    def of(network: nn.Module) -> Layout:
        """The layout of a network's linear and convolution layers, in the order of its modules.

        Raises `PosteriorError` for a network without such layers, and for what is no network.
        """
        is_network(network)
        found = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        if not found:
            raise PosteriorError(
                f"This {type(network).__name__} has no linear or convolution layer, and a posterior speaks of nothing "
                "else."
            )
        layers = [_layer(name, module) for name, module in found]
        obstacle = _obstacle(network)
        return Layout(_placed(layers if obstacle else _linked(network, layers)), obstacle)

    @property
    def size(self) -> int:
        """Numbers in the flat vector."""
        return sum(layer.size for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of the hidden layers."""
        return tuple(layer.outputs for layer in self.layers[:-1])

    def number(self, name: str) -> int:
        """A layer's place among the layers, by its name."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise PosteriorError(unknown("layer", name, names))
        return names.index(name)

    def hidden(self, layer: int | str) -> int:
        """A hidden layer's place, from 0, by its name or its place. Raises `PosteriorError` for any other."""
        names = [own.name for own in self.layers[:-1]]
        if isinstance(layer, str):
            if layer not in names:
                raise PosteriorError(unknown("hidden layer", layer, names))
            return names.index(layer)
        if not 0 <= layer < len(names):
            told = ", ".join(names) or "none"
            raise PosteriorError(f"There is no hidden layer {layer} (from 0); the hidden layers are {told}.")
        return layer

    def index(self, layer: str, part: Part, row: int, column: int | tuple[int, ...] = ()) -> int:
        """The flat index of one number: `("dense1", "weight", 3, 0)`, `("conv1", "weight", 3, (0, 1, 1))`,
        `("dense1", "bias", 3)`.
        """
        own = self.layers[self.number(layer)]
        place = (row, *(column if isinstance(column, tuple) else (column,)))
        grid = own.grid() if part == "weight" else own.biases()
        inside = len(place) == grid.dim() and all(0 <= i < n for i, n in zip(place, grid.shape, strict=True))
        if not inside:
            raise PosteriorError(f"{layer}.{part} has shape {tuple(grid.shape)}; there is no {list(place)} in it.")
        return int(grid[place])

    def incoming(self, number: int, neurons: Sequence[int]) -> Tensor:
        """int64: the rows of some neurons of layer `number` (from 0), and their biases; neuron by neuron."""
        own = self.layers[number]
        rows = own.grid().flatten(1)[list(neurons)]
        return torch.cat([rows, own.biases()[list(neurons), None]], 1) if own.bias else rows

    def outgoing(self, number: int, neurons: Sequence[int]) -> Tensor:
        """int64: what the next layer multiplies the answers of some neurons of layer `number` by; neuron by neuron."""
        own, following = self.layers[number], self.layers[number + 1]
        columns = following.grid().movedim(1, 0).reshape(own.outputs, -1)
        return columns[list(neurons)]

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat vector cut into the network's own parameters, by name."""
        found = {}
        for layer in self.layers:
            part = flat[layer.block]
            found[f"{layer.name}.weight"] = part[: layer.weights].reshape(layer.weight)
            if layer.bias:
                found[f"{layer.name}.bias"] = part[layer.weights :]
        return found

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """(P,) float64: a network's parameters as one vector."""
        parts = [tensors[name] for name in self.tensors(torch.empty(self.size))]
        return torch.cat([part.detach().double().cpu().flatten() for part in parts])

    def chain(self, what: str = "This posterior") -> None:
        """Raise `PosteriorError` unless the layers are a chain: only then is it known what feeds what."""
        if self.obstacle:
            raise PosteriorError(f"{what} cannot be aligned with another network: {self.obstacle}.")

    def with_layers(self, layers: Sequence[Layer]) -> Layout:
        """The same kind of layout with other layers, placed anew."""
        return replace(self, layers=_placed(layers))

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @staticmethod
    def from_json(table: dict[str, Any]) -> Layout:
        """What `to_json` gave."""
        rows = [dict(row) | {"weight": tuple(row["weight"]), "after": tuple(row["after"])} for row in table["layers"]]
        return Layout(tuple(Layer(**row) for row in rows), table["obstacle"])


def leaves(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that sequences are made of, in the order in which they run."""
    if type(network) is not nn.Sequential:
        yield prefix, network
        return
    for name, child in network._modules.items():  # `named_children` leaves out what occurs twice
        if child is not None:
            yield from leaves(child, f"{prefix}.{name}" if prefix else name)


def _layer(name: str, module: nn.Linear | nn.Conv2d) -> Layer:
    settings = ""
    if isinstance(module, nn.Conv2d):
        settings = f"stride {module.stride}, padding {module.padding}, dilation {module.dilation}"
        settings += "" if module.padding_mode == "zeros" else f", {module.padding_mode}"
    return Layer(name, tuple(module.weight.shape), module.bias is not None, settings=settings)


def _placed(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    found, start = [], 0
    for layer in layers:
        found.append(replace(layer, start=start))
        start += layer.size
    return tuple(found)


def _obstacle(network: nn.Module) -> str:
    """The first thing that makes a network something else than a chain of layers."""
    seen: set[int] = set()
    for name, module in leaves(network):
        what = f"{name or 'it'} is a {type(module).__name__}"
        if isinstance(module, nn.Linear | nn.Conv2d):
            if id(module) in seen:
                return f"{name} occurs twice"
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                return f"{name} is a convolution in {module.groups} groups"
            seen.add(id(module))
        elif isinstance(module, _NORMS):
            return f"{what}, to be folded into the layer before (bayes.fold)"
        elif not isinstance(module, _SILENT + _POINTWISE + _POOLS + (nn.Flatten,)):
            return f"{what}, which no chain of linear and convolution layers has"
    return ""


def _linked(network: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a chain, each with what follows it."""
    after: dict[str, list[str]] = {layer.name: [] for layer in layers}
    current: str | None = None
    for name, module in leaves(network):
        if isinstance(module, nn.Linear | nn.Conv2d):
            current = name
        elif current is not None and isinstance(module, _POINTWISE + _POOLS):
            after[current].append(_word(module))
    found = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        spread = following.weight[1] // layer.outputs if following is not None else 1
        found.append(replace(layer, after=tuple(after[layer.name]), spread=spread))
    return found


def _word(module: nn.Module) -> str:
    """A module between two layers as text, the same whether or not it writes over its inputs."""
    return RELU if isinstance(module, nn.ReLU) else repr(module).replace(", inplace=True", "")
