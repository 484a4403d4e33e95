"""Trials of `[tune]`: their nodes, their validation values, the winners. Nothing here opens the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill import metrics, storage
from potstill.errors import DataError, TrainingError
from potstill.evaluation import measure
from potstill.study import folder, names, words
from potstill.study.collect import Found, Reader
from potstill.study.family import ancestors
from potstill.study.job import Facts, Job, evaluate_all, file_hash, train_all, work_of
from potstill.study.plan import Plan
from potstill.study.results import Trial, TunedModel, Tuning
from potstill.study.tree import Builder, DataFacts, FileHash, Tree, data_table, expand

TOP = "tune"


@dataclass(frozen=True)
class Tuned:
    """A plan as it was `written` and, with the winners' settings, as the report's models are trained.

    `work` is that of all trials, in the unit of `work_of`.
    """

    plan: Plan
    written: Plan
    tuning: Tuning | None = None
    work: float = 0.0


@dataclass(frozen=True)
class Trials:
    """Families and nodes of trials and of the teachers that they need; `keys` tells the family of a model's trial.

    Trials count from 1, in the order of the plan.
    """

    tree: Tree
    keys: Mapping[tuple[str, int], str]

    def of(self, model: str) -> dict[int, str]:
        """Number -> key of the family, of all trials of a model."""
        return {number: key for (name, number), key in self.keys.items() if name == model}


def trial_tree(plan: Plan, winners: Mapping[str, int], facts: DataFacts, *, hashed: FileHash) -> Trials:
    """The trials of every model whose tuned teachers (and theirs) are among `winners`; those teach as they won.

    A trial's folder tells its settings, so that another search space uses those that are there.
    """
    builder, keys, tried = Builder(plan.tune_seeds, facts, hashed, top=TOP), {}, plan.trials()
    for model in plan.order():
        above = ancestors(plan.models, model)
        if model not in tried or any(name in tried and name not in winners for name in above):
            continue
        for number, trial in enumerate(tried[model], 1):
            point = f"{model} {number}"
            for name in plan.order():
                if name in above:
                    won = tried[name][winners[name] - 1] if name in tried else None
                    builder.add(won.plan if won else plan, name, won.settings if won else {}, point)
            keys[(model, number)] = builder.add(trial.plan, model, trial.settings, point)
    return Trials(Tree(builder.families, builder.nodes), keys)


def firsts(plan: Plan) -> dict[str, int]:
    """The first trial of every model, in the winner's place where no trial has run yet."""
    return dict.fromkeys(plan.trials(), 1)


def settled(plan: Plan, winners: Mapping[str, int]) -> Plan:
    """The plan without [tune], with the winners' settings."""
    tried = plan.trials()
    if not tried:
        return plan
    return plan.tuned({name: tried[name][number - 1].settings for name, number in winners.items()})


def tune(job: Job, facts: Facts) -> Tuned:
    """Run the missing trials and pick the winners, teachers before their students; without [tune] the plan as it is.

    Raises what a run raises, and `TrainingError` where all trials of a model failed.
    """
    plan = job.plan
    if not plan.trials():
        return Tuned(plan, plan)
    if not facts(data_table(plan))["validation_rows"]:
        raise DataError("tune: the winner is the best on validation data, and these data have none.")
    ahead = expand(settled(plan, firsts(plan)), facts, file_hash)
    whole = sum(work_of(trial_tree(plan, firsts(plan), facts, hashed=file_hash).tree, facts).values())
    report, winners, found = sum(work_of(ahead, facts).values()), dict[str, int](), dict[str, TunedModel]()
    while True:
        trials = trial_tree(plan, winners, facts, hashed=file_hash)
        todo = folder.missing(job.root, trials.tree)
        folder.keep_plan(job.root, plan)
        work = sum(work_of(trials.tree, facts).values())
        train_all(job, trials.tree, todo, facts=facts, after=max(whole - work, 0.0) + report)
        _evaluate(job, trials)
        reader = Reader(job.root, trials.tree)
        for model in dict.fromkeys(model for model, _ in trials.keys):
            if model not in winners:
                found[model] = _pick(job, reader, model, trials=trials)
                winners[model] = found[model].winner
        if len(winners) == len(plan.trials()):
            return _tuned(plan, winners, found, work=work)


