"""Data drawn by the program: the laws against numpy, scipy and plain sums; draws by key; studies on data drawn anew."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from study_samples import changed, run

import potstill.data as data
from potstill import fit, report, seeding, storage
from potstill.data import synthetic
from potstill.errors import DataError, PlanError, RunError
from potstill.evaluation import load_predictions
from potstill.study.plan import Plan
from potstill.study.results import Results

MANY = 20_000


def drawn(table: dict[str, Any], **options: Any) -> data.Data:
    task = {"task": "regression", "scale_targets": False} if table["name"] == "linear" else {}
    return data.open(table, **{"validation": 0} | task | options)


def numbers(source: Any) -> tuple[np.ndarray, np.ndarray]:
    return source.raw.numpy().astype(np.float64), source.labels.numpy()


def law_of(source: str, what: str, *size: int, draw: str | int = "study") -> np.ndarray:
    """The numbers that a source says it draws its law from."""
    return seeding.normal(seeding.key("drawn", source, draw, what), np.arange(size[0]), size[1])


# ---------------------------------------------------------------- normal numbers by counter


def test_normal_numbers_are_normal_and_independent() -> None:
    found = seeding.normal(seeding.key("test"), np.arange(4000), 6)
    for column in range(6):
        assert stats.kstest(found[:, column], "norm").pvalue > 0.001
    far = np.corrcoef(found, rowvar=False)[np.triu_indices(6, 1)]
    assert np.abs(far).max() < 4 / np.sqrt(4000)
    assert abs(np.corrcoef(found[1:].ravel(), found[:-1].ravel())[0, 1]) < 4 / np.sqrt(found.size)
    assert np.isfinite(seeding.normal(1, np.arange(3), 1)).all()


def test_a_normal_number_depends_on_key_row_and_column_alone() -> None:
    whole = seeding.normal(7, np.arange(10), 5)
    assert np.array_equal(seeding.normal(7, np.array([8, 2]), 5), whole[[8, 2]])
    for draws in range(5):
        assert np.array_equal(seeding.normal(7, np.arange(10), draws), whole[:, :draws])
    assert not np.isclose(seeding.normal(8, np.arange(10), 5), whole).any()


# ---------------------------------------------------------------- softmax-linear


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_labels_of_a_linear_law(classes: int, temperature: float) -> None:
    table = {"name": "softmax-linear", "classes": classes, "train": MANY, "temperature": temperature}
    x, y = numbers(drawn(table).train)
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.001
    p = special.softmax(x @ law_of("softmax-linear", "weights", 10, classes) / temperature, axis=1)
    one_hot = np.eye(classes)[y]
    spread = np.sqrt((p * (1 - p)).sum(axis=0))
    assert (np.abs((one_hot - p).sum(axis=0)) < 4 * spread).all()
    surprise = -np.log(p[np.arange(MANY), y])
    entropy = -(p * np.log(p)).sum(axis=1)
    assert abs((surprise - entropy).sum()) < 4 * surprise.std() * np.sqrt(MANY)
    likeliest = numbers(drawn(table | {"labels": "likeliest"}).train)
    assert np.array_equal(likeliest[0], x)
    assert np.array_equal(likeliest[1], p.argmax(axis=1))


def test_the_ends_of_the_temperature() -> None:
    table = {"name": "softmax-linear", "train": MANY}
    likeliest = numbers(drawn(table | {"labels": "likeliest"}).train)[1]
    assert (numbers(drawn(table | {"temperature": 1e-4}).train)[1] == likeliest).mean() > 0.999
    hot = numbers(drawn(table | {"temperature": 1e6}).train)[1]
    assert abs((hot == likeliest).mean() - 1 / 3) < 4 / np.sqrt(MANY)


# ---------------------------------------------------------------- linear


def test_a_linear_regression_by_least_squares() -> None:
    table = {"name": "linear", "targets": 2, "train": MANY, "noise": 0.3}
    x, y = numbers(drawn(table).train)
    w, *_ = np.linalg.lstsq(x, y, rcond=None)
    law = law_of("linear", "weights", 10, 2)
    np.testing.assert_allclose(w, law, atol=5 * 0.3 / np.sqrt(MANY))
    noise = y - x @ law
    assert stats.kstest(noise.ravel() / 0.3, "norm").pvalue > 0.001
    assert abs(np.corrcoef(noise, rowvar=False)[0, 1]) < 4 / np.sqrt(MANY)
    exact = numbers(drawn(table | {"noise": 0.0}).train)
    np.testing.assert_allclose(exact[1], x @ law, atol=1e-5)
    assert {name: len(part) for name, part in drawn({"name": "linear"}).tests.items()} == {"test": 124}


@pytest.mark.parametrize("scaled", [True, False])
def test_the_truth_of_a_regression(scaled: bool) -> None:
    found = drawn({"name": "linear", "targets": 2, "noise": 0.3}, scale_targets=scaled, redraw="seed", seed=2)
    truth = found.truth
    assert truth is not None
    assert truth.kind == "values"
    wanted = found.test.raw.numpy() @ law_of("linear", "weights", 10, 2, draw=2)
    np.testing.assert_allclose(truth(found.test.raw), wanted, atol=1e-5)
    model = fit(truth.network(), found, "squared_error", weights=truth.weights(), epochs=0)
    np.testing.assert_allclose(model(found.test.raw), wanted, atol=1e-5)
    told = {"optimizer": {"name": "adam", "learning_rate": 0.1}, "schedule": "cosine"}
    student = fit("linear", found, "squared_error", seed=0, steps=400, **told)
    assert np.abs(student(found.test.raw).numpy() - wanted).mean() < 0.05


# ---------------------------------------------------------------- privileged information


def setting(name: str, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs and labels as they are before they are standardised, and a."""
    table = {"name": "privileged", "setting": name, "train": MANY, "standardise": False, **options}
    return *numbers(drawn(table).train), law_of("privileged", "law", 1, 50)[0]


