"""A study of a regression, end to end: plan, verdicts, results, report, the command line."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from study_samples import changed, run

import potstill as ps
from potstill import report, storage
from potstill.cli import call
from potstill.data import columns
from potstill.errors import PlanError
from potstill.evaluation import load_predictions
from potstill.study.correlation import linear
from potstill.study.drawn import worst_rows
from potstill.study.plan import Plan
from potstill.study.plotted import Figures
from potstill.study.results import Results
from potstill.study.statistics import crossed, half_width
from potstill.study.values import reach

PLAN: dict[str, Any] = {
    "title": "Diabetes",
    "seeds": 3,
    "data": {"source": "diabetes", "task": "regression", "validation": 60, "test": 80, "labelled": 80},
    "training": {"epochs": 6, "batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 0.03}},
    "models": {
        "teacher": {"network": "mlp:8", "members": 2},
        "unsure": {"network": "mlp:8", "objective": "gaussian"},
        "alone": {"network": "linear"},
        "taught": {"network": "linear", "teacher": "teacher"},
        "told": {
            "network": "linear",
            "teacher": "unsure",
            "objective": {"name": "probabilistic_regression", "sigma": "learned", "teacher_sigma": "teacher"},
        },
    },
    "evaluation": {"splits": ["train", "validation", "test"], "latency": {"batch": []}},
    "verdict": {"metric": "r2", "baseline": "alone", "margin": 0.05},
}
TARGET = "disease progression"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("study") / "run"
    return folder, run(PLAN, folder)


def predictions(folder: Path, model: str, seed: int, split: str = "test") -> Any:
    return load_predictions(folder / "models" / model / f"seed-{seed}" / "predictions" / f"{split}.safetensors")


# ---------------------------------------------------------------- plans


def plan(**changes: Any) -> Plan:
    return Plan.from_dict(changed(PLAN, **changes))


def test_defaults_of_a_regression() -> None:
    found = plan(verdict=None, models__told=None)
    assert found.verdict.metric == "squared_error"
    objectives = {name: found.resolved(name).objective[0]["name"] for name in ("alone", "taught", "unsure")}  # type: ignore[index]
    assert objectives == {"alone": "squared_error", "taught": "probabilistic_regression", "unsure": "gaussian"}
    assert found.resolved("alone").training.select == "squared_error"  # type: ignore[union-attr]
    assert Plan.from_dict(found.to_dict()) == found
    classes = Plan.from_dict({"data": {"source": "digits"}, "models": {"a": {"network": "linear"}}})
    assert (classes.verdict.metric, classes.resolved("a").objective[0]["name"]) == ("accuracy", "hard_labels")  # type: ignore[index]


def test_what_picks_the_weights_can_be_watched() -> None:
    """A likelihood can be watched of models that answer variances; others are picked by their squared error."""
    found = plan(verdict__metric="negative_log_likelihood")
    picked = {name: found.resolved(name).training.select for name in ("alone", "unsure", "told")}  # type: ignore[union-attr]
    assert picked == {"alone": "squared_error", "unsure": "negative_log_likelihood", "told": "squared_error"}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"models__alone__objective": "hard_labels"}, "models.alone.objective", '"hard_labels" learns classes; data.task'),
    ({"models__taught__objective": "hinton"}, "models.taught.objective", '"hinton" learns classes'),
    ({"verdict__metric": "accuracy"}, "verdict.metric", '"accuracy" is a metric of another task than "regression"'),
    ({"training__select": "brier"}, "training.select", "metric of another task"),
    ({"models__alone__training": {"monitor": "brier"}}, "models.alone.training.monitor", "metric of another task"),
    ({"training__label_smoothing": 0.1}, "training.label_smoothing", "spreads labels over classes"),
    ({"published": {"source": "s", "accuracy": {"alone": 0.5}}}, "published.accuracy", "metric of another task"),
    ({"data__task": "multiclass"}, "verdict.metric", '"r2" is a metric of another task than "multiclass"'),
    ({"data__task": "multiclass", "verdict": None}, "models.unsure.objective", '"gaussian" learns gaussian; data.task'),
    (
        {"models__brought": {"outputs": "a.npy", "kind": "logits"}},
        "models.brought.kind",
        '"logits" does not go with data.task = "regression"',
    ),
    (
        {"verdict__metric": "negative_log_likelihood", "evaluation__splits": ["test"]},
        "evaluation.splits",
        '"teacher" answers values alone, so a likelihood needs its errors on "validation"',
    ),
    ({"models__alone__objective": "squared_eror"}, "models.alone.objective", 'Did you mean "squared_error"'),
]


@pytest.mark.parametrize(("changes", "key", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_of_another_task_is_refused(changes: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)) as caught:
        plan(**changes)
    assert caught.value.key == key


def test_targets_are_of_a_regression() -> None:
    raw = {"data": {"source": "digits", "scale_targets": False}, "models": {"a": {"network": "linear"}}}
    with pytest.raises(PlanError, match="targets are of a regression") as caught:
        Plan.from_dict(raw)
    assert caught.value.key == "data.scale_targets"
    assert plan(data__scale_targets=False).data_dict()["scale_targets"] is False


# ---------------------------------------------------------------- results


def test_results_are_what_the_models_do(done: tuple[Path, Results]) -> None:
    """Every number of the table again, from the model folders and the data, by another way."""
    folder, results = done
    opened = PLAN["data"] | {"labelled": None}
    test = ps.data.open(opened["source"], **{key: opened[key] for key in ("task", "validation", "test")}).test
    batch = test.fetch(torch.arange(len(test)))  # type: ignore[union-attr]
    labels = batch.labels.numpy().astype(float)
    for name in ("alone", "taught", "told"):
        for seed in range(3):
            model = ps.load(folder / "models" / name / f"seed-{seed}")
            values = model(batch.inputs).numpy().astype(float)
            told = results.models[name].metrics
            assert told["squared_error"].values[seed] == pytest.approx(sk.mean_squared_error(labels, values), rel=1e-5)
            assert told["absolute_error"].values[seed] == pytest.approx(
                sk.mean_absolute_error(labels, values), rel=1e-5
            )
            assert told["r2"].values[seed] == pytest.approx(sk.r2_score(labels, values), rel=1e-4)
            held = predictions(folder, name, seed, "validation")
            sigma = np.sqrt(np.square(held.values.astype(float) - held.labels).mean())
            density = -stats.norm.logpdf(labels, values, sigma).mean()
            assert told["negative_log_likelihood"].values[seed] == pytest.approx(density, rel=1e-5)
    unsure = predictions(folder, "unsure", 0)
    density = -stats.norm.logpdf(unsure.labels, unsure.values, np.exp(unsure.log_variances / 2)).mean()
    assert results.models["unsure"].metrics["negative_log_likelihood"].values[0] == pytest.approx(density, rel=1e-4)
    members = [ps.load(folder / f"models/teacher/seed-1/member-{i}")(batch.inputs).numpy() for i in (1, 2)]
    found = predictions(folder, "teacher", 1).values
    np.testing.assert_allclose(found, np.mean(members, axis=0), rtol=1e-5)
    gap = np.square(found.astype(float) - predictions(folder, "taught", 1).values).mean()
    assert results.models["taught"].metrics["teacher_squared_error"].values[1] == pytest.approx(gap, rel=1e-5)


def test_the_verdict_on_r2_by_the_jackknife(done: tuple[Path, Results]) -> None:
    folder, results = done
    verdict = next(v for v in results.verdicts if (v.model, v.baseline) == ("taught", "alone"))
    assert (verdict.metric, verdict.method, verdict.examples, verdict.better) == ("r2", "crossed", 80, "higher")
    table = []
    for seed in range(3):
        pseudo = []
        for name in ("taught", "alone"):
            one = predictions(folder, name, seed)
            y, v = one.labels[:, 0].astype(float), one.values[:, 0].astype(float)
            whole = sk.r2_score(y, v)
            pseudo.append([80 * whole - 79 * sk.r2_score(np.delete(y, i), np.delete(v, i)) for i in range(80)])
        table.append(np.subtract(*pseudo))
    half = float(half_width(crossed(np.array(table)), len(results.verdicts)))
    ours, theirs = (results.models[name].metrics["r2"].mean for name in ("taught", "alone"))
    assert verdict.difference == pytest.approx(ours - theirs)
    assert verdict.interval == pytest.approx((ours - theirs - half, ours - theirs + half), rel=1e-4)
    assert "R²" in verdict.sentence


@pytest.mark.parametrize("metric", ["squared_error", "negative_log_likelihood"])
def test_verdicts_on_metrics_of_single_examples(done: tuple[Path, Results], tmp_path: Path, metric: str) -> None:
    """The same run judged in another metric: nothing is trained anew."""
    shutil.copytree(done[0], tmp_path / "run")
    results = run(changed(PLAN, verdict__metric=metric, training__select="r2"), tmp_path / "run")
    verdict = next(v for v in results.verdicts if (v.model, v.baseline) == ("taught", "alone"))
    assert (verdict.metric, verdict.method, verdict.better) == (metric, "crossed", "lower")
    values = [results.models[name].metrics[metric].mean for name in ("taught", "alone")]
    assert verdict.difference == pytest.approx(values[0] - values[1])


def test_measures_of_every_split_and_target(done: tuple[Path, Results]) -> None:
    folder, results = done
    one = results.models["alone"].values
    assert {name: (part.examples, part.labelled) for name, part in one.items()} == {
        "train": (302, 80),
        "validation": (60, 60),
        "test": (80, 80),
    }
    assert (one["test"].variance, results.models["unsure"].values["test"].variance) == ("validation", "answered")
    for name in ("alone", "unsure"):
        found = predictions(folder, name, 2)
        told = results.models[name].values["test"].targets[TARGET]
        residuals = (found.labels - found.values.astype(float))[:, 0]
        assert told.bias.values[2] == pytest.approx(-residuals.mean(), rel=1e-4)
        held = predictions(folder, name, 2, "validation")
        logs = found.log_variances
        sigma = np.sqrt(np.square(held.labels - held.values.astype(float)).mean()) if logs is None else np.exp(logs / 2)
        for part in told.coverage:
            inside = stats.norm(0, np.ravel(sigma)).interval(part.level)
            assert part.share.values[2] == np.mean((residuals >= inside[0]) & (residuals <= inside[1]))
            assert part.width.values[2] == pytest.approx(np.mean(inside[1] - inside[0]), rel=1e-5)
    assert [part.level for part in told.coverage] == [0.5, 0.8, 0.9, 0.95]
    assert reach(0.95) == pytest.approx(1.959964, rel=1e-6)


def test_the_table_of_errors(done: tuple[Path, Results]) -> None:
    folder, results = done
    rows = list(csv.DictReader(io.StringIO((folder / "errors.csv").read_text())))
    assert len(rows) == 5 * 3 * 3
    row = next(r for r in rows if (r["model"], r["seed"], r["split"]) == ("alone", "1", "test"))
    told = results.models["alone"].values["test"].targets[TARGET]
    assert float(row["r2"]) == pytest.approx(told.r2.values[1], rel=1e-4)
    assert float(row["covered_0.8"]) == pytest.approx(told.coverage[1].share.values[1], rel=1e-4)
    assert not (folder / "uncertainty.csv").exists()


def test_what_students_errors_have_of_their_teachers(done: tuple[Path, Results]) -> None:
    folder, results = done
    assert set(results.shared_errors) == {"taught", "told"}
    assert results.inheritance == {}
    one = results.shared_errors["taught"][TARGET]

    def left(name: str, seed: int) -> np.ndarray[Any, Any]:
        found = predictions(folder, name, seed)
        return (found.labels - found.values.astype(float))[:, 0]

    wanted = [np.corrcoef(left("teacher", seed), left("taught", seed))[0, 1] for seed in range(3)]
    assert one.correlation.values == pytest.approx(wanted, rel=1e-6)
    never_met = [np.corrcoef(left("teacher", seed), left("alone", seed))[0, 1] for seed in range(3)]
    assert one.baseline == pytest.approx(np.mean(never_met), rel=1e-6)
    assert one.distance.values == pytest.approx(
        [np.abs(left("teacher", seed) - left("taught", seed)).mean() for seed in range(3)], rel=1e-5
    )
    assert one.correlation.interval is not None
    assert one.correlation.interval[0] < one.correlation.mean < one.correlation.interval[1]  # type: ignore[operator]


def test_pearsons_correlation_with_every_example_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=25) + 100, rng.normal(size=25)
    found = linear(a, b)
    whole = np.corrcoef(a, b)[0, 1]
    brute = [25 * whole - 24 * np.corrcoef(np.delete(a, i), np.delete(b, i))[0, 1] for i in range(25)]
    assert found.value == pytest.approx(whole)
    np.testing.assert_allclose(found.pseudo, brute, rtol=1e-9)
    assert np.isnan(linear(np.full(5, 3.3), np.arange(5.0)).value)
    assert linear(np.arange(5.0), -2 * np.arange(5.0)).value == pytest.approx(-1)


def test_figures_hold_points_residuals_and_intervals(done: tuple[Path, Results]) -> None:
    folder, _ = done
    arrays = Figures.model_validate(storage.read_json(folder / "figures.json"))
    assert arrays.targets == [TARGET]
    assert set(arrays.errors) == set(PLAN["models"])
    one = arrays.errors["unsure"][TARGET]
    found = predictions(folder, "unsure", 0)
    np.testing.assert_allclose(one.predicted, found.values[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(one.true, found.labels[:, 0])
    assert [sum(counts) for counts in one.counts] == [80, 80, 80]
    assert len(one.edges) % 2 == 0
    assert one.edges[0] == -one.edges[-1]
    at = one.levels.index(0.9)
    inside = np.abs(found.labels - found.values) <= stats.norm.ppf(0.95) * np.exp(found.log_variances / 2)
    assert one.covered[0][at] == pytest.approx(inside.mean())


def test_telling_rows_are_those_that_all_models_miss(done: tuple[Path, Results]) -> None:
    folder, _ = done
    arrays = Figures.model_validate(storage.read_json(folder / "figures.json"))
    (one,) = arrays.telling
    found = {name: [predictions(folder, name, seed) for seed in range(3)] for name in PLAN["models"]}
    sizes = [np.mean([np.abs(p.labels - p.values)[:, 0] for p in many], axis=0) for many in found.values()]
    order = np.argsort(-np.mean(sizes, axis=0), kind="stable")
    assert [row.row for row in one.rows] == order[:10].tolist()
    test = ps.data.open("diabetes", task="regression", validation=60, test=80).test
    for row in one.rows:
        assert row.inputs == pytest.approx(test.raw[int(test.rows[row.row])].tolist())  # type: ignore[union-attr]
        assert row.label == float(test.labels[row.row, 0])  # type: ignore[union-attr]
        assert row.predicted["alone"] == pytest.approx(
            np.mean([p.values[row.row, 0] for p in found["alone"]]), rel=1e-5
        )
    assert one.inputs == [f"x{i}" for i in range(1, 11)]


def test_worst_rows_of_each_target() -> None:
    labels, found = np.zeros((50, 2)), np.zeros((50, 2))
    found[:, 0], found[:, 1] = np.arange(50), -np.arange(50)[::-1]
    labelled = np.arange(50) != 49
    assert worst_rows(labels, found, labelled) == [*range(20), *range(29, 49)]


def test_a_row_of_a_table_is_told_as_it_was() -> None:
    recipe = {
        "columns": [
            {"as": "number", "name": "age", "mean": 40.0, "std": 10.0, "flagged": True},
            {"as": "category", "name": "town", "values": ["Perm", "Ufa"]},
            {"as": "number", "name": "height", "mean": 1.7, "std": 0.1, "flagged": False},
        ]
    }
    told = columns.decoded(recipe, [1.5, 0.0, 0.0, 1.0, -1.0])
    assert told == {"age": 55.0, "town": "Ufa", "height": pytest.approx(1.6)}
    assert columns.decoded(recipe, [0.0, 1.0, 0.0, 0.0, 0.0]) == {"age": None, "town": None, "height": 1.7}
    number = {"columns": [{"as": "number", "name": "x", "mean": -2.37, "std": 1.51, "flagged": False}]}
    for x in (0.0, -2.4, 5.0):  # float32 rounds what the network sees
        assert columns.decoded(number, [float(np.float32((x + 2.37) / 1.51))]) == {"x": x}


def test_results_follow_the_published_schema(done: tuple[Path, Results]) -> None:
    schema = json.loads((Path(__file__).parents[1] / "docs" / "results.schema.json").read_text())
    jsonschema.validate(storage.read_json(done[0] / "results.json"), schema)


# ---------------------------------------------------------------- other forms of a study


def test_several_targets_views_and_conditions(tmp_path: Path) -> None:
    """Pictures, two targets, views, the teacher's values as labels, one seed, two teachers that count as one."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, size=(150, 6, 6), dtype=np.uint8)
    labels = np.stack([pictures[:, :3].mean((1, 2)), pictures[:, :, 0].mean(1) * 100 + 5000], 1)
    source = {"x": pictures, "y": labels, "target_names": ["top", "side"]}
    small = {"network": "linear", "teacher": ["a", "b"], "generations": 2}
    found = run(
        {
            "seeds": 1,
            "data": {"source": source, "task": "regression", "test": 30, "validation": 30},
            "training": {"epochs": 1, "augment": ["flip"]},
            "models": {"a": {"network": "linear"}, "b": {"network": "mlp:4"}, "c": small},
            "evaluation": {"labels": ["true", "teacher"], "views": [0, 2], "latency": {"batch": []}},
        },
        tmp_path,
    )
    assert found.metric == "squared_error"
    assert found.data["targets"] == ["top", "side"]
    assert set(found.models["c#1"].values["test"].targets) == {"top", "side"}
    told = {(one.labels, one.views): one for one in found.models["c#1"].conditions}
    assert set(told) == {("true", 0), ("teacher", 0), ("true", 2), ("teacher", 2)}
    folder = tmp_path / "models"
    a, b = (load_predictions(folder / name / "seed-0/predictions/test.safetensors") for name in "ab")
    c = load_predictions(folder / "c/generation-1/seed-0/predictions/test.safetensors")
    gap = np.square((a.values.astype(float) + b.values) / 2 - c.values).mean()
    assert told["teacher", 0].metrics["squared_error"].mean == pytest.approx(gap, rel=1e-5)
    assert set(told["teacher", 0].metrics) == {"squared_error", "absolute_error"}
    assert "target1" not in report.write(tmp_path).read_text()
    arrays = Figures.model_validate(storage.read_json(tmp_path / "figures.json"))
    assert [one.target for one in arrays.telling] == ["top", "side"]
    assert all(not row.inputs for one in arrays.telling for row in one.rows)  # pictures have no few numbers


