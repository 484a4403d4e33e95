"""The verdict: is one model better than another, beyond what training randomness and the choice of test examples do?

The question is about fresh training randomness and fresh test examples, not about another training set. Numbers are in
`evidence` and `statistics`, words in `sentence`; this module decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.errors import SettingError
from potstill.metrics import Metric
from potstill.study.evidence import Evidence, from_parts, from_values, read_parts, read_values, seed_values
from potstill.study.results import Decision, Verdict
from potstill.study.sentence import SCOPE, Obstacle, advice, advice_when_equal, say
from potstill.study.statistics import half_width, needed, sign_flip_p

__all__ = ["SCOPE", "judge", "judge_scalar"]

Floats: TypeAlias = NDArray[np.float64]


def judge(
    metric: Metric,
    phis: Sequence[NDArray[Any]],
    other_phis: Sequence[NDArray[Any]],
    *,
    model: str,
    baseline: str,
    seeds: Sequence[int],
    planned_seeds: Sequence[int],
    margin: float,
    comparisons: int,
    failed: Sequence[str] = (),
    nested: bool = False,
    on: str = "test",
    shared_teacher: str | None = None,
    differs_in: Sequence[str] = (),
    look: int = 1,
    cost: str | None = None,
    tuned: str | None = None,
) -> Verdict:
    """Compare two models by their parts of a metric on the same test examples.

    `phis` and `other_phis` hold `metric.phi(...)` (n, d), one array for each of `seeds`: those that are complete for
    BOTH models, out of `planned_seeds`. Rows are the same examples in the same order, for all seeds unless `nested`
    (test data drawn anew per seed; n may then differ between seeds). `failed` says what went wrong with the others.
    `margin` >= 0 in the metric's unit: smaller differences do not matter. `comparisons`: how many the plan declares.
    `shared_teacher` names the one teacher of all seeds, `differs_in` the settings in which the two models differ
    besides the method, `look` counts the looks at these data, `cost` and `tuned` are texts for the sentence.

    Raises `DataError` for parts that do not fit together or are not finite, `SettingError` for other arguments.
    """
    case = _Case(
        metric=metric.name,
        better=metric.better,
        model=model,
        baseline=baseline,
        seeds=tuple(seeds),
        planned=tuple(planned_seeds),
        failed=tuple(failed),
        margin=margin,
        comparisons=comparisons,
        shared_teacher=shared_teacher,
        differs_in=tuple(differs_in),
        look=look,
        cost=cost,
        tuned=tuned,
        on=on,
    )
    where = f"{model} against {baseline} on {metric.name}"
    ours, theirs = read_parts(phis, other_phis, case.seeds, nested=nested, where=where)
    values, others = seed_values(metric, ours), seed_values(metric, theirs)
    return _conclude(case, values, others, from_parts(metric, ours, theirs, nested=nested))


def judge_scalar(
    metric_name: str,
    better: Literal["higher", "lower"],
    values: Sequence[float],
    other_values: Sequence[float],
    *,
    model: str,
    baseline: str,
    seeds: Sequence[int],
    planned_seeds: Sequence[int],
    margin: float,
    comparisons: int,
    failed: Sequence[str] = (),
    shared_teacher: str | None = None,
    differs_in: Sequence[str] = (),
    look: int = 1,
    cost: str | None = None,
    tuned: str | None = None,
    nested: bool = False,
) -> Verdict:
    """Compare two models by one number per seed (latency, area under a curve): paired t over seeds.

    Arguments and errors as in `judge`; the interval knows nothing of test examples. `nested`: each seed has data drawn
    for it, so that the interval is for other data too.
    """
    case = _Case(
        metric=metric_name,
        better=better,
        model=model,
        baseline=baseline,
        seeds=tuple(seeds),
        planned=tuple(planned_seeds),
        failed=tuple(failed),
        margin=margin,
        comparisons=comparisons,
        shared_teacher=shared_teacher,
        differs_in=tuple(differs_in),
        look=look,
        cost=cost,
        tuned=tuned,
    )
    ours, theirs = (
        read_values(side, len(case.seeds), where=f"{metric_name} of {name}")
        for side, name in ((values, model), (other_values, baseline))
    )
    return _conclude(case, ours, theirs, from_values(ours, theirs, nested=nested))


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything about a comparison but its numbers."""

    metric: str
    better: Literal["higher", "lower"]
    model: str
    baseline: str
    seeds: tuple[int, ...]
    planned: tuple[int, ...]
    failed: tuple[str, ...]
    margin: float
    comparisons: int
    shared_teacher: str | None
    differs_in: tuple[str, ...]
    look: int
    cost: str | None
    tuned: str | None
    on: str = "test"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise SettingError(f"margin: found {self.margin}, wanted 0 or more, in units of the metric.")
        if self.comparisons < 1 or self.look < 1:
            raise SettingError(f"comparisons: {self.comparisons}, look: {self.look}; wanted at least 1 each.")
        if len(set(self.seeds)) < len(self.seeds) or not set(self.seeds) <= set(self.planned):
            raise SettingError(f"seeds: found {list(self.seeds)}, wanted different ones out of {list(self.planned)}.")

    @property
    def missing(self) -> list[int]:
        return [seed for seed in self.planned if seed not in self.seeds]


