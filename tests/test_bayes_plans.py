"""`inference`, curves and areas in plans: what a run leaves behind, and what is refused before it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import BASE, changed, run

import potstill as ps
from potstill import bayes, storage
from potstill.errors import PlanError
from potstill.networks.variational import Variational
from potstill.study import verify
from potstill.study.plan import Plan
from potstill.study.rehearse import rehearse
from potstill.study.results import Results
from potstill.study.study import Study

STUDENT = {"network": "mlp:4", "teacher": "teacher"}
PLAN = changed(
    BASE,
    seeds=2,
    training__steps=30,
    models={
        "teacher": {"network": "mlp:9", "inference": "variational"},
        "plain": {"network": "mlp:9", "inference": "laplace"},
        "alone": {"network": "mlp:4", "inference": {"name": "student", "samples": 3}},
        "distil": STUDENT | {"inference": {"name": "distil-student-all", "samples": 3, "prior": {"order": "random"}}},
        "from-laplace": {
            "network": "mlp:4", "teacher": "plain",
            "inference": {"name": "variational", "start": "teacher",
                          "prior": {"from": "plain", "mean": False, "order": "brain_damage"}},
        },
        "imitates": STUDENT | {"inference": "distil-student", "objective": "soft_labels"},
    },
    evaluation__every=10,
    verdict={"metric": {"area_under": "cross_entropy"}, "compare": [["distil", "alone"], ["imitates", "alone"]]},
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("bayes") / "run"
    return folder, run(PLAN, folder)


def curve(folder: Path, model: str, seed: int) -> list[dict[str, float]]:
    lines = (folder / "models" / model / f"seed-{seed}" / "curve.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_priors_are_made_of_the_teachers_posterior(done: tuple[Path, Results]) -> None:
    folder, _ = done
    for model, teacher in (("distil", "teacher"), ("from-laplace", "plain"), ("imitates", "teacher")):
        result = storage.read_json(folder / "models" / model / "seed-1" / "result.json")
        above = storage.read_json(folder / "models" / teacher / "seed-1" / "result.json")
        assert result["settings"]["prior"] == above["fingerprint"]
        posterior = bayes.load(folder / "models" / teacher / "seed-1")
        assert result["settings"]["inference"]["prior"]["scale"] == 1.0
        assert posterior.layout.widths == (9,)
    loaded = ps.load(folder / "models" / "plain" / "seed-0")
    assert loaded.inference is None
    data = ps.data.open("digits", test=300, validation=100, labelled=200, seed=0)
    wanted = bayes.laplace(loaded.network, data.train)
    torch.testing.assert_close(
        bayes.load(folder / "models" / "plain" / "seed-0").variance, wanted.variance, rtol=1e-4, atol=0
    )


def test_the_first_step_begins_at_the_prior(tmp_path: Path) -> None:
    """With no learning at all the student is the teacher's posterior in its own shape."""
    still = {"name": "sgd", "learning_rate": 0.0, "momentum": 0.0}
    plan = changed(PLAN, seeds=1, training__optimizer=still, training__steps=2, evaluation__every=1)
    for name in ("plain", "from-laplace", "imitates"):
        del plan["models"][name]
    plan["models"]["teacher"]["training"] = {"optimizer": "adam", "steps": 20}
    plan["verdict"]["compare"] = [["distil", "alone"]]
    run(plan, tmp_path)
    teacher, student = (bayes.load(tmp_path / "models" / name / "seed-0") for name in ("teacher", "distil"))
    wanted = bayes.Prior(order="random").reduced(teacher, student.layout, seed=0)
    torch.testing.assert_close(student.mean, wanted.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(student.variance, wanted.variance, rtol=1e-4, atol=1e-9)


def test_teachers_are_recorded_only_for_those_who_imitate(done: tuple[Path, Results]) -> None:
    folder, _ = done
    assert sorted(path.name for path in (folder / "outputs").iterdir()) == ["teacher"]
    manifest = storage.read_json(folder / "outputs" / "teacher" / "plain" / "seed-0" / "train" / "manifest.json")
    assert manifest["header"]["members"] == 32
    settings = storage.read_json(folder / "models" / "distil" / "seed-0" / "result.json")["settings"]
    assert (settings["teacher"], settings["objective"][0]["name"]) == ([], "hard_labels")


def test_what_is_evaluated_is_the_posterior_predictive(done: tuple[Path, Results]) -> None:
    folder, results = done
    data = ps.data.open("digits", test=300, validation=100, labelled=200, seed=1)
    model = ps.load(folder / "models" / "distil" / "seed-1")
    assert isinstance(model.network, Variational)
    assert (model.network.samples, model.network.seed) == (3, 1)
    log_p = bayes.log_predictive(model, data.test)
    assert results.models["distil"].metrics["cross_entropy"].values[1] == pytest.approx(-float(log_p.mean()), rel=1e-4)
    told = results.models["distil"].objective
    assert told.startswith("hard_labels, inferred by distil-student-all(samples=3")
    assert "order random" in told
    assert results.models["plain"].objective == "hard_labels, inferred by laplace"


def test_areas_are_trapezoids_over_steps(done: tuple[Path, Results]) -> None:
    folder, results = done
    for model in ("alone", "distil"):
        for seed in (0, 1):
            rows = curve(folder, model, seed)
            assert [row["step"] for row in rows] == [10, 20, 30]
            y = [row["validation_cross_entropy"] for row in rows]
            by_hand = 10 * (y[0] / 2 + y[1] + y[2] / 2)
            assert results.models[model].metrics["area_under_cross_entropy"].values[seed] == pytest.approx(by_hand)
    verdict = results.verdicts[0]
    assert (verdict.metric, verdict.method, verdict.better) == ("area_under_cross_entropy", "scalar", "lower")
    areas = [results.models[name].metrics[verdict.metric].values for name in ("distil", "alone")]
    assert verdict.difference == pytest.approx(np.subtract(*areas).mean())
    assert "area under cross-entropy" in verdict.sentence
    ship = results.models["distil"].ship
    assert ship is not None
    assert ship.metric == "cross_entropy"


def test_a_curve_changes_nothing_else(done: tuple[Path, Results], tmp_path: Path) -> None:
    folder, _ = done
    plan = changed(PLAN, evaluation__every=None, verdict={"metric": "cross_entropy"})
    plan["models"] = {name: plan["models"][name] for name in ("teacher", "distil")}
    run(plan, tmp_path)
    for name in ("teacher", "distil"):
        there, here = (root / "models" / name / "seed-0" / "model.safetensors" for root in (folder, tmp_path))
        assert storage.sha256_file(there) == storage.sha256_file(here)
    assert not list(tmp_path.rglob("curve.jsonl"))


def test_running_again_runs_nothing_and_everything_is_whole(done: tuple[Path, Results]) -> None:
    folder, results = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    assert run(PLAN, folder).verdicts == results.verdicts
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    assert verify.verify(folder).damaged == ()
    path = folder / "models" / "plain" / "seed-0" / "posterior.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert [d.file for d in verify.verify(folder).damaged] == ["models/plain/seed-0/posterior.safetensors"]
    finally:
        path.write_bytes(content)


def test_the_report_is_written(done: tuple[Path, Results]) -> None:
    folder, _ = done
    page = ps.report.write(folder).read_text(encoding="utf-8")
    assert "area under cross entropy" in page
    assert "inferred by laplace" in page


def test_a_plan_is_rehearsed(tmp_path: Path) -> None:
    found = rehearse(Study.open(PLAN, folder=tmp_path).job(1))
    assert len(found.models) == len(PLAN["models"])
    assert not any(tmp_path.rglob("posterior.json"))


def test_a_plan_says_the_same_again() -> None:
    plan = Plan.from_dict(PLAN)
    assert Plan.from_dict(tomllib.loads(plan.to_toml())) == plan
    assert plan.verdict.metric == "area_under_cross_entropy"
    for name, variance in (("distil", True), ("imitates", False)):  # a preset's own defaults
        found = plan.resolved(name).inference
        assert found is not None
        assert (found["prior"]["layers"], found["prior"]["variance"]) == ("merge", variance)
        assert bayes.build(found).settings["prior"].variance is variance


DISTIL = "models.distil.inference"
# changes of the plan, the key of the error, words in its message
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"models__alone__inference": "variationl"}, "models.alone.inference", 'Did you mean "variational"'),
    ({"models__alone__inference": {"name": "student", "bta": 1}}, "models.alone.inference.bta", '"beta"'),
    (
        {"models__alone__inference": {"name": "variational", "prior": {"scal": 1}}},
        "models.alone.inference.prior",
        "scale",
    ),
    ({"models__alone__inference": "distil-student"}, "models.alone.inference", "prior = { from"),
    ({"models__distil__inference__prior": {"from": 3}}, f"{DISTIL}.prior.from", "found 3"),
    ({"models__distil__inference__prior": {"from": "plain"}}, f"{DISTIL}.prior.from", 'teacher = "plain"'),
    ({"models__distil__inference__prior": {"from": "teachr"}}, f"{DISTIL}.prior.from", '"teacher"'),
    ({"models__teacher__inference": None}, "models.distil.teacher", "has no posterior"),
    ({"models__teacher__members": 2}, "models.distil.teacher", "several members"),
    ({"models__distil__generations": 2}, "models.distil.generations", "one teacher"),
    ({"evaluation__every": None}, "verdict.metric", "evaluation.every"),
    ({"evaluation__every": 0}, "evaluation.every", "found 0"),
    ({"evaluation__every": 1000}, "evaluation.every", "an area needs two points of a curve"),
    (
        {"models__teacher__inference": {"name": "laplace", "prior_precision": -1}},
        "models.teacher.inference.prior_precision",
        "wanted is a finite number above 0",
    ),
    ({"models__distil__inference__prior": {"scale": "x"}}, f"{DISTIL}.prior", "wanted is a finite number above 0"),
    ({"training__patience": 3}, "training.patience", "no area is fair"),
    ({"verdict__metric": {"area_undr": "accuracy"}}, "verdict.metric", "area_under"),
    ({"verdict__metric": {"area_under": "acuracy"}}, "verdict.metric.area_under", '"accuracy"'),
    ({"verdict__metric": {"area_under": "agreement"}}, "verdict.metric.area_under", "needs a teacher"),
    ({"data__validation": 0, "verdict__metric": "accuracy"}, "evaluation.every", "data.validation is 0"),
    ({"tune": {"search": {"alone": {"training.optimizer.learning_rate": [0.1, 0.2]}}}}, "verdict.metric", "trials"),
]


