"""Tempered cross-entropies with fixed targets: value and gradient in one go, without autograd.

A small student's whole step takes about half a millisecond, and every tensor operation 3 to 5 us of it. Hard labels,
soft labels, pseudo-labels and Hinton's objective are sums of

    sum_k w[k] (c - log softmax(z / T)[k])

with targets `w` that do not change during a training. So they are put into one table per training, and a step needs one
look-up, one softmax over all terms at once, and a few operations on (terms, K, B) numbers: forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional

TABLE_LIMIT = 256 * 2**20  # bytes; larger problems take the way through autograd, where a step is long anyway


class Target(NamedTuple):
    """One term for all n rows of a source: its value in row i is constant[i] - sum_k weights[i, k] log q[i, k].

    q = softmax(z / temperature). `weights` (n, K) float32, its row sum is the weight of the row; `constant` (n,).
    """

    name: str
    temperature: float
    weights: Tensor
    constant: Tensor


def label_target(labels: Tensor, classes: int, mask: Tensor, *, weight: float, label_smoothing: float) -> Target:
    """`cross_entropy` with `labels` (n,), as a target named "hard"; rows outside `mask` (n,) bool weigh nothing."""
    one_hot = functional.one_hot(labels, classes).float()
    smooth = one_hot * (1 - label_smoothing) + label_smoothing / classes
    return Target("hard", 1.0, smooth * (weight * mask.float()).unsqueeze(1), torch.zeros(len(labels)))


def soft_target(probs: Tensor, neg_entropy: Tensor, mask: Tensor, *, weight: float, temperature: float) -> Target:
    """`kl` from `probs` (n, K), as a target named "soft"; rows outside `mask` (n,) bool weigh nothing."""
    weights = torch.where(mask.unsqueeze(1), probs * weight, 0.0)
    return Target("soft", temperature, weights, torch.where(mask, neg_entropy * weight, 0.0))


@final
class ClosedForm:
    """The sum of several `Target` terms. Called with the logits of some rows, it gives means and the gradient."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.names = tuple(target.name for target in targets)
        rows, classes = targets[0].weights.shape
        count = len(targets)
        table = torch.empty(rows, count, classes + 2)
        for s, target in enumerate(targets):
            table[:, s, :classes] = target.weights
            table[:, s, classes] = target.weights.sum(1)
            table[:, s, classes + 1] = target.constant
        self._table = table.flatten(1)
        self._shape = (count, classes)
        temperatures = torch.tensor([target.temperature for target in targets])
        plain = count == 1 and bool((temperatures == 1).all())
        self._inverse = None if plain else (1 / temperatures)[:, None, None]
        self._factors = 1 / temperatures
        self._by_size: dict[int, Tensor] = {}  # of an epoch's batches: two sizes, the last being smaller

    @staticmethod
    def size(rows: int, classes: int, terms: int) -> int:
        """Bytes of the table for so many rows, classes and terms."""
        return 4 * rows * terms * (classes + 2)

    def __call__(self, logits: Tensor, index: Tensor) -> tuple[list[float], Tensor]:
        """Means over the batch, one per name, and the gradient of their sum with respect to the logits.

        `logits` (B, K), or (B, 1) for a binary task, detached; `index` (B,) int64 the rows of the source. The gradient
        has the shape and type of the logits.
        """
        count, classes = self._shape
        size = logits.shape[0]
        binary = logits.shape[1] == 1
        scores = logits.float()
        if binary:
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        # (terms, K, B): over the last axis torch's softmax is scalar code for fewer than 16 classes.
        stacked = scores.t().unsqueeze(0)
        if self._inverse is not None:
            stacked = stacked * self._inverse
        log_q = torch.log_softmax(stacked, 1)
        looked = self._table.index_select(0, index).view(size, count, classes + 2).permute(1, 2, 0)
        weights, mass, constant = looked.split_with_sizes((classes, 1, 1), 1)
        values = torch.add(constant.sum((1, 2)), (log_q * weights).sum((1, 2)), alpha=-1).tolist()
        gradient = log_q.exp_().mul_(mass).sub_(weights)
        factors = self._by_size.get(size)
        if factors is None:
            factors = self._by_size[size] = self._factors / size
        flat = gradient[0].mul_(factors) if count == 1 else (factors @ gradient.flatten(1)).view(classes, size)
        flat = flat[1:] if binary else flat
        return [value / size for value in values], flat.t().to(logits.dtype)
