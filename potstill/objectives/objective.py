"""What an objective is: a function of a student's outputs and a batch, with its settings and what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias, final

from torch import Tensor, nn

from potstill import losses
from potstill.errors import ObjectiveError
from potstill.registry import Spec
from potstill.types import Batch, Outputs

TargetsFunction: TypeAlias = Callable[[Batch, int], list[losses.Target]]
Learns: TypeAlias = Literal["classes", "values", "gaussian", "anything"]
Owns: TypeAlias = Callable[[Outputs, Batch], nn.Module]


class Hidden(NamedTuple):
    """Names of the hidden features that an objective reads, of the student and of a teacher that is asked live."""

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """An objective with its settings; callable: (outputs, batch) -> named terms, each (B,) float32, weights included.

    `needs_labels`: rows without label teach it less; `needs_teacher`: a batch without teacher is an `ObjectiveError`.
    `targets(batch, K)`: the same terms as `losses.Target`s, where they are tempered cross-entropies with targets that
    the student does not change; a training then computes them in closed form. `learns`: what the student answers,
    logits of classes, a regression's values, or values and log variances (gaussian); "anything" where the objective
    does not look at that. `owns` makes a module with the objective's parameters, which `terms` gets as a third
    argument: a training optimises and checkpoints them with the network, and no model holds them. `hidden`: the
    features it reads. `couples`: the term of an example depends on the others of its batch.
    """

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    terms: Callable[..., dict[str, Tensor]] = field(compare=False, repr=False)
    needs_labels: bool
    needs_teacher: bool
    targets: TargetsFunction | None = field(default=None, compare=False, repr=False)
    learns: Learns = "classes"
    owns: Owns | None = field(default=None, compare=False, repr=False)
    owned: nn.Module | None = field(default=None, compare=False, repr=False)
    hidden: Hidden = field(default_factory=Hidden)
    couples: bool = False

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.owns is None:
            return self.terms(outputs, batch)
        if self.owned is None:
            raise ObjectiveError(
                f'The objective "{self.name}" has parameters, which a training makes. Outside one: '
                "objective.prepared(outputs, batch)."
            )
        return self.terms(outputs, batch, self.owned)

    def prepared(self, outputs: Outputs, batch: Batch) -> Objective:
        """The same with fresh parameters, if it has any: made for a student's answers to a batch, which are examples of
        what it will be given."""
        return self if self.owns is None else replace(self, owned=self.owns(outputs, batch))

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


def not_negative(word: str, name: str, value: float) -> float:
    """The setting `word` of an objective; an `ObjectiveError` unless it is a finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise ObjectiveError(f'{word} of "{name}" must be a finite number >= 0; found {value!r}.')
    return float(value)


def fraction(word: str, name: str, value: float) -> float:
    """The setting `word` of an objective; an `ObjectiveError` unless it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ObjectiveError(f'{word} of "{name}" must lie in [0, 1]; found {value!r}.')
    return float(value)