@pytest.mark.parametrize(("changes", "key", "words"), BAD, ids=[f"{key}: {words}" for _, key, words in BAD])
def test_what_is_refused(changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_dict(changed(PLAN, **changes))
    assert caught.value.key == key
    assert words in str(caught.value)


def test_a_teacher_that_saw_more_labels(tmp_path: Path) -> None:
    """Once for the whole sweep over its students' labels, and with a posterior of all of them."""
    plan = changed(PLAN, seeds=1, training__steps=5, evaluation__every=None, verdict={"metric": "accuracy"})
    plan["sweep"] = {"data.labelled": [20, 60]}
    plan["models"] = {
        "plain": {"network": "mlp:9", "inference": "laplace", "labelled": "all"},
        "alone": plan["models"]["alone"],
        "distil": STUDENT | {"teacher": "plain", "inference": "distil-student-all"},
    }
    results = run(plan, tmp_path)
    names = ["plain", *(f"{name}@data.labelled={n}" for n in (20, 60) for name in ("alone", "distil"))]
    assert sorted(results.models) == sorted(names)
    assert bayes.load(tmp_path / "models" / "plain" / "seed-0").info["rows"] == 1397
    info = storage.read_json(tmp_path / "models" / "distil" / "data.labelled=20" / "seed-0" / "result.json")["info"]
    assert info["rows"] == 20
    assert "training rows" in next(v.sentence for v in results.verdicts if v.baseline == "plain")
    said = [v.differs_in for v in results.verdicts if v.model.startswith("distil@") and v.baseline.startswith("alone@")]
    assert said == [["labels that teachers learned from (all against none)"]] * 2
