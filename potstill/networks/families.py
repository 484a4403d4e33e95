"""Networks built on residual blocks: pre-activation, ResNet in ResNet, multilevel, dense.

Initial weights are those of `resnet`: He et al. 2015 for convolutions, torch's own for the head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from potstill.errors import NetworkError
from potstill.networks.blocks import (
    PreActivation,
    Residual,
    ResnetInResnet,
    activation,
    convolution,
    dense_block,
    he_normal,
    projection,
)
from potstill.networks.mlp import check_dropout
from potstill.networks.stems import Layers, Stem, begin, check_sizes, end, kind_of


def preact_resnet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    width: int = 64,
    bottleneck: bool = False,
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """A ResNet with the activation first (He et al. 2016, "Identity mappings"): 11,687,848 parameters for 3x224x224.

    `depths`: residual blocks of each stage; `width`: channels of the first stage, or of its 3x3 convolutions with a
    `bottleneck`, whose stages answer 4 times as many; every further stage has twice as many and half the size. The
    paper's ResNet-110 for 32 px is `depths = [18, 18, 18], width = 16`, ResNet-164 that with a bottleneck. A small stem
    is a convolution alone, since the first block activates. `stem` and `dropout` as of `resnet18`.
    """
    check_sizes("preact_resnet", depths=depths, width=width)
    channels, kind = kind_of("preact_resnet", shape, stem)
    layers = begin(channels, width, kind)
    if kind == "small":
        layers["stem"] = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, width, 3, padding=1, bias=False)))
    growth = 4 if bottleneck else 1

    def block(before: int, after: int, stride: int) -> nn.Module:
        return PreActivation(before, after, stride=stride, bottleneck=bottleneck)

    _stages(layers, depths, [width, *(width * 2**i * growth for i in range(len(depths)))], block)
    last = width * 2 ** (len(depths) - 1) * growth
    layers["active"] = activation(last)
    return _ready(end("preact_resnet", layers, last, outputs, dropout))


def resnet_in_resnet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    depths: tuple[int, ...] = (2, 3, 3),
    width: int = 48,
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """ResNet in ResNet (Targ, Almeida and Lyman 2016): 9,492,970 parameters for 3x32x32 and 10 classes.

    The paper's 18 layers, wide. `depths`: residual blocks of each stage, with two layers of two streams each; `width`:
    channels of each stream in the first stage; every further stage has twice as many and half the size. The head is
    linear on the mean; the paper has a 1x1 convolution before the mean. `stem` and `dropout` as of `resnet18`.
    """
    check_sizes("resnet_in_resnet", depths=depths, width=width)
    channels, kind = kind_of("resnet_in_resnet", shape, stem)
    layers = begin(channels, 2 * width, kind)

    def block(before: int, after: int, stride: int) -> nn.Module:
        return ResnetInResnet(before, after, stride=stride)

    _stages(layers, depths, [width, *(width * 2**i for i in range(len(depths)))], block)
    return _ready(end("resnet_in_resnet", layers, 2 * width * 2 ** (len(depths) - 1), outputs, dropout))


def multilevel_resnet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    depths: tuple[int, ...] = (8, 8, 8),
    width: int = 16,
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """A residual network of residual networks (Zhang et al. 2016, RoR-3): 762,746 parameters for 3x32x32, 10 classes.

    Shortcuts of three levels: around each block of two 3x3 convolutions, around each stage, around all stages; those of
    the upper levels are 1x1 convolutions. `depths`: blocks of each stage; `width`: channels of the first, every further
    one has twice as many and half the size. `stem` and `dropout` as of `resnet18`.
    """
    check_sizes("multilevel_resnet", depths=depths, width=width)
    channels, kind = kind_of("multilevel_resnet", shape, stem)
    layers = begin(channels, width, kind)
    stages: Layers = OrderedDict()
    before = width
    for i, depth in enumerate(depths):
        after, stride, last = width * 2**i, 2 if i else 1, i == len(depths) - 1
        blocks: Layers = OrderedDict()
        for j in range(depth):
            inner, step = (before, stride) if j == 0 else (after, 1)
            body = nn.Sequential(convolution(inner, after, 3, stride=step), convolution(after, after, 3, relu=False))
            # The sum that a block ends with goes into the sum of its stage before the ReLU; so does the last stage's.
            blocks[f"block{j + 1}"] = Residual(body, projection(inner, after, step), relu=j < depth - 1)
        past = convolution(before, after, 1, stride=stride, relu=False)
        stages[f"stage{i + 1}"] = Residual(nn.Sequential(blocks), past, relu=not last)
        before = after
    root = convolution(width, before, 1, stride=2 ** (len(depths) - 1), relu=False)
    layers["body"] = Residual(nn.Sequential(stages), root)
    return _ready(end("multilevel_resnet", layers, before, outputs, dropout))


def densenet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    depths: tuple[int, ...] = (16, 16, 16),
    growth: int = 12,
    bottleneck: bool = True,
    compression: float = 0.5,
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """DenseNet (Huang, Liu, van der Maaten and Weinberger 2017): 769,162 parameters for 3x32x32 and 10 classes.

    That is DenseNet-BC of 100 layers; `depths = [6, 12, 24, 16], growth = 32` is DenseNet-121 for large pictures.
    `depths`: dense layers of each block; `growth`: channels that a layer adds; `bottleneck`: 1x1 convolutions before
    the 3x3 ones; `compression`: the part of the channels that a transition between blocks leaves, above 0 and at most
    1 (all); `dropout`: after every 3x3 convolution. `stem` as of `resnet18`; small ones are a convolution alone.
    """
    name = "densenet"
    check_sizes(name, depths=depths, growth=growth)
    check_dropout(name, dropout)
    if not 0 < compression <= 1:
        raise NetworkError(f"{name}: compression is {compression}; wanted is a part above 0 and at most 1.")
    channels, kind = kind_of(name, shape, stem)
    here = 2 * growth if bottleneck or kind == "large" else 16
    layers = begin(channels, here, kind)
    if kind == "small":
        layers["stem"] = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, here, 3, padding=1, bias=False)))
    for i, depth in enumerate(depths, 1):
        layers[f"block{i}"] = dense_block(here, depth, growth, bottleneck=bottleneck, dropout=dropout)
        here += depth * growth
        if i < len(depths):
            left = max(int(compression * here), 1)
            layers[f"transition{i}"] = nn.Sequential(
                OrderedDict(active=activation(here), conv=nn.Conv2d(here, left, 1, bias=False), pool=nn.AvgPool2d(2))
            )
            here = left
    layers["active"] = activation(here)
    return _ready(end(name, layers, here, outputs, 0.0))


def _stages(
    layers: Layers, depths: tuple[int, ...], widths: list[int], block: Callable[[int, int, int], nn.Module]
) -> None:
    """Add stage1, stage2, ...: the first block of each changes the channels, and from the second on halves the size."""
    for i, depth in enumerate(depths):
        blocks: Layers = OrderedDict()
        for j in range(depth):
            blocks[f"block{j + 1}"] = block(widths[i + (j > 0)], widths[i + 1], 2 if i and j == 0 else 1)
        layers[f"stage{i + 1}"] = nn.Sequential(blocks)


def _ready(network: nn.Sequential) -> nn.Sequential:
    he_normal(network)
    return network
