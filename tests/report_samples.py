"""Runs to report about, made from a seed: what results.json and figures.json of real studies look like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from potstill.storage import write_json
from potstill.study.measured import (
    ClassMeasures,
    Condition,
    ConditionValues,
    Correlation,
    Coverage,
    Inheritance,
    Inherited,
    SharedErrors,
    SplitMeasures,
    TargetMeasures,
    ValueMeasures,
)
from potstill.study.plotted import Curve, Figures, Frequencies, Reliability, TargetErrors, Telling, TellingRow
from potstill.study.results import (
    Cost,
    Failure,
    Latency,
    MetricValues,
    ModelResult,
    Published,
    Results,
    Ship,
    TestReads,
    Trial,
    TunedModel,
    Tuning,
    Verdict,
)

HOSTILE = "<script>alert(\"x\")</script> & 'it' $x_1$ {{ 7 * 7 }} \u65e5\u672c"
SVG = "{http://www.w3.org/2000/svg}"
DIGITS = [str(digit) for digit in range(10)]


def metric_values(values: list[float]) -> MetricValues:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return MetricValues(values=values, mean=float(np.mean(values)), std=std)


def cost(parameters: int, seconds: float, *, teacher: bool = False) -> Cost:
    timings = [(1, 0.02 + parameters / 4e5), (256, 0.08 + parameters / 9e3)]
    return Cost(
        parameters=parameters,
        multiply_adds=parameters * 9,
        bytes=4 * parameters,
        latency=[Latency(batch=b, threads=1, median_ms=ms, p90_ms=1.2 * ms) for b, ms in timings],
        train_seconds=seconds,
        record_seconds=0.4 if teacher else None,
        workers=2,
    )


class Maker:
    """Builds one study; every number follows from the seed."""

    def __init__(
        self, title: str, *, seeds: int, metric: str = "accuracy", margin: float = 0.01, seed: int = 0
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.title, self.metric, self.margin = title, metric, margin
        self.seeds = list(range(seeds))
        self.models: dict[str, ModelResult] = {}
        self.verdicts: list[Verdict] = []
        self.curves: dict[str, Curve] = {}
        self.confusion: dict[str, list[list[int]]] = {}
        self.reliability: dict[str, Reliability] = {}
        self.classes = DIGITS

    def model(
        self, key: str, level: float, spread: float = 0.008, *, parameters: int = 1210, failed: int = 0, **more: Any
    ) -> None:
        """One model whose metric lies near `level`; its last `failed` seeds fail."""
        seeds = self.seeds[: len(self.seeds) - failed]
        values = [round(float(v), 6) for v in self.random.normal(level, spread, len(seeds))]
        failures = [
            Failure(seed=s, state="failed", reason="loss is NaN at step 340; last good weights kept")
            for s in self.seeds[len(seeds) :]
        ]
        metrics = {}
        if seeds:
            metrics = {
                self.metric: metric_values(values),
                "cross_entropy": metric_values([0.9 * abs(1 - v) + 0.1 for v in values]),
                "calibration_error": metric_values([0.3 * abs(1 - v) for v in values]),
            }
        settings: dict[str, Any] = {"network": "mlp:16", "objective": "hard_labels", "model": key}
        settings |= more
        teacher = not settings.get("teachers")
        ship = (
            Ship(seed=seeds[0], folder=f"models/{key}/seed-{seeds[0]}", metric=self.metric, value=values[0])
            if seeds
            else None
        )
        self.models[key] = ModelResult(
            seeds=seeds,
            failures=failures,
            metrics=metrics,
            validation=metrics,
            cost=cost(parameters, 1.5 + parameters / 4e4, teacher=teacher),
            ship=ship,
            **settings,
        )
        if seeds:
            self._arrays(key, level, len(seeds))

    def _arrays(self, key: str, level: float, seeds: int) -> None:
        top = level if level > 0.5 else 1 - level
        steps, train, valid, metric = [], [], [], []
        for _ in range(seeds):
            last = int(self.random.integers(9, 16))
            at = [100 * (epoch + 1) for epoch in range(last)]
            fall = np.exp(-np.arange(last) / 3)
            noise = self.random.normal(0, 0.01, (3, last))
            steps.append(at)
            train.append((0.05 + 2.2 * fall + abs(noise[0])).tolist())
            valid.append((0.25 + 2.0 * fall + abs(noise[1])).tolist())
            rising = np.clip(top - 0.6 * fall + noise[2], 0, 1)
            metric.append((rising if level > 0.5 else 1 - rising).tolist())
        series = {"train_objective": train, "validation_objective": valid, f"validation_{self.metric}": metric}
        if key in ("alone", "teacher"):
            series["validation_cross_entropy"] = valid
        self.curves[key] = Curve(seeds=self.seeds[:seeds], steps=steps, series=series)
        k = len(self.classes)
        wrong = self.random.random((k, k)) ** 4
        np.fill_diagonal(wrong, 0)
        wrong *= (1 - top) / wrong.sum(1, keepdims=True)
        self.confusion[key] = np.round(480 * (wrong + top * np.eye(k))).astype(int).tolist()
        low = [at / 10 for at in range(10)]
        count = [0, 3, 11, 20, 41, 60, 88, 130, 300, 4100]
        mean: list[float | None] = [None if n == 0 else x + 0.05 for x, n in zip(low, count, strict=True)]
        right = [None if x is None else float(np.clip(x - 0.06 + self.random.normal(0, 0.02), 0, 1)) for x in mean]
        self.reliability[key] = Reliability(low=low, count=count, confidence=mean, accuracy=right)

    def verdict(self, model: str, baseline: str, *, comparisons: int = 4, lower: bool = False, **more: Any) -> None:
        """A comparison with a plain paired interval: enough to look at, not the procedure of the study."""
        one, other = self.models[model], self.models[baseline]
        mine = dict(zip(one.seeds, one.metrics[self.metric].values, strict=True))
        theirs = dict(zip(other.seeds, other.metrics[self.metric].values, strict=True))
        seeds = [s for s in one.seeds if s in theirs]
        gaps = [mine[s] - theirs[s] for s in seeds]
        gap = float(np.mean(gaps))
        half = {1: math.inf, 2: 12.7}.get(len(gaps), 2.6) * float(np.std(gaps)) / math.sqrt(len(gaps)) + 0.004
        ends = (gap - half, gap + half) if len(gaps) > 1 else None
        good, bad = ("worse", "better") if lower else ("better", "worse")
        decision = "undecided"
        if ends and len(gaps) > 2:
            if -self.margin < ends[0] and ends[1] < self.margin:
                decision = "equivalent"
            elif ends[0] > 0 or ends[1] < 0:
                decision = good if ends[0] > 0 else bad
        named = (
            f"{model} is {decision} compared with {baseline}"
            if decision != "undecided"
            else f"{model} against {baseline} is undecided"
        )
        shown = (
            f", 95 % interval [{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]" if ends else ", no interval from one seed"
        )
        settings: dict[str, Any] = {
            "sentence": f"{named}: {100 * gap:+.2f} points of {self.metric}{shown}, for fresh training runs.",
            "would_decide": "about 14 seeds would decide" if decision == "undecided" else None,
            "cost": "needs 125 times fewer parameters than its teacher",
        }
        settings |= more
        self.verdicts.append(
            Verdict(
                model=model,
                baseline=baseline,
                metric=self.metric,
                better="lower" if lower else "higher",
                model_mean=float(np.mean([mine[s] for s in seeds])),
                baseline_mean=float(np.mean([theirs[s] for s in seeds])),
                difference=gap,
                interval=ends,
                decision=decision,  # type: ignore[arg-type]
                beyond_margin=decision == "better" and bool(ends) and min(map(abs, ends)) > self.margin,
                not_worse=bool(ends) and (ends[1] < self.margin if lower else ends[0] > -self.margin),
                margin=self.margin,
                seeds=seeds,
                differences=gaps,
                examples=600,
                method="crossed" if ends else None,
                comparisons=comparisons,
                sign_flip_p=2.0 ** (1 - len(seeds)) * 2 if len(seeds) > 1 else None,
                sign_flip_smallest_p=2.0 ** (1 - len(seeds)) if len(seeds) > 1 else None,
                **settings,
            )
        )

    def results(self, **more: Any) -> Results:
        plan = {"models": {one.model: {} for one in self.models.values()}}
        toml = f'title = "{self.title}"\nseeds = {len(self.seeds)}\n\n[data]\nsource = "digits"\n'
        toml += "".join(f'\n[models."{name}"]\nnetwork = "mlp:16"\n' for name in plan["models"] if '"' not in name)
        settings: dict[str, Any] = {
            "potstill": "0.1.0",
            "title": self.title,
            "metric": self.metric,
            "margin": self.margin,
            "baseline": "alone" if any(one.model == "alone" for one in self.models.values()) else None,
            "seeds": self.seeds,
            "data": {
                "classes": self.classes,
                "rows": 1097,
                "shape": [1, 8, 8],
                "fingerprints": {"train": "44aa70d507f49f18" * 4, "validation": "f981172f06f40880" * 4},
                "plan": {"labelled": 100, "source": {"name": "digits"}, "validation": 100},
            },
            "models": self.models,
            "verdicts": self.verdicts,
            "test_reads": TestReads(count=1, plans=1),
            "plan": plan,
            "plan_toml": toml,
            "environment": {
                "cores": 2,
                "engine": {"cpu": "AVX512", "device": "cpu", "matmul": "medium", "threads": 1},
                "libraries": {"numpy": "2.4.6", "scikit-learn": "1.9.1", "torch": "2.13.0+cpu"},
                "python": "3.11.7",
            },
            "seconds": 58.3,
            "workers": 2,
        }
        return Results(**(settings | more))

    def figures(self) -> Figures:
        return Figures(classes=self.classes, curves=self.curves, confusion=self.confusion, reliability=self.reliability)


Sample = tuple[Results, Figures]


def demo() -> Sample:
    """The story of the unlabelled digits: two teachers, five students, eight seeds."""
    make = Maker("Does a tiny student need the labels? Digits with 100 labels", seeds=8)
    make.model("teacher", 0.952, 0.004, parameters=151_306, network="cnn-small")
    make.model("ensemble", 0.938, 0.004, parameters=118_000, network="cnn-small:16-32", members=3)
    make.model("alone", 0.894, 0.012)
    for key, level, spread, teacher, objective in (
        ("from-teacher", 0.900, 0.014, "teacher", "hinton(temperature=2, alpha=0.1)"),
        ("from-teacher-unlabelled", 0.938, 0.008, "teacher", "hinton(temperature=2, alpha=0.1)"),
        ("pseudo-labels", 0.944, 0.006, "teacher", "pseudo_labels"),
        ("from-ensemble-unlabelled", 0.926, 0.009, "ensemble", "hinton(temperature=2, alpha=0.1)"),
    ):
        make.model(key, level, spread, teachers=[teacher], objective=objective)
        make.verdict(key, "alone", comparisons=8)
    for key in ("from-teacher", "from-teacher-unlabelled", "pseudo-labels"):
        make.verdict(key, "teacher", comparisons=8)
    make.verdict("from-ensemble-unlabelled", "ensemble", comparisons=8)
    story = (
        "The gain comes from the unlabelled pictures: with the same 100 examples the teacher's soft labels help little."
        "\n\nGive the student the other 997 pictures, and it learns most of what the teacher knows."
    )
    return make.results(story=story), make.figures()


def published() -> Sample:
    """Error rates with numbers of a paper beside them; lower is better."""
    make = Maker("Hard labels against distillation on MNIST", seeds=10, metric="error_rate", margin=0.001)
    make.model("large", 0.0198, 0.0008, parameters=673_000, network="mlp:500-400-300-200-100")
    make.model("ensemble", 0.0176, 0.0005, parameters=795_100, network="mlp:100", members=10)
    make.model("alone", 0.0225, 0.001, parameters=79_510, network="mlp:100")
    make.model(
        "from-large", 0.0284, 0.001, parameters=79_510, network="mlp:100", teachers=["large"], objective="hinton"
    )
    make.model(
        "from-ensemble", 0.0224, 0.0003, parameters=79_510, network="mlp:100", teachers=["ensemble"], objective="hinton"
    )
    for key in ("from-large", "from-ensemble"):
        make.verdict(key, "alone", lower=True)
    table = {
        "large": 0.0201,
        "from-large": 0.0289,
        "ensemble": 0.0181,
        "from-ensemble": 0.0268,
        "alone": 0.0226,
        "elsewhere": 0.5,
    }
    source = Published(
        source="Hard labels against distillation under limited resources, table 1", metrics={"error_rate": table}
    )
    return make.results(published=[source], test_reads=TestReads(count=3, plans=2)), make.figures()


def single_seed() -> Sample:
    """One seed: no interval, nothing to vary."""
    make = Maker("One seed", seeds=1)
    make.model("teacher", 0.95, parameters=151_306)
    make.model("alone", 0.89)
    make.model("student", 0.93, teachers=["teacher"], objective="hinton")
    make.verdict("student", "alone")
    return make.results(), make.figures()


def two_seeds() -> Sample:
    """Two seeds: an interval so wide that it must not flatten the others."""
    make = Maker("Two seeds", seeds=2)
    make.model("alone", 0.89, 0.02)
    for at in range(3):
        make.model(f"student-{at}", 0.93, 0.02 if at else 0.3, teachers=["teacher-file"], objective="hinton")
        make.verdict(f"student-{at}", "alone")
    return make.results(), make.figures()


def failures() -> Sample:
    """Seeds that failed, a model that failed altogether, and one that was not run for it."""
    make = Maker("With failures", seeds=5)
    make.model("teacher", 0.95, parameters=151_306, failed=1)
    make.model("alone", 0.89)
    make.model("broken", 0.9, failed=5, teachers=["teacher"], objective="logit_mse")
    make.model(
        "student",
        0.93,
        failed=2,
        teachers=["teacher"],
        objective="hinton",
        notes=["continued on another CPU at step 200"],
    )
    make.verdict("student", "alone")
    last = make.verdicts[-1].model_copy(
        update={
            "failed": ["student seed 3", "student seed 4"],
            "decision": "undecided",
            "differs_in": ["training.steps"],
        }
    )
    make.verdicts[-1] = last
    waiting = make.models["broken"].model_copy(
        update={"failures": [Failure(seed=s, state="not run", reason="its teacher failed") for s in range(5)]}
    )
    make.models["orphan"] = waiting.model_copy(update={"model": "orphan", "teachers": ["broken"]})
    return make.results(), make.figures()


def bare() -> Sample:
    """No verdict, no curves, no published numbers, no baseline."""
    make = Maker("Nothing to compare", seeds=2)
    make.model("only", 0.9)
    empty = make.models["only"].model_copy(update={"cost": None, "ship": None})
    make.models["only"] = empty
    return make.results(environment={}, data={}, plan_toml="not = [valid"), Figures(classes=[])


def crowded() -> Sample:
    """Fifteen models with long names, thirteen students of three teachers, one taught by a student."""
    make = Maker(
        "A crowd of models whose names are long enough to be in the way of everything else on the page", seeds=4
    )
    make.model("teacher", 0.97, parameters=25_600_000, network="resnet50")
    make.model("alone", 0.89)
    for at in range(12):
        name = f"student-of-the-teacher-with-a-rather-long-name-and-temperature-{2**at}"
        make.model(name, 0.88 + at / 200, teachers=["teacher"], objective=f"hinton(temperature={2.0**at}, alpha=0.1)")
        make.verdict(name, "alone", comparisons=13)
    make.model("grandchild", 0.91, teachers=[name, "teacher"], objective="hinton")
    make.verdict("grandchild", "alone", comparisons=13)
    return make.results(), make.figures()


def hostile() -> Sample:
    """Names and texts that try to be markup, mathematics or templates."""
    make = Maker(HOSTILE, seeds=3)
    make.classes = [HOSTILE, "b"]
    make.model("alone", 0.8)
    make.model(
        HOSTILE,
        0.9,
        teachers=[HOSTILE + "2"],
        objective=HOSTILE,
        network=HOSTILE,
        notes=[HOSTILE, "null \x00 and bell \x07"],
    )
    make.verdict(HOSTILE, "alone", sentence=f"{HOSTILE} is better than alone.")
    return make.results(story=HOSTILE, environment={HOSTILE: {"a": HOSTILE}}), make.figures()


def binary() -> Sample:
    """Two classes, as of a network with one logit."""
    make = Maker("Cats and dogs", seeds=3)
    make.classes = ["cat", "dog"]
    make.model("teacher", 0.98, parameters=25_600_000)
    make.model("alone", 0.9)
    make.model("student", 0.95, teachers=["teacher"], objective="hinton")
    make.verdict("student", "alone")
    return make.results(), make.figures()


def sweep() -> Sample:
    """Three models at three numbers of labels; the teacher is trained once."""
    make = Maker("How many labels?", seeds=4)
    make.model("teacher", 0.97, parameters=151_306)
    for labels, low, high in ((100, 0.8, 0.9), (1000, 0.92, 0.94), (10000, 0.955, 0.952)):
        point = {"data.labelled": labels}
        ending = f"data.labelled={labels}"
        make.model(f"alone@{ending}", low, model="alone", point=point)
        make.model(f"student@{ending}", high, model="student", point=point, teachers=["teacher"], objective="hinton")
        make.verdict(f"student@{ending}", f"alone@{ending}")
    return make.results(), make.figures()


def zipped() -> Sample:
    """Readings of a protocol: two settings that move together, one of them in words; lower is better."""
    make = Maker("Which reading of the protocol?", seeds=5, metric="error_rate", margin=0.001)
    make.model("large", 0.02, 0.0008, parameters=673_000)
    for monitor, share, worse in (
        ("objective", 0.1, 0.003),
        ("train_objective", 0.0, 0.006),
        ("objective", 0.2, -0.004),
    ):
        point = {"training.monitor": monitor, "data.validation": share}
        ending = f"training.monitor={monitor}, data.validation={share}"
        make.model(f"alone@{ending}", 0.025, 0.0008, model="alone", point=point)
        make.model(
            f"student@{ending}", 0.025 + worse, 0.0008, model="student", point=point, teachers=["large"],
            objective="hinton",
        )  # fmt: skip
        make.verdict(f"student@{ending}", f"alone@{ending}", lower=True)
    return make.results(), make.figures()


def generations() -> Sample:
    """Born-again chains of four generations, in both a hard and a soft form."""
    make = Maker("Born again", seeds=3)
    make.model("teacher", 0.93, parameters=151_306)
    make.model("alone", 0.89)
    for chain, objective in (("hard-chain", "pseudo_labels"), ("soft-chain", "soft_labels")):
        above = "teacher"
        for at in range(1, 5):
            key = f"{chain}/generation-{at}"
            make.model(
                key, 0.9 + at / 400, model=chain, generation=at, generations=4, teachers=[above], objective=objective
            )
            above = key
        make.verdict(above, "alone")
    return make.results(), make.figures()


def evaluated() -> Sample:
    """Two classes, three splits, four test conditions, a chain of three generations: all that can be measured."""
    make = Maker("Cats and dogs, measured in every way", seeds=3)
    make.classes = ["cat", "dog"]
    make.model("teacher", 0.97, parameters=151_306)
    make.model("alone", 0.93)
    above, frequencies = "teacher", {}
    for at in (1, 2, 3):
        key = f"chain#{at}"
        make.model(key, 0.95 - at / 100, model="chain", generation=at, generations=3, teachers=[above])
        above = key
    make.verdict("chain#3", "alone")
    inheritance = {}
    for key, one in make.models.items():
        sizes = {"train": 1400, "validation": 300, "test": 300}
        splits = {name: _split(make, n) for name, n in sizes.items()}
        conditions = [_condition(make, labels, views) for labels in ("true", "teacher") for views in (0, 10)]
        there = {"splits": splits, "conditions": conditions if one.teachers else conditions[:2]}
        make.models[key] = one.model_copy(update=there)
        frequencies[key] = {name: _frequencies(make, n) for name, n in sizes.items()}
        if one.teachers:
            inheritance[key] = _inheritance(make, one.teachers)
    figures = make.figures().model_copy(update={"frequencies": frequencies})
    return make.results(inheritance=inheritance), figures


def regression() -> Sample:
    """Two targets, a model that answers variances, one that does not, a student; rows that all miss."""
    make = Maker("How long, and how much?", seeds=3, metric="squared_error", margin=2.0)
    make.classes = []
    make.model("teacher", 71.5, 1.2, parameters=9_000)
    make.model("alone", 90.1, 2.0)
    make.model("student", 80.2, 2.0, teachers=["teacher"])
    make.verdict("student", "alone", lower=True, comparisons=2)
    make.verdict("student", "teacher", lower=True, comparisons=2)
    targets, errors = ["days of delay", "cost"], {}
    for key in make.models:
        told: Any = {"teacher": "answered", "alone": "validation"}.get(key)
        by_split = {name: _values(make, n, targets, told) for name, n in {"train": 900, "test": 300}.items()}
        make.models[key] = make.models[key].model_copy(update={"values": by_split})
        errors[key] = {name: _errors(make, told is not None) for name in targets}
    told = Correlation(values=[0.7, 0.71, 0.69], mean=0.7, interval=(0.61, 0.79))
    apart = {"teachers": ["teacher"], "seeds": [0, 1, 2], "examples": 300, "one_teacher": True, "baseline": 0.6}
    shared = {name: SharedErrors(correlation=told, distance=_three(make, 3.0), **apart) for name in targets}  # type: ignore[arg-type]
    rows = [
        TellingRow(row=r, inputs=[-0.5, "Perm", None], label=9.0 * r, predicted=dict.fromkeys(make.models, 4.0 + r))
        for r in (3, 17, 250)
    ]
    telling = [Telling(target=name, inputs=["age", "town", "height"], rows=rows) for name in targets]
    arrays = {"targets": targets, "errors": errors, "telling": telling, "confusion": {}, "reliability": {}}
    data = {"targets": targets, "classes": [], "rows": 900, "plan": {"task": "regression"}}
    return make.results(shared_errors={"student": shared}, data=data), make.figures().model_copy(update=arrays)


def _values(make: Maker, n: int, targets: list[str], variance: Any) -> ValueMeasures:
    levels = (0.5, 0.8, 0.9, 0.95) if variance else ()
    one = TargetMeasures(
        bias=_three(make, -0.4),
        squared_error=_three(make, 80.0),
        absolute_error=_three(make, 7.0),
        r2=_three(make, 0.6),
        coverage=[Coverage(level=x, share=_three(make, x - 0.03), width=_three(make, 30 * x)) for x in levels],
    )
    return ValueMeasures(examples=n, labelled=n - 20, variance=variance, targets=dict.fromkeys(targets, one))


def _errors(make: Maker, variances: bool) -> TargetErrors:
    true = make.random.normal(40, 12, 120)
    levels = [0.05, 0.5, 0.95] if variances else []
    return TargetErrors(
        seeds=[0, 1, 2],
        true=true.tolist(),
        predicted=(0.7 * true + make.random.normal(12, 5, 120)).tolist(),
        edges=np.linspace(-30, 30, 12).tolist(),
        counts=make.random.integers(1, 40, (3, 11)).tolist(),
        levels=levels,
        covered=[[max(x - 0.02 * seed, 0.0) for x in levels] for seed in range(3)] if variances else [],
    )


def _three(make: Maker, level: float) -> MetricValues:
    return metric_values(make.random.normal(level, 0.01, 3).tolist())


def _split(make: Maker, n: int) -> SplitMeasures:
    parts = {
        name: ClassMeasures(examples=n // 2, accuracy=_three(make, 0.9), uncertainty=_three(make, 0.05))
        for name in make.classes
    }
    return SplitMeasures(
        examples=n, labelled=n, accuracy=_three(make, 0.9), uncertainty=_three(make, 0.05), classes=parts
    )


def _condition(make: Maker, labels: Any, views: int) -> Condition:
    metrics = {}
    for name, level in (("accuracy", 0.9), ("cross_entropy", 0.3)):
        values = _three(make, level)
        best = {"over_views": 0.01, "best": values.values, "best_mean": values.mean} if views else {}
        metrics[name] = ConditionValues(values=values.values, mean=values.mean, std=values.std, **best)
    return Condition(labels=labels, views=views, examples=300, metrics=metrics)


def _frequencies(make: Maker, n: int) -> Frequencies:
    shape = [9.0, *([0.2] * 18), 9.0]
    counts = [make.random.multinomial(n, np.divide(shape, sum(shape))).tolist() for _ in make.seeds]
    parts = {name: [[c // 2 for c in row] for row in counts] for name in make.classes}
    return Frequencies(seeds=make.seeds, low=[at / 20 for at in range(20)], counts=counts, classes=parts)


def _inheritance(make: Maker, teachers: list[str]) -> Inheritance:
    sure = Correlation(values=[0.7, 0.8, 0.9], mean=0.8, interval=(0.6, 1.0))
    unknown = Correlation(values=[None, 0.5, 0.5], mean=None, interval=None)
    parts = [
        Inherited(
            name=name, examples=150, teacher_uncertainty=0.05, student_uncertainty=0.06, difference=0.01,
            interval=(-0.01, 0.03), teacher_error_rate=0.04, student_error_rate=0.06,
        )
        for name in ("", *make.classes)
    ]  # fmt: skip
    return Inheritance(
        teachers=teachers, seeds=make.seeds, examples=300, one_teacher=False, confidence=sure, errors=unknown,
        baseline_confidence=0.5, classes=parts,
    )  # fmt: skip


def many_classes() -> Sample:
    """A hundred classes: too many for a matrix on a page."""
    make = Maker("A hundred classes", seeds=3)
    make.classes = [f"class {at}" for at in range(100)]
    make.model("alone", 0.6, shared=True)
    make.model("student", 0.65, teachers=["truth"], objective="soft_labels")
    make.verdict("student", "alone")
    return make.results(), make.figures()


RATE = "training.optimizer.learning_rate"


def trial(number: int, settings: dict[str, Any], values: list[float]) -> Trial:
    """One trial; without values a failed one."""
    if not values:
        return Trial(number=number, settings=settings, state="failed", reason=f"seed 1000: {HOSTILE}", seconds=0.5)
    found = metric_values(values)
    return Trial(number=number, settings=settings, values=values, mean=found.mean, std=found.std, seconds=75.0)


def tuned() -> Sample:
    """One number on a logarithmic axis; a grid of two; three settings at random; trials that failed; hostile values."""
    make = Maker("Tuned", seeds=4, metric="error_rate", margin=0.001)
    make.model("alone", 0.025, 0.001)
    for key, level in (("gridded", 0.022), ("drawn", 0.024)):
        make.model(key, level, 0.001, teachers=["alone"], objective="hinton")
        make.verdict(key, "alone", lower=True, tuned="Both were tuned with 6 trials each on 2 other seeds")
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    alone = [
        trial(n, {RATE: x}, [0.03 + 0.004 * (n - 3) ** 2, 0.031 + 0.004 * (n - 3) ** 2] if n < 6 else [])
        for n, x in enumerate(rates, 1)
    ]
    pairs = [(t, a) for t in (1, 4, 20) for a in (0.1, 0.5)]
    errors = [0.041, 0.037, 0.033, 0.029, 0.035, 0.045]
    gridded = [
        trial(n, {"objective.temperature": t, "objective.alpha": a}, [e - 0.001, e + 0.001])
        for n, ((t, a), e) in enumerate(zip(pairs, errors, strict=True), 1)
    ]
    names = ["mlp:16", HOSTILE, "mlp:8", "mlp:4", "mlp:2", "mlp:1"]
    drawn = [
        trial(n, {"network": name, RATE: n / 70, "members": n}, [] if n == 2 else [0.05 - 0.002 * n])
        for n, name in enumerate(names, 1)
    ]
    models = {
        "drawn": TunedModel(search={"network": names, RATE: {"log": [0.01, 0.1]}}, trials=drawn, winner=6),
        "gridded": TunedModel(search={"objective.temperature": [1, 4, 20]}, trials=gridded, winner=4),
        "alone": TunedModel(search={RATE: {"log": [1e-4, 3e-2], "points": 6}}, trials=alone, winner=3),
    }
    tuning = Tuning(method="grid", metric="error_rate", better="lower", seeds=[1000, 1001], models=models, plan={})
    return make.results(tuning=tuning), make.figures()


_MAKERS = (
    tuned,
    demo,
    published,
    single_seed,
    two_seeds,
    failures,
    bare,
    crowded,
    hostile,
    binary,
    sweep,
    zipped,
    generations,
    evaluated,
    regression,
)
SAMPLES = {make.__name__: make for make in (*_MAKERS, many_classes)}


def put(folder: Path, sample: Sample) -> Path:
    """A run folder that holds the sample."""
    results, figures = sample
    write_json(folder / "results.json", results.model_dump(mode="json"))
    write_json(folder / "figures.json", figures.model_dump(mode="json"))
    return folder
