"""Uncertainty, accuracy and prediction frequencies on every split and class, against numpy on stored predictions."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from safetensors.numpy import load_file
from study_samples import BASE, changed, odd_or_even, run

import potstill as ps
from potstill import metrics, report, storage
from potstill.errors import DataError
from potstill.report import spread, theme
from potstill.study import splits
from potstill.study.plotted import Figures, Frequencies
from potstill.study.results import Results

SPLITS = ("train", "validation", "test")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("splits") / "run"
    return folder, run(odd_or_even(), folder)


def stored(folder: Path, model: str, seed: int, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(n,) probability of the second class in float64, and (n,) labels."""
    found = load_file(folder / f"models/{model}/seed-{seed}/predictions/{split}.safetensors")
    assert found["labelled"].all()
    return np.exp(found["log_probs"].astype(np.float64))[:, 1], found["labels"]


def path_of(key: str) -> str:
    return re.sub(r"#(\d)", r"/generation-\1", key)


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_frequencies_by_loops(classes: int) -> None:
    random = np.random.default_rng(classes)
    p = random.dirichlet(np.full(classes, 0.4), 500)
    p[:4] = np.eye(classes)[[0, 1, 0, 1]]
    p[4] = 1 / classes
    chosen = p[:, 1] if classes == 2 else p.max(axis=1)
    wanted = [0] * 20
    for x in chosen:
        wanted[next(b for b in reversed(range(20)) if round(x, 6) >= b / 20)] += 1
    with np.errstate(divide="ignore"):
        logs = np.log(p).astype(np.float32)
    assert metrics.frequencies(metrics.probability(logs)).tolist() == wanted
    assert sum(wanted) == 500


@pytest.mark.parametrize("number", range(20))
def test_an_edge_belongs_to_the_bin_above_it(number: int) -> None:
    """Also after the logarithm of a float32; the last bin holds 1."""
    p = number / 20
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[1 - p, p]], np.float32))
    assert metrics.frequencies(metrics.probability(logs)).argmax() == number
    assert metrics.lows()[number] == p
    assert metrics.frequencies(np.array([1.0]))[19] == 1


def test_what_is_no_prediction_is_refused() -> None:
    with pytest.raises(DataError, match="do not sum to one"):
        metrics.probability(np.zeros((3, 2)))


# ---------------------------------------------------------------- a study


def test_every_split_by_hand(done: tuple[Path, Results]) -> None:
    folder, results = done
    sizes = {"train": 1397, "validation": 100, "test": 300}
    for key, model in results.models.items():
        assert set(model.splits) == set(SPLITS)
        for split, one in model.splits.items():
            assert one.examples == one.labelled == sizes[split]
            assert list(one.classes) == ["even", "odd"]
            for seed in range(3):
                p, y = stored(folder, path_of(key), seed, split)
                own = (p > 0.5).astype(int)
                uncertain = (p - own) ** 2  # eq. 15, word for word
                assert one.uncertainty.values[seed] == pytest.approx(uncertain.mean())
                assert one.accuracy is not None
                assert one.accuracy.values[seed] == pytest.approx(np.mean(own == y))
                for number, name in enumerate(("even", "odd")):
                    part = one.classes[name]
                    assert part.examples == np.sum(y == number)
                    assert part.uncertainty.values[seed] == pytest.approx(uncertain[y == number].mean())
                    assert part.accuracy.values[seed] == pytest.approx(np.mean(own[y == number] == number))
        assert model.splits["test"].uncertainty == model.metrics["uncertainty"]
        assert model.splits["validation"].accuracy == model.validation["accuracy"]


