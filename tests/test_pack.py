"""Trainings in lockstep: the same bits as alone, whatever happens to one of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import potstill as ps
from potstill import storage
from potstill.engine import Engine
from potstill.errors import Interrupted, TrainingError
from potstill.networks.stack import Stack, Together
from potstill.study.packs import MOST, packs
from potstill.study.tree import Node
from potstill.training.pack import Pack, Seat

Job = dict[str, Any]


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, splits=("train", "validation"))


@pytest.fixture(scope="module")
def recorded(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    teacher = ps.fit("mlp:32", digits, seed=3, steps=60)
    return [
        ps.record(teacher, part, folder=tmp_path_factory.mktemp("outputs"))
        for part in (digits.train, digits.validation)
    ]


def together(digits: Any, jobs: list[Job]) -> list[Any]:
    """Every job's model, or the error that ended it."""

    def train(job: Job, seat: Seat) -> Any:
        try:
            return ps.fit(data=digits, seat=seat, **job)
        except (Interrupted, TrainingError) as error:
            return error

    with Engine.pick().settings():
        return Pack().run([partial(train, job) for job in jobs])


def same(a: Any, b: Any) -> bool:
    pairs = zip(a.network.state_dict().items(), b.network.state_dict().items(), strict=True)
    return all(x == y and torch.equal(s, t) for (x, s), (y, t) in pairs) and a.history == b.history


