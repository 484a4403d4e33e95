"""Trainings that are stepped together: the bits that each would have alone, whatever happens to the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import BASE, changed, run
from torch import Tensor, nn

import potstill as ps
from potstill import engine, losses
from potstill.errors import Interrupted, PotstillError, TeacherError, TrainingError
from potstill.networks import stack as stack_module
from potstill.networks.model import Model
from potstill.networks.stack import Stack, exact
from potstill.study.bundles import bundles
from potstill.study.tree import Node
from potstill.training import step, together
from potstill.training.fit import prepare
from potstill.training.run import Run
from potstill.training.task import Task


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, labelled=300, splits=("train", "validation"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with engine.threads(1):
        yield


def train(tasks: Sequence[Task]) -> list[Model | Exception]:
    found: dict[int, Model | Exception] = {}
    together.train(tasks, lambda number, outcome: found.update({number: outcome}))
    return [found[number] for number in range(len(tasks))]


def told(outcome: Model | Exception) -> Any:
    """Everything about a model but its seconds."""
    assert isinstance(outcome, Model), outcome
    info = {key: value for key, value in outcome.info.items() if key != "seconds"}
    return [p.tolist() for p in outcome.network.parameters()], outcome.history, info


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each pass served, as they come."""
    counts: list[int] = []
    plain = Stack.forward

    def spy(self: Stack, inputs: Tensor) -> Tensor:
        counts.append(len(self.networks))
        return plain(self, inputs)

    monkeypatch.setattr(Stack, "forward", spy)
    return counts


def recorded(digits: Any, folder: Path, seed: int) -> Any:
    return ps.record(ps.fit("mlp:32", digits, seed=seed, steps=60), digits.train, folder=folder)


@pytest.fixture(scope="module")
def teachers(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return [recorded(digits, tmp_path_factory.mktemp("teacher"), seed) for seed in (3, 4)]


# The last batch of an epoch has 1097 % 64 = 9 rows: not all its products round alike for several networks at once.
KINDS: dict[str, dict[str, Any]] = {
    "labels": {"batch_size": 64},
    "one layer": {"batch_size": 64, "network": "linear"},
    "odd batches": {"batch_size": 33, "network": "mlp:24-11"},
    "schedule and clipping": {"batch_size": 64, "schedule": "cosine", "clip": 0.5, "label_smoothing": 0.1},
    "sgd": {"batch_size": 64, "optimizer": {"name": "sgd", "momentum": 0.9}},
    "Keras' adam": {"batch_size": 64, "optimizer": {"name": "adam", "variant": "keras", "decay": 0.1}},
    "adamw": {"batch_size": 100, "optimizer": {"name": "adamw", "weight_decay": 0.1}},
    "early stopping": {
        "batch_size": 64,
        "epochs": 12,
        "patience": 1,
        "optimizer": {"name": "adam", "learning_rate": 0.02},
    },
    "augmented": {"batch_size": 64, "augment": ({"name": "shift", "fraction": 0.2},), "views": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_together_is_as_alone(digits: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"network": "mlp:32", "epochs": 3, "seed": 1} | KINDS[kind]
    alone = [ps.fit(data=digits, member=member, **settings) for member in (1, 2, 3)]
    counts = steps_of(monkeypatch)
    found = train([prepare(data=digits, member=member, **settings) for member in (1, 2, 3)])
    assert list(map(told, found)) == list(map(told, alone))
    if kind == "odd batches":  # their products round otherwise for several at once
        assert set(counts) == {1}
        return
    assert counts[0] == 3
    assert len(counts) < sum(model.info["steps"] for model in alone)
    if kind == "early stopping":
        assert len({model.info["steps"] for model in alone}) > 1
        assert {1, 2, 3} >= set(counts) > {3}


def test_students_of_several_teachers_and_temperatures(
    digits: Any, teachers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = [{"name": "hinton", "temperature": t, "alpha": 0.1} for t in (1.0, 4.0, 10.0)]
    rows: list[dict[str, Any]] = [
        {"objective": objective, "teacher": teacher} for objective, teacher in itertools.product(objectives, teachers)
    ]
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 40, "batch_size": 50}
    alone = [ps.fit(**settings, **row) for row in rows]
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(**settings, **row) for row in rows]))) == list(map(told, alone))
    assert counts == [6] * 40


