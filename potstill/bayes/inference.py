"""How a model's weights are inferred: by variational Bayes, or by Laplace's approximation after plain training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from torch import Tensor, nn

from potstill import storage
from potstill.bayes.curvature import diagonal_ggn
from potstill.bayes.elbo import Divergence
from potstill.bayes.fold import fold
from potstill.bayes.laplace import found_outside
from potstill.bayes.laplace import laplace as laplace_of
from potstill.bayes.layers import from_variational, set_posterior
from potstill.bayes.layout import Layout
from potstill.bayes.posterior import GaussianPosterior
from potstill.bayes.prior import Prior
from potstill.errors import PosteriorError
from potstill.networks.variational import Variational
from potstill.types import DataSpec, Penalty, Source

Start: TypeAlias = Literal["random", "teacher", "prior"]


@final
@dataclass(frozen=True, slots=True)
class Teacher:
    """What a student's prior is made of: the teacher's posterior, and for some orders the curvature at its mean."""

    posterior: GaussianPosterior
    bends: Tensor | None = None

    def fingerprint(self) -> str:
        """Hash of every number."""
        return self.posterior.fingerprint()


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A network made ready: what is trained, what is added to its loss, and what a model folder has to say of it.

    `described` is JSON-able and decides the result; `reduced` says what of a teacher's posterior the prior left out.
    """

    network: nn.Module
    penalties: tuple[Penalty, ...]
    rebuild: Mapping[str, Any] | None
    described: Mapping[str, Any]
    reduced: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Inference:
    """A way to infer weights, with its settings. `teacher` is what the prior is made of, if a teacher is."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    teacher: Teacher | None = field(default=None, compare=False, repr=False)

    def of(self, teacher: GaussianPosterior | Teacher) -> Inference:
        """The same with a prior made of a teacher's posterior."""
        if self.name == "laplace":
            raise PosteriorError("laplace has no prior that could be made of a teacher: it is fitted after training.")
        if not isinstance(teacher, GaussianPosterior | Teacher):
            raise PosteriorError(
                f"Found a {type(teacher).__name__}; wanted is a posterior: bayes.from_variational(model.network), or "
                "bayes.laplace(model.network, data.train) of a model that was trained as usual."
            )
        found = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        return Inference(self.name, self.settings, found)

    @property
    def variational(self) -> bool:
        """Whether it trains distributions for weights."""
        return self.name != "laplace"

    def prepare(self, network: nn.Module, spec: DataSpec, *, rows: int, batch_size: int, seed: int) -> Prepared:
        """Make a plain network with its initial weights ready, for a training that learns from `rows` rows."""
        described: dict[str, Any] = {"name": self.name, "settings": storage.plain(self.settings)}
        if not self.variational:
            found_outside(self.settings["structure"])
            return Prepared(network, (), None, described)
        own = self.settings
        rebuild = {"name": "variational", "samples": own["samples"], "seed": seed, "noise": own["noise"]}
        rebuild |= {"learn_prior": own["learn_prior"]}
        made = Variational(network, spec=spec, std=own["std"], **_keys(rebuild))
        layout = Layout.of(made.plain())
        prior = Prior.of(own["prior"])
        reduced = None
        if self.teacher is not None:
            reduced = prior.reduced(self.teacher.posterior, layout, seed=seed, bends=self.teacher.bends)
            described["teacher"] = self.teacher.fingerprint()
        believed = self._believed(made, prior, layout, reduced)
        _begin(made, own["start"], prior, reduced)
        beta = own["beta"] * (rows * batch_size if self.name == "published" else 1)
        penalty = Divergence(made, believed, beta=beta)
        told = {} if reduced is None else reduced.info["reduced"]
        return Prepared(made, (penalty,), rebuild, described, told)

    def _believed(
        self, made: Variational, prior: Prior, layout: Layout, reduced: GaussianPosterior | None
    ) -> GaussianPosterior:
        found = prior.posterior(layout, reduced)
        if self.name == "published" and reduced is None:  # the baseline's prior was centred on its own initial weights
            own = from_variational(made).mean
            return GaussianPosterior(layout, own, found.covariance, {"from": "initial weights"})
        return found

    def posterior(self, network: nn.Module, source: Source) -> GaussianPosterior:
        """The posterior of a trained network; `source` is what it was trained on."""
        if isinstance(network, Variational):
            return from_variational(network)
        return laplace_of(network, source, **self.settings)


def teacher_of(posterior: GaussianPosterior, network: nn.Module, source: Source, prior: Prior) -> Teacher:
    """A teacher's posterior for a student's prior, with the curvature at its means where the prior's order reads it.

    `network` is the teacher's, `source` the rows that its likelihood is of.
    """
    if not prior.needs_curvature:
        return Teacher(posterior)
    plain = network.plain() if isinstance(network, Variational) else network
    return Teacher(posterior, diagonal_ggn(fold(plain), source).diagonal)


def _begin(network: Variational, start: Start, prior: Prior, reduced: GaussianPosterior | None) -> None:
    if start == "random":
        return
    if reduced is None:
        raise PosteriorError(
            f'start = "{start}" begins at a teacher\'s means, and there is no teacher in the prior. In Python: '
            "bayes.build(...).of(posterior)."
        )
    if start == "prior" and not prior.mean:
        raise PosteriorError(
            'start = "prior" with mean = false would begin with all weights 0, where neurons are all alike. Begin at '
            '"teacher" or at "random".'
        )
    set_posterior(network, reduced, stds=start == "prior" and prior.variance)


def _keys(rebuild: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rebuild.items() if key != "name"}
