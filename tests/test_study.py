"""A study, end to end at toy size: nodes, waves, continuing, refusing, failures, what is read when."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import BASE, changed, run

import potstill as ps
from potstill import report, storage
from potstill.errors import DataError, Interrupted, OutputsError, RunError, StorageError
from potstill.evaluation import load_predictions
from potstill.report import page
from potstill.study import folder as folders
from potstill.study.plotted import Figures
from potstill.study.results import Results
from potstill.study.study import Study

TOY: dict[str, Any] = {
    **BASE,
    "title": "Toy",
    "seeds": 3,
    "verdict": {"metric": "accuracy", "baseline": "alone", "margin": 0.01},
}


def toy(**changes: Any) -> dict[str, Any]:
    """The toy plan with dotted keys (`__` for a dot) replaced; None takes a key out."""
    return changed(TOY, **changes)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("models/**/model.safetensors"))}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A finished toy run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("study") / "toy"
    return folder, run(TOY, folder)


@pytest.fixture
def copied(done: tuple[Path, Results], tmp_path: Path) -> Path:
    shutil.copytree(done[0], tmp_path / "toy")
    return tmp_path / "toy"


# ---------------------------------------------------------------- what a run leaves


def test_the_folder_of_a_run(done: tuple[Path, Results]) -> None:
    folder, results = done
    for name in (
        "plan.toml", "environment.json", "results.json", "figures.json", "log.txt", "test_reads.jsonl",
        "models/taught/seed-2/model.safetensors", "models/taught/seed-2/network.json",
        "models/taught/seed-2/history.jsonl", "models/taught/seed-2/result.json",
        "models/taught/seed-2/predictions/test.safetensors", "models/taught/seed-2/predictions/validation.safetensors",
        "outputs/teacher/plain/seed-2/train/manifest.json", "outputs/teacher/plain/seed-2/validation/manifest.json",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    assert not list(folder.glob("models/**/checkpoint"))
    assert not list(folder.glob("**/*.tmp"))
    assert Results.model_validate(storage.read_json(folder / "results.json")) == results
    Figures.model_validate(storage.read_json(folder / "figures.json"))


def test_results_are_what_the_models_do(done: tuple[Path, Results]) -> None:
    """Every number of the table again, from the model folders and the data, by another way."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    folder, results = done
    test = ps.data.open("digits", test=300, validation=100).test
    assert test is not None
    batch = test.fetch(torch.arange(len(test)), 0)
    labels = batch.labels.numpy()
    predicted: dict[str, list[np.ndarray]] = {}
    for name in ("teacher", "alone", "taught"):
        for seed in range(3):
            logits = ps.load(folder / "models" / name / f"seed-{seed}")(batch.inputs)
            predicted.setdefault(name, []).append(logits.double().softmax(-1).numpy())
        metrics = results.models[name].metrics
        for seed, p in enumerate(predicted[name]):
            assert metrics["accuracy"].values[seed] == pytest.approx(accuracy_score(labels, p.argmax(1)))
            assert metrics["macro_f1"].values[seed] == pytest.approx(f1_score(labels, p.argmax(1), average="macro"))
            assert metrics["cross_entropy"].values[seed] == pytest.approx(log_loss(labels, p), rel=1e-4)
        assert metrics["accuracy"].mean == pytest.approx(np.mean(metrics["accuracy"].values))
        assert metrics["accuracy"].std == pytest.approx(np.std(metrics["accuracy"].values, ddof=1))
    agree = [
        np.mean(a.argmax(1) == b.argmax(1)) for a, b in zip(predicted["teacher"], predicted["taught"], strict=True)
    ]
    assert results.models["taught"].metrics["agreement"].values == pytest.approx(agree)
    verdict = next(v for v in results.verdicts if v.model == "taught" and v.baseline == "alone")
    ours, theirs = (results.models[n].metrics["accuracy"].mean for n in ("taught", "alone"))
    assert verdict.difference == pytest.approx(ours - theirs)
    assert verdict.interval is not None
    assert verdict.interval[0] <= verdict.difference <= verdict.interval[1]
    assert verdict.method == "crossed"
    assert verdict.examples == 300


def test_costs_are_those_of_the_networks(done: tuple[Path, Results]) -> None:
    cost = done[1].models["alone"].cost
    assert cost is not None
    assert cost.parameters == 64 * 4 + 4 + 4 * 10 + 10
    assert cost.multiply_adds == 64 * 4 + 4 * 10
    assert cost.bytes == 4 * cost.parameters


