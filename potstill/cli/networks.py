"""`networks`: which there are, and what one is made of."""

from __future__ import annotations

import dataclasses
import inspect
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from potstill.cli import text
from potstill.errors import NetworkError, SettingError

if TYPE_CHECKING:
    from torch import nn

    from potstill.networks.catalogue import Example
    from potstill.registry import Spec

_TOGETHER = 40_000_000  # parameters of networks that are timed in turns
_COLUMNS = ["network", "examples", "outputs", "parameters", "multiply-adds"]
_LAYERS = ["layer", "what", "one example that comes out", "parameters", "multiply-adds"]


def listing(*, latency: bool, as_json: bool) -> None:
    """Every network of the catalogue with its size, and with how long it takes on this machine."""
    from potstill.networks.catalogue import EXAMPLES

    rows = [_row(example) for example in EXAMPLES]
    if latency:
        times = _measured(EXAMPLES)
        rows = [row | {"latency_ms": times[row["title"]]} for row in rows]
    if as_json:
        typer.echo(json.dumps({"machine": _machine() if latency else None, "networks": rows}, indent=1))
        return
    head = [*_COLUMNS, *(["ms"] if latency else [])]
    cells = [
        [
            _written(row["network"]),
            _shape(row["shape"]),
            f"{row['outputs']:,}",
            f"{row['parameters']:,}",
            f"{row['multiply_adds']:,}",
            *([f"{row['latency_ms']:.3g}"] if latency else []),
        ]
        for row in rows
    ]
    typer.echo(text.table(head, cells, right=range(2, 6)))
    if latency:
        typer.echo("\nms: the median processor time of one example's prediction, with one thread of this CPU.")
    typer.echo(f"\nLayers and keys of one: {text.program()} networks NAME")


def refuse(**given: object) -> None:
    """Options that say something about one network, without one."""
    for option, value in given.items():
        if value:
            raise SettingError(
                f"--{option} is about one network; give its name too: {text.program()} networks NETWORK --{option} ..."
            )


def one(network: str, shape: str | None, outputs: int | None, *, deep: bool, latency: bool, as_json: bool) -> None:
    """The layers of one network."""
    import torch

    from potstill import networks
    from potstill.networks.summary import layers

    spec = _spec(network)
    name = networks.REGISTRY.expand(spec)["name"]
    if name in networks.ON_WORDS:
        raise NetworkError(
            f"{name} is a network of word ids, whose size depends on the vocabulary of the data: potstill check PLAN "
            "tells it."
        )
    examples, answers = _asked(name, shape, outputs)
    with torch.device("meta"):  # shapes without numbers: no memory, and no time for large ones
        module = networks.build(spec, examples, answers)
        rows = layers(module, examples, deep=deep)
        parameters, multiply_adds, size = networks.cost(module, examples)
    taken = _measured([_example("", spec, examples, answers)])[""] if latency else None
    if as_json:
        found: dict[str, Any] = {
            "network": networks.REGISTRY.full(spec),
            "shape": list(examples),
            "outputs": answers,
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "bytes": size,
            "layers": [row._asdict() for row in rows],
        }
        typer.echo(json.dumps(found | ({"latency_ms": taken, "machine": _machine()} if latency else {}), indent=1))
        return
    about = (inspect.getdoc(networks.REGISTRY.table[name]) or "").split("\n\n")[0].replace("\n", " ")
    typer.echo(
        f"{text.wrapped(about)}\n\n{networks.label(spec)} for {_shape(examples)} and {text.plural(answers, 'output')}\n"
    )
    cells = [[row.name, row.kind, _shape(row.shape), f"{row.parameters:,}", f"{row.multiply_adds:,}"] for row in rows]
    cells.append(["in all", "", "", f"{parameters:,}", f"{multiply_adds:,}"])
    typer.echo(text.table(_LAYERS, cells, right=range(3, 5)))
    typer.echo(f"\nWeights: {text.size(size)}.")
    if taken is not None:
        typer.echo(f"One example takes {taken:.3g} ms of processor time with one thread of this CPU (median).")
    keys = networks.REGISTRY.parameters(name)
    if keys:
        typer.echo(f"Keys: {', '.join(f'{key} = {_toml(default)}' for key, (_, default) in keys.items())}")
    if not deep:
        typer.echo("These layers are its hidden features. --all shows what is inside them.")


def _spec(network: str) -> Spec:
    """A name, its shorthand, or a table as a plan has it."""
    from potstill.study.plan_text import parse_value

    found = parse_value(network) if network.lstrip().startswith("{") else network
    if not isinstance(found, str | dict):
        raise SettingError(f'{network}: wanted is a name, or a table such as {{ name = "mlp", hidden = [100] }}.')
    return found


def _asked(name: str, shape: str | None, outputs: int | None) -> tuple[tuple[int, ...], int]:
    """The examples and outputs that are asked for, by default those of the catalogue's first network of the name."""
    from potstill.networks.catalogue import EXAMPLES

    usual = next((example for example in EXAMPLES if example.name == name), None)
    if shape is None and usual is None:
        raise NetworkError(f"{name}: say of which examples, with --shape, such as --shape 3x64x64.")
    sizes = usual.shape if shape is None and usual else _sizes(shape or "")
    return sizes, outputs if outputs is not None else usual.outputs if usual else 10


def _sizes(shape: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in shape.lower().replace("×", "x").split("x"))
    except ValueError:
        raise SettingError(
            f"--shape {shape}: wanted is the shape of one example, such as 3x64x64 (channels, height, width) or 784."
        ) from None


def _example(title: str, spec: Spec, shape: tuple[int, ...], outputs: int) -> Example:
    from potstill.networks.catalogue import Example

    return Example(title, spec, shape, outputs)


def _row(example: Example) -> dict[str, Any]:
    import torch

    from potstill import networks

    with torch.device("meta"):
        module = networks.build(example.network, example.shape, example.outputs)
        parameters, multiply_adds, size = networks.cost(module, example.shape)
    found = dataclasses.asdict(example) | {"shape": list(example.shape)}
    return found | {"parameters": parameters, "multiply_adds": multiply_adds, "bytes": size}


def _measured(examples: Sequence[Example]) -> dict[str, float]:
    """Median milliseconds of one example's prediction by title, in a process of its own with one thread.

    They are those of the processor: what other work takes from the thread is not counted.
    """
    from potstill.study import latency

    return latency.alone(1, _timed, list(examples))


def _timed(examples: Sequence[Example]) -> dict[str, float]:
    """Groups of networks take turns, so that what the machine does meanwhile meets all of a group."""
    from potstill.study import latency

    found: dict[str, float] = {}
    group: dict[str, list[Any]] = {}
    held = 0
    for number, example in enumerate(examples, 1):
        model = _model(example)
        group[example.title] = [model]
        held += sum(p.numel() for p in model.network.parameters())
        if held > _TOGETHER or number == len(examples):
            times = latency.in_turns(group, (1,), clock=time.process_time)
            found |= {title: latency.summary(turns)["median_ms"] for (title, _), turns in (times or {}).items()}
            group, held = {}, 0
    return found


def _model(example: Example) -> Any:
    from potstill import networks
    from potstill.networks.model import Model
    from potstill.types import DataSpec

    module: nn.Module = networks.build(example.network, example.shape, example.outputs)
    return Model(module, DataSpec(example.shape, tuple(map(str, range(max(example.outputs, 2))))))


def _machine() -> Any:
    from potstill.study import folder

    return folder.machine()


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _written(spec: Spec) -> str:
    """As a plan has it."""
    if isinstance(spec, str):
        return spec
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in spec.items()) + " }"


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)
