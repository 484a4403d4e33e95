"""From the speed of every model to what a whole study takes: time and disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from potstill.networks.model import Model
from potstill.study import words
from potstill.study.evaluate import on_test, split_of, wanted_names
from potstill.study.job import Job
from potstill.study.latency import TURNS
from potstill.study.tree import Family, Node, Tree

_NODE_SECONDS = 0.08  # what a node costs besides its steps: opening data, files and their fsync
_POOL_SECONDS = 4.0  # until worker processes have imported torch
_PROCESS_SECONDS = 2.0  # until one process that measures latency has
_TURN_SECONDS, _TURN_CALLS = 0.07, 4  # of latency, at least, with the calls that are not counted
_NODE_BYTES = 16_384  # JSON and history beside the weights


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One model. `seconds` is for all its trainings, recordings and predictions, one after the other.

    `steps` is of one training, at most; `step_ms` what one took here; `trainings` counts seeds times members.
    """

    model: str
    network: str
    objective: str
    parameters: int
    steps: int
    step_ms: float
    trainings: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a study would take: wall `seconds` with `workers` processes, `bytes` on a disk that has `free_bytes`.

    `rows` per split; `shape` of an example as the first model sees it, and of all `inputs` that models see by name;
    names of the `classes`, of a regression the `targets`; `notes`: what was left out of the data.
    """

    title: str
    seeds: tuple[int, ...]
    rows: Mapping[str, int]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    models: tuple[Rehearsed, ...]
    nodes: int
    workers: int
    seconds: float
    bytes: int
    free_bytes: int
    notes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds per step and per predicted row of one member; its size."""

    step: float
    row: float
    steps: int
    epochs: int
    parameters: int
    bytes: int
    model: Model = field(repr=False)


Stage = tuple[Tree, Mapping[str, Speed]]


def estimate(job: Job, stages: Sequence[Stage], rows: Mapping[str, int]) -> Rehearsal:
    """What the study takes, with `rows` examples on each split. It is a guess: other processes slow each other down.

    `stages`: the report's models, then the trials, which are not evaluated on test data.
    """
    (tree, speeds), *_ = stages
    spec = next((speed.model.spec for speed in speeds.values()), None)
    splits = [rows, *({name: 0 if on_test(name) else n for name, n in rows.items()} for _ in stages[1:])]
    parts = [_stage(job, stage, split) for stage, split in zip(stages, splits, strict=True)]
    quiet = _quiet(job, tree, speeds)
    return Rehearsal(
        title=job.plan.title,
        seeds=tuple(job.plan.seed_list),
        rows=rows,
        shape=tuple(spec.shape) if spec else (),
        classes=tuple(spec.classes) if spec else (),
        targets=tuple(spec.targets) if spec else (),
        models=(*parts[0][0], *(row for part in parts[1:] for row in _together(part[0], job.plan.trials()))),
        nodes=sum(len(stage[0].nodes) for stage in stages),
        workers=job.workers,
        seconds=sum(part[1] for part in parts) + quiet + (_POOL_SECONDS if job.workers > 1 else 0.0),
        bytes=sum(_bytes(*stage, split, job.workers) for stage, split in zip(stages, splits, strict=True)),
        free_bytes=_free(job.root),
        inputs={one.model.spec.sees: tuple(one.model.spec.shape) for one in speeds.values() if one.model.spec.sees},
    )


def _quiet(job: Job, tree: Tree, speeds: Mapping[str, Speed]) -> float:
    """Latency: a process for each number of threads, in which every turn of a model is some time, or some calls."""
    wanted = job.plan.evaluation.latency
    rows = [speed.row * tree.families[key].settings["members"] for key, speed in speeds.items()]
    turn = sum(max(_TURN_SECONDS, _TURN_CALLS * row * batch) for row in rows for batch in wanted.batch)
    return len(wanted.threads) * (_PROCESS_SECONDS + TURNS * turn) if turn else 0.0


def _stage(job: Job, stage: Stage, rows: Mapping[str, int]) -> tuple[list[Rehearsed], float]:
    """A row for every family, and the wall time."""
    tree, speeds = stage
    times = {name: _node_seconds(node, tree, speeds, rows) for name, node in tree.nodes.items()}
    evaluation = {key: _evaluation_seconds(tree.families[key], speed, rows) for key, speed in speeds.items()}
    found = [_row(tree, key, speed, times, evaluation[key]) for key, speed in speeds.items()]
    return found, _wall(job, tree, times, sum(evaluation.values()))


