"""Figures of areas, priors, calibration and intervals along one input: their numbers, and that they are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import run

import potstill as ps
from potstill import bayes, report, storage
from potstill.evaluation import predict
from potstill.report.inputs import load
from potstill.study.along import PLACES, along
from potstill.study.plotted import Figures

GAUSSIAN = {"name": "gaussian", "sigma": 1.0}
PLAN: dict[str, Any] = {
    "title": "A line",
    "seeds": 3,
    "data": {
        "source": {"name": "linear", "features": 1, "train": 120, "test": 60, "noise": 1.0},
        "task": "regression", "redraw": "seed", "validation": 30, "scale_targets": False,
    },
    "training": {"steps": 30, "batch_size": 16, "optimizer": {"name": "adam", "learning_rate": 0.02}, "select": "last"},
    "models": {
        "teacher": {"network": "mlp:9-5", "objective": GAUSSIAN, "inference": "student"},
        "alone": {"network": "mlp:4", "objective": GAUSSIAN, "inference": {"name": "student", "samples": 4}},
        "distil": {
            "network": "mlp:4", "teacher": "teacher", "objective": GAUSSIAN,
            "inference": {"name": "distil-student-all", "samples": 4},
        },
        "plain": {"network": "linear"},
    },
    "evaluation": {"every": 10, "latency": {"batch": []}},
    "verdict": {"metric": {"area_under": "squared_error"}, "baseline": "alone", "compare": [["distil", "alone"]]},
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    folder = tmp_path_factory.mktemp("inferred") / "run"
    run(PLAN, folder)
    _, arrays = load(folder)
    assert arrays is not None
    return folder, arrays


def model_of(folder: Path, name: str, seed: int = 0) -> Any:
    return ps.load(folder / "models" / name / f"seed-{seed}")


def test_curves_that_areas_are_under(done: tuple[Path, Figures]) -> None:
    folder, arrays = done
    assert set(arrays.areas) == set(PLAN["models"])
    one = arrays.areas["distil"]
    for at, seed in enumerate(one.seeds):
        lines = (folder / "models" / "distil" / f"seed-{seed}" / "curve.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert one.steps[at] == [10, 20, 30]
        assert one.series["validation_squared_error"][at] == [row["validation_squared_error"] for row in rows]


def test_what_a_prior_left_out(done: tuple[Path, Figures]) -> None:
    """The layers are merged, then five of nine neurons go: those of the merged posterior with the lowest scores."""
    folder, arrays = done
    assert set(arrays.removed) == {"distil"}
    one = arrays.removed["distil"]
    assert (one.seed, one.layers, one.added) == (0, ["dense1"], [])
    (layer,) = one.neurons
    assert sorted([*layer.removed, *layer.kept]) == list(range(len(layer.removed) + len(layer.kept)))
    assert len(layer.kept) == 4
    assert max(layer.removed_scores) <= min(layer.kept_scores)
    posterior = bayes.load(folder / "models" / "teacher" / "seed-0")
    merged = bayes.remove_layer(posterior, posterior.layout.number(one.layers[0]), "merge")
    found = bayes.ORDERS.call("cost").score(merged, 0, None)
    wanted = [float(found[i]) for i in [*layer.removed, *layer.kept]]
    assert [*layer.removed_scores, *layer.kept_scores] == pytest.approx(wanted)


def test_intervals_along_the_only_input(done: tuple[Path, Figures]) -> None:
    folder, arrays = done
    data = ps.data.open(PLAN["data"]["source"], task="regression", redraw="seed", validation=30, scale_targets=False)
    x = data.train.raw[data.train.rows][:, 0]
    for name in ("distil", "plain"):
        (target, one), *rest = arrays.along[name].items()
        assert (target, rest, one.input, len(one.at)) == (data.spec.targets[0], [], "x1", PLACES)
        assert (one.at[0], one.at[-1]) == pytest.approx((float(x.min()), float(x.max())))
        grid = ps.data.open(
            (np.asarray(one.at, np.float32)[:, None], np.zeros((PLACES, 1))),
            task="regression", test=0, validation=0, scale_targets=False,
        )  # fmt: skip
        found = predict(model_of(folder, name), grid.train)
        np.testing.assert_allclose(one.values, found.values[:, 0], atol=1e-5)
        if found.log_variances is None:
            held = predict(model_of(folder, name), data.validation)
            wanted = np.full(PLACES, np.sqrt(np.square(held.values - held.labels).mean()))
        else:
            wanted = np.exp(found.log_variances[:, 0] / 2)
        np.testing.assert_allclose(one.sigmas, wanted, rtol=1e-4)
        assert one.points == pytest.approx(data.test.fetch(torch.arange(60)).inputs[:, 0].tolist())
        assert one.labels == pytest.approx(data.test.labels[:, 0].tolist())


class Answers:
    """Satisfies `types.Teacher`: the sum of the inputs, with a variance of 4."""

    kind = "gaussian"
    classes = None

    def fingerprint(self) -> str:
        return "sum"

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([inputs.sum(1), torch.full((len(inputs),), 4.0).log()], 1)


def test_of_several_inputs_the_one_that_goes_most_with_the_target() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    x[:, 3] = 5.0
    y = x @ np.array([[0.1], [0.2], [-3.0], [9.0]]) + 0.1 * rng.normal(size=(200, 1))
    data = ps.data.open((x, y), task="regression", test=50, validation=0)
    told = along(Answers(), data)  # type: ignore[arg-type]
    assert told["input"] == "x3"
    rows = data.train.raw[data.train.rows].double()
    rest = rows.mean(0)[[0, 1, 3]].sum()
    np.testing.assert_allclose(told["values"][0], np.asarray(told["at"]) + float(rest), atol=1e-4)
    np.testing.assert_allclose(told["sigmas"][0], 2.0, rtol=1e-5)
    assert "points" not in told


def test_where_there_is_no_line() -> None:
    assert along(Answers(), ps.data.open("digits")) == {}  # type: ignore[arg-type]
    pictures = np.zeros((30, 4, 4), np.float32)
    data = ps.data.open((pictures, np.arange(30.0)), task="regression")
    assert along(Answers(), data) == {}  # type: ignore[arg-type]


def test_an_area_of_data_drawn_anew_is_on_validation_data(done: tuple[Path, Figures]) -> None:
    folder, _ = done
    results, _ = load(folder)
    (verdict,) = results.verdicts
    assert verdict.method == "nested"
    assert "for fresh training runs, each on data drawn anew" in verdict.sentence
    assert "test example" not in verdict.sentence
    page = report.write(folder).read_text(encoding="utf-8")
    assert "area under squared error on validation data" in page
    assert "area under squared error on test" not in page


def test_the_page_draws_them(done: tuple[Path, Figures]) -> None:
    folder, _ = done
    page = report.write(folder).read_text(encoding="utf-8")
    for title in (
        "Area between distil against alone",
        "Scores of the neurons of",
        "Calibration of distil against alone",
        "Predictive interval of",
        '<p class="flow">posterior as prior</p>',
        ">distil-student-all(samples=4)<",
    ):
        assert title in page
    assert "recorded outputs" not in page.partition('<h2 id="family">')[2].partition("</section>")[0]
    written = [path.name for path in report.write_figures(folder, folder / "figures")]
    for start in ("area-", "removed-", "calibrated-", "along-"):
        assert any(name.startswith(start) for name in written), start


def test_studies_without_them_say_nothing_of_them(tmp_path: Path) -> None:
    plan = {
        "title": "Plain", "seeds": 1, "data": {"source": "digits", "labelled": 50}, "training": {"steps": 3},
        "models": {"a": {"network": "linear"}}, "evaluation": {"latency": {"batch": []}},
    }  # fmt: skip
    run(plan, tmp_path / "run")
    _, arrays = load(tmp_path / "run")
    assert arrays is not None
    assert (arrays.areas, arrays.removed, arrays.along) == ({}, {}, {})
    page = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "What priors left out" not in page
    assert "Along one input" not in page
    told = storage.read_json(tmp_path / "run" / "models" / "a" / "seed-0" / "evaluation.json")
    assert "along" not in told
