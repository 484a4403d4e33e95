"""The evidence lower bound: what a variational training maximises, and what its predictions are worth.

    ELBO = (N / B) sum over the batch of E_q log p(y | x, w)  -  beta KL(q || prior)

The loop minimises the mean loss of a batch plus penalties over the N rows that it learns from: that is -ELBO / N.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from potstill import engine
from potstill.bayes.descent import Descent
from potstill.bayes.layers import fits
from potstill.bayes.posterior import Blocks, Diagonal, GaussianPosterior, cholesky
from potstill.errors import PosteriorError
from potstill.losses import class_logits
from potstill.networks.drawn import DrawnStack
from potstill.networks.pieces import Piece
from potstill.networks.variational import Variational, variances
from potstill.types import Source, Teacher


@final
class Divergence:
    """beta KL(q || prior), q the distribution of a network's weights: a `Penalty` of the training loop.

    The prior is fixed, unless the network learns one (`Variational.learn_prior`), which begins at this one. `beta` 0:
    the prior says nothing; 1: the evidence lower bound; more: weights nearer to the prior than Bayes' rule has them.

    Of a diagonal prior N(m, diag v), q = N(mu, diag s^2): half the sum of s^2 / v + (mu - m)^2 / v + log(v / s^2) - 1.
    """

    def __init__(self, network: Variational, prior: GaussianPosterior, *, beta: float = 1.0) -> None:
        if not (beta >= 0 and math.isfinite(beta)):
            raise PosteriorError(f"beta is {beta}; wanted is a finite number of at least 0.")
        fits(network, prior)
        self.beta, self._kind = beta, prior.kind
        self._mean, self._log_det = prior.mean.float(), float(_log_determinant(prior))
        self._size = prior.layout.size
        self._precision = _precision(prior)
        self._descent: Descent | None = None
        if network.learn_prior:
            with torch.no_grad():
                network.get_buffer("prior_mean").copy_(prior.mean)
                network.get_buffer("prior_log_std").copy_(prior.variance.log() / 2)
            if prior.kind != "diagonal":
                raise PosteriorError(f"A prior that is learned is diagonal; this one is {prior.kind}.")

    def __call__(self, network: nn.Module) -> Tensor:
        """Scalar, in nats."""
        if not isinstance(network, Variational):
            raise PosteriorError(f"A divergence is of a variational network; this is a {type(network).__name__}.")
        means, log_stds = network.means(), network.log_stds()
        self._to(means[0].device)
        if network.learn_prior:
            return self.beta * _learned(network, means, log_stds)
        if self._kind == "diagonal":
            constant = 0.5 * (self._log_det - self._size)
            value: Tensor = _Diagonal.apply(  # type: ignore[no-untyped-call]
                self._mean, self._precision[0], constant, len(means), *means, *log_stds
            )
            return self.beta * value
        mean, log_std = _flat(means), _flat(log_stds)
        return self.beta * self._whole(mean - self._mean, log_std)

    def _whole(self, gap: Tensor, log_std: Tensor) -> Tensor:
        """Of a prior whose weights go together."""
        squares, total, start = (2 * log_std).exp(), gap.new_zeros(()), 0
        for precision in self._precision:
            part = slice(start, start + len(precision))
            total = total + gap[part] @ (precision @ gap[part]) + precision.diagonal() @ squares[part]
            start = part.stop
        return 0.5 * (total + self._log_det - self._size) - log_std.sum()

    def descend(self, stack: DrawnStack, piece: Piece, weight: float) -> float:
        """A piece's part of the divergence times `weight`; its gradient is added to the piece's.

        That is then with respect to log standard deviations, no longer to variances; of a learned prior it is set. All
        pieces together give what calling it and going back by autograd gives, of a prior that is `apart`; `stack` holds
        the network.
        """
        if self._descent is None or self._descent.stack is not stack:
            self._descent = Descent(stack, self._mean, self._precision[0], log_det=self._log_det)
        return self._descent(piece, self.beta * weight)

    @property
    def apart(self) -> bool:
        """Whether the prior's weights are independent."""
        return self._kind == "diagonal"

    def _to(self, device: torch.device) -> None:
        if self._mean.device != device:
            self._mean = self._mean.to(device)
            self._precision = [tensor.to(device) for tensor in self._precision]


@final
class _Diagonal(torch.autograd.Function):
    """The divergence of independent weights from a fixed diagonal prior, both passes written out."""

    @staticmethod
    def forward(
        ctx: Any, prior_mean: Tensor, precision: Tensor, constant: float, count: int, *parameters: Tensor
    ) -> Tensor:
        mean, log_std = _flat(parameters[:count]), _flat(parameters[count:])
        gap = mean.sub_(prior_mean)
        weighted, spread = gap * precision, variances(log_std)
        ctx.save_for_backward(weighted, spread, precision)
        ctx.shapes = [parameter.shape for parameter in parameters[:count]]
        return 0.5 * ((spread * precision).sum() + gap @ weighted) - log_std.sum() + constant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weighted, spread, precision = ctx.saved_tensors
        sizes = [shape.numel() for shape in ctx.shapes]
        found = []
        for flat in (weighted * gradient, torch.addcmul(-gradient, precision * gradient, spread)):
            cut = torch.split(flat, sizes)
            found += [part.reshape(shape) for part, shape in zip(cut, ctx.shapes, strict=True)]
        return (None, None, None, None, *found)