def _tuned(plan: Plan, winners: Mapping[str, int], found: Mapping[str, TunedModel], *, work: float) -> Tuned:
    stage, table = settled(plan, winners), plan.tables.tune
    tuning = Tuning(
        method="grid" if table is None else table.method,
        metric=plan.verdict.metric,
        better=metrics.declared(plan.verdict.metric).better,
        seeds=plan.tune_seeds,
        models={name: found[name] for name in plan.trials()},
        plan=stage.to_dict(),
    )
    return Tuned(stage, plan, tuning, work)


def _evaluate(job: Job, trials: Trials) -> None:
    """Validation predictions of all complete trials; of their teachers where the metric compares with those."""
    families, wanted = trials.tree.families, set(trials.keys.values())
    if names.metric_needs_teacher(job.plan.verdict.metric):
        wanted |= {teacher for key in wanted for teacher in families[key].teachers}
    units = {unit: found for unit, found in folder.units(job.root, trials.tree).items() if found[0].key in wanted}
    evaluate_all(job, units, "trials on validation data", test=False)


def _pick(job: Job, reader: Reader, model: str, *, trials: Trials) -> TunedModel:
    plan = job.plan
    settings = plan.trials()[model]
    rows = [
        _trial(plan, reader, number, key=key, settings=settings[number - 1].settings)
        for number, key in trials.of(model).items()
    ]
    sign = 1.0 if metrics.declared(plan.verdict.metric).better == "higher" else -1.0
    good = [(sign * row.mean, -row.number) for row in rows if row.state == "done" and row.mean is not None]
    if not good:
        raise TrainingError(
            f"All {len(rows)} trials of {model} failed, so there is no winner. The first one: {rows[0].reason} "
            f"See the failure.json in {job.root / TOP}."
        )
    for row in rows:
        if row.state != "done":
            job.say("trial", f"{model}: trial {row.number} {row.state} and cannot win: {row.reason}")
    winner = -max(good)[1]
    won = rows[winner - 1]
    job.say("tuned", f"{model}: {words.winner(won, plan.verdict.metric)}")
    search = plan.tables.tune.model_dump(mode="json")["search"][model] if plan.tables.tune else {}
    return TunedModel(search=search, trials=rows, winner=winner)


def _trial(plan: Plan, reader: Reader, number: int, *, key: str, settings: Mapping[str, Any]) -> Trial:
    found, metric = reader.find(key), plan.verdict.metric
    values = _values(reader, found, metric)
    failures = [f"seed {f.seed}: {f.reason.strip().splitlines()[-1]}" for f in found.failures]
    if not failures and not all(map(math.isfinite, values)):
        failures, values = [f"its {metric} is not a finite number"], []
    states = {failure.state for failure in found.failures}
    return Trial(
        number=number,
        settings=storage.plain(settings),
        values=values if not failures else [],
        mean=float(np.mean(values)) if not failures else None,
        std=float(np.std(values, ddof=1)) if not failures and len(values) > 1 else None,
        seconds=_seconds(reader, found),
        state="done" if not failures else "not run" if states == {"not run"} else "failed",
        reason="; ".join(failures) or None,
    )


def _values(reader: Reader, found: Found, metric: str) -> list[float]:
    """The metric on validation data, one value per training: a model that is shared by all seeds has one."""
    first = {unit: seed for seed, unit in reversed(list(found.family.units.items()))}
    seeds = [seed for seed in found.seeds if first[found.family.units[seed]] == seed]
    rows = [found.judged(seed, "validation") for seed in seeds]
    told = [reader.teacher(found.family, seed, "validation") if found.family.teachers else None for seed in seeds]
    return [measure(row, (metric,), above)[metric] for row, above in zip(rows, told, strict=True)]


def _seconds(reader: Reader, found: Found) -> float:
    """Training time of all seeds, members and generations of a trial."""
    family, total = found.family, 0.0
    for node in reader.tree.nodes.values():
        own = reader.tree.families[node.family]
        path = reader.root / node.folder / "result.json"
        if node.kind == "train" and own.model == family.model and own.point == family.point and path.is_file():
            total += storage.read_json(path)["seconds"]
    return round(total, 3)
