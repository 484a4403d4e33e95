"""Objectives over hidden features: one table, universal tests for every row; live teachers that answer features."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import potstill as ps
from potstill import objectives
from potstill.engine import Engine
from potstill.errors import Interrupted, NetworkError, ObjectiveError, PlanError, TeacherError
from potstill.objectives import Objective
from potstill.outputs import Live
from potstill.study.plan import Plan
from potstill.study.study import Study
from potstill.teachers import Ensemble, Function, Torch
from potstill.training import task
from potstill.training.order import epoch_rows
from potstill.types import Batch, Outputs

Array = NDArray[np.float64]
ROWS = 6
STUDENT, TEACHER = (3, 4, 4), (5, 4, 4)


@dataclass(frozen=True)
class Answers:
    """A live teacher's features; where it is not known they are not finite."""

    known: Tensor
    told: Mapping[str, Tensor]

    def features(self) -> Mapping[str, Tensor]:
        return self.told


def drawn(student: tuple[int, ...], teacher: tuple[int, ...], *, some: bool = False) -> tuple[Tensor, Batch]:
    rng = np.random.default_rng([*student, *teacher])
    known = torch.tensor(np.arange(ROWS) % 3 != 0) if some else torch.ones(ROWS, dtype=torch.bool)
    theirs = torch.tensor(rng.normal(size=(ROWS, *teacher)))
    theirs[~known] = math.nan
    labels = torch.zeros(ROWS, dtype=torch.int64)
    answers: Any = Answers(known, {"theirs": theirs})
    batch = Batch(torch.zeros(ROWS, 1), labels, labels == 0, torch.arange(ROWS), answers)
    return torch.tensor(rng.normal(size=(ROWS, *student))), batch


def huber(a: float, b: float) -> float:
    return (a - b) ** 2 / 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def maps(rows: Array) -> Array:
    return np.array([(row**2).sum(0).ravel() / np.linalg.norm((row**2).sum(0)) for row in rows])


def oracle_attention(s: Array, t: Array) -> Array:
    return ((maps(s) - maps(t)) ** 2).mean(1)


def oracle_similarities(s: Array, t: Array) -> Array:
    def rows_of(feature: Array) -> Array:
        whole = np.array([[np.vdot(a, b) for b in feature] for a in feature])
        return np.array([row / np.linalg.norm(row) for row in whole])

    return ((rows_of(s) - rows_of(t)) ** 2).sum(1) / len(s)


def oracle_distances(s: Array, t: Array) -> Array:
    def relative(feature: Array) -> Array:
        whole = np.array([[np.linalg.norm(a - b) for b in feature] for a in feature])
        return whole / (whole.sum() / (len(whole) * (len(whole) - 1)))

    a, b, n = relative(s), relative(t), len(s)
    return np.array([sum(huber(a[i, j], b[i, j]) for j in range(n)) / (n - 1) for i in range(n)])


def oracle_angles(s: Array, t: Array) -> Array:
    def cosine(f: Array, i: int, j: int, k: int) -> float:
        a, b = (f[i] - f[j]).ravel(), (f[k] - f[j]).ravel()
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    n, found = len(s), []
    for j in range(n):
        pairs = [(i, k) for i in range(n) for k in range(n) if len({i, j, k}) == 3]
        found.append(np.mean([huber(cosine(s, i, j, k), cosine(t, i, j, k)) for i, k in pairs]))
    return np.array(found)


def oracle_hints(s: Array, t: Array, regressor: nn.Module) -> Array:
    """A convolution, or a product, in loops."""
    weight, bias = (p.detach().numpy() for p in regressor.parameters())
    if weight.ndim == 2:
        return ((s @ weight.T + bias - t) ** 2).mean(1)
    height, width = weight.shape[2:]
    led = np.empty_like(t)
    for y in range(t.shape[2]):
        for x in range(t.shape[3]):
            led[:, :, y, x] = np.einsum("ochw,nchw->no", weight, s[:, :, y : y + height, x : x + width]) + bias
    return ((led - t) ** 2).reshape(len(s), -1).mean(1)


