"""From a name to a network; initial weights by key; hidden features by name; size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.errors import NetworkError, NotYetError, unknown
from potstill.networks.alexnet import alexnet
from potstill.networks.cnn import inception_cnn, keras_cnn, lenet, small_cnn
from potstill.networks.families import densenet, multilevel_resnet, preact_resnet, resnet_in_resnet
from potstill.networks.fractalnet import fractalnet
from potstill.networks.mlp import linear, mlp
from potstill.networks.mobile import mobile
from potstill.networks.polynet import polynet
from potstill.networks.resnet import resnet18, resnet34, resnet50
from potstill.registry import Registry, Spec
from potstill.seeding import key
from potstill.types import Outputs

Builder: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]

REGISTRY = Registry(
    "network",
    {
        "linear": linear,
        "mlp": mlp,
        "lenet": lenet,
        "keras_cnn": keras_cnn,
        "small_cnn": small_cnn,
        "resnet18": resnet18,
        "resnet34": resnet34,
        "resnet50": resnet50,
        "alexnet": alexnet,
        "inception_cnn": inception_cnn,
        "preact_resnet": preact_resnet,
        "resnet_in_resnet": resnet_in_resnet,
        "multilevel_resnet": multilevel_resnet,
        "densenet": densenet,
        "fractalnet": fractalnet,
        "polynet": polynet,
        "mobile": mobile,
    },
    NetworkError,
)

NOT_YET: Mapping[str, str] = {
    "bilstm": "a recurrent network over tokens",
}


def names() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(REGISTRY)


def build(spec: Spec | Builder, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A network for examples of `shape` that answers (B, outputs) logits; torch's default initial weights.

    `spec` is a name, a table, or a function (shape, outputs) -> nn.Module. The named children of our networks are their
    hidden features. Raises `NetworkError` for an unknown name or key, a shape that does not fit, or a function whose
    network answers another shape; `NotYetError` for what is planned but not built.
    """
    shape = tuple(shape)
    if not shape or min(shape) < 1 or outputs < 1:
        raise NetworkError(
            f"A network needs examples and answers of at least one number; found examples of shape {shape} "
            f"and {outputs} outputs."
        )
    if isinstance(spec, nn.Module):
        raise NetworkError(
            f"A finished {type(spec).__name__} was given; wanted is what makes one, so that every training begins with "
            "weights of its own: a name, a table, or a function (shape, outputs) -> nn.Module. To go on with the "
            "weights that it has, save them and pass weights=..."
        )
    if callable(spec):
        return _checked(spec(shape, outputs), label(spec), shape, outputs)
    name = spec.partition(":")[0] if isinstance(spec, str) else spec.get("name")
    if isinstance(name, str) and name in NOT_YET:
        raise NotYetError(f'The network "{name}" ({NOT_YET[name]}) is not built yet. Built: {", ".join(names())}.')
    module: nn.Module = REGISTRY.call(spec, shape, outputs)
    return module


def _checked(network: object, name: str, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A user's network, asked once: what it answers decides about every loss."""
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{name} returned {type(network).__name__}; wanted is an nn.Module.")
    with evaluating(network), torch.no_grad():
        answer = network(zeros(network, 2, shape))
    found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if found != (2, outputs):
        raise NetworkError(f"{name} answers {found} to inputs {(2, *shape)}; wanted are logits {(2, outputs)}.")
    return network


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
        # Not torch.manual_seed: that seeds the generators of accelerators too, and nothing would restore them.
        torch.default_generator.manual_seed(key("weights", seed, text, member, generation))
        return build(spec, shape, outputs)


def forward(network: nn.Module, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
    """Logits, and the outputs of the named children in `features`, in that order.

    Only an `nn.Sequential` can be asked for features: its children run one after the other. Raises `NetworkError` for
    another network, an unknown child, or one whose output a later child overwrites.
    """
    if not features:
        return Outputs(network(inputs))
    if type(network) is not nn.Sequential:
        raise NetworkError(
            f"Hidden features need a network that is an nn.Sequential of named children; this is a "
            f"{type(network).__name__}. Return nn.Sequential(OrderedDict(...)) from the function that builds it."
        )
    # A module may occur under two names; `named_children` would skip the second.
    children = {name: child for name, child in network.named_modules(remove_duplicate=False) if _is_child(name)}
    for name in features:
        if name not in children:
            raise NetworkError(unknown("feature", name, children))
    found: dict[str, Tensor] = {}
    versions: dict[str, int] = {}
    answer = inputs
    for name, child in children.items():
        answer = child(answer)
        if name in features:
            found[name], versions[name] = answer, _version(answer)
    for name, version in versions.items():
        if _version(found[name]) != version:
            raise NetworkError(
                f'What "{name}" answers is overwritten by a part after it, so that it is no feature of its own. '
                "Build that part without inplace=True, or name it instead."
            )
    return Outputs(answer, {name: found[name] for name in features})


def _version(tensor: Tensor) -> int:
    """How often a tensor was written into; tensors of inference mode do not tell."""
    return 0 if tensor.is_inference() else tensor._version


def _is_child(name: str) -> bool:
    return bool(name) and "." not in name


def cost(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Parameters; multiply-adds for one example of `shape`, in evaluation mode; bytes of parameters and buffers.

    Multiply-adds are those of matrix products and convolutions (half of torch's count of operations); biases,
    activations and pooling are left out, as is customary.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(zeros(network, 1, shape))
    tensors = [*network.parameters(), *network.buffers()]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() // 2, sum(t.numel() * t.element_size() for t in tensors)


def zeros(network: nn.Module, rows: int, shape: tuple[int, ...]) -> Tensor:
    """Inputs of so many examples, where a network is and of its type."""
    parameter = next(network.parameters(), None)
    if parameter is None:
        return torch.zeros(rows, *shape)
    return torch.zeros(rows, *shape, device=parameter.device, dtype=parameter.dtype)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part is in its own mode again (some may be frozen on purpose)."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