def test_which_seed_to_ship_is_the_best_on_validation_data(done: tuple[Path, Results]) -> None:
    for model in done[1].models.values():
        values = model.validation["accuracy"].values
        assert model.ship is not None
        assert model.ship.seed == int(np.argmax(values))
        assert model.ship.value == max(values)


def test_figures_sum_over_seeds(done: tuple[Path, Results]) -> None:
    figures = Figures.model_validate(storage.read_json(done[0] / "figures.json"))
    for name, model in done[1].models.items():
        matrix = np.array(figures.confusion[name])
        assert matrix.sum() == 3 * 300
        assert np.trace(matrix) / 900 == pytest.approx(model.metrics["accuracy"].mean)
        assert sum(figures.reliability[name].count) == 900
        assert figures.curves[name].steps[0][-1] == 40


def test_students_and_baseline_share_everything_but_the_method(done: tuple[Path, Results]) -> None:
    settings = [
        storage.read_json(done[0] / "models" / name / "seed-1" / "result.json")["settings"]
        for name in ("alone", "taught")
    ]
    different = {key for key in settings[0] if settings[0][key] != settings[1][key]}
    assert different == {"objective", "teacher", "answers"}
    assert results_differ(done[1]) == ["training rows (all against the labelled ones)"]


def results_differ(results: Results) -> list[str]:
    return next(v for v in results.verdicts if v.baseline == "alone").differs_in


# ---------------------------------------------------------------- running again


def test_running_again_runs_nothing(copied: Path, done: tuple[Path, Results]) -> None:
    before = {p: p.stat().st_mtime_ns for p in copied.glob("models/**/*")}
    events: list[Any] = []
    again = run(TOY, copied, listener=events.append)
    assert {p: p.stat().st_mtime_ns for p in copied.glob("models/**/*")} == before
    assert [e.kind for e in events] == ["begin"]
    assert again.verdicts == done[1].verdicts
    assert again.test_reads.count == 1


def test_what_is_missing_is_run_and_equals_what_was_there(copied: Path, done: tuple[Path, Results]) -> None:
    shutil.rmtree(copied / "models" / "taught" / "seed-1")
    shutil.rmtree(copied / "outputs" / "teacher")
    run(TOY, copied)
    assert weights_of(copied) == weights_of(done[0])


@pytest.mark.parametrize("node", ["models/taught/seed-1", "outputs/teacher/plain/seed-1"])
def test_an_old_failure_is_forgotten_when_it_is_mended(copied: Path, node: str) -> None:
    shutil.rmtree(copied / "models" / "taught" / "seed-1")
    shutil.rmtree(copied / "outputs")
    storage.write_json(copied / node / "failure.json", {"reason": "the power went", "settings": {}})
    results = run(TOY, copied)
    assert results.models["taught"].failures == []
    assert not list(copied.rglob("failure.json"))


def test_more_seeds_are_a_second_look(copied: Path, done: tuple[Path, Results]) -> None:
    before = weights_of(copied)
    results = run(toy(seeds=4), copied)
    assert results.models["taught"].seeds == [0, 1, 2, 3]
    assert all(weights_of(copied)[name] == content for name, content in before.items())
    assert results.test_reads.count == 2
    assert all(v.look == 2 for v in results.verdicts)
    assert all("second look" in v.sentence for v in results.verdicts)
    assert results.models["alone"].metrics["accuracy"].values[:3] == done[1].models["alone"].metrics["accuracy"].values


def test_another_verdict_is_no_mismatch(copied: Path) -> None:
    before = weights_of(copied)
    results = run(
        toy(verdict__metric="error_rate", verdict__margin=0.2, title="Other", training__select="accuracy"), copied
    )
    assert weights_of(copied) == before
    assert results.verdicts[0].metric == "error_rate"
    assert results.verdicts[0].better == "lower"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__steps": 50}, "training.steps was 40 and is now 50"),
        ({"data__labelled": 100}, "data.plan.labelled was 200 and is now 100"),
        ({"models__alone__network": "mlp:5"}, "network.hidden was [4] and is now [5]"),
        ({"models__taught__objective": {"name": "hinton", "temperature": 3.0}}, "temperature"),
        ({"models__taught__known": 0.5}, "known was not set and is now 0.5"),
    ],
)
def test_other_settings_are_refused(copied: Path, changes: dict[str, Any], message: str) -> None:
    before = weights_of(copied)
    with pytest.raises(RunError) as error:
        run(toy(**changes), copied)
    assert message in str(error.value)
    assert "--fresh" in str(error.value)
    assert weights_of(copied) == before


