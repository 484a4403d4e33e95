"""A plan expanded to nodes: what is trained, what is recorded, and what each needs (decision 7).

A family is one model of the results: a model of the plan at one sweep point and one generation. It has one unit per
seed (or one for all, if it is shared), and a unit has one training per member.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from potstill import storage
from potstill.errors import NetworkError
from potstill.study import area, inference, sweep
from potstill.study.plan import Plan
from potstill.study.tables import TRUTH

FORMAT = 1
DataFacts = Callable[[Mapping[str, Any], int], Mapping[str, Any]]
_LATER = ("inputs", "redraw", "scale_targets", "target")  # of [data]; where absent, nodes are those of older runs
FileHash = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work. `folder` (below the run's folder) is also its name; `settings` decide its result.

    `work` is what the worker needs besides: folders of teachers, rows to record.
    """

    kind: Literal["train", "record"]
    family: str
    folder: str
    seed: int
    depth: int
    needs: tuple[str, ...]
    settings: Mapping[str, Any]
    work: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of the settings."""
        return storage.fingerprint(storage.plain(self.settings))


@dataclass(frozen=True, slots=True)
class Family:
    """One model of the results. `units` maps a seed to the folder of its unit, `trainings` to its members' nodes."""

    key: str
    model: str
    point: Mapping[str, Any]
    generation: int
    settings: Mapping[str, Any]
    teachers: tuple[str, ...]
    units: Mapping[int, str]
    trainings: Mapping[int, tuple[str, ...]]
    plan: Plan

    @property
    def brought(self) -> bool:
        """Whether only its answers are there (`outputs` in the plan): nothing to train or to evaluate."""
        return self.settings.get("outputs") is not None


@dataclass(frozen=True, slots=True)
class Tree:
    """All families and nodes of a plan, in an order in which each comes after what it needs."""

    families: Mapping[str, Family]
    nodes: Mapping[str, Node]

    def waves(self) -> list[list[Node]]:
        """Nodes by depth."""
        depths = sorted({node.depth for node in self.nodes.values()})
        return [[node for node in self.nodes.values() if node.depth == depth] for depth in depths]


def data_table(plan: Plan) -> dict[str, Any]:
    """The plan's `[data]` as plain JSON: what `data.open` takes. Keys of `_LATER` are there where they are given."""
    found: dict[str, Any] = plan.data.model_dump(mode="json")
    return {key: value for key, value in found.items() if value is not None or key not in _LATER}


def own_table(plan: Plan, labelled: int | str | None) -> dict[str, Any]:
    """The plan's `[data]` as a model has it: with a number of labels of its own, with "all", or as it is (None)."""
    found = data_table(plan)
    return found if labelled is None else found | {"labelled": None if labelled == "all" else labelled}


def path_safe(text: str) -> str:
    """Text as one name in a path; two texts never share a name.

    >>> path_safe("data.labelled=100"), path_safe("a/b")[:4]
    ('data.labelled=100', 'a_b-')
    """
    safe = re.sub(r"[^A-Za-z0-9._=,+-]", "_", text).lstrip(".") or "_"
    return safe if safe == text else f"{safe[:80]}-{storage.fingerprint(text)[:8]}"


def expand(plan: Plan, data_facts: DataFacts, file_hash: FileHash) -> Tree:
    """All nodes of a plan. `data_facts(data, seed)` tells fingerprints and rows, `file_hash(path)` hashes a file."""
    points = plan.points()
    settings = [point.settings for point in points]
    matters: dict[str, list[str]] = {}  # the swept keys that matter to a model
    for model in plan.order():
        found = [_closure(point.plan, model, {}) for point in points]
        matters[model] = sweep.depends(plan.tables.sweep, settings, found)
    builder = Builder(plan.seed_list, data_facts, file_hash)
    for point in points:
        for model in point.plan.order():
            builder.add(point.plan, model, {key: point.settings[key] for key in matters[model]}, point.label)
    return Tree(builder.families, builder.nodes)


