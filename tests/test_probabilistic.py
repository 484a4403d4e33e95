"""The probabilistic objective and generalised distillation: their ends, their extra terms, the tables of the docs.

Oracles: quadrature, hand values, torch's continuous Bernoulli, conditions for an optimum solved by scipy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from normalizer_samples import oracle_simplex
from numpy.typing import NDArray
from scipy import integrate, optimize, special
from torch import Tensor

import potstill as ps
from potstill import losses
from potstill.errors import ObjectiveError
from potstill.objectives import Objective, build, generalised, hard_labels, hinton, probabilistic
from potstill.outputs import from_array
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "objectives.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Told:
    """A teacher of probabilities (B, K) at the temperature that is asked for."""

    known: Tensor
    p: Tensor

    def probs(self, temperature: float = 1.0) -> Tensor:
        return torch.softmax(self.p.log() / temperature, 1)

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        return torch.special.xlogy(self.probs(temperature), self.probs(temperature)).sum(1)


def examples(p: Any, *, labels: Any = None, known: Any = None) -> Batch:
    told = torch.tensor(p, dtype=torch.float64)
    rows = len(told)
    every = torch.ones(rows, dtype=torch.bool)
    return Batch(
        inputs=torch.zeros(rows, 1),
        labels=torch.zeros(rows, dtype=torch.int64) if labels is None else torch.tensor(labels),
        labelled=every,
        index=torch.arange(rows),
        teacher=Told(every if known is None else torch.tensor(known), told),  # type: ignore[arg-type]
    )


def drawn(rows: int = 6, classes: int = 4) -> tuple[Tensor, Batch]:
    rng = np.random.default_rng(classes)
    logits = torch.tensor(rng.normal(scale=2, size=(rows, classes)))
    return logits, examples(rng.dirichlet(np.ones(classes), rows), labels=rng.integers(classes, size=rows))


def whole(objective: Objective, logits: Tensor, batch: Batch, *names: str) -> Tensor:
    terms = objective(Outputs(logits), batch)
    return torch.stack([terms[name] for name in names or terms]).sum(0)


# ---------------------------------------------------------------- ends, and what it is equal to


def test_nobody_known_is_plain_training() -> None:
    logits, batch = drawn()
    nobody = replace(batch, teacher=replace(batch.teacher, known=torch.zeros(6, dtype=torch.bool)))  # type: ignore[type-var]
    for normalizer in ("none", "paper", "exact"):
        for lam in (0.3, 1.0):
            found = whole(probabilistic(lam=lam, temperature=3.0, normalizer=normalizer), logits, nobody)  # type: ignore[arg-type]
            torch.testing.assert_close(found, whole(hard_labels(), logits, nobody), rtol=0, atol=0)


def test_lambda_zero_is_plain_training() -> None:
    logits, batch = drawn()
    for objective in (probabilistic(lam=0.0, normalizer="exact"), generalised(lam=0.0)):
        found, wanted = objective(Outputs(logits), batch), hard_labels()(Outputs(logits), batch)
        assert list(found) == ["hard"]
        assert torch.equal(found["hard"], wanted["hard"])
        assert not objective.needs_teacher
        assert objective.targets is not None


def test_lambda_one_uses_labels_only_where_the_teacher_is_not_known() -> None:
    logits, batch = drawn()
    known = torch.tensor([True, False] * 3)
    some = replace(batch, teacher=replace(batch.teacher, known=known))  # type: ignore[type-var]
    terms = probabilistic(lam=1.0)(Outputs(logits), some)
    plain = hard_labels()(Outputs(logits), batch)["hard"]
    assert torch.equal(terms["hard"], torch.where(known, 0.0, plain))
    assert torch.equal(terms["soft"] > 0, known)
    assert list(generalised(lam=1.0)(Outputs(logits), batch)) == ["soft"]
    assert (probabilistic(lam=1.0).needs_labels, generalised(lam=1.0).needs_labels) == (True, False)


def test_half_of_hinton() -> None:
    """lam = 1/2, everything known: half of Hinton's terms with unit weights and without T^2."""
    logits, batch = drawn()
    terms = probabilistic(lam=0.5, temperature=3.0)(Outputs(logits), batch)
    both = hinton(temperature=3.0, alpha=0.5)(Outputs(logits), batch)
    torch.testing.assert_close(terms["hard"], both["hard"], rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["soft"], both["soft"] / 9, rtol=1e-12, atol=0)


