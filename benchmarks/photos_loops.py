"""The contestants of `scripts/bench photos`: an epoch of distilling, in one or more processes, timed.

Called with a task as one JSON argument, prints one JSON line. Not counted: starting processes, imports, opening
pictures, teacher and recorded answers, one step to warm up. Counted: making the student, and its epoch.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import in_processes
import numpy as np
import torch
from in_processes import Begin
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import potstill as ps
from potstill import networks, outputs, seeding

BATCH, RATE, FRACTION, VIEW = 64, 1e-3, 0.15, 1
AUGMENT = ("flip", {"name": "shift", "fraction": FRACTION})
TEACHER = {"name": "resnet50", "stem": "large"}
STUDENT = {"name": "resnet18", "stem": "large"}
_WAIT = 3600.0  # seconds; the others may be slow to start on a busy machine


def open_data(path: str) -> ps.data.Data:
    """The pictures that `photos.py` wrote, with their views; all of them are for training."""
    return ps.data.open(path, validation=0, test=0, task="binary", augment=AUGMENT)


def augmented(picture: Tensor, numbers: list[float]) -> Tensor:
    """A picture (C, H, W) uint8 as most people would flip and shift it, then float32 in [0, 1]."""
    if numbers[0] < 0.5:
        picture = picture.flip(-1)
    for axis, number in zip((1, 2), numbers[1:], strict=True):
        size = picture.shape[axis]
        most = round(FRACTION * size)
        moved = int(number * (2 * most + 1)) - most
        picture = picture.index_select(axis, (torch.arange(size) - moved).clamp(0, size - 1))
    return picture.float() / 255


def view_numbers(rows: int) -> np.ndarray:
    """(rows, 3): what potstill draws for the recorded view, so that recorded answers are for these pictures."""
    flips, shifts = (
        seeding.uniform(seeding.key("view", place, name, VIEW), np.arange(rows), draws)
        for place, (name, draws) in enumerate((("flip", 1), ("shift", 2)))
    )
    return np.concatenate([flips, shifts], axis=1)


_CLOCKS = ("seconds", "cpu")


def _clocks() -> dict[str, float]:
    return {"seconds": time.perf_counter(), "cpu": time.process_time()}


def _no_parts() -> dict[str, dict[str, float]]:
    return {key: {"teacher": 0.0, "student": 0.0} for key in _CLOCKS}


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """One picture at a time, newly augmented; with `answers` (n, 1) the pictures for which they were recorded."""

    def __init__(self, path: str, answers: Tensor | None) -> None:
        with np.load(path) as file:
            self.pictures = torch.from_numpy(file["inputs"])
        self.answers = answers
        self.numbers = None if answers is None else view_numbers(len(self.pictures)).tolist()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if self.answers is None or self.numbers is None:
            return augmented(self.pictures[row], torch.rand(3).tolist()), torch.empty(0)
        return augmented(self.pictures[row], self.numbers[row]), self.answers[row]


class Loop:
    """A plain loop. `task`: `recorded` answers instead of the live teacher, `bf16`, `channels_last`, `batched` input.

    `parts` adds up the teacher's forward passes and the student's own steps: seconds, and processor time.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self.parts = task, _no_parts()
        self.data = open_data(task["pictures"])
        stored = outputs.open(task["outputs"]) if task["recorded"] else None
        rows = torch.arange(len(self.data.train))
        self.answers = stored.lookup(rows, VIEW).logits() if stored else None
        self.teacher = None if stored else self.laid(ps.load(task["teacher"]).network.eval())
        pictures = Pictures(task["pictures"], self.answers)
        # Workers end with the epoch, and then their processor time is counted.
        self.loader = DataLoader(pictures, batch_size=BATCH, shuffle=True, num_workers=task["workers"])
        self.train(0, steps=1)
        self.parts = _no_parts()

    def laid(self, what: Any) -> Any:
        """A network or tensor in the chosen memory layout."""
        return what.to(memory_format=torch.channels_last) if self.task["channels_last"] else what

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures and, where they are recorded, the teacher's answers."""
        if not self.task["batched"]:
            yield from self.loader
            return
        source, answers = self.data.train, self.answers
        assert answers is not None  # the input pipeline is switched on after recording
        for index in torch.randperm(len(source)).split(BATCH):
            yield source.inputs(index, VIEW), answers[index]

    def train(self, seed: int, steps: int | None = None) -> nn.Module:
        """One epoch of a new student, or some steps; the teacher's part and the student's own are added up."""
        torch.manual_seed(seed)
        shape = self.data.spec.shape
        student = self.laid(networks.build(STUDENT, shape, 1)).train()
        optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
        loss = nn.functional.binary_cross_entropy_with_logits
        for number, (inputs, answers) in enumerate(self.batches()):
            if number == steps:
                break
            inputs, began = self.laid(inputs), _clocks()
            if self.teacher is not None:
                with torch.no_grad(), self.autocast():
                    answers = self.teacher(inputs)
            asked = _clocks()
            optimizer.zero_grad()
            with self.autocast():
                logits = student(inputs)
            loss(logits.float(), answers.float().sigmoid()).backward()
            optimizer.step()
            for part, start, end in (("teacher", began, asked), ("student", asked, _clocks())):
                for key in _CLOCKS:
                    self.parts[key][part] += end[key] - start[key]
        return student

    def autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.task["bf16"])


