"""What a student learns from: an objective turns a student's outputs and a batch into named terms, each (B,).

Terms called "hard" are cross-entropies with labels, terms called "soft" imitate the teacher's outputs. A row without
label has hard terms 0, a row whose teacher's answer is not known has soft terms 0; the loop averages over the whole
batch all the same. Weights are part of the terms, so the terms are summed as they are.
`Batch.label_smoothing` applies to hard terms only.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from potstill.errors import ObjectiveError
from potstill.objectives.classification import (
    hard_labels,
    hinton,
    hinton_twice_softened,
    logit_mse,
    pseudo_labels,
    soft_labels,
)
from potstill.objectives.features import attention_transfer, hints, relational, similarity_preserving
from potstill.objectives.objective import Hidden, Learns, Objective, ObjectiveSpec, Owns, TargetsFunction
from potstill.objectives.probabilistic import generalised, probabilistic
from potstill.objectives.regression import gaussian, probabilistic_regression, squared_error
from potstill.objectives.relations import dist, dkd
from potstill.objectives.wls import equivalent_wls
from potstill.registry import Registry
from potstill.types import Batch, Outputs

__all__ = [
    "REGISTRY",
    "Hidden",
    "Learns",
    "Objective",
    "ObjectiveSpec",
    "Owns",
    "TargetsFunction",
    "attention_transfer",
    "build",
    "dist",
    "dkd",
    "equivalent_wls",
    "gaussian",
    "generalised",
    "hard_labels",
    "hinton",
    "hinton_twice_softened",
    "hints",
    "logit_mse",
    "probabilistic",
    "probabilistic_regression",
    "pseudo_labels",
    "relational",
    "similarity_preserving",
    "soft_labels",
    "squared_error",
]

REGISTRY = Registry(
    "objective",
    {
        "hard_labels": hard_labels,
        "soft_labels": soft_labels,
        "pseudo_labels": pseudo_labels,
        "hinton": hinton,
        "hinton_twice_softened": hinton_twice_softened,
        "logit_mse": logit_mse,
        "squared_error": squared_error,
        "probabilistic": probabilistic,
        "generalised": generalised,
        "dkd": dkd,
        "dist": dist,
        "hints": hints,
        "attention_transfer": attention_transfer,
        "similarity_preserving": similarity_preserving,
        "relational": relational,
        "gaussian": gaussian,
        "probabilistic_regression": probabilistic_regression,
    },
    ObjectiveError,
)


def build(spec: ObjectiveSpec) -> Objective:
    """An objective from a specification, or the sum of those in a list.

    A specification is a name, a table with "name" and settings, or an `Objective`. Terms of a sum keep their
    names; names that clash are prefixed with the objective's ("hinton.hard"), numbered where one occurs twice.
    Raises `ObjectiveError`.
    """
    if isinstance(spec, Objective):
        return spec
    if isinstance(spec, str | Mapping):
        objective: Objective = REGISTRY.call(spec)
        return objective
    parts = [build(part) for part in spec]
    if not parts:
        raise ObjectiveError("The list of objectives is empty; it needs at least one, such as hard_labels.")
    return parts[0] if len(parts) == 1 else _sum(parts)


def _sum(parts: list[Objective]) -> Objective:
    count = Counter(part.name for part in parts)
    seen: Counter[str] = Counter()
    named = []
    specs: list[dict[str, Any]] = []
    learns = {part.learns for part in parts} - {"anything"}
    if len(learns) > 1:
        names = " + ".join(part.name for part in parts)
        raise ObjectiveError(f"{names}: they learn {' and '.join(sorted(learns))}. Objectives of a sum learn the same.")
    for part in parts:
        seen[part.name] += 1
        named.append((part.name if count[part.name] == 1 else f"{part.name}{seen[part.name]}", part))
        specs += part.spec if isinstance(part.spec, list) else [part.spec]
    return Objective(
        "+".join(part.name for part in parts),
        {"objectives": tuple(specs)},
        partial(_summed, parts=tuple(named)),
        needs_labels=any(part.needs_labels for part in parts),
        needs_teacher=any(part.needs_teacher for part in parts),
        learns=next(iter(learns), "anything"),
        owns=partial(_owned, parts=tuple(named)) if any(part.owns for part in parts) else None,
        hidden=Hidden(*(_all(part.hidden[side] for part in parts) for side in (0, 1))),
        couples=any(part.couples for part in parts),
    )


def _all(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain.from_iterable(names)))


def _owned(outputs: Outputs, batch: Batch, *, parts: tuple[tuple[str, Objective], ...]) -> nn.Module:
    return nn.ModuleDict({name: part.owns(outputs, batch) for name, part in parts if part.owns is not None})


def _summed(
    outputs: Outputs, batch: Batch, owned: nn.ModuleDict | None = None, *, parts: tuple[tuple[str, Objective], ...]
) -> dict[str, Tensor]:
    made = [(name, replace(part, owned=owned[name]) if owned and part.owns else part) for name, part in parts]
    terms = [(prefix, name, term) for prefix, part in made for name, term in part(outputs, batch).items()]
    count = Counter(name for _, name, _ in terms)
    return {name if count[name] == 1 else f"{prefix}.{name}": term for prefix, name, term in terms}
