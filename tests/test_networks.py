"""Networks: sizes against closed forms and the literature, weights by key, hidden features, what is refused."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from network_samples import SMALL
from torch import Tensor, nn

from potstill import networks
from potstill.errors import NetworkError, PotstillError
from potstill.networks import blocks
from potstill.registry import Spec

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((64,), (1, 8, 8), (1, 28, 28), (3, 64, 64), (2, 9, 15))


def dense(*widths: int) -> int:
    """Weights and biases of fully connected layers."""
    return sum((a + 1) * b for a, b in pairwise(widths))


def conv(inputs: int, outputs: int, size: int) -> int:
    return (inputs * size * size + 1) * outputs


def products(*convolutions: tuple[int, int, int, int]) -> int:
    """Multiply-adds of convolutions: side of what comes out, channels before and after, size."""
    return sum(side**2 * before * after * size**2 for side, before, after, size in convolutions)


def cifar(depth: int) -> int:
    """Multiply-adds of a residual network for 32 px: three stages of `depth` blocks, 16, 32 and 64 channels."""
    first = products((32, 3, 16, 3)) + 2 * depth * products((32, 16, 16, 3))
    others = (
        products((side, c, 2 * c, 3), (side, c, 2 * c, 1)) + (2 * depth - 1) * products((side, 2 * c, 2 * c, 3))
        for side, c in ((16, 16), (8, 32))
    )
    return first + sum(others) + 640


def upper_shortcuts() -> int:
    """Of the three stages, and of all of them."""
    return products((32, 16, 16, 1), (16, 16, 32, 1), (8, 32, 64, 1), (8, 16, 64, 1))


def dense_products(depth: int, channels: int, *, bottleneck: bool) -> int:
    """Multiply-adds of a DenseNet of growth 12 for 32 px: three blocks, halved between them with bottlenecks."""
    total = products((32, 3, channels, 3))
    for side in (32, 16, 8):
        for _ in range(depth):
            total += (
                products((side, channels, 48, 1), (side, 48, 12, 3))
                if bottleneck
                else products((side, channels, 12, 3))
            )
            channels += 12
        if side > 8:
            after = channels // 2 if bottleneck else channels
            total += products((side, channels, after, 1))
            channels = after
    return total + 10 * channels


def preact(depth: int) -> dict[str, Any]:
    """Three stages for pictures of 32 px."""
    return {"name": "preact_resnet", "depths": [depth] * 3, "width": 16}


# Specification, shape, outputs, parameters, multiply-adds: by hand, or published.
SIZES: dict[str, tuple[Spec, Shape, int, int, Any]] = {
    "softmax regression": ("linear", (64,), 10, 650, 640),
    "binary, one logit": ("linear", (3, 2, 2), 1, 13, 12),
    "paper 3, small": ("mlp:100", (1, 28, 28), 10, 79_510, 784 * 100 + 1000),
    "paper 3, large": ("mlp:500-400-300-200-100", (784,), 10, dense(784, 500, 400, 300, 200, 100, 10), 793_000),
    "the demo's student": ("mlp:16", (1, 8, 8), 10, 1_210, 64 * 16 + 160),
    "LeNet-5": ("lenet", (1, 28, 28), 10, 61_706, 28**2 * 150 + 100 * 2400 + 400 * 120 + 120 * 84 + 840),
    "LeNet-5, 32 px": ("lenet", (1, 32, 32), 10, 61_706, 28**2 * 150 + 100 * 2400 + 400 * 120 + 120 * 84 + 840),
    "LeNet-5, digits": ("lenet", (1, 8, 8), 10, 156 + 2416 + dense(16, 120, 84, 10), 144 * 150 + 4 * 2400 + 12_840),
    "PyTorch's tutorial": ("tutorial_cnn", (3, 32, 32), 10, 62_006, 28**2 * 450 + 100 * 2400 + 400 * 120 + 10_920),
    "the teacher of paper 2": ("tutorial_cnn:3-9", (1, 28, 28), 10, 29_176, 24**2 * 75 + 64 * 675 + 144 * 120 + 10_920),
    "Keras' example": (
        *("keras_cnn", (1, 28, 28), 10, 1_199_882),
        26**2 * 9 * 32 + 24**2 * 288 * 64 + 9216 * 128 + 1280,
    ),
    "the demo's teacher": ("small_cnn", (1, 8, 8), 10, 151_306, 64 * (288 + 288 * 64) + 1024 * 128 + 1280),
    "three convolutions": (
        {"name": "small_cnn", "channels": [4, 8, 16], "dense": 20},
        *((3, 9, 15), 2),
        conv(3, 4, 3) + conv(4, 8, 3) + conv(8, 16, 3) + dense(16 * 4 * 7, 20, 2),
        9 * 15 * 9 * (3 * 4 + 4 * 8 + 8 * 16) + 16 * 28 * 20 + 40,
    ),
    "Keras' example with Inception": (
        *("inception_cnn", (1, 28, 28), 10, 18_816 + 2 * 2080 + 18_496 + 520 + 3216 + 1040 + dense(4608, 128, 10)),
        26**2 * 288 + 24**2 * 18_432 + 144 * (64 * (32 + 32 + 8 + 16) + 9 * 32 * 64 + 25 * 8 * 16) + 4608 * 128 + 1280,
    ),
    # Parameters as published by torchvision; multiply-adds there: 1.81, 3.66 and 4.09 billion.
    "ResNet-18": ("resnet18", (3, 224, 224), 1000, 11_689_512, 1_814_073_344),
    "ResNet-34": ("resnet34", (3, 224, 224), 1000, 21_797_672, 3_663_761_408),
    "ResNet-50": ("resnet50", (3, 224, 224), 1000, 25_557_032, 4_089_184_256),
    # Krizhevsky et al. 2012: "60 million parameters"; Caffe's model of it has so many, and 724 million multiply-adds.
    "AlexNet": ("alexnet", (3, 224, 224), 1000, 60_965_224, pytest.approx(724e6, abs=5e5)),
    # Parameters, here and below, as the tests of pytorchcv (osmr/imgclsmob) hold them.
    "PreAct-ResNet-18": ("preact_resnet", (3, 224, 224), 1000, 11_687_848, 1_814_073_344),
    "PreAct-ResNet-50": (
        {"name": "preact_resnet", "depths": [3, 4, 6, 3], "bottleneck": True},
        *((3, 224, 224), 1000, 25_549_480, 4_089_184_256),
    ),
    "PreAct-ResNet-20": (preact(3), (3, 32, 32), 10, 272_282, cifar(3)),
    "PreAct-ResNet-110": (preact(18), (3, 32, 32), 10, 1_730_522, cifar(18)),  # He et al. 2016, table 4: 1.7 million
    "PreAct-ResNet-164": (
        preact(18) | {"bottleneck": True},  # also 1.7 million there
        *((3, 32, 32), 10, 1_703_258),
        products((32, 3, 16, 3))
        + sum(
            products(
                (2 * side if i else side, before, w, 1), (side, w, w, 3), (side, w, 4 * w, 1), (side, before, 4 * w, 1)
            )
            + 17 * products((side, 4 * w, w, 1), (side, w, w, 3), (side, w, 4 * w, 1))
            for i, (side, before, w) in enumerate(((32, 16, 16), (16, 64, 32), (8, 128, 64)))
        )
        + 2560,
    ),
    # There 9,492,980: the head's 1x1 convolution has no bias, but a batch norm.
    "ResNet in ResNet": (
        *("resnet_in_resnet", (3, 32, 32), 10, 9_492_980 - 10),
        products((32, 3, 96, 3), *[(32, 96, 96, 3)] * 4)
        + products((16, 96, 192, 3), (16, 48, 96, 1), *[(16, 192, 192, 3)] * 5)
        + products((8, 192, 384, 3), (8, 96, 192, 1), *[(8, 384, 384, 3)] * 5)
        + 3840,
    ),
    "RoR-3-56": ("multilevel_resnet", (3, 32, 32), 10, 762_746, cifar(8) + upper_shortcuts()),
    "RoR-3-110": ("multilevel_resnet:17-17-17", (3, 32, 32), 10, 1_637_690, cifar(17) + upper_shortcuts()),
    "RoR-3-164": ("multilevel_resnet:26-26-26", (3, 32, 32), 10, 2_512_634, cifar(26) + upper_shortcuts()),
    # Huang et al. 2017, table 2: 0.8 and 1.0 million.
    "DenseNet-BC-100": ("densenet", (3, 32, 32), 10, 769_162, dense_products(16, 24, bottleneck=True)),
    "DenseNet-40": (
        {"name": "densenet", "depths": [12, 12, 12], "bottleneck": False, "compression": 1.0},
        *((3, 32, 32), 10, 1_019_722, dense_products(12, 16, bottleneck=False)),
    ),
    "DenseNet-121": (
        {"name": "densenet", "depths": [6, 12, 24, 16], "growth": 32},
        *((3, 224, 224), 1000, 7_978_856, pytest.approx(2.83e9, abs=5e6)),
    ),
    "FractalNet-20": (
        *("fractalnet", (3, 32, 32), 10, 33_724_618),
        sum(
            3 * products((side, before, after, 3)) + 4 * products((side, after, after, 3))
            for side, before, after in ((32, 3, 64), (16, 64, 128), (8, 128, 256), (4, 256, 512), (2, 512, 512))
        )
        + 5120,
    ),
    # Zhang et al. 2017: 34.7 billion.
    "PolyNet": ("polynet", (3, 331, 331), 1000, 95_366_600, pytest.approx(34.7e9, abs=5e7)),
    # Howard et al. 2017, tables 4 and 6: 569, 325, 149 and 41 million multiply-adds.
    "MobileNet": ("mobile", (3, 224, 224), 1000, 4_231_976, pytest.approx(569e6, abs=5e5)),
    "MobileNet, 3/4": ("mobile:24", (3, 224, 224), 1000, 2_585_560, pytest.approx(325e6, abs=5e5)),
    "MobileNet, 1/2": ("mobile:16", (3, 224, 224), 1000, 1_331_592, pytest.approx(149e6, abs=5e5)),
    "MobileNet, 1/4": ("mobile:8", (3, 224, 224), 1000, 470_072, pytest.approx(41e6, abs=5e5)),
    # Jordan 2024: 1.97 million. There the stem has biases and no norm, norms have no scales, the head no biases.
    "airbench94": (
        *("airbench", (3, 32, 32), 10, 24 * 12 + 24 + 1_967_616 + 2560 + (64 + 256 + 256) * 2 + 24 + 576 * 2 + 10),
        31**2 * (12 * 24 + 9 * 24 * 64)
        + products((15, 64, 64, 3), (15, 64, 256, 3), (7, 256, 256, 3), (7, 256, 256, 3), (3, 256, 256, 3))
        + 2560,
    ),
}
# Larsson et al. 2017, table 3: parameters by columns, in tenths of a million, for 100 classes.
FRACTALS = {1: 3, 2: 8, 3: 21, 4: 48, 5: 102}


ROWS = {"linear", "mlp"}  # the others take pictures alone
LEAST = {
    "alexnet": 15,
    "inception_cnn": 8,
    "keras_cnn": 6,
    "lenet": 1,
    "tutorial_cnn": 16,
    "small_cnn": 2,
    "fractalnet": 1,
    "polynet": 4,
    "airbench": 9,
}
PAIRS = [
    (name, shape)
    for name in networks.names()
    for shape in SHAPES
    if name in ROWS or (len(shape) == 3 and min(shape[1:]) >= LEAST.get(name, 8))
]
every_network = pytest.mark.parametrize("name", networks.names())
every_pair = pytest.mark.parametrize(("name", "shape"), PAIRS, ids=str)


def built(name: str, shape: Shape, outputs: int = 3) -> nn.Module:
    return networks.seeded(SMALL[name], shape, outputs, seed=0)


@pytest.mark.parametrize(("spec", "shape", "outputs", "parameters", "products"), SIZES.values(), ids=SIZES)
def test_sizes(spec: Spec, shape: Shape, outputs: int, parameters: int, products: Any) -> None:
    with torch.device("meta"):  # shapes without numbers: PolyNet has 95 million
        network = networks.build(spec, shape, outputs)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    assert networks.cost(network, shape) == (parameters, products, 4 * parameters + buffers)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_sizes_of_the_family_of_fractals() -> None:
    for columns, wanted in FRACTALS.items():
        spec = {"name": "fractalnet", "channels": [16, 32, 64, 128, 128], "columns": columns}
        with torch.device("meta"):
            network = networks.build(spec, (3, 32, 32), 100)
        assert round(sum(p.numel() for p in network.parameters()) / 1e5) == wanted


def test_every_network_has_a_size() -> None:
    named = {spec.partition(":")[0] if isinstance(spec, str) else spec["name"] for spec, *_ in SIZES.values()}
    assert named == set(networks.names())


@every_pair
def test_answers_logits_and_learns_everywhere(name: str, shape: Shape) -> None:
    network = built(name, shape)
    inputs = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    answer = network(inputs)
    assert answer.shape == (5, 3)
    assert answer.dtype == torch.float32
    (answer.square().sum()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
        assert parameter.grad.isfinite().all(), key


@every_network
def test_answers_are_logits_of_either_sign(name: str) -> None:
    network = built(name, (1, 28, 28), 10).eval()
    answer = network(torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(1)))
    assert answer.min() < 0 < answer.max()


@every_network
def test_children_have_readable_names_and_are_the_features(name: str) -> None:
    network = built(name, (1, 28, 28)).eval()
    assert type(network) is nn.Sequential
    children = [child for child, _ in network.named_children()]
    assert children[-1] == "head"
    assert not any(child.isdigit() for child in children)
    inputs = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    found = networks.forward(network, inputs, children)
    assert list(found.features) == children
    step = inputs
    for child in children:
        step = network.get_submodule(child)(step)
        assert torch.equal(found.features[child], step)
    assert torch.equal(found.logits, network(inputs))


@every_network
def test_features_change_no_bit_in_training(name: str) -> None:
    """The same dropout, the same logits, the same gradients with and without features."""
    network = built(name, (1, 28, 28)).train()
    inputs = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    children = [child for child, _ in network.named_children()]
    found = []
    for features in ((), children[1:3]):
        network.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            logits = networks.forward(network, inputs, features).logits
        logits.sum().backward()
        found.append([logits.detach(), *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # type: ignore[arg-type]


PARTS: dict[str, tuple[Spec, str]] = {
    "linear": ("linear", "flatten head"),
    "mlp": ("mlp:8-4", "flatten dense1 relu1 dense2 relu2 head"),
    "mlp with dropout": (
        {"name": "mlp", "hidden": [8, 4], "dropout": 0.2},
        "flatten dense1 relu1 dropout1 dense2 relu2 dropout2 head",
    ),
    "lenet": ("lenet", "conv1 relu1 pool1 conv2 relu2 pool2 flatten dense1 relu3 dense2 relu4 head"),
    "tutorial_cnn": ("tutorial_cnn:2-3", "conv1 relu1 pool1 conv2 relu2 pool2 flatten dense1 relu3 dense2 relu4 head"),
    "keras_cnn": ("keras_cnn", "conv1 relu1 conv2 relu2 pool dropout1 flatten dense relu3 dropout2 head"),
    "small_cnn": ("small_cnn", "conv1 relu1 conv2 relu2 pool dropout1 flatten dense relu dropout2 head"),
    "resnet18": ("resnet18:4", "stem stage1 stage2 stage3 stage4 mean flatten head"),
    "alexnet": (
        {"name": "alexnet", "width": 2, "dense": 8},
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool3 flatten "
        "dropout1 dense1 relu6 dropout2 dense2 relu7 head",
    ),
    "inception_cnn": (
        "inception_cnn",
        "conv1 relu1 conv2 relu2 pool1 inception pool2 dropout1 flatten dense relu3 dropout2 head",
    ),
    "preact_resnet": ("preact_resnet:1-1", "stem stage1 stage2 active mean flatten head"),
    "resnet_in_resnet": (
        {"name": "resnet_in_resnet", "depths": [1, 1], "width": 2},
        "stem stage1 stage2 mean flatten head",
    ),
    "multilevel_resnet": ("multilevel_resnet:1-1", "stem body mean flatten head"),
    "densenet": (
        {"name": "densenet", "depths": [1, 1, 1], "stem": "large", "dropout": 0.2},
        "stem pool block1 transition1 block2 transition2 block3 active mean flatten head",
    ),
    "fractalnet": ("fractalnet:4-8", "block1 pool1 block2 pool2 mean flatten head"),
    "polynet": (
        {"name": "polynet", "depths": [1, 1, 1], "width": 12, "dropout": 0.2},
        "stem stage1 reduction1 stage2 reduction2 stage3 mean flatten dropout head",
    ),
    "mobile": ({"name": "mobile", "width": 4, "depths": [1, 2]}, "stem stage1 stage2 mean flatten head"),
    "airbench": ("airbench:4", "stem block1 block2 block3 max flatten head"),
    "resnet50 with all": (
        {"name": "resnet50", "width": 4, "stem": "large", "dropout": 0.5},
        "stem pool stage1 stage2 stage3 stage4 mean flatten dropout head",
    ),
}
KINDS: dict[str, type[nn.Module]] = {
    "flatten": nn.Flatten,
    "head": nn.Linear,
    "dense": nn.Linear,
    "relu": nn.ReLU,
    "conv": nn.Conv2d,
    "pool": nn.MaxPool2d,
    "dropout": nn.Dropout,
    "stem": nn.Sequential,
    "stage": nn.Sequential,
    "mean": nn.AdaptiveAvgPool2d,
    "max": nn.AdaptiveMaxPool2d,
    "norm": nn.LocalResponseNorm,
    "inception": blocks.Branches,
    "active": nn.Sequential,
    "body": blocks.Residual,
    "transition": nn.Sequential,
    "reduction": blocks.Branches,
}
BLOCKS: dict[str, type[nn.Module]] = {
    "densenet": nn.Sequential,
    "fractalnet": blocks.Fractal,
    "airbench": nn.Sequential,
}


@pytest.mark.parametrize(("spec", "parts"), PARTS.values(), ids=PARTS)
def test_parts_are_what_their_names_say(spec: Spec, parts: str) -> None:
    network = networks.build(spec, (1, 32, 32), 10)
    found = dict(network.named_children())
    assert list(found) == parts.split()
    kinds = KINDS | {"block": BLOCKS.get(networks.REGISTRY.expand(spec)["name"], nn.Module)}
    assert all(type(part) is kinds[name.rstrip("0123456789")] for name, part in found.items())


def test_dropout_of_the_keras_example() -> None:
    network = networks.build("keras_cnn", (1, 28, 28), 10)
    found = {name: part.p for name, part in network.named_children() if isinstance(part, nn.Dropout)}
    assert found == {"dropout1": 0.25, "dropout2": 0.5}


def test_airbench_begins_by_telling_patches_and_passing_them_on() -> None:
    """The stem's filters are an orthonormal basis and its opposite; 3x3 convolutions begin as identities."""
    network = networks.build("airbench:8", (2, 12, 12), 10)
    filters = network.get_parameter("stem.conv.weight").detach()
    for channel in range(2):
        own = filters[8 * channel : 8 * channel + 8].flatten(1)
        wanted = torch.zeros(8, 8)
        wanted[:, 4 * channel : 4 * channel + 4] = torch.tensor(
            [[0.5, s * 0.5, t * 0.5, u * 0.5] for s, t, u in ((1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1))]
            + [[-0.5, -s * 0.5, -t * 0.5, -u * 0.5] for s, t, u in ((1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1))]
        )
        assert torch.allclose(own, wanted)
    inputs = torch.rand(2, 16, 5, 5)
    conv = network.get_submodule("block1.conv1")
    assert torch.equal(conv(inputs), inputs[:, :8])
    more = network.get_submodule("block2.conv1")  # 8 to 32 channels: the first 8 are passed on
    assert torch.equal(more(inputs[:, :8])[:, :8], inputs[:, :8])
    assert more.get_parameter("weight")[8:].abs().min() > 0


