"""What a teacher answers, held against what it declared."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from potstill.errors import OutputsError, TeacherError
from potstill.outputs import soften
from potstill.types import DataSpec, Kind, Teacher

_SUM_TOLERANCE = 1e-3
_EXACT, _ROUGH = 1e-5, 1e-2  # how far the sums of probabilities may be from 1
_FEWEST, _VARIED = 8, 0.2  # rows, and their range, from which on chance is no explanation
_NEAR = 0.1


def must_be_teacher(teacher: object) -> None:
    """Raises `TeacherError` for anything that does not satisfy the protocol."""
    if not isinstance(teacher, Teacher):
        raise TeacherError(
            f"Found {type(teacher).__name__} where a teacher is wanted (kind, classes, fingerprint, call). "
            "Wrap it: teachers.Torch(network), or teachers.Function(fn, kind=..., name=...)."
        )
    if teacher.kind not in get_args(Kind):
        raise TeacherError(f'The teacher\'s kind is "{teacher.kind}"; it must be one of {", ".join(get_args(Kind))}.')


def as_members(answers: object, rows: int) -> Tensor:
    """A teacher's answers as (rows, members, outputs), detached; the numbers are not looked at.

    Raises `TeacherError` for another shape or for whole numbers.
    """
    wanted = f"wanted ({rows}, outputs), or ({rows}, members, outputs)"
    if not isinstance(answers, Tensor):
        raise TeacherError(f"The teacher answered {type(answers).__name__}; {wanted} as a tensor.")
    if answers.ndim == 1 and answers.shape[0] == rows:
        raise TeacherError(
            f"The teacher answered shape ({rows},) to {rows} examples; {wanted}. "
            "One number per example is (rows, 1): add [:, None] to its answer. Labels alone cannot be used."
        )
    if answers.ndim not in (2, 3) or answers.shape[0] != rows or 0 in answers.shape:
        raise TeacherError(f"The teacher answered shape {tuple(answers.shape)} to {rows} examples; {wanted}.")
    if not answers.is_floating_point():
        raise TeacherError(
            f"The teacher answered {answers.dtype} (labels?); {wanted} as floating-point logits or probabilities."
        )
    answers = answers.detach()
    return answers[:, None] if answers.ndim == 2 else answers


def check_values(answers: Tensor, index: Tensor, *, kind: Kind, limit: float, where: str = "The teacher") -> None:
    """Raises `TeacherError` naming the row, if a number of `answers` (B, members, outputs) is not usable.

    Not finite; larger than `limit` (what the storage type holds); or no probability although that is declared. Means
    and log variances need an even number of outputs.
    """
    if kind == "gaussian" and answers.shape[-1] % 2:
        raise TeacherError(
            f"{where} declares means and log variances but answers {answers.shape[-1]} numbers; wanted are two per "
            "target, the means first."
        )
    extremes = torch.aminmax(answers)  # a NaN anywhere comes out of both: six times cheaper than isfinite().all()
    low, high = float(extremes.min), float(extremes.max)
    if not (-limit <= low and high <= limit):
        at = int((~(answers.abs() <= limit)).flatten(1).any(dim=1).nonzero()[0])
        found = "NaN" if bool(answers[at].isnan().any()) else f"{float(answers[at].abs().max()):g}"
        advice = "Mend the teacher or that example."
        if found not in ("NaN", "inf") and limit < torch.finfo(torch.float32).max:
            advice = 'Record with dtype="float32", which holds it.'
        raise TeacherError(
            f"{where} answered {found} for row {int(index[at])}; wanted a number that is finite in storage. {advice}"
        )
    if kind == "probabilities":
        _check_probabilities(answers, index, low=low, high=high, where=where)


def _check_probabilities(answers: Tensor, index: Tensor, *, low: float, high: float, where: str) -> None:
    off = torch.zeros(answers.shape[0], dtype=torch.bool)
    if low < 0.0 or high > 1.0 + _SUM_TOLERANCE:
        off = ((answers < 0.0) | (answers > 1.0 + _SUM_TOLERANCE)).flatten(1).any(dim=1)
    elif answers.shape[-1] > 1:
        off = ((answers.sum(dim=-1, dtype=torch.float64) - 1.0).abs() > _SUM_TOLERANCE).any(dim=1)
    if bool(off.any()):
        at = int(off.nonzero()[0])
        raise TeacherError(
            f"{where} declares probabilities but answers {_show(answers[at])} for row {int(index[at])}, which are none "
            f'(each in [0, 1], sum 1). If these are logits, declare kind="logits".'
        )


def check_logits(answers: Tensor, where: str = "The teacher") -> None:
    """Raises `TeacherError` if a member's `answers` (B, members, K), declared as logits, are probabilities."""
    member = probabilities_of(answers)
    if member is None:
        return
    whose = where if answers.shape[1] == 1 else f"Member {member} of {where[0].lower()}{where[1:]}"
    found = "sum to 1" if answers.shape[-1] > 1 else "reach from near 0 to near 1"
    raise TeacherError(
        f"{whose} declares logits but answers probabilities: {_show(answers[0, member])} and every other row are in "
        f'[0, 1] and {found}. Declare kind="probabilities", or leave out the softmax or sigmoid. '
        "If they are logits all the same, add 1 to each, which softmax undoes (for one output z: answer [1, 1 + z])."
    )


