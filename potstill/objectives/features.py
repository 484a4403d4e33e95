"""Objectives over hidden features, by the names that networks give them; the teacher has to be asked live.

Each gives the teacher's term alone. It is added to another objective in a list: `["hard_labels", hints(...)]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from potstill import losses
from potstill.errors import ObjectiveError
from potstill.losses import terms
from potstill.objectives.objective import Hidden, Objective, not_negative, positive
from potstill.types import Batch, ObjectiveFunction, Outputs

Compare: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Shape: TypeAlias = tuple[int, ...]


def hints(*, student: str, teacher: str, weight: float = 100.0) -> Objective:
    """A hidden feature of the student leads, through a regressor that is learned with it, to one of the teacher.

    hints = weight mean (u - r(v))^2, v and u the features that `student` and `teacher` name, r linear: for rows of
    numbers a linear layer, for pictures a convolution without padding that makes the student's (C, H, W) the teacher's,
    1x1 where H and W agree. The student's H and W may be larger, not smaller. r is not part of the model.

    `weight` > 0; towards 0 the term vanishes. The term is 0 where r(v) = u. The paper sums over the N numbers and
    halves (N/2 times ours), and trains hints before anything else; here they are trained beside the other objectives.

    Reference: Romero et al. 2015, "FitNets: hints for thin deep nets", equation 3 and section 2.2.
    """
    settings = _settings("hints", student, teacher, weight=weight)
    told, owns = partial(_hints, settings=settings), partial(_regressor, settings=settings)
    return _over_features("hints", settings, told, owns=owns)


def attention_transfer(*, student: str, teacher: str, weight: float = 1000.0) -> Objective:
    """Where the student looks: the pixels of a hidden feature at which its channels are large.

    attention = weight mean over pixels of (q_S - q_T)^2, q = Q / ||Q||, Q the sum over channels of squares. Features
    are pictures (C, H, W) of equal H and W; channels may differ. A feature times a number changes nothing.

    `weight` > 0; towards 0 the term vanishes. Equation 2 has the norm of the difference, whose slope has no limit at 0,
    and half a weight; the authors' program has ours.

    Reference: Zagoruyko and Komodakis 2017, "Paying more attention to attention", section 3.1, with p = 2.
    """
    settings = _settings("attention_transfer", student, teacher, weight=weight)
    told = partial(_compared, settings=settings, of={"attention": (partial(_maps, settings=settings), weight)})
    return _over_features("attention_transfer", settings, told)


def similarity_preserving(*, student: str, teacher: str, weight: float = 3000.0) -> Objective:
    """Examples that are alike for the teacher are alike for the student, within a batch.

    similarities = weight ||G_S - G_T||^2 / B^2 over a batch of B, each example with its own row of G: the products of
    its feature with everybody's, as a vector of length 1. Features may have any shapes. Features times a number change
    nothing.

    `weight` > 0; towards 0 the term vanishes. Examples whose teacher is not known are not compared.

    Reference: Tung and Mori 2019, "Similarity-preserving knowledge distillation", equations 1 to 4.
    """
    settings = _settings("similarity_preserving", student, teacher, weight=weight)
    told = partial(_compared, settings=settings, of={"similarities": (losses.similarities, weight)})
    return _over_features("similarity_preserving", settings, told, couples=True)


def relational(*, student: str, teacher: str, distance: float = 25.0, angle: float = 50.0) -> Objective:
    """Distances between the examples of a batch, and angles between three, are for the student as for the teacher.

    distances = `distance` times the mean over the other examples of huber(d_S - d_T), d in units of the batch's mean
    distance; angles = `angle` times the mean over pairs of others of huber(cos_S - cos_T), the angle at the example.
    Features may have any shapes. Turning, moving or scaling all features changes nothing.

    `distance`, `angle` >= 0, not both 0; with 0 a term is left out. The paper sums over pairs and triples; with means
    the weights of its authors' program keep their meaning. Angles take memory like B^3.

    Reference: Park, Kim, Lu and Cho 2019, "Relational knowledge distillation", equations 5 to 10.
    """
    name, given = "relational", {"distance": distance, "angle": angle}
    weights = {word: not_negative(word, name, value) for word, value in given.items()}
    if not any(weights.values()):
        raise ObjectiveError('"relational" compares distances, angles or both; found distance = 0 and angle = 0.')
    of = {"distances": (losses.distances, weights["distance"]), "angles": (losses.angles, weights["angle"])}
    settings = {"student": student, "teacher": teacher, **weights}
    told = partial(_compared, settings={"name": name, **settings}, of={k: v for k, v in of.items() if v[1]})
    return _over_features(name, {"name": name, **settings}, told, couples=True)


def _settings(name: str, student: str, teacher: str, *, weight: float) -> dict[str, Any]:
    return {"name": name, "student": student, "teacher": teacher, "weight": positive("weight", name, weight)}


def _over_features(name: str, settings: Mapping[str, Any], told: ObjectiveFunction, **more: Any) -> Objective:
    given = {word: value for word, value in settings.items() if word != "name"}
    hidden = Hidden((given["student"],), (given["teacher"],))
    return Objective(
        name, given, told, needs_labels=False, needs_teacher=True, learns="anything", hidden=hidden, **more
    )


def _compared(
    outputs: Outputs, batch: Batch, *, settings: Mapping[str, Any], of: Mapping[str, tuple[Compare, float]]
) -> dict[str, Tensor]:
    """Terms by name: a loss of the two features, among the examples whose teacher is known, times its weight."""
    student, teacher = _features(outputs, batch, settings)
    known = terms.unless_all(terms.teacher_of(batch, settings["name"]).known)
    if known is None:
        return {name: loss(student, teacher) * weight for name, (loss, weight) in of.items()}
    rows = known.nonzero()[:, 0]
    parts = {name: loss(student[rows], teacher[rows]) * weight for name, (loss, weight) in of.items()}
    return {name: part.new_zeros(len(student)).index_copy(0, rows, part) for name, part in parts.items()}


def _features(outputs: Outputs, batch: Batch, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The student's feature and the teacher's, (B, ...) each."""
    theirs = terms.teacher_of(batch, settings["name"]).features()
    for whose, found in (("student", outputs.features), ("teacher", theirs)):
        if settings[whose] not in found:
            raise ObjectiveError(
                f'"{settings["name"]}" reads the {whose}\'s feature "{settings[whose]}"; found '
                f"{', '.join(found) or 'none'}. Recorded outputs have none: the teacher has to be asked live."
            )
    return outputs.features[settings["student"]], theirs[settings["teacher"]]


