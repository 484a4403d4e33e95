"""One look at the validation data: the model's own objective and metrics, at an epoch's end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from potstill import metrics, networks, units
from potstill.engine import Engine, at_once
from potstill.errors import SettingError
from potstill.losses import class_logits
from potstill.training.hidden import hidden
from potstill.training.order import rows_for
from potstill.types import Answers, Batch, ObjectiveFunction, Source

_KEPT_BYTES = 64 << 20
_MOST = 1024


@dataclass(frozen=True)
class Validation:
    """Validation data, ready to be asked again and again.

    `objective` is None where it cannot be had there: it needs a teacher whose answers for these rows are not given.
    `usable` (n,) bool: the rows that it learns something from, by the rule of the training rows. `most` rows are asked
    for at once.
    """

    source: Source
    answers: Answers | None
    objective: ObjectiveFunction | None
    metrics: Sequence[metrics.Metric]
    usable: Tensor
    kept: tuple[Batch, ...] | None
    label_smoothing: float = 0.0
    most: int = _MOST

    @property
    def batch_size(self) -> int:
        """How many rows are asked for at once."""
        return min(at_once(self.source.spec.shape, _MOST), self.most)

    @staticmethod
    def of(
        source: Source | None,
        answers: Answers | None,
        objective: ObjectiveFunction,
        *,
        names: Sequence[str],
        label_smoothing: float,
        batch_size: int = _MOST,
    ) -> Validation | None:
        """None where there are no validation rows. Small data is fetched once and kept, but no hidden features.

        An objective that couples the examples of a batch sees batches of `batch_size`, as in training.
        """
        can = answers is not None or not getattr(objective, "needs_teacher", False)
        if source is None or len(source) == 0:
            return None
        chosen = [metrics.fitting(name, source.spec) for name in dict.fromkeys(names)]
        for metric in chosen:
            if metric.needs_teacher:
                raise SettingError(f'"{metric.name}" needs a teacher and cannot be watched during training.')
        rows = rows_for(objective, source, answers)
        usable = torch.zeros(len(source), dtype=torch.bool)
        usable[rows] = True
        measured = objective if can and len(rows) else None
        most = batch_size if getattr(objective, "couples", False) else _MOST
        plain = Validation(source, answers, measured, chosen, usable, None, label_smoothing, most)
        small = 4 * len(source) * int(np.prod(source.spec.shape)) <= _KEPT_BYTES
        return replace(plain, kept=tuple(plain.fetch())) if small and not hidden(objective).teacher else plain

    def fetch(self) -> list[Batch]:
        """All batches (view 0), with the teacher's answers."""
        return [self._batch(start) for start in range(0, len(self.source), self.batch_size)]

    def _batch(self, start: int) -> Batch:
        index = torch.arange(start, min(start + self.batch_size, len(self.source)))
        plain = self.source.fetch(index, 0)  # type: ignore[arg-type]
        told = None if self.answers is None else self.answers.lookup(index, 0)  # type: ignore[arg-type]
        batch = replace(plain, teacher=told, label_smoothing=self.label_smoothing)
        return units.learnt_batch(batch, self.source.spec.scaling)

    def measure(self, network: nn.Module, engine: Engine) -> dict[str, float]:
        """`validation_objective`: the sum of terms, a mean over the usable rows, as in training, so that both can be
        compared; `validation_<metric>`: over labelled rows.

        A network whose logits are not finite gets `validation_logits` NaN instead.
        """
        network.eval()
        total, logits = 0.0, []
        usable = None if bool(self.usable.all()) else self.usable
        starts = range(0, len(self.source), self.batch_size)
        names = () if self.objective is None else hidden(self.objective).student
        with torch.inference_mode():
            for batch in self.kept or map(self._batch, starts):
                moved = engine.move(batch)
                with engine.autocast():
                    outputs = networks.forward(network, moved.inputs, names)
                if self.objective is not None:
                    terms = self.objective(outputs, moved)
                    told = None if usable is None else usable.index_select(0, batch.index)
                    total += sum(_total(term, told) for term in terms.values())
                logits.append(outputs.logits.float().cpu())
        found = {} if self.objective is None else {"validation_objective": total / int(self.usable.sum())}
        whole = torch.cat(logits)
        if not bool(whole.isfinite().all()):
            return {"validation_logits": math.nan}  # the loop stops the training
        labelled = self.source.labelled
        if bool(labelled.any()):
            chosen = self._predictions(whole[labelled])
            labels = self.source.labels[labelled].numpy()
            for metric in self.metrics:
                with np.errstate(all="ignore"):
                    found[f"validation_{metric.name}"] = metric.value(chosen, labels)
        return found

    def _predictions(self, answers: Tensor) -> NDArray[np.float64]:
        """What metrics read, of a network's answers (n, K) or (n, D)."""
        spec = self.source.spec
        if spec.task != "regression":
            return class_logits(answers).double().log_softmax(-1).numpy()
        return units.own(units.bounded(answers, spec.outputs), spec.scaling).double().numpy()


def _total(term: Tensor, rows: Tensor | None) -> float:
    term = term.double()
    return float(term.sum() if rows is None else term[rows.to(term.device)].sum())
