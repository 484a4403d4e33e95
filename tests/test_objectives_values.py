"""Objectives of a regression: one table, universal tests for every row, and each objective's own ends and oracles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from potstill import objectives
from potstill.errors import ObjectiveError
from potstill.objectives import Objective
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
ROWS = 12


@dataclass(frozen=True)
class Values:
    """A teacher of `member_values` (members, B, D), with its own variances; rows not known hold `unknown`."""

    member_values: Tensor
    known: Tensor
    unknown: float = 0.0

    def values(self) -> Tensor:
        return torch.where(self.known[:, None], self.member_values.mean(0), self.unknown)

    def variance(self) -> Tensor | None:
        spread = self.member_values.var(0, correction=0) + 0.3
        return torch.where(self.known[:, None], spread, self.unknown)

    def features(self) -> Mapping[str, Tensor]:
        return {}


def everything(
    dtype: torch.dtype, *, targets: int = 3, members: int = 2, some: bool = False, wide: bool = False
) -> tuple[Tensor, Batch]:
    """A student's values and a batch; with `some` every third row is unlabelled and every fourth not known.

    `wide`: the student answers log variances too.
    """
    rng = np.random.default_rng([targets, members])
    rows = np.arange(ROWS)
    teacher = torch.tensor(rng.normal(size=(members, ROWS, targets)), dtype=dtype)
    labelled = torch.tensor(rows % 3 != 0) if some else torch.ones(ROWS, dtype=torch.bool)
    known = torch.tensor(rows % 4 != 0) if some else torch.ones(ROWS, dtype=torch.bool)
    labels = torch.tensor(rng.normal(size=(ROWS, targets)), dtype=torch.float32)
    batch = Batch(
        inputs=torch.zeros(ROWS, 1),
        labels=torch.where(labelled[:, None], labels, 0.0),
        labelled=labelled,
        index=torch.arange(ROWS),
        teacher=Values(teacher, known, unknown=math.nan if some else 0.0),  # type: ignore[arg-type]
    )
    return torch.tensor(rng.normal(size=(ROWS, targets * (1 + wide))), dtype=dtype), batch


def oracle_squared(z: Array, batch: Batch) -> Array:
    return ((z - batch.labels.double().numpy()) ** 2).mean(1) * batch.labelled.numpy()


SIGMA, TEACHER_SIGMA = np.array([0.5, 2.0, 1.5]), np.array([3.0, 0.25, 1.0])  # what is learnt, at some moment


def oracle_labels(z: Array, batch: Batch, sigma: Any, *, constant: bool = True) -> Array:
    """-log N(y; z, sigma^2) by scipy; without `constant` the squares alone."""
    targets = batch.labels.shape[1]
    means, y = z[:, :targets], batch.labels.double().numpy()
    sigma = np.broadcast_to(np.exp(z[:, targets:] / 2) if sigma is None else np.atleast_1d(sigma)[:targets], y.shape)
    if constant:
        return -stats.norm.logpdf(y, means, sigma).sum(1) * batch.labelled.numpy()
    return (((y - means) / sigma) ** 2 / 2).sum(1) * batch.labelled.numpy()


def oracle_teacher(z: Array, batch: Batch, sigma: Any, *, logs: bool = False) -> Array:
    teacher = batch.teacher
    assert isinstance(teacher, Values)
    members = teacher.member_values.double().numpy()
    targets = members.shape[2]
    sigma = np.sqrt(members.var(0) + 0.3) if sigma is None else np.atleast_1d(sigma)[:targets]
    error = ((members.mean(0) - z[:, :targets]) / sigma) ** 2 / 2 + (np.log(sigma) if logs else 0)
    return error.sum(1) * teacher.known.numpy()


def less(batch: Batch, lam: float) -> Array:
    return np.where(batch.teacher.known.numpy(), 1 - lam, 1.0)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Row:
    """An objective and its terms by oracle. `wide`: the student answers log variances too.

    `imitation`: the term that is 0, with zero gradient, where the student answers what the teacher does.
    """

    spec: dict[str, Any]
    oracle: Mapping[str, Any]
    needs_teacher: bool = True
    wide: bool = False
    imitation: bool = False

    def made(self, values: Tensor, batch: Batch) -> Objective:
        """The objective, with parameters as if a training had been at work."""
        objective = objectives.build(self.spec).prepared(Outputs(values), batch)
        for name, parameter in objective.owned.named_parameters() if objective.owned is not None else ():
            told = np.log({"log_sigma": SIGMA, "log_teacher_sigma": TEACHER_SIGMA}[name])
            parameter.data = torch.tensor(told[: len(parameter)], dtype=values.dtype)
        return objective


def probabilistic(**settings: Any) -> dict[str, Any]:
    return {"name": "probabilistic_regression", "lam": 0.3, "sigma": 1.0, "teacher_sigma": 1.0} | settings


TABLE = {
    "squared_error": Row({"name": "squared_error"}, {"hard": oracle_squared}, needs_teacher=False),
    "gaussian": Row(
        {"name": "gaussian", "sigma": "network"},
        {"hard": lambda z, b: oracle_labels(z, b, None)},
        needs_teacher=False,
        wide=True,
    ),
    "gaussian, fixed": Row(
        {"name": "gaussian", "sigma": 0.7}, {"hard": lambda z, b: oracle_labels(z, b, 0.7)}, needs_teacher=False
    ),
    "gaussian, learned": Row(
        {"name": "gaussian", "sigma": "learned"}, {"hard": lambda z, b: oracle_labels(z, b, SIGMA)}, needs_teacher=False
    ),
    "probabilistic_regression": Row(
        probabilistic(sigma=0.5, teacher_sigma=2.0),
        {
            "hard": lambda z, b: less(b, 0.3) * oracle_labels(z, b, 0.5, constant=False),
            "soft": lambda z, b: 0.3 * oracle_teacher(z, b, 2.0),
        },
        imitation=True,
    ),
    "probabilistic_regression, lam 0": Row(
        probabilistic(lam=0.0), {"hard": lambda z, b: oracle_labels(z, b, 1.0, constant=False)}, needs_teacher=False
    ),
    "probabilistic_regression, lam 1": Row(
        probabilistic(lam=1.0),
        {
            "hard": lambda z, b: less(b, 1.0) * oracle_labels(z, b, 1.0, constant=False),
            "soft": lambda z, b: oracle_teacher(z, b, 1.0),
        },
        imitation=True,
    ),
    "probabilistic_regression, learned": Row(
        probabilistic(sigma="learned", teacher_sigma="learned"),
        {
            "hard": lambda z, b: less(b, 0.3) * (oracle_labels(z, b, SIGMA) - constant(b)),
            "soft": lambda z, b: 0.3 * oracle_teacher(z, b, TEACHER_SIGMA, logs=True),
        },
    ),
    "probabilistic_regression, variances": Row(
        probabilistic(sigma="network", teacher_sigma="teacher"),
        {
            "hard": lambda z, b: less(b, 0.3) * (oracle_labels(z, b, None) - constant(b)),
            "soft": lambda z, b: 0.3 * oracle_teacher(z, b, None),
        },
        wide=True,
        imitation=True,
    ),
}


def constant(batch: Batch) -> Array:
    return np.log(2 * np.pi) / 2 * batch.labels.shape[1] * batch.labelled.numpy()


every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
every_number = pytest.mark.parametrize("targets", [1, 3])


def gradient(objective: Objective, values: Tensor, batch: Batch, *names: str) -> Tensor:
    """Gradient of the sum of the named terms (of all without names)."""
    leaf = values.detach().clone().requires_grad_()
    terms = objective(Outputs(leaf), batch)
    return torch.autograd.grad(torch.stack([terms[name] for name in names or terms]).sum(), leaf)[0]


def test_every_objective_has_a_row() -> None:
    registry = objectives.REGISTRY
    told = {name for name in registry if "student" not in registry.parameters(name)}  # the others: test_features.py
    of_values = {name for name in told if objectives.build(name).learns in ("values", "gaussian")}
    assert {row.spec["name"] for row in TABLE.values()} == of_values


@every_row
def test_declarations(row: Row) -> None:
    objective = objectives.build(row.spec)
    assert (objective.needs_labels, objective.needs_teacher) == (True, row.needs_teacher)
    assert objective.learns == ("gaussian" if row.wide else "values")
    assert objectives.build(objective.spec) == objective  # type: ignore[arg-type]


@every_row
@every_number
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
def test_terms_equal_the_oracle(row: Row, targets: int, some: bool) -> None:
    values, batch = everything(torch.float64, targets=targets, some=some, wide=row.wide)
    terms = row.made(values, batch)(Outputs(values), batch)
    assert list(terms) == list(row.oracle)
    for name, oracle in row.oracle.items():
        assert terms[name].shape == (ROWS,)
        np.testing.assert_allclose(terms[name].detach().numpy(), oracle(values.numpy(), batch), rtol=1e-11, atol=1e-12)


@every_row
@every_number
def test_gradients_equal_finite_differences(row: Row, targets: int) -> None:
    values, batch = everything(torch.float64, targets=targets, some=True, wide=row.wide)
    objective = row.made(values, batch)
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(list(objective(Outputs(z), batch).values())), values.requires_grad_()
    )


@every_row
@every_number
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_terms_are_float32_under_half_precision(row: Row, targets: int, dtype: torch.dtype) -> None:
    values, batch = everything(torch.float32, targets=targets, some=True, wide=row.wide)
    objective, values = row.made(values, batch), values.to(dtype)
    for name, term in objective(Outputs(values), batch).items():
        assert term.dtype == torch.float32
        np.testing.assert_allclose(
            term.detach().numpy(), row.oracle[name](values.double().numpy(), batch), rtol=1e-4, atol=2e-5
        )


@every_row
@every_number
@pytest.mark.parametrize("unknown", [math.nan, math.inf, 0.0])
def test_gradients_are_finite_at_large_values_and_unknown_answers(row: Row, targets: int, unknown: float) -> None:
    _, batch = everything(torch.float32, targets=targets, some=True)
    batch = replace(batch, teacher=replace(batch.teacher, unknown=unknown))  # type: ignore[type-var]
    for size in (-100.0, 0.0, 100.0):
        values = torch.full((ROWS, targets * (1 + row.wide)), size)
        objective = row.made(values, batch)
        assert all(bool(term.isfinite().all()) for term in objective(Outputs(values), batch).values())
        assert gradient(objective, values, batch).isfinite().all()


@every_row
@every_number
def test_rows_without_label_or_answer_teach_nothing(row: Row, targets: int) -> None:
    values, batch = everything(torch.float32, targets=targets, some=True, wide=row.wide)
    objective = row.made(values, batch)
    for name, term in objective(Outputs(values), batch).items():
        counts = batch.teacher.known if name == "soft" else batch.labelled  # type: ignore[union-attr]
        if row.spec.get("lam") == 1 and name == "hard":
            counts = counts & ~batch.teacher.known  # type: ignore[union-attr]
        slopes = gradient(objective, values, batch, name)
        assert torch.equal(term[~counts], torch.zeros(int((~counts).sum())))
        assert torch.equal(slopes[~counts], torch.zeros_like(slopes[~counts]))
        assert slopes[counts].ne(0).any(1).all()


@every_row
def test_a_permuted_batch_permutes_the_terms(row: Row) -> None:
    values, batch = everything(torch.float64, some=True, wide=row.wide)
    order, teacher = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3)), batch.teacher
    assert isinstance(teacher, Values)
    moved = Batch(
        batch.inputs[order],
        batch.labels[order],
        batch.labelled[order],
        batch.index[order],
        Values(teacher.member_values[:, order], teacher.known[order], teacher.unknown),  # type: ignore[arg-type]
    )
    objective = row.made(values, batch)
    there = objective(Outputs(values[order]), moved)
    for name, term in objective(Outputs(values), batch).items():
        assert torch.allclose(there[name], term[order], rtol=1e-12, atol=1e-14)


def test_values_of_another_shape_are_refused() -> None:
    values, batch = everything(torch.float32)
    with pytest.raises(ObjectiveError, match=r"different shapes, \(12, 1\) and \(12, 3\)"):
        objectives.squared_error()(Outputs(values[:, :1]), batch)


def test_objectives_of_classes_and_of_values_do_not_add_up() -> None:
    with pytest.raises(ObjectiveError, match=r"squared_error \+ hard_labels: they learn classes and values"):
        objectives.build(["squared_error", "hard_labels"])
    assert objectives.build(["squared_error", "squared_error"]).learns == "values"
    with pytest.raises(ObjectiveError, match="they learn gaussian and values"):
        objectives.build(["squared_error", "gaussian"])


@every_row
def test_imitation_is_at_its_minimum_where_the_student_is_its_teacher(row: Row) -> None:
    values, batch = everything(torch.float64, wide=row.wide)
    told = torch.cat([batch.teacher.values(), values[:, values.shape[1] // 2 :]][: 1 + row.wide], 1)  # type: ignore[union-attr]
    objective = row.made(told, batch)
    if row.imitation:
        assert objective(Outputs(told), batch)["soft"].abs().max() < 1e-14
        assert gradient(objective, told, batch, "soft").abs().max() < 1e-14
        assert (objective(Outputs(values), batch)["soft"] > 1e-3).all()


def test_ends_of_lam() -> None:
    """0: labels alone; 1: the teacher alone where it is known. Up to constants the first is `gaussian`."""
    values, batch = everything(torch.float64, some=True)
    alone = replace(batch, teacher=None)
    first = objectives.probabilistic_regression(lam=0.0, sigma=0.5)(Outputs(values), alone)["hard"]
    normal = objectives.gaussian(sigma=0.5)(Outputs(values), alone)["hard"]
    constant = 3 * (math.log(0.5) + math.log(2 * math.pi) / 2)
    assert torch.allclose(first[batch.labelled], normal[batch.labelled] - constant, rtol=1e-12)
    last = objectives.probabilistic_regression(lam=1.0)(Outputs(values), batch)
    known = batch.teacher.known  # type: ignore[union-attr]
    assert torch.equal(last["hard"][known], torch.zeros_like(last["hard"][known]))
    half = objectives.probabilistic_regression(lam=0.0, sigma=math.sqrt(0.5))(Outputs(values), alone)["hard"]
    assert torch.allclose(half, 3 * objectives.squared_error()(Outputs(values), alone)["hard"], rtol=1e-12)


@pytest.mark.parametrize(("dial", "large", "term"), [("sigma", 1e6, "hard"), ("teacher_sigma", 1e6, "soft")])
def test_a_large_sigma_counts_for_nothing(dial: str, large: float, term: str) -> None:
    values, batch = everything(torch.float64)
    terms = objectives.probabilistic_regression(**{dial: large})(Outputs(values), batch)  # type: ignore[arg-type]
    assert terms[term].abs().max() < 1e-10


def test_a_learnt_sigma_is_best_at_the_errors_size() -> None:
    """The derivative of the likelihood by log sigma vanishes at the root of the mean squared error."""
    values, batch = everything(torch.float64)
    objective = objectives.gaussian(sigma="learned").prepared(Outputs(values), batch)
    assert objective.owned is not None
    (parameter,) = objective.owned.parameters()
    assert torch.equal(parameter, torch.zeros(3))
    parameter.data = (values - batch.labels).square().mean(0).sqrt().log()
    (slope,) = torch.autograd.grad(objective(Outputs(values), batch)["hard"].sum(), parameter)
    assert slope.abs().max() < 1e-12


def test_an_objective_with_parameters_wants_them_made() -> None:
    values, batch = everything(torch.float32)
    objective = objectives.gaussian(sigma="learned")
    with pytest.raises(ObjectiveError, match='"gaussian" has parameters, which a training makes'):
        objective(Outputs(values), batch)
    both = objectives.build([{"name": "gaussian", "sigma": "learned"}, "squared_error"])
    made = both.prepared(Outputs(values), batch)
    assert isinstance(made.owned, nn.ModuleDict)
    assert [name for name, _ in made.owned.named_parameters()] == ["gaussian.log_sigma"]
    terms = made(Outputs(values), batch)
    assert sorted(terms) == ["gaussian.hard", "squared_error.hard"]
    assert torch.equal(terms["gaussian.hard"], objectives.gaussian(sigma=1.0)(Outputs(values), batch)["hard"])
    assert made == both


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"name": "gaussian", "sigma": 0.0}, 'sigma of "gaussian" must be a finite number > 0, or "learned" or "network"'),
    ({"name": "gaussian", "sigma": "teacher"}, "sigma of the objective"),
    ({"name": "gaussian", "sigma": math.inf}, "must be a finite number > 0"),
    (probabilistic(lam=1.5), r'lam of "probabilistic_regression" must lie in \[0, 1\]'),
    (probabilistic(teacher_sigma=-1.0), 'or "learned" or "teacher"; found -1'),
    (probabilistic(teacher_sigma=True), "teacher_sigma"),
    (probabilistic(teacher_sigma="network"), "teacher_sigma"),
]


@pytest.mark.parametrize(("spec", "message"), SETTINGS, ids=range(len(SETTINGS)))
def test_settings_are_checked(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        objectives.build(spec)


def test_variances_must_be_there() -> None:
    values, batch = everything(torch.float32)

    class Plain(Values):
        def variance(self) -> Tensor | None:
            return None

    teacher = batch.teacher
    assert isinstance(teacher, Values)
    batch = replace(batch, teacher=Plain(teacher.member_values, teacher.known))  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match="wants a teacher that tells variances"):
        objectives.probabilistic_regression(teacher_sigma="teacher")(Outputs(values), batch)
    with pytest.raises(ObjectiveError, match="answers 3 numbers for 3 targets; wanted are means and log variances, 6"):
        objectives.gaussian()(Outputs(values), batch)
