"""The divergence of a written-out training from its prior, with its gradient, in as few passes as it takes.

Of a large network that is what a variational step costs beside two ordinary ones: every pass goes through arrays that
are too large for a core's own cache. A prior's mean of 0 and a variance that all weights share need fewer of them.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from potstill import engine
from potstill.networks.drawn import DrawnStack
from potstill.networks.pieces import Flat, Piece
from potstill.networks.variational import variances


@final
class Descent:
    """Half the sum of s^2 p + (mu - m)^2 p - log p - log s^2 - 1 over a stack's weights, p the prior's precisions.

    The prior N(m, diag 1 / p) is fixed, or the one that the network learns (`Variational.learn_prior`).
    """

    def __init__(self, stack: DrawnStack, mean: Tensor, precision: Tensor, *, log_det: float) -> None:
        """Of the prior `mean` and `precision` (P,) float32, and the logarithm of its variances' product."""
        self.stack = stack
        self._constant = 0.5 * (log_det - stack.size)
        self._mean = None if bool((mean == 0).all()) else mean
        self._shared = float(precision[0]) if bool((precision == precision[0]).all()) else None
        self._precision = precision
        self._room = [torch.empty(max(len(piece.own.means) for piece in stack.pieces)) for _ in range(3)]
        self._scale, self._downhill = 0.0, torch.zeros(())

    def __call__(self, piece: Piece, scale: float) -> float:
        """A piece's part of it, times `scale`; the piece's gradients become those of the loss and it."""
        own = piece.own
        if not self.stack.local:
            variances(own.log_stds, out=own.variances)
        if self.stack.network.learn_prior:
            return scale * self._learned(own, scale)
        if scale != self._scale:
            self._scale = scale
            self._downhill.fill_(-scale)
        gap, room = own.means, self._room[0][: len(own.means)]
        if self._mean is not None:
            gap = torch.sub(own.means, self._mean[piece.stretch], out=room)
        if self._shared is None:
            quadratic = self._each(own, gap, self._precision[piece.stretch], room=room)
        else:
            quadratic = self._alike(own, gap, self._shared)
        value = 0.5 * quadratic - float(own.log_stds.sum())
        return scale * (value + self._constant if piece.number == 0 else value)

    def _alike(self, own: Flat, gap: Tensor, precision: float) -> float:
        """Of a prior that gives all weights the same variance."""
        if precision == 1:  # variances (by + scale) - scale in one pass
            torch.lerp(self._downhill, own.by_log_stds, own.variances, out=own.by_log_stds)
        else:
            own.by_log_stds.add_(self._scale * precision)
            torch.addcmul(self._downhill, own.by_log_stds, own.variances, out=own.by_log_stds)
        own.by_means.add_(gap, alpha=self._scale * precision)
        return precision * float(own.variances.sum() + torch.linalg.vector_norm(gap).square())

    def _each(self, own: Flat, gap: Tensor, precision: Tensor, *, room: Tensor) -> float:
        """Of one that gives each weight its own."""
        own.by_log_stds.add_(precision, alpha=self._scale)
        torch.addcmul(self._downhill, own.by_log_stds, own.variances, out=own.by_log_stds)
        own.by_means.addcmul_(gap, precision, value=self._scale)
        both = torch.addcmul(own.variances, gap, gap, out=room)
        with engine.products("highest"):  # in a lower precision torch has a slow dot product
            return float(torch.dot(both, precision))

    def _learned(self, own: Flat, scale: float) -> float:
        """From the network's own prior: `elbo` has the formula."""
        stack, (gap, ratio, inverse) = self.stack, self._room
        network, rate = stack.network, stack.network.learn_prior
        mean, log_std, shift, log_shift = stack.parts(stack.values)
        by_mean, by_log_std, by_shift, by_log_shift = stack.parts(stack.gradients)
        prior = torch.add(network.get_buffer("prior_log_std"), log_shift, alpha=rate)
        torch.neg(prior, out=inverse).exp_()
        torch.sub(mean, network.get_buffer("prior_mean"), out=gap).sub_(shift, alpha=rate).mul_(inverse)
        torch.sub(log_std, prior, out=ratio).mul_(2).exp_()
        pull = torch.mul(gap, inverse, out=inverse).mul_(scale)
        by_mean.add_(pull)
        torch.mul(pull, -rate, out=by_shift)
        ratio.sub_(1)
        by_log_std.mul_(own.variances).add_(ratio, alpha=scale)
        both = ratio.addcmul_(gap, gap)
        torch.mul(both, -rate * scale, out=by_log_shift)
        return float(0.5 * both.sum() + prior.sub_(log_std).sum())
