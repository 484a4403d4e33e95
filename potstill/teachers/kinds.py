"""The kinds of answers."""

from __future__ import annotations

from typing import get_args

from potstill.errors import TeacherError, unknown
from potstill.types import Kind


def check_kind(kind: Kind) -> Kind:
    """The same; raises `TeacherError` with a suggestion for any other word."""
    if kind not in get_args(Kind):
        raise TeacherError(unknown("kind of answers", str(kind), get_args(Kind)))
    return kind
