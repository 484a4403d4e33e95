"""Correlations against scipy, every left-out example included; what students have of their teachers against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats
from study_samples import odd_or_even, run

from potstill import report
from potstill.report import inherited as shown
from potstill.report.names import Cast
from potstill.study import correlation
from potstill.study.measured import Inheritance
from potstill.study.results import Results

Array = np.ndarray[Any, Any]


def pairs(n: int, ties: str) -> tuple[Array, Array]:
    random = np.random.default_rng(n)
    x = random.normal(size=n)
    y = x + random.normal(size=n)
    if ties == "some":
        x, y = np.round(2 * x), np.minimum(y, 0.3)
    if ties == "many":
        x, y = (x > 0).astype(float), np.round(y)
    return x, y


@pytest.mark.parametrize("ties", ["none", "some", "many"])
@pytest.mark.parametrize("n", [6, 12, 129, 400])
def test_rank_correlation_with_every_example_left_out(n: int, ties: str) -> None:
    x, y = pairs(n, ties)
    found = correlation.spearman(x, y)
    whole = stats.spearmanr(x, y).statistic
    without = np.array([stats.spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(n)])
    assert found.value == correlation.spearman_value(x, y) == pytest.approx(whole)
    np.testing.assert_allclose(found.pseudo, n * whole - (n - 1) * without, atol=1e-9 * n)


@pytest.mark.parametrize("n", [20, 300])
def test_correlation_of_errors_with_every_example_left_out(n: int) -> None:
    x, y = pairs(n, "none")
    a, b = (x > 0.3).astype(float), (y > 0.3).astype(float)
    found = correlation.errors(a, b)
    whole = np.corrcoef(a, b)[0, 1]
    without = np.array([np.corrcoef(np.delete(a, i), np.delete(b, i))[0, 1] for i in range(n)])
    assert found.value == pytest.approx(whole)
    np.testing.assert_allclose(found.pseudo, n * whole - (n - 1) * without, atol=1e-9 * n)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_ends_of_a_correlation(sign: int) -> None:
    x = np.arange(30.0)
    assert correlation.spearman(x, sign * x**3).value == pytest.approx(sign)
    e = np.tile([0.0, 1.0], 10)
    assert correlation.errors(e, e if sign > 0 else 1 - e).value == pytest.approx(sign)
    same = [correlation.spearman(x, sign * x)] * 3
    assert correlation.interval(same) == pytest.approx((sign, sign))


def test_what_is_not_defined_is_not_a_number() -> None:
    still, moving = np.zeros(9), np.arange(9.0)
    assert np.isnan(correlation.spearman(still, moving).value)
    assert np.isnan(correlation.errors(still, moving > 3).value)
    once = moving == 4  # defined, but not without that example
    one = correlation.errors(once, moving > 3)
    assert np.isfinite(one.value)
    assert correlation.interval([one, one]) is None
    assert correlation.interval([correlation.spearman(moving, moving)]) is None  # one seed


def test_the_interval_by_hand() -> None:
    """Two-way analysis of variance of the pseudo-values, by its sums of squares in loops."""
    found = [correlation.spearman(*pairs_of(seed)) for seed in range(4)]
    table = np.stack([one.pseudo for one in found])
    seeds, n = table.shape
    grand, by_seed, by_example = table.mean(), table.mean(1), table.mean(0)
    a = n * sum((m - grand) ** 2 for m in by_seed) / (seeds - 1)
    b = seeds * sum((m - grand) ** 2 for m in by_example) / (n - 1)
    rest = [table[s, i] - by_seed[s] - by_example[i] + grand for s in range(seeds) for i in range(n)]
    e = sum(r**2 for r in rest) / ((seeds - 1) * (n - 1))
    top = max(a, e)
    v = top + max(b - e, 0)
    half = stats.t.ppf(0.975, (seeds - 1) * (v / top) ** 2) * np.sqrt(v / (seeds * n))
    middle = np.mean([one.value for one in found])
    assert correlation.interval(found) == pytest.approx((middle - half, middle + half))


def pairs_of(seed: int, n: int = 80) -> tuple[Array, Array]:
    """A teacher and a student on examples that all seeds share."""
    hard, random = np.random.default_rng(0).normal(size=n), np.random.default_rng(seed + 1)
    x = hard + random.normal(size=n)
    return x, 0.5 * x + hard + random.normal(size=n)


def test_the_interval_covers() -> None:
    """500 studies of 5 seeds and 60 examples; the truth is the mean over many of them."""
    random, found, values = np.random.default_rng(5), [], []
    for _ in range(500):
        hard = random.normal(size=60)
        seeds = []
        for _ in range(5):
            x = hard + 0.7 * random.normal(size=60)
            seeds.append(correlation.spearman(x, 0.5 * x + 0.5 * hard + random.normal(size=60)))
        found.append(correlation.interval(seeds))
        values.append(np.mean([one.value for one in seeds]))
    truth = np.mean(values)
    covered = np.mean([ends is not None and ends[0] <= truth <= ends[1] for ends in found])
    assert 0.93 <= covered <= 0.995


# ---------------------------------------------------------------- a study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("inheritance") / "run"
    both = {"network": "mlp:6", "teacher": ["teacher", "committee"], "objective": "soft_labels"}
    plan = odd_or_even(
        evaluation__splits=["test"], models__chain__generations=2, models__both=both,
        models__committee={"network": "mlp:4", "members": 2, "shared": True},
        models__of_one={**both, "teacher": "committee"},
    )  # fmt: skip
    return folder, run(plan, folder)


def probability(folder: Path, name: str, seed: int) -> tuple[Array, Array]:
    where = "shared" if name == "committee" else f"seed-{seed}"
    found = load_file(folder / f"models/{name}/{where}/predictions/test.safetensors")
    return np.exp(found["log_probs"].astype(np.float64))[:, 1], found["labels"]


@pytest.mark.parametrize(
    ("key", "path", "teachers"),
    [
        ("taught", "taught", {"teacher": 1}),
        ("chain#1", "chain/generation-1", {"teacher": 1}),
        ("chain#2", "chain/generation-2", {"chain/generation-1": 1}),
        ("both", "both", {"teacher": 1, "committee": 2}),
        ("of_one", "of_one", {"committee": 2}),
    ],
)
def test_every_student_by_hand(done: tuple[Path, Results], key: str, path: str, teachers: dict[str, int]) -> None:
    one = done[1].inheritance[key]
    assert (one.seeds, one.examples) == ([0, 1, 2], 300)
    assert one.one_teacher == (key == "of_one")
    rows, beside = [], []
    for seed in range(3):
        own, y = probability(done[0], path, seed)
        total = sum(teachers.values())
        told = sum(share / total * probability(done[0], name, seed)[0] for name, share in teachers.items())
        rows.append((np.asarray(told), own, y))
        beside.append((np.asarray(told), probability(done[0], "alone", seed)[0], y))
    assert one.confidence.values == pytest.approx([rank(t, s) for t, s, _ in rows], abs=2e-3)
    assert one.errors.values == pytest.approx([wrong(t, s, y) for t, s, y in rows])
    assert one.baseline_confidence == pytest.approx(np.mean([rank(t, s) for t, s, _ in beside]), abs=2e-3)
    assert one.baseline_errors == pytest.approx(np.mean([wrong(t, s, y) for t, s, y in beside]))
    for values in (one.confidence, one.errors):
        assert values.mean == pytest.approx(np.mean(values.values))  # type: ignore[arg-type]
        assert values.interval is not None
        assert -1 <= values.interval[0] <= values.mean <= values.interval[1] <= 1
    assert [part.name for part in one.classes] == ["", "even", "odd"]
    for part, number in zip(one.classes, (None, 0, 1), strict=True):
        some = [(t[y == number], s[y == number], y[y == number]) if number is not None else (t, s, y)
                for t, s, y in rows]  # fmt: skip
        assert part.examples == len(some[0][2])
        assert part.teacher_uncertainty == pytest.approx(np.mean([uncertain(t) for t, _, _ in some]), rel=1e-4)
        assert part.student_uncertainty == pytest.approx(np.mean([uncertain(s) for _, s, _ in some]), rel=1e-4)
        assert part.teacher_error_rate == pytest.approx(np.mean([np.mean((t > 0.5) != y) for t, _, y in some]))
        assert part.student_error_rate == pytest.approx(np.mean([np.mean((s > 0.5) != y) for _, s, y in some]))
        assert part.difference == pytest.approx(part.student_uncertainty - part.teacher_uncertainty)
        assert part.interval is not None
        assert part.interval[0] <= part.difference <= part.interval[1]


def rank(teacher: Array, student: Array) -> float:
    top = [np.maximum(p, 1 - p) for p in (teacher, student)]
    return float(stats.spearmanr(*top).statistic)


def wrong(teacher: Array, student: Array, y: Array) -> float:
    return float(np.corrcoef((teacher > 0.5) != y, (student > 0.5) != y)[0, 1])


def uncertain(p: Array) -> float:
    return float(np.mean((p - (p > 0.5)) ** 2))


def test_only_students_inherit(done: tuple[Path, Results]) -> None:
    assert set(done[1].inheritance) == {"taught", "chain#1", "chain#2", "both", "of_one"}


def test_one_seed_has_no_interval_and_the_baseline_is_not_beside_itself(tmp_path: Path) -> None:
    plan = odd_or_even(seeds=1, training__steps=5, evaluation__splits=["test"], verdict={"baseline": "taught"})
    del plan["models"]["chain"]
    one = run(plan, tmp_path / "run").inheritance["taught"]
    assert one.confidence.mean == one.confidence.values[0]
    assert one.confidence.interval is None
    assert one.classes[0].interval is None
    assert (one.baseline_confidence, one.baseline_errors) == (None, None)


def test_the_page_tells_every_student(done: tuple[Path, Results], monkeypatch: Any) -> None:
    cast = Cast(done[1])
    table, by_class = shown.students(cast), shown.classes(cast)
    assert table is not None
    assert by_class is not None
    assert [row[0].text.split()[0] for row in table.rows] == ["taught", "chain", "chain", "both", "of_one"]
    one: Inheritance = done[1].inheritance["taught"]
    first = table.rows[0]
    assert first[1].text == f"+{one.confidence.mean:.3f}"
    assert first[1].notes[1] == f"baseline +{one.baseline_confidence:.3f}"
    assert table.rows[-1][-1].notes == ("one teacher for all",)
    assert len(by_class.rows) == 10
    text = report.write(done[0]).read_text()
    assert 'id="inherited"' in text
    monkeypatch.setattr(shown, "MOST_ROWS", 9)
    assert shown.classes(cast) is None