def starred(name: str, **options: Any) -> np.ndarray:
    """What the teacher sees."""
    table = {"name": "privileged", "setting": name, "train": MANY, "standardise": False, **options}
    return drawn(table).train.seeing("x_star").raw.numpy().astype(np.float64)


def test_what_the_teacher_sees() -> None:
    """x* by the formulas of the paper, from x, a and the labels."""
    x, y, a = setting("clean-labels")
    np.testing.assert_allclose(starred("clean-labels")[:, 0], x @ a, rtol=1e-4, atol=1e-4)
    clean, noisy = starred("clean-features"), setting("clean-features")
    assert np.array_equal(noisy[1], (clean @ a > 0).astype(int))
    assert stats.kstest((noisy[0] - clean).ravel(), "norm").pvalue > 0.001
    x, y, _ = setting("relevant-features")
    three = starred("relevant-features")
    places = [int(np.flatnonzero((x == column[:, None]).all(axis=0))[0]) for column in three.T]
    assert np.array_equal(y, (three @ a[places] > 0).astype(int))
    x, y, _ = setting("sample-features")
    each = starred("sample-features")
    found = (each[:, :, None] == x[:, None, :]).argmax(axis=2)
    assert np.array_equal(np.take_along_axis(x, found, axis=1), each)
    assert np.array_equal(y, ((each * a[found]).sum(axis=1) > 0).astype(int))
    assert np.bincount(found.ravel(), minlength=50) == pytest.approx(np.full(50, 3 * MANY / 50), rel=0.15)
    x, y, _ = setting("largest-features")
    np.testing.assert_array_equal(starred("largest-features"), np.sort(x, axis=1)[:, ::-1][:, :3])
    one = drawn({"name": "privileged"}).train.seeing("x_star").raw
    assert (float(one.mean()), float(one.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def fair(y: np.ndarray, p: np.ndarray) -> bool:
    """Whether labels may have been drawn with probability p: in all, and where p is above and below one half."""
    gap, spread = y - p, p * (1 - p)
    parts = [np.ones(len(y), bool), p > 0.5, p < 0.5, np.abs(p - 0.5) < 0.2]
    return all(abs(gap[part].sum()) < 4 * np.sqrt(spread[part].sum()) for part in parts)


def test_clean_labels() -> None:
    x, y, a = setting("clean-labels")
    assert fair(y, special.ndtr(x @ a))
    assert not fair(y, special.ndtr(x @ a / 2))


def test_clean_features() -> None:
    """x* given x is normal with mean x/2 and variance 1/2 in each feature."""
    x, y, a = setting("clean-features")
    assert x.std(axis=0) == pytest.approx(np.full(50, np.sqrt(2)), abs=0.04)
    assert fair(y, special.ndtr(x @ a / np.linalg.norm(a) / np.sqrt(2)))


def test_relevant_features() -> None:
    x, y, a = setting("relevant-features")
    right = np.abs(((2 * y - 1)[:, None] * x).mean(axis=0))
    places = right.argsort()[-3:]
    assert np.array_equal(y, (x[:, places] @ a[places] > 0).astype(int))
    assert len({tuple(sorted(_places(seed))) for seed in range(8)}) > 4  # another three in another draw


def _places(seed: int) -> list[int]:
    table = {"name": "privileged", "setting": "relevant-features", "train": 4000, "standardise": False}
    x, y = numbers(drawn(table, redraw="seed", seed=seed).train)
    return np.abs(((2 * y - 1)[:, None] * x).mean(axis=0)).argsort()[-3:].tolist()


def test_features_of_each_sample() -> None:
    """Given x the label is a mean over all triples: here of 5 features, where there are 10."""
    x, y, a = setting("sample-features", features=5)
    triples = [np.array(one) for one in itertools.combinations(range(5), 3)]
    assert fair(y, np.mean([x[:, one] @ a[one] > 0 for one in triples], axis=0))


def test_largest_features() -> None:
    x, y, a = setting("largest-features")
    values = np.sort(x, axis=1)[:, ::-1][:, :3] @ a[:3]
    assert np.array_equal(y, (values > np.median(values)).astype(int))
    assert y.mean() == 0.5


@pytest.mark.parametrize("name", ["clean-labels", "clean-features", "largest-features"])
def test_features_are_standardised_by_the_training_part(name: str) -> None:
    table = {"name": "privileged", "setting": name, "test": 1000}
    plain, found = drawn(table | {"standardise": False}), drawn(table)
    x = numbers(plain.train)[0]
    for raw, scaled in ((plain.train, found.train), (plain.test, found.test)):
        wanted = (numbers(raw)[0] - x.mean(axis=0)) / x.std(axis=0)
        np.testing.assert_allclose(numbers(scaled)[0], wanted, atol=1e-5)
        assert np.array_equal(raw.labels, scaled.labels)
    assert np.abs(numbers(found.test)[0].mean(axis=0)).max() > 0.01


# ---------------------------------------------------------------- draws

TABLES = {name: {"name": name} for name in synthetic.SOURCES} | {
    f"privileged, {name}": {"name": "privileged", "setting": name, "test": 500}
    for name in ("clean-features", "relevant-features", "sample-features", "largest-features")
}


@pytest.mark.parametrize("name", TABLES)
def test_a_draw_is_the_same_again_and_another_seeds_is_another(name: str) -> None:
    table = TABLES[name]

    def prints(**options: Any) -> list[Any]:
        found = drawn(table, **options)
        return [(part.fingerprint(), part.labels.tolist()) for part in (found.train, found.test) if part is not None]

    study = prints()
    assert study == prints(seed=5)  # one draw for all seeds
    assert prints(redraw="seed", seed=5) == prints(redraw="seed", seed=5)
    draws = [study, prints(redraw="seed", seed=0), prints(redraw="seed", seed=1)]
    assert len({part[0] for draw in draws for part in draw}) == 6
    assert len({str(part[1]) for draw in draws for part in draw}) == 6


@pytest.mark.parametrize("name", TABLES)
def test_a_smaller_part_is_the_beginning_of_a_larger_one(name: str) -> None:
    table = TABLES[name] | ({"standardise": False} if "privileged" in name else {})
    small, large = (drawn(table | {"train": n}).train for n in (100, 150))
    assert np.array_equal(small.raw, large.raw[:100])
    if name != "privileged, largest-features":  # whose threshold is the part's median
        assert np.array_equal(small.labels, large.labels[:100])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "linear", "noise": -0.1}, "noise of .* is -0.1; wanted is a finite number of at least 0"),
    ({"name": "linear", "targets": 0}, "targets of .* is 0"),
    ({"name": "softmax-linear", "classes": 1}, "classes of .* is 1; wanted is at least 2"),
    ({"name": "softmax-linear", "features": 0}, "features of .* is 0"),
    ({"name": "softmax-linear", "train": 0}, "train of .* is 0"),
    ({"name": "softmax-linear", "temperature": 0.0}, "temperature of .* is 0.0; wanted is a finite number above 0"),
    ({"name": "softmax-linear", "temperature": float("inf")}, "temperature of .* is inf"),
    ({"name": "softmax-linear", "labels": "best"}, "labels of the data source"),
    ({"name": "softmax-linear", "rows": 3}, 'no key "rows"'),
    ({"name": "privileged", "relevant": 51}, "relevant of .* is 51; wanted is at most 50"),
    ({"name": "privileged", "setting": "clean-label"}, "setting of the data source"),
    ({"name": "privileged", "test": 1.5}, "test of the data source"),
]


