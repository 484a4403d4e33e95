"""A study, from plan to results: waves of training and recording, then the test set, then latency (decisions 6, 7)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill import engine, errors, evaluation, networks, storage
from potstill.errors import Interrupted
from potstill.study import collect, folder
from potstill.study.judging import verdicts
from potstill.study.plan import Plan
from potstill.study.pool import STOPPED, run_all, run_wave, stop_on_signal
from potstill.study.results import Published, Results
from potstill.study.tree import Family, Node, Tree, data_table, expand
from potstill.study.worker import STOP, Outcome, Place, data_facts, evaluate_unit, forget
from potstill.training.settings import Training

_STEP = 1e7  # what a step of a tiny network costs besides its products, in multiply-adds


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of a study: begin, done, failed, refused, interrupted, evaluate, latency or stop.

    `done` of `total` is work (multiply-adds, roughly), not time; "begin" tells each node's share in `work`.
    """

    kind: str
    text: str
    done: float = 0.0
    total: float = 0.0
    seconds: float = 0.0
    work: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Job:
    """Everything one run needs to know."""

    plan: Plan
    root: Path
    data_folder: str | None
    workers: int
    listener: Listener
    began: int = field(default_factory=time.time_ns)

    @property
    def place(self) -> Place:
        """What the workers are told."""
        data = self.data_folder or os.environ.get("POTSTILL_DATA")  # an older worker has an older environment
        return Place(self.root, data, os.getpid(), self.began, Path.cwd())

    def say(self, kind: str, text: str, **numbers: Any) -> None:
        """Tell the listener, and the log."""
        self.listener(Event(kind, text, **numbers))
        storage.append_line(self.root / "log.txt", f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {kind}: {text}")


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
        tree = expand(job.plan, facts, file_hash)
        todo = folder.missing(job.root, tree)
        storage.write_text(job.root / folder.PLAN, job.plan.to_toml())
        with stop_on_signal(job.place, lambda text: job.say("stop", text)):
            _train_all(job, tree, todo, facts)
            _evaluate_all(job, tree)
            folder.check_test_examples(job.root, tree)
            _measure_costs(job, tree)
        return write_results(job, tree, facts, time.monotonic() - began)


class Facts:
    """What is known of each data table of a plan: fingerprints, rows, shape, classes. Never opens the test set."""

    def __init__(self, data_folder: str | None) -> None:
        self._folder = data_folder
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, table: Mapping[str, Any]) -> dict[str, Any]:
        key = storage.canonical(storage.plain(table))
        if key not in self._known:
            self._known[key] = data_facts(table, self._folder)
        return self._known[key]


def file_hash(text: str) -> str:
    """sha256 of a file that a plan names; of a folder, of its manifest or its weights."""
    path = Path(text)
    if path.is_dir():
        names = ("manifest.json", "model.safetensors")
        path = next((path / name for name in names if (path / name).is_file()), path)
    return storage.sha256_file(path)


def work_of(tree: Tree, facts: Facts) -> dict[str, float]:
    """A rough measure of each node's work (multiply-adds), to start the longest first and to tell how far we are."""
    sizes: dict[str, float] = {}

    def macs(family: Family) -> float:
        known, table = facts(data_table(family.plan)), family.settings["network"]
        key = storage.canonical([table, known["shape"], known["outputs"]])
        if key not in sizes:
            network = networks.build(table, known["shape"], known["outputs"])
            sizes[key] = float(networks.cost(network, known["shape"])[1])
        return sizes[key]

    found = {}
    for name, node in tree.nodes.items():
        family = tree.families[node.family]
        rows = facts(data_table(family.plan))["rows"]
        if node.kind == "record":
            found[name] = rows * len(node.settings["views"]) * macs(family) + _STEP
            continue
        training = Training.of(None, dict(node.settings["training"]))
        steps = training.total_steps(rows)
        found[name] = steps * (3 * macs(family) * min(training.batch_size, rows) + _STEP) + _STEP
    return found


