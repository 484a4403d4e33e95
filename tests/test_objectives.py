"""One table of objectives, universal tests for every row, and each objective's own ends and oracles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from normalizer_samples import oracle_printed, oracle_simplex
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from potstill import losses, objectives
from potstill.engine import Engine
from potstill.errors import ObjectiveError
from potstill.objectives import Objective
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
ROWS = 12


@dataclass(frozen=True)
class Answers:
    """A teacher of `logits` (members, B, K) or (members, B, 1); rows that are not known hold `unknown`."""

    member_logits: Tensor
    known: Tensor
    unknown: float = 0.0

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        z = self.member_logits
        z = torch.cat([torch.zeros_like(z), z], 2) if z.shape[2] == 1 else z
        return self._hide(torch.log_softmax(z / temperature, 2).logsumexp(0) - math.log(len(z)))

    def probs(self, temperature: float = 1.0) -> Tensor:
        z = self.member_logits
        z = torch.cat([torch.zeros_like(z), z], 2) if z.shape[2] == 1 else z
        return self._hide(torch.softmax(z / temperature, 2).mean(0))

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        z = self.member_logits
        z = torch.cat([torch.zeros_like(z), z], 2) if z.shape[2] == 1 else z
        return torch.where(self.known[:, None, None], torch.softmax(z / temperature, 2).transpose(0, 1), self.unknown)

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        probs = self.probs(temperature)
        return self._hide(torch.special.xlogy(probs, probs).sum(1))

    def logits(self) -> Tensor:
        return self._hide(self.member_logits.mean(0))

    def values(self) -> Tensor:
        return self.logits()

    def features(self) -> Mapping[str, Tensor]:
        return {}

    def _hide(self, values: Tensor) -> Tensor:
        known = self.known if values.dim() == 1 else self.known[:, None]
        return torch.where(known, values, self.unknown)


def everything(dtype: torch.dtype, *, outputs: int = 5, members: int = 3, some: bool = False) -> tuple[Tensor, Batch]:
    """A student's logits and a batch; with `some` every third row is unlabelled and every fourth not known."""
    rng = np.random.default_rng([outputs, members])
    rows = np.arange(ROWS)
    teacher = torch.tensor(rng.normal(scale=2, size=(members, ROWS, outputs)), dtype=dtype)
    labelled = torch.tensor(rows % 3 != 0) if some else torch.ones(ROWS, dtype=torch.bool)
    known = torch.tensor(rows % 4 != 0) if some else torch.ones(ROWS, dtype=torch.bool)
    labels = torch.tensor(rng.integers(max(outputs, 2), size=ROWS))
    batch = Batch(
        inputs=torch.zeros(ROWS, 1),
        labels=torch.where(labelled, labels, 0),
        labelled=labelled,
        index=torch.arange(ROWS),
        teacher=Answers(teacher, known, unknown=math.nan if some else 0.0),
    )
    return torch.tensor(rng.normal(scale=2, size=(ROWS, outputs)), dtype=dtype), batch


def two(z: Array) -> Array:
    return np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z


def teacher_probs(batch: Batch, temperature: float) -> Array:
    members = batch.teacher.member_logits.double().numpy()  # type: ignore[union-attr]
    return np.mean([special.softmax(two(z) / temperature, axis=1) for z in members], axis=0)


def cross_entropy(z: Array, target: Array) -> Array:
    return -special.xlogy(target, special.softmax(two(z), axis=1)).sum(1)


def oracle_hard(z: Array, batch: Batch) -> Array:
    labels = np.eye(two(z).shape[1])[batch.labels.numpy()]
    smoothed = labels * (1 - batch.label_smoothing) + batch.label_smoothing / labels.shape[1]
    return cross_entropy(z, smoothed) * batch.labelled.numpy()


def oracle_soft(z: Array, batch: Batch, temperature: float) -> Array:
    q = special.softmax(two(z) / temperature, axis=1)
    divergence = special.rel_entr(teacher_probs(batch, temperature), q).sum(1)
    return temperature**2 * divergence * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_pseudo(z: Array, batch: Batch) -> Array:
    probs = teacher_probs(batch, 1.0)
    found = np.eye(probs.shape[1])[[next(k for k, p in enumerate(row) if p == row.max()) for row in probs]]
    smoothed = found * (1 - batch.label_smoothing) + batch.label_smoothing / found.shape[1]
    return cross_entropy(z, smoothed) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_twice(z: Array, batch: Batch, temperature: float) -> Array:
    members = batch.teacher.member_logits.double().numpy()  # type: ignore[union-attr]
    again = [special.softmax(special.softmax(two(member), axis=1) / temperature, axis=1) for member in members]
    q = special.softmax(special.softmax(two(z), axis=1) / temperature, axis=1)
    return temperature**2 * special.rel_entr(np.mean(again, axis=0), q).sum(1) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_mse(z: Array, batch: Batch) -> Array:
    mean = batch.teacher.member_logits.double().numpy().mean(0)  # type: ignore[union-attr]
    return ((z - mean) ** 2).mean(1) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_likelihood(z: Array, batch: Batch, lam: float) -> Array:
    """The labels' part of the probabilistic objective: weight 1 - lam where the teacher is known, else 1."""
    return oracle_hard(z, batch) * np.where(batch.teacher.known.numpy(), 1 - lam, 1.0)  # type: ignore[union-attr]


