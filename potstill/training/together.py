"""Trainings to their ends: those that see the same batches step by step together, all others one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from potstill.errors import TrainingError
from potstill.networks.model import Model
from potstill.training.run import Run
from potstill.training.step import Failed, alike, most, stepper
from potstill.training.task import Task

Ended = Callable[[int, Model | Exception], None]
Runs = dict[int, Run]


def train(tasks: Sequence[Task], ended: Ended) -> None:
    """Train every task to its end; `ended(number, model)` as each ends, or `ended(number, error)`.

    What comes out does not depend on the other tasks, to the last bit (`networks.stack.exact`).
    """
    waiting = Runs()
    for number, task in enumerate(tasks):
        try:
            waiting[number] = Run(task)
        except Exception as error:
            ended(number, error)
    while waiting:
        first = next(iter(waiting.values()))
        with first.task.engine.settings():
            found = [number for number, run in waiting.items() if run is first or _alike(first, run)]
            part = {n: waiting.pop(n) for n in found[: most(first.learner, len(found))]}
            _train(part, ended)


def _alike(a: Run, b: Run) -> bool:
    try:
        return alike(a.learner, b.learner)
    except Exception:  # a teacher that cannot be read, say: its own training will tell
        return False


def _train(runs: Runs, ended: Ended) -> None:
    """Runs that are alike, to their ends: those that are behind first (continued ones may be), then all at once."""
    while runs:
        for number in [n for n, run in runs.items() if run.over]:
            _end(number, runs.pop(number), ended)
        steps = sorted({run.state.step for run in runs.values()})
        if not steps:
            return
        group = {n: run for n, run in runs.items() if run.state.step == steps[0]}
        try:
            failures = _advance(group, steps[1] if len(steps) > 1 else None)
        except Exception as error:
            if len(runs) > 1:  # whose error it is shows when each goes on alone
                for number, run in runs.items():
                    _train({number: run}, ended)
                return
            failures = dict.fromkeys(runs, error)
        for number, failure in failures.items():
            _fail(number, runs.pop(number), failure, ended)


def _advance(group: Runs, until: int | None) -> dict[int, Exception]:
    """Steps of runs that stand at the same one: until one of them is over or fails, or all have reached a step."""
    runs = list(group.values())
    leader, failures = runs[0], dict[int, Exception]()
    steps = stepper([run.learner for run in runs])
    try:
        while not failures and leader.state.step != until and not any(run.over for run in runs):
            began = time.monotonic()
            for run in runs:
                run.prepare()
            index, view = leader.batch()
            try:
                values = steps.step(index, view, leader.state.step)
            except Failed as error:
                numbers = list(group)
                return {numbers[i]: failure for i, failure in error.failures.items()}
            rows, share = len(index), (time.monotonic() - began) / len(runs)
            for (number, run), own in zip(group.items(), values, strict=True):
                try:
                    run.advance(own, rows, share)
                except Exception as error:
                    failures[number] = error
        return failures
    finally:
        steps.release()


def _end(number: int, run: Run, ended: Ended) -> None:
    try:
        model = run.finish()
    except Exception as error:
        ended(number, error)
    else:
        ended(number, model)


def _fail(number: int, run: Run, error: Exception, ended: Ended) -> None:
    try:
        if isinstance(error, TrainingError):
            run.keep_good()
    finally:
        ended(number, error)
