"""Rows of which most numbers are zero: only the others are kept, and a batch is made dense when it is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor


@final
class Sparse:
    """(n, width) float32 as compressed rows: `values` stand in `columns`, row i's from starts[i] to starts[i + 1].

    It answers what a source asks of its rows (`shape`, `dtype`, `len`, `index_select`, a slice) with dense tensors.
    `starts` (n + 1,) int64, `columns` (m,) int32, `values` (m,) float32; no column twice in a row.
    """

    __slots__ = ("columns", "starts", "values", "width")
    dtype: Final = torch.float32

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor, width: int) -> None:
        self.starts, self.columns, self.values, self.width = starts, columns, values, width

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> Sequence[int]:
        """(n, width)."""
        return len(self), self.width

    def index_select(self, dim: int, index: Tensor) -> Tensor:  # noqa: ARG002 - rows, as of a tensor
        """(B, width) float32: the rows `index` (B,); `IndexError` for one that does not exist."""
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise IndexError(f"rows {int(index.min())} to {int(index.max())} of {len(self)}")
        begin = self.starts.index_select(0, index)
        counts = self.starts.index_select(0, index + 1) - begin
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        row = torch.repeat_interleave(torch.arange(len(index)), counts)
        place = torch.arange(total) + torch.repeat_interleave(begin - ends + counts, counts)
        out = torch.zeros(len(index), self.width)
        where = row * self.width + self.columns.index_select(0, place)
        out.view(-1).index_copy_(0, where, self.values.index_select(0, place))
        return out

    def __getitem__(self, rows: slice) -> Tensor:
        """Consecutive rows, dense."""
        return self.index_select(0, torch.arange(*rows.indices(len(self))))