def test_at_temperature_one_it_is_cross_entropy_with_a_mixture() -> None:
    """-sum ((1 - lam) y + lam s) log g; the KL leaves lam times the entropy of s out."""
    logits, batch = drawn()
    s = batch.teacher.probs()  # type: ignore[union-attr]
    mixture = 0.3 * s + 0.7 * torch.nn.functional.one_hot(batch.labels, 4).double()
    wanted = -(mixture * torch.log_softmax(logits, 1)).sum(1)
    for objective in (probabilistic(lam=0.3), generalised(lam=0.3)):
        found = whole(objective, logits, batch) - 0.3 * torch.special.xlogy(s, s).sum(1)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_where_the_teacher_is_not_known_it_gives_no_gradient() -> None:
    logits, batch = drawn()
    known = torch.tensor([True, True, False, False, True, False])
    for normalizer in ("none", "paper", "exact"):
        slopes = []
        for shift in (0.0, 0.5):  # another answer where it is not known changes nothing
            answers = torch.where(known[:, None], batch.teacher.p, batch.teacher.p + shift)  # type: ignore[union-attr]
            told = replace(batch, teacher=Told(known, answers / answers.sum(1, keepdim=True)))  # type: ignore[arg-type]
            leaf = logits.clone().requires_grad_()
            whole(probabilistic(lam=0.4, temperature=2.0, normalizer=normalizer), leaf, told).sum().backward()  # type: ignore[arg-type]
            slopes.append(leaf.grad)
        leaf = logits.clone().requires_grad_()
        whole(hard_labels(), leaf, batch).sum().backward()
        assert torch.equal(slopes[0], slopes[1])  # type: ignore[arg-type]
        torch.testing.assert_close(slopes[0][~known], leaf.grad[~known], rtol=1e-12, atol=0)  # type: ignore[index]
        assert not torch.allclose(slopes[0][known], leaf.grad[known])  # type: ignore[index]


def test_reduction_and_scale_multiply_the_teachers_terms_only() -> None:
    logits, batch = drawn()
    dials: dict[str, Any] = {"lam": 0.4, "temperature": 3.0, "normalizer": "paper"}
    plain = probabilistic(**dials)(Outputs(logits), batch)
    code = probabilistic(**dials, reduction="paper_code")(Outputs(logits), batch)
    hot = probabilistic(**dials, t2_scale=True)(Outputs(logits), batch)
    twice = probabilistic(**dials, normalizer_weight=2.0)(Outputs(logits), batch)
    for name, factors in {"hard": (1, 1, 1), "soft": (1 / 4, 9, 1), "normalizer": (1 / 4, 9, 2)}.items():
        for found, factor in zip((code, hot, twice), factors, strict=True):
            torch.testing.assert_close(found[name], factor * plain[name], rtol=1e-12, atol=0)
    none = probabilistic(**dials, normalizer_weight=0.0)
    assert list(none(Outputs(logits), batch)) == ["hard", "soft"]
    assert none.targets is not None


@pytest.mark.parametrize("normalizer", ["none", "paper", "exact"])
def test_the_order_of_classes_does_not_matter(normalizer: Any) -> None:
    logits, batch = drawn()
    order = torch.tensor([2, 0, 3, 1])
    told = Told(batch.teacher.known, batch.teacher.p[:, order])  # type: ignore[union-attr]
    moved = replace(batch, labels=order.argsort()[batch.labels], teacher=told)
    objective = probabilistic(lam=0.4, temperature=2.0, normalizer=normalizer)
    torch.testing.assert_close(whole(objective, logits[:, order], moved), whole(objective, logits, batch))


