"""benchmarks/study*.py: what can be checked without measuring anything."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from scipy.special import softmax

from potstill.study.plan import Plan


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of benchmarks/, as its scripts do."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_operations_are_those_counted_by_hand(bench: Any) -> None:
    found = bench("study_bound").study(5, 2, (54_000, 6_000, 10_000))
    # 784-100-10: 79,400 multiply-adds, 784 x 100 of them need no gradient of the inputs; large: 793,000 and 392,000.
    small = 5 * (54_000 * 319_600 + 6_000 * 158_800) + 10_000 * 158_800
    assert small == 92_644_000_000
    assert found == {
        "large": 2 * 1_136_420_000_000,
        "members": 20 * small,
        "alone": 2 * small,
        "students": 2 * (2 * small + 60_000 * (1_586_000 + 10 * 158_800)),
    }


def test_variational_steps_are_timed_beside_ordinary_ones(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """That it runs, on every network by every prior, and prints two ratios for each, to `fit`'s step and to a plain
    loop's: not how fast."""
    run = bench("run")
    run.variational(steps=1, repeats=1, rows=16)
    lines = capsys.readouterr().out.splitlines()
    priors = ("N(0, 1)", "N(0, 0.1)", "of a teacher")
    wanted = [f"{name}, prior {prior}" for name in run.VARIATIONAL for prior in priors]
    assert [line.split(":")[0].strip() for line in lines[::2]] == wanted
    assert [line.split(" the same")[0].strip() for line in lines[1::2]] == [f"{each}:" for each in wanted]
    assert all("against a plain loop of" in line for line in lines[1::2])
    assert all("wanted <= 2.5" in line for line in lines)
    assert "variational" in run.BENCHES


class FakePeer:
    """Models are names; what was asked is written down."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []
        self.taught: list[list[str]] = []

    def hard(self, hidden: tuple[int, ...], seed: int, count: int) -> list[str]:
        self.epochs += [[5.0, 1.0, 2.0]] * count
        return [f"{len(hidden)}-{seed}-{i}" for i in range(count)]

    def soft(self, teachers: list[str], seed: int) -> str:
        self.epochs.append([7.0])
        self.taught.append(teachers)
        return f"soft-{seed}"

    def accuracy(self, models: list[str]) -> float:
        return float(len(models))


def test_peers_train_every_part(bench: Any) -> None:
    peer = FakePeer()
    found = bench("study_peer").train_all(peer, [3, 4])
    assert found.first == {"large": 10.0, "members": 100.0, "alone": 10.0, "students": 28.0}
    assert found.later == {"large": 3.0, "members": 30.0, "alone": 3.0, "students": 28.0}
    assert list(found.seconds) == list(bench("study_peer").PARTS)
    assert peer.taught[0] == ["5-3-0"]
    assert peer.taught[1] == [f"1-1003-{i}" for i in range(10)]
    assert found.accuracy["ensemble"] == [10.0, 10.0]


def test_the_setting_with_the_lowest_estimate_is_used(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study, limits = bench("study"), []
    tried = iter([(10.0, 4.0), (15.0, 1.0), None])  # of 5 epochs: 22, 18, too slow

    def call(script: str, task: dict[str, Any], limit: float | None) -> dict[str, Any]:
        assert task["epochs"] == 2
        limits.append(limit)
        found = next(tried)
        if found is None:
            raise study.Failed("stopped")
        return {"seconds": found[0], "later": {"alone": found[1] / 2, "large": found[1] / 2}}

    monkeypatch.setattr(study, "call", call)
    assert study.choose("plain", {"epochs": 5}) == list(study.PEERS["plain"][1])[1]
    assert limits == [None, 22.0 + study.START_SECONDS, 18.0 + study.START_SECONDS]


def test_targets_compare_with_the_fastest_peer_of_each_turn(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def turn(seconds: float, students: float) -> dict[str, Any]:
        return {"seconds": seconds, "parts": {"students": students}}

    turns = {"potstill": [turn(10, 1)] * 2, "plain": [turn(40, 9), turn(60, 9)], "keras-jax": [turn(20, 3)] * 2}
    bench("study").targets(turns, 4.0)
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "2.00 (2.00 to 2.00); target >= 1.7: reached; wanted >= 3.0: NOT reached",
        "3.00 (3.00 to 3.00); target >= 4.0: NOT reached; wanted >= 8.0: NOT reached",
        "5.00 (4.00 to 6.00); target >= 3.0: reached; wanted >= 5.0: reached",
        "2.50 (2.50 to 2.50); target <= 3.0: reached; wanted <= 2.0: NOT reached",
    ]


def test_stages_add_up_to_the_plan(bench: Any) -> None:
    ours, models = bench("study_potstill"), []
    for added in ours.STAGES.values():
        models += added
        plan = Plan.from_dict(ours.cut(models, 3, [0, 1]))
        assert set(plan.order()) == set(models)
        training = plan.resolved(models[-1]).training
        assert (training.epochs, training.patience or 0, training.select) == (3, 0, "last")
    assert set(models) == set(Plan.load(ours.PLAN).order())


KERAS = """
import json, sys
sys.path.insert(0, "benchmarks")
import keras, numpy as np, study_keras
x = np.random.default_rng(0).random((6, 784), dtype="float32")
keras.utils.set_random_seed(0)
members, student = [study_keras.network((5,)) for _ in range(3)], study_keras.network((4,))
for model in (*members, student):
    model.set_weights([20 * weights for weights in model.get_weights()])
answers = [keras.ops.convert_to_numpy(model(x)).tolist() for model in (*members, student)]
value = study_keras.distillation().compute_loss(study_keras.ensemble(members, 10.0)(x), student(x))
print(json.dumps([answers, float(value)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed (the extra is bench)")
def test_keras_learns_from_the_mean_of_softened_probabilities() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", KERAS], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answers, value = json.loads(done.stdout.splitlines()[-1])
    *members, student = np.array(answers, dtype=np.float64)
    teacher = np.mean([softmax(logits / 10, axis=1) for logits in members], axis=0)
    own = softmax(student / 10, axis=1)
    wanted = 100 * np.mean(np.sum(teacher * np.log(teacher / own), axis=1))
    assert wanted > 1
    assert value == pytest.approx(wanted, rel=1e-3)
