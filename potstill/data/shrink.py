"""Small pictures from large ones, by averaging areas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from potstill.errors import DataError

_ROWS = 4096  # pictures shrunk at once


def size_of(asked: Any, shape: Sequence[int], where: str) -> tuple[int, int]:
    """(height, width) from a number or a pair, for pictures of `shape` (C, H, W).

    `DataError` where the examples are no pictures, or the size is larger than they are.
    """
    if len(shape) != 3:
        raise DataError(f"{where}: resize needs pictures (channels, height, width), found examples of shape {shape}.")
    pair = (asked, asked) if isinstance(asked, int) and not isinstance(asked, bool) else tuple(asked)
    height, width = shape[1:]
    if len(pair) != 2 or not (1 <= pair[0] <= height and 1 <= pair[1] <= width):
        raise DataError(
            f"{where}: found resize = {asked!r}, wanted a number of pixels, or [height, width], of at most the "
            f"pictures' own {height} x {width}."
        )
    return int(pair[0]), int(pair[1])


def shrink(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) of any type to (B, C, h, w) float32: every new pixel is the mean of the area that it covers.

    Pixels that lie in two areas count for each by the part that lies in it. At the pictures' own size nothing changes.
    A picture's numbers do not depend on the batch that it is in.
    """
    return _axis(_axis(pictures, 2, size[0]), 3, size[1])


def all_shrunk(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """`shrink` of many pictures, some at a time."""
    return torch.cat([shrink(pictures[start : start + _ROWS], size) for start in range(0, len(pictures), _ROWS)])


def _axis(pictures: Tensor, axis: int, size: int) -> Tensor:
    # New pixel i covers [i n, (i + 1) n) and old pixel j [j m, (j + 1) m), in units of 1 / (n m) of the side.
    n, m = pictures.shape[axis], size
    if n == m:
        return pictures.to(torch.float32)
    low = torch.arange(m) * n
    first = low // m
    shape = [m if dimension == axis else length for dimension, length in enumerate(pictures.shape)]
    total = torch.zeros(shape)
    for step in range(-(-n // m) + 1):
        old = first + step
        inside = torch.minimum(low + n, (old + 1) * m) - torch.maximum(low, old * m)
        weight = (inside.clamp_min(0) / n).to(torch.float32)
        if not bool(weight.any()):
            continue
        part = pictures.index_select(axis, old.clamp_max(n - 1)).to(torch.float32)
        part.mul_(weight.view([-1 if dimension == axis else 1 for dimension in range(4)]))
        total.add_(part)
    return total
