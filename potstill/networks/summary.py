"""What a network is made of: its layers, with the shapes that come out, parameters and multiply-adds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from potstill.networks.build import evaluating, zeros


class Layer(NamedTuple):
    """A part of a network: its name, what it is, the shape of one example that comes out, and what it costs.

    Parameters that several parts share are counted with the first of them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layers(network: nn.Module, shape: tuple[int, ...], *, deep: bool = False) -> list[Layer]:
    """The parts of a network in the order in which one example of `shape` passes them, in evaluation mode.

    They are its children, which are its hidden features; with `deep` the innermost modules, under dotted names. A part
    that is passed several times has the shape of the last time, and the multiply-adds of all.
    """
    parts = dict(network.named_children())
    if deep or not parts:
        parts = {name: part for name, part in network.named_modules() if not list(part.children())}
    names = {part: name for name, part in parts.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    flops: dict[str, int] = {}
    passing: list[tuple[nn.Module, int]] = []  # a part may also be inside another, where it is not counted by itself

    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:

        def enter(part: nn.Module, _: Any) -> None:
            passing.append((part, counter.get_total_flops()))

        def leave(part: nn.Module, _: Any, answer: Tensor) -> None:
            _, before = passing.pop()
            if not passing:
                name = names[part]
                shapes[name] = tuple(answer.shape[1:])
                flops[name] = flops.get(name, 0) + counter.get_total_flops() - before

        hooks = [part.register_forward_pre_hook(enter) for part in parts.values()]
        hooks += [part.register_forward_hook(leave) for part in parts.values()]
        try:
            network(zeros(network, 1, shape))
        finally:
            for hook in hooks:
                hook.remove()
    counted, rows = set[int](), []
    for name, out in shapes.items():
        own = [p for p in parts[name].parameters() if id(p) not in counted]
        counted |= {id(p) for p in own}
        kind = type(parts[name]).__name__
        rows.append(Layer(name or type(network).__name__, kind, out, sum(p.numel() for p in own), flops[name] // 2))
    return rows
