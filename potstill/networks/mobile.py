"""Depthwise separable networks, for students on small devices: MobileNet (Howard et al. 2017)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.networks.blocks import convolution, he_normal
from potstill.networks.stems import Layers, Stem, check_sizes, end, kind_of


def mobile(
    shape: tuple[int, ...],
    outputs: int,
    *,
    width: int = 32,
    depths: tuple[int, ...] = (1, 2, 2, 6, 2),
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """MobileNet (Howard et al. 2017): 4,231,976 parameters for 3 channels and 1000 classes.

    `width`: channels of the stem; stage i has 2^i times as many; widths of 8, 16 and 24 are the paper's multipliers of
    1/4, 1/2 and 3/4. `depths`: separable convolutions of each stage, of which the first halves the size from the second
    stage on; with [1, 2, 2] and a width of 8 it has 10,634 parameters for 1x28x28 and 10 classes. Batch norm and ReLU
    come after both parts of a separable convolution. A large stem has stride 2, a small one 1.
    """
    check_sizes("mobile", width=width, depths=depths)
    channels, kind = kind_of("mobile", shape, stem)
    layers: Layers = OrderedDict(stem=convolution(channels, width, 3, stride=2 if kind == "large" else 1))
    before = width
    for i, depth in enumerate(depths, 1):
        blocks: Layers = OrderedDict()
        for j in range(depth):
            after = width * 2**i
            blocks[f"depthwise{j + 1}"] = convolution(
                before, before, 3, stride=2 if i > 1 and j == 0 else 1, groups=before
            )
            blocks[f"pointwise{j + 1}"] = convolution(before, after, 1)
            before = after
        layers[f"stage{i}"] = nn.Sequential(blocks)
    network = end("mobile", layers, before, outputs, dropout)
    he_normal(network)
    return network