def oracle_normalizer(z: Array, batch: Batch, temperature: float, of: Callable[[Array, float], Array]) -> Array:
    return of(two(z), temperature) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_generalised(z: Array, batch: Batch, temperature: float) -> Array:
    """Softened answers against the student's probabilities as they are."""
    q = special.softmax(two(z), axis=1)
    return special.rel_entr(teacher_probs(batch, temperature), q).sum(1) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_dkd(z: Array, batch: Batch, temperature: float, part: str) -> Array:
    """Zhao et al. 2022, section 3.1, with probabilities as they are."""
    p, q = teacher_probs(batch, temperature), special.softmax(two(z) / temperature, axis=1)
    found = []
    for i in range(len(z)):
        k = int(batch.labels[i]) if batch.labelled[i] else int(p[i].argmax())
        if part == "target":
            pairs = np.array([[p[i, k], 1 - p[i, k]], [q[i, k], 1 - q[i, k]]])
        else:
            pairs = np.stack([np.delete(each[i], k) / np.delete(each[i], k).sum() for each in (p, q)])
        found.append(special.rel_entr(pairs[0], pairs[1]).sum())
    return temperature**2 * np.array(found) * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_inter(z: Array, batch: Batch, temperature: float) -> Array:
    """1 - Pearson's correlation over classes, by numpy."""
    p, q = teacher_probs(batch, temperature), special.softmax(two(z) / temperature, axis=1)
    found = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    return temperature**2 * found * batch.teacher.known.numpy()  # type: ignore[union-attr]


def oracle_intra(z: Array, batch: Batch, temperature: float) -> Array:
    """Each known example's part, half the squared difference of standard scores, in the mean over classes."""
    known = batch.teacher.known.numpy()  # type: ignore[union-attr]
    p, q = (each[known] for each in (teacher_probs(batch, temperature), special.softmax(two(z) / temperature, axis=1)))
    parts = np.zeros(len(z))
    parts[known] = ((stats.zscore(p) - stats.zscore(q)) ** 2).mean(1) / 2
    whole = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    assert parts[known].mean() == pytest.approx(whole, rel=1e-9)
    return temperature**2 * parts


@dataclass(frozen=True)
class Row:
    """An objective and what is claimed of it.

    `fixed_point`: where the student's answers equal a single teacher's, the term `imitation` is 0 with zero gradient;
    it is more than `nearby` where they are about one apart. `least`: the smallest number of classes; fewer are refused.
    """

    spec: dict[str, Any]
    oracle: Mapping[str, Any]
    imitation: str
    fixed_point: bool = True
    nearby: float = 1e-3
    shift_invariant: bool = True
    needs_labels: bool = True
    needs_teacher: bool = True
    least: int = 2

    def suits(self, outputs: int) -> None:
        if max(outputs, 2) < self.least:
            pytest.skip(f"needs {self.least} classes")


