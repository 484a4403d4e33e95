"""A user's own torch module as a teacher."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.errors import TeacherError, unknown
from potstill.teachers.kinds import check_kind
from potstill.types import Kind, Outputs

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

    def features(self, inputs: Tensor, names: Sequence[str]) -> Outputs:
        """What a call answers, and what the submodules `names` ("stage2", "stage2.block1") answered on the way.

        Raises `TeacherError` for a submodule that is not there, that is used several times or not at all for one
        answer, or that answers something else than a tensor.
        """
        found: dict[str, list[object]] = {name: [] for name in names}
        handles = []
        known = dict(self.network.named_modules())
        try:
            for name, kept in found.items():
                if name not in known:
                    raise TeacherError(unknown("feature of the teacher", name, [each for each in known if each]))
                handles.append(known[name].register_forward_hook(_keeper(kept)))
            answers = self(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return Outputs(answers, {name: _only(name, kept) for name, kept in found.items()})

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


def _keeper(kept: list[object]) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: object, answer: object) -> None:  # noqa: ARG001 - the signature of a hook
        # A copy: what comes after may overwrite it.
        kept.append(answer.clone() if isinstance(answer, Tensor) else answer)

    return keep


def _only(name: str, kept: list[object]) -> Tensor:
    if len(kept) != 1:
        raise TeacherError(
            f'The teacher\'s feature "{name}" was computed {len(kept)} times for one answer; wanted is once. '
            "Give every use a module of its own, or name another."
        )
    if not isinstance(kept[0], Tensor):
        raise TeacherError(f'The teacher\'s feature "{name}" is of type {type(kept[0]).__name__}; wanted is a tensor.')
    return kept[0]


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
