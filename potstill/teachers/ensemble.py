"""Several teachers that answer as one; every member's answer is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from potstill import storage
from potstill.errors import TeacherError
from potstill.types import Kind, Teacher


@final
class Ensemble:
    """Members that answer as one teacher: inputs (B, ...) to (B, members, K), a row of logits per member.

    Nothing is averaged here: softening and averaging happen where the answers are read, since the mean of softened
    probabilities is not the softened mean. All members must be of one kind, with the same classes (a member that does
    not know its classes is taken at its word) and the same number of outputs. Ensembles nest: their members are
    lined up.

    Raises `TeacherError`, naming the member: no members, one that is not a teacher, or one that differs.

    >>> import torch
    >>> from potstill.teachers import Function
    >>> pair = Ensemble([Function(f, kind="logits", name=f.__name__) for f in (torch.sin, torch.cos)])
    >>> pair(torch.zeros(4, 3)).shape
    torch.Size([4, 2, 3])
    """

    __slots__ = ("classes", "kind", "members", "recipe", "sees")

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members: tuple[Teacher, ...] = tuple(members)
        if not self.members:
            raise TeacherError("An ensemble without members was given; it needs at least one.")
        for number, member in enumerate(self.members):
            _must_be_teacher(member, number)
        first = self.members[0]
        self.kind: Kind = first.kind
        for number, member in enumerate(self.members):
            if member.kind != first.kind:
                raise TeacherError(
                    f"{_name(member, number)} answers {member.kind}, {_name(first, 0)} answers {first.kind}: the "
                    "members of an ensemble must be of one kind. Wrap them so that all give the same."
                )
        self.classes: tuple[str, ...] | None = _common_classes(self.members)
        self.sees: str = _common_input(self.members)
        self.recipe: Mapping[str, Any] = _common_recipe(self.members)

    def fingerprint(self) -> str:
        """Hash of the members' fingerprints in their order."""
        return storage.fingerprint({"ensemble": [member.fingerprint() for member in self.members]})

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) to (B, members, K)."""
        answers: list[Tensor] = []
        for number, member in enumerate(self.members):
            answer = member(inputs)
            if not isinstance(answer, Tensor) or answer.ndim not in (2, 3) or answer.shape[0] != inputs.shape[0]:
                found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise TeacherError(
                    f"{_name(member, number)} answered {found} to {inputs.shape[0]} examples; "
                    f"wanted ({inputs.shape[0]}, outputs). Mend it or leave it out."
                )
            answer = answer[:, None] if answer.ndim == 2 else answer
            if answers and answer.shape[-1] != answers[0].shape[-1]:
                raise TeacherError(
                    f"{_name(member, number)} has {answer.shape[-1]} outputs, {_name(self.members[0], 0)} has "
                    f"{answers[0].shape[-1]}: the members of an ensemble must have the same outputs. Leave one out."
                )
            answers.append(answer)
        return torch.cat(answers, dim=1)


def _name(member: object, number: int) -> str:
    label = getattr(member, "label", None) or getattr(member, "name", None)
    return f'Member {number} "{label}"' if isinstance(label, str) else f"Member {number} ({type(member).__name__})"


def _must_be_teacher(member: object, number: int) -> None:
    if not isinstance(member, Teacher):
        raise TeacherError(
            f"Member {number} of the ensemble is of type {type(member).__name__}, which is no teacher (kind, classes, "
            "fingerprint, call). Wrap it: teachers.Torch(network), or teachers.Function(fn, kind=..., name=...)."
        )


def _common_input(members: Sequence[Teacher]) -> str:
    """The input that all members see; empty where they name none."""
    seen = [str(getattr(member, "sees", "")) for member in members]
    for number, name in enumerate(seen):
        if name != seen[0]:
            raise TeacherError(
                f'{_name(members[number], number)} sees the input "{name}", {_name(members[0], 0)} sees "{seen[0]}": '
                "they cannot be asked at once. Record each, and combine what was recorded (outputs.Stored.combine)."
            )
    return seen[0]


def _common_recipe(members: Sequence[Teacher]) -> Mapping[str, Any]:
    """How the input of all members is made."""
    made: list[Mapping[str, Any]] = [getattr(member, "recipe", {}) for member in members]
    for number, recipe in enumerate(made):
        if recipe != made[0]:
            raise TeacherError(
                f"{_name(members[number], number)} learnt from examples that were prepared otherwise than those of "
                f"{_name(members[0], 0)}: they cannot be asked at once. Train them on the same data."
            )
    return made[0]


def _common_classes(members: Sequence[Teacher]) -> tuple[str, ...] | None:
    named = [(number, member) for number, member in enumerate(members) if member.classes is not None]
    for number, member in named:
        if member.classes != named[0][1].classes:
            raise TeacherError(
                f"{_name(member, number)} has the classes {member.classes}, {_name(named[0][1], named[0][0])} has "
                f"{named[0][1].classes}: the members of an ensemble must have the same classes in the same order."
            )
    return named[0][1].classes if named else None
