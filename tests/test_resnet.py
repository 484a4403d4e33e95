"""Residual networks: their arithmetic against the equations, strides, initial weights, training and what is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import potstill as ps
from potstill import networks
from potstill.errors import Interrupted

Floats = NDArray[np.float64]
NAMES = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}
EPS = 1e-5


def convolved(x: Floats, weight: Floats, stride: int) -> Floats:
    """A convolution (C, H, W) -> (D, H', W') with a padding of half the kernel, as sums of shifted pictures."""
    size = weight.shape[-1]
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height, width = ((n + 2 * pad - size) // stride + 1 for n in x.shape[1:])
    answer = np.zeros((len(weight), height, width))
    for i in range(size):
        for j in range(size):
            part = padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
            answer += np.einsum("dc,chw->dhw", weight[:, :, i, j], part)
    return answer


class Oracle:
    """He et al. 2016, in float64, from the weights of a network."""

    def __init__(self, network: nn.Module) -> None:
        self.state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}

    def layer(self, x: Floats, conv: str, norm: str, stride: int) -> Floats:
        mean, var, weight, bias = (
            self.state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (convolved(x, self.state[f"{conv}.weight"], stride) - mean) / np.sqrt(var + EPS) * weight + bias

    def block(self, x: Floats, name: str, stride: int, strides: tuple[int, ...]) -> Floats:
        inner = x
        for i, own in enumerate(strides, 1):
            inner = self.layer(inner, f"{name}.body.conv{i}", f"{name}.body.norm{i}", own)
            inner = np.maximum(inner, 0) if i < len(strides) else inner
        if f"{name}.shortcut.conv.weight" in self.state:
            x = self.layer(x, f"{name}.shortcut.conv", f"{name}.shortcut.norm", stride)
        return np.maximum(inner + x, 0)

    def logits(self, x: Floats, name: str, stem: str) -> Floats:
        depths, bottleneck = NAMES[name]
        x = np.maximum(self.layer(x, "stem.conv", "stem.norm", 2 if stem == "large" else 1), 0)
        if stem == "large":
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            rows, columns = ((n + 1) // 2 for n in x.shape[1:])
            parts = [padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
            x = np.maximum.reduce([part[:, :rows, :columns] for part in parts])
        for stage, depth in enumerate(depths, 1):
            for block in range(1, depth + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                # The 3x3 convolution has the stride: the first of two, or the second of three.
                strides = (1, stride, 1) if bottleneck else (stride, 1)
                x = self.block(x, f"stage{stage}.block{block}", stride, strides)
        return self.state["head.weight"] @ x.mean((1, 2)) + self.state["head.bias"]


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics, scales and offsets of their own, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.5), (module.bias, -0.5), (module.weight, 0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low  # type: ignore[union-attr]
            module.running_var.data = torch.rand(module.running_var.shape, generator=generator) + 0.5  # type: ignore[union-attr]
    return network


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stem", "shape"), [("small", (3, 13, 16)), ("large", (1, 39, 64))])
def test_answers_what_the_equations_say(name: str, stem: str, shape: tuple[int, ...]) -> None:
    spec = {"name": name, "width": 4, "stem": stem, "dropout": 0.5}
    network = shaken(networks.seeded(spec, shape, 3, seed=1)).eval()
    picture = torch.rand(1, *shape, generator=torch.Generator().manual_seed(2))
    wanted = Oracle(network).logits(picture[0].double().numpy(), name, stem)
    np.testing.assert_allclose(network(picture)[0].detach().numpy(), wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 64, 64), (3, 64, 90), (3, 65, 90), (3, 224, 224)])
def test_the_stem_follows_the_pictures(shape: tuple[int, ...]) -> None:
    """Small up to 64 px of the shorter side; what is said in the plan counts."""
    small = min(shape[1:]) <= 64
    for stem, wanted in (("auto", small), ("small", True), ("large", False)):
        if stem == "large" and min(shape[1:]) < 32:
            continue
        network = networks.build({"name": "resnet18", "width": 2, "stem": stem}, shape, 2)
        found = dict(network.named_children())
        conv = network.get_submodule("stem.conv")
        assert isinstance(conv, nn.Conv2d)
        kernel = (3, 3) if wanted else (7, 7)
        assert (conv.kernel_size, conv.stride[0], "pool" in found) == (kernel, 1 if wanted else 2, not wanted)


def test_features_of_the_stages() -> None:
    network = networks.build("resnet50:4", (3, 64, 64), 2)
    wanted = {"stem": (4, 64, 64), "stage1": (16, 64, 64), "stage2": (32, 32, 32), "stage3": (64, 16, 16)}
    wanted |= {"stage4": (128, 8, 8), "flatten": (128,)}  # type: ignore[dict-item]
    inputs = torch.rand(2, 3, 64, 64)
    found = networks.forward(network, inputs, list(wanted))
    assert {name: tuple(value.shape[1:]) for name, value in found.features.items()} == wanted
    # A later part that writes into an earlier one's answer would change it.
    step = inputs
    with torch.no_grad():
        stem = network.eval().get_submodule("stem")(step)
        assert torch.equal(networks.forward(network, inputs, ["stem"]).features["stem"], stem)


def test_initial_weights_are_he_s() -> None:
    """Normal, variance 2 / (outputs x kernel) for convolutions; 1 and 0 for norms; torch's own for the head."""
    network = networks.seeded("resnet50:32", (3, 64, 64), 2, seed=0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            wanted = math.sqrt(2 / (module.out_channels * module.kernel_size[0] ** 2))
            n = module.weight.numel()
            assert module.bias is None
            assert module.weight.std().item() == pytest.approx(wanted, rel=5 / math.sqrt(2 * n)), name
            assert abs(module.weight.mean().item()) < 5 * wanted / math.sqrt(n), name
            assert module.weight.abs().max() > 2 * wanted, name  # not uniform, which ends at 1.73
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight.min(), module.weight.max(), module.bias.abs().max()) == (1, 1, 0), name
    head = network.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert head.weight.abs().max() <= 1 / math.sqrt(1024)


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def photos() -> Any:
    """Two kinds of pictures, 3 x 16 x 16: bright at the top or at the bottom, in noise."""
    random = np.random.default_rng(0)
    labels = np.arange(240) % 2
    pictures = random.integers(0, 120, (240, 3, 16, 16), np.uint8)
    pictures[labels == 1, :, :8] += 100
    pictures[labels == 0, :, 8:] += 100
    return ps.data.open((pictures, labels), task="binary", validation=40, test=40)


