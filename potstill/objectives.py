"""What a student learns: functions of (outputs, batch) that return named terms, one number per example.

    objective = hinton(temperature=4.0, alpha=0.1)
    objective(outputs, batch)  # {"hard": (B,), "soft": (B,)}

A factory's keyword-only arguments are its keys in a plan. The loop averages each term over the whole batch and adds
them. A row without a label gives 0 as its hard term, a row without a known teacher's answer 0 as its soft term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from potstill import losses
from potstill.errors import ObjectiveError
from potstill.registry import Registry, Spec
from potstill.types import Batch, ObjectiveFunction, Outputs, TeacherOutputs, Terms


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective with its name and settings. `needs_labels` and `needs_teacher` tell which rows it can learn from."""

    name: str
    settings: Mapping[str, Any]
    terms: ObjectiveFunction = field(repr=False)
    needs_labels: bool
    needs_teacher: bool

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Named terms, each (B,) float32 (float64 for float64 logits)."""
        return self.terms(outputs, batch)


def hard_labels() -> Objective:
    """Cross-entropy with the labels: plain training.

    `{"hard": CE(y, softmax z)}`; a binary task's one logit z counts as (0, z).
    """

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        return {"hard": _hard(outputs, batch, 1.0)}

    return Objective("hard_labels", {}, terms, needs_labels=True, needs_teacher=False)


def soft_labels() -> Objective:
    """KL(teacher || student) at temperature 1: the teacher's probabilities as labels (paper 1, eq. 14).

    The gradient is that of the cross-entropy; the value is 0 where the student equals the teacher.
    """

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        return {"soft": _soft(outputs, batch, 1.0, 1.0)}

    return Objective("soft_labels", {}, terms, needs_labels=False, needs_teacher=True)


def pseudo_labels() -> Objective:
    """Cross-entropy with the teacher's answer, its most probable class (paper 1, eq. 13; Lee 2013).

    Ties go to the lower class: in a binary task the answer is 1 for p > 0.5, strictly.
    """

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        teacher = _teacher(batch)
        answers = teacher.probs(1.0).argmax(1)
        logits = losses.class_logits(outputs.logits)
        where = _some(teacher.known)
        return {"hard": losses.cross_entropy(logits, answers, label_smoothing=batch.label_smoothing, where=where)}

    return Objective("pseudo_labels", {}, terms, needs_labels=False, needs_teacher=True)


def hinton(*, temperature: float = 4.0, alpha: float = 0.1) -> Objective:
    """alpha CE(y, student) + (1 - alpha) T^2 KL(teacher || student) at temperature T (Hinton, Vinyals and Dean 2015).

    `alpha` in [0, 1] weighs the HARD term (the opposite of `lam` in probabilistic distillation). alpha = 0: the labels
    are not used; with T = 1 that is `soft_labels`. alpha = 1: `hard_labels`. T -> infinity: the soft term tends to half
    the variance over classes of the difference of logits (`logit_mse` of centred logits, over 2). An ensemble's
    probabilities are softened member by member, then averaged (paper 3).
    """
    _check_alpha("hinton", alpha)
    if not (math.isfinite(temperature) and temperature > 0):
        raise ObjectiveError(f"hinton: temperature is {temperature}; wanted is a finite number above 0.")
    scale = (1.0 - alpha) * temperature**2

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        found = {}
        if alpha > 0:
            found["hard"] = _hard(outputs, batch, alpha)
        if alpha < 1:
            found["soft"] = _soft(outputs, batch, temperature, scale)
        return found

    settings = {"temperature": temperature, "alpha": alpha}
    return Objective("hinton", settings, terms, needs_labels=alpha > 0, needs_teacher=alpha < 1)


def logit_mse(*, alpha: float = 0.0) -> Objective:
    """alpha CE(y, student) + (1 - alpha) mean_k (z_k - v_k)^2, v the teacher's (mean) logits (Ba and Caruana 2014).

    `alpha` in [0, 1] weighs the HARD term. Not invariant to a constant added to a row of logits.
    """
    _check_alpha("logit_mse", alpha)

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        found = {}
        if alpha > 0:
            found["hard"] = _hard(outputs, batch, alpha)
        if alpha < 1:
            teacher = _teacher(batch)
            found["soft"] = losses.squared_error(
                outputs.logits, teacher.logits(), weight=1.0 - alpha, where=_some(teacher.known)
            )
        return found

    return Objective("logit_mse", {"alpha": alpha}, terms, needs_labels=alpha > 0, needs_teacher=alpha < 1)


def _hard(outputs: Outputs, batch: Batch, weight: float) -> Tensor:
    return losses.cross_entropy(
        losses.class_logits(outputs.logits),
        batch.labels,
        label_smoothing=batch.label_smoothing,
        weight=weight,
        where=_some(batch.labelled),
    )


def _soft(outputs: Outputs, batch: Batch, temperature: float, weight: float) -> Tensor:
    teacher = _teacher(batch)
    return losses.kl(
        losses.class_logits(outputs.logits),
        teacher.probs(temperature),
        teacher.neg_entropy(temperature),
        temperature=temperature,
        weight=weight,
        where=_some(teacher.known),
    )


def _teacher(batch: Batch) -> TeacherOutputs:
    if batch.teacher is None:
        raise ObjectiveError("This objective learns from a teacher, but the batch carries no teacher's answers.")
    return batch.teacher


def _some(mask: Tensor) -> Tensor | None:
    """The mask, or None where it hides nothing: the common case, and the faster one."""
    return None if bool(mask.all()) else mask


def _check_alpha(name: str, alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ObjectiveError(f"{name}: alpha is {alpha}; wanted is a number from 0 (teacher only) to 1 (labels only).")


REGISTRY = Registry(
    "objective",
    {
        "hard_labels": hard_labels,
        "soft_labels": soft_labels,
        "pseudo_labels": pseudo_labels,
        "hinton": hinton,
        "logit_mse": logit_mse,
    },
    ObjectiveError,
)

NOT_YET = dict.fromkeys(
    (
        "attention_transfer", "dist", "dkd", "gaussian", "generalised", "hints", "probabilistic",
        "probabilistic_regression", "relational", "similarity_preserving", "squared_error",
    ),
    "is not built yet",
)  # fmt: skip


def build(spec: Spec | Sequence[Spec]) -> Objective:
    """An objective from a specification; several are summed, their terms named after them where names clash."""
    if isinstance(spec, (str, Mapping)):
        found: Objective = REGISTRY.call(spec)
        return found
    parts = [build(one) for one in spec]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        raise ObjectiveError("An empty list of objectives was given; wanted is at least one.")

    def terms(outputs: Outputs, batch: Batch) -> Terms:
        found: Terms = {}
        for i, part in enumerate(parts):
            for name, term in part(outputs, batch).items():
                found[name if name not in found else f"{part.name}{i}_{name}"] = term
        return found

    return Objective(
        " + ".join(part.name for part in parts),
        {f"{i}_{part.name}": dict(part.settings) for i, part in enumerate(parts)},
        terms,
        needs_labels=any(part.needs_labels for part in parts),
        needs_teacher=any(part.needs_teacher for part in parts),
    )
