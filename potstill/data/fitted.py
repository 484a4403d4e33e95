"""What an input has become of: how it is made from a part, once what that needs is known from the training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from potstill.data.parts import Part
from potstill.data.sparse import Sparse
from potstill.types import Preprocessing


@dataclass(frozen=True, eq=False)
class Made:
    """An input of one part: `raw` (n, *shape), and the pictures (n, C, H, W) that small ones were made from."""

    raw: Tensor | Sparse
    large: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """How an input is made: `shape` of one example, `make` for every row of a part, and what a model keeps of it.

    `recipe` (JSON): how it is made from raw material, which travels with a model; empty where that is what is stored.
    `notes`: sentences for the user. `vocabulary`: of word ids, how many there are.
    """

    shape: tuple[int, ...]
    make: Callable[[Part], Made]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vocabulary: int = 0


class Maker(Protocol):
    """An input as it was declared."""

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:
        """How it is made, from the training rows (m,) of the training part alone. `DataError` where that cannot be."""


@dataclass(frozen=True)
class Ready:
    """An input that was fitted before, as a maker: training rows no longer matter."""

    fitted: Fitted

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:  # noqa: ARG002
        """As it is."""
        return self.fitted