@pytest.mark.parametrize(("table", "message"), REFUSED)
def test_what_cannot_be_drawn_is_refused_in_data_and_in_plans(table: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.open(table)
    plan = {"data": {"source": table}, "models": {"alone": {"network": "linear"}}}
    with pytest.raises(PlanError, match=message) as caught:
        Plan.from_dict(plan)
    assert (caught.value.key or "").startswith("data.source")


def test_what_is_given_cannot_be_drawn_anew() -> None:
    with pytest.raises(DataError, match=r"arrays are given.*linear, privileged, softmax-linear"):
        data.open((np.zeros((9, 2)), np.arange(9) % 2), redraw="seed")
    with pytest.raises(DataError, match=r"redraw = 'study': wanted is \"seed\""):
        data.open("softmax-linear", redraw="study")  # type: ignore[arg-type]
    base = {"data": {"source": "softmax-linear", "redraw": "seed"}, "models": {"alone": {"network": "linear"}}}
    for change, key in (
        ({"data__source": "digits"}, "data.redraw"),
        ({"models__alone__shared": True}, "models.alone.shared"),
        ({"models__brought": {"outputs": "a.npy", "kind": "logits"}}, "models.brought.outputs"),
        ({"data__redraw": "always"}, "data.redraw"),
    ):
        with pytest.raises(PlanError) as caught:
            Plan.from_dict(changed(base, **change))
        assert caught.value.key == key


# ---------------------------------------------------------------- a study on data drawn anew

PLAN: dict[str, Any] = {
    "title": "Drawn anew",
    "seeds": 4,
    "data": {"source": {"name": "softmax-linear", "train": 200, "test": 90}, "redraw": "seed", "validation": 40},
    "training": {"steps": 60, "batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 0.02}},
    "models": {
        "teacher": {"network": "mlp:8"},
        "alone": {"network": "linear"},
        "taught": {"network": "linear", "teacher": "teacher"},
    },
    "evaluation": {"latency": {"batch": []}},
    "verdict": {"metric": "accuracy", "margin": 0.01},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("redraw") / "drawn"
    return folder, run(PLAN, folder)


def stored(folder: Path, model: str, seed: int) -> Any:
    return load_predictions(folder / "models" / model / f"seed-{seed}" / "predictions" / "test.safetensors")


def test_every_seed_trains_and_is_judged_on_its_own_draw(done: tuple[Path, Results]) -> None:
    folder, _ = done
    told = [storage.read_json(path)["settings"]["data"] for path in sorted(folder.glob("models/alone/*/result.json"))]
    assert len({one["train"] for one in told}) == len({one["validation"] for one in told}) == 4
    for seed in range(4):
        wanted = data.open(PLAN["data"]["source"], validation=40, redraw="seed", seed=seed)
        assert told[seed]["train"] == storage.fingerprint(
            [wanted.train.fingerprint(), storage.tensor_sha256(wanted.train.labels)]
        )
        for model in PLAN["models"]:
            assert np.array_equal(stored(folder, model, seed).labels, wanted.test.labels)


def test_the_interval_is_a_paired_t_over_seeds(done: tuple[Path, Results]) -> None:
    folder, results = done
    rates = {
        model: [(one.log_probs.argmax(1) == one.labels).mean() for one in (stored(folder, model, s) for s in range(4))]
        for model in PLAN["models"]
    }
    assert len(results.verdicts) == 2
    for verdict in results.verdicts:
        assert (verdict.method, verdict.examples) == ("nested", 4 * 90)
        difference = np.subtract(rates[verdict.model], rates[verdict.baseline])
        level = 1 - 0.05 / 2  # for two comparisons
        wanted = stats.t.interval(level, 3, loc=difference.mean(), scale=stats.sem(difference))
        assert verdict.interval == pytest.approx(wanted)
        assert "for fresh training runs, each on data drawn anew" in verdict.sentence
        assert "360 test examples in all" in verdict.sentence


def test_what_a_student_has_of_its_teacher_is_over_seeds(done: tuple[Path, Results]) -> None:
    folder, results = done
    told = results.inheritance["taught"]
    pairs = [(stored(folder, "teacher", seed), stored(folder, "taught", seed)) for seed in range(4)]
    ranks = [stats.spearmanr(a.log_probs.max(1), b.log_probs.max(1)).statistic for a, b in pairs]
    assert told.confidence.values == pytest.approx(ranks)
    assert told.confidence.interval == pytest.approx(
        stats.t.interval(0.95, 3, loc=np.mean(ranks), scale=stats.sem(ranks)), abs=1e-6
    )
    assert told.examples == 360
    for part in told.classes:
        rows = [np.ones(90, bool) if not part.name else a.labels == int(part.name) for a, _ in pairs]
        wrong = [np.mean((b.log_probs.argmax(1) != b.labels)[at]) for (_, b), at in zip(pairs, rows, strict=True)]
        assert part.student_error_rate == pytest.approx(np.mean(wrong))
        assert part.examples == sum(at.sum() for at in rows)
        gaps = [np.mean((_uncertainty(b) - _uncertainty(a))[at]) for (a, b), at in zip(pairs, rows, strict=True)]
        assert part.difference == pytest.approx(np.mean(gaps), abs=1e-6)
        assert part.interval == pytest.approx(stats.t.interval(0.95, 3, np.mean(gaps), stats.sem(gaps)), abs=1e-6)


def _uncertainty(one: Any) -> np.ndarray:
    """The total variation distance from the own answer, scaled to [0, 1], for three classes."""
    from potstill import metrics

    return metrics.get("uncertainty", classes=3).phi(one.log_probs, one.labels)[:, 0]


def test_running_again_runs_nothing_and_more_seeds_draw_more(done: tuple[Path, Results], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "drawn"
    shutil.copytree(done[0], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("models/**/result.json")}
    assert run(PLAN, folder).verdicts == done[1].verdicts
    more = run(PLAN | {"seeds": 5}, folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert more.verdicts[0].differences[:4] == done[1].verdicts[0].differences
    assert more.verdicts[0].look == 2
    with pytest.raises(RunError, match="data"):
        run(changed(PLAN, data__redraw=None), folder)


def test_the_page_says_that_data_are_drawn_anew(done: tuple[Path, Results]) -> None:
    text = " ".join(report.page.render(done[1], None).split())
    assert "randomness on data drawn anew, training and test examples alike" in text
    assert "for fresh training runs on data drawn anew, each for itself" in text
    assert "new data per seed" in text
    assert "not for another training set" not in text