def probabilities_of(answers: Tensor) -> int | None:
    """The first member of `answers` (B, members, K) whose rows are all probabilities; None where all may be logits.

    K > 1: in [0, 1] and summing to 1, if only roughly (rounded numbers). Few rows, or rows that hardly differ, might do
    that by chance, so their sums have to be exact. K = 1: in [0, 1], with some near 0 and some near 1; the small logits
    of an untrained network, which may well lie in [0, 1], do not reach so far.
    """
    low, high = torch.aminmax(answers, dim=0)  # (members, K)
    inside = ((low >= 0.0) & (high <= 1.0)).all(dim=1)
    if not bool(inside.any()):
        return None
    if answers.shape[-1] == 1:
        inside &= ((low <= _NEAR) & (high >= 1.0 - _NEAR)).all(dim=1)
    else:
        off = (answers.sum(dim=-1, dtype=torch.float64) - 1.0).abs().amax(dim=0)
        varied = ((high - low).amax(dim=1) >= _VARIED) & (answers.shape[0] >= _FEWEST)
        inside &= off <= torch.where(varied, _ROUGH, _EXACT)
    return int(inside.nonzero()[0]) if bool(inside.any()) else None


def name_of(teacher: object) -> str:
    """A teacher for messages: by its label or name, else by the type of what it wraps."""
    label = getattr(teacher, "label", None) or getattr(teacher, "name", None)
    inner = getattr(teacher, "network", teacher)
    return f'The teacher "{label}"' if isinstance(label, str) else f"The teacher ({type(inner).__name__})"


def check_classes(classes: tuple[str, ...] | None, spec: DataSpec, *, kind: Kind, outputs: int) -> None:
    """Raises `TeacherError` unless the teacher's `classes`, the data's and the number of outputs agree.

    Both lists may be absent (None, empty). Those of a teacher of values are targets.
    """
    values, number = kind in soften.OF_VALUES, soften.number(outputs, kind)
    known, what = (spec.targets, "targets") if values else (spec.classes, "classes")
    for names, whose in ((classes, "the teacher names"), (known, "the data has")):
        if names and len(names) != number:
            raise TeacherError(
                f"The teacher answers for {number} {what} ({outputs} outputs), {whose} {len(names)}: {_short(names)}. "
                f"Use a teacher trained on the same {what}."
            )
    if classes and known and classes != known:
        raise TeacherError(
            f"The teacher's {what} are {_short(classes)}; the data's are {_short(known)}. "
            "They must be the same, in the same order: sort the teacher's outputs with teachers.Function."
        )


def narrowed(known: Tensor, mask: Tensor) -> Tensor:
    """`known & mask`, both (n,) bool. Raises `OutputsError` for a mask of another type or shape."""
    if mask.dtype != torch.bool or mask.shape != known.shape:
        raise OutputsError(
            f"The mask of known rows is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"wanted bool of shape {tuple(known.shape)}, one entry per row of the data."
        )
    return known & mask


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])}, ... and {len(names) - 10} more"


def _show(row: Tensor) -> str:
    numbers = [f"{float(x):.3g}" for x in row.flatten()[:5]]
    return f"[{', '.join(numbers)}{', ...' if row.numel() > 5 else ''}]"
