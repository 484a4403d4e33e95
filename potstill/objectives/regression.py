"""Objectives of a regression, whose students answer values.

Everything an objective sees is in the units in which networks answer: standard deviations from a mean of the labelled
training rows, unless the targets are taken as they are (`potstill.units`). So are sigmas: 0.1 is a tenth of a target's
standard deviation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, final

import torch
from torch import Tensor, nn

from potstill import losses, units
from potstill.errors import ObjectiveError
from potstill.losses import terms
from potstill.objectives.objective import Learns, Objective, fraction
from potstill.types import Batch, Outputs, TeacherOutputs

LEARNED, NETWORK, TEACHER = "learned", "network", "teacher"


def squared_error() -> Objective:
    """Regression on the labels: ordinary training of values, the baseline of a regression. It has no dials.

    hard = mean_d (z[d] - y[d])^2 over the D targets, z the student's values; in standard deviations (unless targets are
    taken as they are), so that targets count alike. Up to a constant it is the negative log-likelihood of normal errors
    of standard deviation sqrt(D/2).
    """
    told = terms.squared_error_with_labels
    return Objective("squared_error", {}, told, needs_labels=True, needs_teacher=False, learns="values")


def gaussian(*, sigma: float | Literal["learned", "network"] = "network") -> Objective:
    """Negative log-likelihood of the labels, with normal errors; in nats, constant and all.

    hard = sum_d [ (y[d] - m[d])^2 / (2 sigma[d]^2) + log sigma[d] + log(2 pi)/2 ] over the D targets, m the student's
    means. `sigma`, in units of the network: `"network"`, the network answers the logarithm of sigma^2 for every example
    and target, after the means (2 D numbers; the model's kind is gaussian); `"learned"`, one for each target, learnt
    beside the network from sigma = 1 on; or a number, the same for all, with which only means are learnt:
    sigma = sqrt(1/2) has the gradients of D times `squared_error`. sigma -> infinity: nothing is learnt.

    Reference: Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution".
    """
    told = _sigma("sigma", "gaussian", sigma, (LEARNED, NETWORK))
    return Objective(
        "gaussian",
        {"sigma": told},
        partial(_gaussian, sigma=told),
        needs_labels=True,
        needs_teacher=False,
        learns=_learns(told),
        owns=_Sigmas.of(sigma=told),
    )


def probabilistic_regression(
    *,
    lam: float = 0.5,
    sigma: float | Literal["learned", "network"] = 1.0,
    teacher_sigma: float | Literal["learned", "teacher"] = 1.0,
) -> Objective:
    """Labels y and a teacher's values s as two measurements of what the student answers, with normal errors.

    hard = (1 - lam) E(y, sigma) where the teacher's answer is known, E(y, sigma) where it is not;
    soft = lam E(s, teacher_sigma) where it is known, with E(t, sigma) = sum_d [ (t[d] - z[d])^2 / (2 sigma[d]^2) + log
    sigma[d] ]; log sigma only where sigma is learnt. That is the negative log-likelihood with the labels' part to the
    power of 1 - lam, the teacher's to the power of lam, without constants.

    `lam` weights the TEACHER's term (alpha of Hinton's objective weights the labels' term). lam = 0: the labels alone,
    `gaussian` without its constants; lam = 1: where the teacher's answer is known, it alone; labels elsewhere.
    `sigma` and `teacher_sigma`, in units of the network, say how far labels and teacher are from what is to be learnt:
    a number; `"learned"`, one for each target, from 1 on; `sigma = "network"`, the network answers it for every example
    (as in `gaussian`); `teacher_sigma = "teacher"`, the teacher does: a teacher of the kind gaussian, or an ensemble,
    whose members' spread counts. Of numbers only the ratio matters to what is learnt. teacher_sigma -> infinity or
    sigma -> 0: the teacher counts for nothing; the other way round, the labels.

    A linear student learns a weighted least squares: `equivalent_wls`. An ensemble teaches the mean of its members.

    Reference: paper 2 (probabilistic distillation), regression. The paper prints sigma^2 where 1/sigma^2 belongs.
    """
    lam = fraction("lam", "probabilistic_regression", lam)
    own = _sigma("sigma", "probabilistic_regression", sigma, (LEARNED, NETWORK))
    told = _sigma("teacher_sigma", "probabilistic_regression", teacher_sigma, (LEARNED, TEACHER))
    return Objective(
        "probabilistic_regression",
        {"lam": lam, "sigma": own, "teacher_sigma": told},
        partial(_probabilistic, lam=lam, sigma=own, teacher_sigma=told),
        needs_labels=True,
        needs_teacher=lam > 0,
        learns=_learns(own),
        owns=_Sigmas.of(sigma=own, teacher_sigma=told if lam > 0 else 1.0),
    )


@final
class _Sigmas(nn.Module):
    """Logarithms of learnt sigmas, (D,) each, from 0 on."""

    def __init__(self, names: tuple[str, ...], targets: int) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(f"log_{name}", nn.Parameter(torch.zeros(targets)))

    @staticmethod
    def of(**sigmas: float | str) -> partial[_Sigmas] | None:
        """What makes the parameters of those that are learnt; None where none is."""
        names = tuple(name for name, sigma in sigmas.items() if sigma == LEARNED)
        return partial(_sigmas, names=names) if names else None


def _sigmas(outputs: Outputs, batch: Batch, *, names: tuple[str, ...]) -> _Sigmas:  # noqa: ARG001 - signature of owns
    return _Sigmas(names, batch.labels.shape[1])


def _gaussian(
    outputs: Outputs, batch: Batch, owned: nn.Module | None = None, *, sigma: float | str
) -> dict[str, Tensor]:
    means, log_sigma = _student(outputs, batch, owned, sigma)
    mask = terms.unless_all(batch.labelled)
    return {"hard": losses.negative_log_likelihood(means, batch.labels, log_sigma, where=mask)}


def _probabilistic(
    outputs: Outputs,
    batch: Batch,
    owned: nn.Module | None = None,
    *,
    lam: float,
    sigma: float | str,
    teacher_sigma: float | str,
) -> dict[str, Tensor]:
    means, log_sigma = _student(outputs, batch, owned, sigma)
    labels = losses.scaled_error(
        means, batch.labels, log_sigma, kept=isinstance(sigma, str), where=terms.unless_all(batch.labelled)
    )
    if lam == 0:
        return {"hard": labels}
    teacher = terms.teacher_of(batch, "probabilistic_regression")
    imitation = losses.scaled_error(
        means,
        teacher.values(),
        _teachers(teacher, means, owned, teacher_sigma),
        kept=teacher_sigma == LEARNED,
        where=terms.unless_all(teacher.known),
    )
    weights = torch.where(teacher.known, labels.new_full((), 1.0 - lam), 1.0)
    return {"hard": labels * weights, "soft": lam * imitation}


def _student(outputs: Outputs, batch: Batch, owned: nn.Module | None, sigma: float | str) -> tuple[Tensor, Tensor]:
    """The student's means (B, D), and log sigma: (B, D), (D,) or ()."""
    answers = outputs.logits.float() if outputs.logits.dtype in (torch.float16, torch.bfloat16) else outputs.logits
    if sigma != NETWORK:
        return answers, _log(sigma, "log_sigma", owned, answers)
    targets = batch.labels.shape[1]
    if answers.shape[1] != 2 * targets:
        raise ObjectiveError(
            f"The student answers {answers.shape[1]} numbers for {targets} targets; wanted are means and log "
            f"variances, {2 * targets}."
        )
    bounded = units.bounded(answers, targets)
    return bounded[:, :targets], 0.5 * bounded[:, targets:]


def _teachers(teacher: TeacherOutputs, means: Tensor, owned: nn.Module | None, sigma: float | str) -> Tensor:
    if sigma != TEACHER:
        return _log(sigma, "log_teacher_sigma", owned, means)
    variance = teacher.variance()
    if variance is None:
        raise ObjectiveError(
            'teacher_sigma = "teacher" wants a teacher that tells variances, and a single one of plain values has '
            "none. Take one of the kind gaussian, an ensemble, or a number."
        )
    least = torch.finfo(torch.float32).tiny
    return 0.5 * torch.where(teacher.known[:, None], variance, 1.0).clamp_min(least).log()


def _log(sigma: float | str, name: str, owned: nn.Module | None, like: Tensor) -> Tensor:
    if isinstance(sigma, str):
        found: Tensor = getattr(owned, name)
        return found
    return torch.full((), math.log(sigma), dtype=like.dtype, device=like.device)


def _learns(sigma: float | str) -> Learns:
    return "gaussian" if sigma == NETWORK else "values"


def _sigma(word: str, name: str, value: float | str, words: tuple[str, ...]) -> float | str:
    if isinstance(value, str):
        if value in words:
            return value
    elif not isinstance(value, bool) and value > 0 and math.isfinite(value):
        return float(value)
    listed = " or ".join(f'"{one}"' for one in words)
    raise ObjectiveError(f'{word} of "{name}" must be a finite number > 0, or {listed}; found {value!r}.')
