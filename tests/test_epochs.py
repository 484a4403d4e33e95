"""The epoch of the best weights: from the histories again, of equal ones the first; beside the baseline and a paper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import SAMPLES
from scipy import stats
from study_samples import BASE, changed, run

from potstill import report
from potstill.report import epochs, page
from potstill.report.names import Cast
from potstill.report.tables import Table
from potstill.study.measured import BestEpoch, MetricValues
from potstill.study.results import Results

PLAN = changed(
    BASE,
    seeds=2,
    training={"epochs": 5, "batch_size": 256, "optimizer": {"name": "adam", "learning_rate": 0.05}},
    models__teacher__members=2,
    models__once={"network": "mlp:4", "shared": True},
    models__last={"network": "mlp:4", "training": {"select": "last"}},
    models__taught__training={"select": "cross_entropy", "epochs": 6},
    published={"source": "A paper", "best_epoch": {"alone": 86.0, "last": 47.0}, "accuracy": {"alone": 0.9}},
    evaluation__latency__batch=[],
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("epochs") / "run"
    return folder, run(PLAN, folder)


def picked(folder: Path, key: str, *, higher: bool) -> int:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    values = np.array([row[f"validation_{key}"] for row in rows])
    return int((values if higher else -values).argmax()) + 1


def test_every_model_by_its_history(done: tuple[Path, Results]) -> None:
    folder, results = done
    for name, places in {
        "alone": [["seed-0"], ["seed-1"]],
        "once": [["once"], ["once"]],
        "teacher": [[f"seed-{seed}/member-{member}" for member in (1, 2)] for seed in (0, 1)],
    }.items():
        best = results.models[name].best
        assert best is not None
        assert best.metric == "accuracy"
        at = folder / "models" / name
        folders = [[at / place for place in row] for row in places]
        if name == "once":
            folders = [[next(at.glob("*/result.json")).parent]] * 2
        wanted = [np.mean([picked(one, "accuracy", higher=True) for one in row]) for row in folders]
        assert best.epoch.values == wanted
        assert best.epochs.values == [5, 5]
        assert (best.epoch.std is None) == (name == "once")
    taught = results.models["taught"].best
    assert taught is not None
    assert (taught.metric, taught.epochs.mean) == ("cross_entropy", 6)
    places = [folder / "models" / "taught" / f"seed-{seed}" for seed in (0, 1)]
    assert taught.epoch.values == [picked(one, "cross_entropy", higher=False) for one in places]
    assert results.models["last"].best is None


def test_of_equal_epochs_the_first(tmp_path: Path) -> None:
    """Without learning every epoch is as good as the first."""
    plan = changed(PLAN, models__taught=None, published=None, training__optimizer__learning_rate=0.0)
    best = run(changed(plan, models__once=None, models__last=None), tmp_path / "run").models["alone"].best
    assert best is not None
    assert (best.epoch.values, best.epochs.values) == ([1, 1], [5, 5])


def cells(table: Table) -> dict[str, list[Any]]:
    return {row[0].text: [(cell.text, *cell.notes) for cell in row[1:]] for row in table.rows}


def values(*numbers: float) -> MetricValues:
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return MetricValues(values=list(numbers), mean=float(np.mean(numbers)), std=std)


def test_the_difference_to_the_baseline_is_by_seeds() -> None:
    results = SAMPLES["demo"]()[0]
    names = {name: results.models[name] for name in ("alone", "from-teacher")}
    random = np.random.default_rng(0)
    found = {name: random.integers(1, 80, len(one.seeds)).astype(float) for name, one in names.items()}
    models = {
        name: one.model_copy(
            update={"best": BestEpoch(metric="accuracy", epoch=values(*found[name]), epochs=values(80.0))}
        )
        for name, one in names.items()
    }
    cast = Cast(results.model_copy(update={"models": results.models | models}))
    table = epochs.table(cast)
    assert table is not None
    assert table.columns[-1] == "Against the baseline"
    rows = cells(table)
    assert rows["alone"][-1] == ("baseline",)
    gaps = found["from-teacher"] - found["alone"]
    low, high = stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), stats.sem(gaps))
    shown = [float(x.replace("−", "-")) for x in re.findall(r"[−+][\d.]+", " ".join(rows["from-teacher"][-1]))]
    assert shown == pytest.approx([gaps.mean(), low, high], rel=0.01)
    assert rows["alone"][1] == ("80.0",)


def test_the_page_tells_it(done: tuple[Path, Results]) -> None:
    folder, results = done
    text = report.write(folder).read_text("utf-8")
    assert "The epoch whose weights were kept" in text
    table = epochs.table(Cast(results))
    assert table is not None
    assert table.columns == (
        "Model",
        "Best epoch",
        "Of epochs",
        "Best by validation",
        "Against the baseline",
        "Published",
    )
    rows = cells(table)
    assert set(rows) == {"teacher", "alone", "taught", "once"}
    assert rows["alone"][-1] == ("86",)
    assert rows["taught"][2] == ("cross entropy",)
    notes = " ".join(text.split())
    assert "best epoch of last: 47" in notes
    assert "best epoch of alone" not in notes
    assert epochs.table(Cast(SAMPLES["bare"]()[0])) is None
    assert "Learning curves" in page.render(results, None)
