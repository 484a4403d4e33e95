"""Checkpoints: safetensors + JSON with everything to continue bit for bit (decision 4).

Randomness has keys, so no generator's state is stored: step number and seed say it all. The tensors are written first
under a name that holds the step, the JSON that names them and their sha256 last.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from potstill import storage
from potstill.errors import RunError, StorageError

FORMAT = 1


@dataclass(slots=True)
class State:
    """How far a training is. `sums` belongs to the running epoch: term -> sum over rows; `rows` counts them."""

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_value: float | None = None
    best_step: int | None = None
    monitored: float | None = None
    stale: int = 0
    stopped: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


class Kept(NamedTuple):
    """A checkpoint: how far the training is, and the tensors of the model, the optimiser and the objective."""

    state: State
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    objective: dict[str, Tensor]


_PLAIN = (
    "step", "sums", "rows", "history", "best_value", "best_step", "monitored", "stale", "stopped", "seconds", "notes",
    "curve",
)  # fmt: skip


def first_difference(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: str = ""
) -> tuple[str, Any, Any] | None:
    """The first dotted key at which two tables differ, with both values; None if they are equal.

    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    ('a.b', 1, 2)
    """
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        where = f"{path}.{key}" if path else key
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = first_difference(a, b, where)
            if inner:
                return inner
        elif storage.canonical(a) != storage.canonical(b):
            return where, a, b
    return None


def save(
    folder: Path,
    state: State,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    *,
    objective: Mapping[str, Tensor] | None = None,
    settings: Mapping[str, Any],
    engine: Mapping[str, Any],
) -> None:
    """Write a checkpoint and remove the one before; `objective`: its own parameters."""
    tensors = {f"model/{name}": t for name, t in model.items()}
    tensors |= {f"optimizer/{name}": t for name, t in optimizer.items()}
    tensors |= {f"objective/{name}": t for name, t in (objective or {}).items()}
    tensors |= {f"best/{name}": t for name, t in (state.best or {}).items()}
    name = f"step-{state.step:09d}.safetensors"
    digest = storage.write_tensors(folder / name, tensors)
    storage.write_json(
        folder / "checkpoint.json",
        {
            "format": FORMAT,
            "tensors": name,
            "sha256": digest,
            "settings": dict(settings),
            "engine": dict(engine),
            "state": {key: getattr(state, key) for key in _PLAIN},
        },
    )
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load(folder: Path, *, settings: Mapping[str, Any], engine: Mapping[str, Any]) -> Kept | None:
    """What a checkpoint holds; None if there is none.

    Raises `RunError` if it was written with other settings (naming the key and both values), `StorageError` if damaged.
    """
    path = folder / "checkpoint.json"
    if not path.is_file():
        return None
    found = storage.read_json(path)
    if found.get("format") != FORMAT:
        raise RunError(f"{path} is of format {found.get('format')}, wanted {FORMAT}. Delete {folder} to start anew.")
    difference = first_difference(found["settings"], settings)
    if difference:
        key, before, now = difference
        raise RunError(
            f"{folder} holds a checkpoint of another training: {key} was {before!r} and is now {now!r}. "
            f"Choose another folder, or delete {folder} to start anew."
        )
    file = folder / found["tensors"]
    if not file.is_file() or storage.sha256_file(file) != found["sha256"]:
        raise StorageError(f"{file} is missing or damaged. Delete {folder} to start this training anew.")
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "objective": {}, "best": {}}
    for name, tensor in storage.read_tensors(file).items():
        group, rest = name.split("/", 1)
        groups[group][rest] = tensor
    state = State(**found["state"])
    state.best = groups["best"] or None
    elsewhere = first_difference(found["engine"], engine)
    if elsewhere:
        key, before, now = elsewhere
        state.notes.append(
            f"continued at step {state.step} with {key} {now} instead of {before}: the last bits may differ from an "
            "uninterrupted training"
        )
    return Kept(state, groups["model"], groups["optimizer"], groups["objective"])


def remove(folder: Path) -> None:
    """Delete a checkpoint folder, if there is one."""
    shutil.rmtree(folder, ignore_errors=True)
