"""From a name to a network; initial weights by key; hidden features by name; size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.errors import NetworkError, unknown
from potstill.networks.airbench import airbench
from potstill.networks.alexnet import alexnet
from potstill.networks.cnn import inception_cnn, keras_cnn, lenet, small_cnn, tutorial_cnn
from potstill.networks.families import densenet, multilevel_resnet, preact_resnet, resnet_in_resnet
from potstill.networks.fractalnet import fractalnet
from potstill.networks.mlp import linear, mlp
from potstill.networks.mobile import mobile
from potstill.networks.polynet import polynet
from potstill.networks.resnet import resnet18, resnet34, resnet50
from potstill.networks.words import bilstm, embedding_bag
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
        "tutorial_cnn": tutorial_cnn,
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
        "airbench": airbench,
        "bilstm": bilstm,
        "embedding_bag": embedding_bag,
    },
    NetworkError,
)

ON_WORDS: Final = ("bilstm", "embedding_bag")


def names(*, words: bool = False) -> list[str]:
    """Names of the networks of numbers and pictures, sorted; with `words` of those of word ids."""
    return [name for name in REGISTRY if (name in ON_WORDS) == words]


def build(spec: Spec | Builder, shape: tuple[int, ...], outputs: int, *, vocabulary: int = 0) -> nn.Module:
    """A network for examples of `shape` that answers (B, outputs) logits; torch's default initial weights.

    `spec` is a name, a table, or a function (shape, outputs) -> nn.Module. `vocabulary`: examples are word ids from 0,
    which pads, to vocabulary - 1; 0 for numbers. The named children of our networks are their hidden features. Raises
    `NetworkError` for an unknown name or key, a shape that does not fit, or a function whose network answers another
    shape.
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
        return _checked(spec(shape, outputs), label(spec), shape, outputs, vocabulary=vocabulary)
    name = spec.partition(":")[0] if isinstance(spec, str) else spec.get("name")
    if (name in ON_WORDS) != bool(vocabulary) and name in REGISTRY.table:
        takes, has = ("word ids", "numbers") if name in ON_WORDS else ("numbers", "word ids")
        other = 'as = "tokens"' if name in ON_WORDS else 'as = "hashing", or one of ' + ", ".join(ON_WORDS)
        raise NetworkError(f"{name} takes {takes}, and these examples are {has}. Take another input: {other}.")
    module: nn.Module = REGISTRY.call(spec, *((shape, outputs, vocabulary) if vocabulary else (shape, outputs)))
    return module


def _checked(network: object, name: str, shape: tuple[int, ...], outputs: int, *, vocabulary: int) -> nn.Module:
    """A user's network, asked once: what it answers decides about every loss."""
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{name} returned {type(network).__name__}; wanted is an nn.Module.")
    with evaluating(network), torch.no_grad():
        answer = network(zeros(network, 2, shape, vocabulary=vocabulary))
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
    spec: Spec | Builder,
    shape: tuple[int, ...],
    outputs: int,
    *,
    seed: int,
    member: int = 0,
    generation: int = 0,
    vocabulary: int = 0,
) -> nn.Module:
    """`build` with initial weights keyed by (seed, network, member, generation); torch's generator stays as it is."""
    text = label(spec) if callable(spec) else storage.canonical(storage.plain(REGISTRY.full(spec)))
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that seeds the generators of accelerators too, and nothing would restore them.
        torch.default_generator.manual_seed(key("weights", seed, text, member, generation))
        return build(spec, shape, outputs, vocabulary=vocabulary)


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


def cost(network: nn.Module, shape: tuple[int, ...], *, vocabulary: int = 0) -> tuple[int, int, int]:
    """Parameters; multiply-adds for one example of `shape`, in evaluation mode; bytes of parameters and buffers.

    Multiply-adds are those of matrix products and convolutions (half of torch's count of operations); biases,
    activations and pooling are left out, as is customary. Of word ids the longest text is counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # What torch does for an LSTM at once on some CPUs; elsewhere it is matrix products, which are counted.
    fused = getattr(torch.ops.aten, "mkldnn_rnn_layer", None)
    own = {} if fused is None else {fused: _lstm_operations}
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=own) as counter:
        network(zeros(network, 1, shape, vocabulary=vocabulary))
    tensors = [*network.parameters(), *network.buffers()]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() // 2, sum(t.numel() * t.element_size() for t in tensors)


def _lstm_operations(inputs: Sequence[int], weight: Sequence[int], recurrent: Sequence[int], *_: Any, **__: Any) -> int:
    """Of inputs (steps, B, width), in torch's count: two for each multiply-add."""
    steps, rows, width = inputs
    return 2 * steps * rows * weight[0] * (width + recurrent[1])


def zeros(network: nn.Module, rows: int, shape: tuple[int, ...], *, vocabulary: int = 0) -> Tensor:
    """Inputs of so many examples, where a network is and of its type; word ids are ones, since 0 is no word."""
    parameter = next(network.parameters(), None)
    if vocabulary:
        return torch.ones(rows, *shape, dtype=torch.int64, device=None if parameter is None else parameter.device)
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
