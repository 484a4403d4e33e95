"""What an objective is: a function of a student's outputs and a batch, with its settings and what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from torch import Tensor

from potstill import losses
from potstill.errors import ObjectiveError
from potstill.registry import Spec
from potstill.types import Batch, ObjectiveFunction, Outputs

TargetsFunction: TypeAlias = Callable[[Batch, int], list[losses.Target]]
Learns: TypeAlias = Literal["classes", "values", "anything"]


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """An objective with its settings; callable: (outputs, batch) -> named terms, each (B,) float32, weights included.

    `needs_labels`: rows without label teach it less; `needs_teacher`: a batch without teacher is an `ObjectiveError`.
    `targets(batch, K)`: the same terms as `losses.Target`s, where they are tempered cross-entropies with targets that
    the student does not change; a training then computes them in closed form. `learns`: what the student answers,
    logits of classes or a regression's values; "anything" where the objective does not look at that.
    """

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    terms: ObjectiveFunction = field(compare=False, repr=False)
    needs_labels: bool
    needs_teacher: bool
    targets: TargetsFunction | None = field(default=None, compare=False, repr=False)
    learns: Learns = "classes"

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return self.terms(outputs, batch)

    @property
    def spec(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The table, or list of tables, that `build` makes this objective from: name and every setting."""
        if "objectives" in self.settings:
            return list(self.settings["objectives"])
        return {"name": self.name, **self.settings}


ObjectiveSpec: TypeAlias = "Spec | Objective | Sequence[Spec | Objective]"


def positive(word: str, name: str, value: float) -> float:
    """The setting `word` of an objective; an `ObjectiveError` unless it is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ObjectiveError(f'{word} of "{name}" must be a finite number > 0; found {value!r}.')
    return float(value)


def fraction(word: str, name: str, value: float) -> float:
    """The setting `word` of an objective; an `ObjectiveError` unless it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ObjectiveError(f'{word} of "{name}" must lie in [0, 1]; found {value!r}.')
    return float(value)