def _learned(network: Variational, means: list[Tensor], log_stds: list[Tensor]) -> Tensor:
    """From the network's own prior: where it began, and how far it was shifted, in steps of the learning rate times
    `learn_prior`."""
    rate = network.learn_prior
    mean = network.get_buffer("prior_mean") + rate * network.get_parameter("prior_mean_shift")
    log_std = network.get_buffer("prior_log_std") + rate * network.get_parameter("prior_log_std_shift")
    own = _flat(log_stds)
    ratio, gap = (2 * (own - log_std)).exp(), (_flat(means) - mean) * (-log_std).exp()
    return 0.5 * (ratio + gap.square() - 1).sum() + (log_std - own).sum()


def log_predictive(model: Teacher, source: Source, *, batch_size: int | None = None) -> Tensor:
    """(n,) float64: log p(y | x) of every row by Monte Carlo, log (1/S) sum_s p(y | x, w_s); NaN where no label is.

    In nats; of a regression the density in the targets' own units. The draws are those that predictions are made of.
    Works for an ensemble's members too. Raises `PosteriorError` for a model that answers values without a noise.
    """
    each = _log_likelihoods(model, source, batch_size)
    return torch.where(source.labelled, each.logsumexp(1) - math.log(each.shape[1]), torch.nan)


def predictive_moments(model: Teacher, source: Source, *, batch_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance of predictions, float64: (n, K) probabilities, or (n, D) targets in their own units.

    The variance is that over the drawn networks; of a regression the noise is added.
    """
    members = _members(model, source, batch_size)
    if model.kind in ("logits", "probabilities"):
        found = class_logits(members).softmax(-1) if model.kind == "logits" else members
        return found.mean(1), found.var(1, correction=0)
    means, logs = members[..., : source.spec.outputs], members[..., source.spec.outputs :]
    noise = logs.exp().mean(1) if logs.shape[-1] else 0.0
    return means.mean(1), means.var(1, correction=0) + noise


def elbo(model: Teacher, network: Variational, source: Source, divergence: Divergence) -> float:
    """The evidence lower bound of a source's labelled rows, in nats, by the draws that predictions are made of.

    sum over rows of the mean over draws of log p(y | x, w_s), minus beta KL. Of a regression in the targets' own units.
    """
    each = _log_likelihoods(model, source, None)
    with torch.no_grad():
        return float(each.mean(1)[source.labelled].sum()) - float(divergence(network))


def _members(model: Teacher, source: Source, batch_size: int | None) -> Tensor:
    """(n, S, K) float64: what each drawn network answers."""
    found = engine.predict(model, source, batch_size=batch_size).double()
    return found[:, None] if found.dim() == 2 else found


def _log_likelihoods(model: Teacher, source: Source, batch_size: int | None) -> Tensor:
    """(n, S) float64: log p(y | x, w_s) of every row and draw."""
    members = _members(model, source, batch_size)
    if model.kind == "values":
        raise PosteriorError(
            "The model answers values without a noise, so labels have no probability. Learn a gaussian."
        )
    if model.kind == "gaussian":
        means, logs = members.chunk(2, -1)
        gap = (means - source.labels.double()[:, None]).square() * (-logs).exp()
        return -0.5 * (gap + logs + math.log(2 * math.pi)).sum(-1)
    logs = class_logits(members).log_softmax(-1) if model.kind == "logits" else members.log()
    return logs.gather(2, source.labels[:, None, None].expand(-1, logs.shape[1], 1))[..., 0]


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _precision(prior: GaussianPosterior) -> list[Tensor]:
    if isinstance(prior.covariance, Diagonal):
        # By the function that computes a weight's own variance: one that stands at the prior feels no pull.
        return [variances((prior.covariance.variance.log() / 2).float()).reciprocal_()]
    blocks = prior.covariance.blocks if isinstance(prior.covariance, Blocks) else (prior.covariance.matrix,)
    return [torch.cholesky_inverse(cholesky(block)).float() for block in blocks]


def _log_determinant(prior: GaussianPosterior) -> Tensor:
    if isinstance(prior.covariance, Diagonal):
        return prior.covariance.variance.log().sum()
    blocks = prior.covariance.blocks if isinstance(prior.covariance, Blocks) else (prior.covariance.matrix,)
    return torch.stack([2 * cholesky(block).diagonal().log().sum() for block in blocks]).sum()