PROBABILISTIC = {
    "name": "probabilistic",
    "lam": 0.4,
    "temperature": 2.5,
    "normalizer": "none",
    "normalizer_weight": 1.0,
    "reduction": "batch",
    "t2_scale": False,
}
GENERALISED = {
    "name": "generalised",
    "lam": 0.4,
    "temperature": 2.5,
    "student_temperature": "1",
    "t2_scale": False,
}
TABLE = {
    "hard_labels": Row({"name": "hard_labels"}, {"hard": oracle_hard}, "hard", fixed_point=False, needs_teacher=False),
    "soft_labels": Row(
        {"name": "soft_labels"}, {"soft": lambda z, b: oracle_soft(z, b, 1.0)}, "soft", needs_labels=False
    ),
    "pseudo_labels": Row(
        {"name": "pseudo_labels"}, {"hard": oracle_pseudo}, "hard", fixed_point=False, needs_labels=False
    ),
    "hinton": Row(
        {"name": "hinton", "temperature": 2.5, "alpha": 0.3},
        {"hard": lambda z, b: 0.3 * oracle_hard(z, b), "soft": lambda z, b: 0.7 * oracle_soft(z, b, 2.5)},
        "soft",
    ),
    "hinton, T 1": Row(
        {"name": "hinton", "temperature": 1.0, "alpha": 0.3},
        {"hard": lambda z, b: 0.3 * oracle_hard(z, b), "soft": lambda z, b: 0.7 * oracle_soft(z, b, 1.0)},
        "soft",
    ),
    "hinton, alpha 0": Row(
        {"name": "hinton", "temperature": 4.0, "alpha": 0.0},
        {"soft": lambda z, b: oracle_soft(z, b, 4.0)},
        "soft",
        needs_labels=False,
    ),
    "hinton_twice_softened": Row(
        {"name": "hinton_twice_softened", "temperature": 2.5, "alpha": 0.3},
        {"hard": lambda z, b: 0.3 * oracle_hard(z, b), "soft": lambda z, b: 0.7 * oracle_twice(z, b, 2.5)},
        "soft",
        nearby=1e-8,
    ),
    "logit_mse": Row(
        {"name": "logit_mse", "alpha": 0.0}, {"soft": oracle_mse}, "soft", shift_invariant=False, needs_labels=False
    ),
    "logit_mse, alpha 0.2": Row(
        {"name": "logit_mse", "alpha": 0.2},
        {"hard": lambda z, b: 0.2 * oracle_hard(z, b), "soft": lambda z, b: 0.8 * oracle_mse(z, b)},
        "soft",
        shift_invariant=False,
    ),
    "probabilistic": Row(
        PROBABILISTIC,
        {
            "hard": lambda z, b: oracle_likelihood(z, b, 0.4),
            "soft": lambda z, b: 0.4 / 2.5**2 * oracle_soft(z, b, 2.5),
        },
        "soft",
        nearby=1e-4,
    ),
    "probabilistic, paper": Row(
        PROBABILISTIC | {"normalizer": "paper", "normalizer_weight": 0.5, "t2_scale": True},
        {
            "hard": lambda z, b: oracle_likelihood(z, b, 0.4),
            "soft": lambda z, b: 0.4 * oracle_soft(z, b, 2.5),
            "normalizer": lambda z, b: 0.2 * 2.5**2 * oracle_normalizer(z, b, 2.5, oracle_printed),
        },
        "soft",
    ),
    "probabilistic, exact": Row(
        PROBABILISTIC | {"normalizer": "exact", "reduction": "paper_code"},
        {
            "hard": lambda z, b: oracle_likelihood(z, b, 0.4),
            "soft": lambda z, b: 0.4 / 2.5**2 / two(z).shape[1] * oracle_soft(z, b, 2.5),
            "normalizer": lambda z, b: 0.4 / two(z).shape[1] * oracle_normalizer(z, b, 2.5, oracle_simplex),
        },
        "soft",
        nearby=1e-6,
    ),
    "generalised": Row(
        GENERALISED,
        {"hard": lambda z, b: 0.6 * oracle_hard(z, b), "soft": lambda z, b: 0.4 * oracle_generalised(z, b, 2.5)},
        "soft",
        fixed_point=False,  # it is where the student's logits are the teacher's divided by T
    ),
    "generalised, S = T": Row(
        GENERALISED | {"student_temperature": "T", "t2_scale": True},
        {"hard": lambda z, b: 0.6 * oracle_hard(z, b), "soft": lambda z, b: 0.4 * oracle_soft(z, b, 2.5)},
        "soft",
    ),
    "dkd": Row(
        {"name": "dkd", "temperature": 2.5, "hard": 0.5, "target": 2.0, "others": 3.0},
        {
            "hard": lambda z, b: 0.5 * oracle_hard(z, b),
            "target": lambda z, b: 2 * oracle_dkd(z, b, 2.5, "target"),
            "others": lambda z, b: 3 * oracle_dkd(z, b, 2.5, "others"),
        },
        "target",
        nearby=1e-10,
    ),
    "dkd, others": Row(
        {"name": "dkd", "temperature": 2.5, "hard": 0.0, "target": 0.0, "others": 3.0},
        {"others": lambda z, b: 3 * oracle_dkd(z, b, 2.5, "others")},
        "others",
        nearby=1e-4,
        least=3,
    ),
    "dist": Row(
        {"name": "dist", "temperature": 2.5, "hard": 0.5, "inter": 2.0, "intra": 3.0},
        {
            "hard": lambda z, b: 0.5 * oracle_hard(z, b),
            "inter": lambda z, b: 2 * oracle_inter(z, b, 2.5),
            "intra": lambda z, b: 3 * oracle_intra(z, b, 2.5),
        },
        "inter",
        nearby=1e-6,
        least=3,
    ),
    "dist, intra": Row(
        {"name": "dist", "temperature": 1.0, "hard": 0.0, "inter": 0.0, "intra": 3.0},
        {"intra": lambda z, b: 3 * oracle_intra(z, b, 1.0)},
        "intra",
        nearby=1e-8,
        needs_labels=False,
    ),
}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
every_task = pytest.mark.parametrize("outputs", [1, 5, 20], ids=["binary", "multiclass", "many classes"])


