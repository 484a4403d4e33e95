"""Objectives of a classifier over labels and a teacher's answers."""

from __future__ import annotations

from functools import partial

from potstill import losses
from potstill.losses import terms
from potstill.objectives.objective import Objective, fraction, positive
from potstill.types import Batch


def hard_labels() -> Objective:
    """Cross-entropy with the labels: ordinary training, the baseline.

    hard = CE(label, softmax(z)), z the student's logits. It has no dials.
    """
    targets = partial(targets_of, alpha=1.0, temperature=1.0)
    return Objective("hard_labels", {}, terms.hard_labels, needs_labels=True, needs_teacher=False, targets=targets)


def soft_labels() -> Objective:
    """Imitation of the teacher's probabilities at temperature 1.

    soft = KL(p || softmax(z)), p the teacher's probabilities (the mean over an ensemble's members). The paper minimises
    the cross-entropy -sum p log q; that differs by the entropy of p, which the student cannot change: same gradient,
    but the KL is 0 where student = teacher. Equal to `hinton(temperature=1, alpha=0)`.

    Reference: paper 1 (Biryukova, knowledge distillation for binary classification), equation 14.
    """
    targets = partial(targets_of, alpha=0.0, temperature=1.0)
    return Objective("soft_labels", {}, terms.soft_labels, needs_labels=False, needs_teacher=True, targets=targets)


def pseudo_labels() -> Objective:
    """Cross-entropy with the teacher's most probable class, as if it were the label.

    hard = CE(argmax p, softmax(z)). Ties go to the lower class: in a binary task the label is 1 where p > 0.5,
    strictly. Labels are not used.

    Reference: paper 1, equation 13; Lee 2013, "Pseudo-label".
    """
    return Objective(
        "pseudo_labels", {}, terms.pseudo_labels, needs_labels=False, needs_teacher=True, targets=_pseudo_targets
    )


def hinton(*, temperature: float = 4.0, alpha: float = 0.1) -> Objective:
    """Hard labels and the teacher's softened probabilities.

    hard = alpha CE(label, softmax(z)),  soft = (1 - alpha) T^2 KL(p_T || softmax(z / T)), p_T the teacher's
    probabilities at temperature T (for an ensemble the mean of its members' softened probabilities).

    `alpha` weights the HARD term (lambda of the probabilistic objective weights the teacher's). alpha = 0: imitation
    only, labels are not used; alpha = 1: `hard_labels`. `temperature`, in units of logits, > 0: T = 1 leaves the
    probabilities as they are; T -> infinity: soft -> (1 - alpha)/2 times the mean over classes of the squared
    difference of centred logits; T -> 0: soft/T -> (1 - alpha) times how far the student's logit of the teacher's first
    class lies below the student's largest. In float32 the value of soft is exact to about 1e-7 T^2.

    Reference: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    temperature = positive("temperature", "hinton", temperature)
    alpha = fraction("alpha", "hinton", alpha)
    return Objective(
        "hinton",
        {"temperature": temperature, "alpha": alpha},
        partial(terms.hinton, temperature=temperature, alpha=alpha),
        needs_labels=alpha > 0,
        needs_teacher=alpha < 1,
        targets=partial(targets_of, temperature=temperature, alpha=alpha),
    )


def hinton_twice_softened(*, temperature: float = 4.0, alpha: float = 0.1) -> Objective:
    """A mistake, for studies of it and not for use: `hinton` with probabilities where logits belong.

    hard = alpha CE(label, softmax(z)),  soft = (1 - alpha) T^2 KL(mean_m softmax(p_m / T) || softmax(q / T)), with
    q = softmax(z) the student's probabilities and p_m those of the teacher's member m. Code that divides by T and
    applies softmax does this where networks end in softmax already. Probabilities differ by 1 at most, so the targets
    of two classes differ by a factor of e^(1/T) at most, and soft asks for next to nothing.

    `alpha` weights the HARD term. alpha = 0: soft only; alpha = 1: `hard_labels`. T -> infinity: soft -> (1 - alpha)/2
    times the mean over classes of (p - q)^2, p the mean over members: regression on probabilities. T -> 0: soft/T ->
    (1 - alpha) times how far the student's probability of the teacher's first class lies below its largest.

    Reference: paper 3 (hard labels against distillation), the listing, read with the text's networks.
    """
    temperature = positive("temperature", "hinton_twice_softened", temperature)
    alpha = fraction("alpha", "hinton_twice_softened", alpha)
    return Objective(
        "hinton_twice_softened",
        {"temperature": temperature, "alpha": alpha},
        partial(terms.hinton_twice_softened, temperature=temperature, alpha=alpha),
        needs_labels=alpha > 0,
        needs_teacher=alpha < 1,
    )


def logit_mse(*, alpha: float = 0.0) -> Objective:
    """Regression on the teacher's logits.

    hard = alpha CE(label, softmax(z)),  soft = (1 - alpha) mean_k (z[k] - v[k])^2, v the teacher's logits (the mean of
    an ensemble's members' logits). The paper sums over the K outputs and halves: K/2 times ours. A constant added to
    all logits of a row changes it, unlike every other objective here.

    `alpha` weights the HARD term. alpha = 0: logits only; alpha = 1: `hard_labels`.

    Reference: Ba and Caruana 2014, "Do deep nets really need to be deep?", equation 1.
    """
    alpha = fraction("alpha", "logit_mse", alpha)
    return Objective(
        "logit_mse",
        {"alpha": alpha},
        partial(terms.logit_mse, alpha=alpha),
        needs_labels=alpha > 0,
        needs_teacher=alpha < 1,
    )


def targets_of(
    batch: Batch,
    classes: int,
    *,
    alpha: float,
    temperature: float,
    student_temperature: float | None = None,
    scale: float | None = None,
) -> list[losses.Target]:
    """Hinton's terms as targets; alpha = 1 is hard labels, alpha = 0 with T = 1 soft labels.

    `student_temperature`: the student's own, where it has another; `scale`: what stands in the place of T^2.
    """
    found = []
    if alpha > 0:
        found.append(
            losses.label_target(
                batch.labels, classes, batch.labelled, weight=alpha, label_smoothing=batch.label_smoothing
            )
        )
    if alpha < 1:
        teacher = terms.teacher_of(batch, "hinton")
        weight = (1 - alpha) * (temperature**2 if scale is None else scale)
        probs, entropy = teacher.probs(temperature), teacher.neg_entropy(temperature)
        own = temperature if student_temperature is None else student_temperature
        found.append(losses.soft_target(probs, entropy, teacher.known, weight=weight, temperature=own))
    return found


def _pseudo_targets(batch: Batch, classes: int) -> list[losses.Target]:
    teacher = terms.teacher_of(batch, "pseudo_labels")
    answers = teacher.probs(1.0).argmax(1)
    return [losses.label_target(answers, classes, teacher.known, weight=1.0, label_smoothing=batch.label_smoothing)]
