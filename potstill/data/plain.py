"""An array of a source as an input: as it is, or pictures made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data.fitted import Fitted, Made
from potstill.data.parts import Part
from potstill.data.shrink import all_shrunk, size_of
from potstill.errors import DataError
from potstill.types import Preprocessing


@dataclass(frozen=True)
class Plain:
    """An array of the source as it is, or pictures made smaller.

    `array`: its name in the source, empty where the source has one input without a name; `name`: the input's. `scale`:
    the preprocessing of uint8.
    """

    array: str = ""
    resize: Any = None
    name: str = ""
    scale: float = 1.0

    def of(self, part: Part) -> NDArray[Any]:
        """The array of a part."""
        return part.named[self.array] if self.array else part.inputs

    def check(self, part: Part, train: Part, name: str) -> None:
        """Refuse a part `name` whose examples are others than the training examples."""
        found, wanted = self.of(part), self.of(train)
        if found.shape[1:] != wanted.shape[1:] or found.dtype != wanted.dtype:
            raise DataError(
                f"{part.where}: found {name} examples of shape {found.shape[1:]} and type {found.dtype}, "
                f"wanted the training examples' {wanted.shape[1:]} and {wanted.dtype}."
            )

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:  # noqa: ARG002 - nothing depends on them
        """As the training part is stored."""
        array = self.of(part)
        shape, size = array.shape[1:], None
        if self.resize is not None:
            size = size_of(self.resize, shape, part.where)

        def make(other: Part) -> Made:
            raw = torch.from_numpy(self.of(other))
            return Made(raw) if size is None else Made(all_shrunk(raw, size), raw)

        return Fitted(
            shape=shape if size is None else (shape[0], *size),
            make=make,
            preprocessing=Preprocessing(self.scale if array.dtype == np.uint8 else 1.0),
            recipe=self._recipe(shape, size),
        )

    def _recipe(self, shape: tuple[int, ...], size: tuple[int, int] | None) -> dict[str, Any]:
        array = {"array": self.array} if self.array not in ("", self.name) else {}
        if size is None:
            return {"kind": "array", **array} if array else {}
        return {"kind": "resize", "shape": list(shape), "size": list(size), **array}
