"""Settings put into a plan by dotted key, and the points of a sweep."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill.errors import PlanError, unknown
from potstill.study.plan_text import Path, Where, parse_key, parse_value, shown

MOST_POINTS = 1000
_SETTING = re.compile(r"""((?:"[^"]*"|'[^']*'|[^="'])+)=(.*)""", re.DOTALL)
_SWEPT = ("data", "training", "models")


def read_settings(settings: Iterable[str]) -> list[tuple[Path, Any]]:
    """`["training.epochs=3"]` as paths and values; a value is read as TOML, else it is a string."""
    found: list[tuple[Path, Any]] = []
    for setting in settings:
        match = _SETTING.fullmatch(setting)
        if match is None:
            raise PlanError(f"found {shown(setting)}; wanted is KEY=VALUE, such as training.epochs=3.")
        found.append((parse_key(match[1].strip()), parse_value(match[2])))
    return found


def put(plan: Mapping[str, Any], settings: Iterable[tuple[Path, Any]], where: Where) -> dict[str, Any]:
    """An expanded plan with some values replaced; what it means is checked when it is expanded again.

    A model that has no optimizer of its own starts from the one of [training] when one of its keys is set. `epochs`
    puts `steps` out, and the other way round.
    """
    whole = copy.deepcopy(dict(plan))
    for path, value in settings:
        table = whole
        if path[0] == "models" and len(path) > 1 and path[1] not in whole["models"]:
            raise where.fault(path, unknown("model", str(path[1]), whole["models"]))
        for number, part in enumerate(path[:-1]):
            if part not in table:
                table[str(part)] = _start(whole, path[: number + 1])
            table = table[str(part)]
            if not isinstance(table, dict):
                kind = "a list; set it as a whole" if isinstance(table, list) else "no table"
                raise where.fault(path, f"cannot be set: {path[number]} is {kind}.")
        last = str(path[-1])
        if path[-2:-1] == ("training",) and last in ("epochs", "steps"):
            table.pop("steps" if last == "epochs" else "epochs", None)
        table[last] = value
    return whole


def _start(whole: Mapping[str, Any], path: Path) -> Any:
    if path[:1] == ("models",) and path[2:3] == ("training",) and len(path) == 4:
        return copy.deepcopy(whole["training"].get(path[3], {}))
    return {}


def grid(sweep: Mapping[str, Sequence[Any]], where: Where) -> list[dict[str, Any]]:
    """Every combination of the swept values, the last key running fastest; `[{}]` without a sweep."""
    for key, values in sweep.items():
        path = ("sweep", key)
        try:
            first = parse_key(key)[0]
        except PlanError as error:
            raise where.fault(path, error.bare) from None
        if first not in _SWEPT:
            raise where.fault(path, f"cannot be swept; wanted is a key of {', '.join(_SWEPT)}.")
        if not values:
            raise where.fault(path, "found an empty list; wanted is at least one value.")
        texts = [label({"": value})[1:] for value in values]  # 0.5 and "0.5" are one name
        twice = [text for text in texts if texts.count(text) > 1]
        if twice:
            raise where.fault(path, f"found {twice[0]} twice.")
    count = math.prod(len(values) for values in sweep.values())
    if count > MOST_POINTS:
        raise where.fault(("sweep",), f"found {count} points; wanted are at most {MOST_POINTS}.")
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def label(settings: Mapping[str, Any]) -> str:
    """`data.labelled=100, training.views=fresh`; empty without a sweep."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else shown(value, most=10**6)}" for key, value in settings.items()
    )


def swept_already(path: Path, sweep: Mapping[str, Any]) -> str | None:
    """The swept key that would overwrite a setting at `path`, or be changed by it."""
    own = _budget_is_one(path)
    for key in sweep:
        other = _budget_is_one(parse_key(key))
        short = min(len(own), len(other))
        if own[:short] == other[:short]:
            return key
    return None


def _budget_is_one(path: Path) -> Path:
    return (*path[:-1], "epochs") if path[-1] == "steps" else path


def blame(error: PlanError, settings: Mapping[str, Any], where: Where) -> PlanError:
    """An error at a point of a sweep, told at the swept key that it speaks of."""
    key = next((key for key in settings if error.key and error.key.startswith(key)), next(iter(settings)))
    told = f"at the point {label(settings)}: {error.key + ': ' if error.key else ''}{error.bare}"
    return where.fault(("sweep", key), told, error=type(error))