def test_features_have_the_shapes_of_lenet() -> None:
    network = networks.build("lenet", (1, 28, 28), 10)
    wanted = {"conv1": (2, 6, 28, 28), "pool1": (2, 6, 14, 14), "conv2": (2, 16, 10, 10), "pool2": (2, 16, 5, 5)}
    wanted |= {"flatten": (2, 400), "dense1": (2, 120), "dense2": (2, 84), "head": (2, 10)}
    found = networks.forward(network, torch.rand(2, 1, 28, 28), list(wanted)).features
    assert {name: tuple(value.shape) for name, value in found.items()} == wanted
    assert list(networks.forward(network, torch.rand(2, 1, 28, 28), ["relu3", "conv1"]).features) == ["relu3", "conv1"]


def test_a_module_under_two_names_runs_twice() -> None:
    relu = nn.ReLU()
    network = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), relu1=relu, b=nn.Linear(4, 4), relu2=relu))
    inputs = torch.randn(8, 4)
    found = networks.forward(network, inputs, ["relu1", "relu2"])
    assert torch.equal(found.logits, network(inputs))
    assert torch.equal(found.features["relu2"], found.logits)
    assert not torch.equal(found.features["relu1"], found.logits)


def test_features_that_are_not_there() -> None:
    network = networks.build("mlp:8", (4,), 2)
    with pytest.raises(NetworkError, match=r'Unknown feature "dense2"\. Did you mean "dense1"'):
        networks.forward(network, torch.zeros(1, 4), ["dense2"])
    own = Twice(nn.Linear(4, 2))
    assert networks.forward(own, torch.zeros(1, 4)).logits.shape == (1, 2)
    with pytest.raises(NetworkError, match=r"nn.Sequential of named children; this is a Twice"):
        networks.forward(own, torch.zeros(1, 4), ["inner"])


