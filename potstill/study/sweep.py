"""Settings put into a plan by dotted key, and the points of a sweep."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill import storage
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


def keys(entry: str) -> list[str]:
    """The dotted keys of an entry of a sweep, which may be several joined by commas, set together.

    >>> keys("training.monitor, data.validation")
    ['training.monitor', 'data.validation']
    """
    return [key.strip() for key in entry.split(",")]


def grid(sweep: Mapping[str, Sequence[Any]], where: Where) -> list[dict[str, Any]]:
    """Every combination of the swept entries, the last one running fastest; `[{}]` without a sweep.

    Each combination is flat: from single dotted keys to values, also where an entry sets several keys together.
    """
    seen: dict[Path, str] = {}
    for entry in sweep:
        _check_keys(entry, seen, where)
    entries = [_settings(entry, values, where) for entry, values in sweep.items()]
    count = math.prod(len(settings) for settings in entries)
    if count > MOST_POINTS:
        raise where.fault(("sweep",), f"found {count} points; wanted are at most {MOST_POINTS}.")
    return [dict(itertools.chain.from_iterable(map(dict.items, one))) for one in itertools.product(*entries)]


def _check_keys(entry: str, seen: dict[Path, str], where: Where) -> None:
    """Refuses a key that cannot be swept, or that sets again what a key in `seen` has set; adds the entry's keys."""
    for key in keys(entry):
        try:
            path = parse_key(key)
        except PlanError as error:
            raise where.fault(("sweep", entry), error.bare) from None
        if path[0] not in _SWEPT:
            what = "cannot be swept" if key == entry else f"{key} cannot be swept"
            raise where.fault(("sweep", entry), f"{what}; wanted is a key of {', '.join(_SWEPT)}.")
        own = _budget_is_one(path)
        for other, name in seen.items():
            if other[: len(own)] == own:
                found = f"found {key} twice" if name == key else f"{key} sets again what {name} has set"
                raise where.fault(("sweep", entry), f"{found}; sweep over each key once.")
        seen[own] = key


def _settings(entry: str, values: Sequence[Any], where: Where) -> list[dict[str, Any]]:
    """What an entry sets, one dict for each of its values."""
    path, names = ("sweep", entry), keys(entry)
    if not values:
        raise where.fault(path, "found an empty list; wanted is at least one value.")
    if len(names) == 1:
        settings = [{names[0]: value} for value in values]
    else:
        wanted = f"a list of {len(names)} values, one for each of {', '.join(names)}"
        for number, value in enumerate(values):
            if not isinstance(value, list | tuple) or len(value) != len(names):
                raise where.wrong((*path, number), value, wanted)
        settings = [dict(zip(names, value, strict=True)) for value in values]
    twice = repeated(one.values() for one in settings)
    if twice is not None:
        raise where.fault(path, f"found {twice} twice.")
    return settings


def repeated(rows: Iterable[Iterable[Any]]) -> str | None:
    """The first row of values that another one reads like, as 0.5 reads like "0.5"; None where all differ."""
    texts = [", ".join(label({"": value})[1:] for value in row) for row in rows]
    return next((text for text in texts if texts.count(text) > 1), None)


def depends(sweep: Iterable[str], points: Sequence[Mapping[str, Any]], found: Sequence[str]) -> list[str]:
    """The swept keys on which something depends that was `found` at each point.

    An entry counts if it makes a difference somewhere: what was found differs between two points that differ in this
    entry alone. Of several keys that are set together those are named that what was found tells, if they tell it.
    """
    names: list[str] = []
    for entry in sweep:
        group = keys(entry)
        places: dict[str, dict[str, list[list[str]]]] = {}
        for point, one in zip(points, found, strict=True):
            others = storage.canonical({key: value for key, value in point.items() if key not in group})
            row = [storage.canonical(point[key]) for key in group]
            places.setdefault(others, {}).setdefault(one, []).append(row)
        if any(len(place) > 1 for place in places.values()):
            names += _telling(group, [list(place.values()) for place in places.values()])
    return names


def _telling(group: list[str], places: list[list[list[list[str]]]]) -> list[str]:
    """The keys with one value in each class of points that are the same, if those tell the classes apart; else all."""
    columns = range(len(group))
    kept = [c for c in columns if all(len({row[c] for row in one}) == 1 for place in places for one in place)]
    for place in places:
        told = {tuple(one[0][c] for c in kept) for one in place}
        if len(told) < len(place):
            return group
    return [group[c] for c in kept]


def label(settings: Mapping[str, Any]) -> str:
    """`data.labelled=100, training.views=fresh`; empty without a sweep."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else shown(value, most=10**6)}" for key, value in settings.items()
    )


def swept_already(path: Path, sweep: Mapping[str, Any]) -> str | None:
    """The entry of a sweep that would overwrite a setting at `path`, or be changed by it."""
    own = _budget_is_one(path)
    for entry in sweep:
        for key in keys(entry):
            other = _budget_is_one(parse_key(key))
            short = min(len(own), len(other))
            if own[:short] == other[:short]:
                return entry
    return None


def _budget_is_one(path: Path) -> Path:
    return (*path[:-1], "epochs") if path[-1] == "steps" else path


def blame(error: PlanError, settings: Mapping[str, Any], sweep: Iterable[str], *, where: Where) -> PlanError:
    """An error at a point of a sweep, told at the swept key that it speaks of."""
    key = next((key for key in settings if error.key and error.key.startswith(key)), next(iter(settings)))
    entry = next(entry for entry in sweep if key in keys(entry))
    told = f"at the point {label(settings)}: {error.key + ': ' if error.key else ''}{error.bare}"
    return where.fault(("sweep", entry), told, error=type(error))
