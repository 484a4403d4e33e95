"""AlexNet (Krizhevsky, Sutskever and Hinton 2012)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.networks.mlp import check_dropout
from potstill.networks.stems import Layers, Stem, check_sizes, kind_of


def alexnet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    width: int = 32,
    dense: int = 4096,
    dropout: float = 0.5,
    stem: Stem = "auto",
) -> nn.Sequential:
    """AlexNet (Krizhevsky et al. 2012): 60,965,224 parameters for 3x224x224 and 1000 classes, "60 million".

    `width`: the five convolutions have 3, 8, 12, 12 and 8 times as many channels; as in 2012, the second, fourth and
    fifth see half of the channels each (two groups). `dense`: sizes of the two dense layers; `dropout` acts before
    each. A large stem is an 11x11 convolution of stride 4, for pictures of at least 63 px; a small one is 5x5 of stride
    1, for at least 15 px. Initial weights are torch's.
    """
    check_sizes("alexnet", width=width, dense=dense)
    check_dropout("alexnet", dropout)
    channels, kind = kind_of("alexnet", shape, stem, least={"small": 15, "large": 63})
    first, second, third = 3 * width, 8 * width, 12 * width
    conv1 = nn.Conv2d(channels, first, 11, 4, 2) if kind == "large" else nn.Conv2d(channels, first, 5, padding=2)
    sides = [(side + 4 - 11) // 4 + 1 if kind == "large" else side for side in shape[1:]]
    for _ in range(3):
        sides = [(side - 3) // 2 + 1 for side in sides]
    layers: Layers = OrderedDict(
        conv1=conv1,
        relu1=nn.ReLU(),
        norm1=_response(),
        pool1=nn.MaxPool2d(3, 2),
        conv2=nn.Conv2d(first, second, 5, padding=2, groups=_groups(first)),
        relu2=nn.ReLU(),
        norm2=_response(),
        pool2=nn.MaxPool2d(3, 2),
        conv3=nn.Conv2d(second, third, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(third, third, 3, padding=1, groups=2),
        relu4=nn.ReLU(),
        conv5=nn.Conv2d(third, second, 3, padding=1, groups=2),
        relu5=nn.ReLU(),
        pool3=nn.MaxPool2d(3, 2),
        flatten=nn.Flatten(),
    )
    inside = second * sides[0] * sides[1]
    for i, before in enumerate((inside, dense), 1):
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        layers[f"dense{i}"] = nn.Linear(before, dense)
        layers[f"relu{i + 5}"] = nn.ReLU()
    layers["head"] = nn.Linear(dense, outputs)
    return nn.Sequential(layers)


def _groups(channels: int) -> int:
    return 1 if channels % 2 else 2


def _response() -> nn.LocalResponseNorm:
    """Section 3.3 with its n, alpha, beta, k; torch divides alpha by n."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
