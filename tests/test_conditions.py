"""Test conditions: every number again from the models and the pictures; what is not there is not made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import odd_or_even, run

import potstill as ps
from potstill import report
from potstill.report import conditions
from potstill.report.names import Cast
from potstill.study.conditions import soft_cross_entropy
from potstill.study.evaluate import on_test, view_name
from potstill.study.measured import ConditionValues
from potstill.study.results import Results

SHIFT = [{"name": "shift", "fraction": 0.15}]
ASKED = {
    "seeds": 2,
    "models__alone__training": {"augment": []},
    "models__chain__generations": 2,
    "models__taught__training": {"augment": SHIFT},
    "evaluation__splits": ["test"],
    "evaluation__labels": ["true", "teacher"],
    "evaluation__views": [0, 3, 1],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("conditions") / "run"
    return folder, run(odd_or_even(**ASKED), folder)


def answers(folder: Path, name: str, seed: int, augment: Any, view: int) -> np.ndarray[Any, Any]:
    """(n,) probability of the second class, by the model and the pictures."""
    plan = odd_or_even()
    test = ps.data.open(plan["data"]["source"], task="binary", test=300, validation=100, augment=augment).test
    assert test is not None
    batch = test.fetch(torch.arange(len(test)), view)  # type: ignore[arg-type]
    p = ps.load(folder / "models" / name / f"seed-{seed}")(batch.inputs).double().sigmoid()[:, 0]
    return np.asarray(p.detach().numpy())


def labels() -> np.ndarray[Any, Any]:
    plan = odd_or_even()
    test = ps.data.open(plan["data"]["source"], task="binary", test=300, validation=100).test
    assert test is not None
    return test.labels.numpy()


@pytest.mark.parametrize(
    ("key", "folder", "augment", "teacher"),
    [
        ("teacher", "teacher", ["flip", *SHIFT], None),
        ("taught", "taught", SHIFT, "teacher"),
        ("chain#2", "chain/generation-2", ["flip", *SHIFT], "chain/generation-1"),
        ("alone", "alone", None, None),
    ],
)
def test_every_condition_by_hand(
    done: tuple[Path, Results], key: str, folder: str, augment: Any, teacher: str | None
) -> None:
    found = {(one.labels, one.views): one for one in done[1].models[key].conditions}
    kinds = ["true", "teacher"] if teacher else ["true"]
    assert set(found) == {(kind, views) for kind in kinds for views in ((0, 3, 1) if augment else (0,))}
    for (kind, views), one in found.items():
        assert one.examples == 300
        table, losses, soft = np.zeros((3, 2, views or 1))
        for seed in range(2):
            right = labels()
            q = answers(done[0], teacher, seed, (), 0) if teacher else np.zeros(300)
            if kind == "teacher":
                right = (q > 0.5).astype(int)
            for at, view in enumerate(range(1, views + 1) if views else [0]):
                p = answers(done[0], folder, seed, augment or (), view)
                table[seed, at] = np.mean((p > 0.5) == right)
                losses[seed, at] = -np.log(np.where(right == 1, p, 1 - p)).mean()
                soft[seed, at] = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
        for values, wanted, best in (("accuracy", table, table.max(1)), ("cross_entropy", losses, losses.min(1))):
            check(one.metrics[values], wanted, best if views else None)
        assert set(one.metrics) == {"accuracy", "cross_entropy"} | (
            {"soft_cross_entropy"} if kind == "teacher" else set()
        )
        if kind == "teacher":
            check(one.metrics["soft_cross_entropy"], soft, soft.min(1) if views else None)
    plain = found["true", 0].metrics["accuracy"]
    assert plain.values == done[1].models[key].metrics["accuracy"].values
    if teacher:
        told = found["teacher", 0].metrics["accuracy"].values
        assert told == pytest.approx(done[1].models[key].metrics["agreement"].values)


def check(found: ConditionValues, table: np.ndarray[Any, Any], best: np.ndarray[Any, Any] | None) -> None:
    assert found.values == pytest.approx(table.mean(1), rel=1e-4)
    assert found.mean == pytest.approx(table.mean(), rel=1e-4)
    assert found.std == pytest.approx(table.mean(1).std(ddof=1), rel=1e-2, abs=1e-6)
    if best is None:
        assert found.best is found.best_mean is None
    else:
        assert found.best == pytest.approx(best, rel=1e-4)
        assert found.best_mean == pytest.approx(best.mean(), rel=1e-4)
    if table.shape[1] > 1:
        assert found.over_views == pytest.approx(table.std(1, ddof=1).mean(), rel=1e-2)
    else:
        assert found.over_views is None


def test_views_differ_and_are_stored_once(done: tuple[Path, Results]) -> None:
    kept = {path.stem for path in (done[0] / "models/taught/seed-0/predictions").iterdir()}
    assert kept == {"test", "test-view-1", "test-view-2", "test-view-3"}
    assert {path.stem for path in (done[0] / "models/alone/seed-0/predictions").iterdir()} == {"test"}
    assert all(map(on_test, kept))
    assert not on_test("validation")
    assert [view_name("test", view) for view in (0, 2)] == ["test", "test-view-2"]
    assert len({answers(done[0], "taught", 0, SHIFT, view).tobytes() for view in range(4)}) == 4
    assert done[1].test_reads.count == 1


def test_another_number_of_views_reads_again_and_is_no_new_look(tmp_path: Path) -> None:
    few = {**ASKED, "seeds": 1, "training__steps": 5}
    first = run(odd_or_even(**few | {"evaluation__labels": None, "evaluation__views": [1]}), tmp_path)
    assert [(one.labels, one.views) for one in first.models["taught"].conditions] == [("true", 1)]
    results = run(odd_or_even(**few), tmp_path)
    assert (results.test_reads.count, results.test_reads.looks) == (2, 1)
    assert {one.views for one in results.models["taught"].conditions} == {0, 1, 3}
    assert results.models["taught"].metrics == first.models["taught"].metrics
    fewer = run(odd_or_even(**few | {"evaluation__labels": None, "evaluation__views": None}), tmp_path)
    assert fewer.test_reads.count == 2
    assert all(not one.conditions for one in fewer.models.values())


def test_a_teacher_of_recorded_answers_labels_no_test_example(tmp_path: Path) -> None:
    data = ps.data.open(odd_or_even()["data"]["source"], task="binary", test=300, validation=100)
    np.save(tmp_path / "answers.npy", 0.1 + 0.8 * data.train.labels.numpy().astype(np.float32)[:, None])
    plan = odd_or_even(**ASKED | {"seeds": 1, "training__steps": 5, "training__augment": []})
    plan["models"] |= {
        "told": {"outputs": str(tmp_path / "answers.npy"), "kind": "probabilities"},
        "from-file": {"network": "linear", "teacher": "told", "objective": "soft_labels"},
    }
    results = run(plan, tmp_path / "run")
    assert [(one.labels, one.views) for one in results.models["from-file"].conditions] == [("true", 0)]
    assert results.models["told"].conditions == []


def test_the_page_marks_the_best_view_as_optimistic(done: tuple[Path, Results]) -> None:
    text = report.write(done[0]).read_text()
    accuracy, loss, soft = conditions.tables(Cast(done[1]))
    assert accuracy.columns[1:] == (
        "True labels, plain", "True labels, 1 view", "True labels, 3 views",
        "Teacher's labels, plain", "Teacher's labels, 1 view", "Teacher's labels, 3 views",
    )  # fmt: skip
    rows = {row[0].text: row for row in accuracy.rows}
    assert [cell.text for cell in rows["alone"][2:]] == ["–"] * 5
    best = {one.views: one for one in done[1].models["taught"].conditions if one.labels == "true"}
    assert f"best of 3: {100 * best[3].metrics['accuracy'].best_mean:.2f} %, optimistic" in rows["taught"][3].notes  # type: ignore[operator]
    assert not any("best" in note for note in rows["taught"][1].notes + rows["taught"][2].notes)
    assert "The best of several views is optimistic" in text
    assert "Cross entropy" in loss.caption
    assert "Soft cross entropy" in soft.caption
    assert [column.split(",")[0] for column in soft.columns[1:]] == ["Teacher's labels"] * 3


def test_cross_entropy_with_soft_labels_at_its_ends() -> None:
    """Its minimum is the teacher's entropy; hard labels give the plain cross-entropy; nothing is infinite."""
    q = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert soft_cross_entropy(np.log(q).astype(np.float32), q) == pytest.approx(-(q * np.log(q)).sum(1).mean())
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert soft_cross_entropy(np.log(p), np.eye(2)) == pytest.approx(-np.log([0.9, 0.8]).mean())
    with np.errstate(divide="ignore"):
        assert soft_cross_entropy(np.log(np.eye(2)), q) == pytest.approx(87.3365447 * (0.75 + 0.5) / 2)
