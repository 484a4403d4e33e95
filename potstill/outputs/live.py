"""A teacher that is asked anew for every batch, behind the same protocol as recorded outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import LongTensor, Tensor

from potstill import storage
from potstill.errors import TeacherError
from potstill.outputs import soften
from potstill.outputs.check import (
    as_members,
    check_classes,
    check_logits,
    check_values,
    must_be_teacher,
    name_of,
    narrowed,
)
from potstill.outputs.manifest import prepared
from potstill.types import Featured, Source, Teacher, TeacherOutputs, seen_by

_LIMIT = torch.finfo(torch.float32).max


@final
class Live:
    """A teacher's answers for the rows of a source, asked each time. Satisfies `Answers`.

    The same numbers as a recording gives, up to the last bits (which depend on the batch). Costs a forward pass of the
    teacher per batch; any view can be asked for. Of several inputs the teacher gets the one that it sees.
    """

    __slots__ = ("_asked", "_known", "_names", "source", "teacher")

    def __init__(self, teacher: Teacher, source: Source) -> None:
        must_be_teacher(teacher)
        self.teacher = teacher
        self.source = seen_by(teacher, source)
        self._known = torch.ones(len(source), dtype=torch.bool)
        self._names: tuple[str, ...] = ()
        self._asked = False

    @property
    def known(self) -> Tensor:
        """(n,) bool: rows with an answer."""
        return self._known

    def with_known(self, mask: Tensor) -> Live:
        """The same teacher, of which only the answers to the rows in `mask` (n,) bool are known."""
        return self._but(narrowed(self._known, mask), self._names)

    def with_features(self, names: Sequence[str]) -> Live:
        """The same teacher, which also answers its hidden features `names`.

        Raises `TeacherError` for a teacher that has none to give, such as an ensemble or a function.
        """
        if names and not isinstance(self.teacher, Featured):
            raise TeacherError(
                f"{name_of(self.teacher)} has no hidden features that could be asked for; wanted are "
                f"{', '.join(names)}. One trained model has, or a module in teachers.Torch; an ensemble's members "
                "have features of their own."
            )
        return self._but(self._known, tuple(names))

    def _but(self, known: Tensor, names: tuple[str, ...]) -> Live:
        other = Live(self.teacher, self.source)
        other._known, other._names = known, names
        return other

    def fingerprint(self) -> str:
        """Hash of the teacher's and the source's fingerprints, preprocessing, augmentation and known rows."""
        return storage.fingerprint(
            {
                "teacher": self.teacher.fingerprint(),
                "kind": self.teacher.kind,
                "source": self.source.fingerprint(),
                "preprocessing": prepared(self.source.spec),
                "augmentation": self.source.augmentation,
                "known": storage.tensor_sha256(self._known),
            }
        )

    def lookup(self, index: LongTensor, view: int = 0) -> TeacherOutputs:
        """The answers for the rows `index` (B,) int64 of view `view`: one forward pass, on first use.

        Raises `TeacherError` for an answer of another shape or kind than declared, or that is not finite.
        """
        return _Asked(self, index, view)

    def _ask(self, index: LongTensor, view: int) -> tuple[soften.Softened, Mapping[str, Tensor]]:
        kind, inputs = self.teacher.kind, self.source.fetch(index, view).inputs
        hidden: Mapping[str, Tensor] = {}
        with torch.no_grad():
            if self._names and isinstance(self.teacher, Featured):
                found = self.teacher.features(inputs, self._names)
                raw, hidden = found.logits, found.features
            else:
                raw = self.teacher(inputs)
            answers = as_members(raw, index.shape[0])
        check_values(answers, index, kind=kind, limit=_LIMIT)
        if not self._asked:
            check_classes(self.teacher.classes, self.source.spec, kind=kind, outputs=answers.shape[-1])
            if kind == "logits":
                check_logits(answers, name_of(self.teacher))
            self._asked = answers.shape[0] > 1  # one row tells little
        known = self._known.index_select(0, index)
        logits = soften.class_logits(answers.cpu(), kind)
        return soften.Softened(logits, known, kind=kind, outputs=answers.shape[-1]), hidden


@final
class _Asked:
    """The answers for one batch; the teacher is asked when the first of them is wanted."""

    __slots__ = ("_answers", "_index", "_live", "_view")

    def __init__(self, live: Live, index: LongTensor, view: int) -> None:
        self._live = live
        self._index = index
        self._view = view
        self._answers: tuple[soften.Softened, Mapping[str, Tensor]] | None = None

    def _ask(self) -> tuple[soften.Softened, Mapping[str, Tensor]]:
        if self._answers is None:
            self._answers = self._live._ask(self._index, self._view)
        return self._answers

    def _get(self) -> soften.Softened:
        return self._ask()[0]

    @property
    def known(self) -> Tensor:
        return self._live.known.index_select(0, self._index)

    def probs(self, temperature: float = 1.0) -> Tensor:
        return self._get().probs(temperature)

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        return self._get().log_probs(temperature)

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        return self._get().neg_entropy(temperature)

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        return self._get().member_probs(temperature)

    def logits(self) -> Tensor:
        return self._get().logits()

    def values(self) -> Tensor:
        return self._get().values()

    def variance(self) -> Tensor | None:
        return self._get().variance()

    def features(self) -> Mapping[str, Tensor]:
        return self._ask()[1]