@pytest.mark.parametrize("outputs", [1, 2, 10])
@pytest.mark.parametrize("normalizer", ["none", "paper", "exact"])
def test_logits_of_a_hundred_keep_float32_finite(normalizer: Any, outputs: int) -> None:
    classes = max(outputs, 2)
    batch = examples(np.full((3, classes), 1 / classes))
    logits = torch.full((3, outputs), -100.0)
    logits[0, 0] = 100.0
    logits[1] = 100.0
    logits.requires_grad_()
    found = whole(probabilistic(lam=0.5, normalizer=normalizer), logits, batch)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_printed_term_where_a_probability_rounds_to_one(dtype: torch.dtype) -> None:
    """By hand, t = z[1] - z[0] = -200: -log q is e^t and -t, so the term is -(t + t + log(-t)), its slope -2 - 1/t."""
    logits = torch.tensor([[100.0, -100.0]], dtype=dtype, requires_grad=True)
    found = losses.printed_normalizer(logits)
    found.sum().backward()
    assert found.item() == pytest.approx(400 - math.log(200), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([1.995, -1.995], rel=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "lam": ({"name": "probabilistic", "lam": 1.5}, r'lam of "probabilistic" must lie in \[0, 1\]; found 1.5'),
    "lam, generalised": ({"name": "generalised", "lam": -0.1}, r'lam of "generalised" .* found -0.1'),
    "temperature": ({"name": "probabilistic", "temperature": 0}, "temperature .* > 0; found 0"),
    "weight": ({"name": "probabilistic", "normalizer_weight": -1}, "normalizer_weight .* found -1"),
    "normalizer": ({"name": "probabilistic", "normalizer": "exat"}, "normalizer .*found 'exat'"),
    "alpha": ({"name": "generalised", "alpha": 0.5}, 'no key "alpha"'),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_settings_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        build(spec)


def test_bad_words_are_refused_in_python_too() -> None:
    with pytest.raises(ObjectiveError, match=r'normalizer of "probabilistic": .* Did you mean "exact"'):
        probabilistic(normalizer="exat")  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match="Known: batch, paper_code"):
        probabilistic(reduction="mean")  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match="Known: 1, T"):
        generalised(student_temperature="2")  # type: ignore[arg-type]


def test_more_classes_than_the_exact_normalizer_takes_are_refused() -> None:
    logits = torch.zeros(2, 129)
    with pytest.raises(ObjectiveError, match=r'found 129, wanted at most 128. Take normalizer = "none"'):
        losses.simplex_normalizer(logits)
    assert losses.simplex_normalizer(logits[:, :128]).isfinite().all()


# ---------------------------------------------------------------- densities


def density(q: Any, s: Array) -> Array:
    """What the exact normaliser makes of prod q^s, at points s (..., K)."""
    q = np.asarray(q)
    logits = torch.tensor(np.log(q))[None]
    return np.exp(s @ np.log(q) - losses.simplex_normalizer(logits).item())  # type: ignore[no-any-return]


def over_the_simplex(function: Callable[[Array], Array], classes: int) -> float:
    """Gauss-Legendre quadrature in ds_1 ... ds_{K-1}, for K = 2 and 3."""
    x, w = np.polynomial.legendre.leggauss(40)
    x, w = (x + 1) / 2, w / 2
    if classes == 2:
        return float((w * function(np.stack([x, 1 - x], -1))).sum())
    u, v = np.meshgrid(x, x, indexing="ij")
    points = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)], -1)
    return float((w[:, None] * w * (1 - u) * function(points)).sum())