def test_a_stale_teacher_makes_its_students_stale(copied: Path) -> None:
    shutil.rmtree(copied / "models" / "teacher")
    shutil.rmtree(copied / "outputs")
    with pytest.raises(RunError, match=r"taught.*made with other settings: teacher"):
        run(toy(models__teacher__network="mlp:17"), copied)


def test_other_data_are_told_without_their_long_hashes(copied: Path) -> None:
    path = copied / "models" / "alone" / "seed-0" / "result.json"
    found = storage.read_json(path)
    found["settings"]["data"]["train"] = "0" * 64
    storage.write_json(path, found)
    with pytest.raises(RunError, match=r"other content of data\.train \(fingerprint 0{12}, now [0-9a-f]{12}\)"):
        run(TOY, copied)


def test_no_student_learns_from_a_damaged_recording(copied: Path) -> None:
    shutil.rmtree(copied / "models" / "taught" / "seed-0")
    path = next((copied / "outputs" / "teacher" / "plain" / "seed-0" / "train").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    folder = path.parent.parent
    with pytest.raises(OutputsError, match=f"{folder} of this run .* delete it, and run .* is damaged") as caught:
        run(TOY, copied)
    assert caught.value.__notes__ == ["This was models/taught/seed-0."]
    shutil.rmtree(folder)
    run(TOY, copied)


def test_changed_recordings_are_noticed(copied: Path) -> None:
    path = copied / "outputs" / "teacher" / "plain" / "seed-0" / "train" / "manifest.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match="learned from recorded outputs that have changed"):
        run(TOY, copied)


def test_a_teacher_trained_anew_is_noticed(copied: Path) -> None:
    """Its settings are the same, its weights are not: other code, another machine."""
    folder = copied / "models" / "teacher" / "seed-0"
    model = ps.load(folder)
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    model.save(folder)
    with pytest.raises(RunError, match="recorded from other weights"):
        run(TOY, copied)


def test_a_torn_line_of_reads_is_left_out(copied: Path) -> None:
    with (copied / "test_reads.jsonl").open("a") as file:
        file.write('{"plan": "to')
    assert run(TOY, copied).test_reads.count == 1


def test_another_plans_folder_is_refused(copied: Path) -> None:
    other = toy(verdict__baseline="a")
    other["models"] = {"a": {"network": "linear"}, "b": {"network": "mlp:4", "teacher": "a"}}
    with pytest.raises(RunError, match=r'another plan, "Toy"'):
        run(other, copied)
    results = run(other, copied, fresh=True)
    assert set(results.models) == {"a", "b"}
    assert results.test_reads.count == 2  # --fresh forgets models, not looks
    assert results.test_reads.plans == 2


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["models", "outputs"])
def test_a_foreign_folder_is_refused_and_loses_nothing(tmp_path: Path, name: str, fresh: bool) -> None:
    mine = [tmp_path / name / "mine", tmp_path / "data" / "mine.csv"]
    for path in mine:
        path.parent.mkdir()
        path.write_text("mine")
    with pytest.raises(RunError, match="not a run folder"):
        run(TOY, tmp_path, fresh=fresh)
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_fresh_keeps_the_arrays_that_the_plan_reads_and_what_is_the_users(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    plan = toy(seeds=1, training__steps=2, data={"source": (rows, rows[:, 0] > 0), "test": 20, "validation": 20})
    plan["models"] = {"alone": {"network": "linear"}}
    run(plan, tmp_path)
    (tmp_path / "data" / "mine.csv").write_text("mine")
    plan["data"]["source"] = (rows + 1, rows[:, 0] > 0)
    results = run(plan, tmp_path, fresh=True)
    assert results.models["alone"].seeds == [0]
    (arrays,) = tmp_path.glob("data/arrays-*.npz")
    with np.load(arrays) as kept:
        assert np.array_equal(kept["inputs"], rows + 1)
    assert (tmp_path / "data" / "mine.csv").read_text() == "mine"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with storage.lock(tmp_path / "x"), pytest.raises(RunError, match="in use by another run"):
        run(TOY, tmp_path / "x")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StorageError, match="x"):
        run(TOY, tmp_path / "x")