def gradient(objective: Objective, logits: Tensor, batch: Batch, *names: str) -> Tensor:
    """Gradient of the sum of the named terms (of all without names)."""
    leaf = logits.detach().clone().requires_grad_()
    terms = objective(Outputs(leaf), batch)
    total = torch.stack([terms[name] for name in names or terms]).sum()
    return torch.autograd.grad(total, leaf)[0]


def test_every_objective_has_a_row() -> None:
    told = {name for name in objectives.REGISTRY if "student" not in objectives.REGISTRY.parameters(name)}
    of_classes = {name for name in told if objectives.build(name).learns == "classes"}
    assert {row.spec["name"] for row in TABLE.values()} == of_classes  # those of features: tests/test_features.py


@every_row
@every_task
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_terms_equal_the_oracle(row: Row, outputs: int, some: bool, smoothing: float) -> None:
    row.suits(outputs)
    logits, batch = everything(torch.float64, outputs=outputs, some=some)
    batch = replace(batch, label_smoothing=smoothing)
    terms = objectives.build(row.spec)(Outputs(logits), batch)
    assert list(terms) == list(row.oracle)
    for name, oracle in row.oracle.items():
        assert terms[name].shape == (ROWS,)
        np.testing.assert_allclose(terms[name].numpy(), oracle(logits.numpy(), batch), rtol=1e-11, atol=1e-12)


@every_row
@every_task
def test_gradients_equal_finite_differences(row: Row, outputs: int) -> None:
    row.suits(outputs)
    logits, batch = everything(torch.float64, outputs=outputs, some=True)
    objective = objectives.build(row.spec)
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(list(objective(Outputs(z), batch).values())), logits.requires_grad_()
    )


@every_row
@every_task
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_terms_are_float32_under_half_precision(row: Row, outputs: int, dtype: torch.dtype) -> None:
    row.suits(outputs)
    logits, batch = everything(torch.float32, outputs=outputs, some=True)
    logits = logits.to(dtype)
    for name, term in objectives.build(row.spec)(Outputs(logits), batch).items():
        assert term.dtype == torch.float32
        assert term.shape == (ROWS,)
        wanted = row.oracle[name](logits.double().numpy(), batch)
        np.testing.assert_allclose(term.numpy(), wanted, rtol=1e-4, atol=2e-5)


@every_row
@every_task
@pytest.mark.parametrize("unknown", [math.nan, math.inf, 0.0])
def test_gradients_are_finite_at_large_logits_and_unknown_answers(row: Row, outputs: int, unknown: float) -> None:
    row.suits(outputs)
    _, batch = everything(torch.float32, outputs=outputs, some=True)
    members = torch.where(torch.arange(outputs) % 2 == 0, 100.0, -100.0).expand(3, ROWS, outputs)
    batch = replace(batch, teacher=Answers(members, batch.teacher.known, unknown=unknown))  # type: ignore[union-attr]
    objective = objectives.build(row.spec)
    for logits in (members[0], -members[0], torch.zeros(ROWS, outputs)):
        for term in objective(Outputs(logits), batch).values():
            assert term.isfinite().all()
        assert gradient(objective, logits, batch).isfinite().all()


@every_row
@every_task
def test_rows_without_label_or_answer_teach_nothing(row: Row, outputs: int) -> None:
    row.suits(outputs)
    logits, batch = everything(torch.float32, outputs=outputs, some=True)
    objective = objectives.build(row.spec)
    for name, term in objective(Outputs(logits), batch).items():
        from_teacher = name != "hard" or row.spec["name"] == "pseudo_labels"
        counts = batch.teacher.known if from_teacher else batch.labelled  # type: ignore[union-attr]
        slopes = gradient(objective, logits, batch, name)
        assert torch.equal(term[~counts], torch.zeros(int((~counts).sum())))
        assert torch.equal(slopes[~counts], torch.zeros_like(slopes[~counts]))
        if name == "others" and outputs == 1:
            continue  # of two classes there is one other
        assert (term[counts] != 0).all()
        assert slopes[counts].ne(0).any(1).all()


