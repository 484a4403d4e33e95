"""Rank correlation of uncertainty with accuracy across models: paper 1's own tables, seeds by hand, no values."""

from __future__ import annotations

import numpy as np
import pytest
from report_samples import SAMPLES
from scipy import stats

from potstill.report import page, related
from potstill.report.names import Cast
from potstill.study.measured import MetricValues, SplitMeasures
from potstill.study.results import Results

# Paper 1, generations 0 to 6 of the hard chain on test data: degree of uncertainty, accuracy.
HARD = [
    (0.00713, 0.95440), (0.00600, 0.95760), (0.00515, 0.94880), (0.00668, 0.94773), (0.00575, 0.94293),
    (0.00895, 0.93600), (0.00561, 0.93520),
]  # fmt: skip


def told(*numbers: float) -> MetricValues:
    return MetricValues(values=list(numbers), mean=float(np.mean(numbers)))


def chain(uncertainty: np.ndarray, accuracy: np.ndarray) -> Cast:
    """A study whose chain has these values, (seeds, generations)."""
    results = SAMPLES["evaluated"]()[0]
    seeds = list(range(len(uncertainty)))
    first = results.models["chain#1"]
    models = {"alone": results.models["alone"].model_copy(update={"splits": {}})}
    for at in range(uncertainty.shape[1]):
        measures = SplitMeasures(
            examples=9, labelled=9, accuracy=told(*accuracy[:, at]), uncertainty=told(*uncertainty[:, at])
        )
        more = {"generation": at + 1, "generations": uncertainty.shape[1], "seeds": seeds, "splits": {"test": measures}}
        models[f"chain#{at + 1}"] = first.model_copy(update=more | {"teachers": []})
    return Cast(results.model_copy(update={"models": models, "verdicts": [], "inheritance": {}}))


def test_the_papers_hard_chain() -> None:
    uncertainty, accuracy = np.array(HARD).T
    table = related.table(chain(uncertainty[None], accuracy[None]))
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["all models", "7", "+0.07"],
        ["generations of chain", "7", "+0.07"],
    ]
    assert table.rows[0][2].notes == ("no interval",)
    assert table.columns == ("Across", "Models", "Test")


def test_seeds_by_hand() -> None:
    random = np.random.default_rng(3)
    uncertainty, accuracy = random.random((4, 6)), random.random((4, 6)).round(1)
    cast = chain(uncertainty, accuracy)
    each = [stats.spearmanr(a, b).statistic for a, b in zip(uncertainty, accuracy, strict=True)]
    found = related.values(cast, [f"chain#{at}" for at in range(1, 7)], "test")
    assert found is not None
    assert found.values == pytest.approx(each)
    table = related.table(cast)
    assert table is not None
    low, high = stats.t.interval(0.95, 3, np.mean(each), stats.sem(each))
    shown = [float(end.replace("−", "-")) for end in table.rows[1][2].notes[0].strip("[]").split(", ")]
    assert shown == pytest.approx(np.clip([low, high], -1, 1), abs=0.006)


def test_few_models_and_equal_ones_have_none() -> None:
    random = np.random.default_rng(0)
    assert related.table(chain(random.random((2, 3)), random.random((2, 3)))) is None
    table = related.table(chain(random.random((2, 4)), np.ones((2, 4))))
    assert table is not None
    assert table.rows[0][2].text == "–"


def test_only_seeds_that_all_have_count() -> None:
    random = np.random.default_rng(1)
    uncertainty, accuracy = random.random((3, 4)), random.random((3, 4))
    cast = chain(uncertainty, accuracy)
    one = cast.results.models["chain#2"]
    measures = one.splits["test"].model_copy(
        update={"accuracy": told(*accuracy[1:, 1]), "uncertainty": told(*uncertainty[1:, 1])}
    )
    models = cast.results.models | {"chain#2": one.model_copy(update={"seeds": [1, 2], "splits": {"test": measures}})}
    found = related.values(
        Cast(cast.results.model_copy(update={"models": models})), [f"chain#{at}" for at in range(1, 5)], "test"
    )
    assert found is not None
    wanted = [stats.spearmanr(a, b).statistic for a, b in zip(uncertainty[1:], accuracy[1:], strict=True)]
    assert found.values == pytest.approx(wanted)


def test_the_page_tells_it() -> None:
    results: Results = SAMPLES["evaluated"]()[0]
    assert "Rank correlation (Spearman) of uncertainty with accuracy" in page.render(results, None)
    table = related.table(Cast(results))
    assert table is not None
    assert [row[0].text for row in table.rows] == ["all models"]  # three generations are too few; the teacher is none
    assert "Rank correlation (Spearman)" not in page.render(SAMPLES["demo"]()[0], None)
