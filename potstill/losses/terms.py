"""Terms of a batch: losses with the batch's labels and teacher, masked where there are none.

Each objective's terms, (outputs, batch) -> name -> (B,), stand under the name of the objective, which documents them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from potstill.errors import ObjectiveError
from potstill.losses.classification import class_logits, cross_entropy, kl, log_softmax, squared_error
from potstill.losses.relations import column_correlation, others_kl, row_correlation, target_kl
from potstill.types import Batch, Outputs, TeacherOutputs

Extra: TypeAlias = "tuple[Callable[..., Tensor], float]"


def hard(logits: Tensor, batch: Batch, weight: float) -> Tensor:
    """(B,) cross-entropy of class logits (B, K) with the batch's labels; 0 where there is none."""
    return cross_entropy(
        logits,
        batch.labels,
        label_smoothing=batch.label_smoothing,
        weight=weight,
        where=unless_all(batch.labelled),
    )


def soft(
    logits: Tensor,
    batch: Batch,
    name: str,
    *,
    temperature: float,
    weight: float,
    student_temperature: float | None = None,
) -> Tensor:
    """(B,) KL(teacher || student) at a temperature; 0 where the teacher's answer is not known.

    `student_temperature`: the student's own, where it has another.
    """
    teacher = teacher_of(batch, name)
    return kl(
        logits,
        teacher.probs(temperature),
        teacher.neg_entropy(temperature),
        temperature=temperature if student_temperature is None else student_temperature,
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


def hard_labels(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy with the labels."""
    return {"hard": hard(class_logits(outputs.logits), batch, 1.0)}


def soft_labels(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Imitation of the teacher's probabilities."""
    return {"soft": soft(class_logits(outputs.logits), batch, "soft_labels", temperature=1.0, weight=1.0)}


def pseudo_labels(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy with the teacher's first class."""
    teacher = teacher_of(batch, "pseudo_labels")
    logits = class_logits(outputs.logits)
    probs = teacher.probs(1.0)
    term = cross_entropy(
        logits,
        probs.argmax(1),  # the first of several maxima
        label_smoothing=batch.label_smoothing,
        where=unless_all(teacher.known),
    )
    return {"hard": term}


def hinton(outputs: Outputs, batch: Batch, *, temperature: float, alpha: float) -> dict[str, Tensor]:
    """Labels and the teacher's softened probabilities."""
    logits = class_logits(outputs.logits)

    def imitation() -> Tensor:
        return soft(logits, batch, "hinton", temperature=temperature, weight=(1 - alpha) * temperature**2)

    return _mixed(logits, batch, alpha, imitation=imitation)


def generalised(
    outputs: Outputs, batch: Batch, *, temperature: float, student_temperature: float, alpha: float, scale: float
) -> dict[str, Tensor]:
    """Labels and the teacher's softened probabilities, held against the student's at a temperature of its own."""
    logits = class_logits(outputs.logits)

    def imitation() -> Tensor:
        told = {"temperature": temperature, "student_temperature": student_temperature}
        return soft(logits, batch, "generalised", weight=(1 - alpha) * scale, **told)

    return _mixed(logits, batch, alpha, imitation=imitation)


def probabilistic(
    outputs: Outputs,
    batch: Batch,
    *,
    lam: float,
    temperature: float,
    scale: float,
    extra: Extra | None,
    per_class: bool,
) -> dict[str, Tensor]:
    """Labels, and where the teacher's answer is known that too; `extra` is the normaliser with its weight.

    `scale` times lam weighs the teacher's terms, divided by the number of classes where `per_class`.
    """
    logits = class_logits(outputs.logits)
    if lam == 0:
        return {"hard": hard(logits, batch, 1.0)}
    weight = lam * scale / (logits.shape[1] if per_class else 1)
    known = unless_all(teacher_of(batch, "probabilistic").known)
    if known is None:
        found = {"hard": hard(logits, batch, 1 - lam)}
    else:
        whole = hard(logits, batch, 1.0)
        found = {"hard": torch.where(known, whole * (1 - lam), whole)}
    found["soft"] = soft(logits, batch, "probabilistic", temperature=temperature, weight=weight)
    if extra is not None:
        normalizer, own = extra
        found["normalizer"] = normalizer(logits, temperature=temperature, weight=weight * own, where=known)
    return found


def hinton_twice_softened(outputs: Outputs, batch: Batch, *, temperature: float, alpha: float) -> dict[str, Tensor]:
    """Hinton's terms with both sides' probabilities in the place of logits in the soft one."""
    logits = class_logits(outputs.logits)

    def imitation() -> Tensor:
        teacher = teacher_of(batch, "hinton_twice_softened")
        target = torch.softmax(teacher.member_probs(1.0) / temperature, -1).mean(1)
        return kl(
            log_softmax(logits).exp(),
            target,
            torch.special.xlogy(target, target).sum(1),
            temperature=temperature,
            weight=(1 - alpha) * temperature**2,
            where=unless_all(teacher.known),
        )

    return _mixed(logits, batch, alpha, imitation=imitation)


def logit_mse(outputs: Outputs, batch: Batch, *, alpha: float) -> dict[str, Tensor]:
    """Labels and the teacher's logits."""

    def imitation() -> Tensor:
        teacher = teacher_of(batch, "logit_mse")
        return squared_error(outputs.logits, teacher.logits(), weight=1 - alpha, where=unless_all(teacher.known))

    return _mixed(class_logits(outputs.logits), batch, alpha, imitation=imitation)


def dkd(outputs: Outputs, batch: Batch, *, temperature: float, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Labels; the teacher's probability of the label (or of its own first class); its probabilities of the others."""
    logits, teacher = class_logits(outputs.logits), teacher_of(batch, "dkd")
    log_probs = teacher.log_probs(temperature)
    classes = torch.where(batch.labelled, batch.labels, log_probs.argmax(1))
    found = {"hard": hard(logits, batch, weights["hard"])} if weights["hard"] else {}
    for name, part in (("target", target_kl), ("others", others_kl)):
        if weights[name]:
            weight, where = weights[name] * temperature**2, unless_all(teacher.known)
            found[name] = part(logits, log_probs, classes, temperature=temperature, weight=weight, where=where)
    return found


def dist(outputs: Outputs, batch: Batch, *, temperature: float, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Labels; correlations with the teacher over classes and over the batch."""
    logits, teacher = class_logits(outputs.logits), teacher_of(batch, "dist")
    found = {"hard": hard(logits, batch, weights["hard"])} if weights["hard"] else {}
    for name, part in (("inter", row_correlation), ("intra", column_correlation)):
        if weights[name]:
            weight, where = weights[name] * temperature**2, unless_all(teacher.known)
            found[name] = part(logits, teacher.probs(temperature), temperature=temperature, weight=weight, where=where)
    return found


def squared_error_with_labels(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Squared error of values with the labels."""
    return {"hard": squared_error(outputs.logits, batch.labels, where=unless_all(batch.labelled))}


def _mixed(logits: Tensor, batch: Batch, alpha: float, *, imitation: Callable[[], Tensor]) -> dict[str, Tensor]:
    """alpha times the labels' term as "hard", and `imitation` as "soft"; what weighs nothing is left out."""
    found = {}
    if alpha > 0:
        found["hard"] = hard(logits, batch, alpha)
    if alpha < 1:
        found["soft"] = imitation()
    return found