@every_row
@every_task
def test_a_permuted_batch_permutes_the_terms(row: Row, outputs: int) -> None:
    row.suits(outputs)
    logits, batch = everything(torch.float64, outputs=outputs, some=True)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    teacher = batch.teacher
    assert isinstance(teacher, Answers)
    moved = Batch(
        batch.inputs[order],
        batch.labels[order],
        batch.labelled[order],
        batch.index[order],
        Answers(teacher.member_logits[:, order], teacher.known[order], teacher.unknown),
    )
    objective = objectives.build(row.spec)
    there = objective(Outputs(logits[order]), moved)
    for name, term in objective(Outputs(logits), batch).items():
        assert torch.allclose(there[name], term[order], rtol=1e-12, atol=1e-14)


@every_row
@every_task
def test_fixed_point_is_as_declared(row: Row, outputs: int) -> None:
    row.suits(outputs)
    _, batch = everything(torch.float64, outputs=outputs, members=1)
    logits = batch.teacher.logits()  # type: ignore[union-attr]
    objective = objectives.build(row.spec)
    value = objective(Outputs(logits), batch)[row.imitation].abs().max()
    slope = gradient(objective, logits, batch, row.imitation).abs().max()
    assert (bool(value < 1e-12), bool(slope < 1e-12)) == (row.fixed_point, row.fixed_point)
    nearby = objective(Outputs(logits + torch.linspace(0.5, 1, outputs, dtype=torch.float64)), batch)[row.imitation]
    assert (nearby > row.nearby if row.fixed_point else nearby > 0).all()


@every_row
def test_shift_invariance_is_as_declared(row: Row) -> None:
    logits, batch = everything(torch.float64)
    objective = objectives.build(row.spec)
    shift = torch.linspace(-5, 5, ROWS, dtype=torch.float64)[:, None] + 0.1
    before, after = (objective(Outputs(z), batch)[row.imitation] for z in (logits, logits + shift))
    assert torch.allclose(before, after, rtol=1e-9) == row.shift_invariant


@every_row
def test_one_logit_equals_two_classes(row: Row) -> None:
    """A binary student z and teacher v against the two-class student [0, z] and teacher [0, v]."""
    row.suits(1)
    logits, batch = everything(torch.float64, outputs=1, some=True)
    teacher = batch.teacher
    assert isinstance(teacher, Answers)
    wide = torch.cat([torch.zeros_like(teacher.member_logits), teacher.member_logits], 2)
    other = replace(batch, teacher=replace(teacher, member_logits=wide))
    objective = objectives.build(row.spec)
    one = objective(Outputs(logits), batch)
    both = objective(Outputs(torch.cat([torch.zeros_like(logits), logits], 1)), other)
    for name, term in one.items():
        factor = 2.0 if row.spec["name"] == "logit_mse" and name == "soft" else 1.0  # a mean over two outputs, one 0
        assert torch.allclose(term, factor * both[name], rtol=1e-12, atol=1e-15)


def test_a_batch_is_moved_with_what_its_teacher_answers() -> None:
    _, batch = everything(torch.float32)
    moved = Engine("meta").move(replace(batch, label_smoothing=0.1))
    assert moved.teacher is not None
    told = moved.teacher
    found = [moved.inputs, moved.labels, moved.labelled, told.known, told.probs(2.0), told.log_probs(2.0)]
    assert {
        tensor.device.type for tensor in [*found, told.neg_entropy(2.0), told.logits(), told.member_probs(2.0)]
    } == {"meta"}
    assert moved.label_smoothing == 0.1


@every_row
def test_needs_are_as_declared_and_as_behaved(row: Row) -> None:
    logits, batch = everything(torch.float64, some=True)
    objective = objectives.build(row.spec)
    assert (objective.needs_labels, objective.needs_teacher) == (row.needs_labels, row.needs_teacher)
    if row.needs_teacher:
        with pytest.raises(ObjectiveError, match=f'"{row.spec["name"]}" learns from a teacher'):
            objective(Outputs(logits), replace(batch, teacher=None))
    else:
        assert objective(Outputs(logits), replace(batch, teacher=None))
    other = replace(batch, labels=(batch.labels + 1) % 5)
    pairs = zip(objective(Outputs(logits), batch).values(), objective(Outputs(logits), other).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) == (not row.needs_labels)


@every_row
def test_spec_name_and_settings_survive(row: Row) -> None:
    objective = objectives.build(row.spec)
    assert {"name": objective.name, **objective.settings} == objective.spec == row.spec
    assert objectives.build(objective.spec) == objective
    assert objectives.build(objective) is objective