def _obstacle(case: _Case, evidence: Evidence) -> Obstacle | None:
    """What forbids a decision by the interval, whatever it is."""
    rules: list[tuple[bool, Obstacle]] = [
        (not case.seeds, "no seed"),
        (5 * len(case.missing) > len(case.planned), "failures"),
        (len(case.seeds) == 1, "one seed"),
        (len(case.seeds) == 2, "two seeds"),
        (evidence.method == "crossed" and evidence.examples == 1, "one example"),
        (evidence.identical, "no example differs"),
        (evidence.no_spread, "no spread"),
    ]
    return next((name for holds, name in rules if holds), None)


def _conclude(case: _Case, values: Floats, others: Floats, evidence: Evidence) -> Verdict:
    differences = values - others
    difference = float(differences.mean()) if case.seeds else None
    obstacle, interval = _obstacle(case, evidence), None
    if difference is not None and evidence.components and not evidence.identical and not evidence.no_spread:
        half = float(half_width(evidence.components, case.comparisons))
        interval = (difference - half, difference + half)
    decision, beyond, not_worse = _decide(case, interval, obstacle, evidence.examples)
    verdict = Verdict(
        model=case.model,
        baseline=case.baseline,
        metric=case.metric,
        better=case.better,
        model_mean=float(values.mean()) if case.seeds else None,
        baseline_mean=float(others.mean()) if case.seeds else None,
        difference=difference,
        interval=interval,
        decision=decision,
        beyond_margin=beyond,
        not_worse=not_worse,
        margin=case.margin,
        seeds=list(case.seeds),
        differences=[float(d) for d in differences],
        examples=evidence.examples,
        on=case.on,
        method=evidence.method if len(case.seeds) > 1 else None,
        comparisons=case.comparisons,
        look=case.look,
        sign_flip_p=sign_flip_p(differences),
        sign_flip_smallest_p=2.0 ** (1 - len(case.seeds)) if case.seeds else None,
        would_decide=_would_decide(case, difference, evidence, obstacle) if decision == "undecided" else None,
        differs_in=list(case.differs_in),
        failed=list(case.failed),
        cost=case.cost,
        tuned=case.tuned,
        sentence="",
    )
    sentence = say(
        verdict,
        obstacle=obstacle,
        shared_teacher=case.shared_teacher,
        missing=case.missing,
        planned=len(case.planned),
    )
    failed = verdict.failed or [f"seed {seed}" for seed in case.missing]
    return verdict.model_copy(update={"sentence": sentence, "failed": failed})


def _decide(
    case: _Case, interval: tuple[float, float] | None, obstacle: Obstacle | None, examples: int | None
) -> tuple[Decision, bool, bool]:
    """Decision, whether it is beyond the margin, and whether the model is not worse than the baseline by the margin.

    Where the rule forbids a decision neither is claimed.
    """
    margin = case.margin
    if obstacle == "no example differs" and examples and margin > 3 / examples:
        return "equivalent", False, True
    if obstacle or interval is None:
        return "undecided", False, False
    low, high = interval if case.better == "higher" else (-interval[1], -interval[0])
    if -margin < low and high < margin:
        return "equivalent", False, True
    if low > 0:
        return "better", low > margin, True
    if high < 0:
        return "worse", high < -margin, low > -margin
    return "undecided", False, low > -margin


def _would_decide(case: _Case, difference: float | None, evidence: Evidence, obstacle: Obstacle | None) -> str | None:
    if obstacle in {"no seed", "failures"}:
        return "mend what failed and run again"
    if obstacle == "one seed" or (obstacle == "two seeds" and (evidence.identical or evidence.no_spread)):
        return "at least 3 seeds are needed"
    if obstacle == "one example":
        return "more test examples are needed"
    if evidence.identical and evidence.examples:
        return advice_when_equal(evidence.examples, case.margin, case.metric)
    if obstacle == "no spread":
        return "more seeds or more test examples are needed"
    if difference is None or evidence.components is None:
        return None
    target = max(abs(difference), case.margin - abs(difference))
    return advice(needed(evidence.components, target, case.comparisons) if target > 0 else None)