# ---------------------------------------------------------------- the test set


def test_training_and_recording_never_open_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.study import opened

    asked: list[tuple[str, ...]] = []
    real = opened.data_module.open

    def spy(source: Any, **arguments: Any) -> Any:
        asked.append(tuple(arguments["splits"]))
        return real(source, **arguments)

    opened._open.cache_clear()
    monkeypatch.setattr(opened.data_module, "open", spy)
    kinds: list[tuple[str, int]] = []
    run(toy(seeds=1), tmp_path / "x", listener=lambda e: kinds.append((e.kind, len(asked))))
    opened._open.cache_clear()
    at_evaluation = next(count for kind, count in kinds if kind == "evaluate")
    assert all("test" not in splits for splits in asked[:at_evaluation])
    assert any("test" in splits for splits in asked[at_evaluation:])


def test_predictions_are_those_of_the_test_split(done: tuple[Path, Results]) -> None:
    found = load_predictions(done[0] / "models" / "alone" / "seed-0" / "predictions" / "test.safetensors")
    data = ps.data.open("digits", test=300, validation=100)
    assert data.test is not None
    assert found.labels.tolist() == data.test.labels.tolist()
    assert found.labelled.all()
    assert np.exp(found.log_probs).sum(1) == pytest.approx(1, abs=1e-5)


# ---------------------------------------------------------------- kinds of models


def test_members_generations_shared_live_and_weights(tmp_path: Path) -> None:
    given = ps.fit("mlp:6", ps.data.open("digits", test=300, validation=100), steps=20)
    given.save(tmp_path / "given")
    plan = toy(seeds=3, training__steps=10)
    plan["models"] = {
        "big": {"network": "mlp:16", "shared": True},
        "committee": {"network": "mlp:4", "members": 2},
        "given": {"network": "mlp:6", "weights": str(tmp_path / "given"), "training": {"epochs": 0}},
        "alone": {"network": "mlp:4"},
        "from-committee": {"network": "mlp:4", "teacher": "committee"},
        "live": {"network": "mlp:4", "teacher": "committee", "answers": "live"},
        "from-all": {"network": "mlp:4", "teacher": ["big", "committee", "given"]},
        "chain": {"network": "mlp:4", "teacher": "big", "objective": "soft_labels", "generations": 3},
        "augmented": {
            "network": "mlp:4",
            "teacher": "big",
            "training": {"augment": [{"name": "shift", "fraction": 0.125}], "views": 2, "steps": 30},
        },
        "half": {"network": "mlp:4", "teacher": "big", "known": 0.5},
    }
    results = run(plan, tmp_path / "run")
    root, models = tmp_path / "run", results.models
    assert not [m for m in models.values() if m.failures]
    assert {f"chain#{g}" for g in (1, 2, 3)} <= set(models)
    assert models["chain#3"].teachers == ["chain#2"]
    # One shared teacher, trained once; two members per seed, different ones.
    assert (root / "models/big/shared/model.safetensors").is_file()
    assert not (root / "models/big/seed-0").exists()
    a, b = (ps.load(root / f"models/committee/seed-0/member-{m}").fingerprint() for m in (1, 2))
    assert a != b
    # A committee predicts the mean of its members' probabilities.
    data = ps.data.open("digits", test=300, validation=100)
    assert data.test is not None
    inputs = data.test.fetch(torch.arange(300), 0).inputs
    probs = [ps.load(root / f"models/committee/seed-0/member-{m}")(inputs).softmax(-1) for m in (1, 2)]
    found = load_predictions(root / "models/committee/seed-0/predictions/test.safetensors")
    np.testing.assert_allclose(np.exp(found.log_probs), ((probs[0] + probs[1]) / 2).numpy(), atol=1e-5)
    # Given weights are used as they are.
    assert (
        ps.load(root / "models/given/shared")
        .network.state_dict()["dense1.weight"]
        .equal(given.network.state_dict()["dense1.weight"])
    )
    # Recorded and live teachers teach the same, up to the last bits.
    for name in ("dense1.weight", "head.bias"):
        pair = [ps.load(root / f"models/{m}/seed-1").network.state_dict()[name] for m in ("from-committee", "live")]
        torch.testing.assert_close(pair[0], pair[1], rtol=1e-3, atol=1e-4)
    # Half of the answers known: half of the rows are used.
    rows = storage.read_json(root / "models/half/seed-0/result.json")["info"]["rows"]
    labelled = ps.data.open("digits", test=300, validation=100, labelled=200, seed=0).train.labelled
    assert len(labelled) // 2 < rows <= len(labelled) // 2 + int(labelled.sum())
    sentence = next(v for v in results.verdicts if v.model == "from-all" and v.baseline == "alone").sentence
    assert "big" in sentence  # "for this teacher"


