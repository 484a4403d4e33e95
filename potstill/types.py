"""What passes between the floors: frozen data, and the protocols of the seams.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import LongTensor, Tensor, nn

Kind: TypeAlias = Literal["logits", "probabilities", "values"]
Task: TypeAlias = Literal["multiclass", "binary"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to raw inputs before a network sees them: `raw * scale + offset`, in float32."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a model has to know about its data; travels with the model in `network.json`.

    `shape` is one example without the batch axis: (F,) for rows, (C, H, W) for pictures.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    task: Task = "multiclass"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def outputs(self) -> int:
        """Number of logits of a network for this data: one for a binary task, else one per class."""
        return 1 if self.task == "binary" else len(self.classes)


class TeacherOutputs(Protocol):
    """A teacher's answers for the rows of one batch."""

    @property
    def known(self) -> Tensor:
        """(B,) bool: for which rows the teacher's answer is known."""

    def probs(self, temperature: float = 1.0) -> Tensor:
        """(B, K) float32: softened probabilities, the MEAN over members; rows that are not known are uniform."""

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """(B, K) float32: logarithm of `probs`."""

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        """(B,) float32: sum over classes of p log p, the constant part of KL(teacher || student)."""

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        """(B, members, K) float32: each member's softened probabilities; uniform where not known."""

    def logits(self) -> Tensor:
        """(B, K) or (B, 1) float32: the mean of the members' logits (zero where not known)."""

    def features(self) -> Mapping[str, Tensor]:
        """Named hidden features of a live teacher; empty for recorded outputs."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. Every tensor has B rows in the same order.

    `labels` (B,) int64 holds 0 where `labelled` (B,) bool is False; `index` (B,) int64 is the row in the source.
    """

    inputs: Tensor
    labels: Tensor
    labelled: Tensor
    index: Tensor
    teacher: TeacherOutputs | None = None
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a student answers: logits (B, K), or (B, 1) for a binary task, and named hidden features."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


Terms: TypeAlias = "dict[str, Tensor]"
ObjectiveFunction: TypeAlias = "Callable[[Outputs, Batch], Terms]"
Penalty: TypeAlias = "Callable[[nn.Module], Tensor]"


@runtime_checkable
class Source(Protocol):
    """Examples by number. `fetch` is batched and pure: the same arguments give the same tensors.

    `view` 0 is the plain example; views 1, 2, ... are augmented versions, keyed by (view, index).
    """

    @property
    def spec(self) -> DataSpec:
        """Shape, classes, task and preprocessing."""

    @property
    def augmentation(self) -> str:
        """Canonical text of the augmentation that views 1, 2, ... use; empty without one."""

    @property
    def labelled(self) -> Tensor:
        """(n,) bool: which rows carry a label."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64: labels; 0 where there is none."""

    def __len__(self) -> int: ...

    def fetch(self, index: LongTensor, view: int = 0) -> Batch:
        """The rows `index` (B,) int64 in that order."""

    def fingerprint(self) -> str:
        """Hash of the examples and their order (not of labels, preprocessing or augmentation)."""


@runtime_checkable
class Teacher(Protocol):
    """Anything that answers, behind an adapter."""

    @property
    def kind(self) -> Kind:
        """What the numbers are."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the outputs; None where the teacher does not know them."""

    def fingerprint(self) -> str:
        """Hash of whatever decides the answers."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) preprocessed inputs to (B, K), (B, 1), or (B, members, K)."""


@runtime_checkable
class Answers(Protocol):
    """A teacher's answers by row: recorded (`Stored`) or asked each time (`Live`)."""

    def lookup(self, index: LongTensor, view: int) -> TeacherOutputs:
        """Answers for the rows `index` of view `view`."""

    @property
    def known(self) -> Tensor:
        """(n,) bool: rows with an answer."""

    def fingerprint(self) -> str:
        """Hash of the answers, or of the teacher and source that give them."""
