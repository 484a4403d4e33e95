"""What a student learns from: an objective turns a student's outputs and a batch into named terms, each (B,).

Terms called "hard" are cross-entropies with labels, terms called "soft" imitate the teacher's outputs. A row without
label has hard terms 0, a row whose teacher's answer is not known has soft terms 0; the loop averages over the whole
batch all the same. Weights are part of the terms, so the terms are summed as they are.
`Batch.label_smoothing` applies to hard terms only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, final

from torch import Tensor

from potstill import losses
from potstill.errors import NotYetError, ObjectiveError
from potstill.losses import terms
from potstill.registry import Registry, Spec
from potstill.types import Batch, ObjectiveFunction, Outputs

TargetsFunction: TypeAlias = Callable[[Batch, int], list[losses.Target]]


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """An objective with its settings; callable: (outputs, batch) -> named terms, each (B,) float32, weights included.

    `needs_labels`: rows without label teach it less; `needs_teacher`: a batch without teacher is an `ObjectiveError`.
    `targets(batch, K)`: the same terms as `losses.Target`s, where they are tempered cross-entropies with targets that
    the student does not change; a training then computes them in closed form.
    """

    name: str
    settings: Mapping[str, Any] = field(hash=False)
    terms: ObjectiveFunction = field(compare=False, repr=False)
    needs_labels: bool
    needs_teacher: bool
    targets: TargetsFunction | None = field(default=None, compare=False, repr=False)

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return self.terms(outputs, batch)

    @property
    def spec(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The table, or list of tables, that `build` makes this objective from: name and every setting."""
        if "objectives" in self.settings:
            return list(self.settings["objectives"])
        return {"name": self.name, **self.settings}


ObjectiveSpec: TypeAlias = "Spec | Objective | Sequence[Spec | Objective]"


def hard_labels() -> Objective:
    """Cross-entropy with the labels: ordinary training, the baseline.

    hard = CE(label, softmax(z)), z the student's logits. It has no dials.
    """
    targets = partial(_targets, alpha=1.0, temperature=1.0)
    return Objective("hard_labels", {}, terms.hard_labels, needs_labels=True, needs_teacher=False, targets=targets)


