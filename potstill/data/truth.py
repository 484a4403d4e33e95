"""The law by which a source was drawn, as a teacher: true probabilities, or the true function of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from torch import Tensor

from potstill import storage
from potstill.types import Kind, TargetScaling

NETWORK: Final[Mapping[str, Any]] = {"name": "linear"}


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """x W' of preprocessed inputs (B, F): logits (B, K), or (B, 1) for a binary task, or values (B, D) in own units.

    Satisfies `types.Teacher`. `weight` W (K, F), (1, F) or (D, F) float32. Softmax (sigmoid) of the logits is how
    likely each class truly is; the values are what labels are around. `classes`: names of the classes or of the
    targets. `scaling`: that of the data's targets, for the network that answers alike.
    """

    weight: Tensor = field(repr=False)
    classes: tuple[str, ...]
    kind: Kind = "logits"
    scaling: TargetScaling | None = None

    def fingerprint(self) -> str:
        """Hash of the law and the class names."""
        return storage.fingerprint(["truth", self.kind, storage.tensor_sha256(self.weight), list(self.classes)])

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.T

    def network(self) -> dict[str, Any]:
        """The network that answers alike with `weights()`: what `networks.build` takes."""
        return dict(NETWORK)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of that network, by their names: what `fit` starts from with `weights = ...`."""
        weight, bias = self.weight.double(), self.weight.new_zeros(len(self.weight)).double()
        if self.scaling is not None:  # networks answer in standard deviations from the mean
            scale, offset = (weight.new_tensor(numbers) for numbers in (self.scaling.scale, self.scaling.offset))
            weight, bias = weight / scale[:, None], -offset / scale
        return {"head.weight": weight.float(), "head.bias": bias.float()}