@dataclass(frozen=True)
class Row:
    """An objective over features, and what is claimed of it.

    `fixed_point`: at equal features (hints: those that the regressor makes equal) all terms are 0 with zero gradient.
    `shift_invariant`, `scale_invariant`: a number added to one example's student feature, or multiplied with all.
    """

    spec: dict[str, Any]
    oracle: Mapping[str, Callable[..., Array]]
    student: tuple[int, ...] = STUDENT
    teacher: tuple[int, ...] = TEACHER
    fixed_point: bool = True
    shift_invariant: bool = False
    scale_invariant: bool = True
    couples: bool = True

    def prepared(self, dtype: torch.dtype = torch.float64) -> Objective:
        torch.manual_seed(0)
        found = prepared(self.spec, {"ours": self.student}, {"theirs": self.teacher})
        if found.owned is not None:
            found.owned.to(dtype)
        return found

    def wanted(self, s: Array, t: Array) -> dict[str, Array]:
        regressor = self.prepared().owned
        return {name: of(s, t) if regressor is None else of(s, t, regressor) for name, of in self.oracle.items()}


def prepared(table: Any, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Objective:
    """An objective with what it owns, made for features of such shapes."""
    zeros = [{name: torch.zeros(2, *shape) for name, shape in shapes.items()} for shapes in (student, teacher)]
    told: Any = Answers(torch.ones(2, dtype=torch.bool), zeros[1])
    labels = torch.zeros(2, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 1), labels, labels == 0, labels, told)
    return objectives.build(table).prepared(Outputs(torch.zeros(2, 2), zeros[0]), batch)


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "student": "ours", "teacher": "theirs", **more}


HINTS: dict[str, Any] = {"scale_invariant": False, "couples": False}
TABLE = {
    "hints": Row(spec("hints", weight=3.0), {"hints": lambda s, t, r: 3 * oracle_hints(s, t, r)}, **HINTS),
    "hints, fewer pixels": Row(
        spec("hints", weight=3.0),
        {"hints": lambda s, t, r: 3 * oracle_hints(s, t, r)},
        student=(3, 5, 4),
        teacher=(2, 3, 4),
        **HINTS,
    ),
    "hints, rows": Row(
        spec("hints", weight=3.0),
        {"hints": lambda s, t, r: 3 * oracle_hints(s, t, r)},
        student=(7,),
        teacher=(5,),
        **HINTS,
    ),
    "attention_transfer": Row(
        spec("attention_transfer", weight=3.0), {"attention": lambda s, t: 3 * oracle_attention(s, t)}, couples=False
    ),
    "similarity_preserving": Row(
        spec("similarity_preserving", weight=3.0),
        {"similarities": lambda s, t: 3 * oracle_similarities(s, t)},
        teacher=(9,),
    ),
    "relational": Row(
        spec("relational", distance=2.0, angle=3.0),
        {"distances": lambda s, t: 2 * oracle_distances(s, t), "angles": lambda s, t: 3 * oracle_angles(s, t)},
        teacher=(9,),
    ),
    "relational, distances": Row(
        spec("relational", distance=2.0, angle=0.0), {"distances": lambda s, t: 2 * oracle_distances(s, t)}
    ),
    "relational, angles": Row(
        spec("relational", distance=0.0, angle=3.0), {"angles": lambda s, t: 3 * oracle_angles(s, t)}, student=(7,)
    ),
}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


def terms_of(objective: Objective, student: Tensor, batch: Batch) -> dict[str, Tensor]:
    return objective(Outputs(torch.zeros(len(student), 2), {"ours": student}), batch)


def slope(objective: Objective, student: Tensor, batch: Batch) -> Tensor:
    leaf = student.detach().clone().requires_grad_()
    return torch.autograd.grad(torch.stack(list(terms_of(objective, leaf, batch).values())).sum(), leaf)[0]


