"""Blocks: against loops in float64 and known equalities, gradients, counts, randomness that can be repeated."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import block_oracles as oracles
import numpy as np
import pytest
import torch
from block_oracles import Floats
from torch import Tensor, nn

from potstill import losses
from potstill.errors import NetworkError
from potstill.networks import blocks

INCEPTION: dict[str, Any] = {"one": 2, "three": (2, 3), "five": (1, 2), "pool": 2}
BRANCHES = (((2, 1), (3, (1, 3)), (2, (3, 1))), ((2, 1),))


def poly(kind: Any, order: int = 2, scale: float = 0.5, channels: int = 3) -> nn.Module:
    return blocks.PolyInception(channels, BRANCHES, kind=kind, order=order, scale=scale)


def fractal(columns: int, **keys: Any) -> nn.Module:
    return blocks.Fractal(2, 3, columns=columns, **keys)


Oracle = Callable[[Floats, dict[str, Floats]], Floats]
# What makes a block, the shape of an example, and the oracle.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Oracle]] = {
    "dilated convolution": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, dilation=2),
        (2, 7, 6),
        lambda x, p: oracles.conv(x, p["weight"], p["bias"], padding=1, dilation=2),
    ),
    "transposed convolution": (
        lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1),
        (2, 4, 3),
        lambda x, p: oracles.transposed(x, p["weight"], p["bias"], stride=2, padding=1),
    ),
    "depthwise separable convolution": (
        lambda: blocks.separable(2, 3, stride=2, padding=2, dilation=2),
        (2, 7, 6),
        lambda x, p: oracles.conv(
            oracles.conv(x, p["depthwise.weight"], stride=2, padding=2, dilation=2, groups=2),
            p["pointwise.weight"],
            p["pointwise.bias"],
        ),
    ),
    "global mean": (lambda: nn.AdaptiveAvgPool2d(1), (2, 5, 4), lambda x, _: x.mean((1, 2), keepdims=True)),
    "global maximum": (lambda: nn.AdaptiveMaxPool2d(1), (2, 5, 4), lambda x, _: x.max((1, 2), keepdims=True)),
    "batch norm": (
        lambda: nn.Sequential(OrderedDict(n=nn.BatchNorm2d(2))),
        (2, 3, 4),
        lambda x, p: oracles.norm(x, p, "n"),
    ),
    "locally connected": (
        lambda: blocks.LocallyConnected((2, 6, 5), 3, 3, stride=2, padding=1),
        (2, 6, 5),
        lambda x, p: oracles.local(x, p["weight"], p["bias"], size=3, stride=2, padding=1),
    ),
    "DropConnect": (lambda: blocks.DropConnect(5, 4), (5,), lambda x, p: p["weight"] @ x + p["bias"]),
    "padded": (
        lambda: blocks.Padded(2, 5, 2),
        (2, 5, 4),
        lambda x, _: np.concatenate([x[:, ::2, ::2], np.zeros((3, 3, 2))]),
    ),
    "Inception": (lambda: blocks.inception(3, **INCEPTION), (3, 6, 5), oracles.inception),
    "residual": (
        lambda: blocks.Residual(blocks.convolution(2, 3, 3, stride=2, relu=False), blocks.projection(2, 3, 2)),
        (2, 5, 6),
        lambda x, p: oracles.relu(
            sum(
                oracles.norm(oracles.conv(x, p[f"{part}.conv.weight"], stride=2), p, f"{part}.norm")
                for part in ("body", "shortcut")
            )
        ),
    ),
    "pre-activation": (
        lambda: blocks.PreActivation(3, 3),
        (3, 5, 4),
        lambda x, p: oracles.pre_activation(x, p, 1, (3, 3)),
    ),
    "pre-activation, smaller": (
        lambda: blocks.PreActivation(2, 3, stride=2),
        (2, 5, 4),
        lambda x, p: oracles.pre_activation(x, p, 2, (3, 3)),
    ),
    "pre-activation, bottleneck": (
        lambda: blocks.PreActivation(2, 8, stride=2, bottleneck=True),
        (2, 5, 4),
        lambda x, p: oracles.pre_activation(x, p, 2, (1, 3, 1)),
    ),
    "dense": (
        lambda: blocks.dense_block(3, 3, 2),
        (3, 4, 5),
        lambda x, p: oracles.dense(x, p, 3),
    ),
    "dense, no bottleneck": (
        lambda: blocks.dense_block(3, 2, 2, bottleneck=False, dropout=0.5),
        (3, 4, 5),
        lambda x, p: oracles.dense(x, p, 2),
    ),
    "streams": (lambda: blocks.Streams(2, 2), (4, 4, 5), lambda x, p: oracles.streams(x, p, 1)),
    "streams, smaller": (lambda: blocks.Streams(2, 3, stride=2), (4, 5, 4), lambda x, p: oracles.streams(x, p, 2)),
    "ResNet in ResNet": (
        lambda: blocks.ResnetInResnet(2, 3, stride=2),
        (4, 5, 4),
        lambda x, p: oracles.resnet_in_resnet(x, p, 2),
    ),
    "poly-2": (lambda: poly("poly"), (3, 4, 5), lambda x, p: oracles.poly(x, p, "poly", 2, 0.5)),
    "poly-3": (lambda: poly("poly", 3), (3, 3, 4), lambda x, p: oracles.poly(x, p, "poly", 3, 0.5)),
    "mpoly-2": (lambda: poly("mpoly"), (3, 4, 5), lambda x, p: oracles.poly(x, p, "mpoly", 2, 0.5)),
    "2-way": (lambda: poly("way"), (3, 4, 5), lambda x, p: oracles.poly(x, p, "way", 2, 0.5)),
    "fractal, 1 column": (lambda: fractal(1), (2, 3, 4), lambda x, p: oracles.fractal(x, p, 1)),
    "fractal, 2 columns": (lambda: fractal(2), (2, 3, 4), lambda x, p: oracles.fractal(x, p, 2)),
    "fractal, 4 columns": (lambda: fractal(4, dropout=0.2), (2, 3, 3), lambda x, p: oracles.fractal(x, p, 4)),
}
every_block = pytest.mark.parametrize(("make", "shape", "oracle"), BLOCKS.values(), ids=BLOCKS)


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The block in float64, its batch norms with statistics, scales and offsets as after a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().double()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor, low in ((part.running_mean, -0.5), (part.bias, -0.5), (part.weight, 0.5)):
                    tensor.data = torch.rand_like(tensor) + low  # type: ignore[union-attr, arg-type]
                part.running_var = torch.rand_like(part.running_var) + 0.5  # type: ignore[arg-type]
    return module


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_block
def test_answers_what_the_loops_say(make: Callable[[], nn.Module], shape: tuple[int, ...], oracle: Oracle) -> None:
    module = made(make).eval()
    rows = draw(3, *shape)
    with torch.no_grad():
        found = module(rows).numpy()
    for row, answer in zip(rows.numpy(), found, strict=True):
        np.testing.assert_allclose(answer, oracle(row, oracles.state(module)), rtol=1e-9, atol=1e-11)


@every_block
@pytest.mark.parametrize("training", [False, True], ids=["predicting", "training"])
def test_gradients(make: Callable[[], nn.Module], shape: tuple[int, ...], oracle: Oracle, training: bool) -> None:
    """Those of autograd are finite differences, with respect to inputs and every parameter."""
    module = made(make).train(training)
    names = list(dict(module.named_parameters()))
    numbers = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def answer(inputs: Tensor, *parameters: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), inputs)

    inputs = draw(3, *shape).requires_grad_()
    assert torch.autograd.gradcheck(answer, (inputs, *numbers), fast_mode=True)


def test_batch_norm_in_training() -> None:
    """The batch's mean and biased variance; the running ones move a tenth of the way, to the unbiased variance."""
    module = made(lambda: nn.BatchNorm2d(2)).train()
    before = oracles.state(module)
    x = draw(4, 2, 3, 5)
    with torch.no_grad():
        found = module(x).numpy()
    rows = x.numpy().transpose(1, 0, 2, 3).reshape(2, -1)
    mean, var = rows.mean(1), ((rows - rows.mean(1, keepdims=True)) ** 2).sum(1) / 60
    scaled = (x.numpy() - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    np.testing.assert_allclose(found, scaled * before["weight"][:, None, None] + before["bias"][:, None, None])
    after = oracles.state(module)
    np.testing.assert_allclose(after["running_mean"], 0.9 * before["running_mean"] + 0.1 * mean)
    np.testing.assert_allclose(after["running_var"], 0.9 * before["running_var"] + 0.1 * var * 60 / 59)


# ---------------------------------------------------------------- known equalities and counts


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_counts_of_the_lecture() -> None:
    assert parameters(nn.Conv2d(4, 10, 3)) == 370
    assert parameters(blocks.separable(4, 10)) == 86


def test_counts_of_papers() -> None:
    # GoogLeNet's first module, table 1 of Szegedy et al.: 256 channels, 159K parameters, which leave the biases out.
    module = blocks.inception(192, one=64, three=(96, 128), five=(16, 32), pool=32)
    biases = 64 + 96 + 128 + 16 + 32 + 32
    assert (parameters(module) - biases) // 1024 == 159
    assert module(torch.zeros(1, 192, 5, 5)).shape == (1, 256, 5, 5)
    # DenseNet-121's first block: 64 channels, 6 layers, growth 32.
    dense = blocks.dense_block(64, 6, 32)
    layers = [(64 + 32 * i) * 128 + 128 * 32 * 9 + 2 * (64 + 32 * i) + 2 * 128 for i in range(6)]
    assert parameters(dense) == sum(layers)
    assert dense(torch.zeros(2, 64, 2, 2)).shape == (2, 256, 2, 2)


def test_locally_connected_with_shared_weights_is_a_convolution() -> None:
    layer = made(lambda: blocks.LocallyConnected((3, 7, 6), 4, 3, stride=2, padding=1))
    convolution = made(lambda: nn.Conv2d(3, 4, 3, 2, 1))
    places = math.prod(layer.places)  # type: ignore[arg-type]
    assert parameters(layer) == places * parameters(convolution)
    with torch.no_grad():
        layer.weight.copy_(convolution.weight.flatten(1).expand(places, 4, 27))  # type: ignore[operator, union-attr]
        layer.bias.copy_(convolution.bias[:, None, None].expand(layer.bias.shape))  # type: ignore[operator, union-attr, index]
    x = draw(2, 3, 7, 6)
    torch.testing.assert_close(layer(x), convolution(x))


def test_initial_weights_of_what_torch_does_not_have() -> None:
    """Uniform within 1 / sqrt(inputs), as those of `nn.Linear` and `nn.Conv2d`."""
    local = made(lambda: blocks.LocallyConnected((3, 20, 20), 8, 3)).state_dict()
    connect = made(lambda: blocks.DropConnect(27, 4000)).state_dict()
    for tensor in (*local.values(), *connect.values()):
        assert 0.98 / math.sqrt(27) < tensor.abs().max() <= 1 / math.sqrt(27)
        assert tensor.std().item() == pytest.approx(1 / math.sqrt(3 * 27), rel=0.05)


def test_streams_are_a_residual_network_or_a_plain_one() -> None:
    """Without transfer between the streams, the residual one is a residual layer, the transient one a convolution."""
    module = made(lambda: blocks.Streams(2, 2))
    weight = module.get_parameter("conv.weight")
    with torch.no_grad():
        weight[:2, 2:] = weight[2:, :2] = 0
    x = draw(3, 4, 5, 5)
    found = module.eval()(x)
    r, t = x.chunk(2, 1)
    inside = torch.cat(
        [nn.functional.conv2d(r, weight[:2, :2], padding=1) + r, nn.functional.conv2d(t, weight[2:, 2:], padding=1)], 1
    )
    torch.testing.assert_close(found, module.get_submodule("active")(inside))


@pytest.mark.parametrize("kind", ["poly", "mpoly", "way"])
def test_polynomials_of_order_1_and_scale_0(kind: str) -> None:
    x = draw(2, 3, 4, 4)
    first, other = made(lambda: poly(kind, 1)).eval(), made(lambda: poly("way", 1)).eval()
    torch.testing.assert_close(first(x), other(x))
    torch.testing.assert_close(made(lambda: poly(kind, 2, 0.0)).eval()(x), x.relu())


def test_a_polynomial_of_one_block_is_one_of_equal_blocks() -> None:
    """poly-2 with batch norms that agree = mpoly-2 with G = F; it has fewer parameters."""
    shared, twice = made(lambda: poly("poly")).eval(), made(lambda: poly("mpoly")).eval()
    first = twice.get_submodule("blocks.0").state_dict()
    twice.get_submodule("blocks.1").load_state_dict(first)
    wanted = {}
    for name in shared.get_submodule("blocks.0").state_dict():
        part = name.replace("norms.1", "norms.0").replace("lasts.1", "lasts.0")
        wanted[name] = first[part]
    shared.get_submodule("blocks.0").load_state_dict(wanted)
    x = draw(2, 3, 4, 4)
    torch.testing.assert_close(shared(x), twice(x))
    assert parameters(shared) < parameters(twice)


def test_the_gradient_of_softmax_with_cross_entropy() -> None:
    """Paper 4: dL/dy = z - z', the softmax of the logits less the labels."""
    logits = draw(6, 5).mul(3).requires_grad_()
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    losses.cross_entropy(logits, labels).sum().backward()
    y = logits.detach().numpy()
    z = np.array([[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in y])
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), z - np.eye(5)[labels.numpy()], rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- randomness


def test_dropout_of_the_lecture_is_torchs_in_expectation() -> None:
    """Zeroing in training and weights x (1 - p) afterwards (Hinton et al. 2012) = torch's, scaled while training."""
    p, x, weight = 0.4, draw(30), draw(7, 30, seed=2)
    torch.manual_seed(0)
    draws = 40_000
    kept = (torch.rand(draws, 30) >= p).double()
    lecture_training, lecture_after = (kept * x) @ weight.t(), ((1 - p) * weight) @ x
    inverted_training, inverted_after = nn.functional.dropout(x.expand(draws, 30), p) @ weight.t(), weight @ x
    # Each agrees with itself after training; and the two differ by the factor 1 - p, in training and after it.
    for training, after in ((lecture_training, lecture_after), (inverted_training, inverted_after)):
        error = training.std(0) / math.sqrt(draws)
        assert ((training.mean(0) - after).abs() < 5 * error).all()
    torch.testing.assert_close(lecture_after, (1 - p) * inverted_after)
    torch.testing.assert_close(lecture_training.std(0), (1 - p) * inverted_training.std(0), rtol=0.03, atol=0)


def test_dropconnect_draws_a_mask_for_every_example() -> None:
    """Weights are powers of two, so an answer tells which of them are kept."""
    layer = blocks.DropConnect(6, 1, drop=0.25)
    with torch.no_grad():
        layer.weight.copy_(2.0 ** torch.arange(6)[None])
        layer.bias.fill_(64.0)
    torch.manual_seed(0)
    rows = 20_000
    with torch.no_grad():
        answers = (0.75 * layer(torch.ones(rows, 6))).round().long().flatten()
    bits = (answers[:, None] >> torch.arange(7)) & 1
    assert torch.equal((bits << torch.arange(7)).sum(1), answers)
    rates = bits.double().mean(0)
    assert ((rates - 0.75).abs() < 5 * math.sqrt(0.75 * 0.25 / rows)).all()
    correlation = torch.corrcoef(bits.t().double()) - torch.eye(7)
    assert correlation.abs().max() < 5 / math.sqrt(rows)
    torch.testing.assert_close(layer.eval()(torch.ones(1, 6)), torch.tensor([[127.0]]))


def test_dropconnect_without_drop_is_linear() -> None:
    layer = made(lambda: blocks.DropConnect(5, 3, drop=0.0)).train()
    x = draw(4, 5)
    torch.testing.assert_close(layer(x), made(lambda: nn.Linear(5, 3))(x))


def constants(drop: float, whole: float, choice: blocks.Choice | None = None) -> blocks.Fractal:
    """A block of two columns that answer 1 and 3 whatever comes in."""
    block = blocks.Fractal(1, 1, columns=2, drop=drop, whole=whole, choice=choice)
    with torch.no_grad():
        for column, value in enumerate((1.0, 3.0)):
            for part in block.columns[column].modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.bias.fill_(value)
                    part.weight.zero_()
    return block.train()


def rates(answers: Tensor) -> list[float]:
    """How often the first column alone, the second alone, and both are kept."""
    found = answers.detach().flatten().round(decimals=4)
    assert set(found.tolist()) <= {1.0, 2.0, 3.0}
    return [(found == value).double().mean().item() for value in (1, 3, 2)]


@pytest.mark.parametrize(
    ("drop", "whole", "wanted"),
    [
        (0.15, 0.0, (0.15 * 0.85 + 0.15**2 / 2, 0.15 * 0.85 + 0.15**2 / 2, 0.85**2)),
        (0.15, 0.5, (0.25 + 0.069375, 0.25 + 0.069375, 0.36125)),
        (0.0, 0.0, (0.0, 0.0, 1.0)),
        (0.15, 1.0, (0.5, 0.5, 0.0)),
        (0.9999, 0.0, (0.5, 0.5, 0.0)),
    ],
)
def test_drop_path_drops_as_often_as_it_should(drop: float, whole: float, wanted: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    rows = 20_000
    found = rates(constants(drop, whole)(torch.ones(rows, 1, 1, 1)))
    assert found == pytest.approx(wanted, abs=5 * 0.5 / math.sqrt(rows))
    block = constants(drop, whole).eval()
    assert block(torch.ones(2, 1, 1, 1)).flatten().tolist() == [2.0, 2.0]


def test_one_column_is_kept_in_the_whole_network() -> None:
    """Blocks that share a choice keep the same column of an example."""
    torch.manual_seed(0)
    first = constants(0.15, 1.0)
    second, stranger = constants(0.15, 1.0, first.choice), constants(0.15, 1.0)
    inputs = torch.ones(200, 1, 1, 1)
    found = first(inputs)
    assert torch.equal(found, second(found))
    assert not torch.equal(found, stranger(found))


def test_a_column_alone_is_its_convolutions() -> None:
    """Where one column is kept, nothing of the others is in the answer, and they learn nothing."""
    block = made(lambda: fractal(3, whole=1.0)).train()
    assert isinstance(block, blocks.Fractal)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        x = draw(1, 2, 3, 4, seed=seed)
        block.zero_grad()
        found = block(x)
        column = int(block.choice.columns)
        here = x
        for convolution in block.columns[column]:  # type: ignore[attr-defined]
            here = convolution(here)
        torch.testing.assert_close(found, here)
        found.square().sum().backward()
        for name, parameter in block.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert moved == name.startswith(f"columns.{column}."), name
        seen.add(column)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("make", [lambda: blocks.DropConnect(5, 4), lambda: fractal(3)], ids=["DropConnect", "fractal"])
def test_randomness_comes_from_the_default_generator_alone(make: Callable[[], nn.Module]) -> None:
    """The loop seeds it before every step, so that a training which is continued draws what it would have drawn."""
    module = made(make).train()
    x = draw(16, 5) if isinstance(module, blocks.DropConnect) else draw(16, 2, 4, 4)
    answers = []
    for seed in (1, 1, 2):
        torch.default_generator.manual_seed(seed)
        answers.append(module(x).detach())
        np.random.rand()  # another generator moves on, and nothing changes
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    module.eval()
    before = torch.default_generator.get_state()
    module(x)
    assert torch.equal(torch.default_generator.get_state(), before)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "drop of all": (lambda: blocks.DropConnect(3, 2, drop=1.0), "drop is 1.0; wanted is a part"),
    "no column": (lambda: fractal(0), "0 columns"),
    "drop of all paths": (lambda: fractal(2, drop=1.0), "drop 1.0"),
    "more than all": (lambda: fractal(2, whole=1.5), "whole 1.5"),
    "kernel": (lambda: blocks.LocallyConnected((1, 4, 9), 2, 5), "5 x 5 does not fit into 4 x 9 padded by 0"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make()


def test_every_block_has_a_row() -> None:
    used = {type(part) for make, *_ in BLOCKS.values() for part in make().modules()}
    classes = {value for value in vars(blocks).values() if isinstance(value, type) and issubclass(value, nn.Module)}
    assert classes <= used
