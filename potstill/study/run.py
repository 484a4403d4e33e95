"""A study, from plan to results: waves of training and recording, then the test set, then latency (decisions 6, 7)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from potstill import engine, storage
from potstill.errors import RunError
from potstill.study import arrays, collect, drawn, folder, splits, trials, values, words
from potstill.study.inheritance import inherited
from potstill.study.job import Facts, Job, evaluate_all, file_hash, train_all
from potstill.study.judging import verdicts
from potstill.study.latency import measure_costs
from potstill.study.opened import forget, test_files
from potstill.study.pool import stop_on_signal
from potstill.study.results import ModelResult, Published, Results
from potstill.study.tree import Node, Tree, data_table, expand


def run(job: Job, *, fresh: bool = False) -> Results:
    """Run what is missing and write results.json and figures.json. One run at a time per folder.

    Raises `RunError` for a locked, stale or foreign folder, `Interrupted` after saving, and the first user's or disk's
    error of a worker (everybody else saves first). A failed training does not raise: it is in the results.
    """
    storage.make_folder(job.root)
    with storage.lock(job.root), engine.threads(1):
        began = time.monotonic()
        folder.prepare(job.root, job.plan, fresh=fresh)
        forget(job.began)
        facts = Facts(job.data_folder)
        if not (job.root / "results.json").is_file():
            test_files(job.plan, job.data_folder)
        with stop_on_signal(job.place, lambda text: job.say("stop", text)):
            tuned = trials.tune(job, facts)
            stage = replace(job, plan=tuned.plan)
            tree = expand(stage.plan, facts, file_hash)
            todo = _missing(job, tree, tuned)
            for note in facts(data_table(stage.plan))["notes"]:
                job.say("note", note)
            folder.keep_plan(job.root, job.plan)
            train_all(stage, tree, todo, facts=facts, before=tuned.work)
            told = "models on " + words.listed(stage.plan.evaluation.splits) + " data"
            evaluate_all(stage, folder.units(job.root, tree), told, test=True)
            folder.check_test_examples(job.root, tree)
            measure_costs(stage, tree)
        return write_results(stage, tree, facts, time.monotonic() - began, tuned=tuned)


def _missing(job: Job, tree: Tree, tuned: trials.Tuned) -> list[Node]:
    try:
        return folder.missing(job.root, tree)
    except RunError as error:
        if tuned.tuning is not None:
            error.add_note(
                "The trials may have another winner than when it was made. To keep them, delete the folder "
                f"{job.root / 'models'} instead."
            )
        raise


def write_results(job: Job, tree: Tree, facts: Facts, seconds: float, *, tuned: trials.Tuned) -> Results:
    """results.json and figures.json from what the folder holds."""
    plan, reader, reads = job.plan, collect.Reader(job.root, tree), folder.test_reads(job.root, job.plan)
    known = facts(data_table(plan), plan.seed_list[0])
    models = {
        key: collect.model_result(reader, key, plan, workers=job.workers, classes=known["classes"])
        for key in tree.families
    }
    targets = drawn.targets(reader) or known.get("targets", [])
    before = job.root / "results.json"
    earlier = storage.read_json(before).get("seconds", 0.0) if before.is_file() else 0.0
    environment = folder.environment(job.workers, engine.Engine.pick().describe())
    results = Results(
        potstill=environment["potstill"],
        title=plan.title,
        story=plan.story,
        metric=plan.verdict.metric,
        on=plan.verdict.on,
        margin=plan.verdict.margin,
        baseline=plan.baseline,
        seeds=plan.seed_list,
        data={**storage.plain(known), **({"targets": targets} if targets else {}), "plan": data_table(plan)},
        models=models,
        verdicts=verdicts(plan, reader, models, look=reads.looks, tuning=tuned.tuning),
        tuning=tuned.tuning,
        inheritance={} if targets else inherited(reader, plan.baseline, known["classes"]),
        shared_errors=values.shared(reader, plan.baseline) if targets else {},
        published=[Published(source=p.source, metrics=p.metrics) for p in [plan.published] if p is not None],
        test_reads=reads,
        plan=tuned.written.to_dict(),
        plan_toml=tuned.written.to_toml(),
        environment=environment,
        seconds=round(earlier + seconds, 3),
        workers=job.workers,
    )
    storage.write_json(job.root / "environment.json", environment)
    histograms = {} if targets else arrays.frequencies(reader, plan.evaluation.splits, known["classes"])
    compared = [(one.model, one.baseline) for one in results.verdicts]
    figures = arrays.figures(reader, known["classes"], histograms, compared=compared)
    storage.write_json(job.root / "figures.json", figures.model_dump(mode="json"))
    _write_tables(job, reader, models, histograms)
    storage.write_json(before, results.model_dump(mode="json"))
    return results


def _write_tables(
    job: Job, reader: collect.Reader, models: Mapping[str, ModelResult], histograms: arrays.Histograms
) -> None:
    """What a spreadsheet reads: prediction frequencies, and uncertainty and accuracy, of every model on every split; of
    a regression the errors on every target."""
    if any(model.values for model in models.values()):
        errors = {key: (splits.trainings(reader.find(key)), model.values) for key, model in models.items()}
        storage.write_text(job.root / folder.ERRORS, values.table(errors))
        return
    told = {key: (splits.trainings(reader.find(key)), model.splits) for key, model in models.items()}
    storage.write_text(job.root / folder.FREQUENCIES, splits.frequency_table(histograms))
    storage.write_text(job.root / folder.UNCERTAINTY, splits.uncertainty_table(told))
