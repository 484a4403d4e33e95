"""The loss of a step: means over the whole batch, and what the backward pass starts from.

Objectives that are tempered cross-entropies with fixed targets are computed in closed form from a table; all others
through autograd. Both give the same numbers up to rounding; a test compares them for every objective.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from potstill import units
from potstill.losses import TABLE_LIMIT, ClosedForm
from potstill.objectives import Objective
from potstill.outputs import Stored
from potstill.training.task import Task
from potstill.types import Batch, Outputs

Roots = tuple[dict[str, float], list[Tensor], list[Tensor | None]]


class Loss:
    """Called with the outputs for a batch; gives the terms' means, the tensors to go back from, and their gradients."""

    def __init__(self, task: Task) -> None:
        self.objective, self.answers, self.source = task.objective, task.answers, task.train
        self.smoothing = task.training.label_smoothing
        self.fixed = task.engine.device == "cpu" and self._can_be_fixed()
        self._move = task.engine.move
        plain = self.fixed and not task.engine.channels_last
        self._inputs = getattr(task.train, "inputs", None) if plain else None
        self._form: ClosedForm | None = None
        self._view: int | None = None

    def _can_be_fixed(self) -> bool:
        """Whether the targets are fixed, known beforehand, and small enough for a table."""
        if not isinstance(self.objective, Objective) or self.objective.targets is None:
            return False
        if self.objective.needs_teacher and not isinstance(self.answers, Stored):
            return False
        return ClosedForm.size(len(self.source), len(self.source.spec.classes), 2) <= TABLE_LIMIT

    def form(self, view: int) -> ClosedForm:
        """The table for a view: made once where the targets are labels alone, anew for each view of a teacher's."""
        if self._form is None or (view != self._view and self.objective.needs_teacher):  # type: ignore[attr-defined]
            index = torch.arange(len(self.source))
            told = self.answers.lookup(index, view) if self.answers is not None else None  # type: ignore[arg-type]
            labels, labelled = self.source.labels, self.source.labelled
            whole = Batch(torch.empty(0), labels, labelled, index, told, self.smoothing)
            targets = self.objective.targets(whole, len(self.source.spec.classes))  # type: ignore[attr-defined]
            self._form, self._view = ClosedForm.of(targets), view
        return self._form

    @property
    def terms(self) -> int:
        """How many terms a `fixed` loss has."""
        return self.form(1 if self.source.augmentation else 0).terms

    def take(self, index: Tensor, view: int) -> tuple[Batch | None, Tensor]:
        """The rows of a step and their inputs, on the device; inputs alone where the table holds the rest."""
        if self._inputs is not None:
            return None, self._inputs(index, view)
        batch = self.source.fetch(index, view)  # type: ignore[arg-type]
        if not self.fixed and (self.answers is not None or self.smoothing):
            told = self.answers.lookup(index, view) if self.answers is not None else None  # type: ignore[arg-type]
            batch = replace(batch, teacher=told, label_smoothing=self.smoothing)
        batch = self._move(units.learnt_batch(batch, self.source.spec.scaling))
        return batch, batch.inputs

    def __call__(self, outputs: Outputs, batch: Batch | None, index: Tensor, view: int) -> Roots:
        """`batch` may be None where the loss is `fixed`: the table holds what it needs."""
        if self.fixed or batch is None:
            logits = outputs.logits
            (means,), gradient = self.form(view)(logits.detach().t().unsqueeze(0), index)
            return means, [logits], [gradient[0].t()]
        terms = self.objective(outputs, batch)
        roots: list[Tensor] = [term.mean() for term in terms.values()]
        values = {name: root.item() for name, root in zip(terms, roots, strict=True)}
        return values, roots, [None] * len(roots)
