"""Terms of a batch: losses with the batch's labels and teacher, masked where there are none."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.errors import ObjectiveError
from potstill.losses.classification import cross_entropy, kl
from potstill.types import Batch, TeacherOutputs


def hard(logits: Tensor, batch: Batch, weight: float) -> Tensor:
    """(B,) cross-entropy of class logits (B, K) with the batch's labels; 0 where there is none."""
    return cross_entropy(
        logits,
        batch.labels,
        label_smoothing=batch.label_smoothing,
        weight=weight,
        where=unless_all(batch.labelled),
    )


def soft(logits: Tensor, batch: Batch, name: str, temperature: float, weight: float) -> Tensor:
    """(B,) KL(teacher || student) at a temperature; 0 where the teacher's answer is not known."""
    teacher = teacher_of(batch, name)
    return kl(
        logits,
        teacher.probs(temperature),
        teacher.neg_entropy(temperature),
        temperature=temperature,
        weight=weight,
        where=unless_all(teacher.known),
    )


def teacher_of(batch: Batch, name: str) -> TeacherOutputs:
    """The batch's teacher; an `ObjectiveError` that names the objective where there is none."""
    if batch.teacher is None:
        raise ObjectiveError(
            f'The objective "{name}" learns from a teacher; the batch carries no teacher\'s answers. '
            'Give the model a teacher, or the objective "hard_labels".'
        )
    return batch.teacher


def unless_all(mask: Tensor) -> Tensor | None:
    """The mask, or None where it hides nothing."""
    # On an accelerator asking would make the host wait for the device, which costs more than a mask that hides nothing.
    return None if not mask.is_cuda and bool(torch.all(mask)) else mask
