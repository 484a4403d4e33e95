"""`equivalent_wls` against the minimiser of the objective, and the formulas as they are printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_objectives_values import Values

from potstill import objectives
from potstill.errors import ObjectiveError
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
RNG = np.random.default_rng(0)
N, FEATURES = 60, 4
X = RNG.normal(size=(N, FEATURES))
Y = X @ RNG.normal(size=FEATURES) + RNG.normal(size=N)
S = X @ RNG.normal(size=FEATURES) + 0.3 * RNG.normal(size=N)
MASK = RNG.random(N) < 0.5


def minimiser(y: Array, *, sigma: float, sigma_s: Any, lam: float) -> Array:
    """The student that minimises the objective, by least squares of its terms' square roots, row by row."""
    own, teachers = np.full(N, 1 / sigma), 1 / np.broadcast_to(sigma_s, N)
    parts = [(own * np.sqrt(np.where(MASK, 1 - lam, 1.0)), y), (teachers * np.sqrt(np.where(MASK, lam, 0.0)), S)]
    left = np.concatenate([weight[:, None] * X for weight, _ in parts])
    right = np.concatenate([weight * target for weight, target in parts])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def weighted(y2: Array, omega: Array) -> Array:
    """w = (X^T O X)^-1 X^T O y2."""
    return np.linalg.solve(X.T @ (omega[:, None] * X), X.T @ (omega * y2))


CASES = [(1.0, 1.0, 0.3), (0.5, 2.0, 0.7), (2.0, 0.1, 0.5), (1.0, 0.4, 0.0), (0.3, 0.6, 1.0), (1.5, None, 0.4)]
every_case = pytest.mark.parametrize(("sigma", "sigma_s", "lam"), CASES)
EACH = RNG.random(N) + 0.1  # a teacher that tells a variance for every example


@every_case
def test_weighted_least_squares_is_the_minimiser(sigma: float, sigma_s: float | None, lam: float) -> None:
    told = EACH if sigma_s is None else sigma_s
    y2, omega = objectives.equivalent_wls(X, Y, S, MASK, sigma, told, lam)
    assert y2.shape == omega.shape == (N,)
    np.testing.assert_allclose(weighted(y2, omega), minimiser(Y, sigma=sigma, sigma_s=told, lam=lam), atol=1e-8)


@every_case
def test_the_objective_has_its_minimum_there(sigma: float, sigma_s: float | None, lam: float) -> None:
    """The gradient of the objective itself, by the weights of a linear student, vanishes."""
    told = EACH if sigma_s is None else sigma_s
    weights = torch.tensor(weighted(*objectives.equivalent_wls(X, Y, S, MASK, sigma, told, lam)), requires_grad=True)

    class Told(Values):
        def variance(self) -> torch.Tensor:
            return torch.tensor(np.broadcast_to(np.square(told), N)[:, None].copy())

    batch = Batch(
        inputs=torch.zeros(N, 1),
        labels=torch.tensor(Y)[:, None],
        labelled=torch.ones(N, dtype=torch.bool),
        index=torch.arange(N),
        teacher=Told(torch.tensor(S)[None, :, None], torch.tensor(MASK)),  # type: ignore[arg-type]
    )
    teachers: Any = "teacher" if sigma_s is None else sigma_s
    objective = objectives.probabilistic_regression(lam=lam, sigma=sigma, teacher_sigma=teachers)
    total = torch.stack(list(objective(Outputs(torch.tensor(X) @ weights[:, None]), batch).values())).sum()
    (slope,) = torch.autograd.grad(total, weights)
    assert slope.abs().max() < 1e-8


def test_the_printed_formulas_are_wrong() -> None:
    """The proof's factor of 2, sigmas in the place of precisions, and no weights at all: each is off by far more."""
    sigma, sigma_s, lam = 0.5, 2.0, 0.7
    y2, omega = objectives.equivalent_wls(X, Y, S, MASK, sigma, sigma_s, lam)
    right = minimiser(Y, sigma=sigma, sigma_s=sigma_s, lam=lam)
    assert np.abs(weighted(2 * y2, omega) - right).max() > 0.3
    assert np.abs(weighted(*objectives.equivalent_wls(X, Y, S, MASK, 1 / sigma, 1 / sigma_s, lam)) - right).max() > 0.1
    assert np.abs(weighted(y2, np.ones(N)) - right).max() > 0.01


def test_several_targets_and_values_that_are_not_known() -> None:
    both, told = np.column_stack([Y, -Y]), np.column_stack([S, 2 * S])
    told[~MASK] = np.nan
    y2, omega = objectives.equivalent_wls(X, both, told, MASK, 1.0, 0.5, 0.3)
    assert y2.shape == (N, 2)
    for column in (0, 1):
        alone, weights = objectives.equivalent_wls(X, both[:, column], told[:, column], MASK, 1.0, 0.5, 0.3)
        np.testing.assert_array_equal(y2[:, column], alone)
        np.testing.assert_array_equal(omega, weights)


def test_ends_of_lam() -> None:
    first, weights = objectives.equivalent_wls(X, Y, S, MASK, 2.0, 0.5, 0.0)
    np.testing.assert_allclose(first, Y, rtol=1e-14)
    np.testing.assert_array_equal(weights, np.full(N, 0.25))
    last, weights = objectives.equivalent_wls(X, Y, S, MASK, 2.0, 0.5, 1.0)
    np.testing.assert_allclose(last, np.where(MASK, S, Y), rtol=1e-14)
    np.testing.assert_array_equal(weights, np.where(MASK, 4.0, 0.25))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lam": 1.0, "sigma_s": np.inf}, r"omega is 0 in row \d+: lam = 1 leaves neither"),
    ({"sigma": np.inf}, "omega is 0 in row"),
    ({"lam": 1.2}, r"lam must lie in \[0, 1\]; found 1\.2"),
    ({"sigma": 0.0}, "sigma must be positive, one number"),
    ({"sigma_s": np.zeros(N)}, "sigma_s must be positive, one number or one per row"),
    ({"sigma_s": np.ones(N - 1)}, "one number or one per row"),
    ({"mask": MASK.astype(int)}, "mask is int64"),
    ({"s": S[:-1]}, r"s \(59,\); wanted"),
    ({"X": X[:, 0]}, r"X is \(60,\)"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=range(len(BAD)))
def test_what_has_no_answer_is_refused(changes: dict[str, Any], message: str) -> None:
    usual = {"X": X, "y": Y, "s": S, "mask": MASK, "sigma": 1.0, "sigma_s": 1.0, "lam": 0.5}
    with pytest.raises(ObjectiveError, match=message):
        objectives.equivalent_wls(**usual | changes)
