"""`[tune]`: what it may say, how trials run and who wins, and that no trial sees the test set."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import BASE, changed, run

import potstill as ps
from potstill import storage
from potstill.errors import Interrupted, NotYetError, PlanError, RunError, TrainingError
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.study.study import Study
from potstill.study.verify import verify

RATE = "training.optimizer.learning_rate"
SEARCH: dict[str, Any] = {
    "alone": {RATE: {"log": [1e-3, 1e-1], "points": 4}},
    "taught": {"objective.temperature": [1, 4.0], "objective.alpha": [0.0, 0.5]},
}
TOY: dict[str, Any] = {
    **BASE,
    "title": "Tuned toy",
    "seeds": 2,
    "tune": {"seeds": 2, "search": SEARCH},
    "verdict": {"metric": "error_rate", "baseline": "alone"},
}


def toy(**changes: Any) -> dict[str, Any]:
    """The toy plan with dotted keys (`__` for a dot) replaced; None takes a key out."""
    return changed(TOY, **changes)


def trials_of(space: dict[str, Any], **tune: Any) -> list[dict[str, Any]]:
    """The settings of the trials of one model."""
    plan = toy(tune={"search": {"alone": space}, **tune}, verdict__compare=[["taught", "teacher"]])
    return [dict(trial.settings) for trial in Plan.from_dict(plan).trials()["alone"]]


# ---------------------------------------------------------------- the language


def test_a_grid_has_every_combination_the_last_key_running_fastest() -> None:
    found = trials_of({"network.hidden": [[4], [8]], "training.batch_size": [16, 32, 64]})
    assert found == [{"network.hidden": h, "training.batch_size": b} for h in ([4], [8]) for b in (16, 32, 64)]


RANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "log": ({"log": [1e-4, 1e-2], "points": 5}, [1e-4, 0.000316228, 0.001, 0.00316228, 1e-2]),
    "linear": ({"linear": [0.1, 0.7], "points": 4}, [0.1, 0.3, 0.5, 0.7]),
    "whole, linear": ({"linear": [1, 7], "points": 3}, [1, 4, 7]),
    "whole, log": ({"log": [1, 100], "points": 3}, [1, 10, 100]),
}


@pytest.mark.parametrize(("space", "wanted"), RANGES.values(), ids=RANGES)
def test_the_points_of_a_range(space: dict[str, Any], wanted: list[Any]) -> None:
    key = "members" if isinstance(wanted[0], int) else RATE
    found = [trial[key] for trial in trials_of({key: space})]
    assert found == wanted
    assert [type(x) for x in found] == [type(x) for x in wanted]


def test_random_trials_are_drawn_from_the_space_and_known_beforehand() -> None:
    space = {RATE: {"log": [1e-4, 1e-1]}, "members": {"linear": [1, 3]}, "training.batch_size": [16, 64]}
    found = trials_of(space, method="random", trials=200)
    assert found == trials_of(space, method="random", trials=200)
    assert found[:30] == trials_of(space, method="random", trials=30)
    assert len({json.dumps(trial) for trial in found}) == 200
    rates = np.array([trial[RATE] for trial in found])
    assert ((rates >= 1e-4) & (rates <= 1e-1)).all()
    assert 0.4 < (np.log10(rates) < -2.5).mean() < 0.6  # half of the draws below the geometric mean of the ends
    assert {trial["members"] for trial in found} == {1, 2, 3}
    assert {type(trial["members"]) for trial in found} == {int}
    assert {trial["training.batch_size"] for trial in found} == {16, 64}


def test_random_trials_exhaust_a_small_space() -> None:
    found = trials_of({"members": {"linear": [1, 3]}, "training.batch_size": [16, 64]}, method="random", trials=6)
    assert sorted((t["members"], t["training.batch_size"]) for t in found) == [
        (m, b) for m in (1, 2, 3) for b in (16, 64)
    ]


def test_a_number_of_seeds_stays_away_from_the_reports() -> None:
    assert Plan.from_dict(toy()).tune_seeds == [1000, 1001]
    assert Plan.from_dict(toy(seeds=9)).tune_seeds == [1000, 1001]
    assert Plan.from_dict(toy(seeds=[3, 2500])).tune_seeds == [3000, 3001]
    assert Plan.from_dict(toy(tune__seeds=[7, 5])).tune_seeds == [7, 5]
    assert Plan.from_dict(toy()).with_settings(["tune.seeds=1"]).tune_seeds == [1000]


def test_a_tuned_plan_is_written_and_read_again(tmp_path: Path) -> None:
    plan = Plan.from_dict(toy())
    (tmp_path / "plan.toml").write_text(plan.to_toml())
    again = Plan.load(tmp_path / "plan.toml")
    assert again == plan
    assert again.trials() == plan.trials()
    assert "[tune.search.taught]" in plan.to_toml()


def one(space: Any, key: str = RATE) -> dict[str, Any]:
    """A search of one key for both students, so that they have equal trials."""
    return {"tune__search": {"alone": {key: space}, "taught": {key: space}}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no search": ({"tune": {"seeds": 2}}, "tune.search", "is missing"),
    "an unknown key": ({"tune__seed": 2}, "tune.seed", 'Did you mean "seeds"'),
    "an unknown model": ({"tune__search": {"alnoe": {RATE: [1]}}}, "tune.search.alnoe", 'Did you mean "alone"'),
    "nothing searched": ({"tune__search": {"alone": {}}}, "tune.search.alone", "at least one key"),
    "not a key of a model": (one([1], "trainig.epochs"), 'tune.search.alone."trainig.epochs"', '"training"'),
    "a teacher is no setting": (one(["teacher"], "teacher"), "tune.search.alone.teacher", "Unknown key to tune"),
    "an unknown setting": (one([1], "objective.beta"), 'tune.search.alone."objective.beta"', "no key"),
    "a value out of range": (
        {"tune__search__taught": {"objective.alpha": [0.1, 1.5, 0.2, 0.3]}},
        'tune.search.taught."objective.alpha"',
        r"objective.alpha=1.5.*found 1.5",
    ),
    "a value of another kind": (one(["x"], "training.steps"), 'tune.search.alone."training.steps"', 'found "x"'),
    "two keys for one setting": (
        {"tune__search__alone": {"training.steps": [1], "training.epochs": [1]}},
        'tune.search.alone."training.steps"',
        "training.epochs",
    ),
    "an empty list": (one([]), f'tune.search.alone."{RATE}"', "empty"),
    "the same value twice": (one([0.1, 0.1]), f'tune.search.alone."{RATE}"', "0.1 twice"),
    "too few whole numbers": (
        one({"linear": [1, 3], "points": 5}, "members"), "tune.search.alone.members", "write 1.0 for others",
    ),
    "a number": (one(0.1), f'tune.search.alone."{RATE}"', r"wanted is a list of values, \{ log"),
    "both scales": (one({"log": [1, 2], "linear": [1, 2]}), f'tune.search.alone."{RATE}"', "wanted is a list"),
    "an unknown word": (
        one({"log": [1, 2], "point": 3}), f'tune.search.alone."{RATE}".point', 'Did you mean "points"',
    ),
    "no points": (one({"log": [1e-3, 1e-2]}), f'tune.search.alone."{RATE}".points', "is missing"),
    "one point": (one({"log": [1e-3, 1e-2], "points": 1}), f'tune.search.alone."{RATE}".points', "found 1"),
    "the ends turned round": (one({"log": [2, 1], "points": 3}), f'tune.search.alone."{RATE}".log', "lower one first"),
    "not two ends": (one({"log": [1], "points": 3}), f'tune.search.alone."{RATE}".log', "two numbers"),
    "not numbers": (one({"log": "ab", "points": 3}), f'tune.search.alone."{RATE}".log', "two numbers"),
    "log of zero": (one({"log": [0, 1], "points": 3}), f'tune.search.alone."{RATE}".log', "above 0"),
    "too many": (one(list(range(1, 1002)), "training.steps"), "tune.search.alone", "1001 trials"),
    "trials of a grid": ({"tune__trials": 5}, "tune.trials", 'for method = "random"'),
    "random without a number": ({"tune__method": "random"}, "tune.trials", "is missing"),
    "random with points": (
        {"tune__method": "random", "tune__trials": 2}, f'tune.search.alone."{RATE}".points', 'for method = "grid"',
    ),
    "a space that is too small": (
        {"tune__method": "random", "tune__trials": 5, **one([0.1, 0.2])},
        "tune.search.alone",
        "2 different trials, and trials is 5",
    ),
    "no such method": ({"tune__method": "bayes"}, "tune.method", '"grid" or "random"'),
    "no seed": ({"tune__seeds": []}, "tune.seeds", "empty"),
    "a seed twice": ({"tune__seeds": [7, 7]}, "tune.seeds", "different"),
    "a seed of the report": ({"tune__seeds": [7, 1]}, "tune.seeds", "found 1, also among"),
    "no validation": ({"data__validation": 0}, "tune", "validation is 0"),
    "a sweep": ({"sweep": {"data.labelled": [100, 200]}}, "tune", "sweep is not built"),
    "agreement without a teacher": (
        {"verdict": {"metric": "agreement"}, "tune__search": {"alone": SEARCH["alone"]}},
        "tune.search.alone",
        "it has none",
    ),
    "trials against none": (
        {"tune__search": {"taught": SEARCH["taught"]}},
        "tune.search",
        '"taught" has 4 trials and "alone" has no trials',
    ),
    "more trials than the baseline": (
        {"tune__search__alone": {RATE: [0.1, 0.2, 0.3]}},
        "tune.search.alone",
        '"taught" has 4 trials and "alone" has 3 trials',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "words"), REFUSED.values(), ids=REFUSED)
def test_what_tune_may_not_say(changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        Plan.from_dict(toy(**changes))
    assert caught.value.key == key
    assert isinstance(caught.value, NotYetError) == ("not built" in words)


def test_a_refusal_tells_the_line(tmp_path: Path) -> None:
    text = (
        '[data]\nsource = "digits"\n[models.alone]\nnetwork = "linear"\n[tune.search.alone]\n"objective.x" = [1]\n'
        '[verdict]\nmetric = "accuracy"\n'
    )
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(PlanError, match="no key") as caught:
        Plan.load(tmp_path / "plan.toml")
    assert caught.value.line == 6


def test_a_tuned_setting_is_not_set_by_hand() -> None:
    plan = Plan.from_dict(toy())
    with pytest.raises(PlanError, match=r'is tuned; set the search instead: tune\.search\.taught\."objective\.alpha"'):
        plan.with_settings(["models.taught.objective.alpha=0.3"])
    changed = plan.with_settings(['tune.search.taught."objective.alpha"=[0.3, 0.7]'])
    assert [t.settings["objective.alpha"] for t in changed.trials()["taught"]] == [0.3, 0.7, 0.3, 0.7]


EQUAL: dict[str, dict[str, Any]] = {
    "a student and its teacher do not compete": {"verdict__compare": [["taught", "teacher"]]},
    "nor do a teacher and its student": {"verdict__compare": [["teacher", "taught"]]},
    "nobody is tuned who is compared": {
        "tune__search": {"teacher": {RATE: [0.1]}}, "verdict__compare": [["taught", "alone"]],
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", EQUAL.values(), ids=EQUAL)
def test_who_needs_no_equal_number_of_trials(changes: dict[str, Any]) -> None:
    Plan.from_dict(toy(**({"tune__search": {"taught": SEARCH["taught"]}} | changes)))


# ---------------------------------------------------------------- trials


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A finished tuned run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("tuning") / "toy"
    return folder, run(toy(), folder)


@pytest.fixture
def copied(done: tuple[Path, Results], tmp_path: Path) -> Path:
    shutil.copytree(done[0], tmp_path / "toy")
    return tmp_path / "toy"


def weights(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = folder.glob("**/model.safetensors")
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(found)}


def test_the_best_on_validation_data_wins_by_another_way(done: tuple[Path, Results]) -> None:
    """Every trial trained again with `ps.fit`, and the winner picked by hand."""
    results = done[1]
    tuning = results.tuning
    assert tuning is not None
    assert (tuning.method, tuning.metric, tuning.better, tuning.seeds) == ("grid", "error_rate", "lower", [1000, 1001])
    means: dict[tuple[float, float], list[float]] = {}
    for seed in (1000, 1001):
        data = ps.data.open("digits", test=300, validation=100, labelled=200, seed=seed)
        training: dict[str, Any] = {"steps": 40, "batch_size": 64, "select": "error_rate"}
        optimizer = {"name": "adam", "learning_rate": 0.01}
        teacher = ps.fit("mlp:16", data, seed=seed, optimizer=optimizer, **training)
        for temperature in (1, 4.0):
            for alpha in (0.0, 0.5):
                objective = ps.objectives.hinton(temperature=temperature, alpha=alpha)
                model = ps.fit("mlp:4", data, objective, teacher=teacher, seed=seed, optimizer=optimizer, **training)
                error = 1 - ps.evaluate(model, data.validation)["accuracy"]
                means.setdefault((temperature, alpha), []).append(error)
    found = tuning.models["taught"]
    for trial, ((temperature, alpha), values) in zip(found.trials, means.items(), strict=True):
        assert trial.settings == {"objective.temperature": temperature, "objective.alpha": alpha}
        assert trial.values == pytest.approx(values)
        assert trial.mean == pytest.approx(np.mean(values))
        assert trial.std == pytest.approx(np.std(values, ddof=1))
        assert trial.state == "done"
    best = min(range(4), key=lambda i: np.mean(list(means.values())[i]))
    assert found.winner == best + 1
    assert found.search == {"objective.temperature": [1, 4.0], "objective.alpha": [0.0, 0.5]}


def test_the_winner_is_trained_anew_on_the_seeds_of_the_report(done: tuple[Path, Results]) -> None:
    folder, results = done
    tuning = results.tuning
    assert tuning is not None
    won = tuning.models["taught"].trials[tuning.models["taught"].winner - 1].settings
    for seed in (0, 1):
        made = storage.read_json(folder / "models" / "taught" / f"seed-{seed}" / "result.json")["settings"]
        assert made["seed"]["seed"] == seed
        assert {f"objective.{key}": made["objective"][0][key] for key in ("temperature", "alpha")} == won
    assert results.models["taught"].seeds == [0, 1]
    stage = Plan.from_dict(tuning.plan)
    assert not stage.trials()
    assert stage.resolved("taught").objective == ({"name": "hinton", **{k.split(".")[1]: v for k, v in won.items()}},)
    assert Plan.from_dict(results.plan) == Plan.load(folder / "plan.toml") == Plan.from_dict(toy())


def test_verdicts_say_that_both_were_tuned(done: tuple[Path, Results]) -> None:
    verdict = next(v for v in done[1].verdicts if (v.model, v.baseline) == ("taught", "alone"))
    assert verdict.tuned == "Both were tuned with 4 trials each on 2 other seeds, judged on validation data"
    assert f"{verdict.tuned}." in verdict.sentence
    assert any(phrase.startswith(RATE) and phrase.endswith("; tuned for alone)") for phrase in verdict.differs_in)
    other = next(v for v in done[1].verdicts if (v.model, v.baseline) == ("taught", "teacher"))
    assert other.tuned is not None
    assert other.tuned.startswith("taught was tuned with 4 trials on 2 other seeds")
    assert other.tuned.endswith("teacher was not tuned")


def test_the_folder_of_a_tuned_run(done: tuple[Path, Results]) -> None:
    folder, _ = done
    trial = folder / "tune" / "taught" / "objective.temperature=4.0,objective.alpha=0.5" / "seed-1001"
    assert (trial / "predictions" / "validation.safetensors").is_file()
    assert (folder / "tune" / "teacher" / "seed-1000" / "model.safetensors").is_file()  # once for all trials
    assert (folder / "outputs" / "tune" / "teacher" / "plain" / "seed-1000" / "train" / "manifest.json").is_file()
    assert not list(folder.glob("tune/**/test.safetensors"))
    assert [json.loads(line)["seeds"] for line in (folder / "test_reads.jsonl").read_text().splitlines()] == [[0, 1]]
    found = verify(folder)
    assert (found.damaged, found.unfinished) == ((), 0)
    damaged = next(folder.glob("tune/alone/*/seed-1000/model.safetensors"))
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert [d.file for d in verify(folder).damaged] == [str(damaged.relative_to(folder))]
    damaged.write_bytes(good)


def test_trials_never_open_the_test_set(tmp_path: Path) -> None:
    """With a test part that cannot be read every trial runs; the run fails where the report's models are judged."""
    rng = np.random.default_rng(0)
    arrays = tmp_path / "data"
    arrays.mkdir()
    for split, n in (("train", 120), ("test", 30)):
        labels = rng.integers(0, 3, n)
        np.save(arrays / f"{split}_inputs.npy", (rng.normal(size=(n, 6)) + 2 * np.eye(6)[labels]).astype(np.float32))
        np.save(arrays / f"{split}_labels.npy", labels)
    for split in ("inputs", "labels"):
        (arrays / f"test_{split}.npy").write_bytes(b"not an array")
    plan = toy(data={"source": str(arrays), "validation": 30}, training__steps=10)
    said: list[tuple[str, str]] = []
    with pytest.raises(ps.errors.DataError, match="test_"):
        run(plan, tmp_path / "run", listener=lambda event: said.append((event.kind, event.text)))
    assert [text.partition(":")[0] for kind, text in said if kind == "tuned"] == ["alone", "taught"]
    last_tuned = max(i for i, (kind, _) in enumerate(said) if kind == "tuned")
    assert all(
        "on validation data" in text and "test" not in text for kind, text in said[:last_tuned] if kind == "evaluate"
    )


