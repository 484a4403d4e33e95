"""Fractal blocks with drop-path: Larsson, Maire and Shakhnarovich 2017, "FractalNet"."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from potstill.errors import NetworkError

LOCAL = -1
"""In a choice of columns: every join decides for itself."""


@final
class Choice:
    """For every example of a batch: the one column that is kept in all blocks of a network, or `LOCAL`.

    Drawn by the block that leads, and read by those behind it. `whole` is the part of the examples with one column.
    """

    __slots__ = ("columns", "number", "whole")

    def __init__(self, number: int, whole: float) -> None:
        self.number, self.whole = number, whole
        self.columns = torch.empty(0, dtype=torch.int64)

    def draw(self, inputs: Tensor) -> None:
        """Draw anew for a batch, with the default generator of its device."""
        one = torch.rand(len(inputs), device=inputs.device) < self.whole
        columns = torch.randint(self.number, (len(inputs),), device=inputs.device)
        self.columns = torch.where(one, columns, LOCAL)


@final
class Fractal(nn.Module):
    """A fractal block of some columns: (B, before, H, W) to (B, after, H, W).

    f_1 is a convolution (3x3, dropout, batch norm, ReLU); f_{c+1}(z) = join(f_c(f_c(z)), f_1(z)), where joins that
    follow each other are one, the mean of all that ends there. Column c (from 0) is 2^c convolutions.

    Drop-path (section 3.1), in training: a join drops each of its inputs with probability `drop`, but never all; for
    the part `whole` of the examples one column is kept, and everything else dropped, the same in all blocks that share
    a `choice`. `drop` = 0 and `whole` = 0 is the mean, as in predictions; drop towards 1 keeps one input of every join.
    Raises `NetworkError` for no columns, or parts that are none.
    """

    def __init__(
        self,
        before: int,
        after: int,
        *,
        columns: int = 3,
        drop: float = 0.15,
        whole: float = 0.5,
        dropout: float = 0.0,
        choice: Choice | None = None,
    ) -> None:
        super().__init__()
        if columns < 1 or not 0 <= drop < 1 or not 0 <= whole <= 1:
            raise NetworkError(
                f"A fractal block: {columns} columns, drop {drop}, whole {whole}; wanted are at least 1 column, "
                "drop of at least 0 and below 1, whole from 0 to 1."
            )
        self.drop, self.leads = drop, choice is None
        self.choice = choice or Choice(columns, whole)
        self.columns = nn.ModuleList(
            nn.ModuleList(_convolution(after if i else before, after, dropout) for i in range(2**c))
            for c in range(columns)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and self.leads:
            self.choice.draw(inputs)
        spans = [2**c for c in reversed(range(len(self.columns)))]  # how long a column's convolution takes
        here = [inputs] * len(spans)
        for time in range(1, spans[0] + 1):
            ending = [c for c, span in enumerate(spans) if time % span == 0]
            found = [self.columns[c][time // spans[c] - 1](here[c]) for c in ending]  # type: ignore[index]
            joined = self._join(found, ending)
            for c in ending:
                here[c] = joined
        return here[0]

    def _join(self, found: Sequence[Tensor], columns: Sequence[int]) -> Tensor:
        """The mean of what ends here, (B, C, H, W) each; in training, of what drop-path leaves."""
        if len(found) == 1:
            return found[0]
        stacked = torch.stack(list(found))
        if not self.training:
            return stacked.mean(0)
        kept = self._kept(columns, stacked)
        parts = (kept / kept.sum(0)).to(stacked.dtype)
        return (stacked * parts[:, :, None, None, None]).sum(0)

    def _kept(self, columns: Sequence[int], like: Tensor) -> Tensor:
        """(columns, B): 1 for what a join keeps, 0 for what it drops; at least one of every example is kept."""
        number, rows = like.shape[:2]
        kept = torch.rand(number, rows, device=like.device) >= self.drop
        survivor = torch.randint(number, (rows,), device=like.device)
        kept |= (torch.arange(number, device=like.device)[:, None] == survivor) & ~kept.any(0)
        here = torch.tensor(columns, device=like.device)[:, None] == self.choice.columns
        chosen = self.choice.columns != LOCAL
        # A column that does not end here has nothing to say: what the join answers is dropped further on.
        return torch.where(chosen, here | ~here.any(0), kept).float()

    def extra_repr(self) -> str:
        return f"drop={self.drop}, whole={self.choice.whole}"


def _convolution(before: int, after: int, dropout: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(before, after, 3, padding=1, bias=False))
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["norm"] = nn.BatchNorm2d(after)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
