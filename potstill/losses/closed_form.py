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
    """`cross_entropy` with `labels` (n,), as a target named "hard".

    Rows outside `mask` (n,) bool weigh nothing; where it holds numbers, a row weighs so many times `weight`.
    """
    one_hot = functional.one_hot(labels, classes).float()
    smooth = one_hot * (1 - label_smoothing) + label_smoothing / classes
    return Target("hard", 1.0, smooth * (weight * mask.float()).unsqueeze(1), torch.zeros(len(labels)))


def soft_target(probs: Tensor, neg_entropy: Tensor, mask: Tensor, *, weight: float, temperature: float) -> Target:
    """`kl` from `probs` (n, K), as a target named "soft"; rows outside `mask` (n,) bool weigh nothing."""
    weights = torch.where(mask.unsqueeze(1), probs * weight, 0.0)
    return Target("soft", temperature, weights, torch.where(mask, neg_entropy * weight, 0.0))


@final
class ClosedForm:
    """The sum of several `Target` terms, for one network or for several that see the same batches.

    Called with the logits of some rows, it gives means and the gradient.
    """

    def __init__(self, names: Sequence[tuple[str, ...]], table: Tensor, inverse: Tensor) -> None:
        """`names` of the terms, for each of the k networks; `inverse` (k, terms): 1 / T.

        `table` (n, k or 1, terms, K + 2): the weights, their sum, the constant; one where all are taught the same.
        """
        self._names, self._table, self._inverse = names, table, inverse
        self._plain = bool((inverse == 1).all()) and inverse.shape[1] == 1
        self._rows = table.flatten(1)
        self._by_size: dict[int, Tensor] = {}  # of an epoch's batches: two sizes, the last being smaller

    @staticmethod
    def of(targets: Sequence[Target]) -> ClosedForm:
        """The form of one network."""
        rows, classes = targets[0].weights.shape
        table = torch.empty(rows, 1, len(targets), classes + 2)
        for s, target in enumerate(targets):
            table[:, 0, s, :classes] = target.weights
            table[:, 0, s, classes] = target.weights.sum(1)
            table[:, 0, s, classes + 1] = target.constant
        inverse = 1 / torch.tensor([[target.temperature for target in targets]])
        return ClosedForm([tuple(target.name for target in targets)], table, inverse)

    @property
    def terms(self) -> int:
        """How many terms there are, for each network."""
        return self._table.shape[2]

    @staticmethod
    def join(forms: Sequence[ClosedForm]) -> ClosedForm:
        """One form for several networks, with equally many terms for each."""
        first = forms[0]
        same = all(torch.equal(form._table, first._table) for form in forms[1:])
        table = first._table if same else torch.cat([form._table for form in forms], 1)
        names = [own for form in forms for own in form._names]
        return ClosedForm(names, table, torch.cat([form._inverse for form in forms]))

    @staticmethod
    def size(rows: int, classes: int, terms: int) -> int:
        """Bytes of the table of one network for so many rows, classes and terms."""
        return 4 * rows * terms * (classes + 2)

    def __call__(self, logits: Tensor, index: Tensor) -> tuple[list[dict[str, float]], Tensor]:
        """Means over the batch by name, for each network, and the gradient of their sum with respect to the logits.

        `logits` (k, K, B), or (k, 1, B) for a binary task, detached; `index` (B,) int64 the rows of the source. The
        gradient has the shape and type of the logits.
        """
        _, told, count, columns = self._table.shape
        classes, size, binary = columns - 2, logits.shape[2], logits.shape[1] == 1
        scores = logits.float()
        if binary:
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        # (k, terms, K, B): over the last axis torch's softmax is scalar code for fewer than 16 classes.
        stacked = scores.unsqueeze(1)
        if not self._plain:
            stacked = stacked * self._inverse[:, :, None, None]
        log_q = torch.log_softmax(stacked, 2)
        looked = self._rows.index_select(0, index).view(size, told, count, columns).permute(1, 2, 3, 0)
        weights, mass, constant = looked.split_with_sizes((classes, 1, 1), 2)
        # Whole rows of one layout are added up: how a sum rounds then does not depend on the number of networks.
        crossed = torch.mul(log_q, weights, out=torch.empty_like(log_q))
        values = torch.sub(constant.flatten(2).contiguous().sum(2), crossed.flatten(2).sum(2)).tolist()
        gradient = log_q.exp_().mul_(mass).sub_(weights)
        factors = self._by_size.get(size)
        if factors is None:
            factors = self._by_size[size] = (self._inverse / size)[:, :, None, None]
        gradient.mul_(factors)
        flat = gradient.squeeze(1) if count == 1 else gradient.sum(1)
        flat = flat[:, 1:].clone() if binary else flat
        means = [
            {name: value / size for name, value in zip(names, row, strict=True)}
            for names, row in zip(self._names, values, strict=True)
        ]
        return means, flat.to(logits.dtype)
