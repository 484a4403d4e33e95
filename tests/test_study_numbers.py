"""The numbers of a study in unusual plans: sweeps, shared models, ensembles among teachers, changes between runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import potstill as ps
from potstill import storage
from potstill.errors import PlanError, RunError
from potstill.evaluation import load_predictions
from potstill.report import format as fmt
from potstill.report import groups, published
from potstill.report.names import Cast
from potstill.study.results import Results
from potstill.study.study import Study

TOY: dict[str, Any] = {
    "title": "Toy",
    "seeds": 3,
    "data": {"source": "digits", "test": 300, "validation": 100, "labelled": 200},
    "training": {"steps": 20, "batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 0.01}},
    "models": {"teacher": {"network": "mlp:8"}, "alone": {"network": "mlp:4"}},
    "evaluation": {"latency": {"batch": []}},
}


def toy(models: dict[str, Any] | None = None, **tables: Any) -> dict[str, Any]:
    """The toy plan with more models, and with other tables."""
    plan = copy.deepcopy(TOY) | tables
    plan["models"] |= models or {}
    return plan


def run(plan: dict[str, Any], folder: Path) -> Results:
    return Study.open(plan, folder=folder).run(workers=1)


def test_the_members_of_several_teachers_count_alike_in_agreement_too(tmp_path: Path) -> None:
    models = {
        "committee": {"network": "mlp:4", "members": 3},
        "both": {"network": "mlp:4", "teacher": ["teacher", "committee"], "objective": "soft_labels"},
    }
    results = run(toy(models, seeds=2), tmp_path / "run")
    for seed in range(2):
        one, three, student = (
            load_predictions(tmp_path / f"run/models/{name}/seed-{seed}/predictions/test.safetensors").log_probs
            for name in ("teacher", "committee", "both")
        )
        target = (np.exp(one, dtype=np.float64) + 3 * np.exp(three, dtype=np.float64)) / 4
        kl = (target * (np.log(target) - student)).sum(1).mean()
        assert results.models["both"].metrics["teacher_kl"].values[seed] == pytest.approx(kl, rel=1e-4)


def test_settings_that_differ_are_those_at_both_points(tmp_path: Path) -> None:
    models = {"taught": {"network": "mlp:4", "teacher": "teacher"}}
    sweep = {"models.taught.training.steps": [10, 15], "models.alone.training.steps": [10, 15]}
    verdict = {"compare": [["taught", "alone"]]}
    results = run(toy(models, sweep=sweep, verdict=verdict, seeds=1), tmp_path / "run")
    assert len(results.verdicts) == 4
    for found in results.verdicts:
        a, b = (results.models[key].point[path] for key, path in zip((found.model, found.baseline), sweep, strict=True))
        told = [text for text in found.differs_in if "steps" in text]
        assert told == ([] if a == b else [f"training.steps ({a} against {b})"])


def test_two_models_that_all_seeds_share_are_one_training_each(tmp_path: Path) -> None:
    models = {"big": {"network": "mlp:16", "shared": True}, "small": {"network": "mlp:4", "shared": True}}
    verdict = {"compare": [["big", "small"], ["big", "alone"]]}
    both, one = run(toy(models, verdict=verdict), tmp_path / "run").verdicts
    assert (both.seeds, both.interval, both.decision) == ([0], None, "undecided")
    assert "Not complete" not in both.sentence
    assert one.seeds == [0, 1, 2]


def test_a_teacher_that_all_seeds_share_is_told_on_either_side(tmp_path: Path) -> None:
    models = {"big": {"network": "mlp:8", "shared": True}, "taught": {"network": "mlp:4", "teacher": "big"}}
    verdict = {"compare": [["taught", "alone"], ["teacher", "taught"]]}
    results = run(toy(models, verdict=verdict), tmp_path / "run")
    assert all("this teacher (big)" in found.sentence for found in results.verdicts)


def test_one_training_for_all_seeds_has_no_spread(tmp_path: Path) -> None:
    """Its value is written for each seed; their standard deviation of 0 would be an interval without a width."""
    models = {"big": {"network": "mlp:8", "shared": True}, "taught": {"network": "mlp:4", "teacher": "big"}}
    told = {"source": "A paper", "accuracy": {"big": 0.9, "taught": 0.9}}
    results = run(toy(models, published=told), tmp_path / "run")
    spreads = [results.models[name].metrics["accuracy"].std for name in ("big", "taught")]
    assert results.models["big"].validation["accuracy"].std is None
    assert spreads[0] is None
    assert spreads[1] == np.std(results.models["taught"].metrics["accuracy"].values, ddof=1)
    table = published.table(Cast(results))
    assert table is not None
    rows = {row[0].text: (row[2].notes, row[4].text, row[5].text) for row in table.rows}
    assert rows["big"] == (("one training for all seeds",), fmt.MISSING, "not known: one training")
    assert rows["taught"][2] != "not known: one training"
    bars = groups.groups(Cast(results), {})
    assert bars is not None
    assert {bar.name: (bar.std is None, bar.seeds) for bar in bars.bars if bar.name in rows} == {
        "big": (True, 1),
        "taught": (False, 3),
    }


def test_a_shared_teachers_cost_is_not_one_per_seed(tmp_path: Path) -> None:
    models = {
        "big": {"network": "mlp:8", "shared": True, "training": {"steps": 400}},
        "taught": {"network": "mlp:4", "teacher": ["big", "teacher"]},
    }
    verdict = {"compare": [["taught", "alone"]]}
    sentence = run(toy(models, verdict=verdict), tmp_path / "run").verdicts[0].sentence
    assert "of training and recording once for all seeds" in sentence


def test_what_recording_takes_is_the_sum_over_sets_of_views(tmp_path: Path) -> None:
    training = {"augment": [{"name": "shift", "fraction": 0.125}], "views": 1}
    models = {
        "plain": {"network": "mlp:4", "teacher": "teacher"},
        "moved": {"network": "mlp:4", "teacher": "teacher", "training": training},
    }
    results = run(toy(models, seeds=2), tmp_path / "run")
    files = list((tmp_path / "run/outputs/teacher").glob("*/seed-*/result.json"))
    assert len(files) == 4
    cost = results.models["teacher"].cost
    assert cost is not None
    assert cost.record_seconds == pytest.approx(sum(storage.read_json(file)["seconds"] for file in files) / 2)


def test_the_cost_of_an_ensemble_follows_its_members(tmp_path: Path) -> None:
    sizes = []
    for members in (3, 2):
        results = run(toy({"committee": {"network": "mlp:4", "members": members}}, seeds=1), tmp_path / "run")
        cost = results.models["committee"].cost
        assert cost is not None
        sizes.append(cost.parameters)
    assert sizes == [3 * 310, 2 * 310]


def test_other_test_examples_are_refused(tmp_path: Path) -> None:
    """The test part changes, the training part does not, and a model is added: nothing would be paired."""
    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(90, 4)).astype(np.float32), np.arange(90) % 3

    def save(order: np.ndarray[Any, Any]) -> None:
        parts = {"train": slice(0, 60), "test": 60 + order}
        named = {f"{name}_{what}": array[rows] for name, rows in parts.items()
                 for what, array in (("inputs", inputs), ("labels", labels))}  # fmt: skip
        np.savez(tmp_path / "data.npz", **named)

    plan = toy(data={"source": str(tmp_path / "data.npz")}, seeds=2)
    save(np.arange(30))
    run(plan, tmp_path / "run")
    save(np.arange(30)[::-1])
    run(plan, tmp_path / "run")  # what is there belongs together
    plan["models"]["more"] = {"network": "mlp:4", "teacher": "teacher"}
    with pytest.raises(RunError, match=r"other test examples.*--fresh"):
        run(plan, tmp_path / "run")


def test_what_is_chosen_after_reading_is_another_look(tmp_path: Path) -> None:
    sweep = {"models.alone.training.steps": [10, 15]}
    verdict = {"compare": [["alone", "teacher"]]}
    plan = toy(seeds=3, sweep=sweep, verdict=verdict)
    assert run(plan, tmp_path / "run").test_reads.looks == 1
    assert run(plan, tmp_path / "run").test_reads.looks == 1
    fewer = run(plan | {"seeds": [0, 2]}, tmp_path / "run")
    assert (fewer.test_reads.count, fewer.test_reads.looks) == (1, 2)
    assert all("second look" in found.sentence for found in fewer.verdicts)
    assert run(plan | {"sweep": {"models.alone.training.steps": [10, 15, 20]}}, tmp_path / "run").test_reads.looks == 2


def test_agreement_needs_a_teacher_that_can_be_asked_about_test_examples(tmp_path: Path) -> None:
    np.save(tmp_path / "answers.npy", np.zeros((1397, 10), np.float32))
    models = {
        "told": {"outputs": str(tmp_path / "answers.npy"), "kind": "logits"},
        "a": {"network": "mlp:4", "teacher": "told"},
        "b": {"network": "mlp:4", "teacher": "teacher"},
    }
    with pytest.raises(PlanError, match=r"told.*is given by its outputs"):
        Study.open(toy(models, verdict={"metric": "agreement", "compare": [["b", "a"]]}), folder=tmp_path / "run")
    plan = Study.open(toy(models, verdict={"metric": "agreement"}), folder=tmp_path / "run").plan
    assert plan.comparisons() == []


@pytest.mark.parametrize("answers", ["stored", "live"])
def test_what_is_watched_on_validation_data_is_what_training_minimises(tmp_path: Path, answers: str) -> None:
    """With 30 labels among 300 validation rows: means over the rows that the objective can use, not over all."""
    taught = {
        "network": "mlp:4",
        "teacher": "teacher",
        "objective": {"name": "hinton", "alpha": 0.5},
        "training": {"select": "last"},
    }
    models = {"same": taught | {"known": "labelled", "answers": answers}}
    data = {"source": "digits", "test": 300, "validation": 300, "labelled": 30}
    run(toy(models, data=data, seeds=1), tmp_path / "run")
    folder = tmp_path / "run/models"
    rows = (folder / "alone/seed-0/history.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        assert row["validation_objective"] == pytest.approx(row["validation_cross_entropy"], rel=1e-5)
    last = json.loads((folder / "same/seed-0/history.jsonl").read_text().splitlines()[-1])
    own, teacher = (ps.load(folder / f"{name}/seed-0") for name in ("same", "teacher"))
    validation = ps.data.open(**data, seed=0).validation
    assert validation is not None
    batch = validation.fetch(validation.labelled.nonzero()[:, 0], 0)  # type: ignore[arg-type]
    q, p = (model(batch.inputs).double() for model in (own, teacher))
    soft = 16 * nn.functional.kl_div((q / 4).log_softmax(1), (p / 4).softmax(1), reduction="batchmean")
    wanted = 0.5 * nn.functional.cross_entropy(q, batch.labels) + 0.5 * soft
    assert last["validation_objective"] == pytest.approx(wanted.item(), rel=1e-4)


def test_the_first_of_a_chain_differs_in_no_generation(tmp_path: Path) -> None:
    chain = {"network": "mlp:4", "teacher": "teacher", "generations": 2}
    results = run(toy({"chain": chain}, seeds=1, verdict={"baseline": "alone"}), tmp_path / "run")
    told = {(v.model, v.baseline): v.differs_in for v in results.verdicts}
    first, second = told["chain#1", "alone"], told["chain#2", "alone"]
    assert not [one for one in first if "generation" in one]
    assert second == [*first, "generation (2 against 1)"]
