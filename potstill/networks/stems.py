"""How networks for pictures begin and end: stems for small and for large pictures, and the head behind the mean."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import nn

from potstill.errors import NetworkError
from potstill.networks.blocks import convolution
from potstill.networks.mlp import check_dropout

Stem: TypeAlias = Literal["auto", "small", "large"]
Layers: TypeAlias = "OrderedDict[str, nn.Module]"

_SMALL_UP_TO = 64  # pixels of the shorter side, up to which "auto" is the small stem
_LEAST = {"small": 8, "large": 32}  # three halvings then leave a pixel


def check_picture(name: str, shape: tuple[int, ...], *, least: int) -> tuple[int, int, int]:
    """The shape; raise `NetworkError` unless it is that of pictures of at least `least` x `least`."""
    if len(shape) != 3:
        hint = f" Reshape them to (1, {shape[0]}, {shape[1]})." if len(shape) == 2 else ' For rows take "mlp".'
        raise NetworkError(
            f"{name} takes pictures (channels, height, width); this data has examples of shape {shape}.{hint}"
        )
    if min(shape[1:]) < least:
        raise NetworkError(
            f"{name} needs pictures of at least {least} x {least}; this data has {shape[1]} x {shape[2]}."
        )
    return shape[0], shape[1], shape[2]


def check_sizes(name: str, **sizes: int | Sequence[int]) -> None:
    """Raise `NetworkError` unless every size, or every one of several, is at least 1, and there is one."""
    for key, size in sizes.items():
        several = [size] if isinstance(size, int) else list(size)
        if not several or min(several) < 1:
            found = size if isinstance(size, int) else list(size)
            wanted = "a number of at least 1" if isinstance(size, int) else "numbers of at least 1"
            raise NetworkError(f"{name}: {key} is {found}; wanted is {wanted}.")


def kind_of(name: str, shape: tuple[int, ...], stem: Stem, *, least: dict[str, int] | None = None) -> tuple[int, str]:
    """Channels of the pictures, and "small" or "large"; "auto" is small for pictures of up to 64 px (the shorter side).

    Raises `NetworkError` for pictures that are smaller than `least` of the kind: 8 px or 32 px unless it is given.
    """
    channels, height, width = check_picture(name, shape, least=1)
    kind: str = stem if stem != "auto" else "small" if min(height, width) <= _SMALL_UP_TO else "large"
    check_picture(f"{name} with a {kind} stem", shape, least=(least or _LEAST)[kind])
    return channels, kind


def begin(channels: int, width: int, kind: str) -> Layers:
    """stem (and pool): 7x7 with stride 2 and pooling for large pictures, 3x3 for small ones; batch norm and ReLU."""
    if kind == "small":
        return OrderedDict(stem=convolution(channels, width, 3))
    return OrderedDict(stem=convolution(channels, width, 7, stride=2), pool=nn.MaxPool2d(3, 2, padding=1))


def end(name: str, layers: Layers, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """The network: `layers`, then mean, flatten, (dropout,) head."""
    check_dropout(name, dropout)
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["head"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
