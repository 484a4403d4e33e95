"""From a name to a network; initial weights by key; hidden features by name; size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.errors import NetworkError, unknown
from potstill.networks.cnn import keras_cnn, lenet, small_cnn
from potstill.networks.mlp import linear, mlp
from potstill.registry import Registry, Spec
from potstill.seeding import key
from potstill.types import Outputs

Builder: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]

REGISTRY = Registry(
    "network",
    {"linear": linear, "mlp": mlp, "lenet": lenet, "keras_cnn": keras_cnn, "small_cnn": small_cnn},
    NetworkError,
)

_LATER = ("alexnet", "bilstm", "densenet", "fractalnet", "inception_cnn", "polynet", "resnet18", "resnet34", "resnet50")
NOT_YET = dict.fromkeys(_LATER, "is not built yet")


def names() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(REGISTRY)


def build(spec: Spec | Builder, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A network for examples of `shape` that answers (B, outputs) logits; torch's default initial weights.

    `spec` is a name, a table, or a function (shape, outputs) -> nn.Module. The named children of our networks are their
    hidden features. Raises `NetworkError` for an unknown name or key, or a shape that does not fit.
    """
    if callable(spec):
        return spec(tuple(shape), outputs)
    module: nn.Module = REGISTRY.call(spec, tuple(shape), outputs)
    return module


def label(spec: Spec | Builder) -> str:
    """A specification as short text: `mlp:100-50`; of a function its name."""
    if callable(spec):
        return str(getattr(spec, "__qualname__", type(spec).__qualname__))
    return REGISTRY.label(spec)


def seeded(
    spec: Spec | Builder, shape: tuple[int, ...], outputs: int, *, seed: int, member: int = 0, generation: int = 0
) -> nn.Module:
    """`build` with initial weights keyed by (seed, network, member, generation); torch's generator stays as it is."""
    text = label(spec) if callable(spec) else storage.canonical(storage.plain(REGISTRY.full(spec)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("weights", seed, text, member, generation))
        return build(spec, shape, outputs)


def forward(network: nn.Module, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
    """Logits, and the outputs of the named children in `features`. Raises `NetworkError` for an unknown child."""
    if not features:
        return Outputs(network(inputs))
    children = dict(network.named_children())
    for name in features:
        if name not in children:
            raise NetworkError(unknown("feature", name, children))
    if not isinstance(network, nn.Sequential):
        raise NetworkError("Hidden features need a network that is an nn.Sequential of named children.")
    kept: dict[str, Tensor] = {}
    answer = inputs
    for name, child in children.items():
        answer = child(answer)
        if name in features:
            kept[name] = answer
    return Outputs(answer, kept)


def cost(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Parameters, multiply-adds for one example (products only; no activations), and bytes of the weights."""
    from torch.utils.flop_counter import FlopCounterMode

    training = network.training
    network.eval()
    parameter = next(network.parameters(), None)
    inputs = torch.zeros(1, *shape, device=None if parameter is None else parameter.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs)
    network.train(training)
    tensors = [*network.parameters(), *network.buffers()]
    parameters = sum(p.numel() for p in network.parameters())
    return parameters, counter.get_total_flops() // 2, sum(t.numel() * t.element_size() for t in tensors)
