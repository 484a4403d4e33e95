"""The numbers of a verdict against an analysis of variance by loops, a jackknife by brute force, and simulations."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import f1_score

from potstill import metrics
from potstill.metrics.metric import Metric, mean
from potstill.study import statistics
from potstill.study.results import Verdict
from potstill.study.statistics import Components, crossed, half_width, needed, paired, pseudo_values, sign_flip_p
from potstill.study.verdict import judge, judge_scalar

Array = np.ndarray[Any, Any]
ACCURACY = metrics.get("accuracy", classes=2)
SCORE = Metric("score", "higher", phi=lambda p, _: p, combine=mean, per_example=True)


def facts(count: int, **changes: Any) -> dict[str, Any]:
    given = {"model": "student", "baseline": "alone", "seeds": range(count), "planned_seeds": range(count)}
    return {**given, "margin": 0.0, "comparisons": 1, **changes}


def parts(differences: Array, **changes: Any) -> Verdict:
    """The verdict on a model that beats a constant baseline by `differences` (S, n)."""
    ours = [row[:, None] + 0.5 for row in differences]
    return judge(SCORE, ours, [np.full_like(phi, 0.5) for phi in ours], **facts(len(ours), **changes))


def anova_by_loops(d: Array, comparisons: int) -> tuple[float, float]:
    """Half width and degrees of freedom, from the sums of squares written out."""
    S, n = d.shape
    grand = sum(d[s, i] for s in range(S) for i in range(n)) / (S * n)
    seed = [sum(d[s, i] for i in range(n)) / n for s in range(S)]
    example = [sum(d[s, i] for s in range(S)) / S for i in range(n)]
    ms_a = n * sum((m - grand) ** 2 for m in seed) / (S - 1)
    ms_b = S * sum((m - grand) ** 2 for m in example) / (n - 1)
    ms_e = sum((d[s, i] - seed[s] - example[i] + grand) ** 2 for s in range(S) for i in range(n)) / ((S - 1) * (n - 1))
    a = max(ms_a, ms_e)
    v = a + max(ms_b - ms_e, 0)
    nu = v**2 / (a**2 / (S - 1))
    return float(stats.t.ppf(1 - 0.025 / comparisons, nu) * math.sqrt(v / (S * n))), nu


@pytest.mark.parametrize(("seeds", "n"), [(2, 2), (3, 20), (5, 7), (10, 30)])
@pytest.mark.parametrize("share", [(1, 0, 0.1), (0, 1, 0.1), (1, 1, 1), (0, 0, 1)])
@pytest.mark.parametrize("comparisons", [1, 5])
def test_crossed_interval_is_the_anova(seeds: int, n: int, share: tuple[float, ...], comparisons: int) -> None:
    rng = np.random.default_rng(seeds * n)
    shapes = [(seeds, 1), (1, n), (seeds, n)]
    d = sum(scale * rng.normal(size=shape) for scale, shape in zip(share, shapes, strict=True)) + 0.3
    verdict = parts(d, comparisons=comparisons)
    half, nu = anova_by_loops(d, comparisons)
    assert verdict.interval == pytest.approx((d.mean() - half, d.mean() + half))
    assert (verdict.method, verdict.examples, verdict.difference) == ("crossed", n, pytest.approx(d.mean()))
    assert float(crossed(d).nu) == pytest.approx(nu)
    stacked = crossed(np.stack([d, 2 * d]))
    np.testing.assert_allclose(half_width(stacked, comparisons), [half, 2 * half])


def test_differences_by_seed_alone_give_the_paired_t_interval() -> None:
    by_seed = np.array([0.1, 0.4, 0.2, 0.5])
    expected = stats.ttest_rel(by_seed, np.zeros(4)).confidence_interval()
    assert parts(np.tile(by_seed[:, None], 50)).interval == pytest.approx(tuple(expected))


def test_differences_by_example_alone_give_the_normal_interval_over_examples() -> None:
    by_example = np.random.default_rng(0).normal(size=50)
    half = stats.norm.ppf(0.975) * stats.sem(by_example)
    assert parts(np.tile(by_example, (4, 1))).interval == pytest.approx(
        (by_example.mean() - half, by_example.mean() + half)
    )


@pytest.mark.parametrize("nested", [False, True])
def test_nested_and_scalar_intervals_are_paired_t(nested: bool) -> None:
    rng = np.random.default_rng(1)
    if nested:
        ours = [(rng.random((n, 1)) < 0.8).astype(float) for n in (30, 40, 50, 35)]
        theirs = [(rng.random((len(phi), 1)) < 0.7).astype(float) for phi in ours]
        values, others = [p.mean() for p in ours], [p.mean() for p in theirs]
        verdict = judge(ACCURACY, ours, theirs, **facts(4, nested=True))
        assert (verdict.method, verdict.examples) == ("nested", 155)
    else:
        values, others = list(rng.normal(size=4)), list(rng.normal(size=4))
        verdict = judge_scalar("latency_ms", "lower", values, others, **facts(4))
        assert (verdict.method, verdict.examples) == ("scalar", None)
    interval = stats.ttest_rel(values, others).confidence_interval()
    assert verdict.interval == pytest.approx(tuple(interval))
    assert verdict.differences == pytest.approx(list(np.subtract(values, others)))


@pytest.mark.parametrize("chunk", [4, 2**21])
def test_pseudo_values_of_macro_f1_are_the_brute_force_jackknife(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(statistics, "_CHUNK", chunk)
    rng, n = np.random.default_rng(2), 25
    labels, logits = rng.integers(0, 3, n), rng.normal(size=(n, 3))
    metric, top = metrics.get("macro_f1", classes=3), logits.argmax(axis=1)

    def f1(keep: Array) -> float:
        return float(f1_score(labels[keep], top[keep], labels=[0, 1, 2], average="macro", zero_division=0))

    every = np.arange(n)
    brute = [n * f1(every) - (n - 1) * f1(np.delete(every, i)) for i in range(n)]
    phi = metric.phi(special.log_softmax(logits, axis=1), labels)
    np.testing.assert_allclose(pseudo_values(metric, phi), brute, atol=1e-12)


@pytest.mark.parametrize("name", metrics.names(regression=False))
def test_pseudo_values_leave_one_example_out(name: str) -> None:
    rng, metric = np.random.default_rng(12), metrics.get(name, classes=3)
    predictions, labels = special.log_softmax(rng.normal(size=(20, 3)), axis=1), rng.integers(0, 3, 20)
    other = special.log_softmax(rng.normal(size=(20, 3)), axis=1) if metric.needs_teacher else labels
    whole = metric.value(predictions, other)
    brute = [
        20 * whole - 19 * metric.value(np.delete(predictions, i, axis=0), np.delete(other, i, axis=0))
        for i in range(20)
    ]
    np.testing.assert_allclose(pseudo_values(metric, metric.phi(predictions, other)), brute, atol=1e-10)


def test_a_set_metric_is_centred_on_the_difference_of_its_values() -> None:
    rng, labels = np.random.default_rng(3), np.arange(40) % 3
    metric = metrics.get("macro_f1", classes=3)
    phis = [
        [metric.phi(special.log_softmax(rng.normal(size=(40, 3)), axis=1), labels) for _ in range(4)] for _ in range(2)
    ]
    verdict = judge(metric, *phis, **facts(4))
    values = [[float(metric.combine(phi.sum(axis=0), 40)) for phi in side] for side in phis]
    d = np.array([[pseudo_values(metric, phi) for phi in side] for side in phis])
    half, _ = anova_by_loops(d[0] - d[1], 1)
    centre = np.mean(values[0]) - np.mean(values[1])
    assert verdict.interval == pytest.approx((centre - half, centre + half))
    assert (verdict.model_mean, verdict.baseline_mean) == pytest.approx((np.mean(values[0]), np.mean(values[1])))


@pytest.mark.parametrize("seeds", [1, 3, 6, 9])
def test_sign_flip_p_is_exact(seeds: int) -> None:
    d = np.round(np.random.default_rng(seeds).normal(size=seeds) + 0.7, 1)
    flips = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-9 for signs in itertools.product([-1, 1], repeat=seeds)]
    assert sign_flip_p(d) == pytest.approx(np.mean(flips))
    assert sign_flip_p(np.ones(seeds)) == 2.0 ** (1 - seeds)
    assert sign_flip_p(np.zeros(seeds)) == 1.0


def test_sign_flip_beside_the_verdict() -> None:
    verdict = parts(np.random.default_rng(5).normal(size=(8, 40)) * 0.01 + 0.4)
    assert verdict.sign_flip_p == verdict.sign_flip_smallest_p == 2.0**-7
    assert sign_flip_p(np.ones(40)) == 2.0**-39
    assert sign_flip_p(np.ones(41)) is None


@pytest.mark.parametrize("comparisons", [1, 4])
@pytest.mark.parametrize(("scale", "margin"), [((0.3, 0.3, 1.0), 0.0), ((0.3, 0.3, 1.0), 0.4), ((0.1, 1.0, 1.0), 0.0)])
def test_seeds_needed_by_brute_force(scale: tuple[float, ...], margin: float, comparisons: int) -> None:
    rng, n = np.random.default_rng(7), 200
    d = scale[0] * rng.normal(size=(4, 1)) + scale[1] * rng.normal(size=(1, n)) + scale[2] * rng.normal(size=(4, n))
    c, target = crossed(d - d.mean() + 0.15), max(0.15, margin - 0.15)

    def half(seeds: int, examples: int) -> float:
        variance = c.seed / seeds + c.example / examples + c.residual / seeds / examples
        return float(stats.t.ppf(1 - 0.025 / comparisons, seeds - 1) * math.sqrt(variance))

    found = needed(c, target, comparisons)
    assert found.seeds == next((s for s in range(5, 201) if half(s, n) < target), None)
    assert found.seeds


def test_examples_needed_where_seeds_cannot_decide() -> None:
    rng = np.random.default_rng(8)
    by_example = rng.normal(size=(1, 100))
    d = by_example - by_example.mean() + 0.05 + 0.01 * rng.normal(size=(5, 1)) + 0.01 * rng.normal(size=(5, 100))
    c = crossed(d)
    found = needed(c, 0.05, 1)
    assert found.never
    assert found.seeds is None
    assert found.examples
    assert found.with_seeds

    def half(examples: int) -> float:
        at = found.with_seeds or 0
        variance = c.seed / at + c.example / examples + c.residual / at / examples
        return float(stats.t.ppf(0.975, at - 1) * math.sqrt(variance))

    assert half(found.examples) < 0.05 <= half(found.examples - 1)
    verdict = parts(d)
    assert re.search(r"more seeds cannot decide; about [\d,]+ test examples would", verdict.would_decide or "")
    assert (verdict.would_decide or "?") in verdict.sentence


def test_examples_needed_come_with_more_seeds_where_seeds_vary_much() -> None:
    rng = np.random.default_rng(13)
    d = 0.1 * rng.normal(size=(4, 1)) + rng.normal(size=(1, 50)) + 0.1 * rng.normal(size=(4, 50))
    c = crossed(d)
    found = needed(c, 0.05, 1)
    assert found.seeds is None
    assert found.examples
    assert found.with_seeds

    def of_seeds(seeds: int) -> float:
        return float(stats.t.ppf(0.975, seeds - 1) ** 2 * c.seed / seeds)

    assert of_seeds(found.with_seeds) <= 0.05**2 / 2 < of_seeds(found.with_seeds - 1)
    assert found.with_seeds > 4


STUDIES = 8000
EXAMPLES = 40

# Share of the variance of the mean difference that comes from seeds, from examples, and from both together.
MIXES = {
    "seeds dominate": (0.97, 0.01, 0.02),
    "cases dominate": (0.05, 0.90, 0.05),
    "mixed": (0.40, 0.40, 0.20),
    "residual dominates": (0.05, 0.05, 0.90),
    "seeds with some cases": (0.88, 0.10, 0.02),
}
# With three seeds their mean square is sometimes so small by chance that the degrees of freedom are overestimated.
# A sweep over the shares found this mix to be the worst one: .921 with three seeds, .937 with four.
FLOOR = {("seeds with some cases", 3): 0.915}


def studies(mix: str, seeds: int, *, n: int = EXAMPLES, count: int = STUDIES) -> Array:
    """(studies, S, n) differences around a true difference of zero; the mean of each study has variance 1."""
    rng = np.random.default_rng(seeds * 100 + list(MIXES).index(mix))
    of_seed, of_example, of_both = MIXES[mix]
    return np.asarray(
        np.sqrt(of_seed * seeds) * rng.normal(size=(count, seeds, 1))
        + np.sqrt(of_example * n) * rng.normal(size=(count, 1, n))
        + np.sqrt(of_both * seeds * n) * rng.normal(size=(count, seeds, n))
    )


def covered(
    differences: Array, components: Components, comparisons: int = 1, axes: tuple[int, ...] = (-2, -1)
) -> Array:
    return np.abs(differences.mean(axis=axes)) <= half_width(components, comparisons)


@pytest.mark.parametrize("seeds", [3, 4, 5, 8, 10])
@pytest.mark.parametrize("mix", MIXES)
def test_crossed_interval_covers(mix: str, seeds: int) -> None:
    differences = studies(mix, seeds)
    rate = covered(differences, crossed(differences)).mean()
    assert rate >= FLOOR.get((mix, seeds), 0.93)
    if mix in {"cases dominate", "seeds dominate"}:
        assert rate <= 0.985, "so wide that it would not decide anything"


@pytest.mark.parametrize("mix", ["cases dominate", "mixed"])
def test_ignoring_the_test_examples_would_not_cover(mix: str) -> None:
    """A paired t over seeds on one common test set answers another question: why both are random here."""
    differences = studies(mix, 8)
    by_seed = differences.mean(axis=-1)
    assert covered(by_seed, paired(by_seed), axes=(-1,)).mean() < 0.9


@pytest.mark.parametrize("seeds", [3, 10])
def test_paired_interval_covers_when_test_data_is_drawn_anew(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=(STUDIES, seeds))
    assert covered(values, paired(values), axes=(-1,)).mean() == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("mix", ["cases dominate", "mixed"])
def test_simultaneous_interval_covers_all_comparisons_at_once(mix: str) -> None:
    """Six models against one baseline: their differences share the baseline's variation."""
    rng, seeds, models = np.random.default_rng(6), 5, 7
    of_seed, of_example, of_both = MIXES[mix]
    scores = (
        np.sqrt(of_seed * seeds) * rng.normal(size=(1500, models, seeds, 1))
        + np.sqrt(of_example * EXAMPLES) * rng.normal(size=(1500, models, 1, EXAMPLES))
        + np.sqrt(of_both * seeds * EXAMPLES) * rng.normal(size=(1500, models, seeds, EXAMPLES))
    )
    differences = scores[:, 1:] - scores[:, :1]
    components = crossed(differences)
    assert covered(differences, components, comparisons=6).all(axis=1).mean() >= 0.93
    assert covered(differences, components, comparisons=1).all(axis=1).mean() < 0.90


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "brier"])
def test_interval_covers_for_simulated_classifiers(metric: str) -> None:
    """Two models of equal expected quality on three classes: whole-number parts, a set metric, and a smooth one."""
    rng, seeds, n, chosen = np.random.default_rng(11), 5, 80, metrics.get(metric, classes=3)
    hits = 0
    for _ in range(400):
        labels = rng.integers(0, 3, n)
        hard = 1.5 * rng.normal(size=(n, 3))
        parts = []
        for _ in range(2):
            own = rng.normal(size=(n, 3))
            parts.append([])
            for _ in range(seeds):
                skill = 2.0 + 0.5 * rng.normal()
                logits = skill * np.eye(3)[labels] + hard + own + 0.7 * rng.normal(size=(n, 3))
                parts[-1].append(chosen.phi(special.log_softmax(logits, axis=1), labels))
        pseudo = np.array([[pseudo_values(chosen, phi) for phi in side] for side in parts])
        values = np.array([[chosen.combine(phi.sum(axis=0), n) for phi in side] for side in parts])
        centre = (values[0] - values[1]).mean()
        hits += abs(centre) <= half_width(crossed(pseudo[0] - pseudo[1]), 1)
    assert hits / 400 >= 0.93