class Fit:
    """potstill as users run it: `ps.fit` from recorded answers, in bf16 and channels_last."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self.data, self.stored = open_data(task["pictures"]), outputs.open(task["outputs"])
        self.train(0, steps=1)

    def train(self, seed: int, **budget: int) -> networks.Model:
        """One epoch of a new student, or some `steps`."""
        return ps.fit(
            STUDENT,
            self.data,
            ps.objectives.soft_labels(),
            teacher=self.stored,
            seed=seed,
            **{"epochs": 1, **budget},
            batch_size=BATCH,
            optimizer={"name": "adam", "learning_rate": RATE},
            augment=AUGMENT,
            views=1,
            select="last",
            precision="bf16",
            channels_last=True,
        )


class Record:
    """The recording of one view; the first process's stays for the contestants that learn from it."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self.data, self.teacher, self.folder = open_data(task["pictures"]), ps.load(task["teacher"]), task["outputs"]
        self.teacher(self.data.train.block(0, 512, VIEW))

    def train(self, seed: int) -> Any:
        folder = self.folder if seed == 0 else Path(tempfile.mkdtemp(dir=Path(self.folder).parent))
        return ps.record(self.teacher, self.data.train, folder, views=[VIEW])


KINDS: dict[str, Any] = {"loop": Loop, "fit": Fit, "record": Record}


def _cpu() -> float:
    """Seconds of processor time, with those of DataLoader workers that have ended."""
    return sum(os.times()[:4])


def _share(task: dict[str, Any], begin: Begin) -> tuple[float, float, float, dict[str, dict[str, float]]]:
    """One process's seeds: when they began and ended, processor time, and the parts."""
    torch.set_num_threads(task["threads"])
    contestant = KINDS[task["kind"]](task)
    begin()
    began, worked = time.perf_counter(), _cpu()
    for seed in task["seeds"]:
        contestant.train(seed, **task.get("budget", {}))
    return began, time.perf_counter(), _cpu() - worked, contestant.parts


def run(task: dict[str, Any]) -> dict[str, Any]:
    """The task in `processes` processes, which share the seeds: seconds of all, processor time, and the parts."""
    number = task["processes"]
    shares = [({**task, "seeds": task["seeds"][i::number]},) for i in range(number)]
    found = in_processes.run(_share, shares, wait=_WAIT)
    return {
        "seconds": max(end for _, end, _, _ in found) - min(begin for begin, _, _, _ in found),
        "cpu": sum(cpu for _, _, cpu, _ in found),
        "parts": {
            key: {name: sum(parts[key][name] for _, _, _, parts in found) for name in names}
            for key, names in found[0][3].items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
