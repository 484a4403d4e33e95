"""Verdicts: numbers against an analysis of variance by loops, every branch of the rule, and what the sentence says."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from potstill import metrics
from potstill.errors import DataError, SettingError
from potstill.metrics.metric import Metric, mean
from potstill.study.results import Verdict
from potstill.study.verdict import SCOPE, judge, judge_scalar

Array = np.ndarray[Any, Any]
ACCURACY = metrics.get("accuracy", classes=2)
SCORE = Metric("score", "higher", phi=lambda p, _: p, combine=mean, per_example=True)


def facts(count: int, **changes: Any) -> dict[str, Any]:
    given = {"model": "student", "baseline": "alone", "seeds": range(count), "planned_seeds": range(count)}
    return {**given, "margin": 0.0, "comparisons": 1, **changes}


def parts(differences: Array, metric: Metric = SCORE, **changes: Any) -> Verdict:
    """The verdict on a model that beats a constant baseline by `differences` (S, n)."""
    ours = [row[:, None] + 0.5 for row in differences]
    return judge(metric, ours, [np.full_like(phi, 0.5) for phi in ours], **facts(len(ours), **changes))


def scalars(centre: float, half: float, *, name: str = "accuracy", better: Any = "higher", **changes: Any) -> Verdict:
    """The verdict on three seeds whose paired t interval is centre +- half."""
    spread = half * math.sqrt(3) / stats.t.ppf(0.975, 2)
    other = np.array([0.5, 0.5, 0.5])
    values = other + centre + spread * np.array([-1.0, 0.0, 1.0])
    return judge_scalar(name, better, list(values), list(other), **facts(3, **changes))


# Interval centre +- half, margin -> decision, beyond the margin, not worse; in the direction "higher is better".
RULE = [
    (0.05, 0.02, 0.00, "better", True, True),
    (0.05, 0.02, 0.02, "better", True, True),
    (0.05, 0.02, 0.04, "better", False, True),
    (0.05, 0.02, 0.08, "equivalent", False, True),
    (0.00, 0.02, 0.03, "equivalent", False, True),
    (-0.05, 0.02, 0.08, "equivalent", False, True),
    (-0.05, 0.02, 0.06, "worse", False, False),
    (-0.05, 0.02, 0.02, "worse", True, False),
    (-0.05, 0.02, 0.00, "worse", True, False),
    (0.01, 0.02, 0.00, "undecided", False, False),
    (0.01, 0.02, 0.005, "undecided", False, False),
    (0.01, 0.02, 0.02, "undecided", False, True),
    (-0.01, 0.02, 0.02, "undecided", False, False),
    (0.00, 0.00, 0.00, "undecided", False, False),
    (0.00, 0.00, 0.01, "equivalent", False, True),
    (0.05, 0.00, 0.01, "better", True, True),
]


@pytest.mark.parametrize(("centre", "half", "margin", "decision", "beyond", "not_worse"), RULE)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_decision_rule(
    better: Any, centre: float, half: float, margin: float, decision: str, beyond: bool, not_worse: bool
) -> None:
    sign = 1 if better == "higher" else -1
    verdict = scalars(sign * centre, half, better=better, margin=margin)
    assert (verdict.decision, verdict.beyond_margin, verdict.not_worse) == (decision, beyond, not_worse)
    assert verdict.interval == pytest.approx((sign * centre - half, sign * centre + half))
    assert (verdict.would_decide is None) == (decision != "undecided")


def test_simultaneous_intervals_are_wider_and_decide_less() -> None:
    d = np.random.default_rng(4).normal(size=(5, 60)) * 0.3 + 0.05
    one, six = parts(d), parts(d, comparisons=6)
    assert one.interval
    assert six.interval
    assert (one.decision, six.decision) == ("better", "undecided")
    assert six.interval[0] < 0 < one.interval[0]
    assert "simultaneous over 6 comparisons" in six.sentence
    assert "simultaneous" not in one.sentence


CLEAR = np.random.default_rng(5).normal(size=(10, 40)) * 0.01 + 0.4


@pytest.mark.parametrize(
    ("seeds", "planned", "decision", "interval", "says"),
    [
        (0, 3, "undecided", False, "no seed is complete for both"),
        (1, 1, "undecided", False, "one seed gives no interval.*at least 3 seeds are needed"),
        (2, 2, "undecided", True, "two seeds are too few to decide.*about 3 seeds would decide"),
        (3, 3, "better", True, "is better than"),
        (8, 10, "better", True, r"Not complete: 2 of 10 seeds \(8, 9\): student seed 8: NaN"),
        (7, 10, "undecided", True, r"more than a fifth of the seeds failed.*Not complete: 3 of 10 seeds \(7, 8, 9\)"),
    ],
)
def test_few_and_failed_seeds(seeds: int, planned: int, decision: str, interval: bool, says: str) -> None:
    failed = ["student seed 8: NaN at step 3", "alone seed 9: killed"] if planned == 10 else []
    ours = [row[:, None] for row in CLEAR[:seeds]]
    verdict = judge(SCORE, ours, [0 * phi for phi in ours], **facts(seeds, planned_seeds=range(planned), failed=failed))
    assert (verdict.decision, verdict.interval is not None, verdict.not_worse) == (
        decision,
        interval,
        decision == "better",
    )
    assert (verdict.method is None) == (seeds < 2)
    assert re.search(says, verdict.sentence)
    assert verdict.failed == (failed or [f"seed {s}" for s in range(seeds, planned)])
    assert all(text in verdict.sentence for text in failed)
    assert (verdict.difference is None) == (seeds == 0)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("seeds", "margin", "decision"), [(3, 0.031, "equivalent"), (3, 0.03, "undecided")])
def test_no_example_differs(seeds: int, margin: float, decision: str, nested: bool) -> None:
    """100 test examples without a difference leave 3/100 open."""
    n = 100 // seeds if nested else 100
    ours = [np.ones((n + (nested and s == 0), 1)) for s in range(seeds)]
    verdict = judge(ACCURACY, ours, ours, **facts(seeds, margin=margin, nested=nested))
    assert (verdict.decision, verdict.interval, verdict.difference) == (decision, None, 0.0)
    assert verdict.not_worse == (decision == "equivalent")
    assert "no test example differs" in verdict.sentence
    assert (verdict.would_decide is None) == (decision == "equivalent")


def test_no_example_differs_says_what_would_decide() -> None:
    same = [np.ones((100, 1))] * 3
    assert "a margin of more than 3 points would decide" in judge(ACCURACY, same, same, **facts(3)).sentence
    assert "about 310 test examples" in judge(ACCURACY, same, same, **facts(3, margin=0.0098)).sentence
    two = judge(ACCURACY, same[:2], same[:2], **facts(2, margin=0.5))
    assert (two.decision, two.would_decide) == ("undecided", "at least 3 seeds are needed")


def test_corners() -> None:
    every = judge(ACCURACY, [np.ones((9, 1))] * 3, [np.zeros((9, 1))] * 3, **facts(3))
    assert (every.decision, every.interval) == ("better", (1.0, 1.0))  # all examples differ, and in the same way
    single = judge(ACCURACY, [np.ones((1, 1))] * 3, [np.zeros((1, 1))] * 3, **facts(3))
    assert (single.decision, single.interval) == ("undecided", None)
    assert "one test example gives no interval" in single.sentence
    ours = [np.array([[1.0], [0.0], [1.0]])] * 3  # equal by chance, though examples differ: no measure of spread
    still = judge(ACCURACY, ours, [1 - phi for phi in ours], **facts(3, nested=True))
    assert (still.decision, still.interval) == ("undecided", None)
    assert "the same in every seed" in still.sentence
    hits = [np.arange(20)[:, None] < k for k in (19, 18, 17, 15, 14)]  # 0.95 - 0.90 and 0.75 - 0.70 differ in rounding
    rounded = judge(ACCURACY, [hits[0], hits[3]] * 2, [hits[1], hits[4]] * 2, **facts(4, nested=True))
    assert rounded.interval is None


def test_nothing_decides() -> None:
    assert "more seeds cannot decide: the difference is zero, and so is the margin" in scalars(0.0, 0.1).sentence
    assert scalars(0.0001, 0.3).would_decide == "200 seeds would not decide"
    d = np.random.default_rng(13).normal(size=(4, 1)) + np.random.default_rng(14).normal(size=(1, 50))
    assert parts(d - d.mean() + 0.01).would_decide == (
        "200 seeds would not decide, whatever the number of test examples"
    )


@pytest.mark.parametrize(("centre", "margin", "target"), [(0.001, 0.015, 0.014), (0.012, 0.015, 0.012)])
def test_what_would_decide_is_the_nearer_of_equivalent_and_different(
    centre: float, margin: float, target: float
) -> None:
    sd = 0.03 * math.sqrt(3) / stats.t.ppf(0.975, 2)
    seeds = next(s for s in range(4, 201) if stats.t.ppf(0.975, s - 1) * sd / math.sqrt(s) < target)
    assert f"about {seeds} seeds would decide" in scalars(centre, 0.03, margin=margin).sentence


SENTENCES = [
    (
        scalars(0.043, 0.01, comparisons=5),
        "student is better than alone on accuracy by 4.3 points (95 % interval 2.0 to 6.6 for fresh training runs, not "
        "another training set; simultaneous over 5 comparisons; 3 seeds): 54.3 % against 50.0 %.",
    ),
    (
        scalars(0.006, 0.004, name="error_rate", better="lower", margin=0.001, cost="12 times slower."),
        "student is worse than alone on error rate by 0.6 points, more than the margin of 0.1 points (95 % interval "
        "0.2 to 1.0 for fresh training runs, not another training set; 3 seeds): 50.6 % against 50.0 %. Cost: 12 times "
        "slower.",
    ),
    (
        scalars(-0.001, 0.004, name="macro_f1", margin=0.01, look=2),
        "student and alone are equivalent on macro F1 within the margin of 1 point: 49.9 % against 50.0 %, a "
        "difference of -0.1 points (95 % interval -0.5 to +0.3 for fresh training runs, not another training set; 3 "
        "seeds). This is the second look: seeds added after looking make the interval optimistic.",
    ),
    (
        scalars(
            -0.067,
            0.0612,
            name="cross_entropy",
            better="lower",
            shared_teacher="large",
            differs_in=["network", "training.epochs"],
            look=3,
        ),
        "student is better than alone on cross-entropy by 0.067 (95 % interval 0.006 to 0.128 for this teacher "
        "(large), fresh training runs, not another training set; 3 seeds): 0.433 against 0.500. This is the "
        "third look: seeds added after looking make the interval optimistic. They also differ in network, "
        "training.epochs.",
    ),
    (
        scalars(0.01, 0.0124, margin=0.005),
        "Undecided whether student is better than alone on accuracy: 51.0 % against 50.0 %, a difference of +1.0 "
        "points (95 % interval -0.2 to +2.2 for fresh training runs, not another training set; 3 seeds); it is not "
        "worse by more than the margin of 0.5 points; about 4 seeds would decide if the difference stays as it is.",
    ),
]


@pytest.mark.parametrize(("verdict", "sentence"), SENTENCES)
def test_sentences(verdict: Verdict, sentence: str) -> None:
    assert verdict.sentence == sentence


def test_sentences_of_crossed_and_nested_verdicts() -> None:
    assert "for fresh training runs and test examples, not another training set; 5 seeds; 40 test examples)" in (
        parts(CLEAR[:5]).sentence
    )
    assert "for fresh training runs, each on data drawn anew; 5 seeds; 200 test examples in all)" in (
        parts(CLEAR[:5], nested=True).sentence
    )
    assert "(for this teacher (large); 1 seed; 40 test examples)" in parts(CLEAR[:1], shared_teacher="large").sentence
    assert "another training set" in SCOPE


def test_the_sentence_never_contradicts_its_interval() -> None:
    """Read the printed numbers back and decide by them."""
    rng = np.random.default_rng(9)
    seen = set()
    for _ in range(400):
        centre, margin = rng.normal() * 0.01, float(rng.choice([0.0, 0.001, 0.01, 0.02]))
        name, better = ("accuracy", "higher") if rng.random() < 0.5 else ("error_rate", "lower")
        verdict = scalars(centre, float(rng.exponential(0.01)), name=name, better=better, margin=margin)
        found = re.search(r"95 % interval ([-+.\d]+) to ([-+.\d]+)", verdict.sentence)
        assert found
        low, high = float(found[1]), float(found[2])
        seen.add(verdict.decision)
        assert low <= high
        if verdict.decision in {"better", "worse"}:
            assert low > 0
            assert verdict.beyond_margin == (low > 100 * margin)
        else:
            assert (-100 * margin < low and high < 100 * margin) == (verdict.decision == "equivalent")
        if verdict.decision == "undecided":
            assert low <= 0 <= high
    assert seen == {"better", "worse", "equivalent", "undecided"}


ONES = [np.ones((4, 1))] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": -0.1}, "margin: found -0.1"),
        ({"margin": float("nan")}, "margin: found nan"),
        ({"comparisons": 0}, "comparisons: 0"),
        ({"look": 0}, "look: 0"),
        ({"seeds": [0, 0, 1]}, r"seeds: found \[0, 0, 1\]"),
        ({"seeds": [0, 1, 7]}, "wanted different ones out of"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        judge(ACCURACY, ONES, ONES, **facts(3, **changes))
    with pytest.raises(SettingError, match=message):
        judge_scalar("latency_ms", "lower", [1.0] * 3, [1.0] * 3, **facts(3, **changes))


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (ONES[:2], ONES, "found 2 and 3 seeds, wanted the 3"),
        ([*ONES[:2], np.ones((5, 1))], ONES, r"seed 2: found parts of shapes \(5, 1\) and \(4, 1\)"),
        ([*ONES[:2], np.ones((5, 1))], [*ONES[:2], np.ones((5, 1))], "seed 2: found 5 test examples, wanted 4"),
        ([np.ones(4)] * 3, [np.ones(4)] * 3, r"shapes \(4,\)"),
        ([np.ones((0, 1))] * 3, [np.ones((0, 1))] * 3, r"shapes \(0, 1\)"),
        ([*ONES[:2], np.full((4, 1), np.nan)], ONES, "seed 2: found NaN"),
    ],
)
def test_parts_that_do_not_fit_are_refused(ours: list[Array], theirs: list[Array], message: str) -> None:
    with pytest.raises(DataError, match="student against alone on accuracy.*" + message):
        judge(ACCURACY, ours, theirs, **facts(3))


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, float("inf")]])
def test_values_that_do_not_fit_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match=r"latency_ms of alone: found .*wanted 3 finite numbers"):
        judge_scalar("latency_ms", "lower", [1.0] * 3, values, **facts(3))


def test_no_torch() -> None:
    code = "import sys, potstill.study.verdict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
