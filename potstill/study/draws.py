"""Random search: settings drawn by Optuna's RandomSampler, a pure function of the space and a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from potstill import storage

_PATIENCE = 50  # draws for each trial that is wanted: small spaces repeat themselves


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included; whole numbers where both ends are."""

    scale: Literal["log", "linear"]
    low: float
    high: float

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Space: TypeAlias = "Sequence[Any] | Range"


def draw(space: Mapping[str, Space], trials: int, key: int) -> list[dict[str, Any]]:
    """`trials` different settings, fewer where the space is too small. The first N of more trials are those of N."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=key % 2**32))
    optuna.logging.set_verbosity(before)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_PATIENCE * trials):
        asked = study.ask()
        settings = {name: _one(asked, name, values) for name, values in space.items()}
        found.setdefault(storage.canonical(settings), settings)
        if len(found) == trials:
            break
    return list(found.values())


def _one(trial: Any, name: str, space: Space) -> Any:
    if not isinstance(space, Range):
        return space[trial.suggest_categorical(name, list(range(len(space))))]
    log = space.scale == "log"
    if space.whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=log)
    return rounded(trial.suggest_float(name, space.low, space.high, log=log), space)


def rounded(x: float, space: Range) -> Any:
    """Six significant digits, within the range: a setting to copy, and enough."""
    return round(x) if space.whole else min(max(float(f"{x:.6g}"), float(space.low)), float(space.high))
