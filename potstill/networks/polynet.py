"""PolyNet (Zhang, Li, Loy and Lin 2017): polynomials of Inception blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from potstill.errors import NetworkError
from potstill.networks.blocks import Branches, Kind, PolyInception, Steps, convolution, he_normal
from potstill.networks.stems import Layers, Stem, check_sizes, end, kind_of

_FULL = 384  # channels of the paper's first stage; its stem has 32, 64, 160 and 192 before
_LAST_SCALE = 0.7  # of the last residual block; the first has 1, those between in equal steps
# Branches of the Inception blocks of the three stages, in the paper's channels.
_BRANCHES: tuple[Sequence[Steps], ...] = (
    (((32, 1), (48, 3), (64, 3)), ((32, 1), (32, 3)), ((32, 1),)),
    (((128, 1), (160, (1, 7)), (192, (7, 1))), ((192, 1),)),
    (((192, 1), (224, (1, 3)), (256, (3, 1))), ((192, 1),)),
)
# Blocks of a unit of the first stage, and of the others: kind and order.
_FORMS: tuple[Sequence[tuple[Kind, int]], ...] = ((("way", 2),), (("poly", 3), ("way", 2)))
# Between stages: branches whose last convolution halves the size; the pooled inputs come beside them.
_REDUCTIONS: tuple[Sequence[Steps], ...] = (
    (((256, 1), (256, 3), (384, 3)), ((384, 3),)),
    (((256, 1), (256, 3), (256, 3)), ((256, 1), (256, 3)), ((256, 1), (384, 3))),
)


def polynet(
    shape: tuple[int, ...],
    outputs: int,
    *,
    depths: tuple[int, ...] = (10, 10, 5),
    width: int = _FULL,
    stem: Stem = "auto",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Very Deep PolyNet (Zhang et al. 2017): 95,366,600 parameters for 3 channels and 1000 classes.

    `depths`: units of the three stages; one of the first is a 2-way block, one of the others a poly-3 block and a 2-way
    block. `width`: channels of the first stage; the second has 3, the third 16/3 times as many, and all other numbers
    of channels shrink alike. Residuals are scaled from 1 in the first block to 0.7 in the last. A large stem is the
    paper's, for at least 75 px, and nothing is padded where sizes shrink; a small one is a 3x3 convolution. The paper
    has a `dropout` of 0.2.
    """
    name = "polynet"
    check_sizes(name, depths=depths, width=width)
    if len(depths) != 3:
        raise NetworkError(f"{name}: depths is {list(depths)}; wanted are three numbers, such as [10, 10, 5].")
    channels, kind = kind_of(name, shape, stem, least={"small": 4, "large": 75})

    def wide(full: int) -> int:
        return max(round(full * width / _FULL), 1)

    def shrunk(branches: Sequence[Steps]) -> list[Steps]:
        return [[(wide(channel), size) for channel, size in steps] for steps in branches]

    layers: Layers = OrderedDict(
        stem=_large(channels, wide) if kind == "large" else convolution(channels, wide(_FULL), 3)
    )
    total, done = depths[0] + 2 * depths[1] + 2 * depths[2], 0
    here = wide(_FULL)
    for i, depth in enumerate(depths):
        if i:
            layers[f"reduction{i}"], here = _reduction(here, shrunk(_REDUCTIONS[i - 1]), padding=int(kind == "small"))
        units: Layers = OrderedDict()
        for j in range(depth):
            for form, order in _FORMS[min(i, 1)]:
                scale = 1 - (1 - _LAST_SCALE) * done / max(total - 1, 1)
                units[f"{form}{j + 1}"] = PolyInception(here, shrunk(_BRANCHES[i]), kind=form, order=order, scale=scale)
                done += 1
        layers[f"stage{i + 1}"] = nn.Sequential(units)
    network = end(name, layers, here, outputs, dropout)
    he_normal(network)
    return network


def _chain(before: int, steps: Steps, *, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    """Convolutions one after the other; stride and padding are those of the last."""
    widths = [before, *(width for width, _ in steps)]
    last = len(steps) - 1
    return nn.Sequential(
        OrderedDict(
            (
                f"step{i + 1}",
                convolution(
                    widths[i],
                    width,
                    size,
                    stride=stride if i == last else 1,
                    padding=padding if i == last else None,
                ),
            )
            for i, (width, size) in enumerate(steps)
        )
    )


def _reduction(before: int, branches: Sequence[Steps], *, padding: int) -> tuple[nn.Module, int]:
    """Half the size, and the channels that come out."""
    parts: Layers = OrderedDict(
        (f"branch{i}", _chain(before, steps, stride=2, padding=padding)) for i, steps in enumerate(branches, 1)
    )
    parts["pool"] = nn.MaxPool2d(3, 2, padding=padding)
    return Branches(parts), before + sum(steps[-1][0] for steps in branches)


def _large(channels: int, wide: Callable[[int], int]) -> nn.Sequential:
    """The stem of the paper's figure 7: an eighth of the size, without padding."""
    first, second, third, last = (wide(full) for full in (32, 64, 96, _FULL))
    joined = second + third

    def crossed(*steps: tuple[int, int | tuple[int, int]]) -> nn.Module:
        return _chain(joined, steps, padding=0)

    narrow: Steps = ((second, 1), (second, (7, 1)), (second, (1, 7)), (third, 3))
    return nn.Sequential(
        OrderedDict(
            conv1=convolution(channels, first, 3, stride=2, padding=0),
            conv2=convolution(first, first, 3, padding=0),
            conv3=convolution(first, second, 3),
            mixed1=Branches(
                OrderedDict(pool=nn.MaxPool2d(3, 2), conv=convolution(second, third, 3, stride=2, padding=0))
            ),
            mixed2=Branches(OrderedDict(short=crossed((second, 1), (third, 3)), long=crossed(*narrow))),
            mixed3=Branches(
                OrderedDict(
                    pool=nn.MaxPool2d(3, 2), conv=convolution(2 * third, last - 2 * third, 3, stride=2, padding=0)
                )
            ),
        )
    )
