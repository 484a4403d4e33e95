"""Residual blocks: of 2015, with the activation first (2016), dense ones, and those with two streams."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import torch
from torch import Tensor, nn

from potstill.networks.blocks.layers import Padded, activation, convolution


@final
class Residual(nn.Module):
    """The sum of what a body and a shortcut answer, and ReLU of it (He et al. 2016, equations 1 and 2).

    `relu` False leaves the ReLU to a sum further out, as multilevel residual networks do.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, *, relu: bool = True) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.relu(self.body(inputs) + self.shortcut(inputs))
        return answer


@final
class PreActivation(nn.Module):
    """body(a) + x with a = ReLU(norm(x)): He, Zhang, Ren and Sun 2016, "Identity mappings", equation 5 and figure 1b.

    Where the size or the number of channels changes, the sum is body(a) + W a with a 1x1 convolution W; nothing is
    activated after the sum. `bottleneck`: 1x1 to a quarter of the channels, 3x3 with the stride, 1x1; else two 3x3.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, bottleneck: bool = False) -> None:
        super().__init__()
        self.first = activation(before)
        channels = (before, after // 4, after // 4, after) if bottleneck else (before, after, after)
        sizes, strides = ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (size, step) in enumerate(zip(sizes, strides, strict=True)):
            if i:
                layers[f"active{i}"] = activation(channels[i])
            layers[f"conv{i + 1}"] = nn.Conv2d(channels[i], channels[i + 1], size, step, size // 2, bias=False)
        self.body = nn.Sequential(layers)
        same = stride == 1 and before == after
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.first(inputs)
        past = inputs if self.shortcut is None else self.shortcut(active)
        answer: Tensor = self.body(active) + past
        return answer


@final
class DenseLayer(nn.Module):
    """x and H(x) side by side: (B, C, H, W) to (B, C + growth, H, W). Huang, Liu, van der Maaten and Weinberger 2017.

    H: batch norm, ReLU, 3x3 convolution to `growth` channels; with a `bottleneck` (DenseNet-B), batch norm, ReLU and a
    1x1 convolution to 4 x growth channels come before. `dropout` acts on H(x).
    """

    def __init__(self, before: int, growth: int, *, bottleneck: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if bottleneck:
            layers["active1"] = activation(before)
            layers["conv1"] = nn.Conv2d(before, 4 * growth, 1, bias=False)
            before = 4 * growth
        layers["active"] = activation(before)
        layers["conv"] = nn.Conv2d(before, growth, 3, padding=1, bias=False)
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        self.body = nn.Sequential(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, self.body(inputs)], 1)


def dense_block(
    before: int, depth: int, growth: int, *, bottleneck: bool = True, dropout: float = 0.0
) -> nn.Sequential:
    """`depth` dense layers, each of which sees all before it: (B, C, H, W) to (B, C + depth x growth, H, W)."""
    return nn.Sequential(
        OrderedDict(
            (f"layer{i + 1}", DenseLayer(before + i * growth, growth, bottleneck=bottleneck, dropout=dropout))
            for i in range(depth)
        )
    )


@final
class Streams(nn.Module):
    """A layer of two streams: Targ, Almeida and Lyman 2016 ("Resnet in Resnet"), equation 1.

    (B, 2 before, H, W) to (B, 2 after, H', W'); the first half of the channels is the residual stream r, the second the
    transient stream t: r' = s(W_rr r + W_tr t + shortcut(r)), t' = s(W_rt r + W_tt t), s being batch norm and ReLU. The
    four 3x3 convolutions are one here, whose weights (2 after, 2 before, 3, 3) hold theirs as blocks. The shortcut is a
    1x1 convolution where the size or the number of channels changes.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * before, 2 * after, 3, stride, 1, bias=False)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.active, self.after = activation(2 * after), after

    def forward(self, inputs: Tensor) -> Tensor:
        residual, transient = self.conv(inputs).tensor_split((self.after,), 1)
        kept = self.shortcut(inputs[:, : inputs.shape[1] // 2])
        answer: Tensor = self.active(torch.cat([residual + kept, transient], 1))
        return answer


@final
class ResnetInResnet(nn.Module):
    """A residual block whose two convolutions are layers of two streams (figure 1d of the same paper).

    The outer shortcut goes along the residual stream; it is the identity, padded where sizes change.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.layer1, self.layer2 = Streams(before, after, stride=stride), Streams(after, after)
        self.shortcut = Padded(before, after, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        residual, transient = self.layer2(self.layer1(inputs)).chunk(2, 1)
        return torch.cat([residual + self.shortcut(inputs[:, : inputs.shape[1] // 2]), transient], 1)


def projection(before: int, after: int, stride: int) -> nn.Module:
    """The identity where nothing changes, else a 1x1 convolution with batch norm (shortcut B of He et al. 2016)."""
    if stride == 1 and before == after:
        return nn.Identity()
    return convolution(before, after, 1, stride=stride, relu=False)
