"""Several test sets by name: what is read and dropped, and that a study tells, judges and counts each by its name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from study_samples import changed, run

import potstill as ps
from potstill import cli, report, storage
from potstill.data import Data
from potstill.errors import DataError, PlanError, RunError
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.study.study import Study

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(500, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)  # 2 is a class that training does not know
TRAIN = (X[:250], np.minimum(Y[:250], 1))
RANDOM = (X[250:350], np.minimum(Y[250:350], 1))
MANUAL = (X[350:], Y[350:])
KNOWN = MANUAL[1] != 2


def opened(**options: Any) -> Data:
    return ps.data.open({"train": TRAIN}, **{"validation": 0} | options)


def same(source: Any, x: np.ndarray, y: np.ndarray) -> bool:
    batch = source.fetch(torch.arange(len(source)))
    return len(source) == len(x) and np.array_equal(batch.inputs, x) and np.array_equal(batch.labels, y)


# ---------------------------------------------------------------- data


def written(folder: Path, how: str) -> Any:
    """The second test set, in one of the forms it may have."""
    x, y = MANUAL
    if how == "arrays":
        return MANUAL
    if how == "npz":
        np.savez(folder / "manual.npz", x=x, y=y)
        return str(folder / "manual.npz")
    if how == "npz with parts":
        np.savez(folder / "manual.npz", x_train=x + 1, y_train=y, test_inputs=x, test_labels=y)
        return folder / "manual.npz"
    (folder / "manual").mkdir()
    np.save(folder / "manual/inputs.npy", x)
    np.save(folder / "manual/labels.npy", y)
    return str(folder / "manual")


@pytest.mark.parametrize("how", ["arrays", "npz", "npz with parts", "npy folder"])
def test_sets_in_every_form(tmp_path: Path, how: str) -> None:
    found = opened(test={"random": RANDOM, "manual": {"file": written(tmp_path, how), "drop": {"label": [2]}}})
    assert same(found.train, *TRAIN)  # nothing is held out
    assert list(found.tests) == ["random", "manual"]
    assert same(found.tests["random"], *RANDOM)
    assert same(found.tests["manual"], MANUAL[0][KNOWN], MANUAL[1][KNOWN])
    assert found.test is found.tests["random"]
    assert found.split("manual") is found.tests["manual"]
    assert found.split("validation") is None
    alone = ps.data.open((MANUAL[0][KNOWN], MANUAL[1][KNOWN]), test=0, validation=0).train
    assert found.tests["manual"].fingerprint() == alone.fingerprint()
    assert list(found.describe()["splits"]) == ["train", "random", "manual"]
    assert found.without_test().tests == {}


def test_a_set_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    sets = {"random": RANDOM, "gone": str(tmp_path / "gone.npz")}
    assert opened(test=sets, splits=("train", "validation")).tests == {}
    assert list(opened(test=sets, splits=("train", "random")).tests) == ["random"]
    with pytest.raises(DataError, match=r"^test\.gone: .*gone\.npz is not there"):
        opened(test=sets)


def test_the_own_test_part_by_name() -> None:
    whole = {"train": TRAIN, "test": RANDOM}
    found = ps.data.open(whole, validation=0, test={"own": True, "manual": {"file": MANUAL, "drop": {"label": [2]}}})
    assert same(found.tests["own"], *RANDOM)
    assert found.notes == ()
    some = ps.data.open(whole, validation=0, test={"zeros": {"own": True, "drop": {"label": [1]}}})
    assert same(some.tests["zeros"], RANDOM[0][RANDOM[1] == 0], RANDOM[1][RANDOM[1] == 0])
    other = ps.data.open(whole, validation=0, test={"other": RANDOM})
    assert "itself is not used" in other.notes[0]
    plain = ps.data.open(whole, validation=0)
    assert list(plain.tests) == ["test"]
    assert plain.tests["test"] is plain.test is plain.split("test")


def test_texts_targets_and_digests(tmp_path: Path) -> None:
    names = np.array(["no", "yes", "maybe"])
    words = ps.data.open(
        {"train": (TRAIN[0], names[TRAIN[1]])},
        validation=0,
        test={"manual": {"file": (MANUAL[0], names[MANUAL[1]]), "drop": {"label": ["maybe"]}}},
    )
    assert same(words.tests["manual"], MANUAL[0][KNOWN], MANUAL[1][KNOWN])
    np.savez(tmp_path / "more.npz", x=X[:40], y=X[:40, :2] * 3)
    values = ps.data.open((X, X[:, :2] * 3), validation=0, task="regression", test={"more": str(tmp_path / "more.npz")})
    assert values.tests["more"].spec == values.train.spec  # the same scaling
    assert np.array_equal(values.tests["more"].labels, X[:40, :2] * 3)


def test_tables(tmp_path: Path) -> None:
    """Rows of a CSV file are dropped by any column; columns are scaled by what the training rows tell."""
    for name, (x, y) in {"train": TRAIN, "random": RANDOM, "manual": MANUAL}.items():
        rows = [
            f"{a:.6f},{b:.6f},{'north' if a > b else 'south'},{label}"
            for (a, b), label in zip(x[:, :2], y, strict=True)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,where,label", *rows]) + "\n")
    table = {"name": "train.csv"}
    found = ps.data.open(
        table,
        validation=0,
        target="label",
        folder=tmp_path,
        test={
            "random": "random.csv",
            "north": {"file": "manual.csv", "drop": {"label": [2], "where": ["south"]}},
        },
    )
    kept = KNOWN & (MANUAL[0][:, 0] > MANUAL[0][:, 1])
    assert np.array_equal(found.tests["north"].labels, MANUAL[1][kept])
    x = found.tests["north"].fetch(torch.arange(kept.sum())).inputs.numpy()
    mean, std = TRAIN[0][:, :2].mean(0), TRAIN[0][:, :2].std(0)
    np.testing.assert_allclose(x[:, :2], (MANUAL[0][kept, :2] - mean) / std, atol=1e-4)
    assert len(found.tests["random"]) == 100
    for sets, message in (
        ({"a": {"file": "manual.csv", "drop": {"labl": [2]}}}, "test.a: .*labl"),
        ({"a": RANDOM}, "test.a: found tuple, wanted the path of a table"),
        ({"a": "nowhere.csv"}, "test.a: .*nowhere.csv"),
    ):
        with pytest.raises(DataError, match=message):
            ps.data.open(table, validation=0, target="label", folder=tmp_path, test=sets)


REFUSED: list[tuple[Any, str]] = [
    ({}, "found no test set"),
    ({"train": RANDOM}, 'a test set cannot be called "train"'),
    ({"a": {"file": RANDOM, "own": True}}, 'test.a: wanted is either "file" or own = true'),
    ({"a": {"drop": {"label": [2]}}}, 'test.a: wanted is either "file" or own = true'),
    ({"a": {"file": RANDOM, "dropped": {}}}, 'Unknown key of a test set "dropped". Did you mean "drop"'),
    ({"a": {"own": True}}, "test.a: arrays has no test part of its own"),
    ({"a": {"file": MANUAL, "drop": {"labl": [2]}}}, 'test.a.drop.labl: Unknown column "labl". Did you mean "label"'),
    ({"a": {"file": MANUAL, "drop": {"label": 2}}}, "wanted a list of at least one value"),
    ({"a": {"file": MANUAL, "drop": {"label": ["2"]}}}, "these values are numbers"),
    ({"a": {"file": RANDOM, "drop": {"label": [0, 1]}}}, "every example is dropped"),
    ({"a": MANUAL}, "has the label 2, wanted 0 to 1"),
    ({"a": (RANDOM[0][:, :3], RANDOM[1])}, r"found a examples of shape \(3,\)"),
]


@pytest.mark.parametrize(("sets", "message"), REFUSED)
def test_what_is_no_test_set_is_refused(sets: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(test=sets)
    with pytest.raises(DataError, match='Unknown split "randm"'):
        opened(test={"random": RANDOM}, splits=("randm",))


# ---------------------------------------------------------------- a study

FILES = Path(tempfile.mkdtemp(prefix="potstill-test-"))
PLAN: dict[str, Any] = {
    "title": "Two test sets",
    "seeds": 3,
    "data": {
        "source": str(FILES / "train.npz"),
        "validation": 40,
        "test": {
            "random": str(FILES / "random.npz"),
            "manual": {"file": str(FILES / "manual.npz"), "drop": {"label": [2]}},
        },
    },
    "training": {"steps": 40, "batch_size": 50, "optimizer": {"name": "adam", "learning_rate": 0.02}},
    "models": {
        "teacher": {"network": "mlp:8"},
        "alone": {"network": "linear"},
        "taught": {"network": "linear", "teacher": "teacher"},
    },
    "evaluation": {"latency": {"batch": []}},
    "verdict": {"metric": "accuracy", "on": "manual"},
}


@pytest.fixture(scope="module", autouse=True)
def _files() -> Iterator[None]:
    for name, (x, y) in {"train": TRAIN, "random": RANDOM, "manual": MANUAL}.items():
        np.savez(FILES / f"{name}.npz", x=x, y=y)
    yield
    shutil.rmtree(FILES)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("sets") / "two"
    return folder, run(PLAN, folder)


@pytest.fixture
def copied(done: tuple[Path, Results], tmp_path: Path) -> Path:
    shutil.copytree(done[0], tmp_path / "two")
    return tmp_path / "two"


def right(folder: Path, model: str, seed: int, name: str) -> np.ndarray:
    stored = load_file(folder / f"models/{model}/seed-{seed}/predictions/{name}.safetensors")
    return np.asarray(stored["log_probs"].argmax(1) == stored["labels"], float)


def test_results_tell_every_test_set_by_its_name(done: tuple[Path, Results]) -> None:
    folder, results = done
    assert results.on == "manual"
    for model, one in results.models.items():
        assert list(one.tests) == ["random", "manual"]
        assert one.tests["manual"] == one.metrics
        for name, n in (("random", 100), ("manual", int(KNOWN.sum()))):
            rates = [right(folder, model, seed, name) for seed in range(3)]
            assert all(len(row) == n for row in rates)
            assert one.tests[name]["accuracy"].values == pytest.approx([row.mean() for row in rates])
            assert one.splits[name].examples == n
    assert results.models["taught"].tests["random"]["agreement"].mean > 0
    told = results.verdicts[0]
    assert (told.on, told.examples) == ("manual", int(KNOWN.sum()))
    ours, theirs = ([right(folder, model, seed, "manual").mean() for seed in range(3)] for model in ("taught", "alone"))
    assert told.differences == pytest.approx(np.subtract(ours, theirs))
    assert f"{int(KNOWN.sum())} test examples of manual" in told.sentence
    assert Results.model_validate(storage.read_json(folder / "results.json")) == results


def test_reads_are_counted_for_each(done: tuple[Path, Results], copied: Path) -> None:
    assert done[1].test_reads.sets == {"random": 1, "manual": 1}
    (line,) = (done[0] / "test_reads.jsonl").read_text().splitlines()
    assert json.loads(line)["tests"] == {"random": 9, "manual": 9}
    shutil.rmtree(copied / "models/alone/seed-1/predictions")
    (copied / "models/alone/seed-1/evaluation.json").unlink()
    assert run(PLAN, copied).test_reads.sets == {"random": 2, "manual": 2}


def test_the_verdict_on_another_set_reads_nothing_anew(done: tuple[Path, Results], copied: Path) -> None:
    other = run(changed(PLAN, verdict__on="random"), copied)
    assert (other.on, other.test_reads.count) == ("random", 1)
    assert other.verdicts[0].examples == 100
    assert other.models["alone"].metrics == done[1].models["alone"].tests["random"]


def test_a_set_that_is_added_to_the_splits_is_read_then(tmp_path: Path) -> None:
    one = changed(PLAN, evaluation__splits=["manual"], seeds=1)
    first = run(one, tmp_path / "two")
    assert (list(first.models["alone"].tests), first.test_reads.sets) == (["manual"], {"manual": 1})
    assert not list(tmp_path.glob("two/models/*/*/predictions/random.safetensors"))
    second = run(changed(one, evaluation__splits=["manual", "random"]), tmp_path / "two")
    assert second.test_reads.sets == {"random": 1, "manual": 2}
    assert second.models["alone"].metrics == first.models["alone"].metrics


def test_changed_test_examples_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "random.npz", x=RANDOM[0], y=RANDOM[1])
    plan = changed(PLAN, data__test={"random": str(tmp_path / "random.npz")}, verdict={"metric": "accuracy"}, seeds=1)
    run(plan, tmp_path / "run")
    np.savez(tmp_path / "random.npz", x=RANDOM[0] + 1, y=RANDOM[1])
    with pytest.raises(RunError, match="was evaluated on other test examples"):
        run(plan | {"seeds": 2}, tmp_path / "run")


def test_a_file_that_is_not_there_is_missed_before_the_training(tmp_path: Path) -> None:
    sets = PLAN["data"]["test"] | {"gone": {"file": str(tmp_path / "gone.npz")}}
    plan = changed(PLAN, data__test=sets)
    with pytest.raises(DataError, match=r"^test\.gone: .*gone\.npz is not there"):
        run(plan, tmp_path / "run")
    assert not list((tmp_path / "run").glob("models/*/*"))


def test_the_page_shows_each_under_its_name(done: tuple[Path, Results]) -> None:
    text = " ".join(report.page.render(done[1], None).split())
    for words in (
        "Accuracy on every test set",
        "On manual, as judged",
        "On random",
        "Every metric on random",
        "Every metric on manual",
        "Test sets were read 1 time, by 1 plan: random 1 time, manual 1 time.",
        f"manual: {int(KNOWN.sum())} examples",
    ):
        assert words in text
    assert report.page.write(done[0]).is_file()


def test_arrays_from_python_in_a_plan(tmp_path: Path) -> None:
    """Saved beside the run, and read from there; starting anew does not delete them."""
    sets = {"random": RANDOM, "manual": {"file": MANUAL, "drop": {"label": [2]}}}
    plan = changed(PLAN, data={"source": {"train": TRAIN}, "test": sets, "validation": 40}, seeds=1)
    first = run(plan, tmp_path / "run")
    assert len(list(tmp_path.glob("run/data/arrays-*.npz"))) == 3
    again = Study.open(tmp_path / "run/plan.toml", folder=tmp_path / "run").run(workers=1, fresh=True)
    assert len(list(tmp_path.glob("run/data/arrays-*.npz"))) == 3
    assert {key: one.tests for key, one in again.models.items()} == {
        key: one.tests for key, one in first.models.items()
    }


def test_predictions_on_a_named_set(done: tuple[Path, Results], capsys: pytest.CaptureFixture[str]) -> None:
    folder = done[0]
    source = PLAN["data"]["source"]
    model = str(folder / "models/taught/seed-0")
    assert cli.call(["predict", model, source, "--split", "random", "--validation", "40"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 101
    assert [row.split(",")[1] for row in rows[1:]] == [
        str(k) for k in load_file(folder / "models/taught/seed-0/predictions/random.safetensors")["log_probs"].argmax(1)
    ]
    assert cli.call(["predict", model, source, "--split", "nowhere"]) == 2
    assert 'Unknown split "nowhere"' in capsys.readouterr().err


def test_plans_with_test_sets() -> None:
    base = {"data": {"source": "digits", "test": {"a": "a.npz", "b": True}}, "models": {"alone": {"network": "linear"}}}
    plan = Plan.from_dict(base)
    assert (plan.verdict.on, plan.evaluation.splits) == ("a", ("validation", "a", "b"))
    assert Plan.from_dict(plan.to_dict()) == plan
    for change, key, message in (
        ({"verdict": {"on": "c"}}, "verdict.on", 'Unknown test set "c"'),
        ({"evaluation": {"splits": ["b"]}}, "evaluation.splits", "which is not among these splits"),
        ({"evaluation": {"splits": ["a", "test"]}}, "evaluation.splits[1]", 'Unknown split "test"'),
        ({"data__test": {}}, "data.test", "empty table"),
        ({"data__test": {"a": 3}}, "data.test.a", "wanted is a file"),
        ({"data__test": {"a": {"drop": {"label": [1]}}}}, "data.test.a", "wanted is a file"),
        ({"data__test": {"a": {"file": "x", "drp": {}}}}, "data.test.a.drp", 'Did you mean "drop"'),
        ({"data__test": {"a": {"file": "x", "drop": [1]}}}, "data.test.a.drop", "a table of column"),
        ({"data__test": {"train": "x"}}, "data.test.train", "not a name for a test set"),
        ({"data__test": {"a-view-1": "x"}}, "data.test.a-view-1", "not a name for a test set"),
        ({"data__source": "privileged", "data__redraw": "seed"}, "data.test.a", "one file for all seeds"),
    ):
        with pytest.raises(PlanError) as caught:
            Plan.from_dict(changed(base, **change))
        assert (caught.value.key, message in str(caught.value)) == (key, True), caught.value
