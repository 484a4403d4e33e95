"""One training from its first step to its last: epochs, validation, early stopping, checkpoints.

A `Run` says which rows it wants next and is told what came of them; who computes the step, for it alone or for several
at once, is another matter (`training.together`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from potstill import metrics, storage
from potstill.errors import Interrupted, TrainingError
from potstill.networks.model import Model
from potstill.networks.stack import aligned
from potstill.networks.variational import Variational
from potstill.training import checkpoint, optimizers
from potstill.training.checkpoint import State
from potstill.training.loss import Loss
from potstill.training.order import epoch_rows
from potstill.training.step import Learner
from potstill.training.task import Task

_POLL_SECONDS = 0.25
_TOLD = 64  # numbers of a parameter of an objective, at most, that a model's info holds


class Run:
    """A training, fresh or continued from the checkpoint in its task's folder."""

    def __init__(self, task: Task) -> None:
        task.network.train()
        network = task.engine.place(task.network)
        owned = task.owned
        if owned is not None:
            owned.to(task.engine.device)
        self.optimizer = optimizers.REGISTRY.call(task.training.optimizer, task.parameters())
        self.task, self.state = task, State()
        self.learner = Learner(task, Loss(task), self.optimizer)
        self._kept = task.folder / "checkpoint" if task.folder else None
        if self._kept is not None:
            found = checkpoint.load(self._kept, settings=task.settings, engine=task.engine.describe())
            if found:
                self.state = found.state
                network.load_state_dict(found.model)
                if owned is not None:
                    owned.load_state_dict(found.objective)
                optimizers.load_state(self.optimizer, found.optimizer)
        self._per_epoch, self._total = task.training.steps_per_epoch(len(task.train)), task.total
        self._schedule = optimizers.SCHEDULES.call(task.training.schedule)
        self._constant = task.training.schedule == "constant"
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._running, self._batches, self._view = -1, tuple[Tensor, ...](), 0
        self._saved = self._polled = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether there are no more steps to take."""
        return self.state.step >= self._total or self.state.stopped

    def batch(self) -> tuple[Tensor, int]:
        """The rows of the next step, and the view in which they are seen."""
        epoch, position = divmod(self.state.step, self._per_epoch)
        if epoch != self._running:
            task = self.task
            rows = epoch_rows(task.rows, len(task.train), task.seed, epoch)
            self._running, self._batches = epoch, torch.split(rows, task.training.batch(len(task.train)))
            self._view = task.training.view(epoch, augmented=bool(task.train.augmentation))
        return self._batches[position], self._view

    def prepare(self) -> None:
        """Before the next step: its learning rate; at an epoch's beginning the network is set to train."""
        if self.state.step % self._per_epoch == 0:
            self.task.network.train()
        if not self._constant:
            factor = self._schedule(self.state.step, self._total)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor

    def advance(self, values: Mapping[str, float], rows: int, seconds: float) -> None:
        """A step of so many rows was taken in so many seconds: note its terms, and do what is due after it.

        Raises `TrainingError` where an epoch's numbers are not finite, `Interrupted` after saving where somebody asks.
        """
        began = time.monotonic()
        state = self.state
        state.rows += rows
        state.seconds += seconds
        sums = state.sums
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * rows
        state.step += 1
        ended = state.step % self._per_epoch == 0 or state.step == self._total
        if ended:
            self._end_epoch()
        due = self.task.every is not None and state.step % self.task.every == 0
        if due:
            self._look(state.history[-1] if ended else None)
        if ended or due:
            state.seconds += time.monotonic() - began
        if ended or began - self._polled >= _POLL_SECONDS:
            self._polled, task = began, self.task
            if task.progress:
                task.progress(state.step, self._total)
            if task.should_stop and task.should_stop():
                self._save()
                raise Interrupted(f"Stopped at step {state.step} of {self._total}; everything so far is saved.")
        if self._kept and began - self._saved >= self.task.checkpoint_seconds * (0.25 if ended else 1.0):
            self._save()

    def _save(self) -> None:
        if self._kept is not None:
            tensors, moments = self.task.network.state_dict(), optimizers.state_tensors(self.optimizer)
            owned = None if self.task.owned is None else self.task.owned.state_dict()
            where = {"settings": self.task.settings, "engine": self.task.engine.describe()}
            checkpoint.save(self._kept, self.state, tensors, moments, objective=owned, **where)
            self._saved = time.monotonic()

    def _end_epoch(self) -> None:
        """A row of history; best weights; early stopping."""
        task, state = self.task, self.state
        row: dict[str, float] = {"step": state.step, "learning_rate": optimizers.rate(self.optimizer)}
        row |= {f"train_{name}": total / state.rows for name, total in state.sums.items()}
        row["train_objective"] = sum(state.sums.values()) / state.rows
        state.sums, state.rows = {}, 0
        if task.validation:
            row |= task.validation.measure(aligned(task.network), task.engine)
            task.network.train()
        self._refuse_infinite(row)
        state.history.append(row)
        self._select(row)
        name = task.training.monitor
        value = row[name if name == "train_objective" else f"validation_{name}"]
        better = _sign(name, task) * value
        if state.monitored is None or better > state.monitored:
            state.monitored, state.stale = better, 0
        else:
            state.stale += 1
            state.stopped = bool(task.training.patience) and state.stale >= (task.training.patience or 0)

    def _look(self, row: Mapping[str, float] | None) -> None:
        """A point of the curve on validation data; `row` holds it where an epoch has just ended."""
        task, state = self.task, self.state
        if row is None and task.validation is not None:
            row = task.validation.measure(aligned(task.network), task.engine)
            task.network.train()
        found = {name: value for name, value in (row or {}).items() if name.startswith("validation_")}
        self._refuse_infinite(found)
        state.curve.append({"step": state.step, **found})

    def _refuse_infinite(self, row: Mapping[str, float]) -> None:
        step = self.state.step - 1
        found = ", ".join(f"{name} = {value}" for name, value in row.items() if not math.isfinite(value))
        if found:
            raise TrainingError(f"Not finite after step {step}: {found}. Try a lower learning rate.", step=step)

    def _select(self, row: Mapping[str, float]) -> None:
        name, state = self.task.training.select, self.state
        if name == "last":
            return
        value = _sign(name, self.task) * row[f"validation_{name}"]
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_step = value, state.step
            state.best = {key: tensor.detach().clone() for key, tensor in self.task.network.state_dict().items()}

    def keep_good(self) -> None:
        """After a failure: the best weights so far go to `last-good`, if there are any."""
        task, state = self.task, self.state
        if task.folder is None or state.best is None:
            return
        task.network.load_state_dict(state.best)
        info, variances = {"failed_at_step": state.step}, task.variances
        model = Model(task.network, task.train.spec, None, info, variances=variances, inference=self._rebuild())
        model.save(task.folder / "last-good")

    def finish(self) -> Model:
        """The trained model, saved where its task has a folder."""
        task, state = self.task, self.state
        if state.best is not None:
            task.network.load_state_dict(state.best)
        task.network.eval()
        task.network.zero_grad(set_to_none=True)
        if task.engine.channels_last:  # so that it answers with the bits that it will have when it is loaded
            task.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
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
            "weights": task.start and {"sha256": task.start.sha256, "new": list(task.start.new)},
            "engine": task.engine.describe(),
            **({"reduced": task.reduced} if task.reduced else {}),
        }
        if task.owned is not None:
            learnt = {name: p.tolist() for name, p in task.owned.named_parameters() if p.numel() <= _TOLD}
            info["objective"] = {**info["objective"], "learnt": learnt}
        history, variances, curve = tuple(state.history), task.variances, tuple(state.curve)
        rebuild = self._rebuild()
        model = Model(task.network, task.train.spec, task.specification, info, history, variances, rebuild, curve)
        if task.folder:
            if task.inference is not None:
                task.inference.posterior(task.network, task.train).save(task.folder)
            lines = "".join(storage.canonical(row) + "\n" for row in state.history)
            storage.write_text(task.folder / "history.jsonl", lines)
            if task.every is not None:
                lines = "".join(storage.canonical(row) + "\n" for row in curve)
                storage.write_text(task.folder / "curve.jsonl", lines)
            model.save(task.folder)
            checkpoint.remove(task.folder / "checkpoint")
        return model

    def _rebuild(self) -> dict[str, Any] | None:
        """What a variational model's file has to say; its network learns of the noise around its answers."""
        task = self.task
        if task.rebuild is None or not isinstance(task.network, Variational):
            return None
        task.network.noise_variance = _noise(task)
        noise = {} if task.network.noise_variance is None else {"noise_variance": list(task.network.noise_variance)}
        return {**task.rebuild, **noise}


def _noise(task: Task) -> list[float] | None:
    """Of a regression whose objective has one sigma per target, its square; None for others."""
    settings: Mapping[str, Any] = getattr(task.objective, "settings", {})
    sigma = settings.get("sigma")
    if isinstance(sigma, float):
        return [sigma**2] * task.train.spec.outputs
    if sigma != "learned" or task.owned is None:
        return None
    return [math.exp(2 * x) for x in task.owned.get_parameter("log_sigma").tolist()]


def _sign(name: str, task: Task) -> float:
    """+1 if a higher value is better, -1 if a lower one is."""
    if name in ("objective", "train_objective"):
        return -1.0
    return 1.0 if metrics.fitting(name, task.train.spec).better == "higher" else -1.0