SAME = {
    "hinton at alpha 1 is hard_labels": (objectives.hinton(alpha=1.0), objectives.hard_labels()),
    "hinton_twice_softened at alpha 1 is hard_labels": (
        objectives.hinton_twice_softened(alpha=1.0),
        objectives.hard_labels(),
    ),
    "logit_mse at alpha 1 is hard_labels": (objectives.logit_mse(alpha=1.0), objectives.hard_labels()),
    "hinton at alpha 0, T 1 is soft_labels": (objectives.hinton(temperature=1.0, alpha=0.0), objectives.soft_labels()),
}


@pytest.mark.parametrize(("dial", "simple"), SAME.values(), ids=SAME)
def test_ends_of_alpha(dial: Objective, simple: Objective) -> None:
    logits, batch = everything(torch.float32, some=True)
    found, wanted = dial(Outputs(logits), batch), simple(Outputs(logits), batch)
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (dial.needs_labels, dial.needs_teacher) == (simple.needs_labels, simple.needs_teacher)


def test_hinton_at_high_temperature_matches_centred_logits() -> None:
    logits, batch = everything(torch.float64, members=1)
    objective = objectives.hinton(temperature=1e4, alpha=0.0)
    difference = logits - batch.teacher.logits()  # type: ignore[union-attr]
    wanted = (difference - difference.mean(1, keepdim=True)).square().mean(1) / 2
    assert torch.allclose(objective(Outputs(logits), batch)["soft"], wanted, rtol=1e-3)


def test_hinton_at_low_temperature_sees_the_largest_logit_only() -> None:
    logits, batch = everything(torch.float64, members=1)
    found = objectives.hinton(temperature=1e-3, alpha=0.0)(Outputs(logits), batch)["soft"] / 1e-3
    first = batch.teacher.logits().argmax(1)  # type: ignore[union-attr]
    wanted = logits.max(1).values - logits[torch.arange(ROWS), first]
    assert torch.allclose(found, wanted, atol=1e-2)


def test_twice_softened_at_high_temperature_is_regression_on_probabilities() -> None:
    logits, batch = everything(torch.float64)
    found = objectives.hinton_twice_softened(temperature=1e4, alpha=0.0)(Outputs(logits), batch)["soft"]
    wanted = (torch.softmax(logits, 1) - batch.teacher.probs(1.0)).square().mean(1) / 2  # type: ignore[union-attr]
    assert torch.allclose(found, wanted, rtol=1e-3)


def test_twice_softened_at_low_temperature_sees_the_largest_probability_only() -> None:
    logits, batch = everything(torch.float64, members=1)
    found = objectives.hinton_twice_softened(temperature=1e-3, alpha=0.0)(Outputs(logits), batch)["soft"] / 1e-3
    q, first = torch.softmax(logits, 1), batch.teacher.logits().argmax(1)  # type: ignore[union-attr]
    assert torch.allclose(found, q.max(1).values - q[torch.arange(ROWS), first], atol=1e-2)


def test_twice_softened_hand_values() -> None:
    """Probabilities (1, 0) of the teacher, (1/2, 1/2) of the student, T = 1: KL of (0.731, 0.269) from a half each."""
    teacher = Answers(torch.tensor([[[90.0, 0.0]]], dtype=torch.float64), torch.ones(1, dtype=torch.bool))
    batch = Batch(torch.zeros(1), torch.tensor([0]), teacher.known, torch.tensor([0]), teacher)
    logits = torch.zeros(1, 2, dtype=torch.float64)
    found = objectives.hinton_twice_softened(temperature=1.0, alpha=0.0)(Outputs(logits), batch)["soft"]
    first = math.e / (1 + math.e)
    wanted = first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first))
    assert found.item() == pytest.approx(wanted, rel=1e-12)
    ordinary = objectives.hinton(temperature=1.0, alpha=0.0)(Outputs(logits), batch)["soft"]
    assert ordinary.item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_soft_gradient_keeps_its_size_over_temperatures() -> None:
    """Hinton et al. 2015, section 2: T^2 keeps the gradients of the soft term of one size when T changes."""
    logits, batch = everything(torch.float64, members=1)
    sizes = [gradient(objectives.hinton(temperature=t, alpha=0), logits, batch).norm() for t in (20.0, 40.0, 80.0)]
    assert max(sizes) / min(sizes) < 1.1