def _closure(plan: Plan, model: str, seen: dict[str, Any]) -> str:
    """Hash of all settings that decide a model: its own and its ancestors'."""
    if model not in seen:
        own = plan.resolved(model).to_dict()
        parents = [_closure(plan, teacher, seen) for teacher in own["teachers"]]
        seen[model] = storage.fingerprint(storage.plain([own, own_table(plan, own["labelled"]), parents]))
    return str(seen[model])


def _network_of(folder: str) -> Any:
    """The network of a saved model, for a plan that names only its weights."""
    path = Path(folder) / "network.json"
    described = storage.read_json(path) if path.is_file() else {}
    if not isinstance(described, dict) or not described.get("network"):
        raise NetworkError(
            f"weights: {folder} does not tell its network ({'no' if not described else 'none in its'} network.json). "
            'Give the folder of a saved model, or say the network too: network = "mlp:100".'
        )
    return described["network"]


class Builder:
    """Adds families in topological order, each once. `top` is the folder that holds their units."""

    def __init__(
        self, seeds: Sequence[int], data_facts: DataFacts, file_hash: FileHash, *, top: str = "models"
    ) -> None:
        self.seeds, self.data_facts, self.file_hash, self.top = list(seeds), data_facts, file_hash, top
        self.families: dict[str, Family] = {}
        self.nodes: dict[str, Node] = {}
        self.last: dict[tuple[str, str], str] = {}  # (point, model) -> key of its last generation

    def add(self, plan: Plan, model: str, matters: Mapping[str, Any], point: str) -> str:
        """A model's families, one per generation, as they are at a point; returns the key of the last one."""
        settings = storage.plain(plan.resolved(model).to_dict())
        if settings["network"] is None and settings["weights"] is not None:
            settings["network"] = self._network_of(plan, settings["weights"])
        label = ",".join(f"{key}={value}" for key, value in matters.items())
        teachers = tuple(self.last[(point, name)] for name in settings["teachers"])
        for generation in range(1, settings["generations"] + 1):
            chain = settings["generations"] > 1
            key = model + (f"@{label}" if label else "") + (f"#{generation}" if chain else "")
            if key not in self.families:
                parts = [path_safe(model), *([path_safe(label)] if label else [])]
                parts += [f"generation-{generation}"] if chain else []
                self._family(plan, key, model, dict(matters), generation if chain else 0, settings, teachers, parts)
            teachers = (key,)
            self.last[(point, model)] = key
        return self.last[(point, model)]

    def _network_of(self, plan: Plan, weights: str) -> Any:
        """The network of starting weights, for a plan that names only those."""
        if weights == TRUTH:
            return self.data_facts(data_table(plan), self.seeds[0])[TRUTH]["network"]
        return _network_of(weights)

    def _family(
        self,
        plan: Plan,
        key: str,
        model: str,
        matters: Mapping[str, Any],
        generation: int,
        settings: Mapping[str, Any],
        teachers: tuple[str, ...],
        parts: list[str],
    ) -> None:
        units: dict[int, str] = {}
        trainings: dict[int, tuple[str, ...]] = {}
        for seed in self.seeds:
            own = self.seeds[0] if settings["shared"] else seed
            unit = "/".join([self.top, *parts, "shared" if settings["shared"] else f"seed-{seed}"])
            units[seed] = unit
            if settings["outputs"] is not None:
                trainings[seed] = ()
                continue
            members = settings["members"]
            folders = [unit] if members == 1 else [f"{unit}/member-{m}" for m in range(1, members + 1)]
            for i, folder in enumerate(folders):
                if folder not in self.nodes:
                    member = i + 1 if members > 1 else 0
                    self.nodes[folder] = self._train(plan, key, folder, own, member, generation, settings, teachers)
            trainings[seed] = tuple(folders)
        self.families[key] = Family(key, model, matters, max(generation, 1), settings, teachers, units, trainings, plan)

    def _train(
        self,
        plan: Plan,
        key: str,
        folder: str,
        seed: int,
        member: int,
        generation: int,
        settings: Mapping[str, Any],
        teachers: tuple[str, ...],
    ) -> Node:
        facts = self.data_facts(data_table(plan), seed)
        asked = teachers if inference.asks(settings) else ()
        told = [self._teacher(plan, self.families[t], seed, settings, facts) for t in asked]
        prior = self._prior(settings, teachers, seed)
        needs = tuple(dict.fromkeys((*(need for _, _, own in told for need in own), *prior)))
        known = settings["known"]
        decides = {
            "format": FORMAT,
            **{name: settings[name] for name in ("network", "objective", "training", "answers")},
            "known": self.file_hash(known) if isinstance(known, str) and known != "labelled" else known,
            "weights": self._weights(settings["weights"], facts),
            "seed": {"seed": seed, "member": member, "generation": generation},
            "data": {"plan": own_table(plan, settings["labelled"]), **facts["fingerprints"]},
            "teacher": [fingerprint for fingerprint, _, _ in told],
            **({"sees": settings["sees"]} if settings["sees"] else {}),
            **({"inference": settings["inference"]} if settings["inference"] else {}),
            **({"prior": self.nodes[prior[0]].fingerprint} if prior else {}),
            **area.watched(plan.evaluation.every, plan.verdict.metric),
        }
        work = {"known": known, "weights": settings["weights"], "teachers": [work for _, work, _ in told]}
        work |= {"prior": prior[0]} if prior else {}
        depth = 1 + max((self.nodes[need].depth for need in needs), default=-1)
        return Node("train", key, folder, seed, depth, needs, decides, work)

    def _prior(self, settings: Mapping[str, Any], teachers: Sequence[str], seed: int) -> tuple[str, ...]:
        """The training whose posterior makes the prior, if one does."""
        found = inference.prior_from(settings["inference"], settings["teachers"])
        if found is None:
            return ()
        family = self.families[teachers[settings["teachers"].index(found)]]
        return family.trainings.get(seed) or next(iter(family.trainings.values()))

    def _weights(self, weights: str | None, facts: Mapping[str, Any]) -> str | None:
        """Hash of the starting weights."""
        if weights is None:
            return None
        return str(facts[TRUTH]["law"]) if weights == TRUTH else self.file_hash(weights)

    def _teacher(
        self, plan: Plan, teacher: Family, seed: int, student: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
        """What identifies a teacher, where its answers lie, and the nodes that make them."""
        if teacher.brought:
            path, kind = teacher.settings["outputs"], teacher.settings["kind"]
            return {"outputs": self.file_hash(path), "kind": kind}, {"file": path, "kind": kind}, ()
        folders = teacher.trainings.get(seed) or next(iter(teacher.trainings.values()))
        identity = [self.nodes[folder].fingerprint for folder in folders]
        if student["answers"] == "live":
            return identity, {"models": list(folders)}, tuple(folders)
        record = self._record(plan, teacher, seed, student, facts, folders)
        return identity, {"outputs": record}, (record,)

    def _record(
        self,
        plan: Plan,
        teacher: Family,
        seed: int,
        student: Mapping[str, Any],
        facts: Mapping[str, Any],
        folders: Sequence[str],
    ) -> str:
        """The recording of a teacher's answers for the views that a student's training uses; made once."""
        from potstill.training.settings import Training

        augment = student["training"]["augment"] or []
        views = list(Training.of(None, dict(student["training"])).all_views(facts["rows"], augmented=bool(augment)))
        name = "plain" if views == [0] else f"views-{len(views)}-{storage.fingerprint([augment, views])[:8]}"
        unit = teacher.units[seed] if seed in teacher.units else next(iter(teacher.units.values()))
        parts = unit.removeprefix("models/").split("/")
        folder = "/".join(["outputs", *parts[:-1], name, parts[-1]])
        if folder not in self.nodes:
            settings = {
                "format": FORMAT,
                "teacher": [self.nodes[f].fingerprint for f in folders],
                "augment": augment,
                "views": views,
                "data": {"plan": data_table(plan), **facts["fingerprints"]},
            }
            depth = 1 + max(self.nodes[f].depth for f in folders)
            self.nodes[folder] = Node(
                "record", teacher.key, folder, seed, depth, tuple(folders), settings, {"models": list(folders)}
            )
        return folder
