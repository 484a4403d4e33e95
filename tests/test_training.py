"""The one loop: equal conditions for every method, budgets in steps, early stopping, checkpoints, failures."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import potstill as ps
from potstill import storage
from potstill.errors import (
    DataError,
    Interrupted,
    ObjectiveError,
    RunError,
    SettingError,
    StorageError,
    TeacherError,
    TrainingError,
)
from potstill.training import checkpoint
from potstill.training.order import epoch_rows, usable_rows
from potstill.training.settings import Training
from potstill.types import Batch, Outputs

SHORT: dict[str, Any] = {"batch_size": 32, "epochs": 2}


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, splits=("train", "validation"))


@pytest.fixture(scope="module")
def few(digits: Any) -> Any:
    return ps.data.open("digits", test=600, validation=100, labelled=100, splits=("train", "validation"))


@pytest.fixture(scope="module")
def teacher(digits: Any) -> Any:
    return ps.fit("mlp:32", digits, seed=3, epochs=3)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.network.state_dict().items()}


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


@dataclass
class Spy:
    """An objective that remembers what it was shown."""

    inner: Any
    needs_labels: bool
    needs_teacher: bool

    def __post_init__(self) -> None:
        self.seen: list[torch.Tensor] = []
        self.inputs: list[torch.Tensor] = []

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        if outputs.logits.requires_grad:
            self.seen.append(batch.index.clone())
            self.inputs.append(batch.inputs.clone())
        return self.inner(outputs, batch)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- order and budget


def test_every_row_comes_once_an_epoch() -> None:
    rows = torch.arange(97)
    for epoch in range(3):
        assert torch.equal(epoch_rows(rows, 97, 5, epoch).sort().values, rows)
    assert not torch.equal(epoch_rows(rows, 97, 5, 0), epoch_rows(rows, 97, 5, 1))
    assert not torch.equal(epoch_rows(rows, 97, 5, 0), epoch_rows(rows, 97, 6, 0))


def test_few_rows_repeat_evenly() -> None:
    rows = torch.tensor([2, 5, 11])
    found = epoch_rows(rows, 10, 0, 0)
    counts = torch.bincount(found, minlength=12)
    assert len(found) == 10
    assert set(found.tolist()) == {2, 5, 11}
    assert int(counts[rows].max() - counts[rows].min()) <= 1
    many = epoch_rows(torch.arange(50), 100, 0, 0)
    assert not torch.equal(many[:50], many[50:])  # each time round in another order


@pytest.mark.parametrize(
    ("needs_labels", "needs_teacher", "wanted"),
    [(True, False, [0, 1]), (False, True, [1, 2]), (True, True, [0, 1, 2]), (False, False, [])],
)
def test_usable_rows(needs_labels: bool, needs_teacher: bool, wanted: list[int]) -> None:
    labelled, known = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])
    assert usable_rows(labelled, known, needs_labels=needs_labels, needs_teacher=needs_teacher).tolist() == wanted


def test_every_method_sees_the_same_batches(digits: Any, teacher: Any) -> None:
    spies = [
        Spy(ps.objectives.hard_labels(), True, False),
        Spy(ps.objectives.hinton(temperature=2.0, alpha=0.5), True, True),
        Spy(ps.objectives.pseudo_labels(), False, True),
    ]
    for spy in spies:
        ps.fit("mlp:8", digits, spy, teacher=teacher if spy.needs_teacher else None, seed=1, **SHORT)
    for spy in spies[1:]:
        assert all(torch.equal(a, b) for a, b in zip(spies[0].seen, spy.seen, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(spies[0].inputs, spy.inputs, strict=True))


def test_same_labelled_rows_same_batches(few: Any, teacher: Any) -> None:
    """The baseline on 100 labels and a student on the same 100 examples see the same batches."""
    from potstill.outputs import Live

    known = Live(teacher, few.train).with_known(few.train.labelled)
    alone = Spy(ps.objectives.hard_labels(), True, False)
    taught = Spy(ps.objectives.hinton(alpha=0.1), True, True)
    ps.fit("mlp:8", few, alone, seed=1, **SHORT)
    ps.fit("mlp:8", few, taught, teacher=known, seed=1, **SHORT)
    assert all(torch.equal(a, b) for a, b in zip(alone.seen, taught.seen, strict=True))
    assert len(torch.cat(alone.seen).unique()) == 100


def test_the_budget_is_counted_in_steps_of_all_rows(digits: Any, few: Any) -> None:
    per_epoch = math.ceil(len(digits.train) / 32)
    for data in (digits, few):
        assert ps.fit("linear", data, **SHORT).info["steps"] == 2 * per_epoch
    assert ps.fit("linear", few, batch_size=32, steps=7).info["steps"] == 7


def test_a_batch_size_may_be_a_number_of_numpy(digits: Any) -> None:
    found = [ps.fit("linear", digits, batch_size=size, steps=30) for size in (64, np.int64(64))]
    assert all(torch.equal(a, b) for a, b in zip(*(weights(model).values() for model in found), strict=True))


def test_student_and_baseline_start_equal(digits: Any, teacher: Any) -> None:
    start = {"epochs": 0, "batch_size": 32}
    alone = ps.fit("mlp:8", digits, seed=4, **start)
    taught = ps.fit("mlp:8", digits, ps.objectives.hinton(), teacher=teacher, seed=4, **start)
    assert same(alone, taught)
    for other in ({"seed": 5}, {"seed": 4, "member": 1}, {"seed": 4, "generation": 1}):
        assert not same(alone, ps.fit("mlp:8", digits, **other, **start))


def test_the_same_seed_gives_the_same_model(digits: Any) -> None:
    torch.manual_seed(1)
    a = ps.fit("small_cnn:4-8", digits, seed=1, batch_size=64, steps=12)
    torch.manual_seed(2)
    np.random.seed(3)
    b = ps.fit("small_cnn:4-8", digits, seed=1, batch_size=64, steps=12)
    assert same(a, b)
    assert a.history == b.history
    assert not same(a, ps.fit("small_cnn:4-8", digits, seed=2, batch_size=64, steps=12))


def test_the_test_set_is_never_touched() -> None:
    whole = ps.data.open("digits", test=600, validation=100)

    class Guarded:
        train, validation = whole.train, whole.validation

        @property
        def test(self) -> Any:
            raise AssertionError("the test set was touched")

    ps.fit("mlp:4", Guarded(), steps=5)  # type: ignore[arg-type]


def test_views_go_with_epochs() -> None:
    fresh, two = Training(views="fresh"), Training(views=2)
    assert [fresh.view(e, augmented=True) for e in range(4)] == [1, 2, 3, 4]
    assert [two.view(e, augmented=True) for e in range(4)] == [1, 2, 1, 2]
    assert fresh.view(3, augmented=False) == 0
    assert Training(epochs=3, batch_size=10).all_views(100, augmented=True) == (1, 2, 3)
    assert Training(epochs=3, batch_size=10, views=2).all_views(100, augmented=True) == (1, 2)
    assert Training(steps=25, batch_size=10).all_views(100, augmented=True) == (1, 2, 3)
    assert Training(steps=25, batch_size=10).all_views(100, augmented=False) == (0,)


def test_teacher_and_student_see_the_same_view(digits: Any, teacher: Any, tmp_path: Path) -> None:
    augment = ({"name": "shift", "fraction": 0.125},)
    settings = {"augment": augment, "views": 2, "batch_size": 32, "epochs": 3}
    stored = ps.record(teacher, digits.train.with_augment(augment), tmp_path / "outputs", views=(1, 2))
    live = ps.fit("mlp:8", digits, ps.objectives.hinton(), teacher=teacher, monitor="accuracy", **settings)
    recorded = ps.fit("mlp:8", digits, ps.objectives.hinton(), teacher=stored, monitor="accuracy", **settings)
    for a, b in zip(weights(live).values(), weights(recorded).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- the loop itself


def test_the_loop_equals_plain_torch(digits: Any) -> None:
    """Adam on the mean over the whole batch, written out by hand."""
    found = ps.fit("mlp:8", digits, seed=2, batch_size=50, steps=30, select="last", schedule="cosine", clip=0.5)
    network = ps.networks.seeded("mlp:8", digits.train.spec.shape, 10, seed=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    rows, n, step = torch.arange(len(digits.train)), len(digits.train), 0
    from potstill.engine import Engine

    with Engine().settings():
        for epoch in range(2):
            for index in epoch_rows(rows, n, 2, epoch).split(50):
                if step == 30:
                    break
                batch = digits.train.fetch(index, 0)
                optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / 30))
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(batch.inputs), batch.labels).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                optimizer.step()
                step += 1
    for a, b in zip(weights(found).values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_terms_are_averaged_over_the_whole_batch(few: Any, teacher: Any) -> None:
    """99 of a batch of 100 rows without a label: the hard term is a hundredth of the labelled row's."""
    shown: list[float] = []

    def objective(outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        losses = ps.losses.cross_entropy(outputs.logits, batch.labels)
        hard = torch.where(batch.labelled, losses, 0.0)
        if outputs.logits.requires_grad:
            shown.append(hard.sum().item() / len(hard))
        return {"hard": hard}

    model = ps.fit("linear", few, objective, teacher=teacher, batch_size=1100, steps=1)
    assert model.history[0]["train_objective"] == pytest.approx(shown[0], rel=1e-6)


def step_of(network: Any, data: Any, rows: range, size: int | str, teacher: Any) -> torch.Tensor:
    """What one step of SGD changes, where only some rows carry a label, or have a teacher's answer."""
    from potstill.outputs import Live

    mask = torch.zeros(len(data.train), dtype=torch.bool)
    mask[rows] = True
    settings: dict[str, Any] = {"optimizer": {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0}}
    if teacher is not None:
        settings["teacher"] = Live(teacher, data.train).with_known(mask)
    labelled = replace(data, train=data.train.with_labelled(mask))
    start = ps.networks.seeded(network, data.train.spec.shape, 10, seed=3).state_dict()
    moved = ps.fit(network, labelled, steps=1, seed=3, batch_size=size, **settings).network.state_dict()
    return torch.cat([(moved[name] - start[name]).double().flatten() for name in start])


@pytest.mark.parametrize("network", ["mlp:6", {"name": "lenet"}], ids=["passes written out", "autograd"])
@pytest.mark.parametrize("distilled", [False, True], ids=["labels", "teacher"])
def test_online_mini_batch_and_full_batch_take_the_same_step_in_expectation(
    digits: Any, teacher: Any, network: Any, distilled: bool
) -> None:
    """Paper 4: the mean over the steps of single rows, and over those of mini-batches, is the step of all rows."""
    train = digits.train
    twelve = {"selection": train.rows[:12], "labels": train.labels[:12], "labelled": train.labelled[:12]}
    few = replace(digits, train=replace(train, **twelve), validation=None)
    told = teacher if distilled else None
    whole = step_of(network, few, range(12), "all", told)
    assert whole.norm() > 0.01
    for size in (1, 4):
        parts = [step_of(network, few, range(at, at + size), size, told) for at in range(0, 12, size)]
        torch.testing.assert_close(torch.stack(parts).mean(0), whole, rtol=1e-4, atol=1e-6)
        assert (parts[0] - whole).norm() > 0.1 * whole.norm()  # one alone is another step


def test_all_rows_in_one_step(digits: Any) -> None:
    """An epoch is one step, of all rows; the same bits as with their number."""
    n = len(digits.train)
    for size, steps in ((1, n), (n - 1, 2), ("all", 1)):
        assert Training(batch_size=size).steps_per_epoch(n) == steps  # type: ignore[arg-type]
    spies = [Spy(ps.objectives.hard_labels(), True, False) for _ in range(2)]
    whole = ps.fit("mlp:8", digits, spies[0], batch_size="all", epochs=3)
    assert whole.info["steps"] == 3
    assert [len(seen) for seen in spies[0].seen] == [n] * 3
    assert same(whole, ps.fit("mlp:8", digits, spies[1], batch_size=n, epochs=3))
    for wrong in ("al", 0, -1, 1.5):
        with pytest.raises(SettingError, match=r'batch_size is .*; wanted is a whole number of at least 1, or "all"'):
            Training(batch_size=wrong)  # type: ignore[arg-type]


def test_label_smoothing_reaches_the_hard_term(digits: Any) -> None:
    plain = ps.fit("linear", digits, seed=1, batch_size=2000, steps=1)
    smooth = ps.fit("linear", digits, seed=1, batch_size=2000, steps=1, label_smoothing=0.2)
    start = ps.networks.seeded("linear", digits.train.spec.shape, 10, seed=1)
    batch = digits.train.fetch(torch.arange(len(digits.train)), 0)
    for model, eps in ((plain, 0.0), (smooth, 0.2)):
        wanted = nn.functional.cross_entropy(start(batch.inputs), batch.labels, label_smoothing=eps)
        assert model.history[0]["train_objective"] == pytest.approx(wanted.item(), rel=1e-5)


def test_the_watched_objective_is_smoothed_as_the_trained_one(digits: Any) -> None:
    model = ps.fit("linear", digits, seed=1, batch_size=2000, steps=1, label_smoothing=0.2, select="last")
    batch = digits.validation.fetch(torch.arange(len(digits.validation)), 0)
    wanted = nn.functional.cross_entropy(model(batch.inputs), batch.labels, label_smoothing=0.2)
    assert model.history[0]["validation_objective"] == pytest.approx(wanted.item(), rel=1e-5)


def test_penalties_are_divided_by_the_number_of_rows(digits: Any) -> None:
    def penalty(network: nn.Module) -> torch.Tensor:
        return sum((p**2).sum() for p in network.parameters())  # type: ignore[return-value]

    start = ps.networks.seeded("linear", digits.train.spec.shape, 10, seed=0)
    model = ps.fit("linear", digits, batch_size=2000, steps=1, penalties=[penalty])
    wanted = penalty(start).item() / len(digits.train)
    assert model.history[0]["train_penalty"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("method", ["hard_labels", "hinton", "pseudo_labels", "probabilistic", "generalised"])
def test_closed_form_and_autograd_train_alike(few: Any, teacher: Any, tmp_path: Path, method: str) -> None:
    """The same training twice: from a table of targets, and through autograd, with some rows unlabelled."""
    stored = ps.record(teacher, few.train, tmp_path / "outputs")
    objective = ps.objectives.build(method)
    arguments: dict[str, Any] = {"batch_size": 64, "steps": 40, "select": "last", "label_smoothing": 0.1}
    if objective.needs_teacher:
        arguments["teacher"] = stored
    fast = ps.fit("mlp:8", few, objective, **arguments)
    slow = ps.fit("mlp:8", few, replace(objective, targets=None), **arguments)
    for a, b in zip(weights(fast).values(), weights(slow).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for x, y in zip(fast.history, slow.history, strict=True):
        assert x == pytest.approx(y, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adadelta"])
def test_every_optimizer_learns(digits: Any, optimizer: str) -> None:
    model = ps.fit("mlp:16", digits, optimizer=optimizer, batch_size=32, epochs=4)
    assert model.history[-1]["train_objective"] < model.history[0]["train_objective"]


@pytest.mark.parametrize(
    ("schedule", "steps", "wanted"),
    [
        ("constant", [0, 5, 9], [1, 1, 1]),
        ("cosine", [0, 5, 10], [1, 0.5, 0]),
        ({"name": "cosine", "warmup": 0.5, "floor": 0.1}, [0, 4, 5, 10], [1 / 6, 5 / 6, 1, 0.1]),
        ("step", [0, 4, 5, 8], [1, 1, 0.1, 0.01]),
    ],
)
def test_schedules(schedule: Any, steps: list[int], wanted: list[float]) -> None:
    from potstill.training.optimizers import SCHEDULES

    factor = SCHEDULES.call(schedule)
    assert [factor(step, 10) for step in steps] == pytest.approx(wanted)


def test_bf16_and_channels_last_train(digits: Any) -> None:
    model = ps.fit("small_cnn:4-8", digits, precision="bf16", channels_last=True, batch_size=64, epochs=3)
    assert all(p.dtype == torch.float32 for p in model.network.parameters())
    assert model.history[-1]["validation_accuracy"] > 0.3


# ---------------------------------------------------------------- early stopping and selection


def test_patience_counts_epochs_without_a_better_monitor(digits: Any) -> None:
    model = ps.fit(
        "linear", digits, optimizer={"name": "sgd", "learning_rate": 0.0, "momentum": 0.0}, epochs=20, patience=3
    )
    assert model.info["stopped_early"]
    assert len(model.history) == 4  # the first epoch is the best, then three without a better one


def test_best_weights_are_kept(digits: Any) -> None:
    model = ps.fit("mlp:16", digits, seed=1, optimizer={"name": "sgd", "learning_rate": 0.3}, batch_size=16, epochs=6)
    values = [row["validation_accuracy"] for row in model.history]
    best = model.history[int(np.argmax(values))]
    assert model.info["best_step"] == best["step"]
    assert ps.evaluate(model, digits.validation)["accuracy"] == pytest.approx(max(values))


def test_a_student_is_watched_by_its_own_objective(digits: Any, teacher: Any) -> None:
    student = ps.fit("linear", digits, ps.objectives.hinton(temperature=10.0), teacher=teacher, epochs=1)
    assert student.info["monitor"] == "objective"
    row = student.history[-1]
    hard = 0.1 * row["validation_cross_entropy"]
    assert row["validation_objective"] > hard  # the soft term is part of it


def test_the_monitor_falls_back_aloud(digits: Any, teacher: Any, tmp_path: Path) -> None:
    stored = ps.record(teacher, digits.train, tmp_path / "outputs")
    student = ps.fit("linear", digits, ps.objectives.hinton(), teacher=stored, epochs=1)
    assert student.info["monitor"] == "cross_entropy"
    data = ps.data.open("digits", test=600, validation=0, splits=("train", "validation"))
    model = ps.fit("linear", data, epochs=1)
    assert (model.info["monitor"], model.info["select"]) == ("train_objective", "last")


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_without_validation_labels_hard_labels_are_watched_in_training(digits: Any, teacher: Any, alpha: Any) -> None:
    bare = digits.validation.with_labelled(torch.zeros(len(digits.validation), dtype=torch.bool))
    taught = {} if alpha is None else {"objective": ps.objectives.hinton(alpha=alpha), "teacher": teacher}
    model = ps.fit("linear", dataclasses.replace(digits, validation=bare), epochs=4, patience=1, **taught)
    assert (model.info["monitor"], model.info["select"]) == ("train_objective", "last")
    assert not model.info["stopped_early"]
    assert "validation_objective" not in model.history[-1]


# ---------------------------------------------------------------- continuing


def _stop_after(steps: int) -> Any:
    seen = {"n": 0}

    def stop() -> bool:
        seen["n"] += 1
        return seen["n"] >= steps

    return stop


METHODS = {"hard_labels": False} | dict.fromkeys(
    (
        *("soft_labels", "pseudo_labels", "hinton", "hinton_twice_softened", "logit_mse"),
        *("probabilistic", "generalised", "dkd", "dist"),
    ),
    True,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout and views": {
        "network": {"name": "mlp", "hidden": (8,), "dropout": 0.3},
        "augment": ("shift",),
        "views": 3,
    },
    "adadelta, step": {"optimizer": "adadelta", "schedule": "step"},
    "adam with decay": {"optimizer": {"name": "adam", "decay": 0.1}},
    "Keras' adam, cosine": {"optimizer": {"name": "adam", "variant": "keras", "decay": 0.1}, "schedule": "cosine"},
    "sgd, cosine": {"optimizer": "sgd", "schedule": "cosine", "clip": 1.0},
    "bf16": {"precision": "bf16"},
    "full batch": {"batch_size": "all"},
}


def test_every_objective_is_continued() -> None:
    registry = ps.objectives.REGISTRY
    told = {name for name in registry if "student" not in registry.parameters(name)}  # the others: test_features.py
    of_classes = {name for name in told if ps.objectives.build(name).learns == "classes"}
    assert set(METHODS) == of_classes


CONTINUED = [(method, "plain") for method in METHODS]
CONTINUED += [(method, variant) for method in ("hard_labels", "hinton") for variant in VARIANTS if variant != "plain"]


@pytest.mark.parametrize(("method", "variant"), CONTINUED)
def test_two_epochs_and_two_more_are_four(digits: Any, teacher: Any, tmp_path: Path, method: str, variant: str) -> None:
    options = dict(VARIANTS[variant])
    network = options.pop("network", "mlp:8")
    if "augment" in options:
        options["augment"] = ({"name": "shift", "fraction": 0.125},)
    arguments: dict[str, Any] = {"seed": 1, "batch_size": 64, "epochs": 4} | options
    arguments["teacher"] = teacher if METHODS[method] else None
    straight = ps.fit(network, digits, method, folder=tmp_path / "straight", **arguments)
    with pytest.raises(Interrupted):
        ps.fit(network, digits, method, folder=tmp_path / "broken", should_stop=_stop_after(2), **arguments)
    assert (tmp_path / "broken" / "checkpoint" / "checkpoint.json").is_file()
    continued = ps.fit(network, digits, method, folder=tmp_path / "broken", **arguments)
    assert same(straight, continued)
    assert straight.history == continued.history
    files = ["model.safetensors", "history.jsonl"]
    for name in files:
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert not (tmp_path / "broken" / "checkpoint").exists()


def test_stopped_in_the_middle_of_an_epoch(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.training import run as module

    monkeypatch.setattr(module, "_POLL_SECONDS", 0.0)
    arguments: dict[str, Any] = {"seed": 1, "batch_size": 16, "epochs": 2}
    straight = ps.fit("mlp:8", digits, **arguments)
    for stop in (1, 2, 50):
        with pytest.raises(Interrupted):
            ps.fit("mlp:8", digits, folder=tmp_path, should_stop=_stop_after(stop), **arguments)
    continued = ps.fit("mlp:8", digits, folder=tmp_path, **arguments)
    assert same(straight, continued)
    assert straight.history == continued.history


def test_a_training_is_not_continued_with_other_validation_data(digits: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"folder": tmp_path, "batch_size": 16, "epochs": 3}
    with pytest.raises(Interrupted):
        ps.fit("linear", digits, should_stop=lambda: True, **arguments)
    bare = digits.validation.with_labelled(torch.arange(len(digits.validation)) < 50)
    with pytest.raises(RunError, match="another training: validation"):
        ps.fit("linear", dataclasses.replace(digits, validation=bare), **arguments)


KILLED = """
import sys, potstill as ps, torch
torch.set_num_threads(1)
data = ps.data.open("digits", test=600, validation=100, splits=("train", "validation"))
def tell(step, total): print(step, flush=True)
ps.fit({"name": "mlp", "hidden": (8,), "dropout": 0.2}, data, folder=sys.argv[1], seed=1, batch_size=16, epochs=3,
       checkpoint_seconds=0.0, progress=tell)
"""


def test_killed_and_continued_equals_straight(tmp_path: Path) -> None:
    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, str(folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert start(tmp_path / "straight").communicate(timeout=120)[0]
    killed = start(tmp_path / "killed")
    assert killed.stdout is not None
    killed.stdout.readline()  # an epoch is done: it is in the middle of the next
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    killed.stdout.close()
    found = storage.read_json(tmp_path / "killed" / "checkpoint" / "checkpoint.json")
    assert 0 < found["state"]["step"] < 3 * 69
    assert start(tmp_path / "killed").communicate(timeout=120)[0]
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def _interrupted(digits: Any, folder: Path, **changes: Any) -> None:
    with pytest.raises(Interrupted):
        ps.fit("mlp:8", digits, folder=folder, should_stop=_stop_after(1), seed=1, epochs=3, **changes)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 2}, "seed.seed was 1 and is now 2"),
        ({"batch_size": 64}, "training.batch_size was 128 and is now 64"),
        ({"objective": "soft_labels"}, "objective.name was 'hard_labels'"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    digits: Any, teacher: Any, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    _interrupted(digits, tmp_path)
    arguments: dict[str, Any] = {"seed": 1, "epochs": 3} | changes
    if "objective" in changes:
        arguments["teacher"] = teacher
    with pytest.raises(RunError) as error:
        ps.fit("mlp:8", digits, folder=tmp_path, **arguments)
    assert key in str(error.value)


def test_a_damaged_checkpoint_is_named(digits: Any, tmp_path: Path) -> None:
    _interrupted(digits, tmp_path)
    (file,) = (tmp_path / "checkpoint").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        ps.fit("mlp:8", digits, folder=tmp_path, seed=1, epochs=3)


def test_continuing_elsewhere_is_marked(digits: Any, tmp_path: Path) -> None:
    _interrupted(digits, tmp_path)
    path = tmp_path / "checkpoint" / "checkpoint.json"
    found = json.loads(path.read_text())
    found["engine"]["torch"] = "2.0.0"
    path.write_text(json.dumps(found))
    model = ps.fit("mlp:8", digits, folder=tmp_path, seed=1, epochs=3)
    assert any("torch" in note and "2.0.0" in note for note in model.info["notes"])


def test_first_difference_names_the_first_key() -> None:
    assert checkpoint.first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == ("b.c", 2, 3)
    assert checkpoint.first_difference({"a": (1, 2)}, {"a": [1, 2]}) is None
    assert checkpoint.first_difference({"a": 1}, {}) == ("a", 1, None)


# ---------------------------------------------------------------- failures


def test_a_nan_loss_names_the_step_and_keeps_good_weights(digits: Any, tmp_path: Path) -> None:
    calls = {"n": 0}

    def objective(outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        terms = nn.functional.cross_entropy(outputs.logits, batch.labels, reduction="none")
        if outputs.logits.requires_grad:
            calls["n"] += 1
            if calls["n"] == 31:
                terms = terms * float("nan")
        return {"hard": terms}

    with pytest.raises(TrainingError, match="step 30") as error:
        ps.fit("mlp:8", digits, objective, folder=tmp_path, batch_size=64, epochs=5)
    assert error.value.step == 30
    good = storage.read_tensors(tmp_path / "last-good" / "model.safetensors")
    assert all(bool(t.isfinite().all()) for t in good.values())
    assert not (tmp_path / "model.safetensors").exists()


def test_exploding_training_stops(digits: Any) -> None:
    with pytest.raises(TrainingError, match="learning rate"):
        ps.fit("mlp:8", digits, optimizer={"name": "sgd", "learning_rate": 1e30}, epochs=5)


def test_an_infinite_last_step_is_noticed(digits: Any) -> None:
    with pytest.raises(TrainingError):
        ps.fit("mlp:8", digits, optimizer={"name": "sgd", "learning_rate": 1e38}, batch_size=2000, steps=1)


def test_probabilities_for_logits_are_refused(digits: Any) -> None:
    def with_softmax(shape: tuple[int, ...], outputs: int) -> nn.Module:
        layers = {"flatten": nn.Flatten(), "head": nn.Linear(math.prod(shape), outputs), "softmax": nn.Softmax(-1)}
        return nn.Sequential(OrderedDict(layers))

    with pytest.raises(TeacherError, match="Remove its last softmax"):
        ps.fit(with_softmax, digits, epochs=1)


def test_nothing_to_learn_from_is_refused(digits: Any, few: Any, teacher: Any) -> None:
    with pytest.raises(ObjectiveError, match="there is none"):
        ps.fit("mlp:8", digits, "hinton", epochs=1)
    none = few.train.with_labelled(torch.zeros(len(few.train), dtype=torch.bool))
    with pytest.raises(DataError, match="No training row"):
        ps.fit("mlp:8", replace(few, train=none), epochs=1)


def test_answers_for_other_rows_are_refused(digits: Any, teacher: Any, tmp_path: Path) -> None:
    stored = ps.record(teacher, digits.validation, tmp_path / "outputs")
    with pytest.raises(TeacherError, match=r"100 rows; the data has 1097"):
        ps.fit("mlp:8", digits, teacher=stored, epochs=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"epochs": -1},
        {"label_smoothing": 1.0},
        {"clip": -1.0},
        {"views": 0},
        {"epoch": 3},
    ],
)
def test_wrong_settings_are_refused(digits: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        ps.fit("mlp:8", digits, **settings)


def test_whole_data_and_their_parts_are_told_apart(digits: Any) -> None:
    with pytest.raises(DataError, match=r"Found a \w+; wanted is a whole data set"):
        ps.fit("linear", digits.train, epochs=1)
    with pytest.raises(DataError, match=r"Found a Data; wanted is one of its parts, such as data\.test"):
        ps.evaluate(ps.fit("linear", digits, steps=0, select="last"), digits)


# ---------------------------------------------------------------- the model folder


def test_a_model_folder_loads_in_plain_torch(digits: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = ps.fit("mlp:16", digits, folder=tmp_path, epochs=1)
    layers = [
        ("flatten", nn.Flatten()),
        ("dense1", nn.Linear(64, 16)),
        ("relu1", nn.ReLU()),
        ("head", nn.Linear(16, 10)),
    ]
    plain = nn.Sequential(OrderedDict(layers))
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    batch = digits.validation.fetch(torch.arange(20), 0)
    assert torch.equal(plain(batch.inputs), model(batch.inputs))
    loaded = ps.load(tmp_path)
    assert torch.equal(loaded(batch.inputs), model(batch.inputs))
    assert loaded.fingerprint() == model.fingerprint()
    assert loaded.spec == model.spec


class Tied(nn.Module):
    """Two layers with one matrix."""

    def __init__(self, numbers: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(numbers, numbers, bias=False), nn.Linear(numbers, numbers, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(numbers, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.second(torch.relu(self.first(inputs.flatten(1)))))


def test_tied_weights_are_saved_continued_and_loaded(digits: Any, tmp_path: Path) -> None:
    def tied(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return Tied(math.prod(shape), outputs)

    asked = iter([False, True])
    with pytest.raises(Interrupted):
        ps.fit(tied, digits, epochs=4, folder=tmp_path, should_stop=lambda: next(asked))
    model = ps.fit(tied, digits, epochs=4, folder=tmp_path)
    straight = ps.fit(tied, digits, epochs=4)
    loaded = ps.load(tmp_path, network=Tied(64, 10))
    assert loaded.fingerprint() == model.fingerprint() == straight.fingerprint()
    assert loaded.network.first.weight is loaded.network.second.weight


def test_a_damaged_or_foreign_model_folder_is_refused(digits: Any, tmp_path: Path) -> None:
    from potstill.errors import NetworkError

    with pytest.raises(NetworkError, match=r"no network\.json"):
        ps.load(tmp_path)
    ps.fit("mlp:4", digits, folder=tmp_path, epochs=0)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-3] ^= 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        ps.load(tmp_path)


def test_starting_from_weights(digits: Any, tmp_path: Path) -> None:
    from potstill.errors import NetworkError

    first = ps.fit("mlp:8", digits, folder=tmp_path, epochs=1)
    again = ps.fit("mlp:8", digits, weights=tmp_path, seed=9, epochs=0)
    assert same(first, again)
    with pytest.raises(NetworkError, match=r"dense1\.weight"):
        ps.fit("mlp:9", digits, weights=tmp_path, epochs=0)
