"""A user's own torch module as a teacher."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.errors import TeacherError
from potstill.teachers.kinds import check_kind
from potstill.types import Kind

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@final
class Torch:
    """A torch module as a teacher: inputs (B, ...) to (B, K), (B, 1) or (B, members, K), without gradients.

    The module is asked in evaluation mode on the device of its parameters; every submodule's own mode is put back
    afterwards. `kind` says what its outputs are: "logits", "probabilities", or a regression's
    "values" or "gaussian" (means, then log variances) in the targets' own units.

    Raises `TeacherError` when the module answers something that is not a tensor.

    >>> import torch
    >>> teacher = Torch(torch.nn.Linear(4, 3), classes=("a", "b", "c"))
    >>> teacher(torch.zeros(2, 4)).shape, teacher.kind
    (torch.Size([2, 3]), 'logits')
    """

    __slots__ = ("classes", "kind", "network")

    def __init__(self, network: nn.Module, *, kind: Kind = "logits", classes: Sequence[str] | None = None) -> None:
        if not isinstance(network, nn.Module):
            raise TeacherError(
                f"teachers.Torch takes a torch.nn.Module, not {type(network).__name__}. "
                "For any other callable use teachers.Function(fn, kind=..., name=...)."
            )
        self.network = network
        self.kind: Kind = check_kind(kind)
        _refuse_softmax(network, self.kind)
        self.classes: tuple[str, ...] | None = None if classes is None else tuple(classes)

    def fingerprint(self) -> str:
        """Hash of the module's structure (its repr) and of the names, types, shapes and bytes of its state.

        Computed anew at every call, since the module may have been trained in between.
        """
        # An address in the repr (a lambda as activation) differs in every process and says nothing.
        structure = _ADDRESS.sub("", repr(self.network))
        state = [[name, _content(value)] for name, value in _state(self.network)]
        return storage.fingerprint({"torch": structure, "state": state})

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) to (B, K), (B, 1) or (B, members, K)."""
        training = [module for module in self.network.modules() if module.training]
        place = next(self.network.parameters(), None)
        try:
            for module in training:
                object.__setattr__(module, "training", False)  # ten times cheaper than nn.Module's own setter
            with torch.no_grad():
                # A copy: the network may write into its inputs, which may be the data itself.
                answers = self.network(inputs.clone() if place is None else inputs.to(place.device, copy=True))
        finally:
            for module in training:
                object.__setattr__(module, "training", True)
        if not isinstance(answers, Tensor):
            raise TeacherError(
                f"The teacher's network ({type(self.network).__name__}) answered {type(answers).__name__}, wanted a "
                "tensor (B, outputs). Wrap it in a module, or in teachers.Function, that returns the tensor alone."
            )
        return answers


def _refuse_softmax(network: nn.Module, kind: Kind) -> None:
    last = network
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if kind == "logits" and isinstance(last, nn.Softmax | nn.Sigmoid):
        raise TeacherError(
            f"The teacher ({type(network).__name__}) declares logits, but its last layer is {last}: it answers "
            'probabilities, which would be softened twice. Declare kind="probabilities", or leave that layer out.'
        )


def _state(network: nn.Module) -> Iterator[tuple[str, object]]:
    """Parameters and buffers by name; buffers that the state dict leaves out decide the answers too."""
    state = network.state_dict(keep_vars=False)
    yield from sorted(state.items())
    for name, buffer in sorted(network.named_buffers(remove_duplicate=False)):
        if name not in state:
            yield name, buffer


def _content(value: object) -> str:
    return storage.tensor_sha256(value) if isinstance(value, Tensor) else _ADDRESS.sub("", repr(value))
