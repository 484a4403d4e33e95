"""Residual networks (He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition").

Bottlenecks have their stride in the 3x3 convolution, as today's pre-trained weights do; the paper has it in the first
1x1. Initial weights of convolutions: normal with variance 2 / (outputs x kernel), He et al. 2015 for backward passes;
of batch norms: 1 and 0; of the head: torch's default.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from potstill.networks.blocks import Residual, convolution, he_normal, projection
from potstill.networks.mlp import check_dropout
from potstill.networks.stems import Stem, begin, check_sizes, end, kind_of

Body: TypeAlias = Callable[[int, int, int], nn.Sequential]


def resnet18(
    shape: tuple[int, ...], outputs: int, *, width: int = 64, stem: Stem = "auto", dropout: float = 0.0
) -> nn.Sequential:
    """ResNet-18 (He et al. 2016): 11,689,512 parameters for 3x224x224 and 1000 classes.

    The stem: `"large"`, a 7x7 convolution of stride 2 and 3x3 max pooling of stride 2; `"small"`, a 3x3 convolution of
    stride 1 and no pooling, 15 times the multiply-adds; `"auto"`, small for pictures of up to 64 px (the shorter side).
    `width`: channels of the first stage; the others have 2, 4 and 8 times as many. `dropout` acts on the pooled
    features. Pictures are at least 8 px for the small stem, 32 px for the large one.
    """
    return _resnet(shape, outputs, (2, 2, 2, 2), body=_basic, growth=1, width=width, stem=stem, dropout=dropout)


def resnet34(
    shape: tuple[int, ...], outputs: int, *, width: int = 64, stem: Stem = "auto", dropout: float = 0.0
) -> nn.Sequential:
    """ResNet-34 (He et al. 2016): 21,797,672 parameters for 3x224x224 and 1000 classes.

    Keys as of `resnet18`.
    """
    return _resnet(shape, outputs, (3, 4, 6, 3), body=_basic, growth=1, width=width, stem=stem, dropout=dropout)


def resnet50(
    shape: tuple[int, ...], outputs: int, *, width: int = 64, stem: Stem = "auto", dropout: float = 0.0
) -> nn.Sequential:
    """ResNet-50 (He et al. 2016): 25,557,032 parameters for 3x224x224 and 1000 classes.

    Keys as of `resnet18`; `width` is that of the first stage's 3x3 convolutions, a stage answers 4 times as many.
    """
    return _resnet(shape, outputs, (3, 4, 6, 3), body=_bottleneck, growth=4, width=width, stem=stem, dropout=dropout)


def _resnet(
    shape: tuple[int, ...],
    outputs: int,
    depths: tuple[int, ...],
    *,
    body: Body,
    growth: int,
    width: int,
    stem: Stem,
    dropout: float,
) -> nn.Sequential:
    """stem, (pool,) stage1 to stage4, mean, flatten, (dropout,) head; a stage's parts are block1, block2, ..."""
    name = f"resnet{2 + (2 if body is _basic else 3) * sum(depths)}"
    check_dropout(name, dropout)
    check_sizes(name, width=width)
    channels, kind = kind_of(name, shape, stem)
    layers = begin(channels, width, kind)
    before = width
    for i, depth in enumerate(depths):
        after = width * 2**i * growth
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for j in range(1, depth + 1):
            stride = 2 if i and j == 1 else 1
            blocks[f"block{j}"] = Residual(body(before, after, stride), projection(before, after, stride))
            before = after
        layers[f"stage{i + 1}"] = nn.Sequential(blocks)
    network = end(name, layers, before, outputs, dropout)
    he_normal(network)
    return network


def _basic(before: int, after: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions, the first with the stride."""
    return _body((before, after, after), sizes=(3, 3), strides=(stride, 1))


def _bottleneck(before: int, after: int, stride: int) -> nn.Sequential:
    """1x1 to a quarter of the channels, 3x3 with the stride, 1x1 to all of them."""
    narrow = after // 4
    return _body((before, narrow, narrow, after), sizes=(1, 3, 1), strides=(1, stride, 1))


def _body(channels: tuple[int, ...], *, sizes: tuple[int, ...], strides: tuple[int, ...]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (size, stride) in enumerate(zip(sizes, strides, strict=True), 1):
        for part, module in convolution(channels[i - 1], channels[i], size, stride=stride, relu=False).named_children():
            layers[f"{part}{i}"] = module
        if i < len(sizes):
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