@pytest.mark.parametrize("q", [(0.3, 0.7), (0.5, 0.5), (0.001, 0.999), (0.2, 0.3, 0.5), (1 / 3, 1 / 3, 1 / 3)])
def test_exact_integrates_to_one(q: tuple[float, ...]) -> None:
    assert over_the_simplex(lambda s: density(q, s), len(q)) == pytest.approx(1, rel=1e-9)


def test_exact_for_two_classes_is_the_continuous_bernoulli() -> None:
    q = torch.tensor([0.02, 0.3, 0.5, 0.77, 0.999], dtype=torch.float64)
    s = torch.tensor([0.1, 0.6, 0.9, 0.25, 0.5], dtype=torch.float64)
    wanted = torch.distributions.ContinuousBernoulli(probs=q).log_prob(s)
    logits = torch.stack([1 - q, q], 1).log()
    found = s * q.log() + (1 - s) * (1 - q).log() - losses.simplex_normalizer(logits)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_exact_is_a_density_whose_mean_is_its_slope() -> None:
    """d log Z / d a = E[s]: at its minimum the teacher's answer is the MEAN of the student's density."""
    q = np.array([0.2, 0.3, 0.5])
    logits = torch.tensor(np.log(q))[None].requires_grad_()
    losses.simplex_normalizer(logits).sum().backward()
    mean = [over_the_simplex(lambda s, k=k: density(q, s) * s[..., k], 3) for k in range(3)]
    assert logits.grad is not None
    # log_softmax takes the mean over q out of the slope: the sum of a is not free
    np.testing.assert_allclose(logits.grad[0].numpy(), np.array(mean) - q, atol=1e-9)


def test_sums_that_the_textbook_loses() -> None:
    """Ties, near ties and many classes; 1/(K-1)! where all are equal, by hand."""
    for classes in (2, 10, 100):
        equal = losses.simplex_normalizer(torch.zeros(1, classes, dtype=torch.float64))
        assert equal.item() == pytest.approx(-math.lgamma(classes) - math.log(classes), rel=1e-12)
    z = np.array([[0.0, 1e-9, 1e-9, 2.0], [-300.0, 300.0, 299.0, 0.0]])
    found = losses.simplex_normalizer(torch.tensor(z)).numpy()
    np.testing.assert_allclose(found, oracle_simplex(z, 1.0), rtol=1e-12)


def printed(q: tuple[float, ...]) -> float:
    """C as the theorem prints it, from our term and the constant that the term leaves out."""
    classes = len(q)
    constant = classes / 2 * math.log(classes) - classes * (classes - 1) / 2 * math.log(2)
    logits = torch.tensor(q, dtype=torch.float64).log()[None]
    return math.exp(constant - losses.printed_normalizer(logits).item())


def integrals(q: tuple[float, ...]) -> dict[str, float]:
    """Of prod q^s over four domains, by quadrature where that is possible."""
    simplex = over_the_simplex(lambda s: np.exp(s @ np.log(q)), len(q))
    box = math.prod(integrate.quad(lambda x, g=g: g**x, 0, 1)[0] for g in q)
    orthant = math.prod(integrate.quad(lambda x, g=g: g**x, 0, math.inf)[0] for g in q)
    return {"simplex": simplex, "surface": simplex * math.sqrt(len(q)), "box": box, "orthant": orthant}


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table below a line of the docs."""
    lines = PAGE.split(heading)[1].split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"[\d.]+", text)))


def test_the_printed_constant_normalises_nothing() -> None:
    """The docs' table: the constant times the integral, which should be 1 and is not, on no domain, for no q alike."""
    rows = rows_of("The constant times the integral")
    assert len(rows) == 3
    for cells in rows:
        q = numbers(cells[0])
        found = [printed(q) * value for value in integrals(q).values()]
        assert [f"{value:.4f}" for value in found] == cells[1:]
        assert max(found) < 0.22


