"""From what a user wrote to whole tables: unknown keys refused, what is not built refused, shorthand and defaults
written out, types checked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from potstill.data.parts import TEST
from potstill.errors import NotYetError, PlanError, did_you_mean, unknown
from potstill.study import inference, names, tables, tasks
from potstill.study.plan_text import Path, Where, shown
from potstill.study.tables import TRUTH

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DEFAULTS: Mapping[str, Any] = {
    "optimizer": "adam",
    "schedule": "constant",
    "batch_size": 128,
    "patience": 0,
    "monitor": "objective",
    "augment": [],
    "views": "fresh",
    "precision": "float32",
    "channels_last": False,
    "clip": 0.0,
    "label_smoothing": 0.0,
}
_EPOCHS = 20


def expand(raw: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """The plan as plain nested tables, in canonical form: `expand(expand(p)) == expand(p)`.

    Raises `PlanError` for an unknown key or name (with a suggestion), `NotYetError` for what is not built.
    """
    plan: dict[str, Any] = _plain(raw, (), where)
    _refuse_unknown(plan, where)
    _refuse_not_yet(plan, where)
    _test_sets(plan, where)
    plan["training"] = _training(plan.get("training", {}), ("training",), where, defaults=True)
    if "source" in plan.get("data", {}):
        plan["data"]["source"] = names.source(plan["data"]["source"], ("data", "source"), where)
    models, regression = plan.get("models", {}), tasks.is_regression(plan)
    if regression and isinstance(plan.setdefault("verdict", {}), dict):
        plan["verdict"] = {"metric": tasks.metric(regression=True)} | plan["verdict"]
    if any(_taught_by_truth(model) for model in models.values()):
        plan["models"] = {TRUTH: {"weights": TRUTH, "training": {"epochs": 0}}, **models}
    if isinstance(plan.get("verdict", {}).get("metric"), dict):
        plan["verdict"]["metric"] = names.area(plan["verdict"]["metric"], ("verdict", "metric"), where)
    inputs = names.inputs(plan.get("data", {}).get("inputs"), ("data", "inputs"), where)
    for name, model in plan.get("models", {}).items():
        plan["models"][name] = _model(model, ("models", name), where, regression=regression)
        if inputs and "outputs" not in model:
            plan["models"][name].setdefault("sees", inputs[0])
    return plan


def _test_sets(plan: dict[str, Any], where: Where) -> None:
    """Several test sets by name: files as tables; evaluated are all, and the verdict is given on the first."""
    sets = plan.get("data", {}).get("test")
    if not isinstance(sets, dict):
        return
    if not sets:
        raise where.fault(("data", "test"), "found an empty table; wanted is at least one test set: name = file.")
    for name, value in sets.items():
        path = ("data", "test", name)
        if not _MODEL_NAME.fullmatch(name) or name in ("train", "validation") or "-view-" in name:
            raise where.fault(path, "not a name for a test set; wanted are letters, digits, - and _, and a new name.")
        if isinstance(value, dict):
            keys = list(tables.TestSet.model_fields)
            for key in value:
                if key not in keys:
                    raise where.fault((*path, key), unknown("key of a test set", key, keys))
        table = {"file": value} if isinstance(value, str) else {"own": True} if value is True else value
        if not isinstance(table, dict) or ("file" in table) == bool(table.get("own")):
            raise where.wrong(path, value, "a file, a table with a file, or true for the test part that the data bring")
        _test_set(table, path, where)
        plan["data"]["test"] = sets | {name: table}
        sets = plan["data"]["test"]
    plan.setdefault("verdict", {}).setdefault("on", next(iter(sets)))
    plan.setdefault("evaluation", {}).setdefault("splits", ["validation", *sets])


def _test_set(table: Mapping[str, Any], path: Path, where: Where) -> None:
    if not isinstance(table.get("file", "a"), str) or not table.get("file", "a"):
        raise where.wrong((*path, "file"), table["file"], "a file of examples")
    if not isinstance(table.get("own", True), bool):
        raise where.wrong((*path, "own"), table["own"], "true, for the test part that the data bring")
    drop = table.get("drop", {})
    if not isinstance(drop, dict) or not all(isinstance(values, list) and values for values in drop.values()):
        raise where.wrong((*path, "drop"), drop, "a table of column = list of values")


def _taught_by_truth(model: Mapping[str, Any]) -> bool:
    teacher = model.get("teacher")
    return TRUTH in teacher if isinstance(teacher, list) else teacher == TRUTH


def validate(plan: Mapping[str, Any], where: Where) -> tables.Tables:
    """Expanded tables as pydantic models; a value of the wrong kind is a `PlanError`: found, wanted, where."""
    whole = dict(plan)
    if "published" in whole:
        flat = dict(whole["published"])
        source = {"source": flat.pop("source")} if "source" in flat else {}
        whole["published"] = source | {"metrics": flat}
    try:
        return tables.Tables.model_validate(_tuples(whole))
    except ValidationError as error:
        problem = error.errors()[0]
        raise _fault(problem["loc"], whole, problem["type"] == "missing", where) from None


def _plain(value: Any, path: Path, where: Where) -> Any:
    """Dicts, lists, texts, numbers and booleans; anything else is refused. A copy, so that nobody's dict is changed."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise where.fault(path, f"found the key {key!r}; keys are texts.")
        return {key: _plain(inner, (*path, key), where) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, (*path, number), where) for number, inner in enumerate(value)]
    if isinstance(value, str | bool | int | float):
        return value
    raise where.wrong(path, value, "a text, a number, true or false, a list or a table")


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _fields(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _sections(plan: Mapping[str, Any], where: Where) -> Iterator[tuple[Path, str, Any, list[str]]]:
    """Every table with fixed keys: its path, what to call it, its value, its keys."""
    fixed: dict[str, list[str]] = {
        "data": _fields(tables.Data),
        "training": _fields(tables.Training),
        "evaluation": _fields(tables.Evaluation),
        "verdict": _fields(tables.Verdict),
        "tune": _fields(tables.Tune),
    }
    yield (), "a plan", plan, _fields(tables.Tables)
    for key, keys in fixed.items():
        if key in plan:
            yield (key,), f"[{key}]", plan[key], keys
    if "latency" in plan.get("evaluation", {}):
        path = ("evaluation", "latency")
        yield path, "evaluation.latency", plan["evaluation"]["latency"], _fields(tables.Latency)
    for key in ("models", "sweep", "published"):
        if not isinstance(plan.get(key, {}), dict):
            raise where.wrong((key,), plan[key], "a table")
    for name, model in plan.get("models", {}).items():
        yield ("models", name), "a model", model, _fields(tables.Model)
        if "training" in model:
            yield ("models", name, "training"), "a model's training", model["training"], _fields(tables.Training)


def _refuse_unknown(plan: Mapping[str, Any], where: Where) -> None:
    for path, what, table, keys in _sections(plan, where):
        if not isinstance(table, dict):
            raise where.wrong(path, table, "a table")
        for key in table:
            if key not in keys:
                known = ", ".join(sorted(keys))
                raise where.fault((*path, key), f"{what} has no such key.{did_you_mean(key, keys)} Known: {known}.")
    for name in plan.get("models", {}):
        reserved = name == TRUTH and plan["models"][name].get("weights") != TRUTH
        if not _MODEL_NAME.fullmatch(name) or reserved:
            raise where.fault(
                ("models", name),
                "not a name for a model; wanted are letters, digits, - and _, beginning with a letter or digit"
                + (f' ("{TRUTH}" is reserved for the law by which the data were drawn).' if reserved else "."),
            )


def _refuse_not_yet(plan: Mapping[str, Any], where: Where) -> None:
    def refuse(path: Path, hint: str, value: Any = None) -> None:
        what = "this key" if value is None else shown(value)
        raise where.fault(path, f"{what} is not built yet in this version. {hint}", error=NotYetError)

    data, evaluation = (plan.get(key, {}) for key in ("data", "evaluation"))
    _evaluation_words(evaluation, data.get("test"), where)


def _evaluation_words(evaluation: Mapping[str, Any], test: Any, where: Where) -> None:
    sets = tuple(test) if isinstance(test, dict) else (TEST,)
    known: dict[str, Collection[Any]] = {"splits": ("train", "validation", *sets), "labels": ("teacher", "true")}
    for key, words in known.items():
        found = evaluation.get(key, [])
        for number, word in enumerate(found if isinstance(found, list) else ()):
            if word not in words:
                raise where.fault(("evaluation", key, number), unknown(key[:-1], str(word), words))


def _training(table: dict[str, Any], path: Path, where: Where, *, defaults: bool = False) -> dict[str, Any]:
    table = dict(table)
    if "epochs" in table and "steps" in table:
        raise where.fault((*path, "steps"), "found both epochs and steps; wanted is one of them.")
    if defaults:
        table = dict(_DEFAULTS) | ({} if "steps" in table else {"epochs": _EPOCHS}) | table
    for key in ("optimizer", "schedule"):
        if key in table:
            table[key] = names.spec(key, table[key], (*path, key), where)
    if "augment" in table:
        table["augment"] = names.several("augmentation", table["augment"], (*path, "augment"), where)
    for key in ("monitor", "select"):
        if key in table:
            names.watched(key, table[key], (*path, key), where)
    return table


def _model(model: dict[str, Any], path: Path, where: Where, *, regression: bool) -> dict[str, Any]:
    model = dict(model)
    if isinstance(model.get("teacher"), str):
        model["teacher"] = [model["teacher"]]
    if "inference" in model:
        model["inference"] = names.inference(model["inference"], (*path, "inference"), where)
    if "outputs" not in model:
        told = model.get("teacher") and inference.prior_from(model.get("inference"), model["teacher"]) is None
        model.setdefault("objective", tasks.objective(regression=regression, taught=bool(told)))
    if "network" in model:
        model["network"] = names.spec("network", model["network"], (*path, "network"), where)
    if "objective" in model:
        found = model["objective"]
        if isinstance(found, list) and not found:
            raise where.wrong((*path, "objective"), found, "an objective, or a list of at least one")
        many = names.several("objective", found, (*path, "objective"), where)
        model["objective"] = many[0] if len(many) == 1 else many
    if "training" in model:
        model["training"] = _training(model["training"], (*path, "training"), where)
    return model


def _fault(loc: Path, whole: Any, missing: bool, where: Where) -> PlanError:
    """The error at the deepest field that `loc` (pydantic's path, with union members in it) leads to."""
    kind: Any = tables.Tables
    wanted, value, at = "a plan", whole, whole
    path: Path = ()
    here: Path = ()
    for part in loc:
        found = _step(kind, part, at)
        if found is None:
            break
        kind, description = found
        here = (*here, part)
        at = at.get(part) if isinstance(at, dict) else None
        if description:
            wanted, path, value = description, here, at
        elif isinstance(part, str):
            path, value = here, at
    if path[:2] == ("published", "metrics"):
        path = ("published", *path[2:])
    if missing:
        return where.fault(path, f"is missing; wanted is {wanted}.")
    return where.wrong(path, value, wanted)


def _step(kind: Any, part: str | int, at: Any) -> tuple[Any, str | None] | None:
    """What lies below an annotation at one part of a path, and its description where it is a field; `at`: the value."""
    for leaf in _leaves(kind):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel) and part in leaf.model_fields:
            field = leaf.model_fields[str(part)]
            return field.annotation, field.description
        if get_origin(leaf) is dict and isinstance(at, dict) and part in at:
            return get_args(leaf)[1], None
    return None


def _leaves(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (None, dict, tuple):
        yield kind
    else:
        for inner in get_args(kind):
            yield from _leaves(inner)