def test_a_teacher_brought_as_an_array(tmp_path: Path) -> None:
    data = ps.data.open("digits", test=300, validation=100)
    teacher = ps.fit("mlp:16", data, steps=150, batch_size=64)
    logits = teacher(data.train.fetch(torch.arange(len(data.train)), 0).inputs).numpy()
    np.save(tmp_path / "logits.npy", logits)
    plan = toy(seeds=3)
    plan["models"] = {
        "brought": {"outputs": str(tmp_path / "logits.npy"), "kind": "logits"},
        "alone": {"network": "mlp:4"},
        "taught": {"network": "mlp:4", "teacher": "brought"},
    }
    results = run(plan, tmp_path / "run")
    assert results.models["taught"].metrics["accuracy"].mean > 0.15
    assert results.models["brought"].metrics == {}
    np.save(tmp_path / "logits.npy", logits[np.random.default_rng(0).permutation(len(logits))])
    with pytest.raises(ps.errors.PotstillError, match="order"):
        run(plan, tmp_path / "other")


def test_a_sweep_trains_once_what_does_not_depend_on_it(tmp_path: Path) -> None:
    plan = toy(seeds=3, sweep={"models.taught.objective.temperature": [1.0, 4.0]})
    results = run(plan, tmp_path / "run")
    assert set(results.models) == {
        "teacher", "alone", "taught@models.taught.objective.temperature=1.0",
        "taught@models.taught.objective.temperature=4.0",
    }  # fmt: skip
    assert len(list((tmp_path / "run").glob("models/teacher/seed-*"))) == 3
    assert len([v for v in results.verdicts if v.baseline == "alone"]) == 2
    labels = run(toy(seeds=1, sweep={"data.labelled": [100, 200]}), tmp_path / "labels")
    assert len(labels.models) == 6
    pairs = {(v.model, v.baseline) for v in labels.verdicts}
    assert ("taught@data.labelled=100", "alone@data.labelled=100") in pairs
    assert ("taught@data.labelled=100", "alone@data.labelled=200") not in pairs


def test_joined_keys_train_and_compare_what_belongs_together(tmp_path: Path) -> None:
    """Three points of joined keys: the teacher depends on the first alone, the student on both."""
    sweep = {
        "models.teacher.training.steps, models.taught.training.steps": [[10, 10], [10, 15], [20, 15]],
    }
    results = run(toy(seeds=1, sweep=sweep), tmp_path / "run")
    teachers = [m.point for m in results.models.values() if m.model == "teacher"]
    assert [list(point.values()) for point in teachers] == [[10], [20]]
    students = [m.point for m in results.models.values() if m.model == "taught"]
    assert [list(point.values()) for point in students] == [[10, 10], [10, 15], [20, 15]]
    assert "alone" in results.models
    against_teacher = [v for v in results.verdicts if v.baseline.startswith("teacher")]
    found = {tuple(results.models[name].point.values()) for v in against_teacher for name in (v.model, v.baseline)}
    assert len(against_teacher) == 3
    assert found == {(10, 10), (10, 15), (20, 15), (10,), (20,)}
    assert results.models[against_teacher[0].model].teachers == [against_teacher[0].baseline]


def test_models_that_meet_at_no_point_are_not_compared(tmp_path: Path) -> None:
    """Each depends on one of two joined keys; of their four combinations three are points."""
    sweep = {"models.teacher.training.steps, models.alone.training.steps": [[10, 10], [10, 15], [20, 15]]}
    plan = toy(seeds=1, sweep=sweep, verdict__compare=[["teacher", "alone"]])
    results = run(plan, tmp_path / "run")
    steps = [
        tuple(x for name in (v.model, v.baseline) for x in results.models[name].point.values())
        for v in results.verdicts
    ]
    assert steps == [(10, 10), (10, 15), (20, 15)]


