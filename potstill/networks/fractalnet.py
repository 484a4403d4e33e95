"""FractalNet (Larsson, Maire and Shakhnarovich 2017): very deep without residuals."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.networks.blocks import Choice, Fractal, he_normal
from potstill.networks.mlp import check_dropout
from potstill.networks.stems import Layers, Stem, begin, check_sizes, end, kind_of


def fractalnet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    channels: tuple[int, ...] = (64, 128, 256, 512, 512),
    columns: int = 3,
    drop: float = 0.15,
    whole: float = 0.5,
    dropout: float = 0.0,
    stem: Stem = "auto",
) -> nn.Sequential:
    """FractalNet of 20 layers (Larsson et al. 2017): 33,724,618 parameters for 3x32x32 and 10 classes.

    `channels`: of each block; 2x2 pooling comes after each, rounding up. A block has `columns` c and 2^(c-1) layers;
    the paper's smaller family is `channels = [16, 32, 64, 128, 128]`. Drop-path in training: a join drops an input with
    probability `drop`, but never all; the part `whole` of a batch's examples keeps one column in all blocks. `dropout`:
    of the last block; earlier ones have less in equal steps, the first none (the paper: 0.4). A small stem is none.
    """
    name = "fractalnet"
    check_sizes(name, channels=channels, columns=columns)
    check_dropout(name, dropout)
    before, kind = kind_of(name, shape, stem, least={"small": 1, "large": 32})
    layers: Layers = OrderedDict()
    if kind == "large":
        layers = begin(before, channels[0], kind)
        before = channels[0]
    choice: Choice | None = None
    for i, after in enumerate(channels):
        part = dropout * i / max(len(channels) - 1, 1)
        block = Fractal(before, after, columns=columns, drop=drop, whole=whole, dropout=part, choice=choice)
        choice = block.choice
        layers[f"block{i + 1}"] = block
        layers[f"pool{i + 1}"] = nn.MaxPool2d(2, ceil_mode=True)
        before = after
    network = end(name, layers, before, outputs, 0.0)
    he_normal(network)
    return network