def test_a_binary_task_is_trained_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one output too few numbers tell whether sums round alike."""
    inputs = np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32)
    data = ps.data.open((inputs, (inputs.sum(1) > 0).astype(int)), task="binary", validation=80, test=80)
    settings: dict[str, Any] = {"network": "mlp:16", "data": data, "steps": 30, "batch_size": 32}
    alone = [ps.fit(member=member, **settings) for member in (1, 2)]
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(member=member, **settings) for member in (1, 2)]))) == list(map(told, alone))
    assert counts == [1] * 60


@pytest.mark.parametrize("case", range(12))
def test_whatever_the_shapes(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths, batches and numbers of classes that fill no whole vectors; the same bits, together or not."""
    rng = np.random.default_rng(case)
    features, classes, rows = int(rng.integers(3, 70)), int(rng.integers(2, 12)), int(rng.integers(150, 400))
    labels = np.arange(rows) % classes
    inputs = rng.normal(size=(rows, features)).astype(np.float32) + labels[:, None] / classes
    data = ps.data.open((inputs, labels), validation=50, test=50)
    hidden = "-".join(str(rng.integers(2, 40)) for _ in range(rng.integers(1, 3)))
    settings: dict[str, Any] = {"network": f"mlp:{hidden}", "data": data, "epochs": 4, "patience": 2}
    settings |= {"batch_size": int(rng.integers(1, 100)), "optimizer": ["adam", "adamw", "sgd"][case % 3]}
    members = range(int(rng.integers(2, 7)))
    alone = [ps.fit(member=member, **settings) for member in members]
    assert list(map(told, train([prepare(member=member, **settings) for member in members]))) == list(map(told, alone))


def test_one_output_and_few_rows_are_never_taken_at_once() -> None:
    assert exact(((32, 64), (32,), (10, 32), (10,)), 2, 64, "highest")
    assert not exact(((32, 64), (32,), (10, 32), (10,)), 2, 7, "highest")
    assert not exact(((32, 64), (32,), (1, 32), (1,)), 2, 64, "highest")


def test_students_learn_from_other_rows_than_the_baseline(teachers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are known for few rows, answers for all: the batches differ, and so do the numbers of terms."""
    few = ps.data.open("digits", test=600, validation=100, labelled=100, splits=("train", "validation"))
    base: dict[str, Any] = {"network": "mlp:16", "data": few, "steps": 20, "batch_size": 64}
    rows: list[dict[str, Any]] = [
        {"objective": "hard_labels"},
        {"objective": "soft_labels", "teacher": teachers[0]},
        {"objective": "hard_labels", "member": 1},
        {"objective": {"name": "hinton", "alpha": 0.5}, "teacher": teachers[0]},
        {"objective": "soft_labels", "teacher": teachers[1]},
    ]
    alone = [ps.fit(**base, **row) for row in rows]
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(**base, **row) for row in rows]))) == list(map(told, alone))
    assert sorted(counts) == [1] * 20 + [2] * 40


def test_teachers_that_answer_for_each_view(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = ({"name": "shift", "fraction": 0.2},)
    augmented = digits.train.with_augment(shift)
    models = [ps.fit("mlp:32", digits, seed=seed, steps=60) for seed in (3, 4)]
    answers = [ps.record(m, augmented, folder=tmp_path / str(i), views=(1, 2)) for i, m in enumerate(models)]
    base: dict[str, Any] = {"network": "mlp:16", "data": digits, "epochs": 3, "batch_size": 64}
    base |= {"augment": shift, "views": 2, "objective": "soft_labels"}
    alone = [ps.fit(teacher=answer, **base) for answer in answers]
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(teacher=answer, **base) for answer in answers]))) == list(map(told, alone))
    assert counts == [2] * 54


def test_answers_are_softened_at_the_temperature_that_is_learned_from(digits: Any, tmp_path: Path) -> None:
    """Softening takes as long as some epochs of a small network: once for the rows, whatever is checked before."""
    answers = ps.record(ps.fit("mlp:8", digits, seed=3, steps=5), digits.train, folder=tmp_path / "answers")
    ps.fit("mlp:8", digits, teacher=answers, objective={"name": "hinton", "temperature": 3.0, "alpha": 0.5}, steps=5)
    assert {(view, temperature) for _, view, temperature in answers._tables} == {(0, 3.0)}


def test_optimizers_share_nothing_afterwards(digits: Any) -> None:
    runs = [Run(prepare("mlp:16", digits, member=member)) for member in (1, 2)]
    steps = step.stepper([run.learner for run in runs])
    steps.step(runs[0].batch()[0], 0, 0)
    steps.release()
    tensors = [t for run in runs for state in run.optimizer.state.values() for t in state.values()]
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors) == 2 * 4 * 3


def test_a_group_that_fails_goes_on_one_by_one(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose error it was shows then: the others end as ever."""
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 40, "batch_size": 64}
    alone = [ps.fit(member=member, **settings) for member in range(3)]
    plain = Stack.forward

    def fail(self: Stack, inputs: Tensor) -> Tensor:
        if any(network is tasks[1].network for network in self.networks) and steps["left"] <= 0:
            raise RuntimeError("broken")
        steps["left"] -= 1
        return plain(self, inputs)

    steps = {"left": 10}
    tasks = [prepare(member=member, **settings) for member in range(3)]
    monkeypatch.setattr(Stack, "forward", fail)
    found = train(tasks)
    assert str(found[1]) == "broken"
    assert [told(found[0]), told(found[2])] == [told(alone[0]), told(alone[2])]


