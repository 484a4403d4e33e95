"""The one loop (decision 4). It knows nothing of kinds of distillation: objectives are values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from potstill import metrics, networks, storage
from potstill.engine import Engine
from potstill.errors import Interrupted, TrainingError
from potstill.networks.model import Model, start_from
from potstill.registry import Spec
from potstill.training import checkpoint, optimizers
from potstill.training.checkpoint import State
from potstill.training.order import epoch_rows
from potstill.training.settings import Training
from potstill.training.step import stepper
from potstill.training.task import (
    Progress,
    Task,
    TrainingData,
    describe_data,
    describe_objective,
    pick_answers,
    pick_monitor,
    pick_objective,
    pick_rows,
)
from potstill.training.validation import Validation
from potstill.types import Answers, ObjectiveFunction, Penalty, Source, Teacher

_POLL_SECONDS = 0.25


def fit(
    network: Spec | networks.Builder,
    data: TrainingData,
    objective: ObjectiveFunction | Spec | None = None,
    *,
    teacher: Answers | Teacher | None = None,
    validation_teacher: Answers | None = None,
    seed: int = 0,
    member: int = 0,
    generation: int = 0,
    training: Training | None = None,
    weights: str | Path | None = None,
    penalties: Sequence[Penalty] = (),
    folder: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Model:
    """Train one network from labels, from a teacher, or from both.

    `network`: a specification ("mlp:100") or a function (shape, outputs) -> nn.Module. `objective` defaults to hard
    labels, or to Hinton's with a `teacher`: recorded outputs, or a teacher that is asked live. `validation_teacher`:
    its answers on the validation rows, needed to watch the objective there (a live teacher gives them itself).
    `settings` are fields of `Training`. With a `folder` the model is saved there, checkpoints too, and the same call
    continues an interrupted training.

    Raises `TrainingError` on a NaN or infinite loss (the last good weights are kept), `Interrupted` after saving when
    `should_stop()` answers true, `ObjectiveError`, `DataError`, `TeacherError` for what does not fit together.
    """
    options = Training.of(training, settings)
    goal = pick_objective(objective, teacher)
    train = _augmented(data.train, options)
    answers, validation_answers = pick_answers(teacher, validation_teacher, train, data.validation)
    rows = pick_rows(goal, train, answers)
    key = {"seed": seed, "member": member, "generation": generation}
    module = networks.seeded(network, train.spec.shape, train.spec.outputs, **key)
    start = start_from(module, weights) if weights is not None else None
    specification = None if callable(network) else networks.REGISTRY.full(network)
    options = pick_monitor(options, goal, data.validation, validation_answers)
    decides = _described(specification or networks.label(network), goal, options) | {"seed": key, "weights": start}
    task = Task(
        network=module,
        train=train,
        validation=_validation(data.validation, validation_answers, goal, options),
        objective=goal,
        answers=answers,
        rows=rows,
        seed=seed,
        training=options,
        engine=Engine.pick(options.precision, channels_last=options.channels_last),
        penalties=penalties,
        settings=decides | describe_data(train, answers, data.validation, validation_answers),
        folder=Path(folder) if folder is not None else None,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        should_stop=should_stop,
    )
    return _finish(task, _train(task), specification)


def _described(network: Any, goal: ObjectiveFunction, options: Training) -> dict[str, Any]:
    return {"network": network, "objective": describe_objective(goal), "training": storage.plain(options)}


def _augmented(train: Source, options: Training) -> Source:
    if not options.augment:
        return train
    augmented: Source = train.with_augment(options.augment)  # type: ignore[attr-defined]
    return augmented


def _validation(
    source: Source | None, answers: Answers | None, goal: ObjectiveFunction, options: Training
) -> Validation | None:
    watched = ["accuracy", "cross_entropy", options.select, options.monitor]
    names = [name for name in watched if name in metrics.names()]
    return Validation.of(source, answers, goal, names=names, label_smoothing=options.label_smoothing)


def _train(task: Task) -> State:
    """Fresh or continued, to the end; `task.network` then holds the last weights, `State.best` the best."""
    task.network.train()
    network = task.engine.place(task.network)
    optimizer = optimizers.REGISTRY.call(task.training.optimizer, network.parameters())
    state = State()
    kept, engine = task.folder / "checkpoint" if task.folder else None, task.engine.describe()
    if kept is not None:
        found = checkpoint.load(kept, settings=task.settings, engine=engine)
        if found:
            state, tensors, moments = found
            network.load_state_dict(tensors)
            optimizers.load_state(optimizer, moments)
    began, before = time.monotonic(), state.seconds

    def save() -> None:
        if kept is not None:
            state.seconds = before + time.monotonic() - began
            moments = optimizers.state_tensors(optimizer)
            checkpoint.save(kept, state, network.state_dict(), moments, settings=task.settings, engine=engine)

    with task.engine.settings():
        try:
            _loop(task, state, optimizer, save)
        except TrainingError:
            _keep_good(task, state)
            raise
    state.seconds = before + time.monotonic() - began
    return state


def _loop(task: Task, state: State, optimizer: torch.optim.Optimizer, save: Callable[[], None]) -> None:
    training, n = task.training, len(task.train)
    per_epoch, total, size = training.steps_per_epoch(n), task.total, training.batch_size
    constant = training.schedule == "constant"
    schedule = optimizers.SCHEDULES.call(training.schedule)
    rates = [group["lr"] for group in optimizer.param_groups]
    augmented, step_once = bool(task.train.augmentation), stepper(task, optimizer)
    saved = polled = time.monotonic()
    rows, view = torch.empty(0, dtype=torch.int64), 0
    running = -1
    while state.step < total and not state.stopped:
        epoch, position = divmod(state.step, per_epoch)
        if epoch != running:
            running, rows = epoch, epoch_rows(task.rows, n, task.seed, epoch)
            view = training.view(epoch, augmented=augmented)
            task.network.train()
        if not constant:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(state.step, total)
        step_once(rows[position * size : (position + 1) * size], view, state)
        state.step += 1
        ended = position + 1 == per_epoch or state.step == total
        if ended:
            _end_epoch(task, state, optimizer.param_groups[0]["lr"])
        now = time.monotonic()
        if now - polled >= _POLL_SECONDS or ended:
            polled = now
            if task.progress:
                task.progress(state.step, total)
            if task.should_stop and task.should_stop():
                save()
                raise Interrupted(f"Stopped at step {state.step} of {total}; everything so far is saved.")
        if task.folder and now - saved >= task.checkpoint_seconds * (0.25 if ended else 1.0):
            save()
            saved = time.monotonic()


def _end_epoch(task: Task, state: State, learning_rate: float) -> None:
    """A row of history; best weights; early stopping."""
    row: dict[str, float] = {"step": state.step, "learning_rate": learning_rate}
    row |= {f"train_{name}": total / state.rows for name, total in state.sums.items()}
    row["train_objective"] = sum(state.sums.values()) / state.rows
    state.sums, state.rows = {}, 0
    if task.validation:
        row |= task.validation.measure(task.network, task.engine)
        task.network.train()
    if not all(map(math.isfinite, row.values())):
        found = ", ".join(f"{name} = {value}" for name, value in row.items() if not math.isfinite(value))
        raise TrainingError(
            f"Not finite after step {state.step - 1}: {found}. Try a lower learning rate.", step=state.step - 1
        )
    state.history.append(row)
    _select(task, state, row)
    name = task.training.monitor
    value = row[name if name == "train_objective" else f"validation_{name}"]
    better = _sign(name, task) * value
    if state.monitored is None or better > state.monitored:
        state.monitored, state.stale = better, 0
    else:
        state.stale += 1
        state.stopped = bool(task.training.patience) and state.stale >= (task.training.patience or 0)


def _select(task: Task, state: State, row: Mapping[str, float]) -> None:
    name = task.training.select
    if name == "last":
        return
    value = _sign(name, task) * row[f"validation_{name}"]
    if state.best_value is None or value > state.best_value:
        state.best_value, state.best_step = value, state.step
        state.best = {key: tensor.detach().clone() for key, tensor in task.network.state_dict().items()}


def _sign(name: str, task: Task) -> float:
    """+1 if a higher value is better, -1 if a lower one is."""
    if name in ("objective", "train_objective"):
        return -1.0
    return 1.0 if metrics.get(name, classes=len(task.train.spec.classes)).better == "higher" else -1.0


def _keep_good(task: Task, state: State) -> None:
    """After a failure: the best weights so far go to `last-good`, if there are any."""
    if task.folder is None or state.best is None:
        return
    task.network.load_state_dict(state.best)
    Model(task.network, task.train.spec, None, {"failed_at_step": state.step}).save(task.folder / "last-good")


def _finish(task: Task, state: State, specification: Mapping[str, Any] | None) -> Model:
    if state.best is not None:
        task.network.load_state_dict(state.best)
    task.network.eval()
    task.network.zero_grad(set_to_none=True)
    info = {
        "seed": task.settings["seed"],
        "objective": task.settings["objective"],
        "steps": state.step,
        "best_step": state.best_step or state.step,
        "select": task.training.select,
        "monitor": task.training.monitor,
        "rows": len(task.rows),
        "stopped_early": state.stopped,
        "seconds": round(state.seconds, 3),
        "notes": list(state.notes),
        "engine": task.engine.describe(),
    }
    model = Model(task.network, task.train.spec, specification, info, tuple(state.history))
    if task.folder:
        storage.write_text(
            task.folder / "history.jsonl", "".join(storage.canonical(row) + "\n" for row in state.history)
        )
        model.save(task.folder)
        checkpoint.remove(task.folder / "checkpoint")
    return model
