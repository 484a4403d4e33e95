"""Layers that torch does not have, and short ways to write down those that it has."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from potstill.errors import NetworkError

Pair: TypeAlias = int | tuple[int, int]


@final
class DropConnect(nn.Module):
    """A fully connected layer that forgets connections in training: (B, inputs) to (B, outputs).

    Wan, Zeiler, Zhang, LeCun and Fergus 2013, section 3: r = (M * W) v with a mask M of its own for every example,
    whose elements are 1 with probability 1 - drop; biases are masked too. The paper scales when it predicts; here, as
    torch does for dropout, what is kept is divided by 1 - drop in training, so that both agree in expectation and a
    prediction is that of `nn.Linear` with the same parameters.

    `drop` = 0 is `nn.Linear`; towards 1 nothing is left. The masks take B x outputs x inputs numbers. They come from
    the default generator of the inputs' device. Raises `NetworkError` unless 0 <= drop < 1.
    """

    def __init__(self, inputs: int, outputs: int, *, drop: float = 0.5) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise NetworkError(f"DropConnect: drop is {drop}; wanted is a part of at least 0 and below 1.")
        like = nn.Linear(inputs, outputs)
        self.weight, self.bias, self.drop = like.weight, like.bias, drop

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return functional.linear(inputs, self.weight, self.bias)
        outputs, width = self.weight.shape
        keep = torch.full((len(inputs), outputs, width + 1), 1 - self.drop, dtype=inputs.dtype, device=inputs.device)
        mask = torch.bernoulli(keep) / (1 - self.drop)
        masked = torch.baddbmm(
            (mask[:, :, -1] * self.bias).unsqueeze(2), mask[:, :, :-1] * self.weight, inputs.unsqueeze(2)
        )
        return masked.squeeze(2)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, drop={self.drop}"


@final
class LocallyConnected(nn.Module):
    """A convolution with weights of its own at every place: (B, C, H, W) to (B, outputs, H', W').

    `weight` is (H' x W', outputs, C x size x size), `bias` (outputs, H', W'); initial values are uniform within
    1 / sqrt(C x size x size), as those of `nn.Conv2d`. With the same weights everywhere it is a convolution. Raises
    `NetworkError` where the kernel is larger than the padded picture.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, size: int, *, stride: int = 1, padding: int = 0):
        super().__init__()
        channels, height, width = shape
        self.size, self.stride, self.padding = size, stride, padding
        self.places = tuple((side + 2 * padding - size) // stride + 1 for side in (height, width))
        if min(self.places) < 1:
            raise NetworkError(
                f"A kernel of {size} x {size} does not fit into {height} x {width} padded by {padding}; take less."
            )
        inputs = channels * size * size
        self.weight = nn.Parameter(torch.empty(math.prod(self.places), outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs, *self.places))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        patches = functional.unfold(inputs, self.size, padding=self.padding, stride=self.stride)
        answers = torch.bmm(self.weight, patches.permute(2, 1, 0))  # one product for each place
        return answers.permute(2, 1, 0).reshape(len(inputs), *self.bias.shape) + self.bias

    def extra_repr(self) -> str:
        places, outputs, _ = self.weight.shape
        return f"{outputs} at {places} places, size={self.size}, stride={self.stride}, padding={self.padding}"


@final
class Padded(nn.Module):
    """The identity where a picture becomes smaller and has more channels: every `stride`-th pixel, zeros for the rest.

    (B, before, H, W) to (B, after, ceil(H / stride), ceil(W / stride)); shortcut A of He et al. 2016, section 3.3.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = after - before, stride

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))

    def extra_repr(self) -> str:
        return f"{self.more} more channels, stride={self.stride}"


def separable(
    before: int, after: int, *, size: int = 3, stride: int = 1, padding: int = 0, dilation: int = 1
) -> nn.Sequential:
    """A depthwise separable convolution: a filter without bias for every channel, then 1x1 with bias (paper 4).

    3x3 and 4 to 10 channels: 4 x 9 + 4 x 10 + 10 = 86 parameters, where an ordinary convolution has 370.
    """
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(before, before, size, stride, padding, dilation, groups=before, bias=False),
            pointwise=nn.Conv2d(before, after, 1),
        )
    )


def convolution(
    before: int,
    after: int,
    size: Pair,
    *,
    stride: int = 1,
    padding: Pair | None = None,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution without bias, batch norm, and ReLU unless `relu` is False; the padding keeps the size by default."""
    sizes = (size, size) if isinstance(size, int) else size
    padded = (sizes[0] // 2, sizes[1] // 2) if padding is None else padding
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(before, after, size, stride, padded, groups=groups, bias=False), norm=nn.BatchNorm2d(after)
    )
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def activation(channels: int) -> nn.Sequential:
    """Batch norm and ReLU, for convolutions that come after them."""
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))


def he_normal(network: nn.Module) -> None:
    """Initial weights of all convolutions: normal with variance 2 / (outputs x kernel), He et al. 2015 (backward)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
