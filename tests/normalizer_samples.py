"""Oracles of the normalisers: the textbook's sum with hundreds of digits, and the printed term away from q = 1."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
_APART = Decimal("1e-50")


def oracle_simplex(z: Array, temperature: float) -> Array:
    """(B,) log of sum_k q[k] / prod_j (a[k] - a[j]) with a = log q; classes that are alike are moved a little apart."""
    with localcontext() as context:
        context.prec = 600
        return np.array([float(_divided_difference([Decimal(x / temperature) for x in row]).ln()) for row in z])


def _divided_difference(z: list[Decimal]) -> Decimal:
    z = [x + k * _APART for k, x in enumerate(z)]
    whole = sum((x.exp() for x in z), Decimal(0)).ln()
    a = [x - whole for x in z]
    return sum((x.exp() / math.prod(x - y for y in a if y != x) for x in a), Decimal(0))


def oracle_printed(z: Array, temperature: float) -> Array:
    """(B,) -sum_k log(-q[k] log q[k]); the largest q[k] by what the others leave."""
    q = np.sort(special.softmax(z / temperature, axis=1), axis=1)
    first = -np.log1p(-q[:, :-1].sum(1))
    return -(np.log(q).sum(1) + np.log(-np.log(q[:, :-1])).sum(1) + np.log(first))