def _train_all(job: Job, tree: Tree, todo: list[Node], facts: Facts) -> None:
    """Training and recording, wave by wave. Descendants of a failed node are not run; the rest goes on."""
    work, wanted = work_of(tree, facts), {node.folder for node in todo}
    total, spent = sum(work.values()), sum(w for name, w in work.items() if name not in wanted)
    bad: set[str] = set()
    job.say("begin", f"{len(todo)} of {len(tree.nodes)} nodes to do", done=spent, total=total, work=work)
    for wave in tree.waves():
        ready = [node for node in wave if node.folder in wanted]
        blocked = [node for node in ready if bad & set(node.needs)]
        bad |= {node.folder for node in blocked}
        spent += sum(work[node.folder] for node in blocked)
        ready = sorted((n for n in ready if n not in blocked), key=lambda n: -work[n.folder])
        outcomes: list[Outcome] = []

        def done(node: Node, outcome: Outcome, outcomes: list[Outcome] = outcomes) -> None:
            nonlocal spent
            spent += work[node.folder] if outcome.state in ("done", "failed") else 0.0
            outcomes.append(outcome)
            if outcome.state == "refused" and not job.place.stopping():
                (job.root / STOP).write_text("stop\n")  # nobody can go on: the others save and leave
            text = f"{node.folder}" + (f": {outcome.reason}" if outcome.reason else "")
            job.say(outcome.state, text, done=spent, total=total, seconds=outcome.seconds)

        run_wave(ready, job.place, job.workers, done)
        _raise_if_stopped(outcomes)
        bad |= {outcome.folder for outcome in outcomes if outcome.state == "failed"}


def _raise_if_stopped(outcomes: Sequence[Outcome]) -> None:
    refused = next((o for o in outcomes if o.state == "refused"), None)
    if refused is not None:
        name, _, text = refused.reason.partition(": ")
        error = getattr(errors, name, errors.PotstillError)(text)
        if refused.folder not in text:
            error.add_note(f"This was {refused.folder}.")
        raise error
    if any(o.state == "interrupted" for o in outcomes):
        raise Interrupted(STOPPED)


def _evaluate_all(job: Job, tree: Tree) -> None:
    """Predictions of every complete unit. Starts when all training is done or failed: the test set is read once."""
    units = folder.units(job.root, tree)
    todo = [
        (unit, folders, data_table(family.plan), seed, job.place)
        for unit, (family, seed, folders) in units.items()
        if not folder.is_evaluated(job.root, unit, folders)
    ]
    if not todo:
        return
    folder.note_read(job.root, job.plan, job.plan.seed_list, len(todo))
    job.say("evaluate", f"{len(todo)} models on validation and test data")
    workers = job.workers if len(todo) > job.workers else 1
    _raise_if_stopped(run_all(workers, evaluate_unit, todo, place=job.place))


def _measure_costs(job: Job, tree: Tree) -> None:
    """Size and latency of every model, alone on the machine, in this process."""
    units = folder.units(job.root, tree)
    wanted = job.plan.evaluation.latency
    pairs = [(batch, threads) for batch in wanted.batch for threads in wanted.threads]
    for family in tree.families.values():
        unit = next((u for u in family.units.values() if u in units), None)
        path = job.root / Path(next(iter(family.units.values()))).parent / "cost.json"
        if unit is None:
            continue
        measured = {"measured": [list(pair) for pair in pairs], "members": len(units[unit][2])}
        if path.is_file() and measured.items() <= storage.read_json(path).items():
            continue
        if job.place.stopping():
            raise Interrupted(STOPPED)
        job.say("latency", family.key)
        models = [networks.load(job.root / name) for name in units[unit][2]]
        rows = [(batch, threads, *evaluation.latency(models, batch, threads)) for batch, threads in pairs]
        latency = [dict(zip(("batch", "threads", "median_ms", "p90_ms"), row, strict=True)) for row in rows]
        size = storage.plain(evaluation.cost(models))
        storage.write_json(path, {**size, "latency": latency, **measured})


def write_results(job: Job, tree: Tree, facts: Facts, seconds: float) -> Results:
    """results.json and figures.json from what the folder holds."""
    plan, reader, reads = job.plan, collect.Reader(job.root, tree), folder.test_reads(job.root, job.plan)
    models = {key: collect.model_result(reader, key, plan, job.workers) for key in tree.families}
    before = job.root / "results.json"
    earlier = storage.read_json(before).get("seconds", 0.0) if before.is_file() else 0.0
    known = facts(data_table(plan))
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
        data={**storage.plain(known), "plan": data_table(plan)},
        models=models,
        verdicts=verdicts(plan, reader, models, reads.looks),
        published=[Published(source=p.source, metrics=p.metrics) for p in [plan.published] if p is not None],
        test_reads=reads,
        plan=plan.to_dict(),
        plan_toml=plan.to_toml(),
        environment=environment,
        seconds=round(earlier + seconds, 3),
        workers=job.workers,
    )
    storage.write_json(job.root / "environment.json", environment)
    storage.write_json(job.root / "figures.json", collect.figures(reader, known["classes"]).model_dump(mode="json"))
    storage.write_json(before, results.model_dump(mode="json"))
    return results