def soft_labels() -> Objective:
    """Imitation of the teacher's probabilities at temperature 1.

    soft = KL(p || softmax(z)), p the teacher's probabilities (the mean over an ensemble's members). The paper minimises
    the cross-entropy -sum p log q; that differs by the entropy of p, which the student cannot change: same gradient,
    but the KL is 0 where student = teacher. Equal to `hinton(temperature=1, alpha=0)`.

    Reference: paper 1 (Biryukova, knowledge distillation for binary classification), equation 14.
    """
    targets = partial(_targets, alpha=0.0, temperature=1.0)
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
    temperature = _positive("temperature", "hinton", temperature)
    alpha = _fraction("alpha", "hinton", alpha)
    return Objective(
        "hinton",
        {"temperature": temperature, "alpha": alpha},
        partial(terms.hinton, temperature=temperature, alpha=alpha),
        needs_labels=alpha > 0,
        needs_teacher=alpha < 1,
        targets=partial(_targets, temperature=temperature, alpha=alpha),
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
    temperature = _positive("temperature", "hinton_twice_softened", temperature)
    alpha = _fraction("alpha", "hinton_twice_softened", alpha)
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
    alpha = _fraction("alpha", "logit_mse", alpha)
    return Objective(
        "logit_mse",
        {"alpha": alpha},
        partial(terms.logit_mse, alpha=alpha),
        needs_labels=alpha > 0,
        needs_teacher=alpha < 1,
    )


REGISTRY = Registry(
    "objective",
    {
        "hard_labels": hard_labels,
        "soft_labels": soft_labels,
        "pseudo_labels": pseudo_labels,
        "hinton": hinton,
        "hinton_twice_softened": hinton_twice_softened,
        "logit_mse": logit_mse,
    },
    ObjectiveError,
)

NOT_YET: Mapping[str, str] = {
    "attention_transfer": "attention maps of hidden features (Zagoruyko and Komodakis 2017)",
    "dist": "correlations between and within classes (Huang et al. 2022)",
    "dkd": "decoupled knowledge distillation (Zhao et al. 2022)",
    "gaussian": "a teacher that answers with a mean and a variance",
    "generalised": "privileged information (Lopez-Paz et al. 2016)",
    "hints": "hidden features through a regressor (Romero et al. 2015)",
    "probabilistic": "the teacher's answers in a probabilistic model, for classification",
    "probabilistic_regression": "the teacher's answers in a probabilistic model, for regression",
    "relational": "distances and angles between examples (Park et al. 2019)",
    "similarity_preserving": "similarities between examples (Tung and Mori 2019)",
    "squared_error": "regression on values",
}


def build(spec: ObjectiveSpec) -> Objective:
    """An objective from a specification, or the sum of those in a list.

    A specification is a name, a table with "name" and settings, or an `Objective`. Terms of a sum keep their
    names; names that clash are prefixed with the objective's ("hinton.hard"), numbered where one occurs twice.
    Raises `ObjectiveError`, and `NotYetError` for what is planned but not built.
    """
    if isinstance(spec, Objective):
        return spec
    if isinstance(spec, str | Mapping):
        return _one(spec)
    parts = [build(part) for part in spec]
    if not parts:
        raise ObjectiveError("The list of objectives is empty; it needs at least one, such as hard_labels.")
    return parts[0] if len(parts) == 1 else _sum(parts)


def _one(spec: Spec) -> Objective:
    name = spec.partition(":")[0] if isinstance(spec, str) else spec.get("name")
    if isinstance(name, str) and name in NOT_YET:
        raise NotYetError(f'The objective "{name}" ({NOT_YET[name]}) is not built yet. Built: {", ".join(REGISTRY)}.')
    objective: Objective = REGISTRY.call(spec)
    return objective


def _sum(parts: list[Objective]) -> Objective:
    count = Counter(part.name for part in parts)
    seen: Counter[str] = Counter()
    named = []
    specs: list[dict[str, Any]] = []
    for part in parts:
        seen[part.name] += 1
        named.append((part.name if count[part.name] == 1 else f"{part.name}{seen[part.name]}", part))
        specs += part.spec if isinstance(part.spec, list) else [part.spec]
    return Objective(
        "+".join(part.name for part in parts),
        {"objectives": tuple(specs)},
        partial(_summed, parts=tuple(named)),
        needs_labels=any(part.needs_labels for part in parts),
        needs_teacher=any(part.needs_teacher for part in parts),
    )


def _summed(outputs: Outputs, batch: Batch, *, parts: tuple[tuple[str, Objective], ...]) -> dict[str, Tensor]:
    terms = [(prefix, name, term) for prefix, part in parts for name, term in part(outputs, batch).items()]
    count = Counter(name for _, name, _ in terms)
    return {name if count[name] == 1 else f"{prefix}.{name}": term for prefix, name, term in terms}


def _targets(batch: Batch, classes: int, *, alpha: float, temperature: float) -> list[losses.Target]:
    """Hinton's terms as targets; alpha = 1 is hard labels, alpha = 0 with T = 1 soft labels."""
    found = []
    if alpha > 0:
        found.append(
            losses.label_target(
                batch.labels, classes, batch.labelled, weight=alpha, label_smoothing=batch.label_smoothing
            )
        )
    if alpha < 1:
        teacher = terms.teacher_of(batch, "hinton")
        probs, entropy = teacher.probs(temperature), teacher.neg_entropy(temperature)
        found.append(
            losses.soft_target(
                probs, entropy, teacher.known, weight=(1 - alpha) * temperature**2, temperature=temperature
            )
        )
    return found


def _pseudo_targets(batch: Batch, classes: int) -> list[losses.Target]:
    teacher = terms.teacher_of(batch, "pseudo_labels")
    answers = teacher.probs(1.0).argmax(1)
    return [losses.label_target(answers, classes, teacher.known, weight=1.0, label_smoothing=batch.label_smoothing)]


def _positive(word: str, name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ObjectiveError(f'{word} of "{name}" must be a finite number > 0; found {value!r}.')
    return float(value)


def _fraction(word: str, name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ObjectiveError(f'{word} of "{name}" must lie in [0, 1]; found {value!r}.')
    return float(value)
