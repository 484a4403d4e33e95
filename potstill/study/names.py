"""Names in a plan (networks, objectives, optimizers, ...) against the registries, whose signatures give their keys.

The registries import torch, so they are imported when a name is looked up, not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from inspect import Parameter
from pathlib import Path as File
from typing import Any, Literal, TypeAlias

from potstill import metrics
from potstill.errors import DataError, NotYetError, UsageError, did_you_mean, unknown
from potstill.registry import Registry
from potstill.study.area import PREFIX, inner, is_area
from potstill.study.measured import QUANTITIES
from potstill.study.plan_text import Path, Where

Kind: TypeAlias = Literal["network", "objective", "optimizer", "schedule", "augmentation", "inference"]
SOURCES_NOT_YET = ("cats-dogs",)


@dataclass(frozen=True)
class _Tools:
    registry: Registry
    not_yet: Collection[str]
    build: Callable[[dict[str, Any]], Any]  # complains about values out of their range


@cache
def _tools(kind: Kind) -> _Tools:
    if kind == "network":
        from potstill import networks

        return _Tools(networks.REGISTRY, (), _without_weights)
    if kind == "objective":
        from potstill import objectives

        return _Tools(objectives.REGISTRY, (), objectives.build)
    if kind == "inference":
        from potstill import bayes
        from potstill.study.inference import without_from

        return _Tools(bayes.REGISTRY, (), lambda table: bayes.build(without_from(table)))
    if kind == "augmentation":
        from potstill.data import views

        return _Tools(views.registry, (), views.build)
    import torch

    from potstill.training import optimizers

    if kind == "schedule":
        return _Tools(optimizers.SCHEDULES, (), optimizers.SCHEDULES.call)
    weight = torch.nn.Parameter(torch.zeros(1))
    return _Tools(optimizers.REGISTRY, (), lambda table: optimizers.REGISTRY.call(table, [weight]))


def _without_weights(network: dict[str, Any]) -> Any:
    """Build a network for some picture or text, to check its settings; whether it fits the data shows later."""
    import torch

    from potstill import networks

    with torch.device("meta"):
        if network["name"] in networks.names(words=True):
            return networks.build(network, (64,), 2, vocabulary=100)
        return networks.build(network, (1, 224, 224), 2)


def spec(kind: Kind, value: Any, path: Path, where: Where) -> dict[str, Any]:
    """A name or table as a checked table; defaults are left out."""
    tools = _tools(kind)
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(value, str | dict) or not isinstance(name, str):
        raise where.wrong(path, value, f"the name of an {kind}" if kind[0] in "aio" else f"the name of a {kind}")
    if name.partition(":")[0] in tools.not_yet:
        raise where.fault(path, f'The {kind} "{name}" is not built yet in this version.', error=NotYetError)
    try:
        table = tools.registry.expand(value)
        tools.build(table)
    except UsageError as error:
        raise where.fault(_blamed(path, value, str(error)), str(error)) from None
    return _table(table)


def inference(value: Any, path: Path, where: Where) -> dict[str, Any]:
    """A name or table of an inference as a checked table; whether `prior.from` is a model shows later."""
    table = spec("inference", value, path, where)
    found = (table.get("prior") or {}).get("from")
    if "from" in (table.get("prior") or {}) and (not isinstance(found, str) or not found):
        raise where.wrong((*path, "prior", "from"), found, "the name of a model of this plan")
    return table


def full_inference(table: dict[str, Any]) -> dict[str, Any]:
    """A checked table of an inference with every default written out, those of its prior too."""
    from dataclasses import asdict

    from potstill import bayes
    from potstill.study.inference import without_from

    found = full("inference", table)
    if "prior" not in found:
        return found
    believed = asdict(bayes.build(without_from(table)).settings["prior"])  # a preset has defaults of its own
    return found | {"prior": believed | (found["prior"] or {})}


def several(kind: Kind, value: Any, path: Path, where: Where) -> list[dict[str, Any]]:
    """One specification or a list of them, as a list."""
    if not isinstance(value, list):
        return [spec(kind, value, path, where)]
    return [spec(kind, inner, (*path, number), where) for number, inner in enumerate(value)]


def full(kind: Kind, table: dict[str, Any]) -> dict[str, Any]:
    """A checked table with every default written out: what a fingerprint is made of."""
    return _table(_tools(kind).registry.full(table))


def label(kind: Kind, table: dict[str, Any]) -> str:
    """A checked table as short text: `mlp:100`, `hinton(temperature=4.0)`."""
    return _tools(kind).registry.label(table)


def needs_teacher(objective: dict[str, Any]) -> bool:
    """Whether a checked objective learns from a teacher; `hinton` with alpha = 1 does not."""
    return bool(_tools("objective").build(objective).needs_teacher)


def needs_labels(objective: dict[str, Any]) -> bool:
    """Whether a checked objective learns from labels; `hinton` with alpha = 0 does not."""
    return bool(_tools("objective").build(objective).needs_labels)


def reads_features(objective: dict[str, Any]) -> bool:
    """Whether a checked objective reads hidden features of its teacher."""
    return bool(_tools("objective").build(objective).hidden.teacher)


def can_use_teacher(objective: dict[str, Any]) -> bool:
    """Whether a checked objective is one that learns from a teacher, at some of its settings if not at these."""
    registry = _tools("objective").registry
    required = any(default is Parameter.empty for _, default in registry.parameters(objective["name"]).values())
    return needs_teacher(objective) or (not required and needs_teacher({"name": objective["name"]}))


def area(value: dict[str, Any], path: Path, where: Where) -> str:
    """`{ area_under = "squared_error" }` as the name that it has everywhere else: area_under_squared_error."""
    key = PREFIX.removesuffix("_")
    if set(value) != {key}:
        raise where.wrong(path, value, f'the name of a metric, or {{ {key} = "NAME" }}')
    name = f"{PREFIX}{value[key]}"
    metric(name, (*path, key), where)
    return name


def learns(objective: dict[str, Any]) -> str:
    """What a checked objective wants the student to answer."""
    return str(_tools("objective").build(objective).learns)


def answers_variances(objective: dict[str, Any] | tuple[dict[str, Any], ...] | None) -> bool:
    """Whether a model with these checked objectives answers log variances too."""
    given = objective if isinstance(objective, tuple) else (objective,)
    return any(table is not None and learns(table) == "gaussian" for table in given)


def metric(value: Any, path: Path, where: Where) -> None:
    """Refuses what is not the name of a metric, or of an area under the curve of one."""
    area = isinstance(value, str) and is_area(value)
    _listed(inner(value) if area else value, metrics.names(), path, where)
    if area and metric_needs_teacher(value):
        raise where.fault(path, f'"{inner(value)}" needs a teacher and cannot be watched during training.')


def published(value: Any, path: Path, where: Where) -> None:
    """Refuses what is not the name of something that papers print and we have."""
    known = inner(value) if isinstance(value, str) else value
    _listed(known, (*metrics.names(), *QUANTITIES), path, where)


def _listed(value: Any, known: Collection[str], path: Path, where: Where) -> None:
    if not isinstance(value, str):
        raise where.wrong(path, value, "the name of a metric")
    if value not in known:
        raise where.fault(path, unknown("metric", value, known))


def is_fraction(name: str) -> bool:
    """Whether a metric's values lie between 0 and 1 and are told in per cent."""
    return name in metrics.FRACTIONS


