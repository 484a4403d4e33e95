"""Which trainings a worker does at once: those of one seed that see the same batches, where that saves time.

What is put together here changes no bit of a result (`training.together`), so it may depend on the number of workers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from potstill import networks, objectives, storage
from potstill.study.opened import form_of
from potstill.study.tree import Node
from potstill.study.worker import training_of
from potstill.training.step import pays

MOST = 6  # more at once gain nothing: 0.64 of the time of a training alone with 5 as with 11 (784-100-10, batch 128)

Facts = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def bundles(nodes: Sequence[Node], workers: int, *, facts: Facts, work: Mapping[str, float]) -> list[list[Node]]:
    """The nodes in bundles, those with the most work first; no more at once than keep all workers busy.

    `facts(data)` tells rows, shape and outputs of a data table.
    """
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(_batches(node, facts) or node.folder, []).append(node)
    fit = [node for group in groups.values() if len(group) > 1 for node in group]
    most = min(MOST, -(-len(fit) // workers))
    found = [part for group in groups.values() for part in _cut(group, most)]
    return sorted(found, key=lambda bundle: -sum(work[node.folder] for node in bundle))


def _cut(group: list[Node], most: int) -> list[list[Node]]:
    """Parts of nearly the same size.

    >>> [len(part) for part in _cut(list("abcdefghijk"), 6)], [len(part) for part in _cut(list("abcdefg"), 6)]
    ([5, 6], [3, 4])
    """
    number = -(-len(group) // max(most, 1))
    ends = [i * len(group) // number for i in range(number + 1)]
    return [group[start:end] for start, end in itertools.pairwise(ends)]


def _batches(node: Node, facts: Facts) -> str | None:
    """The same text for trainings that can take their steps together; None for what had better be alone.

    Where the text promises too much, they are trained one after the other.
    """
    settings = node.settings
    if node.kind != "train" or settings["answers"] == "live" or "inference" in settings:
        return None
    objective, training = objectives.build(settings["objective"]), training_of(node)
    known = facts(settings["data"]["plan"])
    shape, vocabulary = form_of(known, settings.get("sees"))
    where = (settings["network"], shape, known["outputs"])
    if (
        vocabulary
        or objective.targets is None
        or known["outputs"] < 2
        or not _pays(storage.canonical(where), training.batch(known["rows"]), known["rows"])
    ):
        return None
    kind = [objective.needs_labels, objective.needs_teacher]
    kind += [settings["sees"]] if "sees" in settings else []
    return storage.canonical([where, kind, settings["training"], settings["data"], settings["known"], node.seed])


@cache
def _pays(where: str, batch_size: int, rows: int) -> bool:
    network, shape, outputs = json.loads(where)
    return pays(networks.build(network, tuple(shape), outputs), batch_size, rows)
