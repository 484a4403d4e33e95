"""How far a student's hidden features are from a teacher's: one number per example.

All take the features of the same examples, `student` (B, ...) and `teacher` (B, ...), which is constant, and return
(B,) in float32, or float64 for float64. What compares examples with each other gives every example its own part: the
mean over the batch is the loss of the batch. Of one example alone there is nothing to compare, and it gets 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) mean over all numbers of a feature of (student - teacher)^2; both of one shape."""
    return (_wide(student) - _wide(teacher)).square().flatten(1).mean(1)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) squared difference of attention maps, the mean over pixels: Zagoruyko and Komodakis 2017, section 3.1.

    Features are (B, C, H, W), with equally many pixels on both sides. A map is the sum over channels of squares, as a
    vector of length 1.
    """
    return (_map(student) - _map(teacher)).square().mean(1)


def _map(feature: Tensor) -> Tensor:
    return functional.normalize(_wide(feature).square().sum(1).flatten(1), dim=1)


def similarities(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) squared distance of an example's similarities to all examples: Tung and Mori 2019, equations 1 to 4.

    Similarities are the products of an example's feature with everybody's, as a vector of length 1: a row of G. Divided
    by B, so that the mean over the batch is the paper's ||G_T - G_S||^2 / B^2.
    """
    return (_similar(student) - _similar(teacher)).square().sum(1) / len(student)


def _similar(feature: Tensor) -> Tensor:
    rows = _wide(feature).flatten(1)
    return functional.normalize(rows @ rows.t(), dim=1)


def distances(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) Huber loss of an example's distances to the others: Park et al. 2019, equations 5 to 7.

    Distances are in units of the batch's mean distance. The mean over the B - 1 others, where the paper has a sum.
    """
    others = max(len(student) - 1, 1)
    return _huber(_relative(student), _relative(teacher)).sum(1).to(_wide(student).dtype) / others


def angles(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) Huber loss of the cosines of all angles at an example: Park et al. 2019, equations 8 to 10.

    The mean over the (B - 1)(B - 2) ordered pairs of others, where the paper has a sum. Takes memory like B^3.
    """
    pairs = max((len(student) - 1) * (len(student) - 2), 1)
    return _huber(_cosines(student), _cosines(teacher)).sum((1, 2)).to(_wide(student).dtype) / pairs


def _relative(feature: Tensor) -> Tensor:
    length = _lengths(_products(feature))
    count = max(len(feature) * (len(feature) - 1), 1)
    return length / (length.sum() / count).clamp_min(torch.finfo(length.dtype).tiny)


def _cosines(feature: Tensor) -> Tensor:
    """(B, B, B): the cosine of the angle at example j between i and k; 0 where two of the points are one."""
    products = _products(feature)
    length = _lengths(products)
    inner = products[None] - products[:, :, None] - products[:, None] + products.diagonal()[:, None, None]
    size = length[:, :, None] * length[:, None] * (1 - torch.eye(len(length), dtype=length.dtype, device=length.device))
    apart = size > 0
    return torch.where(apart, inner / torch.where(apart, size, 1.0), 0.0)


def _products(feature: Tensor) -> Tensor:
    """(B, B) products of the examples' features around their mean, in float64: distances are differences of them."""
    rows = feature.double().flatten(1)
    rows = rows - rows.mean(0)
    return rows @ rows.t()


def _lengths(products: Tensor) -> Tensor:
    """(B, B) distances; 0, with no gradient, between examples that are alike."""
    norms = products.diagonal()
    squares = norms[:, None] + norms[None] - 2 * products
    apart = squares > norms.detach().sum() * 1e-15  # what rounding leaves of a zero
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.huber_loss(student, teacher, reduction="none")


def _wide(feature: Tensor) -> Tensor:
    return feature if feature.dtype == torch.float64 else feature.float()