SETTINGS: dict[str, Any] = {"batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 3e-3}, "seed": 1}
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "channels last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@every_way
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_trains_records_and_predicts(photos: Any, tmp_path: Path, name: str, way: dict[str, Any]) -> None:
    settings = SETTINGS | {"batch_size": 16, "epochs": 6} | way
    model = ps.fit(f"{name}:8", photos, folder=tmp_path / "model", **settings)
    assert all(p.dtype == torch.float32 for p in model.network.parameters())
    assert model.history[-1]["train_objective"] < 0.7 * model.history[0]["train_objective"]
    measured = ps.evaluate(model, photos.test)
    assert measured["accuracy"] > 0.9
    # What was kept answers alike, and in a recording too.
    loaded = ps.load(tmp_path / "model")
    assert loaded.fingerprint() == model.fingerprint()
    assert ps.evaluate(loaded, photos.test) == measured
    stored = ps.record(loaded, photos.train, tmp_path / "outputs")
    rows = torch.arange(20)
    answers = loaded(photos.train.fetch(rows, 0).inputs)
    torch.testing.assert_close(stored.lookup(rows, 0).logits(), answers, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]
    student = ps.fit(f"{name}:4", photos, "soft_labels", teacher=stored, **settings | {"epochs": 1})
    assert math.isfinite(student.history[-1]["train_objective"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adadelta"])
def test_channels_last_is_a_layout_and_nothing_else(photos: Any, optimizer: str) -> None:
    slow = {"name": optimizer, "learning_rate": 1e-3}
    settings: dict[str, Any] = {"steps": 4, "seed": 1, "batch_size": 32, "select": "last", "optimizer": slow}
    plain, other = (ps.fit("resnet18:4", photos, channels_last=last, **settings) for last in (False, True))
    for (name, a), b in zip(plain.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-4, msg=name)


@every_way
def test_statistics_of_batch_norms_are_kept_and_used(photos: Any, tmp_path: Path, way: dict[str, Any]) -> None:
    """They are those of the data, saved with the weights, part of the best ones, and what a prediction is made with."""
    model = ps.fit("resnet18:4", photos, epochs=2, folder=tmp_path, select="last", **SETTINGS, **way)
    norm = model.network.get_submodule("stem.norm")
    kept = ps.load(tmp_path).network.get_submodule("stem.norm").state_dict()
    assert int(kept["num_batches_tracked"]) == model.info["steps"]
    for name, tensor in norm.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
    inputs = photos.train.fetch(torch.arange(160), 0).inputs
    with torch.no_grad():
        answers = model.network.get_submodule("stem.conv")(inputs)
    # 10 steps with momentum 0.1 from mean 0: about 0.65 of the data's mean, up to what the weights moved.
    share = 1 - 0.9 ** model.info["steps"]
    torch.testing.assert_close(kept["running_mean"], share * answers.mean((0, 2, 3)), rtol=0.2, atol=0.05)
    before = model(inputs)
    alone = torch.cat([model(row[None]) for row in inputs[:8]])
    torch.testing.assert_close(before[:8], alone, rtol=1e-3, atol=1e-4)  # a row does not depend on its batch
    norm.get_buffer("running_mean").add_(1.0)
    assert (model(inputs) - before).abs().max() > 0.01


@every_way
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_broken_training_is_continued(photos: Any, tmp_path: Path, optimizer: str, way: dict[str, Any]) -> None:
    """Statistics, moments and the layout of pictures in memory come back: bit for bit."""
    asked = iter([False] * 2 + [True] * 20)
    arguments: dict[str, Any] = {"epochs": 4} | SETTINGS | {"optimizer": optimizer} | way
    straight = ps.fit("resnet18:4", photos, folder=tmp_path / "straight", **arguments)
    with pytest.raises(Interrupted):
        ps.fit("resnet18:4", photos, folder=tmp_path / "broken", should_stop=lambda: next(asked), **arguments)
    continued = ps.fit("resnet18:4", photos, folder=tmp_path / "broken", **arguments)
    assert continued.history == straight.history
    assert continued.fingerprint() == straight.fingerprint()
