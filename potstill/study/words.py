"""Short texts about models: what a network, an objective, a cost is called in results and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from potstill import storage
from potstill.study.results import Cost, ModelResult


def network(table: Mapping[str, Any] | None) -> str:
    """A network's table as text, without the settings that are left at their defaults.

    >>> network({"name": "mlp", "hidden": [100, 50], "dropout": 0.0})
    'mlp:100-50'
    """
    if table is None:
        return "recorded outputs"
    from potstill.networks import REGISTRY

    defaults = {key: storage.plain(default) for key, (_, default) in REGISTRY.parameters(table["name"]).items()}
    first = next(iter(defaults), None)
    return _call({k: v for k, v in table.items() if k == first or k not in defaults or v != defaults[k]})


def objective(tables: Sequence[Mapping[str, Any]] | None) -> str:
    """One objective, or a sum of several.

    >>> objective([{"name": "hinton", "temperature": 2.0, "alpha": 0.1}])
    'hinton(temperature=2.0, alpha=0.1)'
    """
    if not tables:
        return "none"
    return " + ".join(_call(table) for table in tables)


def _call(table: Mapping[str, Any], *, drop_zeros: bool = False) -> str:
    rest = {
        key: value for key, value in table.items() if key != "name" and not (drop_zeros and value in (0, 0.0, None))
    }
    name = str(table["name"])
    first = next(iter(rest), None)
    if first is not None and isinstance(rest[first], (list, tuple)):
        name += ":" + "-".join(map(str, rest.pop(first)))
    return name + (f"({', '.join(f'{key}={value}' for key, value in rest.items())})" if rest else "")


def cost(key: str, other: str, models: Mapping[str, ModelResult]) -> str | None:
    """What the compared model costs, beside the other: size where it differs, and the training its teachers took."""
    ours, theirs = models[key].cost, models[other].cost
    if ours is None or theirs is None:
        return None
    parts = [_size(ours, theirs)]
    above, beside = _ancestors(key, models) - {key}, _ancestors(other, models)
    for shared, often in ((False, "per seed"), (True, "once for all seeds")):
        extra = _seconds({name for name in above - beside if models[name].shared is shared}, models)
        if extra >= 0.05:
            parts.append(f"its teacher adds {_duration(extra)} of training and recording {often}")
    return "; ".join(parts)


def _size(ours: Cost, theirs: Cost) -> str:
    if ours.parameters == theirs.parameters:
        return f"both have {ours.parameters:,} parameters"
    small, big = sorted((ours.parameters, theirs.parameters))
    text = f"{ours.parameters:,} parameters against {theirs.parameters:,} ({big / small:.3g} times)"
    pair = {(row.batch, row.threads): row.median_ms for row in theirs.latency}
    for row in ours.latency:
        if (row.batch, row.threads) in pair:
            return (
                f"{text}, {row.median_ms:.3g} ms against {pair[(row.batch, row.threads)]:.3g} ms at batch {row.batch}"
            )
    return text


def _ancestors(key: str, models: Mapping[str, ModelResult]) -> set[str]:
    found = {key}
    for teacher in models[key].teachers:
        found |= _ancestors(teacher, models) if teacher in models else set()
    return found


def _seconds(keys: set[str], models: Mapping[str, ModelResult]) -> float:
    costs = [models[key].cost for key in keys]
    return sum((c.train_seconds or 0.0) + (c.record_seconds or 0.0) for c in costs if c is not None)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