def test_a_study_without_validation_data(tmp_path: Path) -> None:
    """The last weights are used, the training loss is watched, and no seed is named for shipping."""
    plan = toy(seeds=3, sweep={"training.monitor, data.validation, training.select": [
        ["objective", 100, "accuracy"], ["train_objective", 100, "last"], ["train_objective", 0, "last"],
    ]})  # fmt: skip
    plan["training"] = {"epochs": 3, "patience": 1, **plan.get("training", {})}
    plan["training"].pop("steps", None)
    results = run(plan, tmp_path / "run")
    ours = {tuple(m.point.values()): m for m in results.models.values() if m.model == "taught"}
    assert list(ours) == [
        ("objective", 100, "accuracy"),
        ("train_objective", 100, "last"),
        ("train_objective", 0, "last"),
    ]
    held, last, none = ours.values()
    assert held.ship is not None
    assert last.validation["accuracy"].values
    assert (none.ship, none.validation) == (None, {})
    assert none.metrics["accuracy"].values
    assert len([v for v in results.verdicts if v.baseline.startswith("alone@")]) == 3
    page = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "data.validation = 0" in page


def test_arrays_from_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 5)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    plan = toy(seeds=3)
    plan["data"] = {"source": (inputs, labels), "task": "binary", "test": 100, "validation": 50}
    results = run(plan, tmp_path / "run", workers=2)
    assert results.models["alone"].metrics["accuracy"].mean > 0.7
    assert ps.load(tmp_path / "run/models/alone/seed-0").spec.outputs == 1


def test_two_workers_make_the_same_models_as_one(done: tuple[Path, Results], tmp_path: Path) -> None:
    results = run(TOY, tmp_path / "two", workers=2)
    assert weights_of(tmp_path / "two") == weights_of(done[0])
    assert [v.difference for v in results.verdicts] == [v.difference for v in done[1].verdicts]


def test_the_longest_goes_first(tmp_path: Path) -> None:
    plan = toy(seeds=1, training__steps=2)
    plan["models"] = {name: {"network": f"mlp:{size}"} for name, size in (("b", 20), ("a", 200), ("c", 2))}
    plan["verdict"] = {"metric": "accuracy"}
    events: list[Any] = []
    run(plan, tmp_path / "run", listener=events.append)
    assert [e.text for e in events if e.kind == "done"] == [f"models/{name}/seed-0" for name in "abc"]


# ---------------------------------------------------------------- failures


def test_data_that_change_while_a_study_runs_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=rows, labels=rows[:, 0] > 0)
    plan = toy(seeds=2, training__steps=2, data={"source": str(path), "test": 20, "validation": 20})
    plan["models"] = {"alone": {"network": "linear"}}

    def change(event: Any) -> None:
        if event.kind == "begin":
            np.savez(path, inputs=rows + 1, labels=rows[:, 0] > 0)

    with pytest.raises(DataError, match="train data changed while the study ran"):
        run(plan, tmp_path / "run", workers=2, listener=change)
    assert not weights_of(tmp_path / "run")