def test_a_sweep_over_targets(tmp_path: Path) -> None:
    """What is told of a target is of the models that learnt it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    rows = np.column_stack([x, x[:, 0], 1000 * x[:, 1], 50 + x[:, 2]])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="a,b,c,first,second,third", comments="")
    found = run(
        {
            "seeds": 2,
            "data": {
                "source": str(tmp_path / "a.csv"),
                "task": "regression",
                "target": "first",
                "inputs": {"x": {"columns": ["a", "b", "c"]}},
                "test": 30,
                "validation": 30,
            },
            "training": {"steps": 8, "batch_size": 20},
            "models": {"alone": {"network": "linear"}, "student": {"network": "linear", "teacher": "alone"}},
            "sweep": {"data.target": ["first", "second", ["third", "first"]]},
            "evaluation": PLAN["evaluation"],
        },
        tmp_path / "run",
    )
    assert found.data["targets"] == ["first", "second", "third"]
    told = {key: list(model.values["test"].targets) for key, model in found.models.items()}
    assert sorted(told.values()) == sorted(2 * [["first"], ["second"], ["third", "first"]])
    assert all(np.ravel(found.models[key].point["data.target"]).tolist() == one for key, one in told.items())
    assert all(list(one) == told[key] for key, one in found.shared_errors.items())
    arrays = Figures.model_validate(storage.read_json(tmp_path / "run" / "figures.json"))
    assert {key: set(one) for key, one in arrays.errors.items()} == {key: set(one) for key, one in told.items()}
    ends = {name: {one[name].edges[-1] for one in arrays.errors.values() if name in one} for name in arrays.targets}
    assert all(len(of) == 1 for of in ends.values())  # models of one target are drawn in the same bins
    assert min(ends["second"]) > 50 * max(*ends["first"], *ends["third"])
    assert [(one.target, len(one.rows[0].predicted)) for one in arrays.telling] == [
        ("first", 4),
        ("second", 2),
        ("third", 2),
    ]
    key = next(key for key in arrays.errors if key.startswith("alone") and "third" in key)
    one = predictions(tmp_path / "run", Path(found.models[key].ship.folder).parent.relative_to("models"), 0)  # type: ignore[union-attr,arg-type]
    worst = arrays.telling[0].rows[0]
    assert worst.label == one.labels[worst.row, 1]
    page = report.write(tmp_path / "run").read_text()
    assert all(f"Errors of {name} on 30 test examples" in page for name in arrays.targets)


def test_brought_values_and_tuning(tmp_path: Path) -> None:
    data = ps.data.open("diabetes", task="regression", validation=60, test=80)
    np.save(tmp_path / "values.npy", data.train.labels.numpy() + 1)
    found = run(
        {
            "seeds": 1,
            "data": {key: PLAN["data"][key] for key in ("source", "task", "validation", "test")},
            "training": PLAN["training"] | {"epochs": 2},
            "models": {
                "brought": {"outputs": str(tmp_path / "values.npy"), "kind": "values"},
                "student": {"network": "linear", "teacher": "brought"},
                "alone": {"network": "linear"},
            },
            "tune": {"seeds": 1, "search": {name: {"training.batch_size": [64, 256]} for name in ("student", "alone")}},
            "verdict": {"baseline": "alone"},
            "evaluation": PLAN["evaluation"],
        },
        tmp_path / "run",
    )
    assert found.tuning is not None
    assert (found.tuning.metric, found.tuning.better) == ("squared_error", "lower")
    one = found.tuning.models["student"]
    assert one.winner == 1 + int(np.argmin([trial.mean for trial in one.trials]))  # type: ignore[type-var]
    assert found.verdicts[0].metric == "squared_error"


# ---------------------------------------------------------------- report and command line


def test_the_page_tells_of_errors(done: tuple[Path, Results]) -> None:
    page = report.write(done[0]).read_text(encoding="utf-8")
    for section in ("errors", "intervals", "telling", "inherited", "curves"):
        assert f'<h2 id="{section}">' in page
        assert f'href="#{section}"' in page
    for absent in ("uncertainty", "confusion", "calibration", "frequencies"):
        assert f'id="{absent}"' not in page
    for title in (
        "Predicted against true",
        "Residuals against predicted",
        "Distribution of residuals",
        "How intervals",
    ):
        assert page.count(f'-title">{title}') == 5
    assert "errors on validation data" in page
    assert "variances that it answers" in page
    assert f"The 10 test examples of which all models miss {TARGET} by most" in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).split()


def test_the_command_line_knows_values(done: tuple[Path, Results], tmp_path: Path, capsys: Any) -> None:
    folder, _ = done
    model = str(folder / "models" / "unsure" / "seed-0")
    options = ["--validation", "60", "--test", "80"]
    assert call(["predict", model, "diabetes", *options]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = predictions(folder, "unsure", 0)
    assert len(rows) == 80
    assert list(rows[0]) == ["row", TARGET, f"sd({TARGET})", f"label({TARGET})"]
    assert float(rows[3][TARGET]) == pytest.approx(found.values[3, 0], rel=1e-6)
    assert float(rows[3][f"sd({TARGET})"]) == pytest.approx(np.exp(found.log_variances[3, 0] / 2), rel=1e-5)
    assert float(rows[3][f"label({TARGET})"]) == found.labels[3, 0]
    assert call(["predict", model, "diabetes", *options, "--out", str(tmp_path / "a.npz")]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["values"], found.values)
        assert arrays["targets"].tolist() == [TARGET]
        assert set(arrays) == {"values", "targets", "sds", "labels"}
    np.save(tmp_path / "new.npy", np.zeros((2, 10), np.float32))
    capsys.readouterr()
    assert call(["predict", str(folder / "models" / "teacher" / "seed-0"), str(tmp_path / "new.npy")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"row,{TARGET}"
    assert call(["record", model, "diabetes", "--out", str(tmp_path / "outputs"), *options]) == 0
    assert "2 gaussian" in capsys.readouterr().out
    assert call(["verify", str(folder)]) == 0


def test_a_plan_of_a_regression_is_checked(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "plan.toml").write_text(plan(seeds=1).to_toml())
    assert call(["check", str(tmp_path / "plan.toml")]) == 0
    assert f"1 target ({TARGET})" in capsys.readouterr().out