def test_the_tables_of_a_spreadsheet(done: tuple[Path, Results]) -> None:
    folder, results = done
    with (folder / "prediction_frequencies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.models) * 3 * 3 * 3 * 20
    wanted = {}
    for key in results.models:
        for split in SPLITS:
            for seed in range(3):
                p, y = stored(folder, path_of(key), seed, split)
                for number, name in ((None, ""), (0, "even"), (1, "odd")):
                    some = p if number is None else p[y == number]
                    wanted[key, str(seed), split, name] = np.histogram(some, np.arange(21) / 20)[0].tolist()
    found: dict[Any, list[int]] = {}
    for row in rows:
        found.setdefault((row["model"], row["seed"], row["split"], row["class"]), []).append(int(row["count"]))
        assert float(row["bin_high"]) - float(row["bin_low"]) == pytest.approx(0.05)
        total = sum(wanted[row["model"], row["seed"], row["split"], row["class"]])
        assert float(row["share"]) == pytest.approx(int(row["count"]) / total, rel=1e-5)
    assert found == wanted
    with (folder / "uncertainty.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.models) * 3 * 3 * 3
    for row in rows:
        whole = results.models[row["model"]].splits[row["split"]]
        one = whole.classes[row["class"]] if row["class"] else whole
        assert float(row["uncertainty"]) == pytest.approx(one.uncertainty.values[int(row["seed"])], rel=1e-5)
        assert int(row["examples"]) == one.examples


def test_hidden_labels_are_no_part_of_an_accuracy(tmp_path: Path) -> None:
    plan = changed(BASE, seeds=2, training__steps=5, evaluation__splits=["train", "test"])
    plan["models"] = {"alone": {"network": "linear"}, "one": {"network": "linear", "shared": True}}
    results = run(plan, tmp_path / "run")
    one = results.models["alone"].splits["train"]
    assert (one.examples, one.labelled) == (1397, 200)
    assert sum(part.examples for part in one.classes.values()) == 200
    found = load_file(tmp_path / "run/models/alone/seed-1/predictions/train.safetensors")
    p = np.exp(found["log_probs"].astype(np.float64))
    uncertain = [0.5 * np.sum((row - np.eye(10)[row.argmax()]) ** 2) for row in p]
    assert one.uncertainty.values[1] == pytest.approx(np.mean(uncertain))
    right = p.argmax(1)[found["labelled"]] == found["labels"][found["labelled"]]
    assert one.accuracy is not None
    assert one.accuracy.values[1] == pytest.approx(right.mean())
    assert "validation" not in results.models["alone"].splits
    assert results.models["alone"].ship is None
    figures = Figures.model_validate(storage.read_json(tmp_path / "run/figures.json"))
    shared = figures.frequencies["one"]["test"]
    assert (shared.seeds, len(shared.counts), shared.classes) == ([0], 1, {})  # one training, ten classes
    assert figures.frequencies["alone"]["test"].seeds == [0, 1]
    rows = (tmp_path / "run/prediction_frequencies.csv").read_text().splitlines()
    assert sum(row.startswith("one,") for row in rows) == 2 * 11 * 20
    by_class = [row.split(",") for row in rows if row.startswith("alone,1,train,") and ",train,," not in row]
    assert sum(int(row[6]) for row in by_class) == 200
    assert report.write(tmp_path / "run").is_file()


def test_a_split_that_is_added_is_all_that_is_predicted(done: tuple[Path, Results], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = run(odd_or_even(evaluation__splits=["test"], seeds=1), folder)
    before = (folder / "models/alone/seed-0/predictions/test.safetensors").stat().st_mtime_ns
    again = run(odd_or_even(seeds=1), folder)
    assert set(first.models["alone"].splits) == {"test"}
    assert set(again.models["alone"].splits) == set(SPLITS)
    assert again.test_reads.count == 1
    assert (folder / "models/alone/seed-0/predictions/test.safetensors").stat().st_mtime_ns == before
    wanted = storage.read_json(done[0] / "models/alone/seed-0/evaluation.json")
    assert storage.read_json(folder / "models/alone/seed-0/evaluation.json") == wanted
    fewer = run(odd_or_even(evaluation__splits=["test"], seeds=1), folder)
    assert set(fewer.models["alone"].splits) == {"test"}


def test_an_evaluation_of_before_counts(tmp_path: Path) -> None:
    """Files of an older version do not tell what was asked: validation and test data."""
    folder, plan = tmp_path / "run", changed(BASE, seeds=2, training__steps=5, evaluation__splits=list(SPLITS))
    done = run(plan, folder)
    for path in folder.glob("models/**/evaluation.json"):
        found = storage.read_json(path)
        del found["asked"], found["sha256"]["train"]
        storage.write_json(path, found)
        (path.parent / "predictions/train.safetensors").unlink()
    results = run(plan, folder)
    assert results.test_reads.count == 1
    assert results.models == done.models


def test_stored_labels_are_those_of_the_data(done: tuple[Path, Results]) -> None:
    plan = odd_or_even()
    data = ps.data.open(plan["data"]["source"], task="binary", test=300, validation=100)
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert part is not None
        assert stored(done[0], "alone", 0, name)[1].tolist() == part.labels.tolist()


# ---------------------------------------------------------------- the report


def test_the_page_tells_every_split(done: tuple[Path, Results]) -> None:
    folder, results = done
    page = report.write(folder).read_text()
    assert 'id="uncertainty"' in page
    assert 'id="frequencies"' in page
    assert "probability of odd" in page
    assert f"{results.models['chain#2'].splits['train'].uncertainty.mean:.4f}" in page
    assert page.count("by true class</title>") == len(results.models) * 3


def test_a_histogram_is_drawn_to_scale() -> None:
    counts = [[40, 0, *([1] * 17), 43], [60, 0, *([1] * 17), 23]]
    one = spread.steps("this model", counts)
    assert one is not None
    with theme.drawing():
        drawing = spread.histogram([one, None], "probability of odd", "t", prefix="h")
    assert drawing is not None
    root = ET.fromstring(drawing)
    texts = [(t.text or "", float(t.get("y", 0))) for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "end"]
    ticks = [(float(text), y) for text, y in texts if re.fullmatch(r"[\d.]+", text)]
    assert [tick for tick, _ in ticks] == [0.1, 1.0, 10.0, 100.0]
    slope, zero = np.polyfit(np.log10([t for t, _ in ticks]), [y for _, y in ticks], 1)
    line = max((p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("stroke-width") == "2"), key=len)
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", line), float)
    drawn = zero + slope * np.log10([50.0, 0.1, 1.0, 33.0])
    heights = sorted(set(points[:, 1]))
    np.testing.assert_allclose(heights, np.sort(drawn) - (np.sort(drawn) - heights).mean(), atol=0.3)
    description = root.find(f"{SVG}desc")
    assert description is not None
    assert (description.text or "").startswith("this model, 100 examples: 0.00 to 0.05: 50.00 %, 0.10 to 0.15: 1.00 %")
    assert (description.text or "").endswith("0.95 to 1.00: 33.00 %")


def test_no_examples_are_no_histogram() -> None:
    assert spread.steps("nothing", [[0] * 20]) is None
    assert spread.histogram([None], "x", "t", prefix="h") is None


def test_trainings_without_a_bin_in_common_are_drawn() -> None:
    """Then the least share is zero everywhere; the axis begins below the smallest mean that is not."""
    one = spread.steps("all here, all there", [[40] + [0] * 19, [0] * 19 + [40]])
    assert one is not None
    assert not one.low.any()
    assert spread.ground([one]) == 10.0  # below 50 %
    assert spread.histogram([one], "x", "t", prefix="h")


def test_a_long_table_of_classes_is_left_to_the_file(done: tuple[Path, Results], monkeypatch: Any) -> None:
    cast = report.names.Cast(done[1])
    table = spread.classes(cast)
    assert table is not None
    assert len(table.rows) == 2 * len(done[1].models)
    monkeypatch.setattr(spread, "MOST_ROWS", 3)
    assert spread.classes(cast) is None


def test_many_classes_have_no_histograms_of_their_own() -> None:
    names = {f"class {n}": [[1] * 20] for n in range(5)}
    one = Frequencies(seeds=[0], low=metrics.lows(), counts=[[5] * 20], classes=names)
    assert splits.drawn(one).classes == {}
    assert splits.drawn(one.model_copy(update={"classes": dict(list(names.items())[:4])})).classes
    rows = list(csv.DictReader(splits.frequency_table({"m": {"test": one}}).splitlines()))
    assert len(rows) == 6 * 20
    assert json.loads(rows[0]["share"]) == pytest.approx(0.05)