def test_a_failed_model_is_told_and_its_students_are_not_run(tmp_path: Path) -> None:
    bad = {"network": "mlp:16", "training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}}}
    results = run(toy(models__teacher=bad), tmp_path / "run")
    assert [f.state for f in results.models["teacher"].failures] == ["failed"] * 3
    assert "not finite at step" in results.models["teacher"].failures[0].reason
    taught = results.models["taught"]
    assert [(f.state, f.reason) for f in taught.failures] == [("not run", "teacher failed")] * 3
    assert results.models["alone"].seeds == [0, 1, 2]
    verdict = next(v for v in results.verdicts if v.baseline == "alone")
    assert verdict.decision == "undecided"
    assert "taught with seed 0 (not run)" in verdict.sentence


def test_without_batch_sizes_no_latency_is_measured(tmp_path: Path) -> None:
    plan = toy(evaluation__latency__batch=[])
    results = run(plan, tmp_path / "run")
    cost = results.models["alone"].cost
    assert cost is not None
    assert cost.latency == []
    assert cost.parameters > 0
    assert "Latency" not in page.render(results)


def _killer(root: Path, node: str, times: int) -> threading.Thread:
    """Kills, `times` times, the process that works on a node."""

    def watch() -> None:
        killed: set[int] = set()
        end = time.monotonic() + 100
        while len(killed) < times and time.monotonic() < end:
            for path in (root / ".running").glob("*.json"):
                try:
                    found = json.loads(path.read_text())
                except (OSError, ValueError):
                    continue
                if found["folder"] == node and found["pid"] not in killed:
                    os.kill(found["pid"], signal.SIGKILL)
                    killed.add(found["pid"])
            time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


SLOW = {"training__steps": 500, "training__batch_size": 16, "seeds": 3}


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_worker(tmp_path: Path, times: int) -> None:
    """Once: tried again, and the study is as if nothing had happened. Twice: failed, and the rest goes on."""
    plan = toy(**SLOW)
    del plan["models"]["taught"]
    watcher = _killer(tmp_path / "run", "models/teacher/seed-1", times)
    results = run(plan, tmp_path / "run", workers=2)
    watcher.join(1)
    assert not watcher.is_alive()
    assert results.models["alone"].seeds == [0, 1, 2]
    if times == 1:
        assert results.models["teacher"].seeds == [0, 1, 2]
    else:
        assert results.models["teacher"].seeds == [0, 2]
        assert "killed twice" in results.models["teacher"].failures[0].reason


def test_workers_of_a_killed_run_save_and_leave(tmp_path: Path) -> None:
    """They would write into a folder whose lock another run may hold by now."""
    from potstill.study.worker import Place

    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    parents = {os.getpid(): False, os.getppid(): False, nobody.pid: True}
    assert {pid: Place(tmp_path, None, pid).stopping() for pid in parents} == parents


def test_a_second_ctrl_c_kills_workers_that_do_not_stop(tmp_path: Path) -> None:
    from potstill.study.pool import parallel, stop_on_signal
    from potstill.study.worker import Place

    def hang(folder: Path, name: str) -> None:
        (folder / name).touch()
        time.sleep(15)
        (folder / "waited-for").touch()

    def wait_and_interrupt() -> None:
        while len(list(tmp_path.glob("worker-*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        while not (tmp_path / ".stop").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=wait_and_interrupt, daemon=True)
    place = Place(tmp_path, None, os.getpid())
    watcher.start()
    with pytest.raises(KeyboardInterrupt), stop_on_signal(place, lambda text: None):
        list(parallel(2, hang, [(tmp_path, "worker-1"), (tmp_path, "worker-2")]))
    watcher.join()
    assert {path.name for path in tmp_path.iterdir()} == {"worker-1", "worker-2"}


def test_workers_work_where_the_program_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers outlive a run; a program that changed its folder since must not write into the old one."""
    plan = toy(seeds=2, training__steps=2)
    plan["models"] = {"alone": {"network": "linear"}}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        results = Study.open(plan, folder="run").run(workers=2)
        assert results.models["alone"].seeds == [0, 1]
        assert len(weights_of(tmp_path / name / "run")) == 2


def test_stopping_saves_and_the_same_command_continues(tmp_path: Path) -> None:
    plan = toy(**SLOW)

    def stop_soon(event: Any) -> None:
        if event.kind == "done":
            (tmp_path / "run" / ".stop").write_text("")

    with pytest.raises(Interrupted, match="Run again to continue"):
        run(plan, tmp_path / "run", listener=stop_soon)
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "test_reads.jsonl").exists()
    run(plan, tmp_path / "run")
    run(plan, tmp_path / "straight")
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "straight")


def test_a_full_disk_stops_the_study_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    real = storage.write_tensors

    def full(path: Path, *arguments: Any, **named: Any) -> str:
        if "alone/seed-1" in str(path):
            raise storage.explain(OSError(errno.ENOSPC, "No space left on device"), path)
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_tensors", full)
        with pytest.raises(StorageError, match="disk is full"):
            run(TOY, tmp_path / "run")
    made = weights_of(tmp_path / "run")
    assert made
    run(TOY, tmp_path / "run")
    assert all(weights_of(tmp_path / "run")[name] == content for name, content in made.items())


def test_the_tree_runs_teachers_before_students() -> None:
    from potstill.study.job import Facts, file_hash
    from potstill.study.tree import expand

    tree = expand(Study.open(TOY).plan, Facts(None), file_hash)
    for node in tree.nodes.values():
        assert all(tree.nodes[need].depth < node.depth for need in node.needs)
    kinds = [{node.kind for node in wave} for wave in tree.waves()]
    assert kinds == [{"train"}, {"record"}, {"train"}]
    assert folders.plan_fingerprint(Study.open(TOY).plan) != folders.plan_fingerprint(
        Study.open(toy(training__steps=3)).plan
    )