def test_two_disagreeing_members_are_softened_before_they_are_averaged() -> None:
    """Hand values: members (6, 0) and (0, 2) at T = 2; softened after averaging (3, 1) would give 0.731."""
    members = torch.tensor([[[6.0, 0.0]], [[0.0, 2.0]]])
    batch = Batch(
        *(torch.zeros(1), torch.tensor([0]), torch.ones(1, dtype=torch.bool), torch.tensor([0])),
        teacher=Answers(members, torch.ones(1, dtype=torch.bool)),
    )
    first = (0.9525741268224334 + 0.2689414213699951) / 2
    logits = torch.tensor([[2 * math.log(first), 2 * math.log(1 - first)]])
    objective = objectives.hinton(temperature=2.0, alpha=0.0)
    assert objective(Outputs(logits), batch)["soft"].abs().item() < 1e-6
    assert gradient(objective, logits, batch).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("logits", "label"),
    [([0.0], 0), ([1e-3], 1), ([-1e-3], 0), ([2.0, 2.0, 1.0], 0), ([1.0, 2.0, 2.0], 1), ([0.0] * 20, 0)],
)
def test_ties_of_pseudo_labels_go_to_the_lower_class(logits: list[float], label: int) -> None:
    teacher = Answers(torch.tensor([[logits]]), torch.ones(1, dtype=torch.bool))
    none = torch.zeros(1, dtype=torch.bool)
    batch = Batch(torch.zeros(1), torch.tensor([0]), none, torch.tensor([0]), teacher)
    student = torch.linspace(0.5, 1.5, len(logits))[None]
    found = objectives.pseudo_labels()(Outputs(student), batch)["hard"]
    z = two(student.double().numpy())
    assert found.item() == pytest.approx(-special.log_softmax(z, axis=1)[0, label], rel=1e-5)


def test_pseudo_labels_of_an_ensemble_follow_its_mean_probabilities() -> None:
    """Two weak votes for class 0 against one certain vote for class 1: the mean of probabilities decides, not votes."""
    members = torch.tensor([[[0.2, 0.0]], [[0.2, 0.0]], [[-9.0, 0.0]]])
    teacher = Answers(members, torch.ones(1, dtype=torch.bool))
    batch = Batch(torch.zeros(1), torch.tensor([0]), teacher.known, torch.tensor([0]), teacher)
    found = objectives.pseudo_labels()(Outputs(torch.tensor([[0.0, 3.0]])), batch)["hard"]
    assert found.item() == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)


def test_several_objectives_are_summed_and_clashing_names_prefixed() -> None:
    logits, batch = everything(torch.float64, some=True)
    hot, cold = {"name": "hinton", "temperature": 8.0, "alpha": 0.5}, {"name": "hinton", "temperature": 1.0, "alpha": 0}
    parts = [hot, "hard_labels", objectives.logit_mse()]
    found = objectives.build(parts)(Outputs(logits), batch)
    assert list(found) == ["hinton.hard", "hinton.soft", "hard_labels.hard", "logit_mse.soft"]
    each = [term for part in parts for term in objectives.build(part)(Outputs(logits), batch).values()]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), each, strict=True))
    twice = objectives.build([hot, cold])
    assert list(twice(Outputs(logits), batch)) == ["hard", "hinton1.soft", "hinton2.soft"]
    assert objectives.build(twice.spec) == twice
    assert (twice.name, twice.needs_labels, twice.needs_teacher) == ("hinton+hinton", True, True)
    plain = objectives.build(["hard_labels", {"name": "hinton", "alpha": 1.0}])
    assert (plain.needs_labels, plain.needs_teacher) == (True, False)
    assert objectives.build(["soft_labels"]) == objectives.soft_labels()


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no temperature": ({"name": "hinton", "temperature": 0}, ObjectiveError, "temperature .* > 0; found 0"),
    "infinite": ({"name": "hinton", "temperature": math.inf}, ObjectiveError, "temperature .* found inf"),
    "not a number": ({"name": "hinton", "alpha": math.nan}, ObjectiveError, "alpha .* found nan"),
    "alpha above 1": ({"name": "hinton", "alpha": 1.5}, ObjectiveError, r"alpha .* \[0, 1\]; found 1.5"),
    "alpha below 0": ({"name": "logit_mse", "alpha": -0.1}, ObjectiveError, r"alpha .* found -0.1"),
    "typo": ("hintn", ObjectiveError, 'Did you mean "hinton"'),
    "unknown key": ({"name": "hinton", "temprature": 2}, ObjectiveError, 'Did you mean "temperature"'),
    "no setting": ({"name": "soft_labels", "temperature": 2.0}, ObjectiveError, "no key"),
    "nothing": ([], ObjectiveError, "empty"),
    "no target": ({"name": "dkd", "target": 0, "others": 0}, ObjectiveError, "found target = 0 and others = 0"),
    "no relation": ({"name": "dist", "inter": 0, "intra": 0}, ObjectiveError, "found inter = 0 and intra = 0"),
    "weight below 0": ({"name": "dkd", "others": -1}, ObjectiveError, "others .* >= 0; found -1"),
}


