"""One run of a study: what is known of its data and files, and how its nodes are trained and its models evaluated."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill import errors, networks, storage
from potstill.errors import Interrupted
from potstill.networks.start import HUB
from potstill.study import folder
from potstill.study.answers import check_brought, seed_of
from potstill.study.bundles import bundles
from potstill.study.evaluate import evaluate_unit, missing_names, on_test, split_of, wanted_names
from potstill.study.opened import data_facts, form_of, open_data
from potstill.study.plan import Plan
from potstill.study.pool import STOPPED, run_all, run_wave
from potstill.study.tree import Family, Node, Tree, data_table
from potstill.study.worker import STOP, Outcome, Place
from potstill.training.settings import Training

_STEP = 1e7  # what a step of a tiny network costs besides its products, in multiply-adds


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of a study: begin, done, failed, refused, interrupted, trial, tuned, evaluate, latency or stop.

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


class Facts:
    """What is known of each data table of a plan: fingerprints, rows, shape, classes. Never opens the test set.

    The seed matters to fingerprints alone, and only where examples are drawn anew for each.
    """

    def __init__(self, data_folder: str | None) -> None:
        self._folder = data_folder
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, table: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
        key = storage.canonical([storage.plain(table), seed if table.get("redraw") else 0])
        if key not in self._known:
            self._known[key] = data_facts(table, seed, self._folder)
        return self._known[key]


def file_hash(text: str) -> str:
    """sha256 of a file that a plan names; of a folder, of its manifest or its weights; of weights on a hub."""
    path = networks.locate(text) if text.startswith(HUB) else Path(text)
    if path.is_dir():
        names = ("manifest.json", "model.safetensors")
        path = next((path / name for name in names if (path / name).is_file()), path)
    return storage.sha256_file(path)


def work_of(tree: Tree, facts: Facts) -> dict[str, float]:
    """A rough measure of each node's work (multiply-adds), to start the longest first and to tell how far we are."""
    sizes: dict[str, float] = {}

    def macs(family: Family) -> float:
        known, table = facts(data_table(family.plan)), family.settings["network"]
        shape, vocabulary = form_of(known, family.settings["sees"])
        key = storage.canonical([table, shape, vocabulary, known["outputs"]])
        if key not in sizes:
            network = networks.build(table, shape, known["outputs"], vocabulary=vocabulary)
            sizes[key] = float(networks.cost(network, shape, vocabulary=vocabulary)[1])
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
        found[name] = steps * (3 * macs(family) * min(training.batch(rows), rows) + _STEP) + _STEP
    return found


def train_all(job: Job, tree: Tree, todo: list[Node], *, facts: Facts, before: float = 0.0, after: float = 0.0) -> None:
    """Training and recording, wave by wave. Descendants of a failed node are not run; the rest goes on.

    `before` and `after` are the work of other stages of the same run, for whoever tells how far it is.
    """
    check_brought(todo, job.root, lambda n: open_data(n.settings["data"]["plan"], seed_of(n), job.data_folder))
    work, wanted = work_of(tree, facts), {node.folder for node in todo}
    total = before + sum(work.values()) + after
    spent = before + sum(w for name, w in work.items() if name not in wanted)
    bad: set[str] = set()
    job.say("begin", f"{len(todo)} of {len(tree.nodes)} nodes to do", done=spent, total=total, work=work)
    for wave in tree.waves():
        ready = [node for node in wave if node.folder in wanted]
        blocked = [node for node in ready if bad & set(node.needs)]
        bad |= {node.folder for node in blocked}
        spent += sum(work[node.folder] for node in blocked)
        ready = [node for node in ready if node not in blocked]
        outcomes: list[Outcome] = []

        def done(node: Node, outcome: Outcome, outcomes: list[Outcome] = outcomes) -> None:
            nonlocal spent
            spent += work[node.folder] if outcome.state in ("done", "failed") else 0.0
            outcomes.append(outcome)
            if outcome.state == "refused" and not job.place.stopping():
                (job.root / STOP).write_text("stop\n")  # nobody can go on: the others save and leave
            text = f"{node.folder}" + (f": {outcome.reason}" if outcome.reason else "")
            job.say(outcome.state, text, done=spent, total=total, seconds=outcome.seconds)

        run_wave(bundles(ready, job.workers, facts=facts, work=work), job.place, job.workers, done)
        raise_if_stopped(outcomes)
        bad |= {outcome.folder for outcome in outcomes if outcome.state == "failed"}


def raise_if_stopped(outcomes: Sequence[Outcome]) -> None:
    refused = next((o for o in outcomes if o.state == "refused"), None)
    if refused is not None:
        name, _, text = refused.reason.partition(": ")
        error = getattr(errors, name, errors.PotstillError)(text)
        if refused.folder not in text:
            error.add_note(f"This was {refused.folder}.")
        raise error
    if any(o.state == "interrupted" for o in outcomes):
        raise Interrupted(STOPPED)


def evaluate_all(job: Job, wanted: Mapping[str, tuple[Family, int, list[str]]], what: str, *, test: bool) -> None:
    """Predictions of complete units (as `folder.units` gives them) that have none yet.

    With `test` those that the plan asks for; reading the test set is written down before. Else on validation data.
    """
    todo = []
    for unit, (family, seed, folders) in wanted.items():
        names = wanted_names(job.plan, family) if test else ("validation",)
        missing = missing_names(job.root, unit, folders, names)
        if missing:
            augment = family.settings["training"]["augment"]
            todo.append((unit, folders, data_table(family.plan), seed, job.place, missing, augment))
    if not todo:
        return
    todo.sort(key=lambda row: (storage.canonical(storage.plain(row[2])), row[3]))  # data of a seed are opened once
    reading = Counter(split for *_, names, _ in todo for split in {split_of(name) for name in names if on_test(name)})
    if reading:
        folder.note_read(job.root, job.plan, job.plan.seed_list, reading)
    job.say("evaluate", f"{len(todo)} {what}")
    workers = job.workers if len(todo) > job.workers else 1
    raise_if_stopped(run_all(workers, evaluate_unit, todo, place=job.place))