def job(**settings: Any) -> Job:
    return {"network": "mlp:24", "batch_size": 50, "epochs": 3, "seed": 1} | settings


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many stacks each joint pass had."""
    found: list[int] = []
    plain = Together.forward
    monkeypatch.setattr(Together, "forward", lambda self, x: (found.append(len(self.stacks)), plain(self, x))[1])
    return found


def test_members_have_the_same_bits_together_and_alone(digits: Any, joint: list[int]) -> None:
    jobs = [job(member=member) for member in (1, 2, 3)]
    alone = [ps.fit(data=digits, **one) for one in jobs]
    assert not joint
    found = together(digits, jobs)
    assert joint == [3] * 3 * 22  # 1,097 rows in batches of 50, the last one smaller
    assert all(map(same, found, alone))
    assert not same(found[0], found[1])


def test_other_methods_and_deeper_networks_too(digits: Any, recorded: Any, joint: list[int]) -> None:
    told = {"teacher": recorded[0], "validation_teacher": recorded[1]}
    jobs = [
        job(network="mlp:24-12"),
        job(network="mlp:24", optimizer={"name": "adam", "learning_rate": 3e-3}),
        job(network="mlp:24-8", objective="pseudo_labels", **told),
        job(objective={"name": "hinton", "temperature": 3.0}, schedule="cosine", clip=0.5, **told),
        job(optimizer="sgd", label_smoothing=0.1),
    ]
    alone = [ps.fit(data=digits, **one) for one in jobs]
    assert all(map(same, together(digits, jobs), alone))
    assert set(joint) == {5}


def test_who_stops_early_leaves_the_others_as_they_are(digits: Any, joint: list[int]) -> None:
    jobs = [job(epochs=1, member=1), job(epochs=4, member=2), job(epochs=2, member=3)]
    alone = [ps.fit(data=digits, **one) for one in jobs]
    assert all(map(same, together(digits, jobs), alone))
    assert (joint.count(3), joint.count(2)) == (22, 22)


def test_who_fails_leaves_the_others_as_they_are(digits: Any, joint: list[int]) -> None:
    jobs = [job(member=1), job(member=2, optimizer={"name": "sgd", "learning_rate": 1e30}), job(member=3)]
    first, failed, third = together(digits, jobs)
    assert isinstance(failed, TrainingError)
    assert same(first, ps.fit(data=digits, **jobs[0]))
    assert same(third, ps.fit(data=digits, **jobs[2]))
    assert 2 in joint


def test_stopped_together_and_continued_in_other_company(digits: Any, tmp_path: Path) -> None:
    jobs = [job(member=member, folder=tmp_path / str(member)) for member in (1, 2, 3)]
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    stopped = together(digits, [one | {"should_stop": stop} for one in jobs])
    assert all(isinstance(one, Interrupted) for one in stopped)
    first = ps.fit(data=digits, **jobs[0])
    others = together(digits, [jobs[2], jobs[1], job(member=4)])
    for number, found in ((1, first), (3, others[0]), (2, others[1]), (4, others[2])):
        assert same(found, ps.fit(data=digits, **job(member=number)))


def test_what_does_not_fit_together_runs_beside(digits: Any, joint: list[int]) -> None:
    """Other shapes, other batches, and networks that are left to autograd."""
    jobs = [job(), job(network="mlp:9"), job(seed=2), job(network={"name": "mlp", "hidden": [8], "dropout": 0.5})]
    assert all(map(same, together(digits, jobs), [ps.fit(data=digits, **one) for one in jobs]))
    assert not joint


def test_products_that_would_differ_are_not_shared(
    digits: Any, joint: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Together, "is_exact", lambda self, inputs: False)
    jobs = [job(member=1), job(member=2)]
    assert all(map(same, together(digits, jobs), [ps.fit(data=digits, **one) for one in jobs]))
    assert not joint


def test_is_exact_notices_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [ps.networks.seeded("mlp:5", (6,), 2, seed=seed) for seed in (1, 2)]
    pack = Together([stack for stack in map(Stack.of, nets) if stack is not None])
    rows = torch.rand(7, 6)
    assert pack.is_exact(rows)
    pack.stacks[1].layers[0].weight_gradient.zero_()
    plain = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda b, w, x: plain(b, w, x) + (1e-7 if len(b) == 5 else 0.0))
    assert not pack.is_exact(rows)


def test_seconds_are_shared_out(digits: Any) -> None:
    import time

    began = time.monotonic()
    found = together(digits, [job(member=member) for member in (1, 2, 3)])
    assert sum(one.info["seconds"] for one in found) <= time.monotonic() - began + 0.01


def test_an_error_of_ones_own_code_ends_all(digits: Any) -> None:
    def bad(seat: Seat) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Pack().run([lambda seat: ps.fit(data=digits, seat=seat, **job()), bad])


def node(name: str, **changes: Any) -> Node:
    settings: dict[str, Any] = {
        "network": {"name": "mlp", "hidden": [100], "dropout": 0.0},
        "training": {"batch_size": 128, "augment": []},
        "seed": {"seed": 0, "member": 0, "generation": 0},
        "known": None,
        "data": {"plan": {"source": "mnist"}},
    }
    kind = changes.pop("kind", "train")
    return Node(kind, name, name, 0, 0, (), settings | changes)


def test_packs_are_of_one_seed_and_not_larger_than_the_workers_leave() -> None:
    small = [node(f"a{k}") for k in range(7)]
    other = [node(f"b{k}", seed={"seed": 1, "member": 0, "generation": 0}) for k in range(2)]
    lonely = [
        node("record", kind="record"),
        node("cnn", network={"name": "small_cnn"}),
        node("large", network={"name": "mlp", "hidden": [500], "dropout": 0.0}),
        node("augmented", training={"batch_size": 128, "augment": [{"name": "flip"}]}),
        node("batches", training={"batch_size": 32, "augment": []}),
        node("known", known="labelled"),
    ]
    wave = [*lonely, *small, *other]
    names = [[one.folder for one in pack] for pack in packs(wave, 2)]
    assert names == [[one.folder] for one in lonely] + [[f"a{k}" for k in range(MOST)], ["a6"], ["b0", "b1"]]
    assert [len(pack) for pack in packs(small, 2)] == [4, 3]
    assert [len(pack) for pack in packs(small, 16)] == [1] * 7
    assert sorted(one.folder for pack in packs(wave, 3) for one in pack) == sorted(one.folder for one in wave)


def test_a_study_has_the_same_bits_with_any_number_of_workers(tmp_path: Path) -> None:
    plan = {
        "seeds": 2,
        "data": {"source": "digits", "test": 600, "validation": 100},
        "training": {"epochs": 2, "batch_size": 50},
        "models": {
            "committee": {"network": "mlp:16", "members": 3},
            "alone": {"network": "mlp:16"},
            "student": {"network": "mlp:16", "teacher": "committee"},
        },
    }
    found = []
    for workers in (1, 9):
        folder = tmp_path / str(workers)
        ps.Study.open(plan, folder=folder).run(workers=workers)
        found.append({str(p.relative_to(folder)): storage.sha256_file(p) for p in folder.rglob("model.safetensors")})
    assert len(found[0]) == 10
    assert found[0] == found[1]
