"""What networks are made of: layers by hand, sums of all, the catalogue, and the command that shows them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_samples import SMALL
from torch import nn

from potstill import networks
from potstill.cli import call
from potstill.networks.catalogue import EXAMPLES
from potstill.networks.summary import Layer, layers
from potstill.study import latency

LENET = [
    ("conv1", "Conv2d", (6, 28, 28), 156, 28 * 28 * 150),
    ("relu1", "ReLU", (6, 28, 28), 0, 0),
    ("pool1", "MaxPool2d", (6, 14, 14), 0, 0),
    ("conv2", "Conv2d", (16, 10, 10), 2416, 100 * 2400),
    ("relu2", "ReLU", (16, 10, 10), 0, 0),
    ("pool2", "MaxPool2d", (16, 5, 5), 0, 0),
    ("flatten", "Flatten", (400,), 0, 0),
    ("dense1", "Linear", (120,), 48_120, 48_000),
    ("relu3", "ReLU", (120,), 0, 0),
    ("dense2", "Linear", (84,), 10_164, 10_080),
    ("relu4", "ReLU", (84,), 0, 0),
    ("head", "Linear", (10,), 850, 840),
]


def test_layers_of_lenet() -> None:
    found = layers(networks.build("lenet", (1, 28, 28), 10), (1, 28, 28))
    assert found == [Layer(*row) for row in LENET]


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize("deep", [False, True], ids=["children", "all"])
def test_layers_add_up(name: str, deep: bool) -> None:
    """To what the network costs; the children are the features; nothing of the network is changed."""
    with torch.device("meta"):
        network = networks.build(SMALL[name], (1, 28, 28), 3)
    rows = layers(network, (1, 28, 28), deep=deep)
    parameters, multiply_adds, _ = networks.cost(network, (1, 28, 28))
    assert sum(row.parameters for row in rows) == parameters
    assert sum(row.multiply_adds for row in rows) == multiply_adds
    assert rows[-1].shape == (3,)
    assert all(row.kind == type(network.get_submodule(row.name)).__name__ for row in rows)
    if not deep:
        assert [row.name for row in rows] == [child for child, _ in network.named_children()]
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_what_is_shared_is_counted_once_and_computed_twice() -> None:
    inner = nn.Linear(4, 4)
    network = nn.Sequential(OrderedDict(a=inner, relu=nn.ReLU(), b=nn.Sequential(inner, nn.Linear(4, 2))))
    assert [row.parameters for row in layers(network, (4,))] == [20, 0, 10]
    assert [row.multiply_adds for row in layers(network, (4,))] == [16, 0, 16 + 8]
    assert layers(nn.Linear(3, 2), (3,)) == [Layer("Linear", "Linear", (2,), 8, 6)]


def test_every_network_has_an_example() -> None:
    assert {example.name for example in EXAMPLES} == set(networks.names())
    assert len({example.title for example in EXAMPLES}) == len(EXAMPLES)


# ---------------------------------------------------------------- the command


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert call(["networks", *arguments]) == 0
        return capsys.readouterr().out

    return run


def cells(text: str, name: str) -> list[str]:
    """The cells of the row that begins with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_list_has_the_sizes(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(example for example in EXAMPLES if example.name in ("lenet", "mobile"))
    monkeypatch.setattr("potstill.networks.catalogue.EXAMPLES", few)
    text = shown()
    assert cells(text, "lenet") == ["lenet", "1 x 28 x 28", "10", "61,706", "416,520"]
    assert cells(text, '{ name = "mobile", width = 8, depths = [1, 2, 2] }')[3] == "10,634"
    rows = json.loads(shown("--json"))["networks"]
    assert [row["title"] for row in rows] == [example.title for example in few]
    assert (rows[0]["parameters"], rows[0]["bytes"], rows[0]["shape"]) == (61_706, 246_824, [1, 28, 28])


def test_layers_are_shown(shown: Callable[..., str]) -> None:
    text = shown("lenet")
    assert "lenet for 1 x 28 x 28 and 10 outputs" in text
    for name, kind, shape, parameters, multiply_adds in LENET:
        wanted = [name, kind, " x ".join(map(str, shape)), f"{parameters:,}", f"{multiply_adds:,}"]
        assert cells(text, name) == wanted
    assert cells(text, "in all") == ["in all", "61,706", "416,520"]
    text = shown('{ name = "densenet", depths = [1, 1], growth = 4 }', "--shape", "3x16x16", "--outputs", "2", "--all")
    assert "transition1.pool" in text
    assert "growth = 12" in text
    found = json.loads(shown("resnet18:4", "--shape", "3x64x64", "--outputs", "2", "--json"))
    network = networks.build("resnet18:4", (3, 64, 64), 2)
    assert [found[key] for key in ("parameters", "multiply_adds", "bytes")] == list(networks.cost(network, (3, 64, 64)))
    assert [row["name"] for row in found["layers"]] == [child for child, _ in network.named_children()]


def test_latency_is_measured(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process with one thread; here in this one, at once."""
    asked: list[int] = []

    def alone(threads: int, function: Callable[..., Any], *args: Any) -> Any:
        asked.append(threads)
        return function(*args)

    monkeypatch.setattr(latency, "alone", alone)
    few = tuple(example for example in EXAMPLES if example.name in ("linear", "lenet"))
    monkeypatch.setattr("potstill.networks.catalogue.EXAMPLES", few)
    found = json.loads(shown("--latency", "--json"))
    assert "torch" in found["machine"]
    assert all(0 < row["latency_ms"] < 1000 for row in found["networks"])
    assert "ms of processor time with one thread" in shown("linear", "--latency")
    assert float(cells(shown("--latency"), "lenet")[-1]) > 0
    assert asked == [1, 1, 1]