def metric_needs_teacher(name: str) -> bool:
    """Whether a metric compares a model with its teacher; of an area whether that below it does."""
    return metrics.declared(inner(name)).needs_teacher


def watched(key: str, value: Any, path: Path, where: Where) -> None:
    """Refuses what `monitor` or `select` cannot watch."""
    extra = ("objective", "train_objective") if key == "monitor" else ("last",)
    known = [*extra, *(name for name in metrics.names() if not metric_needs_teacher(name))]
    if value in metrics.names() and value not in known:
        raise where.fault(path, f'"{value}" needs a teacher and cannot be watched during training.')
    _listed(value, known, path, where)


def drawn() -> list[str]:
    """Names of the sources that the program draws."""
    from potstill import data

    return data.drawn()


def has_truth(source: dict[str, Any]) -> bool:
    """Whether a checked source has a law that is known."""
    from potstill import data

    return data.has_truth(source)


def source(value: Any, path: Path, where: Where) -> dict[str, Any]:
    """`data.source` as a table. Whether a file or folder is there shows when the data are opened."""
    from potstill import data
    from potstill.data import pixels
    from potstill.data.named import path_options

    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("name"), str) or not table["name"]:
        raise where.wrong(path, value, "a built-in name, a file, a folder, or a table with a name")
    name = table["name"]
    if name in SOURCES_NOT_YET:
        raise where.fault(path, f'The data source "{name}" is not built yet in this version.', error=NotYetError)
    if name not in data.names():
        near = did_you_mean(name, data.names())
        if near and not re.search(r"[./]", name) and not File(name).exists():
            known = ", ".join(data.names())
            raise where.fault(
                path, f'Unknown data source "{name}".{near} Known: {known}; a folder of that name: ./{name}'
            )
        known_keys: Collection[str] = path_options(name)
    else:
        known_keys = data.options(name)
    for key in table:
        if key != "name" and key not in known_keys:
            listed = ", ".join(known_keys) or "none"
            near = did_you_mean(key, known_keys)
            raise where.fault((*path, key), f'The data source "{name}" has no key "{key}".{near} Known: {listed}.')
    try:
        pixels.options(table)
        data.check(table)
    except DataError as error:
        raise where.fault(_blamed(path, table, str(error)), str(error)) from None
    return {"name": name} | table


def inputs(value: Any, path: Path, where: Where) -> list[str]:
    """The names of `data.inputs`, in order, checked as far as that can be without the data."""
    from potstill.data import declared

    if value is None:
        return []
    try:
        return list(declared.read(value))
    except DataError as error:
        found = re.match(r"inputs\.([\w-]+)", str(error))
        inner = (*path, found[1]) if found else path
        raise where.fault(inner, str(error).partition(": ")[2] if found else str(error)) from None


def _blamed(path: Path, value: Any, message: str) -> Path:
    """The key of `value` that a complaint speaks of first, else the whole."""
    keys = [key for key in value if key != "name"] if isinstance(value, dict) else []
    told = {key: re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message) for key in keys}
    places = {key: found.start() for key, found in told.items() if found}
    return (*path, min(places, key=lambda key: places[key])) if places else path


def _table(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _lists(inner) for key, inner in value.items()}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, list | tuple) else value