def test_every_objective_of_features_has_a_row() -> None:
    told = {name for name in objectives.REGISTRY if "student" in objectives.REGISTRY.parameters(name)}
    assert {row.spec["name"] for row in TABLE.values()} == told
    assert all(objectives.build(spec(name)).hidden == (("ours",), ("theirs",)) for name in told)


@every_row
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
def test_terms_equal_the_oracle(row: Row, some: bool) -> None:
    student, batch = drawn(row.student, row.teacher, some=some)
    known = batch.teacher.known.numpy()  # type: ignore[union-attr]
    theirs = batch.teacher.features()["theirs"].numpy()  # type: ignore[union-attr]
    found = terms_of(row.prepared(), student, batch)
    assert list(found) == list(row.oracle)
    for name, wanted in row.wanted(student.numpy()[known], theirs[known]).items():
        assert found[name].shape == (ROWS,)
        np.testing.assert_allclose(found[name].detach().numpy()[known], wanted, rtol=1e-9, atol=1e-12)
        assert (found[name].detach().numpy()[~known] == 0).all()


@every_row
def test_gradients_equal_finite_differences(row: Row) -> None:
    student, batch = drawn(row.student, row.teacher, some=True)
    objective = row.prepared()
    assert torch.autograd.gradcheck(
        lambda s: torch.stack(list(terms_of(objective, s, batch).values())), student.requires_grad_()
    )


@every_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_terms_are_float32_under_half_precision(row: Row, dtype: torch.dtype) -> None:
    student, batch = drawn(row.student, row.teacher)
    student, theirs = student.to(dtype), batch.teacher.features()["theirs"].to(dtype)  # type: ignore[union-attr]
    told: Any = Answers(batch.teacher.known, {"theirs": theirs})  # type: ignore[union-attr]
    found = terms_of(row.prepared(torch.float32), student, replace(batch, teacher=told))
    for name, wanted in row.wanted(student.double().numpy(), theirs.double().numpy()).items():
        assert found[name].dtype == torch.float32
        np.testing.assert_allclose(found[name].detach().numpy(), wanted, rtol=1e-4, atol=1e-6)


@every_row
def test_gradients_are_finite_whatever_the_features(row: Row) -> None:
    """Large, all zero, all alike, and the teacher's not finite where it is not known."""
    student, batch = drawn(row.student, row.teacher, some=True)
    objective = row.prepared(torch.float32)
    for found in (1e4 * student, 0 * student, torch.ones_like(student)):
        for term in terms_of(objective, found.float(), batch).values():
            assert term.isfinite().all()
        slopes = slope(objective, found.float(), batch)
        assert slopes.isfinite().all()
        assert (slopes[~batch.teacher.known] == 0).all()  # type: ignore[union-attr]


@every_row
def test_where_the_teacher_is_known_it_teaches(row: Row) -> None:
    student, batch = drawn(row.student, row.teacher, some=True)
    slopes = slope(row.prepared(), student, batch).flatten(1)
    assert torch.equal(slopes.ne(0).any(1), batch.teacher.known)  # type: ignore[union-attr]


@every_row
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_examples(row: Row, rows: int) -> None:
    student, batch = drawn(row.student, row.teacher)
    few: Any = Answers(batch.teacher.known & (torch.arange(ROWS) < rows), batch.teacher.features())  # type: ignore[union-attr]
    objective = row.prepared()
    for name, term in terms_of(objective, student, replace(batch, teacher=few)).items():
        assert term.isfinite().all()
        enough = 1 + row.couples + (name in ("distances", "angles"))  # two have one distance, the mean
        assert int(term.ne(0).sum()) == (rows if rows >= enough else 0)
    assert slope(objective, student, replace(batch, teacher=few)).isfinite().all()


