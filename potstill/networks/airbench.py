"""A network that learns in few passes through small pictures: airbench94 (Jordan 2024)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from potstill.networks.stems import Layers, check_picture, check_sizes

_LOGITS = 1 / 9  # what the answers are multiplied by, section 3 of the paper's code


def airbench(shape: tuple[int, ...], outputs: int, *, width: int = 64) -> nn.Sequential:
    """airbench94 (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"): 1,972,826 parameters for 3x32x32.

    2x2 convolutions, then three blocks of convolution, pooling, batch norm, GELU, convolution, batch norm, GELU with
    `width`, 4 and again 4 times as many channels, the largest of each channel, and a head. Its 3x3 convolutions begin
    as identities of their first channels (section 3.1). Where the paper whitens patches by what the training pictures
    tell, the 2x2 filters begin as plus and minus the mean and the three differences of each channel's patch (Haar's
    basis, close to the eigenvectors there), batch norm brings them to one scale, and all is learned. Pictures are of at
    least 9 px.
    """
    check_sizes("airbench", width=width)
    channels = check_picture("airbench", shape, least=9)[0]
    layers: Layers = OrderedDict(stem=_stem(channels))
    before = 8 * channels
    for i, after in enumerate((width, 4 * width, 4 * width), 1):
        layers[f"block{i}"] = _block(before, after)
        before = after
    layers["max"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    head = nn.Linear(before, outputs)
    with torch.no_grad():
        head.weight.mul_(_LOGITS)
    layers["head"] = head
    return nn.Sequential(layers)


def _stem(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, 8 * channels, 2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        basis = _haar().to(conv.weight.device)
        for channel in range(channels):
            conv.weight[8 * channel : 8 * channel + 8, channel] = torch.cat([basis, -basis])
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(8 * channels), gelu=nn.GELU()))


def _haar() -> Tensor:
    """The orthonormal basis of 2x2 patches (4, 2, 2): mean, left to right, up to down, diagonal."""
    one, other = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    return torch.stack([torch.outer(down, across) for down in (one, other) for across in (one, other)])


def _block(before: int, after: int) -> nn.Sequential:
    layers: Layers = OrderedDict()
    for i, channels in enumerate((before, after), 1):
        conv = nn.Conv2d(channels, after, 3, padding=1, bias=False)
        with torch.no_grad():
            nn.init.dirac_(conv.weight[: min(channels, after)])
        layers[f"conv{i}"] = conv
        if i == 1:
            layers["pool"] = nn.MaxPool2d(2)
        layers[f"norm{i}"] = nn.BatchNorm2d(after)
        layers[f"gelu{i}"] = nn.GELU()
    return nn.Sequential(layers)
