"""The law by which a source was drawn, as a teacher: its true probabilities, known where the program draws the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from torch import Tensor

from potstill import storage
from potstill.types import Kind

NETWORK: Final[Mapping[str, Any]] = {"name": "linear"}


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """Logits (B, K), or (B, 1) for a binary task, of preprocessed inputs (B, F): x W'. Satisfies `types.Teacher`.

    `weight` W (K, F) or (1, F) float32. Softmax (sigmoid) of the logits is how likely each class truly is.
    """

    weight: Tensor = field(repr=False)
    classes: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Always `"logits"`."""
        return "logits"

    def fingerprint(self) -> str:
        """Hash of the law and the class names."""
        return storage.fingerprint(["truth", storage.tensor_sha256(self.weight), list(self.classes)])

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.T

    def network(self) -> dict[str, Any]:
        """The network that answers alike with `weights()`: what `networks.build` takes."""
        return dict(NETWORK)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of that network, by their names: what `fit` starts from with `weights = ...`."""
        return {"head.weight": self.weight.clone(), "head.bias": self.weight.new_zeros(len(self.weight))}
