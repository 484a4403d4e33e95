"""A small source and small teachers for the tests of recorded outputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill import storage
from potstill.outputs import Stored, record
from potstill.teachers import Function
from potstill.types import Batch, DataSpec, Kind, Preprocessing, TeacherOutputs

CLASSES = ("a", "b", "c", "d", "e")


@dataclass
class Rows:
    """A source of `n` rows with four features; view v is shifted by v / 10."""

    n: int = 23
    seed: int = 0
    augmentation: str = "shift"
    spec: DataSpec = field(default_factory=lambda: DataSpec((4,), CLASSES))

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.inputs = torch.randn(self.n, 4, generator=generator)
        self.labels = torch.zeros(self.n, dtype=torch.int64)
        self.labelled = torch.ones(self.n, dtype=torch.bool)

    def __len__(self) -> int:
        return self.n

    def fetch(self, index: Tensor, view: int = 0) -> Batch:
        inputs = self.inputs.index_select(0, index) + view / 10
        return Batch(inputs=inputs, labels=self.labels[index], labelled=self.labelled[index], index=index)

    def fingerprint(self) -> str:
        return storage.tensor_sha256(self.inputs)

    def other(self, **changes: Any) -> Rows:
        return replace(self, **changes)

    def preprocessed(self, scale: float) -> Rows:
        spec = self.spec
        return replace(self, spec=DataSpec(spec.shape, spec.classes, spec.task, Preprocessing(scale)))


def weights(members: int, outputs: int, *, seed: int = 0) -> Tensor:
    """(4, members, outputs)."""
    return torch.randn(4, members, outputs, generator=torch.Generator().manual_seed(seed)) * 2


def answers(inputs: Tensor, kind: Kind, *, members: int = 2, outputs: int = 5) -> Tensor:
    """(B, members, outputs) of the sample teacher, whatever its kind."""
    logits = torch.einsum("bf,fmo->bmo", inputs, weights(members, outputs))
    if kind == "probabilities":
        return logits.sigmoid() if outputs == 1 else logits.softmax(-1)
    return logits


class Asked:
    """The sample teacher as a function that counts its batches, and may break at one of them."""

    def __init__(self, kind: Kind = "logits", *, members: int = 2, outputs: int = 5) -> None:
        self.kind = kind
        self.members = members
        self.outputs = outputs
        self.count = 0
        self.breaks_at: int | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.count == self.breaks_at:
            raise ConnectionError("the teacher went away")
        self.count += 1
        return answers(inputs, self.kind, members=self.members, outputs=self.outputs)


def teacher(asked: Asked | None = None, **changes: Any) -> Function:
    """The sample teacher; `changes` are those of `Function`."""
    asked = asked or Asked()
    return Function(asked, **{"kind": asked.kind, "classes": None, "name": "sample", **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def oracle(
    stored: np.ndarray[Any, Any], kind: Kind, temperature: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """probs, log_probs, neg_entropy in float64 from (n, members, outputs), straight from the definitions."""
    x = stored.astype(np.float64)
    if kind == "probabilities":
        x = np.concatenate([1 - x, x], -1) if x.shape[-1] == 1 else x
        x = np.log(np.maximum(x, np.finfo(np.float32).tiny))
    elif x.shape[-1] == 1:
        x = np.concatenate([np.zeros_like(x), x], -1)
    e = np.exp((x - x.max(-1, keepdims=True)) / temperature)
    p = (e / e.sum(-1, keepdims=True)).mean(1)
    logs = np.log(p)
    return p, logs, (p * logs).sum(-1)


ALL = torch.arange(23)
BINARY = DataSpec((4,), ("no", "yes"), "binary")


def rows_for(outputs_: int) -> Rows:
    return Rows(spec=BINARY) if outputs_ == 1 else Rows()


def recorded(folder: Path, kind: Kind = "logits", members: int = 2, outputs_: int = 5, **settings: Any) -> Stored:
    sample = teacher(Asked(kind, members=members, outputs=outputs_))
    return record(sample, rows_for(outputs_), folder, **{"batch_size": 4, "shard_batches": 2, **settings})


def same(one: TeacherOutputs, two: TeacherOutputs, tolerance: float = 1e-6) -> None:
    for name in ("probs", "log_probs", "neg_entropy", "member_probs"):
        for temperature in (1.0, 4.0):
            found, wanted = getattr(one, name)(temperature), getattr(two, name)(temperature)
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.logits(), two.logits(), rtol=tolerance, atol=tolerance)
    assert torch.equal(one.known, two.known)