@every_row
def test_a_permuted_batch_permutes_the_terms(row: Row) -> None:
    student, batch = drawn(row.student, row.teacher, some=True)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    teacher: Any = batch.teacher
    moved: Any = Answers(teacher.known[order], {"theirs": teacher.features()["theirs"][order]})
    objective = row.prepared()
    there = terms_of(objective, student[order], replace(batch, teacher=moved))
    for name, term in terms_of(objective, student, batch).items():
        torch.testing.assert_close(there[name], term[order], rtol=1e-10, atol=1e-12)


@every_row
def test_what_couples_examples_says_so(row: Row) -> None:
    """Another example in a batch changes the terms of the others where they are coupled, and else no bit."""
    student, batch = drawn(row.student, row.teacher)
    objective = row.prepared()
    other = student.clone()
    other[0] += torch.linspace(0, 1, other[0].numel(), dtype=torch.float64).view_as(other[0])
    before, after = terms_of(objective, student, batch), terms_of(objective, other, batch)
    assert objective.couples == row.couples
    for name in before:
        assert torch.equal(before[name][1:], after[name][1:]) != row.couples


@every_row
def test_fixed_point_is_as_declared(row: Row) -> None:
    _, batch = drawn(row.student, row.teacher)
    theirs = batch.teacher.features()["theirs"]  # type: ignore[union-attr]
    same = replace(row, student=row.teacher).prepared()
    if same.owned is not None:
        weight, bias = same.owned.parameters()
        with torch.no_grad():
            weight.copy_(torch.eye(len(weight)).view(weight.shape))
            bias.zero_()
    assert (slope(same, theirs, batch).abs().max() < 1e-9) == row.fixed_point
    for term in terms_of(same, theirs, batch).values():
        assert (term.abs().max() < 1e-12) == row.fixed_point
    for term in terms_of(same, theirs + torch.linspace(0, 1, theirs.numel()).view_as(theirs), batch).values():
        assert (term > 1e-6).all()


@every_row
def test_invariances_are_as_declared(row: Row) -> None:
    student, batch = drawn(row.student, row.teacher)
    objective = row.prepared()
    shift = torch.linspace(-2, 2, ROWS, dtype=torch.float64).view(-1, *[1] * len(row.student))
    for changed, declared in ((student + shift, row.shift_invariant), (2 * student, row.scale_invariant)):
        before, after = terms_of(objective, student, batch), terms_of(objective, changed, batch)
        assert all(torch.allclose(before[name], after[name], rtol=1e-9) for name in before) == declared


@every_row
def test_a_teacher_with_features_is_needed(row: Row) -> None:
    student, batch = drawn(row.student, row.teacher)
    objective = row.prepared()
    assert (objective.needs_labels, objective.needs_teacher, objective.learns) == (False, True, "anything")
    with pytest.raises(ObjectiveError, match=f'"{row.spec["name"]}" learns from a teacher'):
        terms_of(objective, student, replace(batch, teacher=None))
    bare: Any = Answers(batch.teacher.known, {})  # type: ignore[union-attr]
    with pytest.raises(ObjectiveError, match='reads the teacher\'s feature "theirs"; found none'):
        terms_of(objective, student, replace(batch, teacher=bare))
    with pytest.raises(ObjectiveError, match='reads the student\'s feature "ours"; found none'):
        objective(Outputs(torch.zeros(ROWS, 2)), batch)


@every_row
def test_spec_name_and_settings_survive(row: Row) -> None:
    objective = objectives.build(row.spec)
    assert objective.spec == row.spec
    assert objectives.build(objective.spec) == objective


def test_a_moved_turned_and_scaled_teacher_is_the_same_to_relations() -> None:
    _, batch = drawn((7,), (7,))
    theirs = batch.teacher.features()["theirs"]  # type: ignore[union-attr]
    turn = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    found = terms_of(TABLE["relational"].prepared(), 3 * theirs @ turn + 5, batch)
    assert max(term.max() for term in found.values()) < 1e-12


