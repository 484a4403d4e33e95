"""Any callable as a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from potstill import storage
from potstill.errors import TeacherError
from potstill.teachers.kinds import check_kind
from potstill.types import Kind


@final
class Function:
    """A callable as a teacher: inputs (B, ...) to (B, K), (B, 1) or (B, members, K), without gradients.

    `fn` takes a tensor, or with `numpy=True` an array, and returns either. Its code cannot be hashed, so the
    fingerprint is that of `name`: give another name (a version, a date) whenever its answers may change.

    Raises `TeacherError` for an empty name, and when `fn` returns something that is not numbers.

    >>> import torch
    >>> teacher = Function(lambda x: x[:, :2] * 5, kind="logits", name="first two features, version 1")
    >>> teacher(torch.ones(1, 4))
    tensor([[5., 5.]])
    """

    __slots__ = ("classes", "fn", "kind", "name", "numpy")

    def __init__(
        self,
        fn: Callable[[Any], Any],
        *,
        kind: Kind,
        classes: Sequence[str] | None = None,
        name: str,
        numpy: bool = False,
    ) -> None:
        if not name.strip():
            raise TeacherError("A teacher from a function needs a name, since recordings are told apart by it.")
        self.fn = fn
        self.kind: Kind = check_kind(kind)
        self.classes: tuple[str, ...] | None = None if classes is None else tuple(classes)
        self.name = name
        self.numpy = numpy

    def fingerprint(self) -> str:
        """Hash of the name."""
        return storage.fingerprint({"function": self.name})

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) to (B, K), (B, 1) or (B, members, K)."""
        with torch.no_grad():
            # A copy: the function may write into its inputs, which may be the data itself.
            own = inputs.clone()
            answers = self.fn(own.cpu().numpy() if self.numpy else own)
        if isinstance(answers, Tensor):
            return answers
        array = np.asarray(answers)
        if array.dtype.kind not in "fiu":
            raise TeacherError(
                f'Teacher "{self.name}" answered {type(answers).__name__} of type {array.dtype}, '
                "wanted a tensor or array of numbers (B, outputs)."
            )
        return torch.from_numpy(np.ascontiguousarray(array))
