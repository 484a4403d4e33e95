"""What passes between the floors: frozen data, and the protocols of the seams.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from potstill.errors import DataError

if TYPE_CHECKING:
    from torch import LongTensor, Tensor, nn

Kind: TypeAlias = Literal["logits", "probabilities", "values", "gaussian"]
Task: TypeAlias = Literal["multiclass", "binary", "regression"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to raw inputs before a network sees them: `raw * scale + offset`, in float32."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetScaling:
    """What becomes of a regression network's answers: target = answer * scale + offset, per target, in float32.

    So a network learns and answers in standard deviations from a mean, and nobody else ever sees these units.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a model has to know about its data; travels with the model in `network.json`.

    `shape` is one example without the batch axis: (F,) for rows, (C, H, W) for pictures. In a regression there are no
    classes; `targets` names the D >= 1 targets, and `scaling` is None where networks answer in the targets' own units.
    `sees`: the name of the input, empty where the data have one without a name. `vocabulary`: examples are word ids
    from 0, which pads, to vocabulary - 1; 0 where they are numbers. `recipe` (JSON): how it is made from
    raw material; empty where the raw numbers are stored as they are.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    task: Task = "multiclass"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    targets: tuple[str, ...] = ()
    scaling: TargetScaling | None = None
    sees: str = ""
    vocabulary: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def outputs(self) -> int:
        """Number of outputs of a network for this data: one logit for a binary task, else one per class or target."""
        return 1 if self.task == "binary" else len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, or of the targets."""
        return self.targets if self.task == "regression" else self.classes


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

    def values(self) -> Tensor:
        """(B, D) float32: a regression's targets, the mean over members (zero where not known)."""

    def variance(self) -> Tensor | None:
        """(B, D) float32: of those values (1 where not known); None where there is none.

        The members' own variances in the mean, and the variance of their values around their mean (law of total
        variance). A single teacher of plain values has none.
        """

    def features(self) -> Mapping[str, Tensor]:
        """Hidden features of a live teacher by name, (B, ...) each, where any were asked for; recordings have none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. Every tensor has B rows in the same order.

    `labels` (B,) int64, of a regression (B, D) float32, holds 0 where `labelled` (B,) bool is False; `index` (B,) int64
    is the row in the source. A source gives labels and a teacher gives values in the targets' own units; what a
    training hands to an objective are those of the network's answers (`DataSpec.scaling`).
    """

    inputs: Tensor
    labels: Tensor
    labelled: Tensor
    index: Tensor
    teacher: TeacherOutputs | None = None
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a student answers: logits (B, K), or (B, 1) for a binary task, or values (B, D); named hidden features."""

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
        """Shape, classes or targets, task and preprocessing."""

    @property
    def augmentation(self) -> str:
        """Canonical text of the augmentation that views 1, 2, ... use; empty without one."""

    @property
    def labelled(self) -> Tensor:
        """(n,) bool: which rows carry a label."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64, of a regression (n, D) float32 in the targets' own units: labels; 0 where there is none."""

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
        """What the numbers are.

        Values are a regression's, (B, D) in the targets' own units; of the kind gaussian (B, 2 D): means first, then
        the natural logarithms of variances.
        """

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of classes (of a regression's targets) in the order of the outputs; None if the teacher knows none."""

    def fingerprint(self) -> str:
        """Hash of whatever decides the answers."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) preprocessed inputs to (B, K), (B, 1), (B, D) or (B, 2 D), or to (B, members, ...) of these."""


@runtime_checkable
class Featured(Protocol):
    """A teacher whose hidden features can be had, beside being a `Teacher`."""

    def features(self, inputs: Tensor, names: Sequence[str]) -> Outputs:
        """What it answers to preprocessed inputs (B, ...), and the hidden features `names`, (B, ...) each."""


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


def seen_by(model: object, source: Source) -> Source:
    """The source as a model is handed it: with the input that its `sees` names, and no other.

    A source without named inputs, and one for a model that names none, stays as it is. `DataError` where the source
    does not have that input, or has it made otherwise than it was for the model's training (`recipe`), and for whole
    data in its place.
    """
    if not hasattr(source, "fetch"):
        raise DataError(f"Found a {type(source).__name__}; wanted is one of its parts, such as data.test.")
    name, recipe = getattr(model, "sees", ""), getattr(model, "recipe", {})
    if name and source.spec.sees:
        source = source.seeing(name)  # type: ignore[attr-defined]
    if recipe and source.spec.recipe and recipe != source.spec.recipe:
        raise DataError(
            "The examples are prepared otherwise than the model's training data were (scaling, categories and words "
            "come from the training rows). Open them with like=model.spec."
        )
    return source