MISFITS = {
    "fewer pixels than the teacher": (
        spec("hints"),
        (3, 4, 4),
        (5, 5, 5),
        r"\(3, 4, 4\).*\(5, 5, 5\).*no fewer pixels",
    ),
    "a picture and numbers": (spec("hints"), (3, 4, 4), (5,), r'"ours" of shape \(3, 4, 4\).*"theirs" of shape \(5,\)'),
    "maps of numbers": (spec("attention_transfer"), (3,), (5,), "same height and width"),
    "maps of other sizes": (spec("attention_transfer"), (3, 4, 4), (3, 2, 2), r"\(3, 4, 4\) with the teacher's"),
}


@pytest.mark.parametrize(("table", "student", "teacher", "message"), MISFITS.values(), ids=MISFITS)
def test_shapes_that_do_not_fit(table: Any, student: Any, teacher: Any, message: str) -> None:
    features, batch = drawn(student, teacher)
    with pytest.raises(ObjectiveError, match=f'"{table["name"]}" cannot compare .*{message}'):
        terms_of(prepared(table, {"ours": student}, {"theirs": teacher}), features.float(), batch)


REFUSED = {
    "no teacher": ({"name": "hints", "student": "conv1"}, 'needs the key "teacher"'),
    "weight": (spec("hints", weight=0), "weight .* > 0; found 0"),
    "nothing": (spec("relational", distance=0, angle=0), "found distance = 0 and angle = 0"),
    "angle": (spec("relational", angle=-1), "angle .* >= 0; found -1"),
    "typo": (spec("hints", wieght=1), 'Did you mean "weight"'),
}


