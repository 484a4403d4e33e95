"""What a linear student of the probabilistic regression learns, in closed form: weighted least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potstill.errors import ObjectiveError

Floats = NDArray[np.float64]


def equivalent_wls(
    X: ArrayLike,
    y: ArrayLike,
    s: ArrayLike,
    mask: ArrayLike,
    sigma: float,
    sigma_s: ArrayLike,
    lam: float,
) -> tuple[Floats, Floats]:
    """Targets and weights of the least squares that `probabilistic_regression` is for a linear student g = X w.

    `X` (n, F) inputs, `y` (n,) or (n, D) labels, `s` the teacher's values, of the same shape; `mask` (n,) bool tells
    where these are known. `sigma` of the labels; `sigma_s` of the teacher, one number or (n,); `lam` in [0, 1] weights
    the teacher's term. Returns y2, of the shape of y, and omega (n,): the student minimises sum_i omega_i (y2_i -
    g_i)^2, so that w = (X^T O X)^-1 X^T O y2 with O = diag(omega), here where labels are known everywhere.

        omega_i = 1/sigma^2 where the teacher is not known, (1 - lam)/sigma^2 + lam/sigma_s^2 where it is
        omega_i y2_i = y_i/sigma^2, or (1 - lam) y_i/sigma^2 + lam s_i/sigma_s^2

    lam = 0: y and constant weights; lam = 1: s where it is known, y elsewhere. Raises `ObjectiveError` for shapes that
    do not fit, sigmas that are not positive (infinity may be), and an omega of 0, for which any answer is as good.

    Reference: paper 2, theorem 2, corrected: the printed proof has a factor of 2 too much and no transpose.
    """
    rows = np.asarray(X, np.float64)
    labels, told, known = np.asarray(y, np.float64), np.asarray(s, np.float64), np.asarray(mask)
    if rows.ndim != 2 or labels.shape[:1] != rows.shape[:1] or labels.ndim not in (1, 2) or told.shape != labels.shape:
        raise ObjectiveError(
            f"equivalent_wls: X is {rows.shape}, y {labels.shape}, s {told.shape}; wanted are (n, F), (n,) or (n, D), "
            "and the shape of y."
        )
    if known.dtype != np.bool_ or known.shape != (len(rows),):
        raise ObjectiveError(f"equivalent_wls: mask is {known.dtype} {known.shape}; wanted bool ({len(rows)},).")
    if not 0 <= lam <= 1:
        raise ObjectiveError(f"equivalent_wls: lam must lie in [0, 1]; found {lam!r}.")
    own, teachers = _precision("sigma", sigma, ()), _precision("sigma_s", sigma_s, (len(rows),))
    first = np.where(known, (1 - lam) * own, own)
    second = np.where(known, lam * teachers, 0.0)
    omega = first + second
    if not (omega > 0).all():
        at = int(np.argmin(omega))
        raise ObjectiveError(
            f"equivalent_wls: omega is 0 in row {at}: lam = {lam:g} leaves neither its label nor the teacher any "
            f"weight (sigma {sigma:g}). Choose a lam below 1, or a finite sigma_s."
        )
    columns = (slice(None), *(None,) * (labels.ndim - 1))
    mixed = first[columns] * labels + second[columns] * np.where(known[columns], told, 0.0)
    return mixed / omega[columns], omega


def _precision(word: str, sigma: ArrayLike, shape: tuple[int, ...]) -> Any:
    found = np.asarray(sigma, np.float64)
    if found.shape not in ((), shape) or not (found > 0).all():
        raise ObjectiveError(f"equivalent_wls: {word} must be positive, one number{' or one per row' * bool(shape)}.")
    return 1.0 / np.square(found)
