"""Units of a regression: the targets' own, in which everybody speaks, and a network's, in which it learns.

A network of scaled targets (`types.TargetScaling`) answers in standard deviations from the mean of its labelled
training rows. A model's answers, recorded answers, labels, predictions and metrics are in the targets' own units; a
training alone turns labels and teachers' values into those of its network. So a teacher may have been scaled otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from potstill.types import Batch, TargetScaling, TeacherOutputs

LOG_VARIANCE = 30.0
"""A network's log variance counts as this where it is larger, and as minus this where it is smaller: a standard
deviation of 3 million or of 0.3 millionths in units of the network. Beyond, float32 has no numbers left."""


def own(answers: Tensor, scaling: TargetScaling | None) -> Tensor:
    """A network's answers (..., D) to values (..., D) float32 in the targets' own units: answer * scale + offset.

    Of (..., 2 D), means and log variances, both. Without a scaling the units are the targets' own already.
    """
    answers = answers.float()
    if scaling is None:
        return answers
    scale, offset = _tensors(scaling, answers.device)
    targets = len(scaling.scale)
    values = answers[..., :targets] * scale + offset
    if answers.shape[-1] == targets:
        return values
    return torch.cat([values, answers[..., targets:] + 2.0 * scale.log()], -1)


def bounded(answers: Tensor, targets: int) -> Tensor:
    """A network's answers (B, 2 D) with log variances in +-`LOG_VARIANCE`; means, and answers (B, D), as they are."""
    if answers.shape[-1] == targets:
        return answers
    logs = answers[..., targets:].clamp(-LOG_VARIANCE, LOG_VARIANCE)
    return torch.cat([answers[..., :targets], logs], -1)


def learnt(values: Tensor, scaling: TargetScaling) -> Tensor:
    """Values (..., D) in the targets' own units to those (..., D) float32 that a network answers."""
    scale, offset = _tensors(scaling, values.device)
    return (values - offset) / scale


def learnt_batch(batch: Batch, scaling: TargetScaling | None) -> Batch:
    """The batch with labels and the teacher's values as a network answers them; the same one where nothing is scaled.

    Rows without label hold 0, the mean.
    """
    if scaling is None:
        return batch
    labels = torch.where(batch.labelled[:, None], learnt(batch.labels, scaling), 0.0)
    teacher = None if batch.teacher is None else _Learnt(batch.teacher, scaling)
    return replace(batch, labels=labels, teacher=teacher)


@final
class _Learnt:
    """A teacher's values as a network answers them. Satisfies `TeacherOutputs`."""

    __slots__ = ("_answers", "_scaling")

    def __init__(self, answers: TeacherOutputs, scaling: TargetScaling) -> None:
        self._answers = answers
        self._scaling = scaling

    @property
    def known(self) -> Tensor:
        return self._answers.known

    def values(self) -> Tensor:
        return torch.where(self.known[:, None], learnt(self._answers.values(), self._scaling), 0.0)

    def variance(self) -> Tensor | None:
        variance, known = self._answers.variance(), self.known[:, None]
        scale = _tensors(self._scaling, known.device)[0]
        return None if variance is None else torch.where(known, variance / scale.square(), 1.0)

    def probs(self, temperature: float = 1.0) -> Tensor:
        return self._answers.probs(temperature)

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        return self._answers.log_probs(temperature)

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        return self._answers.neg_entropy(temperature)

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        return self._answers.member_probs(temperature)

    def logits(self) -> Tensor:
        return self._answers.logits()

    def features(self) -> Mapping[str, Tensor]:
        return self._answers.features()


@lru_cache(maxsize=64)
def _tensors(scaling: TargetScaling, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # validation may ask first; training keeps them for the backward pass
        return torch.tensor(scaling.scale, device=device), torch.tensor(scaling.offset, device=device)
