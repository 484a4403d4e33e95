"""The plan's comparisons, judged: which families are paired, at which sweep points, with what said beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill import metrics
from potstill.study import area, words
from potstill.study.collect import Found, Reader, phis
from potstill.study.family import ancestors
from potstill.study.plan import Plan, differences
from potstill.study.results import ModelResult, Tuning, Verdict
from potstill.study.tree import Family
from potstill.study.verdict import judge, judge_scalar


def pairs(plan: Plan, reader: Reader) -> list[tuple[str, str]]:
    """Keys of the compared families: per declared pair one comparison for every sweep point at which they differ.

    A chain of generations is compared generation by generation: with those of the other chain where both are equally
    long, else each with the other's last.
    """
    found: dict[tuple[str, str], None] = {}
    families = reader.tree.families.values()
    for model, other in plan.comparisons():
        for ours in (family for family in families if family.model == model):
            for theirs in (family for family in families if family.model == other):
                shared = {key: value for key, value in ours.point.items() if key in theirs.point}
                same = all(theirs.point[key] == value for key, value in shared.items())
                if same and _meet(ours, theirs) and not (ours.brought or theirs.brought) and _there(plan, ours, theirs):
                    found[(ours.key, theirs.key)] = None
    return list(found)


def _meet(ours: Family, theirs: Family) -> bool:
    length = theirs.settings["generations"]
    return theirs.generation == (ours.generation if ours.settings["generations"] == length else length)


def verdicts(
    plan: Plan, reader: Reader, models: Mapping[str, ModelResult], *, look: int, tuning: Tuning | None = None
) -> list[Verdict]:
    """Every comparison's verdict; the intervals are simultaneous over all of them."""
    wanted = pairs(plan, reader)
    return [
        _verdict(plan, reader, models, pair=pair, comparisons=len(wanted), look=max(look, 1), tuning=tuning)
        for pair in wanted
    ]


def _verdict(
    plan: Plan,
    reader: Reader,
    models: Mapping[str, ModelResult],
    *,
    pair: tuple[str, str],
    comparisons: int,
    look: int,
    tuning: Tuning | None,
) -> Verdict:
    ours, theirs = reader.find(pair[0]), reader.find(pair[1])
    model, other = ours.family.model, theirs.family.model
    above = ancestors(plan.models, model) | ancestors(plan.models, other)
    differ = _differ(plan, ours, theirs)
    planned = _fresh(ours.family, theirs.family, plan.seed_list)
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds and seed in planned]
    said: dict[str, Any] = {
        "model": pair[0],
        "baseline": pair[1],
        "planned_seeds": planned,
        "failed": _failed(ours) + _failed(theirs),
        "margin": plan.verdict.margin,
        "comparisons": comparisons,
        "shared_teacher": _shared_teacher(ours, reader) or _shared_teacher(theirs, reader) or _once(plan, ours, theirs),
        "differs_in": words.differences(differ, model, other, tuning=tuning),
        "look": look,
        "cost": words.cost(pair[0], pair[1], models),
        "tuned": words.tuned(model, other, tuning, above=above),
    }
    name, on = plan.verdict.metric, plan.verdict.on
    if area.is_area(name):
        return _of_areas(name, models, (ours, theirs), seeds=seeds, said=said)
    metric = ours.predictions[seeds[0]][on].metric(name) if seeds else metrics.declared(name)
    parts = (phis(one, metric, seeds, reader) for one in (ours, theirs))
    nested = ours.family.plan.data.redraw == "seed"
    return judge(metric, *parts, seeds=seeds, nested=nested, on=on, **said)


def _of_areas(
    metric: str,
    models: Mapping[str, ModelResult],
    pair: tuple[Found, Found],
    *,
    seeds: list[int],
    said: dict[str, Any],
) -> Verdict:
    """A number per seed and model, of the seeds of which both have one: no test example has a part in it."""
    found = [models[one.family.key].metrics.get(metric) for one in pair]
    there = seeds if all(one is not None for one in found) else []
    values = [
        [of.values[one.seeds.index(seed)] for seed in there] if of is not None else []
        for one, of in zip(pair, found, strict=True)
    ]
    better = metrics.declared(area.inner(metric)).better
    nested = pair[0].family.plan.data.redraw == "seed"
    return judge_scalar(metric, better, values[0], values[1], seeds=there, nested=nested, **said)


def _differ(plan: Plan, our: Found, their: Found) -> list[str]:
    """In what they differ beside the method. Of a chain it is the generation that counts, not how many follow it.

    That data hold rows without a label no plan says: then the numbers of rows tell.
    """
    ours, theirs = our.family, their.family
    found = differences(_there(plan, ours, theirs) or plan, ours.model, theirs.model)
    found = [one for one in found if not one.startswith("generations (")]
    rows = [_rows(one) for one in (our, their)]
    if None not in rows and rows[0] != rows[1] and not any(one.startswith("training rows (") for one in found):
        found.append(f"training rows ({rows[0]:,} against {rows[1]:,})")
    if ours.generation != theirs.generation:
        found.append(f"generation ({ours.generation} against {theirs.generation})")
    return found


def _rows(found: Found) -> int | None:
    """How many rows a model was trained on; None of one that was not trained."""
    numbers = {one["info"]["rows"] for results in found.results.values() for one in results if one["info"]["steps"]}
    return max(numbers, default=None)


def _fresh(ours: Family, theirs: Family, seeds: list[int]) -> list[int]:
    """The seeds of which each brings a training of its own; only the first where both models are shared by all."""
    first: dict[tuple[str, str], int] = {}
    for seed in seeds:
        first.setdefault((ours.units[seed], theirs.units[seed]), seed)
    return list(first.values())


def _there(plan: Plan, ours: Family, theirs: Family) -> Plan | None:
    """The plan at a point of the sweep where both models are what they are; None if they never meet."""
    wanted = {**ours.point, **theirs.point}.items()
    points = (point.plan for point in plan.points() if all(point.settings.get(key) == x for key, x in wanted))
    return next(points, None)


def _failed(found: Found) -> list[str]:
    """What is missing of a model, for the sentence."""
    return [f"{found.family.key} with seed {f.seed} ({f.state})" for f in found.failures]


def _once(plan: Plan, ours: Found, theirs: Found) -> str | None:
    """The name of one of the two, where it is a teacher and trained once for all seeds, and the other is not."""
    shared = [one.family for one in (ours, theirs) if one.family.settings["shared"]]
    taught = {name for model in plan.models.values() for name in model.teacher}
    return shared[0].key if len(shared) == 1 and shared[0].model in taught else None


def _shared_teacher(found: Found, reader: Reader) -> str | None:
    """The name of a teacher that is one for all seeds, if the model has such a one above it."""
    for key in found.family.teachers:
        family = reader.tree.families[key]
        if family.settings["shared"]:
            return family.key
        above = _shared_teacher(reader.find(key), reader)
        if above:
            return above
    return None
