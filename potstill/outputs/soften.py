"""From what a teacher answered to softened probabilities: the only place where conversions happen.

Answers are (B, members, outputs). They become class logits (B, members, K) in float64; softening and averaging follow,
in float64 too, rounded once to float32. Probabilities become their logarithms, which are logits up to a constant per
row; zeros are clipped at the smallest normal float32 (1.2e-38) first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, final

import torch
from torch import Tensor

from potstill.errors import SettingError, TeacherError
from potstill.types import Kind

_TINY = torch.finfo(torch.float32).tiny
OF_VALUES: Final = ("values", "gaussian")  # kinds of a regression


def class_logits(answers: Tensor, kind: Kind) -> Tensor:
    """(B, members, outputs) to class logits (B, members, K) float64; a regression's answers stay as they are.

    One output is a binary task: a logit z gives [0, z], a probability p gives [log(1-p), log p].
    """
    wide = answers.double()
    if kind in OF_VALUES:
        return wide
    if kind == "probabilities":
        if wide.shape[-1] == 1:
            wide = torch.cat([1.0 - wide, wide], dim=-1)
        return wide.clamp_min(_TINY).log()
    if wide.shape[-1] == 1:
        return torch.cat([torch.zeros_like(wide), wide], dim=-1)
    return wide


def to_top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits (B, members, K) to the k largest log-probabilities at T = 1, their classes, the log of the rest.

    Returns (B, members, k) float64, (B, members, k) int32 and (B, members) float64, the log of the mass of all other
    classes (-inf if there is none). Exact for k >= K - 1.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    top, classes = log_probs.topk(k, dim=-1)
    rest = log_probs.scatter(-1, classes, -math.inf).logsumexp(dim=-1)
    return top, classes.int(), rest


def from_top_k(top: Tensor, classes: Tensor, rest: Tensor, *, number: int) -> Tensor:
    """The inverse of `to_top_k` with `number` classes K: (B, members, K) float64.

    The residual mass is spread uniformly over the classes that were not kept, before any tempering.
    """
    others = max(1, number - top.shape[-1])
    dense = (rest.double() - math.log(others)).unsqueeze(-1).expand(*top.shape[:-1], number).contiguous()
    return dense.scatter_(-1, classes.long(), top.double())


def check_temperature(temperature: float) -> None:
    """Raises `SettingError` unless the temperature is a positive, finite number."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise SettingError(f"The temperature is {temperature}; it must be a positive, finite number.")


def member_log_probs(logits: Tensor, temperature: float) -> Tensor:
    """Class logits (B, members, K) to log of softmax(logits / T), of the same shape, float64."""
    check_temperature(temperature)
    return torch.log_softmax(logits / temperature, dim=-1)


def mean_log_probs(logits: Tensor, temperature: float) -> Tensor:
    """Class logits (B, members, K) to (B, K) float64: log of the MEAN over members of softmax(logits / T).

    Not the softmax of the mean: the two agree at T -> infinity and for one member only.
    """
    each = member_log_probs(logits, temperature)
    if each.shape[1] == 1:
        return each[:, 0]
    return each.logsumexp(dim=1) - math.log(each.shape[1])


def mean_logits(logits: Tensor, outputs: int) -> Tensor:
    """Class logits (B, members, K) to the mean over members, (B, outputs) float64; outputs = 1 gives the one logit."""
    mean = logits.mean(dim=1)
    return mean[:, 1:] - mean[:, :1] if outputs == 1 and mean.shape[-1] == 2 else mean


def refuse_values(kind: Kind) -> None:
    """Raises `TeacherError` for a teacher of values, which has no probabilities."""
    if kind in OF_VALUES:
        raise TeacherError(
            f"The teacher's answers are {kind} (a regression), which have no probabilities. "
            "Use an objective of values, or declare the teacher's kind as logits or probabilities."
        )


def refuse_classes(kind: Kind) -> None:
    """Raises `TeacherError` for a teacher of classes, which has no values."""
    if kind not in OF_VALUES:
        raise TeacherError(
            f"The teacher's answers are {kind} of classes; a regression wants values. Use a teacher of the same "
            'targets, or declare its kind: kind = "values".'
        )


def number(outputs: int, kind: Kind) -> int:
    """Number of classes K that so many outputs answer for, or of targets D."""
    if kind in OF_VALUES:
        return outputs if kind == "values" else outputs // 2
    return 2 if outputs == 1 else outputs


def mean_and_variance(answers: Tensor, kind: Kind) -> tuple[Tensor, Tensor | None]:
    """Answers (B, members, D) or (B, members, 2 D) to the mean and the variance of their mixture, (B, D) each.

    The variance is the mean of the members' variances and the variance of their means; None where a single member tells
    values alone.
    """
    targets = number(answers.shape[-1], kind)
    means = answers[..., :targets]
    mean = means.mean(dim=1)
    if kind == "values" and means.shape[1] == 1:
        return mean, None
    spread = (means - mean[:, None]).square().mean(dim=1)
    return mean, spread if kind == "values" else spread + answers[..., targets:].exp().mean(dim=1)


@final
class Softened:
    """Answers for one batch, softened on demand. Satisfies `TeacherOutputs`."""

    __slots__ = ("_kind", "_known", "_log_probs", "_logits", "_outputs", "_temperature")

    def __init__(self, logits: Tensor, known: Tensor, *, kind: Kind, outputs: int) -> None:
        self._logits = logits
        self._known = known
        self._kind: Kind = kind
        self._outputs = outputs
        self._temperature = math.nan
        self._log_probs = logits

    @property
    def known(self) -> Tensor:
        """(B,) bool."""
        return self._known

    def _soft(self, temperature: float) -> Tensor:
        # An objective asks for probabilities and their entropy at one temperature: one softening serves both.
        if temperature != self._temperature:
            refuse_values(self._kind)
            log_probs = mean_log_probs(self._logits, temperature)
            self._log_probs = torch.where(self._known[:, None], log_probs, -math.log(log_probs.shape[-1]))
            self._temperature = temperature
        return self._log_probs

    def probs(self, temperature: float = 1.0) -> Tensor:
        """(B, K) float32."""
        return self._soft(temperature).exp().float()

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """(B, K) float32."""
        return self._soft(temperature).float()

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        """(B,) float32."""
        log_probs = self._soft(temperature)
        return (log_probs.exp() * log_probs).sum(dim=-1).float()

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        """(B, members, K) float32."""
        refuse_values(self._kind)
        probs = member_log_probs(self._logits, temperature).exp()
        return torch.where(self._known[:, None, None], probs, 1.0 / probs.shape[-1]).float()

    def logits(self) -> Tensor:
        """(B, K) or (B, 1) float32."""
        mean = mean_logits(self._logits, self._outputs)
        return torch.where(self._known[:, None], mean, 0.0).float()

    def values(self) -> Tensor:
        """(B, D) float32."""
        refuse_classes(self._kind)
        return torch.where(self._known[:, None], mean_and_variance(self._logits, self._kind)[0], 0.0).float()

    def variance(self) -> Tensor | None:
        """(B, D) float32, or None."""
        refuse_classes(self._kind)
        variance = mean_and_variance(self._logits, self._kind)[1]
        return None if variance is None else torch.where(self._known[:, None], variance, 1.0).float()

    def features(self) -> Mapping[str, Tensor]:
        """Empty."""
        return {}
