"""Networks of fully connected layers."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from potstill.errors import NetworkError


def linear(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """One linear layer: softmax regression. `shape` is one example's; the answer is (B, outputs) logits."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(math.prod(shape), outputs)))


def mlp(
    shape: tuple[int, ...], outputs: int, *, hidden: tuple[int, ...] = (100,), dropout: float = 0.0
) -> nn.Sequential:
    """Fully connected layers with ReLU: flatten, dense1, relu1, (dropout1,) ..., head."""
    if not hidden or min(hidden) < 1:
        raise NetworkError(f"mlp: hidden is {list(hidden)}; wanted are sizes of at least 1, such as mlp:100-50.")
    check_dropout("mlp", dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(shape)
    for i, size in enumerate(hidden, 1):
        layers[f"dense{i}"] = nn.Linear(width, size)
        layers[f"relu{i}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        width = size
    layers["head"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)


def check_dropout(name: str, dropout: float) -> None:
    """Raise `NetworkError` unless 0 <= dropout < 1."""
    if not 0 <= dropout < 1:
        raise NetworkError(f"{name}: dropout is {dropout}; wanted is a part of at least 0 and below 1.")
