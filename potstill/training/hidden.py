"""Hidden features by name: those that an objective reads, of its student and of its teacher."""

from __future__ import annotations

import torch
from torch import nn

from potstill import networks
from potstill.errors import NetworkError, ObjectiveError, TeacherError
from potstill.networks.build import evaluating
from potstill.objectives import Hidden
from potstill.outputs import Live
from potstill.types import Answers, ObjectiveFunction, Source


def hidden(objective: ObjectiveFunction) -> Hidden:
    """The features that an objective reads; a plain function reads none."""
    found: Hidden = getattr(objective, "hidden", Hidden())
    return found


def of_teacher(objective: ObjectiveFunction, answers: Answers | None) -> Answers | None:
    """The teacher's answers with the features that the objective reads.

    Raises `ObjectiveError` for answers that were recorded, and for features that are not there.
    """
    names = hidden(objective).teacher
    if not names or answers is None:
        return answers
    if not isinstance(answers, Live):
        raise ObjectiveError(
            f'"{_name(objective)}" reads hidden features of the teacher ({", ".join(names)}); recorded outputs have '
            'none. Pass the teacher itself, which is then asked in every step (in a plan: answers = "live").'
        )
    try:
        told = answers.with_features(names)
        if len(told.known):
            told.lookup(torch.arange(1), 0).features()  # type: ignore[arg-type]
    except (NetworkError, TeacherError) as error:
        raise ObjectiveError(f'"{_name(objective)}" reads a hidden feature of the teacher. {error}') from error
    return told


def check_student(objective: ObjectiveFunction, network: nn.Module, train: Source) -> None:
    """Raises `ObjectiveError` for features that the objective reads and the student does not have."""
    names = hidden(objective).student
    if not names:
        return
    inputs = train.fetch(torch.arange(1), 1 if train.augmentation else 0).inputs  # type: ignore[arg-type]
    try:
        with evaluating(network), torch.no_grad():
            networks.forward(network, inputs, names)
    except NetworkError as error:
        raise ObjectiveError(f'"{_name(objective)}" reads a hidden feature of the student. {error}') from error


def _name(objective: ObjectiveFunction) -> str:
    return str(getattr(objective, "name", "this objective"))