def test_what_cannot_be_compared_is_not_alike(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(a: Any, b: Any) -> bool:
        raise RuntimeError("unreadable")

    monkeypatch.setattr(together, "alike", fail)
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 5}
    found = train([prepare(member=member, **settings) for member in range(2)])
    assert list(map(told, found)) == [told(ps.fit(member=member, **settings)) for member in range(2)]


def test_what_sees_other_batches_is_trained_by_itself(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base: dict[str, Any] = {"network": "mlp:16", "steps": 10, "batch_size": 64}
    other: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"batch_size": 32},
        {"network": "mlp:8"},
        {"label_smoothing": 0.1},
        {"network": "lenet"},
        {"penalties": [lambda network: sum(p.square().sum() for p in network.parameters())]},
    ]
    alone = [ps.fit(data=digits, **base | row) for row in other]
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(data=digits, **base | row) for row in other]))) == list(map(told, alone))
    assert counts == [1] * 50


def test_with_several_threads_each_is_trained_by_itself(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the trial of products says: an optimizer's step is cut for threads too."""
    monkeypatch.setattr(step, "exact", lambda *_: True)
    counts = steps_of(monkeypatch)
    with engine.threads(2):
        train([prepare("mlp:16", digits, member=member, steps=5) for member in (1, 2)])
    assert counts == [1] * 10


def test_batches_that_would_round_otherwise_are_taken_in_turn(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"network": "mlp:16-9", "data": digits, "epochs": 2, "batch_size": 64}
    alone = [ps.fit(member=member, **settings) for member in (1, 2)]
    asked = []

    def no(shapes: Any, count: int, rows: int, precision: str) -> bool:
        asked.append(rows)
        return False

    monkeypatch.setattr(stack_module, "exact", no)
    counts = steps_of(monkeypatch)
    assert list(map(told, train([prepare(member=member, **settings) for member in (1, 2)]))) == list(map(told, alone))
    assert counts == [2] * 36
    assert asked == [64, 9]


def test_networks_whose_products_never_agree_are_trained_one_by_one(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "exact", lambda *_: False)
    counts = steps_of(monkeypatch)
    train([prepare("mlp:16", digits, member=member, steps=5) for member in (1, 2)])
    assert counts == [1] * 10


def test_what_is_exact_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((16, 64), (16,), (16, 16), (16,))
    assert exact.__wrapped__(shapes, 3, 64, "highest")
    plain = stack_module._forward

    def rough(layers: Any, inputs: Tensor) -> Any:
        kept, logits = plain(layers, inputs)
        return kept, logits + (1e-6 if len(layers[0].weight) > 1 else 0)

    monkeypatch.setattr(stack_module, "_forward", rough)
    assert not exact.__wrapped__(shapes, 3, 64, "highest")


def test_one_that_fails_harms_no_other(digits: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 40, "batch_size": 64}
    alone = [ps.fit(member=member, **settings) for member in range(5)]
    tasks = [prepare(member=member, folder=tmp_path / str(member), **settings) for member in range(5)]
    with torch.no_grad():
        tasks[1].network[1].weight.fill_(torch.nan)
        tasks[3].network[3].weight.zero_()
        tasks[3].network[3].bias.fill_(0.1)  # ten equal probabilities
    found = train(tasks)
    assert isinstance(found[1], TrainingError)
    assert "not finite at step 0" in str(found[1])
    assert isinstance(found[3], TeacherError)
    for member in (0, 2, 4):
        assert told(found[member]) == told(alone[member])
        assert (tmp_path / str(member) / "model.safetensors").is_file()


def test_a_users_callback_that_fails_harms_no_other(digits: Any) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError(f"{done} of {total}")

    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 40, "batch_size": 64}
    first, second = train([prepare(member=1, progress=fail, **settings), prepare(member=2, **settings)])
    assert str(first) == "18 of 40"
    assert told(second) == told(ps.fit(member=2, **settings))


