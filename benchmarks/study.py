"""`scripts/bench study`: the plan mnist-hard-vs-distilled against the same protocol in plain PyTorch and in Keras.

Contestants run one after another, in turns; a ratio is taken turn by turn. Each peer first tries its settings for two
epochs, and runs its turns with the one whose estimate for all epochs is lowest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import study_bound
import torch
from study_peer import ACCURACIES, PARTS

import potstill as ps

HERE = Path(__file__).parent
SEEDS, TRIED_EPOCHS, START_SECONDS = [0, 1], 2, 60.0
TWO = {"processes": 2, "threads": 1}
ONE = {"processes": 1, "threads": 2}
KERAS = {"steps": 1, "feed": "arrays", "joint": False, "jit": "auto"}
JOINT = {**KERAS, "joint": True}
PINNED = {**TWO, "pin": True}
LOOPS: dict[str, dict[str, Any]] = {
    "2 processes": {**TWO, "workers": 0},
    "1 process, 2 threads": {**ONE, "workers": 0},
    "1 process, 1 thread, 1 DataLoader worker": {"processes": 1, "threads": 1, "workers": 1},
}

PEERS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "plain": ("study_plain.py", {name: {**setting, "precision": "highest"} for name, setting in LOOPS.items()}),
    "plain-medium": ("study_plain.py", {name: {**setting, "precision": "medium"} for name, setting in LOOPS.items()}),
    "keras-torch": (
        "study_keras.py",
        {
            "2 processes": {**TWO, **KERAS},
            "2 processes, members as one model": {**TWO, **JOINT},
            "2 processes, members as one model, PyDataset": {**TWO, **JOINT, "feed": "dataset"},
            "1 process, 2 threads, members as one model": {**ONE, **JOINT},
            "2 processes, members as one model, jit_compile": {**TWO, **JOINT, "jit": True},
        },
    ),
    "keras-jax": (
        "study_keras.py",
        {
            "2 processes": {**PINNED, **KERAS},
            "2 processes, 64 steps per execution": {**PINNED, **KERAS, "steps": 64},
            "2 processes, 64 steps, compilation cache": {**PINNED, **KERAS, "steps": 64, "cache": True},
            "2 processes, 64 steps, members as one model": {**PINNED, **JOINT, "steps": 64},
            "2 processes, 16 steps, members as one model, cache": {**PINNED, **JOINT, "steps": 16, "cache": True},
            "2 processes, 64 steps, members as one model, cache": {**PINNED, **JOINT, "steps": 64, "cache": True},
            "2 processes, 64 steps, cache, PyDataset": {
                **PINNED, **KERAS, "steps": 64, "cache": True, "feed": "dataset",
            },
            "1 process, 2 threads, 64 steps, compilation cache": {**ONE, **KERAS, "steps": 64, "cache": True},
        },
    ),
}  # fmt: skip
CONTESTANTS = ("potstill", *PEERS)

RULES = """Not counted for anybody: starting processes and imports. Counted for all: training, the loss and accuracy on
validation data after every epoch, test accuracy, compilation. Peers hold their arrays before their clock starts;
potstill's clock includes reading and hashing the data, recording, saving and results.json. Peers' parts are
the mean over their processes, which do equal work. Potstill's parts are runs of the plan cut down to them, in one
folder, each run finding the parts before it complete; "whole" is one run of the whole plan in another folder.
"members as one model" trains ten networks as one with ten outputs, on the same batches."""


class Failed(Exception):
    """A contestant that did not finish."""


def call(script: str, task: Mapping[str, Any], limit: float | None = None) -> dict[str, Any]:
    """Run a contestant's script to its end and return what it printed."""
    with tempfile.TemporaryDirectory() as scratch:
        if task.get("cache"):
            cache = {
                "JAX_COMPILATION_CACHE_DIR": scratch,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            task = {**task, "environment": {**task["environment"], **cache}}
        command = [sys.executable, str(HERE / script), json.dumps(task)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"stopped after {limit:.0f} s") from None
            raise
    if process.returncode:
        raise Failed((err.strip().splitlines() or ["no message"])[-1][:200])
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def task_of(peer: str, setting: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """What a peer's script is told."""
    backend = {"KERAS_BACKEND": peer.removeprefix("keras-")} if peer.startswith("keras-") else {}
    return {**base, **PEERS[peer][1][setting], "environment": backend}


def fastest(name: str, settings: Iterable[str], attempt: Callable[[str, float], float]) -> str:
    """Try every setting; the one with the least seconds. `attempt(setting, best)` gets the least so far."""
    best, chosen = math.inf, ""
    for setting in settings:
        try:
            seconds = attempt(setting, best)
        except Failed as error:
            print(f"  {name}, {setting}: {error}", flush=True)
            continue
        print(f"  {name}, {setting}: {seconds:.1f} s", flush=True)
        if seconds < best:
            best, chosen = seconds, setting
    if not chosen:
        raise Failed(f"{name}: no setting ran")
    print(f"  {name} uses: {chosen}", flush=True)
    return chosen


def choose(peer: str, base: Mapping[str, Any]) -> str:
    """Try every setting for two epochs; the name of the one that should be fastest for all epochs."""
    script, settings = PEERS[peer]
    epochs = min(TRIED_EPOCHS, base["epochs"])

    def estimate(setting: str, best: float) -> float:
        task = {**task_of(peer, setting, base), "epochs": epochs}
        found = call(script, task, None if best == math.inf else best + START_SECONDS)
        return float(found["seconds"] + (base["epochs"] - epochs) * sum(found["later"].values()))

    return fastest(peer, settings, estimate)


def write_arrays(folder: str | None, path: Path) -> list[int]:
    """The plan's split of MNIST as arrays for the peers; the rows of each part."""
    data = ps.data.open("mnist", validation=0.1, folder=folder)
    arrays, rows = {}, []
    for name in ("train", "validation", "test"):
        source = getattr(data, name)
        batch = source.fetch(torch.arange(len(source)), 0)
        arrays |= {f"{name}_x": batch.inputs.flatten(1).numpy(), f"{name}_y": batch.labels.numpy()}
        rows.append(len(source))
    np.savez(path, **arrays)
    return rows


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median, and the range if there are several."""
    found = sorted(values)
    text = f"{statistics.median(found):.{digits}f}"
    return text if len(found) == 1 else f"{text} ({found[0]:.{digits}f} to {found[-1]:.{digits}f})"


def row(turn: Mapping[str, Any]) -> list[float]:
    """Seconds of the parts, their sum, and of the whole."""
    parts = [turn["parts"][part] for part in PARTS]
    return [*parts, sum(parts), turn["seconds"]]


def table(title: str, found: Mapping[str, list[list[float]]], columns: Sequence[str]) -> None:
    """One line per contestant; each value is a list over the turns."""
    print(f"\n{title}\n  {'':<12}" + "".join(f"{column:>26}" for column in columns))
    for name, turns in found.items():
        print(f"  {name:<12}" + "".join(f"{spread(values):>26}" for values in zip(*turns, strict=True)))


def verdict(title: str, ratios: list[float], target: float, *, wanted: float, most: bool = False) -> None:
    """A ratio beside its target."""
    value = statistics.median(ratios)
    reached = [value <= limit if most else value >= limit for limit in (target, wanted)]
    words = ["reached" if found else "NOT reached" for found in reached]
    sign = "<=" if most else ">="
    print(f"  {title}: {spread(ratios)}; target {sign} {target}: {words[0]}; wanted {sign} {wanted}: {words[1]}")


def report(turns: Mapping[str, list[dict[str, Any]]]) -> None:
    """Seconds, ratios and accuracies."""
    columns = [*PARTS, "sum", "whole"]
    seconds = {name: [row(turn) for turn in found] for name, found in turns.items()}
    table("seconds, median over turns (range)", seconds, columns)
    compiled = {
        name: [sum(turn["first"].values()) - sum(turn["later"].values()) for turn in found]
        for name, found in turns.items()
        if name != "potstill"
    }
    for name, values in compiled.items():
        print(f"  {name}: first epochs took {spread(values)} s longer than later ones (compilation, counted above)")
    if "potstill" in turns:
        ours = seconds["potstill"]
        ratios = {
            name: [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(found, ours, strict=True)]
            for name, found in seconds.items()
            if name != "potstill"
        }
        if ratios:
            table("times potstill's seconds, turn by turn", ratios, columns)
    print(f"\ntest accuracy, mean over seeds\n  {'':<12}" + "".join(f"{name:>16}" for name in ACCURACIES))
    for name, found in turns.items():
        means = [statistics.mean(a for turn in found for a in turn["accuracy"][model]) for model in ACCURACIES]
        print(f"  {name:<12}" + "".join(f"{mean:>16.4f}" for mean in means))


def targets(turns: Mapping[str, list[dict[str, Any]]], bound: float) -> None:
    """What was wanted, and whether it was reached."""
    print()
    if "potstill" not in turns:
        return
    ours = turns["potstill"]
    peers = [found for name, found in turns.items() if name != "potstill"]

    def fastest(key: str) -> list[float]:
        """Turn by turn, the fastest peer's time over ours."""
        return [
            min(_seconds(found[turn], key) for found in peers) / _seconds(mine, key) for turn, mine in enumerate(ours)
        ]

    if peers:
        verdict("whole study, fastest peer / potstill", fastest("whole"), 1.7, wanted=3.0)
        verdict("students, fastest peer / potstill", fastest("students"), 4.0, wanted=8.0)
    if "plain" in turns:
        plain = [a["seconds"] / b["seconds"] for a, b in zip(turns["plain"], ours, strict=True)]
        verdict("whole study, plain loop / potstill", plain, 3.0, wanted=5.0)
    verdict("whole study, potstill / bound", [turn["seconds"] / bound for turn in ours], 3.0, wanted=2.0, most=True)


def _seconds(turn: Mapping[str, Any], key: str) -> float:
    return float(turn["seconds"] if key == "whole" else turn["parts"][key])


def main() -> int:
    """Arrays, tryouts, turns, report."""
    parser = argparse.ArgumentParser(prog="scripts/bench study", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--data", default=os.environ.get("POTSTILL_DATA"), help="the folder that holds mnist/")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `call` then ends what it started
    names = [name for name in CONTESTANTS if name in asked.only]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "keras", "jax"))
    print(f"study: {len(SEEDS)} seeds, {asked.epochs} epochs, {asked.turns} turns; {versions}\n{RULES}")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "arrays.npz"
        rows = write_arrays(asked.data, path)
        base = {"data": str(path), "folder": asked.data, "epochs": asked.epochs, "seeds": SEEDS}
        print(f"\nsettings, tried for {TRIED_EPOCHS} epochs: estimated seconds for {asked.epochs}")
        chosen = {name: choose(name, base) for name in names if name in PEERS}
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        peak, precision = study_bound.peak()
        for turn in range(asked.turns):
            for name in names:
                task = task_of(name, chosen[name], base) if name in PEERS else base
                turns[name].append(call(PEERS[name][0] if name in PEERS else "study_potstill.py", task))
                print(f"  turn {turn + 1}, {name}: {turns[name][-1]['seconds']:.1f} s", flush=True)
    report(turns)
    operations = sum(study_bound.study(asked.epochs, len(SEEDS), rows).values())
    print(
        f"\nbound: {operations / 1e12:.3f} Tflop / {peak / 1e9:.0f} Gflop/s (float32 products of {study_bound.SIZE}^3, "
        f'two processes at once, precision "{precision}") = {operations / peak:.1f} s\n  {study_bound.COUNTED}'
    )
    targets(turns, operations / peak)
    return 0


if __name__ == "__main__":
    sys.exit(main())
