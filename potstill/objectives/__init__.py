"""What a student learns from: an objective turns a student's outputs and a batch into named terms, each (B,).

Terms called "hard" are cross-entropies with labels, terms called "soft" imitate the teacher's outputs. A row without
label has hard terms 0, a row whose teacher's answer is not known has soft terms 0; the loop averages over the whole
batch all the same. Weights are part of the terms, so the terms are summed as they are.
`Batch.label_smoothing` applies to hard terms only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from potstill.errors import NotYetError, ObjectiveError
from potstill.objectives.classification import (
    hard_labels,
    hinton,
    hinton_twice_softened,
    logit_mse,
    pseudo_labels,
    soft_labels,
)
from potstill.objectives.objective import Learns, Objective, ObjectiveSpec, Owns, TargetsFunction
from potstill.objectives.probabilistic import generalised, probabilistic
from potstill.objectives.regression import gaussian, probabilistic_regression, squared_error
from potstill.objectives.wls import equivalent_wls
from potstill.registry import Registry, Spec
from potstill.types import Batch, Outputs

__all__ = [
    "NOT_YET",
    "REGISTRY",
    "Learns",
    "Objective",
    "ObjectiveSpec",
    "Owns",
    "TargetsFunction",
    "build",
    "equivalent_wls",
    "gaussian",
    "generalised",
    "hard_labels",
    "hinton",
    "hinton_twice_softened",
    "logit_mse",
    "probabilistic",
    "probabilistic_regression",
    "pseudo_labels",
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
        "gaussian": gaussian,
        "probabilistic_regression": probabilistic_regression,
    },
    ObjectiveError,
)

NOT_YET: Mapping[str, str] = {
    "attention_transfer": "attention maps of hidden features (Zagoruyko and Komodakis 2017)",
    "dist": "correlations between and within classes (Huang et al. 2022)",
    "dkd": "decoupled knowledge distillation (Zhao et al. 2022)",
    "hints": "hidden features through a regressor (Romero et al. 2015)",
    "relational": "distances and angles between examples (Park et al. 2019)",
    "similarity_preserving": "similarities between examples (Tung and Mori 2019)",
}


def build(spec: ObjectiveSpec) -> Objective:
    """An objective from a specification, or the sum of those in a list.

    A specification is a name, a table with "name" and settings, or an `Objective`. Terms of a sum keep their
    names; names that clash are prefixed with the objective's ("hinton.hard"), numbered where one occurs twice.
    Raises `ObjectiveError`, and `NotYetError` for what is planned but not built.
    """
    if isinstance(spec, Objective):
        return spec
    if isinstance(spec, str | Mapping):
        return _one(spec)
    parts = [build(part) for part in spec]
    if not parts:
        raise ObjectiveError("The list of objectives is empty; it needs at least one, such as hard_labels.")
    return parts[0] if len(parts) == 1 else _sum(parts)


def _one(spec: Spec) -> Objective:
    name = spec.partition(":")[0] if isinstance(spec, str) else spec.get("name")
    if isinstance(name, str) and name in NOT_YET:
        raise NotYetError(f'The objective "{name}" ({NOT_YET[name]}) is not built yet. Built: {", ".join(REGISTRY)}.')
    objective: Objective = REGISTRY.call(spec)
    return objective


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
    )


def _owned(outputs: Outputs, batch: Batch, *, parts: tuple[tuple[str, Objective], ...]) -> nn.Module:
    return nn.ModuleDict({name: part.owns(outputs, batch) for name, part in parts if part.owns is not None})


def _summed(
    outputs: Outputs, batch: Batch, owned: nn.ModuleDict | None = None, *, parts: tuple[tuple[str, Objective], ...]
) -> dict[str, Tensor]:
    made = [(name, replace(part, owned=owned[name]) if owned and part.owns else part) for name, part in parts]
    terms = [(prefix, name, term) for prefix, part in made for name, term in part(outputs, batch).items()]
    count = Counter(name for _, name, _ in terms)
    return {name if count[name] == 1 else f"{prefix}.{name}": term for prefix, name, term in terms}
