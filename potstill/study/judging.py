"""The plan's comparisons, judged: which families are paired, at which sweep points, with what said beside them."""

from __future__ import annotations

from collections.abc import Mapping

from potstill import metrics
from potstill.study import words
from potstill.study.collect import Found, Reader, phis
from potstill.study.plan import Plan, differences
from potstill.study.results import ModelResult, Verdict
from potstill.study.verdict import judge


def pairs(plan: Plan, reader: Reader) -> list[tuple[str, str]]:
    """Keys of the compared families: per declared pair one comparison for every sweep point at which they differ.

    A chain of generations is compared generation by generation.
    """
    found: dict[tuple[str, str], None] = {}
    families = reader.tree.families.values()
    for model, other in plan.comparisons():
        for ours in (family for family in families if family.model == model):
            for theirs in (family for family in families if family.model == other):
                shared = {key: value for key, value in ours.point.items() if key in theirs.point}
                same = all(theirs.point[key] == value for key, value in shared.items())
                last = theirs.generation == theirs.settings["generations"]
                if same and last and not (ours.brought or theirs.brought):
                    found[(ours.key, theirs.key)] = None
    return list(found)


def verdicts(plan: Plan, reader: Reader, models: Mapping[str, ModelResult], look: int) -> list[Verdict]:
    """Every comparison's verdict; the intervals are simultaneous over all of them."""
    wanted = pairs(plan, reader)
    return [_verdict(plan, reader, models, pair, len(wanted), max(look, 1)) for pair in wanted]


def _verdict(
    plan: Plan,
    reader: Reader,
    models: Mapping[str, ModelResult],
    pair: tuple[str, str],
    comparisons: int,
    look: int,
) -> Verdict:
    ours, theirs = reader.find(pair[0]), reader.find(pair[1])
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    classes = len(next(iter(ours.predictions.values()))["test"].log_probs[0]) if seeds else 2
    metric = metrics.get(plan.verdict.metric, classes=classes)
    here = ours.family.plan if len(ours.family.point) >= len(theirs.family.point) else theirs.family.plan
    return judge(
        metric,
        phis(ours, metric, seeds, reader),
        phis(theirs, metric, seeds, reader),
        model=pair[0],
        baseline=pair[1],
        seeds=seeds,
        planned_seeds=plan.seed_list,
        failed=_failed(ours) + _failed(theirs),
        margin=plan.verdict.margin,
        comparisons=comparisons,
        shared_teacher=_shared_teacher(ours, reader),
        differs_in=differences(here, ours.family.model, theirs.family.model),
        look=look,
        cost=words.cost(pair[0], pair[1], models),
    )


def _failed(found: Found) -> list[str]:
    """What is missing of a model, for the sentence."""
    return [f"{found.family.key} with seed {f.seed} ({f.state})" for f in found.failures]


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