@pytest.mark.parametrize(("spec", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_specifications(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        objectives.build(spec)


def test_a_teacher_of_other_classes_is_refused() -> None:
    logits, batch = everything(torch.float32)
    with pytest.raises(ObjectiveError, match=r"\(12, 3\) and \(12, 5\)"):
        objectives.soft_labels()(Outputs(logits[:, :3]), batch)


def test_the_parts_of_dkd_are_those_of_hinton() -> None:
    """Zhao et al. 2022, equation 6: KL = TCKD + (1 - p) NCKD, p the teacher's probability of the label."""
    logits, batch = everything(torch.float64)
    parts = objectives.dkd(temperature=3.0, target=1.0, others=1.0)(Outputs(logits), batch)
    p = batch.teacher.probs(3.0).gather(1, batch.labels[:, None])[:, 0]  # type: ignore[union-attr]
    wanted = objectives.hinton(temperature=3.0, alpha=0.0)(Outputs(logits), batch)["soft"]
    torch.testing.assert_close(parts["target"] + (1 - p) * parts["others"], wanted, rtol=1e-10, atol=0)


def test_dist_leaves_scale_and_offset_of_probabilities_free() -> None:
    """The teacher's probabilities, half of the way to uniform: another distribution, the same correlations."""
    _, batch = everything(torch.float64, members=1)
    paler = (batch.teacher.probs(1.0) / 2 + 0.1).log()  # type: ignore[union-attr]
    terms = objectives.dist()(Outputs(paler), batch)
    assert max(terms["inter"].max(), terms["intra"].max()) < 1e-12
    assert objectives.hinton(temperature=1.0)(Outputs(paler), batch)["soft"].min() > 1e-3


def test_dist_refuses_correlations_over_two_classes() -> None:
    logits, batch = everything(torch.float64, outputs=1)
    with pytest.raises(ObjectiveError, match="nothing about two classes"):
        objectives.dist()(Outputs(logits), batch)


def test_correlations_of_what_does_not_vary_are_finite() -> None:
    """A student that knows nothing yet, and a batch of one: no correlation, no slope."""
    _, batch = everything(torch.float32)
    objective = objectives.dist(hard=0.0)
    terms = objective(Outputs(torch.zeros(ROWS, 5)), batch)
    assert torch.allclose(terms["inter"], torch.tensor(1.0))  # 2 times 1/2
    assert gradient(objective, torch.zeros(ROWS, 5), batch).abs().max() == 0
    one = Answers(torch.ones(1, 1, 5), torch.ones(1, dtype=torch.bool))
    row = torch.zeros(1, dtype=torch.int64)
    alone = objective(Outputs(torch.rand(1, 5)), Batch(row, row, row == 0, row, one))
    assert alone["intra"].item() == 0


CLOSED = {name: row for name, row in TABLE.items() if objectives.build(row.spec).targets is not None}


def test_which_objectives_have_a_closed_form() -> None:
    assert set(CLOSED) == {
        *("hard_labels", "soft_labels", "pseudo_labels", "hinton", "hinton, T 1", "hinton, alpha 0"),
        *("probabilistic", "generalised", "generalised, S = T"),
    }


@pytest.mark.parametrize("row", CLOSED.values(), ids=CLOSED)
@every_task
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_closed_form_equals_the_oracle_and_autograd(
    row: Row, outputs: int, some: bool, smoothing: float, dtype: torch.dtype
) -> None:
    """Means against the float64 oracle, the gradient against autograd's, on a batch with a row twice."""
    row.suits(outputs)
    objective = objectives.build(row.spec)
    assert objective.targets is not None
    logits, batch = everything(torch.float32, outputs=outputs, some=some)
    logits, batch = logits.to(dtype), replace(batch, label_smoothing=smoothing)
    form = losses.ClosedForm.of(objective.targets(batch, max(outputs, 2)))
    index = torch.tensor([5, 0, 7, 7, 3, 11, 4])
    (means,), columns = form(logits[index].t().unsqueeze(0), index)
    found = columns[0].t()
    wanted = {name: oracle(logits.double().numpy(), batch)[index.numpy()].mean() for name, oracle in row.oracle.items()}
    assert means == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    rows = logits.float().clone().requires_grad_()
    terms = objective(Outputs(rows), batch)
    (autograd,) = torch.autograd.grad(torch.stack([term[index].mean() for term in terms.values()]).sum(), rows)
    summed = torch.zeros_like(rows).index_add(0, index, found.float())
    assert found.shape == (len(index), outputs)
    assert found.dtype == dtype
    half = dtype == torch.bfloat16
    torch.testing.assert_close(summed, autograd, rtol=2e-2 if half else 1e-4, atol=2e-3 if half else 1e-6)
