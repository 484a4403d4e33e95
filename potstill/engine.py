"""Device, precision, threads, prediction: plain torch on one device.

`torch.set_float32_matmul_precision("medium")` doubles float32 matrix speed on recent CPUs at float32-level error; it is
used where `probe_matmul` confirms that error on this machine, and a run records what it used.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from potstill.errors import SettingError
from potstill.types import Batch, Source, Teacher, TeacherOutputs, seen_by

Precision = Literal["float32", "bf16"]
_NUMBERS, _FEWEST = 2**20, 16  # of a batch's inputs; examples
_PROBE_LIMIT = 4e-6  # of the largest element; float32 itself errs by about 4e-7 here, TF32 and bf16 by 1e-3


@cache
def probe_matmul(device: str = "cpu") -> str:
    """`"medium"` if float32 products keep float32-level error at that setting here, else `"highest"`."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(128, 512, generator=generator), torch.randn(512, 128, generator=generator)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = (a.to(device) @ b.to(device)).cpu().double()
    finally:
        torch.set_float32_matmul_precision(before)
    error = float((found - exact).abs().max() / exact.abs().max())
    return "medium" if error <= _PROBE_LIMIT else "highest"


@dataclass(frozen=True, slots=True)
class Engine:
    """Where and how to compute. `precision` "bf16" runs forward passes under autocast; losses stay float32."""

    device: str = "cpu"
    precision: Precision = "float32"
    channels_last: bool = False

    @staticmethod
    def pick(precision: Precision = "float32", *, channels_last: bool = False) -> Engine:
        """The first CUDA device if there is one, else the CPU; `$POTSTILL_DEVICE` overrides."""
        device = os.environ.get("POTSTILL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.device(device)
        except RuntimeError:
            raise SettingError(f'$POTSTILL_DEVICE is "{device}"; wanted is a device of torch, such as cpu.') from None
        if precision not in ("float32", "bf16"):
            raise SettingError(f'precision is "{precision}"; it can be "float32" or "bf16".')
        return Engine(device, precision, channels_last)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Set the precision of float32 products inside the block, and put it back."""
        with products(probe_matmul(self.device)):
            yield

    def autocast(self) -> Any:
        """The context for forward passes."""
        if self.precision == "bf16":
            return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)
        return nullcontext()

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the chosen memory layout."""
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network  # type: ignore[call-overload]

    def move(self, batch: Batch) -> Batch:
        """Move a batch to the device, in the chosen memory layout; the same object where nothing has to move."""
        inputs = batch.inputs
        if self.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self.device == "cpu":
            return batch if inputs is batch.inputs else replace(batch, inputs=inputs)
        inputs, labels, labelled = (
            t.to(self.device, non_blocking=True) for t in (inputs, batch.labels, batch.labelled)
        )
        teacher = None if batch.teacher is None else _Moved(batch.teacher, self.device)
        return replace(batch, inputs=inputs, labels=labels, labelled=labelled, teacher=teacher)

    def describe(self) -> dict[str, Any]:
        """What decides the last bits of a result; a checkpoint records it."""
        return {
            "device": self.device if self.device == "cpu" else torch.cuda.get_device_name(self.device),
            "precision": self.precision,
            "channels_last": self.channels_last,
            "matmul": probe_matmul(self.device),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Set the precision of float32 products inside the block, and put it back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@final
class _Moved:
    """A teacher's answers, moved when they are asked for: they are softened on the CPU. Satisfies `TeacherOutputs`."""

    __slots__ = ("_answers", "_device")

    def __init__(self, answers: TeacherOutputs, device: str) -> None:
        self._answers = answers
        self._device = device

    @property
    def known(self) -> Tensor:
        return self._to(self._answers.known)

    def probs(self, temperature: float = 1.0) -> Tensor:
        return self._to(self._answers.probs(temperature))

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        return self._to(self._answers.log_probs(temperature))

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        return self._to(self._answers.neg_entropy(temperature))

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        return self._to(self._answers.member_probs(temperature))

    def logits(self) -> Tensor:
        return self._to(self._answers.logits())

    def values(self) -> Tensor:
        return self._to(self._answers.values())

    def variance(self) -> Tensor | None:
        variance = self._answers.variance()
        return None if variance is None else self._to(variance)

    def features(self) -> Mapping[str, Tensor]:
        return {name: self._to(tensor) for name, tensor in self._answers.features().items()}

    def _to(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Use `number` torch threads inside the block, and put the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def at_once(shape: Sequence[int], most: int = 512) -> int:
    """How many examples of a shape a forward pass takes at once, if nobody says: `most` of small ones, fewer of large.

    With more than a million numbers a batch's activations leave a CPU's cache: a ResNet-50 answers 156 photos of 64
    pixels per second in batches of 64, 103 in batches of 256 (one core of an AMD EPYC). Other devices take `most`.
    """
    if Engine.pick().device != "cpu":
        return most
    fit = _NUMBERS // max(math.prod(shape), 1)
    return min(most, max(_FEWEST, 1 << max(fit.bit_length() - 1, 0)))


def predict(teacher: Teacher, source: Source, *, view: int = 0, batch_size: int | None = None) -> Tensor:
    """What a teacher (or a model) answers for every row of a source: (n, K), or (n, members, K), float32 on the CPU.

    `batch_size`: by default as many as `at_once` says. Of several inputs a model gets the one that it sees.
    """
    source = seen_by(teacher, source)
    batch_size = at_once(source.spec.shape) if batch_size is None else batch_size
    answers = []
    with torch.no_grad(), Engine.pick().settings():
        for start in range(0, len(source), batch_size):
            inputs = block(source, start, min(start + batch_size, len(source)), view)
            answers.append(teacher(inputs).detach().float().cpu())
    return torch.cat(answers)


def block(source: Source, start: int, stop: int, view: int = 0) -> Tensor:
    """The inputs of consecutive rows; a source may have a `block` of its own, which need not copy."""
    own = getattr(source, "block", None)
    if own is not None:
        return own(start, stop, view)  # type: ignore[no-any-return]
    return source.fetch(torch.arange(start, stop), view).inputs  # type: ignore[arg-type]
