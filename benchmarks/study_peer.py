"""What the contestants of `scripts/bench study` share: the protocol's parts, in one or more processes, timed.

A contestant's script gets its task as one JSON argument and prints one JSON line. It defines `make(task)`, which
imports its library and returns a `Peer`. Not counted: starting processes, imports, reading the arrays. Counted:
everything from the first training to the last test accuracy, compilation included.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import in_processes
import numpy as np
from in_processes import Begin
from numpy.typing import NDArray

PARTS = ("large", "members", "alone", "students")
LARGE, SMALL = (500, 400, 300, 200, 100), (100,)
MEMBERS, BATCH, RATE = 10, 128, 1e-3
TEMPERATURE, ALPHA = 10.0, 0.1
VALIDATION_BATCH = 1000  # divides 6,000 and 10,000: whoever compiles for a shape compiles once


@dataclass
class Arrays:
    """Pictures (n, 784) float32 in [0, 1] and labels (n,) int64 of the three splits."""

    train: tuple[NDArray[Any], NDArray[Any]]
    validation: tuple[NDArray[Any], NDArray[Any]]
    test: tuple[NDArray[Any], NDArray[Any]]

    @staticmethod
    def load(path: str) -> Arrays:
        """From the .npz that `study.py` writes."""
        with np.load(path) as file:
            return Arrays(*((file[f"{name}_x"], file[f"{name}_y"]) for name in ("train", "validation", "test")))


class Peer(Protocol):
    """One library's way to train. A model is whatever it likes; `epochs` gets the seconds of every epoch of a fit."""

    epochs: list[list[float]]

    def hard(self, hidden: Sequence[int], seed: int, count: int) -> list[Any]:
        """`count` networks trained on the labels, independent of each other."""

    def soft(self, teachers: list[Any], seed: int) -> Any:
        """A small network that learned from one teacher, or from the mean of several."""

    def accuracy(self, models: list[Any]) -> float:
        """On test data: of one model, or of the mean of several models' probabilities."""


@dataclass
class Measured:
    """Seconds of each part, and accuracies."""

    seconds: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)  # first epochs
    later: dict[str, float] = field(default_factory=dict)  # as long as an epoch takes later
    accuracy: dict[str, list[float]] = field(default_factory=dict)


def train_all(peer: Peer, seeds: Sequence[int]) -> Measured:
    """The four parts, one after another."""
    found, large, members = Measured(), {}, {}
    began = time.perf_counter()

    def end(part: str) -> None:
        nonlocal began
        found.seconds[part] = time.perf_counter() - began
        fits = [fit for fit in peer.epochs if fit]
        found.first[part] = sum(fit[0] for fit in fits)
        found.later[part] = sum(statistics.median(fit[1:] or fit) for fit in fits)
        peer.epochs.clear()
        began = time.perf_counter()

    def note(name: str, models: list[Any]) -> None:
        found.accuracy.setdefault(name, []).append(peer.accuracy(models))

    for seed in seeds:
        large[seed] = peer.hard(LARGE, seed, 1)
        note("large", large[seed])
    end("large")
    for seed in seeds:
        members[seed] = peer.hard(SMALL, seed + 1000, MEMBERS)
        note("ensemble", members[seed])
    end("members")
    for seed in seeds:
        note("alone", peer.hard(SMALL, seed, 1))
    end("alone")
    for seed in seeds:
        note("from-large", [peer.soft(large[seed], seed)])
        note("from-ensemble", [peer.soft(members[seed], seed)])
    end("students")
    return found


def _share(
    make: Callable[[dict[str, Any]], Peer], task: dict[str, Any], core: int, begin: Begin
) -> tuple[float, float, dict[str, Any]]:
    """One process's seeds: it begins when all have read the data and imported their library."""
    if task.get("pin") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    peer = make(task)
    begin()
    began = time.perf_counter()
    found = train_all(peer, task["seeds"])
    return began, time.perf_counter(), vars(found)


def run(make: Callable[[dict[str, Any]], Peer], task: dict[str, Any]) -> dict[str, Any]:
    """The task in `processes` processes, which share the seeds; a part's seconds are the mean over the processes."""
    number = task["processes"]
    own = [(make, {**task, "seeds": task["seeds"][i::number]}, i) for i in range(number)]
    found = in_processes.run(_share, own, wait=300)
    shares = [share for _, _, share in found]
    return {
        "seconds": max(end for _, end, _ in found) - min(begin for begin, _, _ in found),
        "parts": {part: statistics.mean(share["seconds"][part] for share in shares) for part in PARTS},
        "first": {part: statistics.mean(share["first"][part] for share in shares) for part in PARTS},
        "later": {part: statistics.mean(share["later"][part] for share in shares) for part in PARTS},
        "accuracy": {name: sorted(a for share in shares for a in share["accuracy"][name]) for name in ACCURACIES},
    }


ACCURACIES = ("large", "ensemble", "alone", "from-large", "from-ensemble")


def main(make: Callable[[dict[str, Any]], Peer]) -> None:
    """The body of a contestant's script."""
    task = json.loads(sys.argv[1])
    os.environ.update(task.get("environment", {}))
    os.environ["OMP_NUM_THREADS"] = str(task["threads"])
    print(json.dumps(run(make, task)))
