"""Small networks and made-up posteriors for the tests of potstill.bayes."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from potstill.bayes.layout import Layout
from potstill.bayes.posterior import Blocks, Diagonal, Full, GaussianPosterior

KINDS = ("diagonal", "block", "full")


def mlp(*sizes: int, activation: Any = nn.ReLU, bias: bool = True) -> nn.Sequential:
    """dense1, act1, ..., head: of sizes inputs, hidden, ..., outputs."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (a, b) in enumerate(pairwise(sizes), 1):
        last = i == len(sizes) - 1
        layers["head" if last else f"dense{i}"] = nn.Linear(a, b, bias=bias)
        if not last:
            layers[f"act{i}"] = activation()
    return nn.Sequential(layers)


def cnn(*, first: int = 2, second: int = 3, dense: int = 4) -> nn.Sequential:
    """Pictures 1 x 4 x 6 to 3 classes: two convolutions that keep the size, pooling, flatten, two linear layers."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 3, padding=1), relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 3, padding=1), relu2=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
            dense=nn.Linear(second * 6, dense), relu3=nn.ReLU(), head=nn.Linear(dense, 3),
        )
    )  # fmt: skip


def spd(size: int, seed: int = 0) -> Tensor:
    """A well conditioned covariance."""
    rows = torch.randn(size, 2 * size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows @ rows.T / size + 0.1 * torch.eye(size)


def made_up(network: nn.Module, kind: str, seed: int = 0) -> GaussianPosterior:
    """A posterior over a network's weights with random numbers."""
    layout = Layout.of(network)
    mean = torch.randn(layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    if kind == "diagonal":
        generator = torch.Generator().manual_seed(seed)
        variance = 0.1 + torch.rand(layout.size, dtype=torch.float64, generator=generator)
        return GaussianPosterior(layout, mean, Diagonal(variance), {"made": "up"})
    matrix = spd(layout.size, seed)
    if kind == "full":
        return GaussianPosterior(layout, mean, Full(matrix), {"made": "up"})
    parts = [layer.block for layer in layout.layers]
    return GaussianPosterior(layout, mean, Blocks(tuple(matrix[part, part] for part in parts)), {"made": "up"})


def every(posterior: GaussianPosterior) -> Tensor:
    """The whole covariance."""
    return posterior.covariance_of(torch.arange(posterior.layout.size))


def filled(network: nn.Module, posterior: GaussianPosterior) -> nn.Module:
    """The network with a posterior's means, in double precision; layers by their order."""
    network, found = network.double(), posterior.layout.tensors(posterior.mean)
    modules = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for layer, module in zip(posterior.layout.layers, modules, strict=True):
        parts = ("weight", "bias") if layer.bias else ("weight",)
        module.load_state_dict({part: found[f"{layer.name}.{part}"] for part in parts})
    return network.eval()