def _optimum(s: tuple[float, ...], normalizer: str) -> Array:
    """Where the teacher's term alone is smallest, from its first-order conditions."""
    if normalizer == "none":
        return np.array(s)
    if normalizer == "paper":  # s/q + 1/q + 1/(q log q) is the same for all classes, and the q sum to 1

        def conditions(z: Array) -> Array:
            q = special.softmax(np.append(z, 0.0))
            slope = s / q + 1 / q + 1 / (q * np.log(q))
            return slope[:-1] - slope[-1]

        return special.softmax(np.append(optimize.root(conditions, np.zeros(len(s) - 1), tol=1e-13).x, 0.0))
    if len(set(s[1:])) == 1:  # classes that are alike, d below the first: 1 - s[0] is about a Gamma's mean (K - 1)/d
        d = (len(s) - 1) / (1 - s[0])
        return special.softmax(np.array([0.0] + [-d] * (len(s) - 1)))

    def off(z: Array) -> Array:
        q = special.softmax(np.append(z, 0.0))
        return np.array([over_the_simplex(lambda p, k=k: density(q, p) * p[..., k], 3) - s[k] for k in range(2)])

    return special.softmax(np.append(optimize.root(off, np.array([5.0, 2.0]), tol=1e-11).x, 0.0))


@pytest.mark.parametrize("column", [1, 2, 3], ids=["none", "paper", "exact"])
def test_the_table_of_optima(column: int) -> None:
    """The docs' numbers are the optima; there the objective's slope is zero, and it is larger beside them."""
    normalizer: Any = ("none", "paper", "exact")[column - 1]
    for cells in rows_of("the student at the minimum"):
        s = numbers(cells[0])
        s = s if len(s) == 3 else (s[0],) + (s[1],) * 9
        best = _optimum(s, normalizer)
        said = re.findall(r"[\d.]+", cells[column])
        assert [f"{value:.{len(text) - 2}f}" for value, text in zip(best, said, strict=False)] == said
        leaf = torch.tensor(np.log(best))[None].requires_grad_()
        objective = probabilistic(lam=1.0, normalizer=normalizer)
        value = whole(objective, leaf, examples([s]), *(["soft"] + ["normalizer"] * (column > 1)))
        value.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.abs().max() < 1e-6
        for step in torch.eye(len(s)) * 0.1:
            assert whole(objective, leaf.detach() + step, examples([s])) > value


# ---------------------------------------------------------------- generalised distillation


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, splits=("train", "validation"))


@pytest.mark.parametrize("network", ["mlp:8", "small_cnn:4-8"])
@pytest.mark.parametrize("alpha", [0.1, 0.37, 1.0])
def test_generalised_is_hinton_bit_for_bit(digits: Any, network: str, alpha: float) -> None:
    """x* = x and S = T: the same weights through the same batches, with some answers unknown."""
    teacher = from_array(
        np.random.default_rng(0).normal(size=(len(digits.train), 10)).astype("float32"),
        kind="logits",
        rows=len(digits.train),
    ).with_known(torch.arange(len(digits.train)) % 3 != 0)
    settings: dict[str, Any] = {"teacher": teacher, "seed": 1, "batch_size": 64, "steps": 9, "select": "last"}
    one = ps.fit(network, digits, hinton(temperature=3.0, alpha=alpha), **settings)
    other = ps.fit(
        network,
        digits,
        generalised(lam=1 - alpha, temperature=3.0, student_temperature="T", t2_scale=True),
        **settings,
    )
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.history == other.history


def test_a_student_at_its_own_temperature() -> None:
    """S = 1 as published: the student's probabilities are not softened; its best logits are the teacher's over T."""
    logits, batch = drawn()
    found = generalised(lam=1.0, temperature=5.0)
    terms = found(Outputs(batch.teacher.p.log() / 5.0), batch)["soft"]  # type: ignore[union-attr]
    assert terms.abs().max() < 1e-12
    scaled = generalised(lam=1.0, temperature=5.0, t2_scale=True)
    torch.testing.assert_close(whole(scaled, logits, batch), 25 * whole(found, logits, batch), rtol=1e-12, atol=0)
