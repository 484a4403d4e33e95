"""Everything that potstill raises on purpose.

PotstillError                 root; the command line prints it without a traceback
|-- UsageError                the user can mend it: exit status 2
|   |-- DataError             data that cannot be used, or is not there
|   |-- NetworkError          a network that cannot be built or loaded
|   |-- ObjectiveError        an objective or one of its settings
|   |-- TeacherError          a teacher that answers something else than declared
|   |-- OutputsError          recorded outputs: foreign, stale or damaged
|   |-- PosteriorError        a posterior over weights that cannot be made, reduced or used
|   |-- PlanError             a plan; knows the dotted key and the line
|   |   `-- NotYetError       the plan language has it, this version does not
|   |-- RunError              a run folder: locked, stale, of another plan
|   |-- MissingExtraError     an optional library is not installed
|   `-- SettingError          any other argument out of its range
|-- StorageError              the disk: full, read-only, damaged files
|-- TrainingError             a training that went wrong (NaN): exit status 1
`-- Interrupted               stopped on request, after saving: exit status 130

A message says what was found, what was wanted, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PotstillError(Exception):
    """Root of all errors that potstill raises on purpose."""

    exit_status = 1


class UsageError(PotstillError):
    """Something the user can mend."""

    exit_status = 2


class DataError(UsageError, ValueError):
    """Data that cannot be used, or is not there."""


class NetworkError(UsageError, ValueError):
    """A network that cannot be built or loaded."""


class ObjectiveError(UsageError, ValueError):
    """An objective, or one of its settings."""


class TeacherError(UsageError, ValueError):
    """A teacher that answers something else than it declared."""


class OutputsError(UsageError, ValueError):
    """Recorded outputs that are foreign, stale or damaged. `field` names the manifest's field, if one differs."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PosteriorError(UsageError, ValueError):
    """A posterior over a network's weights that cannot be made, reduced, or used as a prior."""


class PlanError(UsageError, ValueError):
    """A plan that cannot be run. `key` is the dotted key, `line` its line in the TOML file."""

    def __init__(self, message: str, *, key: str | None = None, line: int | None = None) -> None:
        where = f"{key}: " if key else ""
        where = f"line {line}, {where}" if line else where
        super().__init__(where + message)
        self.key = key
        self.line = line
        self.bare = message


class NotYetError(PlanError):
    """The plan language has this, this version of potstill does not."""


class RunError(UsageError, RuntimeError):
    """A run folder that is locked, stale, or of another plan."""


class MissingExtraError(UsageError, ImportError):
    """An optional library is not installed."""


class SettingError(UsageError, ValueError):
    """An argument out of its range."""


class StorageError(PotstillError, OSError):
    """The disk: full, read-only, or a damaged file."""


class TrainingError(PotstillError, RuntimeError):
    """A training that went wrong. `step` is the optimiser step (from 0) at which it was noticed."""

    def __init__(self, message: str, *, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(PotstillError):
    """Stopped on request; everything reached so far is saved."""

    exit_status = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message, empty when nothing is near.

    >>> did_you_mean("hintn", ["hinton", "mlp"])
    ' Did you mean "hinton"?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The message for a word that is not in a list: found, suggestion, wanted.

    >>> unknown("network", "mpl", ["linear", "mlp"])
    'Unknown network "mpl". Did you mean "mlp"? Known: linear, mlp.'
    """
    names = sorted(known)
    return f'Unknown {what} "{word}".{did_you_mean(word, names)} Known: {", ".join(names)}.'