def _hints(outputs: Outputs, batch: Batch, regressor: nn.Module, *, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    kind = next(regressor.parameters()).dtype  # the student's may be less precise

    def led(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.mean_square(regressor(student.to(kind)), teacher)

    return _compared(outputs, batch, settings=settings, of={"hints": (led, settings["weight"])})


def _regressor(outputs: Outputs, batch: Batch, *, settings: Mapping[str, Any]) -> nn.Module:
    student, teacher = (tuple(feature.shape[1:]) for feature in _features(outputs, batch, settings))
    if len(student) == len(teacher) == 1:
        return nn.Linear(student[0], teacher[0])
    if len(student) == len(teacher) == 3 and student[1] >= teacher[1] and student[2] >= teacher[2]:
        return nn.Conv2d(student[0], teacher[0], (1 + student[1] - teacher[1], 1 + student[2] - teacher[2]))
    wanted = "two rows of numbers, or two pictures of which the student's has no fewer pixels"
    raise _misfit(settings, student, teacher, wanted)


def _maps(student: Tensor, teacher: Tensor, *, settings: Mapping[str, Any]) -> Tensor:
    if student.dim() == teacher.dim() == 4 and student.shape[2:] == teacher.shape[2:]:
        return losses.attention(student, teacher)
    wanted = "two pictures (channels, height, width) of the same height and width"
    raise _misfit(settings, tuple(student.shape[1:]), tuple(teacher.shape[1:]), wanted)


def _misfit(settings: Mapping[str, Any], student: Shape, teacher: Shape, wanted: str) -> ObjectiveError:
    return ObjectiveError(
        f'"{settings["name"]}" cannot compare the student\'s feature "{settings["student"]}" of shape {student} with '
        f'the teacher\'s "{settings["teacher"]}" of shape {teacher}; wanted are {wanted}.'
    )
