"""Blocks of branches: Inception (2014), and PolyInception, which composes such blocks (2017)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from potstill.networks.blocks.layers import Pair, convolution

Kind: TypeAlias = Literal["poly", "mpoly", "way"]
Steps: TypeAlias = Sequence[tuple[int, Pair]]
"""Convolutions one after the other: channels and size of each."""


@final
class Branches(nn.Module):
    """What all branches answer to the same inputs, side by side: (B, C, H, W) to (B, sum of channels, H', W')."""

    def __init__(self, branches: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([branch(inputs) for branch in self.children()], 1)


def inception(before: int, *, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> Branches:
    """An Inception module (Szegedy et al. 2015, figure 2b) of four branches, with a ReLU after every convolution.

    1x1 to `one` channels; 1x1 then 3x3 to `three`; 1x1 then 5x5 to `five`; 3x3 max pooling then 1x1 to `pool`.
    (B, before, H, W) to (B, one + three[1] + five[1] + pool, H, W).
    """

    def chain(*steps: nn.Module) -> nn.Sequential:
        return nn.Sequential(OrderedDict((f"step{i}", step) for i, step in enumerate(steps, 1)))

    def conv(inputs: int, outputs: int, size: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()]

    return Branches(
        OrderedDict(
            one=chain(*conv(before, one, 1)),
            three=chain(*conv(before, three[0], 1), *conv(*three, 3)),
            five=chain(*conv(before, five[0], 1), *conv(*five, 5)),
            pool=chain(nn.MaxPool2d(3, 1, padding=1), *conv(before, pool, 1)),
        )
    )


@final
class _Step(nn.Module):
    """A convolution that is used several times, with a batch norm of its own for each, and ReLU."""

    def __init__(self, before: int, after: int, size: Pair, times: int) -> None:
        super().__init__()
        sizes = (size, size) if isinstance(size, int) else size
        self.conv = nn.Conv2d(before, after, size, padding=(sizes[0] // 2, sizes[1] // 2), bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(times))

    def forward(self, inputs: Tensor, time: int) -> Tensor:
        return self.norms[time](self.conv(inputs)).relu_()  # type: ignore[no-any-return]


@final
class _Inception(nn.Module):
    """Branches of convolutions, side by side, and a 1x1 convolution back to all channels: F in PolyNet's figures.

    Used several times, it shares the convolutions of the branches; batch norms and the last convolution are not shared.
    """

    def __init__(self, channels: int, branches: Sequence[Steps], times: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        for steps in branches:
            widths = [channels, *(width for width, _ in steps)]
            parts = (_Step(widths[i], width, size, times) for i, (width, size) in enumerate(steps))
            self.branches.append(nn.ModuleList(parts))
        joined = sum(steps[-1][0] for steps in branches)
        self.lasts = nn.ModuleList(convolution(joined, channels, 1, relu=False) for _ in range(times))

    def forward(self, inputs: Tensor, time: int) -> Tensor:
        found = []
        for branch in self.branches:
            here = inputs
            for step in branch:  # type: ignore[attr-defined]
                here = step(here, time)
            found.append(here)
        return self.lasts[time](torch.cat(found, 1))  # type: ignore[no-any-return]


@final
class PolyInception(nn.Module):
    """ReLU of a polynomial of Inception blocks: Zhang, Li, Loy and Lin 2017 ("PolyNet"), section 3. Keeps the shape.

    kind     order 2                    blocks
    "poly"   x + s F(x) + s F(F(x))     one, whose batch norms and last convolution are others each time
    "mpoly"  x + s F(x) + s G(F(x))     as many as the order
    "way"    x + s F(x) + s G(x)        as many as the order

    All three are a residual Inception block at order 1. F starts with a ReLU, which does nothing to inputs of at least
    0; `branches` are its convolutions. `scale` is s, the paper's beta; at 0 nothing but ReLU(x) is left.
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[Steps],
        *,
        kind: Kind = "poly",
        order: int = 2,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.kind, self.order, self.scale = kind, order, scale
        shared = kind == "poly"
        self.blocks = nn.ModuleList(
            _Inception(channels, branches, order if shared else 1) for _ in range(1 if shared else order)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        answer = here = inputs
        for k in range(self.order):
            block, time = (self.blocks[0], k) if self.kind == "poly" else (self.blocks[k], 0)
            here = block((inputs if self.kind == "way" else here).relu(), time)
            answer = answer + self.scale * here
        return answer.relu()

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, order={self.order}, scale={self.scale:.4g}"
