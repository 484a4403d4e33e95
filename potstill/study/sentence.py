"""A verdict in plain English: difference, interval, decision, what an undecided one needs, and every reservation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from potstill.metrics import FRACTIONS
from potstill.study.results import Method, Verdict
from potstill.study.statistics import MOST_SEEDS, Needed

Obstacle: TypeAlias = Literal[
    "no seed", "failures", "one seed", "two seeds", "one example", "no example differs", "no spread"
]

SCOPE = (
    "An interval says how far a difference would move with fresh training randomness (initialisation, order of the "
    "data, and teacher, unless the teacher is shared) and with fresh test examples. It does not speak of another "
    "training set, unless every seed has data of its own."
)
"""What the intervals are about, in full; the sentences carry a short form."""

_SINCE: dict[Obstacle, str] = {
    "no seed": "no seed is complete for both",
    "failures": "more than a fifth of the seeds failed",
    "one seed": "one seed gives no interval",
    "two seeds": "two seeds are too few to decide",
    "one example": "one test example gives no interval",
    "no example differs": "no test example differs",
    "no spread": "the difference is the same in every seed, which gives no interval",
}
_RUNS: dict[Method, str] = {
    "crossed": "fresh training runs and test examples, not another training set",
    "nested": "fresh training runs, each on data drawn anew",
    "scalar": "fresh training runs, not another training set",
}
_ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def say(
    verdict: Verdict, *, obstacle: Obstacle | None, shared_teacher: str | None, missing: Sequence[int], planned: int
) -> str:
    """The sentence of a verdict (whose own `sentence` is not looked at).

    `obstacle` is what forbids a decision whatever the interval; `missing` are the seeds, of the `planned` many, that
    are not complete for both models.
    """
    main = _main(verdict, obstacle, shared_teacher)
    return " ".join([main, *_remarks(verdict, missing, planned)])


def advice(needed: Needed | None) -> str:
    """What would decide, from the variances seen so far; None: the difference and the margin are both zero."""
    if needed is None:
        return "more seeds cannot decide: the difference is zero, and so is the margin"
    if needed.seeds:
        return f"about {needed.seeds} seeds would decide if the difference stays as it is"
    if needed.examples and needed.with_seeds:
        seeds = "more seeds cannot decide" if needed.never else f"{MOST_SEEDS} seeds would not decide"
        return f"{seeds}; about {_rounded_up(needed.examples):,} test examples would, with {needed.with_seeds} seeds"
    return f"{MOST_SEEDS} seeds would not decide{', whatever the number of test examples' if needed.never else ''}"


def advice_when_equal(examples: int, margin: float, metric: str) -> str:
    """What would decide when no test example differs: 0 of n leaves differences of up to 3/n open (rule of three)."""
    if margin > 0:
        return f"about {_rounded_up(math.floor(3 / margin) + 1):,} test examples without a difference would decide"
    return f"a margin of more than {_amount(3 / examples, metric)} would decide"


def _main(verdict: Verdict, obstacle: Obstacle | None, shared_teacher: str | None) -> str:
    model, baseline, metric = verdict.model, verdict.baseline, _title(verdict.metric)
    point = _point(model)
    if point and point == _point(baseline):  # said once, and not in the middle of a sentence
        bare = verdict.model_copy(
            update={key: _without(name) for key, name in (("model", model), ("baseline", baseline))}
        )
        return f"At {point}: {_main(bare, obstacle, shared_teacher)}"
    since = f", since {_SINCE[obstacle]}" if obstacle else ""
    head = f"Undecided whether {model} is better than {baseline} on {metric}{since}"
    if verdict.difference is None or verdict.model_mean is None or verdict.baseline_mean is None:
        return f"{head}."
    numbers = _Numbers(verdict.metric, _decimals(verdict))
    means = f"{numbers.value(verdict.model_mean)} against {numbers.value(verdict.baseline_mean)}"
    evidence = _evidence(verdict, numbers, shared_teacher)
    margin = f"the margin of {_amount(verdict.margin, verdict.metric)}"
    if verdict.decision in {"better", "worse"}:
        by = numbers.amount(abs(verdict.difference))
        beyond = f", more than {margin}" if verdict.beyond_margin and verdict.margin > 0 else ""
        return f"{model} is {verdict.decision} than {baseline} on {metric} by {by}{beyond} ({evidence}): {means}."
    difference = f"a difference of {numbers.signed(verdict.difference)}{numbers.unit} ({evidence})"
    if verdict.decision == "equivalent":
        return f"{model} and {baseline} are equivalent on {metric} within {margin}{since}: {means}, {difference}."
    more = f"; it is not worse by more than {margin}" if verdict.not_worse and verdict.margin > 0 else ""
    decide = f"; {verdict.would_decide}" if verdict.would_decide else ""
    return f"{head}: {means}, {difference}{more}{decide}."


def _point(key: str) -> str:
    """The sweep point of a model's key.

    >>> _point("student@data.labelled=30#2"), _point("student#2")
    ('data.labelled=30', '')
    """
    return key.partition("@")[2].partition("#")[0]


def _without(key: str) -> str:
    """A model's key without its sweep point.

    >>> _without("student@data.labelled=30#2"), _without("student#2")
    ('student#2', 'student#2')
    """
    name, at, rest = key.partition("@")
    return name + "".join(rest.partition("#")[1:]) if at else key


def _evidence(verdict: Verdict, numbers: _Numbers, shared_teacher: str | None) -> str:
    teacher = f"this teacher ({shared_teacher})" if shared_teacher else ""
    parts = []
    if verdict.interval and verdict.method:
        low, high = verdict.interval
        if verdict.decision in {"better", "worse"}:  # the sentence gives the size of the difference, not its sign
            low, high = sorted((abs(low), abs(high)))
            ends = f"{numbers.plain(low)} to {numbers.plain(high)}"
        else:
            ends = f"{numbers.signed(low)} to {numbers.signed(high)}"
        runs = ", ".join(part for part in (teacher, _RUNS[verdict.method]) if part)
        parts.append(f"95 % interval {ends} for {runs}")
        if verdict.comparisons > 1:
            parts.append(f"simultaneous over {verdict.comparisons} comparisons")
    elif teacher:
        parts.append(f"for {teacher}")
    parts.append(_count(len(verdict.seeds), "seed"))
    if verdict.examples is not None:
        of = f" of {verdict.on}" if verdict.on != "test" else ""
        parts.append(_count(verdict.examples, "test example") + of + (" in all" if verdict.method == "nested" else ""))
    return "; ".join(parts)


def _remarks(verdict: Verdict, missing: Sequence[int], planned: int) -> list[str]:
    remarks = []
    reasons = _listed(verdict.failed)
    if missing:
        which = f"{len(missing)} of {_count(planned, 'seed')} ({', '.join(map(str, missing))})"
        remarks.append(f"Not complete: {which}{': ' if reasons else ''}{reasons}.")
    elif reasons:
        remarks.append(f"Failed: {reasons}.")
    if verdict.look > 1:
        which = f"the {_ORDINALS[verdict.look]} look" if verdict.look in _ORDINALS else f"look number {verdict.look}"
        remarks.append(f"This is {which}: seeds added after looking make the interval optimistic.")
    if verdict.differs_in:
        remarks.append(f"They also differ in {_listed(verdict.differs_in)}.")
    if verdict.tuned:
        remarks.append(f"{verdict.tuned.rstrip('.')}.")
    if verdict.cost:
        remarks.append(f"Cost: {verdict.cost.rstrip('.')}.")
    return remarks


class _Numbers(NamedTuple):
    """Numbers of one sentence, all with the same decimals: fractions in per cent and points, others as they are."""

    metric: str
    decimals: int

    @property
    def unit(self) -> str:
        return " points" if self.metric in FRACTIONS else ""

    def plain(self, x: float) -> str:
        # Adding zero makes a rounded -0.0 a 0.0.
        return f"{round(_scaled(x, self.metric), self.decimals) + 0.0:.{self.decimals}f}"

    def signed(self, x: float) -> str:
        text = self.plain(x)
        return f"+{text}" if float(text) > 0 else text

    def value(self, x: float) -> str:
        return self.plain(x) + (" %" if self.metric in FRACTIONS else "")

    def amount(self, x: float) -> str:
        return self.plain(x) + self.unit


def _decimals(verdict: Verdict) -> int:
    """Enough decimals for the interval's length, and for no end to look like zero or the margin that is not."""
    metric, margin = verdict.metric, _scaled(verdict.margin, verdict.metric)
    ends = [_scaled(end, metric) for end in verdict.interval or (verdict.difference or 0.0,)]
    if metric in FRACTIONS:
        half = (max(ends) - min(ends)) / 2
        decimals = max(1, -math.floor(math.log10(half))) if half > 0 else 1
    else:
        largest = max(abs(x) for x in ends)
        decimals = max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 3
    decimals = min(decimals, 12)
    most = decimals + 4
    landmarks = (0.0, margin, -margin)
    while decimals < most and any(
        round(end, decimals) == round(mark, decimals) and end != mark for end in ends for mark in landmarks
    ):
        decimals += 1
    return decimals


def _scaled(x: float, metric: str) -> float:
    return 100 * x if metric in FRACTIONS else x


def _amount(x: float, metric: str) -> str:
    text = f"{_scaled(x, metric):.3g}"
    return f"{text} point{'' if text == '1' else 's'}" if metric in FRACTIONS else text


def _title(metric: str) -> str:
    words = metric.replace("cross_entropy", "cross-entropy").replace("log_likelihood", "log-likelihood").split("_")
    return " ".join({"f1": "F1", "kl": "KL", "r2": "R²"}.get(word, word) for word in words)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items) if any("," in item for item in items) else ", ".join(items)


def _rounded_up(number: int) -> int:
    """Two significant digits, upwards: an estimate should not look exact."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step