class Twice(nn.Module):
    """A user's own network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = 2 * self.inner(inputs)
        return answer


def weights(spec: Any, **keys: int) -> Tensor:
    network = networks.seeded(spec, (1, 16, 16), 3, **{"seed": 0, **keys})
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@every_network
def test_initial_weights_depend_on_their_key_alone(name: str) -> None:
    before = torch.default_generator.get_state()
    spec = SMALL[name]
    first = weights(spec)
    torch.rand(7)
    assert torch.equal(weights(spec), first)
    assert torch.equal(weights(networks.REGISTRY.full(spec)), first)
    for other in ({"seed": 1}, {"member": 1}, {"generation": 1}):
        assert not torch.equal(weights(spec, **other), first)
    torch.default_generator.set_state(before)
    weights(spec)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_the_key_names_the_network_not_the_way_it_is_written() -> None:
    assert torch.equal(weights("mlp"), weights("mlp:100"))
    assert torch.equal(weights("mlp:16-8"), weights({"name": "mlp", "hidden": [16, 8], "dropout": 0}))
    # Another network starts from other numbers, even in a layer of the same size.
    assert not torch.equal(weights("mlp:16-8")[:100], weights("mlp:16-9")[:100])


def test_initial_weights_are_torchs_default() -> None:
    """Uniform in +-1/sqrt(inputs) for weights and biases (documentation of nn.Linear)."""
    first = networks.seeded("mlp:400", (100,), 3, seed=0).get_submodule("dense1").get_parameter("weight")
    assert first.abs().max() <= 0.1
    assert first.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_a_function_that_builds_the_users_network() -> None:
    def mine(shape: Shape, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(math.prod(shape)), nn.Linear(math.prod(shape), outputs))

    network = networks.seeded(mine, (1, 8, 8), 3, seed=4)
    assert networks.label(mine).endswith("mine")
    assert network.training
    assert torch.equal(network.get_submodule("1").get_buffer("running_mean"), torch.zeros(64))
    again = networks.seeded(mine, (1, 8, 8), 3, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_cost_leaves_the_network_as_it_was() -> None:
    """Same count in both modes; buffers are bytes but no parameters; frozen parts stay frozen; statistics stay."""
    network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    network.train()
    network[1].eval()
    found = networks.cost(network, (6,))
    assert found == (28 + 8 + 10, 24 + 8, 4 * (28 + 8 + 10 + 8) + 8)
    assert [part.training for part in network.modules()] == [True, True, False, True, True]
    assert torch.equal(network[1].get_buffer("running_mean"), torch.zeros(4))
    assert networks.cost(network.eval(), (6,)) == found
    assert networks.cost(network.double(), (6,))[2] == 2 * 4 * (28 + 8 + 10 + 8) + 8


LABELS: dict[str, tuple[Any, str]] = {
    "name": ("lenet", "lenet"),
    "shorthand": ("mlp:100-50", "mlp:100-50"),
    "table": ({"name": "mlp", "hidden": [100, 50]}, "mlp:100-50"),
    "more keys": ({"name": "mlp", "hidden": [8], "dropout": 0.5}, "mlp:8(dropout=0.5)"),
    "channels": ({"name": "small_cnn", "channels": [16, 32], "dense": 64}, "small_cnn:16-32(dense=64)"),
}


@pytest.mark.parametrize(("spec", "text"), LABELS.values(), ids=LABELS)
def test_labels(spec: Spec, text: str) -> None:
    assert networks.label(spec) == text


def wrong_size(shape: Shape, outputs: int) -> nn.Module:
    return networks.build("linear", shape, outputs + 1)


REFUSED: dict[str, tuple[Any, Shape, int, type[PotstillError], str]] = {
    "typo": ("mpl", (4,), 2, NetworkError, 'Did you mean "mlp"'),
    "unknown key": ({"name": "mlp", "hiden": [4]}, (4,), 2, NetworkError, 'Did you mean "hidden"'),
    "no name": ({"hidden": [4]}, (4,), 2, NetworkError, 'needs a key "name"'),
    "of words, on numbers": (
        "bilstm:128",
        (4,),
        2,
        NetworkError,
        "bilstm takes word ids, and these examples are num",
    ),
    "no hidden layer": ({"name": "mlp", "hidden": []}, (4,), 2, NetworkError, "at least 1"),
    "layer of nothing": ("mlp:10-0", (4,), 2, NetworkError, r"\[10, 0\]"),
    "words": ("mlp:ten", (4,), 2, NetworkError, "whole numbers"),
    "dropout": ({"name": "mlp", "dropout": 1.0}, (4,), 2, NetworkError, "dropout is 1.0"),
    "dropout of a cnn": ({"name": "small_cnn", "dropout": -0.1}, (1, 8, 8), 2, NetworkError, "dropout is -0.1"),
    "channels": ({"name": "small_cnn", "channels": []}, (1, 8, 8), 2, NetworkError, "channels"),
    "rows": ("small_cnn", (64,), 2, NetworkError, r'takes pictures .* shape \(64,\)\. For rows take "mlp"'),
    "no channel axis": ("lenet", (28, 28), 2, NetworkError, r"Reshape them to \(1, 28, 28\)"),
    "channels of the tutorial's": ("tutorial_cnn:0-9", (1, 28, 28), 2, NetworkError, r"channels is \[0, 9\]"),
    "three convolutions": ("tutorial_cnn:3-9-9", (1, 28, 28), 2, NetworkError, "channels .* found"),
    "too small": ("keras_cnn", (1, 5, 9), 2, NetworkError, "at least 6 x 6; this data has 5 x 9"),
    "small stem": (
        "resnet18",
        (3, 7, 64),
        2,
        NetworkError,
        "resnet18 with a small stem .* this data has 7 x 64",
    ),
    "large stem": (
        *({"name": "resnet50", "stem": "large"}, (3, 64, 31), 2, NetworkError),
        "resnet50 with a large stem .* 32 x 32",
    ),
    "stem": ({"name": "resnet18", "stem": "medium"}, (3, 64, 64), 2, NetworkError, "stem .* 'medium'"),
    "no channels": ({"name": "resnet34", "width": 0}, (3, 64, 64), 2, NetworkError, "resnet34: width is 0"),
    "dropout of a resnet": ({"name": "resnet34", "dropout": 1}, (3, 64, 64), 2, NetworkError, "resnet34: dropout is 1"),
    "small picture for alexnet": ("alexnet", (1, 14, 14), 2, NetworkError, "alexnet with a small stem .* 15 x 15"),
    "large stem of polynet": (
        *({"name": "polynet", "stem": "large"}, (3, 74, 80), 2, NetworkError),
        "polynet with a large stem .* at least 75 x 75; this data has 74 x 80",
    ),
    "stages of polynet": ("polynet:1-1", (3, 64, 64), 2, NetworkError, r"depths is \[1, 1\]; wanted are three numbers"),
    "no stage": ({"name": "densenet", "depths": []}, (3, 64, 64), 2, NetworkError, r"densenet: depths is \[\]"),
    "stage of nothing": (
        "mobile:0",
        (3, 64, 64),
        2,
        NetworkError,
        "mobile: width is 0; wanted is a number of at least",
    ),
    "width of airbench": ("airbench:0", (3, 32, 32), 2, NetworkError, "airbench: width is 0"),
    "small picture for airbench": (
        "airbench",
        (1, 8, 8),
        2,
        NetworkError,
        "airbench needs .* 9 x 9; this data has 8 x 8",
    ),
    "compression": (
        *({"name": "densenet", "compression": 0.0}, (3, 64, 64), 2, NetworkError),
        "densenet: compression is 0.0; wanted is a part above 0",
    ),
    "drop-path": ({"name": "fractalnet", "drop": 1.0}, (3, 64, 64), 2, NetworkError, "drop 1.0"),
    "typo in a key": ({"name": "densenet", "grwth": 4}, (3, 64, 64), 2, NetworkError, 'Did you mean "growth"'),
    "rows for a resnet": ("resnet50", (64,), 2, NetworkError, "resnet50 takes pictures"),
    "one pixel": ("small_cnn", (3, 1, 1), 2, NetworkError, "at least 2 x 2"),
    "empty example": ("mlp", (0,), 2, NetworkError, r"shape \(0,\)"),
    "no class": ("linear", (4,), 0, NetworkError, "0 outputs"),
    "a function's size": (
        wrong_size,
        (4,),
        2,
        NetworkError,
        r"wrong_size answers \(2, 3\) .* wanted are logits \(2, 2\)",
    ),
    "a finished network": (
        nn.Linear(4, 2),
        (4,),
        2,
        NetworkError,
        "A finished Linear was given; wanted is what makes one",
    ),
    "a function's type": (lambda shape, outputs: None, (4,), 2, NetworkError, "returned NoneType"),
}


@pytest.mark.parametrize(("spec", "shape", "outputs", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(
    spec: Spec | Callable[..., Any], shape: Shape, outputs: int, error: type[PotstillError], message: str
) -> None:
    with pytest.raises(error, match=message):
        networks.build(spec, shape, outputs)


def test_smallest_pictures_that_fit() -> None:
    for name in set(networks.names()) - ROWS:
        least = LEAST.get(name, 8)
        network = networks.build(SMALL[name], (1, least, least), 2).eval()  # a batch norm learns nothing of a pixel
        assert network(torch.zeros(2, 1, least, least)).shape == (2, 2), name


def test_what_is_not_built_is_not_registered() -> None:
    assert not set(networks.ON_WORDS) & set(networks.names())
    assert networks.names() == sorted(networks.names())
