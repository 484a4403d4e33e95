"""Objectives of paper 2 for classifiers: the probabilistic one, and generalised distillation.

In both `lam` weighs the TEACHER's term, the opposite of `alpha` in `hinton`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from potstill import losses
from potstill.errors import ObjectiveError, unknown
from potstill.losses import terms
from potstill.objectives.classification import targets_of
from potstill.objectives.objective import Objective, fraction, positive
from potstill.types import Batch

Normalizer: TypeAlias = Literal["none", "paper", "exact"]
Reduction: TypeAlias = Literal["batch", "paper_code"]

_NORMALIZERS: Mapping[str, Callable[..., Tensor] | None] = {
    "none": None,
    "paper": losses.printed_normalizer,
    "exact": losses.simplex_normalizer,
}
_REDUCTIONS = ("batch", "paper_code")


def probabilistic(
    *,
    lam: float = 0.5,
    temperature: float = 1.0,
    normalizer: Normalizer = "none",
    normalizer_weight: float = 1.0,
    reduction: Reduction = "batch",
    t2_scale: bool = False,
) -> Objective:
    """Labels and the teacher's answers in one likelihood, also where only some of the answers are known.

    Where the teacher's answer is not known: hard = CE(label, softmax(z)), with weight 1. Where it is:
    hard = (1 - lam) CE(label, softmax(z)),  soft = lam KL(p_T || softmax(z / T)),
    normalizer = -lam `normalizer_weight` log C(softmax(z / T)).

    The paper has the cross-entropy -sum p log q in the place of the KL: the entropy of p_T more, which the student
    cannot change, so the gradient is the same. soft is 0 where student = teacher. So is the minimum of the teacher's
    terms with `normalizer = "none"` alone. With `"paper"` they pull every class to 1/e: a regulariser like an entropy,
    not a density (what the theorem prints does not integrate to 1; a constant of K is left out). With `"exact"` p_T has
    a density, the continuous categorical, whose MEAN is p_T at the minimum: students become much surer than their
    teacher. `docs/objectives.md` has the proof's errors and a table of the optima.

    `lam` weights the TEACHER's term (alpha of `hinton` weights the labels'). lam = 0: `hard_labels`, whoever is known;
    lam = 1: no labels where the teacher is known, labels alone elsewhere. `temperature` > 0 as in `hinton`.
    `normalizer_weight` >= 0 multiplies the extra term only; 0 is `"none"`. `t2_scale` multiplies the teacher's terms by
    T^2. `reduction = "paper_code"` divides them by the number of classes K, as the authors' code does by averaging over
    batch and classes. With lam = 1/2, `"none"` and everything known it is half of `hinton` with unit weights. `"exact"`
    takes up to 128 classes (`ObjectiveError`), and time like K^3.

    Reference: paper 2 (Grabovoy and Strijov 2022, "Probabilistic interpretation of the distillation problem").
    """
    name = "probabilistic"
    lam, temperature = fraction("lam", name, lam), positive("temperature", name, temperature)
    weight = 0.0 if normalizer_weight == 0 else positive("normalizer_weight", name, normalizer_weight)
    _one_of("normalizer", name, normalizer, _NORMALIZERS)
    _one_of("reduction", name, reduction, _REDUCTIONS)
    function = _NORMALIZERS[normalizer] if weight > 0 and lam > 0 else None
    dials: dict[str, Any] = {
        "lam": lam,
        "temperature": temperature,
        "scale": temperature**2 if t2_scale else 1.0,
        "per_class": reduction == "paper_code",
    }
    return Objective(
        name,
        {
            "lam": lam,
            "temperature": temperature,
            "normalizer": normalizer,
            "normalizer_weight": weight,
            "reduction": reduction,
            "t2_scale": t2_scale,
        },
        partial(terms.probabilistic, extra=None if function is None else (function, weight), **dials),
        needs_labels=True,
        needs_teacher=lam > 0,
        targets=partial(_targets, **dials) if function is None else None,
    )


def generalised(
    *,
    lam: float = 0.5,
    temperature: float = 1.0,
    student_temperature: Literal["T", "1"] = "1",
    t2_scale: bool = False,
) -> Objective:
    """Generalised distillation: a teacher that may know more of each example than the student ever sees.

    hard = (1 - lam) CE(label, softmax(z)),  soft = lam KL(p_T || softmax(z / S)), p_T the teacher's probabilities at
    temperature T; S = 1 as published, or T. The paper has the cross-entropy: the entropy of p_T more, same gradient.
    soft is 0 where softmax(z / S) = p_T; with S = 1 that is a student whose logits are the teacher's divided by T.

    `lam` weights the TEACHER's term (alpha of `hinton` weights the labels'). lam = 0: `hard_labels`; lam = 1: imitation
    only, labels are not used. `temperature` > 0: T -> infinity makes p_T uniform. `t2_scale` multiplies soft by T^2, as
    the authors' program for MNIST does beside S = 1. With S = T and `t2_scale` it is `hinton(alpha=1 - lam)`.

    Unlike in `probabilistic`, hard has the weight 1 - lam also where the teacher's answer is not known.

    Reference: Lopez-Paz, Bottou, Schölkopf and Vapnik 2016, "Unifying distillation and privileged information",
    section 4.
    """
    lam, temperature = fraction("lam", "generalised", lam), positive("temperature", "generalised", temperature)
    _one_of("student_temperature", "generalised", student_temperature, ("T", "1"))
    dials: dict[str, Any] = {
        "alpha": 1 - lam,
        "temperature": temperature,
        "student_temperature": temperature if student_temperature == "T" else 1.0,
        "scale": temperature**2 if t2_scale else 1.0,
    }
    return Objective(
        "generalised",
        {
            "lam": lam,
            "temperature": temperature,
            "student_temperature": student_temperature,
            "t2_scale": t2_scale,
        },
        partial(terms.generalised, **dials),
        needs_labels=lam < 1,
        needs_teacher=lam > 0,
        targets=partial(targets_of, **dials),
    )


def _targets(
    batch: Batch, classes: int, *, lam: float, temperature: float, scale: float, per_class: bool
) -> list[losses.Target]:
    share, smoothing = batch.labelled.float(), batch.label_smoothing
    if lam == 0:
        return [losses.label_target(batch.labels, classes, share, weight=1.0, label_smoothing=smoothing)]
    teacher = terms.teacher_of(batch, "probabilistic")
    share = torch.where(teacher.known, share * (1 - lam), share)
    probs, entropy = teacher.probs(temperature), teacher.neg_entropy(temperature)
    weight = lam * scale / (classes if per_class else 1)
    return [
        losses.label_target(batch.labels, classes, share, weight=1.0, label_smoothing=smoothing),
        losses.soft_target(probs, entropy, teacher.known, weight=weight, temperature=temperature),
    ]


def _one_of(word: str, name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ObjectiveError(f'{word} of "{name}": {unknown("choice", value, known)}')