@pytest.mark.parametrize(("table", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_settings_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        objectives.build(table)


def test_a_sum_has_what_its_parts_own_and_read() -> None:
    """Names, features, needs, and every part's own regressor."""
    parts = ["hard_labels", spec("hints"), spec("hints", student="second"), spec("relational")]
    both = objectives.build(parts)
    assert both.hidden == (("ours", "second"), ("theirs",))
    assert (both.couples, both.needs_labels, both.needs_teacher) == (True, True, True)
    assert objectives.build(both.spec) == both
    whole = prepared(parts, {"ours": (7,), "second": (3,)}, {"theirs": (5,)})
    assert whole.owned is not None
    shapes = {name: tuple(p.shape) for name, p in whole.owned.named_parameters()}
    assert shapes == {"hints1.weight": (5, 7), "hints1.bias": (5,), "hints2.weight": (5, 3), "hints2.bias": (5,)}
    student, batch = drawn((7,), (5,))
    outputs = Outputs(torch.zeros(ROWS, 2), {"ours": student.float(), "second": student[:, :3].float()})
    assert list(whole(outputs, batch)) == ["hard", "hints1.hints", "hints2.hints", "distances", "angles"]
    assert objectives.build(["hard_labels", spec("relational")]).owns is None


# ---------------------------------------------------------------- live teachers


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, splits=("train", "validation"))


@pytest.fixture(scope="module")
def teacher(digits: Any) -> Any:
    return ps.fit("small_cnn:8-12", digits, seed=3, steps=30)


def test_a_model_answers_features_as_it_answers(digits: Any, teacher: Any) -> None:
    inputs = digits.train.fetch(torch.arange(5), 0).inputs
    found = teacher.features(inputs, ["conv1", "dense"])
    assert torch.equal(found.logits, teacher(inputs))
    assert torch.equal(found.features["conv1"], teacher.network.conv1(inputs))
    assert not found.features["dense"].requires_grad


def test_a_live_teacher_answers_the_features_it_is_asked_for(digits: Any, teacher: Any) -> None:
    index = torch.tensor([3, 1, 4])
    live = Live(teacher, digits.train).with_known(torch.arange(len(digits.train)) > 1)
    asked = live.with_features(["conv2"])
    told = asked.lookup(index)
    assert dict(live.lookup(index).features()) == {}
    inputs = digits.train.fetch(index, 0).inputs
    assert torch.equal(told.features()["conv2"], teacher.features(inputs, ["conv2"]).features["conv2"])
    assert torch.equal(told.probs(2.0), live.lookup(index).probs(2.0))
    assert told.known.tolist() == [True, False, True]
    assert asked.fingerprint() == live.fingerprint()
    assert torch.equal(asked.with_known(live.known).lookup(index).features()["conv2"], told.features()["conv2"])


@pytest.mark.parametrize("kind", ["ensemble", "function"])
def test_teachers_without_features_are_refused(digits: Any, teacher: Any, kind: str) -> None:
    other: Any = Ensemble([teacher, teacher]) if kind == "ensemble" else Function(teacher, kind="logits", name="it")
    with pytest.raises(TeacherError, match=r"no hidden features .* wanted are conv2"):
        Live(other, digits.train).with_features(["conv2"])
    with pytest.raises(ObjectiveError, match="reads a hidden feature of the teacher"):
        ps.fit("small_cnn:4-8", digits, objectives.hints(student="conv2", teacher="conv2"), teacher=other, steps=1)


class Own(nn.Module):
    """A user's own module, which overwrites what its parts answer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(first=nn.Linear(4, 3), relu=nn.ReLU(inplace=True)))
        self.twice = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.pair = nn.LSTM(3, 3, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        here: Tensor = self.twice(self.twice(self.body(inputs)))
        return here + self.pair(here[:, None])[0][:, 0]


def test_a_module_of_torch_answers_its_submodules() -> None:
    own = Own()
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = Torch(own).features(inputs, ["body.first", "body"])
    assert torch.equal(found.logits, own(inputs))
    assert torch.equal(found.features["body.first"], own.body.first(inputs))  # not what the ReLU made of it
    assert torch.equal(found.features["body"], own.body(inputs))
    assert not any(module._forward_hooks for module in own.modules())
    for name, message in {
        "boddy": 'Did you mean "body"',
        "twice": "computed 2 times for one answer",
        "unused": "computed 0 times",
        "pair": "of type tuple",
    }.items():
        with pytest.raises(TeacherError, match=message):
            Torch(own).features(inputs, [name])
        assert not any(module._forward_hooks for module in own.modules())


def test_features_that_are_overwritten_are_refused() -> None:
    network = nn.Sequential(OrderedDict(a=nn.Linear(4, 3), relu=nn.ReLU(inplace=True), head=nn.Linear(3, 2)))
    assert ps.networks.forward(network, torch.randn(2, 4), ["relu"]).features["relu"].shape == (2, 3)
    with pytest.raises(NetworkError, match='"a" answers is overwritten'):
        ps.networks.forward(network, torch.randn(2, 4), ["a"])


# ---------------------------------------------------------------- training

HINT = {"name": "hints", "student": "conv2", "teacher": "conv1", "weight": 2.0}
BOTH: list[Any] = [{"name": "hinton", "temperature": 2.0, "alpha": 0.5}, HINT]
METHODS: dict[str, Any] = {
    "hints": BOTH,
    "attention": ["hard_labels", {"name": "attention_transfer", "student": "conv2", "teacher": "conv1"}],
    "similarities": ["hard_labels", {"name": "similarity_preserving", "student": "dense", "teacher": "dense"}],
    "relational": ["hard_labels", {"name": "relational", "student": "dense", "teacher": "dense"}],
}


def test_the_loop_equals_plain_torch(digits: Any, teacher: Any) -> None:
    """Student and regressor trained by one Adam, written out by hand; the model holds the student alone."""
    settings: dict[str, Any] = {"batch_size": 50, "steps": 12, "select": "last"}
    found = ps.fit(
        {"name": "small_cnn", "channels": (4, 8), "dropout": 0.0}, digits, BOTH, teacher=teacher, seed=2, **settings
    )
    network = ps.networks.seeded({"name": "small_cnn", "channels": (4, 8), "dropout": 0.0}, (1, 8, 8), 10, seed=2)
    live = Live(teacher, digits.train).with_features(["conv1"])
    key = {"seed": 2, "member": 0, "generation": 0}
    goal: Any = task.prepared(objectives.build(BOTH), network, digits.train, live, key=key)
    regressor = goal.owned["hints"]
    assert tuple(regressor.weight.shape) == (8, 8, 1, 1)
    network.train()
    start = regressor.weight.detach().clone()
    optimizer = torch.optim.Adam([*network.parameters(), *regressor.parameters()], lr=1e-3, fused=True)
    with Engine().settings():
        for index in epoch_rows(torch.arange(len(digits.train)), len(digits.train), 2, 0).split(50)[:12]:
            batch = digits.train.fetch(index, 0)
            v = network.relu1(network.conv1(batch.inputs))
            v = network.conv2(v)
            z = network.head(network.relu(network.dense(network.flatten(network.pool(network.relu2(v))))))
            with torch.no_grad():
                u, t = teacher.network.conv1(batch.inputs), teacher(batch.inputs)
            loss = nn.functional.cross_entropy(z, batch.labels) / 2
            p = torch.softmax(t / 2, 1)
            loss = loss + 2 * nn.functional.kl_div(torch.log_softmax(z / 2, 1), p, reduction="batchmean")
            loss = loss + 2.0 * nn.functional.mse_loss(regressor(v), u)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for a, b in zip(found.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert not torch.equal(start, regressor.weight)
    assert set(found.network.state_dict()) == set(network.state_dict())
    assert found.history[0].keys() >= {"train_hard", "train_soft", "train_hints"}


@pytest.mark.parametrize("method", METHODS)
def test_two_epochs_and_two_more_are_four(digits: Any, teacher: Any, tmp_path: Path, method: str) -> None:
    arguments: dict[str, Any] = {"teacher": teacher, "seed": 1, "batch_size": 64, "epochs": 4}
    network = "small_cnn:4-8"
    calls = {"n": 0}

    def stop() -> bool:
        calls["n"] += 1
        return calls["n"] >= 2

    straight = ps.fit(network, digits, METHODS[method], folder=tmp_path / "straight", **arguments)
    with pytest.raises(Interrupted):
        ps.fit(network, digits, METHODS[method], folder=tmp_path / "broken", should_stop=stop, **arguments)
    continued = ps.fit(network, digits, METHODS[method], folder=tmp_path / "broken", **arguments)
    assert straight.history == continued.history
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert set(ps.load(tmp_path / "broken").network.state_dict()) == set(straight.network.state_dict())


def test_a_regressor_starts_from_the_seed_and_not_from_torchs_generator(digits: Any, teacher: Any) -> None:
    live = Live(teacher, digits.train).with_features(["conv1"])
    network = ps.networks.build("small_cnn:4-8", (1, 8, 8), 10).train()
    found = []
    for state, key in ((1, (5, 0, 0)), (2, (5, 0, 0)), (1, (6, 0, 0)), (1, (5, 1, 0)), (1, (5, 0, 1))):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        seed = dict(zip(("seed", "member", "generation"), key, strict=True))
        goal: Any = task.prepared(objectives.build(HINT), network, digits.train, live, key=seed)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(goal.owned.weight)
    assert torch.equal(found[0], found[1])
    assert not any(torch.equal(found[0], other) for other in found[2:])


def test_what_couples_examples_is_watched_in_batches_of_the_training(digits: Any, teacher: Any) -> None:
    """By hand: batches of 30 of the 100 validation rows; one batch of 100 would be another number."""
    objective = objectives.similarity_preserving(student="dense", teacher="dense", weight=1.0)
    model = ps.fit("small_cnn:4-8", digits, objective, teacher=teacher, batch_size=30, epochs=1, select="last")

    def by_hand(size: int) -> float:
        total = 0.0
        for index in torch.arange(100).split(size):
            inputs = digits.validation.fetch(index, 0).inputs
            s, t = (m.features(inputs, ["dense"]).features["dense"].double() for m in (model, teacher))
            s, t = (nn.functional.normalize(x @ x.T, dim=1) for x in (s, t))
            total += float((s - t).square().sum()) / len(index)
        return total / 100

    assert model.history[-1]["validation_objective"] == pytest.approx(by_hand(30), rel=1e-3)
    assert abs(by_hand(30) - by_hand(100)) > 0.01 * by_hand(30)


def test_features_that_are_not_there(digits: Any, teacher: Any, tmp_path: Path) -> None:
    stored = ps.record(teacher, digits.train, tmp_path / "outputs")
    with pytest.raises(ObjectiveError, match=r'reads hidden features of the teacher \(conv1\).*answers = "live"'):
        ps.fit("small_cnn:4-8", digits, BOTH, teacher=stored, steps=1)
    for word, message in {"student": "of the student. Unknown", "teacher": "of the teacher. Unknown"}.items():
        with pytest.raises(ObjectiveError, match=f'{message} feature "conv3".* Did you mean'):
            ps.fit("small_cnn:4-8", digits, {**HINT, word: "conv3"}, teacher=teacher, steps=1)
    with pytest.raises(
        ObjectiveError, match=r'"conv2" of shape \(8, 8, 8\) with the teacher\'s "dense" of shape \(128,\)'
    ):
        ps.fit("small_cnn:4-8", digits, {**HINT, "teacher": "dense"}, teacher=teacher, steps=1)


# ---------------------------------------------------------------- plans

PLAN: dict[str, Any] = {
    "title": "Features",
    "seeds": 1,
    "data": {"source": "digits", "test": 600, "validation": 100},
    "training": {"steps": 20, "batch_size": 32},
    "models": {
        "teacher": {"network": "small_cnn:8-12"},
        "alone": {"network": "small_cnn:4-8"},
        "student": {"network": "small_cnn:4-8", "teacher": "teacher", "objective": BOTH, "answers": "live"},
    },
    "evaluation": {"latency": {"batch": []}},
}


def changed(**student: Any) -> dict[str, Any]:
    models = {**PLAN["models"], "student": {**PLAN["models"]["student"], **student}}
    return {**PLAN, "models": {name: {k: v for k, v in m.items() if v is not None} for name, m in models.items()}}


def test_a_study_with_features(tmp_path: Path) -> None:
    study = Study.open(PLAN, folder=tmp_path / "run")
    results = study.run(workers=1)
    assert results.verdicts
    folder = tmp_path / "run" / "models" / "student" / "seed-0"
    assert "train_hints" in (folder / "history.jsonl").read_text()
    alone = ps.load(tmp_path / "run" / "models" / "alone" / "seed-0").network.state_dict()
    assert set(ps.load(folder).network.state_dict()) == set(alone)


BAD = {
    "stored": (changed(answers="stored"), "models.student.answers", 'wanted is answers = "live"'),
    "by default": (changed(answers=None), "models.student.objective[1]", 'wanted is answers = "live"'),
    "one alone": (changed(answers=None, objective=HINT), "models.student.objective", 'wanted is answers = "live"'),
    "no key": (changed(objective={"name": "hints", "student": "conv1"}), "models.student.objective", '"teacher"'),
    "weight": (changed(objective={**HINT, "weight": -1}), "models.student.objective.weight", "found -1"),
}


@pytest.mark.parametrize(("plan", "key", "message"), BAD.values(), ids=BAD)
def test_plans_that_are_refused(plan: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        Plan.from_dict(plan)
    assert caught.value.key == key


def test_an_ensemble_has_no_features_of_its_own() -> None:
    plan = changed()
    plan["models"]["teacher"] = {"network": "small_cnn:8-12", "members": 2}
    with pytest.raises(PlanError, match="features of one model"):
        Plan.from_dict(plan)
