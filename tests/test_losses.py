"""Losses against float64 oracles, finite differences and their own stated properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from normalizer_samples import oracle_printed, oracle_simplex
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from potstill import losses
from potstill.errors import ObjectiveError

Array = NDArray[np.float64]
TEMPERATURE, SMOOTHING, ROWS = 3.0, 0.2, 7
CLASSES = (2, 5, 15, 16, 40)  # both layouts of the softmax, and the border between them


@dataclass(frozen=True)
class Targets:
    """Targets for `ROWS` rows of K classes: labels, a distribution, its negative entropy, values."""

    labels: Tensor
    probs: Tensor
    neg_entropy: Tensor
    values: Tensor

    def permuted(self, order: Tensor) -> Targets:
        return Targets(self.labels[order], self.probs[order], self.neg_entropy[order], self.values[order])

    def spoiled(self, where: Tensor) -> Targets:
        """NaN, and a label outside the classes, in the rows where `where` is False."""
        column = where[:, None]
        return Targets(
            torch.where(where, self.labels, 99),
            torch.where(column, self.probs, torch.nan),
            torch.where(where, self.neg_entropy, torch.nan),
            torch.where(column, self.values, torch.nan),
        )


def make(classes: int, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> tuple[Tensor, Targets]:
    rng = np.random.default_rng([seed, classes])
    logits, values = rng.normal(scale=2, size=(2, ROWS, classes))
    probs = special.softmax(rng.normal(size=(ROWS, classes)), axis=1)
    entropy = special.xlogy(probs, probs).sum(1)
    parts = (torch.tensor(each, dtype=dtype) for each in (probs, entropy, values))
    return torch.tensor(logits, dtype=dtype), Targets(torch.tensor(rng.integers(classes, size=ROWS)), *parts)


def oracle_kl(z: Array, t: Targets, temperature: float) -> Array:
    p, q = t.probs.numpy().astype(float), special.softmax(z / temperature, axis=1)
    return special.rel_entr(p, q).sum(1)


def oracle_cross_entropy(z: Array, t: Targets, smoothing: float) -> Array:
    target = np.eye(z.shape[1])[t.labels.numpy()] * (1 - smoothing) + smoothing / z.shape[1]
    return -(target * np.log(special.softmax(z, axis=1))).sum(1)


@dataclass(frozen=True)
class Row:
    """A loss: how to call it, what it must answer, and which properties it claims."""

    call: Callable[..., Tensor]
    oracle: Callable[[Array, Targets], Array]
    shift_invariant: bool = True


LOSSES = {
    "cross_entropy": Row(
        lambda z, t, **more: losses.cross_entropy(z, t.labels, **more), lambda z, t: oracle_cross_entropy(z, t, 0.0)
    ),
    "cross_entropy, smoothed": Row(
        lambda z, t, **more: losses.cross_entropy(z, t.labels, label_smoothing=SMOOTHING, **more),
        lambda z, t: oracle_cross_entropy(z, t, SMOOTHING),
    ),
    "soft_cross_entropy": Row(
        lambda z, t, **more: losses.soft_cross_entropy(z, t.probs, temperature=TEMPERATURE, **more),
        lambda z, t: oracle_kl(z, t, TEMPERATURE) - t.neg_entropy.numpy(),
    ),
    "kl": Row(
        lambda z, t, **more: losses.kl(z, t.probs, t.neg_entropy, temperature=TEMPERATURE, **more),
        lambda z, t: oracle_kl(z, t, TEMPERATURE),
    ),
    "kl, temperature 1": Row(
        lambda z, t, **more: losses.kl(z, t.probs, t.neg_entropy, temperature=1.0, **more),
        lambda z, t: oracle_kl(z, t, 1.0),
    ),
    "printed_normalizer": Row(
        lambda z, t, **more: losses.printed_normalizer(z, temperature=TEMPERATURE, **more),
        lambda z, t: oracle_printed(z, TEMPERATURE),
    ),
    "simplex_normalizer": Row(
        lambda z, t, **more: losses.simplex_normalizer(z, temperature=TEMPERATURE, **more),
        lambda z, t: oracle_simplex(z, TEMPERATURE),
    ),
    "squared_error": Row(
        lambda z, t, **more: losses.squared_error(z, t.values, **more),
        lambda z, t: ((z - t.values.numpy()) ** 2).mean(1),
        shift_invariant=False,
    ),
}
every_loss = pytest.mark.parametrize("row", LOSSES.values(), ids=LOSSES)
every_size = pytest.mark.parametrize("classes", CLASSES)


def test_every_loss_has_a_row() -> None:
    takers = {"class_logits", "log_softmax"}
    takers |= {"TABLE_LIMIT", "ClosedForm", "Target", "label_target", "soft_target"}  # tests/test_objectives.py
    takers |= {"column_correlation", "others_kl", "row_correlation", "target_kl"}  # there too
    takers |= {"negative_log_likelihood", "scaled_error"}  # tests/test_objectives_values.py
    takers |= {"angles", "attention", "distances", "mean_square", "similarities"}  # tests/test_features.py
    assert set(losses.__all__) - takers == {name.partition(",")[0] for name in LOSSES}
    assert losses.__all__ == sorted(losses.__all__, key=lambda name: (not name.isupper(), name))


@every_loss
@every_size
def test_equals_the_oracle(row: Row, classes: int) -> None:
    logits, targets = make(classes)
    found = row.call(logits, targets)
    assert found.shape == (ROWS,)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), row.oracle(logits.numpy(), targets), rtol=1e-12, atol=1e-12)


@every_loss
@every_size
def test_gradients_equal_finite_differences(row: Row, classes: int) -> None:
    logits, targets = make(classes)
    where = torch.arange(ROWS) % 3 != 1
    for more in ({}, {"weight": 0.3, "where": where}):
        assert torch.autograd.gradcheck(lambda z, more=more: row.call(z, targets, **more), logits.requires_grad_())


@every_loss
@every_size
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_float32_under_lower_precision(row: Row, classes: int, dtype: torch.dtype) -> None:
    logits, targets = make(classes, torch.float32)
    logits = logits.to(dtype).requires_grad_()
    found = row.call(logits, targets)
    assert found.dtype == torch.float32
    wanted = row.oracle(logits.detach().double().numpy(), targets)
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=2e-6, atol=2e-6)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@every_loss
def test_weight_multiplies(row: Row) -> None:
    logits, targets = make(5)
    assert torch.allclose(row.call(logits, targets, weight=14.4), 14.4 * row.call(logits, targets), rtol=1e-12)


@every_loss
@every_size
def test_rows_left_out_are_exactly_zero_and_hide_nan(row: Row, classes: int) -> None:
    logits, targets = make(classes)
    where = torch.arange(ROWS) % 3 != 1
    whole = row.call(logits, targets)
    logits.requires_grad_()
    found = row.call(logits, targets.spoiled(where), where=where)
    assert torch.equal(found[where], whole[where])
    assert torch.equal(found[~where], torch.zeros(int((~where).sum()), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[where].ne(0).any(1).all()
    assert torch.equal(gradient[~where], torch.zeros_like(gradient[~where]))


@every_loss
@every_size
def test_a_mask_that_hides_nothing_changes_no_bit(row: Row, classes: int) -> None:
    logits, targets = make(classes, torch.float32)
    assert torch.equal(row.call(logits, targets), row.call(logits, targets, where=torch.ones(ROWS, dtype=torch.bool)))


@every_loss
@every_size
def test_a_permuted_batch_permutes_the_numbers(row: Row, classes: int) -> None:
    logits, targets = make(classes)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    moved = row.call(logits[order], targets.permuted(order))
    assert torch.allclose(moved, row.call(logits, targets)[order], rtol=1e-13, atol=0)


@every_loss
def test_a_constant_added_to_a_row(row: Row) -> None:
    logits, targets = make(5)
    same = torch.allclose(row.call(logits + 10.0, targets), row.call(logits, targets), rtol=1e-9)
    assert same == row.shift_invariant


@every_loss
@every_size
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_stay_finite(row: Row, classes: int, size: float) -> None:
    _, targets = make(classes, torch.float32)
    logits = torch.full((ROWS, classes), -size)
    logits[torch.arange(ROWS), torch.arange(ROWS) % classes] = size
    logits.requires_grad_()
    found = row.call(logits, targets)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found.isfinite().all()
    assert gradient.isfinite().all()


@every_loss
def test_an_empty_batch(row: Row) -> None:
    logits, targets = make(5)
    nothing = torch.empty(0, dtype=torch.int64)
    assert row.call(logits[nothing], targets.permuted(nothing)).shape == (0,)


@every_size
def test_kl_is_zero_with_zero_gradient_at_the_target_and_positive_elsewhere(classes: int) -> None:
    logits, targets = make(classes)
    assert (losses.kl(logits, targets.probs, targets.neg_entropy, temperature=TEMPERATURE) > 0).all()
    equal = (TEMPERATURE * targets.probs.log()).requires_grad_()
    found = losses.kl(equal, targets.probs, targets.neg_entropy, temperature=TEMPERATURE)
    (gradient,) = torch.autograd.grad(found.sum(), equal)
    assert found.abs().max() < 1e-14
    assert gradient.abs().max() < 1e-15


def test_targets_with_zeros_have_an_entropy() -> None:
    """A teacher that is certain: p log p = 0 at p = 0, so KL = -log q[class]."""
    logits, targets = make(5)
    certain = torch.eye(5, dtype=torch.float64)[targets.labels]
    found = losses.kl(logits, certain, torch.zeros(ROWS, dtype=torch.float64), temperature=1.0)
    assert torch.allclose(found, losses.cross_entropy(logits, targets.labels), rtol=1e-13)


def test_ends_of_label_smoothing() -> None:
    logits, targets = make(5)
    uniform = torch.full((ROWS, 5), 0.2, dtype=torch.float64)
    whole = losses.cross_entropy(logits, targets.labels, label_smoothing=1.0)
    assert torch.allclose(whole, losses.soft_cross_entropy(logits, uniform), rtol=1e-13)
    none = losses.cross_entropy(logits, targets.labels, label_smoothing=0.0)
    assert torch.equal(none, losses.cross_entropy(logits, targets.labels))


def test_one_logit_is_two_classes() -> None:
    """softmax([0, z])[1] = sigmoid(z), hence binary cross-entropy in two ways."""
    z = torch.tensor([[-100.0], [-0.3], [0.0], [2.0], [100.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 0])
    both = losses.class_logits(z)
    np.testing.assert_allclose(losses.log_softmax(both).exp()[:, 1].numpy(), special.expit(z.numpy()[:, 0]), rtol=1e-12)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], labels.double(), reduction="none")
    assert torch.allclose(losses.cross_entropy(both, labels), wanted, rtol=1e-12)
    many = torch.randn(3, 4)
    assert losses.class_logits(many) is many


@every_size
@pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0])
def test_log_softmax(classes: int, temperature: float) -> None:
    logits, _ = make(classes)
    found = losses.log_softmax(logits, temperature)
    np.testing.assert_allclose(
        found.numpy(), special.log_softmax(logits.numpy() / temperature, axis=1), rtol=1e-11, atol=1e-14
    )
    assert losses.log_softmax(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", ["soft_cross_entropy", "kl", "squared_error"])
def test_other_classes_than_the_teacher_are_refused(name: str) -> None:
    logits, targets = make(5)
    with pytest.raises(ObjectiveError, match=r"\(7, 1\) and \(7, 5\)"):
        LOSSES[name].call(logits[:, :1], targets)


def test_a_weight_first_met_in_validation_can_be_trained_with() -> None:
    """Weights are kept as tensors between calls; one that is made under inference mode cannot be saved for backward."""
    labels, weight = torch.tensor([0, 2]), 0.123456
    calls = (
        lambda z: losses.cross_entropy(z, labels, weight=weight),
        lambda z: losses.soft_cross_entropy(z, torch.full_like(z, 1 / 3), weight=weight),
        lambda z: losses.squared_error(z, torch.ones_like(z), weight=weight),
    )
    for call in calls:
        with torch.inference_mode():
            call(torch.zeros(2, 3))
        logits = torch.zeros(2, 3, requires_grad=True)
        call(logits).sum().backward()
        assert logits.grad is not None
