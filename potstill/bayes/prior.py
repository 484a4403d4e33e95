"""What is believed of a student's weights before it sees data: made of a teacher's posterior, or of nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from potstill import storage
from potstill.bayes.align import reduce_to
from potstill.bayes.grow import Wider
from potstill.bayes.layout import Layout
from potstill.bayes.order import Order
from potstill.bayes.order import build as build_order
from potstill.bayes.posterior import Diagonal, GaussianPosterior, mapped
from potstill.bayes.reduce import Layers
from potstill.errors import PosteriorError, did_you_mean
from potstill.registry import Spec


@final
@dataclass(frozen=True, slots=True)
class Prior:
    """N(m', c S'), m' and S' the mean and covariance of a teacher's posterior in the student's shape.

    `scale` c > 0: towards 0 the student is the teacher's m', towards infinity the prior says nothing. `mean` false: 0
    in place of m'. `variance` false: `std`^2 in place of c S'; without a teacher the prior is N(0, std^2). `std` is
    also what neurons and layers get that the teacher has not. The other keys are those of `reduce_to`.
    """

    mean: bool = True
    variance: bool = True
    scale: float = 1.0
    std: float = 1.0
    order: Spec = "cost"
    layers: Layers = "merge"
    wider: Wider = "error"
    greedy: bool = False
    shift_means: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "std"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and value > 0 and math.isfinite(value)):
                raise PosteriorError(f"{name} of the prior is {value!r}; wanted is a finite number above 0.")
        for name in ("mean", "variance", "greedy", "shift_means"):
            if not isinstance(getattr(self, name), bool):
                raise PosteriorError(f"{name} of the prior is {getattr(self, name)!r}; wanted is true or false.")
        for name, words in (("layers", ("merge", "drop")), ("wider", ("error", "prior", "net2net"))):
            if getattr(self, name) not in words:
                raise PosteriorError(
                    f'{name} of the prior is "{getattr(self, name)}"; wanted is one of: {", ".join(words)}.'
                )
        build_order(self.order)

    @staticmethod
    def of(table: Prior | Mapping[str, Any]) -> Prior:
        """A prior from a table of its keys; unknown ones are refused with a suggestion."""
        if isinstance(table, Prior):
            return table
        known = [own.name for own in fields(Prior)]
        for word in table:
            if word not in known:
                near = did_you_mean(word, known)
                raise PosteriorError(f'The prior has no key "{word}".{near} Known: {", ".join(known)}.')
        return Prior(**table)

    @property
    def needs_curvature(self) -> bool:
        """Whether its order reads the curvature of the teacher's likelihood."""
        return build_order(self.order).needs_curvature

    def reduced(
        self, teacher: GaussianPosterior, student: Layout, *, seed: int = 0, bends: Tensor | None = None
    ) -> GaussianPosterior:
        """The teacher's posterior in the student's shape, as `reduce_to` has it; what was done is in its `info`."""
        found = reduce_to(
            teacher,
            student,
            order=self._keyed(seed),
            layers=self.layers,
            wider=self.wider,
            greedy=self.greedy,
            shift_means=self.shift_means,
            curvature=bends,
            variance=self.std**2,
            seed=seed,
        )
        told = {"neurons": [row._asdict() for row in found.neurons], "layers": found.layers, "added": found.added}
        return found.posterior.with_info(reduced=storage.plain(told))

    def posterior(self, student: Layout, reduced: GaussianPosterior | None) -> GaussianPosterior:
        """The prior itself; `reduced` is the teacher's posterior in the student's shape, None without a teacher."""
        flat = torch.full((student.size,), self.std**2, dtype=torch.float64)
        if reduced is None:
            return GaussianPosterior(student, torch.zeros_like(flat), Diagonal(flat), {"from": "nothing"})
        mean = reduced.mean if self.mean else torch.zeros_like(flat)
        covariance = mapped(reduced.covariance, lambda own: self.scale * own) if self.variance else Diagonal(flat)
        return GaussianPosterior(student, mean, covariance, reduced.info)

    def _keyed(self, seed: int) -> Spec | Order:
        """The order, by default keyed by the student's seed where it is drawn."""
        table = {"name": self.order} if isinstance(self.order, str) else dict(self.order)
        return {"seed": seed} | table if table["name"] == "random" else self.order
