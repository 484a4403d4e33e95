"""What predictions cost: sizes, and times taken in turns, in a process of its own for each number of threads.

Nobody else works meanwhile. In every turn each model is asked for a while, and every other turn goes through the models
backwards, so that whatever the machine does in between meets all of them; how far a model's turns are apart tells how
far its numbers can be trusted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import torch
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from potstill import evaluation, networks, storage
from potstill.errors import Interrupted, PotstillError
from potstill.networks.model import Model
from potstill.study import folder
from potstill.study.job import Job
from potstill.study.pool import MEMORY, STOPPED
from potstill.study.tree import Tree
from potstill.study.worker import Place

T = TypeVar("T")
Times: TypeAlias = Mapping[tuple[str, int], Sequence[Sequence[float]]]  # (model, batch) -> turns of calls, in ms
TURNS: Final = 5
_TOGETHER: Final = 1 << 30  # bytes of weights of models that take turns


def measure_costs(job: Job, tree: Tree) -> None:
    """`cost.json` of every model: size and latency. Where one is missing all are timed anew, so that they compare."""
    units, wanted = folder.units(job.root, tree), job.plan.evaluation.latency
    models: dict[str, list[str]] = {}
    files: dict[str, Path] = {}
    for family in tree.families.values():
        unit = next((unit for unit in family.units.values() if unit in units), None)
        if unit is not None:
            models[family.key] = units[unit][2]
            files[family.key] = job.root / Path(next(iter(family.units.values()))).parent / "cost.json"
    pairs = [[batch, threads] for batch in wanted.batch for threads in wanted.threads]
    asked = {key: {"measured": pairs, "members": len(made), "turns": TURNS} for key, made in models.items()}
    if all(path.is_file() and asked[key].items() <= storage.read_json(path).items() for key, path in files.items()):
        return
    if job.place.stopping():
        raise Interrupted(STOPPED)
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in models}
    for threads in wanted.threads if wanted.batch else ():
        job.say("latency", f"{len(models)} models with {threads} thread{'s' if threads > 1 else ''}")
        times = alone(threads, _in_turns, job.place, models, wanted.batch)
        if times is None:
            raise Interrupted(STOPPED)
        for (key, batch), turns in times.items():
            rows[key].append({"batch": batch, "threads": threads, **summary(turns)})
    for key, path in files.items():
        size = storage.plain(evaluation.cost(_load(job.root, models[key])))
        storage.write_json(path, {**size, "latency": rows[key], "machine": folder.machine(), **asked[key]})


def alone(threads: int, function: Callable[..., T], *args: Any) -> T:
    """`function(*args)` in a fresh process that computes with so many threads."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        with ProcessPoolExecutor(1, env=variables) as pool:
            found: T = pool.submit(_with_threads, threads, function, args).result()
            return found
    except BrokenProcessPool:
        raise PotstillError(
            f"The process that measured latency was killed. {MEMORY} Run again: what is complete is kept."
        ) from None


def _with_threads(threads: int, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us through the stop file
    torch.set_num_threads(threads)
    return function(*args)


def _in_turns(place: Place, models: Mapping[str, Sequence[str]], batches: Sequence[int]) -> Times | None:
    """All models' times; None where the study is stopped."""
    os.chdir(place.here)
    found: dict[tuple[str, int], Sequence[Sequence[float]]] = {}
    for group in _groups(place.root, models):
        loaded = {key: _load(place.root, models[key]) for key in group}
        told = in_turns(loaded, batches, stopping=place.stopping)
        if told is None:
            return None
        found |= told
    return found


def _groups(root: Path, models: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Models whose weights fit into memory together."""
    group: list[str] = []
    size = 0
    for key, names in models.items():
        own = sum((root / name / "model.safetensors").stat().st_size for name in names)
        if group and size + own > _TOGETHER:
            yield group
            group, size = [], 0
        group, size = [*group, key], size + own
    yield group


def _load(root: Path, names: Sequence[str]) -> list[Model]:
    return [networks.load(root / name) for name in names]


def in_turns(
    models: Mapping[str, Sequence[Model]],
    batches: Sequence[int],
    *,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> Times | None:
    """The calls of every model (or ensemble) and batch size in `TURNS` turns; None where it is to stop."""
    found: dict[tuple[str, int], list[list[float]]] = {(key, batch): [] for key in models for batch in batches}
    for turn in range(TURNS):
        order = list(found) if turn % 2 == 0 else list(found)[::-1]
        for key, batch in order:
            if stopping():
                return None
            found[key, batch].append(evaluation.call_times(models[key], batch, clock=clock))
    return found


def summary(turns: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Numbers of all calls, and the median of each turn, in ms."""
    calls = np.concatenate([np.asarray(turn, np.float64) for turn in turns])
    return {
        "median_ms": float(np.median(calls)),
        "p90_ms": float(np.percentile(calls, 90)),
        "mean_ms": float(calls.mean()),
        "turns_ms": [float(np.median(turn)) for turn in turns],
    }
