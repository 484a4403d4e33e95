"""Which rows, in which order: the same for every method of a study (decisions 1 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.seeding import permutation
from potstill.types import Answers, ObjectiveFunction, Source


def usable_rows(labelled: Tensor, known: Tensor | None, *, needs_labels: bool, needs_teacher: bool) -> Tensor:
    """(m,) int64, ascending: rows that give the objective anything to learn from.

    A row counts if the objective uses labels and the row has one, or it uses a teacher whose answer is known there.
    """
    mask = torch.zeros_like(labelled)
    if needs_labels:
        mask |= labelled
    if needs_teacher and known is not None:
        mask |= known
    return torch.nonzero(mask).flatten()


def rows_for(objective: ObjectiveFunction, source: Source, answers: Answers | None) -> Tensor:
    """(m,) int64: `usable_rows` of an objective; a plain function uses labels, and a teacher if there is one."""
    return usable_rows(
        source.labelled,
        None if answers is None else answers.known,
        needs_labels=getattr(objective, "needs_labels", True),
        needs_teacher=getattr(objective, "needs_teacher", answers is not None),
    )


def epoch_rows(rows: Tensor, n: int, seed: int, epoch: int) -> Tensor:
    """(n,) int64: the rows of one epoch, keyed by (seed, epoch).

    With fewer usable rows than the source has (m < n), they repeat: one permutation after the other until n are there,
    so that an epoch is the same number of steps for every model of a study.
    """
    m = len(rows)
    parts = [rows.index_select(0, permutation(m, "order", seed, epoch, repeat)) for repeat in range(-(-n // m))]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[:n]