def test_nothing_is_read_from_the_test_set_before_the_winners_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_reads.jsonl` is not there while trials run."""
    reads = tmp_path / "run" / "test_reads.jsonl"
    there: list[bool] = []
    run(
        toy(training__steps=5),
        tmp_path / "run",
        listener=lambda event: there.append(reads.exists()) if event.kind == "tuned" else None,
    )
    assert there == [False, False]
    assert len(reads.read_text().splitlines()) == 1


def test_run_again_does_nothing(copied: Path, done: tuple[Path, Results]) -> None:
    before = weights(copied)
    again = run(toy(), copied)
    assert weights(copied) == before
    assert again.tuning == done[1].tuning


def test_more_seeds_in_the_report_train_no_trial_again(copied: Path, done: tuple[Path, Results]) -> None:
    before = weights(copied)
    more = run(toy(seeds=3), copied)
    after = weights(copied)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"models"}
    assert more.tuning is not None
    assert done[1].tuning is not None
    assert more.tuning.models == done[1].tuning.models
    assert more.test_reads.looks == 2


def test_a_larger_search_keeps_the_trials_that_are_there(copied: Path) -> None:
    """Worse settings are added, so that the winner stays; the grid's order changes."""
    before = weights(copied)
    search = {
        "alone": {RATE: [1e-9, *[0.001, 0.00464159, 0.0215443, 0.1]]},
        "taught": {"objective.temperature": [1, 4.0], "objective.alpha": [0.0, 0.5]},
    }
    found = run(toy(tune__search=search, verdict__compare=[["taught", "teacher"], ["alone", "teacher"]][:1]), copied)
    after = weights(copied)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[2] for name in set(after) - set(before)} == {f"{RATE}=1e-09"}
    assert found.tuning is not None
    assert len(found.tuning.models["alone"].trials) == 5


def test_another_winner_is_a_mismatch_of_the_reports_models(copied: Path) -> None:
    with pytest.raises(RunError, match=r"models/alone/seed-0 was made with other settings") as caught:
        run(toy(tune__search__alone={RATE: [1e-9, 2e-9, 3e-9, 4e-9]}), copied)
    assert "another winner" in "".join(caught.value.__notes__)


def test_a_failed_trial_is_named_and_cannot_win(tmp_path: Path) -> None:
    said: list[str] = []
    plan = toy(tune__search__alone={RATE: [1e30, 0.01, 1e-3, 1e-9]}, verdict__compare=[["taught", "teacher"]])
    plan["tune"]["search"]["taught"] = {"objective.alpha": [0.1]}
    results = run(plan, tmp_path / "run", listener=lambda event: said.append(f"{event.kind} {event.text}"))
    assert results.tuning is not None
    alone = results.tuning.models["alone"]
    assert [trial.state for trial in alone.trials] == ["failed", "done", "done", "done"]
    assert alone.winner != 1
    assert alone.trials[0].values == []
    assert alone.trials[0].mean is None
    assert "seed 1000" in str(alone.trials[0].reason)
    assert any(line.startswith("trial alone: trial 1 failed and cannot win: seed 1000") for line in said)
    assert not results.models["alone"].failures


def test_when_all_trials_of_a_model_fail_the_study_fails(tmp_path: Path) -> None:
    plan = toy(tune={"seeds": 1, "search": {"teacher": {RATE: [1e30, 1e31]}}})
    with pytest.raises(TrainingError, match=r"All 2 trials of teacher failed.*seed 1000") as caught:
        run(plan, tmp_path / "run")
    assert caught.value.exit_status == 1
    assert not (tmp_path / "run" / "test_reads.jsonl").exists()


def test_equal_trials_are_decided_by_their_order(tmp_path: Path) -> None:
    tune = {"search": {"alone": {"training.patience": [3, 1, 2]}}}
    plan = toy(seeds=1, training={"steps": 1}, models__teacher=None, models__taught=None, tune=tune)
    results = run(plan, tmp_path / "run")
    assert results.tuning is not None
    assert len({trial.mean for trial in results.tuning.models["alone"].trials}) == 1
    assert results.tuning.models["alone"].winner == 1


def test_a_tuned_teacher_wins_before_its_student_is_tuned(tmp_path: Path) -> None:
    """Rounds: the student's trials learn from the teacher's winner, recorded from the folder of its trial."""
    search = {"teacher": {RATE: [1e-9, 0.02]}, "taught": {"objective.alpha": [0.0, 0.5]}}
    said: list[str] = []
    results = run(
        toy(tune__search=search, verdict__compare=[["taught", "teacher"]]),
        tmp_path / "run",
        listener=lambda event: said.append(event.text) if event.kind == "tuned" else None,
    )
    assert [text.partition(":")[0] for text in said] == ["teacher", "taught"]
    assert results.tuning is not None
    assert results.tuning.models["teacher"].winner == 2
    recorded = tmp_path / "run" / "outputs" / "tune" / "teacher" / f"{RATE}=0.02" / "plain" / "seed-1000"
    assert (recorded / "result.json").is_file()
    assert len(list((tmp_path / "run" / "outputs" / "tune").glob("*/*"))) == 1
    trained = storage.read_json(tmp_path / "run" / "models" / "teacher" / "seed-0" / "result.json")
    assert trained["settings"]["training"]["optimizer"]["learning_rate"] == 0.02


def test_a_teacher_that_was_tuned_is_told_and_a_shared_one_has_one_value(tmp_path: Path) -> None:
    plan = toy(
        training__steps=5,
        models__teacher={"network": "mlp:16", "shared": True},
        tune__search={"teacher": {RATE: [0.01, 0.02]}},
        verdict__compare=[["taught", "alone"]],
    )
    results = run(plan, tmp_path / "run")
    assert results.verdicts[0].tuned == "the teacher teacher was tuned with 2 trials"
    assert results.tuning is not None
    assert [len(trial.values) for trial in results.tuning.models["teacher"].trials] == [1, 1]
    assert sorted(p.name for p in (tmp_path / "run" / "tune").glob("*/*/*")) == ["shared", "shared"]


def test_ensembles_and_generations_count_as_a_whole(tmp_path: Path) -> None:
    """The value of a trial is that of the ensemble's mean, and of the last generation."""
    plan = toy(
        training__steps=20,
        models__alone={"network": "mlp:4", "members": 2},
        models__taught={"network": "mlp:4", "teacher": "teacher", "generations": 2},
        tune={"seeds": [7], "search": {"alone": {"members": [2, 3]}, "taught": {"objective.alpha": [0.0, 0.9]}}},
    )
    results = run(plan, tmp_path / "run")
    assert results.tuning is not None
    data = ps.data.open("digits", test=300, validation=100, labelled=200, seed=7)
    batch = data.validation.fetch(torch.arange(100), 0) if data.validation else None
    assert batch is not None
    for trial, members in zip(results.tuning.models["alone"].trials, (2, 3), strict=True):
        folder = tmp_path / "run" / "tune" / "alone" / f"members={members}" / "seed-7"
        logits = [ps.load(folder / f"member-{m}")(batch.inputs).double() for m in range(1, members + 1)]
        mean = sum(one.softmax(-1) for one in logits)
        wrong = (mean.argmax(-1) != batch.labels)[data.validation.labelled]  # type: ignore[union-attr]
        assert trial.values == pytest.approx([float(wrong.double().mean())])
    for trial, alpha in zip(results.tuning.models["taught"].trials, (0.0, 0.9), strict=True):
        folder = tmp_path / "run" / "tune" / "taught" / f"objective.alpha={alpha}" / "generation-2" / "seed-7"
        wrong = (ps.load(folder)(batch.inputs).argmax(-1) != batch.labels)[data.validation.labelled]  # type: ignore[union-attr]
        assert trial.values == pytest.approx([float(wrong.double().mean())])


def test_agreement_can_be_tuned_for(tmp_path: Path) -> None:
    plan = toy(
        training__steps=20,
        verdict={"metric": "agreement", "compare": []},
        tune={"seeds": [7], "search": {"taught": {"objective.temperature": [1.0, 8.0]}}},
    )
    results = run(plan, tmp_path / "run")
    assert results.tuning is not None
    data = ps.data.open("digits", test=300, validation=100, labelled=200, seed=7)
    batch = data.validation.fetch(torch.arange(100), 0) if data.validation else None
    assert batch is not None
    teacher = ps.load(tmp_path / "run" / "tune" / "teacher" / "seed-7")(batch.inputs).argmax(-1)
    for trial, temperature in zip(results.tuning.models["taught"].trials, (1.0, 8.0), strict=True):
        folder = tmp_path / "run" / "tune" / "taught" / f"objective.temperature={temperature}" / "seed-7"
        same = ps.load(folder)(batch.inputs).argmax(-1) == teacher
        assert trial.values == pytest.approx([float(same.double().mean())])
        assert math.isfinite(trial.seconds)


# ---------------------------------------------------------------- stopping, checking, telling


def test_interrupted_trials_continue_to_the_same_end(done: tuple[Path, Results], tmp_path: Path) -> None:
    folder, ended = tmp_path / "run", 0

    def stop(event: Any) -> None:
        nonlocal ended
        ended += event.kind == "done"
        if ended == 7:
            (folder / ".stop").write_text("stop\n")

    with pytest.raises(Interrupted):
        run(toy(), folder, listener=stop)
    assert not (folder / "test_reads.jsonl").exists()
    assert not (folder / "models").exists()
    kept = weights(folder)
    again = run(toy(), folder)
    assert {name: weights(folder)[name] for name in kept} == kept
    whole = {name: content for name, (content, _) in weights(done[0]).items()}
    assert {name: content for name, (content, _) in weights(folder).items()} == whole
    assert again.tuning is not None
    assert done[1].tuning is not None
    values = [{n: [t.values for t in m.trials] for n, m in r.models.items()} for r in (again.tuning, done[1].tuning)]
    assert values[0] == values[1]


def test_progress_goes_on_from_trials_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clock and one total for both stages; a second run counts what is there as no work of its own."""
    from potstill.cli.progress import Meter

    events: list[Any] = []
    run(toy(training__steps=5), tmp_path / "run", listener=events.append)
    begins = [event for event in events if event.kind == "begin"]
    assert len(begins) == 2
    assert begins[0].done == 0
    assert begins[0].total == pytest.approx(begins[1].total)
    assert begins[1].done == pytest.approx(sum(begins[0].work.values()))
    assert [e.done for e in events if e.kind == "done"][-1] == pytest.approx(begins[1].total)
    meter = Meter()
    for event in events:
        meter.take(0.0, event)
    assert meter.read({}).share == 1.0
    kept = Meter()
    for event in (begins[0], begins[1]):
        kept.take(0.0, event)
    assert kept.read({}).share == pytest.approx(begins[1].done / begins[1].total)
    monkeypatch.setattr("potstill.cli.progress.time.monotonic", lambda: 100.0)
    assert kept.read({}).left is None  # nothing was done yet: what is there tells no speed
    half = Meter()
    for event in events[: events.index(begins[1]) + 1]:
        half.take(0.0, event)
    spent, total = begins[1].done, begins[1].total
    assert half.read({}).left == pytest.approx((total - spent) * 100 / spent)


class _Model:
    """As much of a model as an estimate of bytes asks for."""

    outputs = 10

    class spec:
        classes, targets, shape, sees = tuple("0123456789"), (), (1, 8, 8), ""


def test_check_counts_the_trials(tmp_path: Path) -> None:
    from potstill.study.estimate import Speed, estimate
    from potstill.study.job import Facts, file_hash
    from potstill.study.rehearse import rehearse
    from potstill.study.tree import expand
    from potstill.study.trials import firsts, settled, trial_tree

    plan = toy(tune__search__alone={"training.steps": [10, 20, 30, 40]})
    found = rehearse(Study.open(plan, folder=tmp_path / "run").job(1))
    rows = {row.model: (row.trainings, row.steps) for row in found.models}
    assert rows == {
        "teacher": (2, 40),
        "alone": (2, 10),
        "taught": (2, 40),
        "alone (4 trials)": (8, 40),
        "teacher (for the trials)": (2, 40),
        "taught (4 trials)": (8, 40),
    }
    assert found.nodes == 2 * (3 + 1) + 2 * (1 + 1 + 4 + 4)
    job = Study.open(plan, folder=tmp_path / "run").job(1)
    speed = Speed(step=0.0, row=1.0, steps=1, epochs=1, parameters=1, bytes=4, model=_Model)  # type: ignore[arg-type]
    report = expand(settled(job.plan, firsts(job.plan)), Facts(None), file_hash)
    tried = trial_tree(job.plan, firsts(job.plan), Facts(None), hashed=file_hash).tree
    stages = [(tree, dict.fromkeys(tree.families, speed)) for tree in (report, tried)]
    seconds = [estimate(job, stages, {"train": 0, "validation": 0, "test": n}).seconds for n in (0, 50)]
    assert seconds[1] - seconds[0] == pytest.approx(
        2 * 3 * 50
    )  # the report's units predict 50 test rows, no trial does
    bare = rehearse(Study.open(toy(tune=None), folder=tmp_path / "bare").job(1))
    assert bare.nodes == 8
    assert found.bytes > bare.bytes
    assert not (tmp_path / "run").exists()


def test_the_command_line_names_the_winners(done: tuple[Path, Results]) -> None:
    from potstill.cli.running import _told

    lines = _told(done[1]).splitlines()
    assert done[1].tuning is not None
    for name, model in done[1].tuning.models.items():
        won = model.trials[model.winner - 1]
        (line,) = [line for line in lines if line.startswith(f"{name}: of 4 trials, trial {model.winner} won with ")]
        assert all(f"{key} = {value}" in line for key, value in won.settings.items())
        assert f"(validation error_rate {won.mean:.4g}, sd {won.std:.2g})" in line
