"""Objectives that take the teacher's probabilities apart, and weigh the parts each for itself."""

from __future__ import annotations

from functools import partial

from potstill.errors import ObjectiveError
from potstill.losses import terms
from potstill.objectives.objective import Objective, not_negative, positive


def dkd(*, temperature: float = 4.0, hard: float = 1.0, target: float = 1.0, others: float = 8.0) -> Objective:
    """Decoupled distillation: how sure the teacher is of the label, and what it thinks of the other classes.

    hard = `hard` CE(label, softmax(z));  target = `target` T^2 KL between the teacher's and the student's (p, 1 - p),
    p the softened probability of the label;  others = `others` T^2 KL between their probabilities of all other classes,
    which add up to 1 for each. In the KL of `hinton` the last has the weight 1 - p, which is small just where the
    teacher is sure. An example without a label is taken apart at the teacher's first class, and has no hard term.

    The weights are >= 0, `target` and `others` not both 0; with 0 a term is left out. `temperature` > 0 as in `hinton`.
    Both parts are 0 where student = teacher. Two classes have one other: others is 0. The authors' program raises the
    weight of both parts over the first epochs; ours does not.

    Reference: Zhao et al. 2022, "Decoupled knowledge distillation", equation 7; its alpha and beta are `target` and
    `others`.
    """
    name = "dkd"
    temperature = positive("temperature", name, temperature)
    weights = {
        word: not_negative(word, name, value)
        for word, value in {"hard": hard, "target": target, "others": others}.items()
    }
    if not weights["target"] + weights["others"]:
        raise ObjectiveError('"dkd" imitates the teacher; found target = 0 and others = 0. Take "hard_labels".')
    return Objective(
        name,
        {"temperature": temperature, **weights},
        partial(terms.dkd, temperature=temperature, weights=weights),
        needs_labels=True,
        needs_teacher=True,
    )


def dist(*, temperature: float = 1.0, hard: float = 1.0, inter: float = 2.0, intra: float = 2.0) -> Objective:
    """The order of classes for an example, and of examples for a class, as the teacher has them: correlations alone.

    hard = `hard` CE(label, softmax(z));  inter = `inter` T^2 (1 - the correlation over classes of softmax(z / T) with
    the teacher's);  intra = `intra` T^2 (1 - the correlation over the batch, the mean over classes), each example with
    its part. A student that is less sure than its teacher, but in the same order, is right: correlations leave scale
    and offset of probabilities free.

    The weights are >= 0, `inter` and `intra` not both 0; with 0 a term is left out. `temperature` > 0. Both parts are 0
    where student = teacher, and not only there. With two classes `inter` has to be 0 (`ObjectiveError`). T^2 is of the
    authors' program.

    Reference: Huang et al. 2022, "Knowledge distillation from a stronger teacher", equations 5 to 8.
    """
    name = "dist"
    temperature = positive("temperature", name, temperature)
    weights = {
        word: not_negative(word, name, value) for word, value in {"hard": hard, "inter": inter, "intra": intra}.items()
    }
    if not weights["inter"] + weights["intra"]:
        raise ObjectiveError('"dist" imitates the teacher; found inter = 0 and intra = 0. Take "hard_labels".')
    return Objective(
        name,
        {"temperature": temperature, **weights},
        partial(terms.dist, temperature=temperature, weights=weights),
        needs_labels=weights["hard"] > 0,
        needs_teacher=True,
        couples=weights["intra"] > 0,
    )
