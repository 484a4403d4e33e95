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
from torch import Tensor

from potstill import objectives
from potstill.errors import ObjectiveError
from potstill.objectives import Objective
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
ROWS = 12


@dataclass(frozen=True)
class Values:
    """A teacher of `member_values` (members, B, D); rows that are not known hold `unknown`."""

    member_values: Tensor
    known: Tensor
    unknown: float = 0.0

    def values(self) -> Tensor:
        return torch.where(self.known[:, None], self.member_values.mean(0), self.unknown)

    def features(self) -> Mapping[str, Tensor]:
        return {}


def everything(dtype: torch.dtype, *, targets: int = 3, members: int = 2, some: bool = False) -> tuple[Tensor, Batch]:
    """A student's values and a batch; with `some` every third row is unlabelled and every fourth not known."""
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
    return torch.tensor(rng.normal(size=(ROWS, targets)), dtype=dtype), batch


def oracle_squared(z: Array, batch: Batch) -> Array:
    return ((z - batch.labels.double().numpy()) ** 2).mean(1) * batch.labelled.numpy()


@dataclass(frozen=True)
class Row:
    """An objective and its terms by oracle."""

    spec: dict[str, Any]
    oracle: Mapping[str, Any]
    needs_labels: bool = True
    needs_teacher: bool = True


TABLE = {
    "squared_error": Row({"name": "squared_error"}, {"hard": oracle_squared}, needs_teacher=False),
}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
every_number = pytest.mark.parametrize("targets", [1, 3])


def gradient(objective: Objective, values: Tensor, batch: Batch, *names: str) -> Tensor:
    """Gradient of the sum of the named terms (of all without names)."""
    leaf = values.detach().clone().requires_grad_()
    terms = objective(Outputs(leaf), batch)
    return torch.autograd.grad(torch.stack([terms[name] for name in names or terms]).sum(), leaf)[0]


def test_every_objective_has_a_row() -> None:
    of_values = {name for name in objectives.REGISTRY if objectives.build(name).learns == "values"}
    assert {row.spec["name"] for row in TABLE.values()} == of_values


@every_row
def test_declarations(row: Row) -> None:
    objective = objectives.build(row.spec)
    assert (objective.needs_labels, objective.needs_teacher) == (row.needs_labels, row.needs_teacher)
    assert objective.learns == "values"
    assert objectives.build(objective.spec) == objective  # type: ignore[arg-type]


@every_row
@every_number
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
def test_terms_equal_the_oracle(row: Row, targets: int, some: bool) -> None:
    values, batch = everything(torch.float64, targets=targets, some=some)
    terms = objectives.build(row.spec)(Outputs(values), batch)
    assert list(terms) == list(row.oracle)
    for name, oracle in row.oracle.items():
        assert terms[name].shape == (ROWS,)
        np.testing.assert_allclose(terms[name].numpy(), oracle(values.numpy(), batch), rtol=1e-11, atol=1e-12)


@every_row
@every_number
def test_gradients_equal_finite_differences(row: Row, targets: int) -> None:
    values, batch = everything(torch.float64, targets=targets, some=True)
    objective = objectives.build(row.spec)
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(list(objective(Outputs(z), batch).values())), values.requires_grad_()
    )


@every_row
@every_number
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_terms_are_float32_under_half_precision(row: Row, targets: int, dtype: torch.dtype) -> None:
    values, batch = everything(torch.float32, targets=targets, some=True)
    values = values.to(dtype)
    for name, term in objectives.build(row.spec)(Outputs(values), batch).items():
        assert term.dtype == torch.float32
        np.testing.assert_allclose(term.numpy(), row.oracle[name](values.double().numpy(), batch), rtol=1e-4, atol=2e-5)


@every_row
@every_number
@pytest.mark.parametrize("unknown", [math.nan, math.inf, 0.0])
def test_gradients_are_finite_at_large_values_and_unknown_answers(row: Row, targets: int, unknown: float) -> None:
    _, batch = everything(torch.float32, targets=targets, some=True)
    batch = replace(batch, teacher=replace(batch.teacher, unknown=unknown))  # type: ignore[type-var]
    objective = objectives.build(row.spec)
    for size in (-100.0, 0.0, 100.0):
        values = torch.full((ROWS, targets), size)
        assert all(bool(term.isfinite().all()) for term in objective(Outputs(values), batch).values())
        assert gradient(objective, values, batch).isfinite().all()


@every_row
@every_number
def test_rows_without_label_or_answer_teach_nothing(row: Row, targets: int) -> None:
    values, batch = everything(torch.float32, targets=targets, some=True)
    objective = objectives.build(row.spec)
    for name, term in objective(Outputs(values), batch).items():
        counts = batch.teacher.known if name == "soft" else batch.labelled  # type: ignore[union-attr]
        slopes = gradient(objective, values, batch, name)
        assert torch.equal(term[~counts], torch.zeros(int((~counts).sum())))
        assert torch.equal(slopes[~counts], torch.zeros_like(slopes[~counts]))
        assert slopes[counts].ne(0).any(1).all()


@every_row
def test_a_permuted_batch_permutes_the_terms(row: Row) -> None:
    values, batch = everything(torch.float64, some=True)
    order, teacher = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3)), batch.teacher
    assert isinstance(teacher, Values)
    moved = Batch(
        batch.inputs[order],
        batch.labels[order],
        batch.labelled[order],
        batch.index[order],
        Values(teacher.member_values[:, order], teacher.known[order], teacher.unknown),  # type: ignore[arg-type]
    )
    objective = objectives.build(row.spec)
    there = objective(Outputs(values[order]), moved)
    for name, term in objective(Outputs(values), batch).items():
        assert torch.allclose(there[name], term[order], rtol=1e-12, atol=1e-14)


def test_values_of_another_shape_are_refused() -> None:
    values, batch = everything(torch.float32)
    with pytest.raises(ObjectiveError, match=r"different shapes, \(12, 1\) and \(12, 3\)"):
        objectives.squared_error()(Outputs(values[:, :1]), batch)


def test_objectives_of_classes_and_of_values_do_not_add_up() -> None:
    with pytest.raises(ObjectiveError, match=r"squared_error \+ hard_labels: some learn classes, some values"):
        objectives.build(["squared_error", "hard_labels"])
    assert objectives.build(["squared_error", "squared_error"]).learns == "values"