def test_interrupted_runs_catch_up(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One was stopped after its first epoch, one after its second, one never began: in the end all are as ever."""
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "epochs": 4, "batch_size": 64}
    alone = [ps.fit(member=member, **settings) for member in range(3)]
    for member, epochs in ((0, 1), (1, 2)):
        asked = iter([False] * (epochs - 1) + [True] * 9)
        stop = lambda asked=asked: next(asked)  # noqa: E731
        with pytest.raises(Interrupted):
            ps.fit(member=member, folder=tmp_path / str(member), should_stop=stop, **settings)
    counts = steps_of(monkeypatch)
    found = train([prepare(member=member, folder=tmp_path / str(member), **settings) for member in range(3)])
    assert list(map(told, found)) == list(map(told, alone))
    assert counts == [1] * 18 + [2] * 18 + [3] * 36


def test_all_are_interrupted_and_saved(digits: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "epochs": 3, "batch_size": 64}
    stopped = train([
        prepare(member=m, folder=tmp_path / str(m), should_stop=lambda: True, **settings) for m in range(3)
    ])  # fmt: skip
    assert [type(outcome) for outcome in stopped] == [Interrupted] * 3
    found = train([prepare(member=m, folder=tmp_path / str(m), **settings) for m in range(3)])
    assert list(map(told, found)) == [told(ps.fit(member=m, **settings)) for m in range(3)]


def test_networks_own_their_memory_afterwards(digits: Any) -> None:
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 5}
    for model in train([prepare(member=member, **settings) for member in range(3)]):
        assert isinstance(model, Model)
        for parameter in model.network.parameters():
            assert parameter.grad is None
            assert parameter.untyped_storage().nbytes() == 4 * parameter.numel()


def test_seconds_are_shared_out(digits: Any) -> None:
    settings: dict[str, Any] = {"network": "mlp:16", "data": digits, "steps": 300}
    began = ps.fit(**settings).info["seconds"]
    found = train([prepare(member=member, **settings) for member in range(6)])
    seconds = [outcome.info["seconds"] for outcome in found if isinstance(outcome, Model)]
    assert max(seconds) < 2 * began  # each its sixth, not all the time


def test_joined_forms_are_each_ones_own() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (40,), generator=generator)
    mask = torch.rand(40, generator=generator) < 0.7

    def form(temperature: float) -> losses.ClosedForm:
        probs = torch.rand(40, 5, generator=generator).softmax(1)
        soft = losses.soft_target(probs, torch.zeros(40), mask, weight=0.9, temperature=temperature)
        return losses.ClosedForm.of([losses.label_target(labels, 5, mask, weight=0.1, label_smoothing=0.0), soft])

    forms = [form(temperature) for temperature in (1.0, 3.0, 10.0)]
    logits = torch.randn(3, 5, 8, generator=generator)
    index = torch.randperm(40, generator=generator)[:8]
    means, gradient = losses.ClosedForm.join(forms)(logits, index)
    for number, own in enumerate(forms):
        (mean,), alone = own(logits[number : number + 1], index)
        assert means[number] == mean
        assert torch.equal(gradient[number : number + 1], alone)
    assert means[0] != means[1]


ENSEMBLE = {
    "models__ensemble": {"network": "mlp:4", "members": 5},
    "models__from-ensemble": {"network": "mlp:4", "teacher": "ensemble", "objective": "hinton"},
}


def test_a_study_is_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = changed(BASE, **ENSEMBLE, seeds=2)
    counts = steps_of(monkeypatch)
    run(plan, tmp_path / "together")
    assert 6 in counts  # five members and "alone"
    assert 2 in counts  # both students
    counts.clear()
    monkeypatch.setattr(step, "PAYS", 0)
    run(plan, tmp_path / "apart")
    assert set(counts) == {1}
    files = sorted(p.relative_to(tmp_path / "apart") for p in (tmp_path / "apart").glob("models/**/*.safetensors"))
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "apart" / file).read_bytes() == (tmp_path / "together" / file).read_bytes(), file


def test_a_failed_member_of_a_bundle_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.study import worker

    plain = worker.prepare

    def prepare_badly(**settings: Any) -> Task:
        task = plain(**settings)
        if settings["member"] == 2 and settings["seed"] == 0:
            nn.init.constant_(task.network[1].weight, torch.nan)
        return task

    monkeypatch.setattr(worker, "prepare", prepare_badly)
    results = run(changed(BASE, **ENSEMBLE, seeds=2), tmp_path / "run")
    assert results.models["ensemble"].seeds == [1]
    (failure,) = results.models["ensemble"].failures
    assert "not finite at step 0" in failure.reason
    assert results.models["alone"].seeds == [0, 1]


def node(name: str, **settings: Any) -> Node:
    decides = {
        "network": "mlp:100", "objective": "hard_labels", "training": {"batch_size": 128}, "answers": "stored",
        "known": None, "data": {"plan": {"source": "mnist"}},
    } | settings  # fmt: skip
    return Node(settings.pop("kind", "train"), name, name, settings.pop("seed_", 0), 0, (), decides)


def names_of(nodes: Sequence[Node], workers: int, **work: float) -> list[str]:
    facts = lambda table: {"rows": 54_000, "shape": (1, 28, 28), "outputs": 10}  # noqa: E731
    costs = {n.folder: work.get(n.folder, 1.0) for n in nodes}
    return [
        "".join(n.folder for n in bundle) for bundle in bundles(nodes, workers, facts=facts, work=costs)
    ]  # fmt: skip


def test_bundles() -> None:
    assert names_of([node(name) for name in "abcdefghijk"], 2) == ["fghijk", "abcde"]
    assert names_of([node(name) for name in "abcdef"], 2) == ["abc", "def"]
    assert names_of([node(name) for name in "abcd"], 4) == list("abcd")
    assert names_of([node("a"), node("b", network="mlp:500-400-300"), node("c")], 1, b=9.0) == ["b", "ac"]


@pytest.mark.parametrize(
    "other",
    [
        {"network": "mlp:99"},
        {"training": {"batch_size": 32}},
        {"objective": {"name": "hinton"}},
        {"objective": "soft_labels", "answers": "live"},
        {"data": {"plan": {"source": "fashion"}}},
        {"kind": "record"},
        {"seed_": 1},
    ],
    ids=str,
)
def test_what_is_not_bundled(other: dict[str, Any]) -> None:
    assert sorted(names_of([node("a"), node("b", **other), node("c")], 1)) == ["ac", "b"]


def test_errors_are_raised_by_fit_itself(digits: Any) -> None:
    with pytest.raises(PotstillError, match="hidden"):
        ps.fit("mlp:0", digits)