def _together(rows: Sequence[Rehearsed], tuned: Mapping[str, Sequence[object]]) -> list[Rehearsed]:
    """One row for all trials of a model, the longest training telling its steps; and one for each teacher of theirs."""
    groups: dict[str, list[Rehearsed]] = {}
    for row in rows:
        groups.setdefault(row.model.partition("@")[0].partition("#")[0], []).append(row)
    found = []
    for name, many in groups.items():
        what = f"{len(tuned[name])} trials" if name in tuned else "for the trials"
        longest, trainings = max(many, key=lambda row: row.steps), sum(row.trainings for row in many)
        seconds = sum(row.seconds for row in many)
        found.append(replace(longest, model=f"{name} ({what})", trainings=trainings, seconds=seconds))
    return found


def _node_seconds(node: Node, tree: Tree, speeds: Mapping[str, Speed], rows: Mapping[str, int]) -> float:
    speed = speeds[node.family]
    if node.kind == "train":
        return _NODE_SECONDS + speed.steps * speed.step + speed.epochs * rows["validation"] * speed.row
    asked = rows["train"] * len(node.settings["views"]) + rows["validation"]
    members: int = tree.families[node.family].settings["members"]
    return _NODE_SECONDS + asked * members * speed.row


def _evaluation_seconds(family: Family, speed: Speed, rows: Mapping[str, int]) -> float:
    """Predictions of all units."""
    members: int = family.settings["members"]
    return len(set(family.units.values())) * (0.5 * _NODE_SECONDS + _predicted(family, rows) * members * speed.row)


def _predicted(family: Family, rows: Mapping[str, int]) -> int:
    """Rows that a unit predicts; a trial's (no test rows) are those on validation data."""
    tested = any(n for name, n in rows.items() if on_test(name))
    names = wanted_names(family.plan, family) if tested else ("validation",)
    return sum(rows[split_of(name)] for name in names)


def _row(tree: Tree, key: str, speed: Speed, times: Mapping[str, float], evaluation: float) -> Rehearsed:
    family = tree.families[key]
    own = [name for name, node in tree.nodes.items() if node.family == key]
    return Rehearsed(
        model=key,
        network=words.network(family.settings["network"], family.settings["sees"]),
        objective=words.objective(family.settings["objective"]),
        parameters=speed.parameters * family.settings["members"],
        steps=speed.steps,
        step_ms=speed.step * 1e3,
        trainings=sum(tree.nodes[name].kind == "train" for name in own),
        seconds=sum(times[name] for name in own) + evaluation,
    )


def _wall(job: Job, tree: Tree, times: Mapping[str, float], evaluation: float) -> float:
    """Waves shared among the workers, each at least as long as its longest node; then predictions."""
    waves = [[times[node.folder] for node in wave] for wave in tree.waves()]
    return sum(max(sum(wave) / job.workers, max(wave)) for wave in waves if wave) + evaluation / job.workers


def _bytes(tree: Tree, speeds: Mapping[str, Speed], rows: Mapping[str, int], workers: int) -> int:
    """Weights, predictions and recorded outputs of the whole study, and the checkpoints that stand at one time."""
    total = 0
    for node in tree.nodes.values():
        family, speed = tree.families[node.family], speeds[node.family]
        width = 4 * speed.model.outputs
        if node.kind == "train":
            total += speed.bytes + _NODE_BYTES
        else:
            asked = rows["train"] * len(node.settings["views"]) + rows["validation"]
            total += asked * family.settings["members"] * width + _NODE_BYTES
    for key, speed in speeds.items():
        units = len(set(tree.families[key].units.values()))
        spec = speed.model.spec
        row = 9 + 4 * len(spec.classes) if spec.classes else 1 + 4 * (speed.model.outputs + len(spec.targets))
        total += units * _predicted(tree.families[key], rows) * row
    return total + workers * 5 * max((speed.bytes for speed in speeds.values()), default=0)


def _free(folder: Path) -> int:
    """Free bytes where the run folder would be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
