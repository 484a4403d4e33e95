"""The family tree of a plan's models: who learns from whom."""

from __future__ import annotations

from collections.abc import Mapping

from potstill.study.tables import Model


def cycle(models: Mapping[str, Model]) -> list[str]:
    """Models that learn from each other, the first repeated at the end; empty where there are none."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for teacher in models[name].teacher:
            found = walk(teacher, [*trail, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in models if (found := walk(name, []))), [])


def order(models: Mapping[str, Model]) -> list[str]:
    """Every teacher before its students; else as declared."""
    placed: list[str] = []

    def place(name: str) -> None:
        if name not in placed:
            for teacher in models[name].teacher:
                place(teacher)
            placed.append(name)

    for name in models:
        place(name)
    return placed


def depth(models: Mapping[str, Model], name: str) -> int:
    """The wave in which the first generation of a model can be trained: 0 where it learns from no model."""
    above = [depth(models, teacher) + models[teacher].generations for teacher in models[name].teacher]
    return max(above, default=0)


def ancestors(models: Mapping[str, Model], name: str) -> set[str]:
    """The teachers of a model, their teachers, and so on."""
    found: set[str] = set()
    for teacher in models[name].teacher:
        found |= {teacher} | ancestors(models, teacher)
    return found


def judged(models: Mapping[str, Model]) -> list[str]:
    """Models with predictions on test examples: all but those that are given by their outputs."""
    return [name for name, model in models.items() if model.outputs is None]


def comparisons(models: Mapping[str, Model], baseline: str | None) -> list[tuple[str, str]]:
    """Every model with a teacher against the baseline, then every student against each of its own teachers.

    Only models with test predictions; a pair is there once, whichever way round.
    """
    students = [name for name in judged(models) if models[name].teacher]
    pairs = [(name, baseline) for name in students if baseline is not None and name != baseline]
    pairs += [(name, teacher) for name in students for teacher in models[name].teacher if teacher in judged(models)]
    kept: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        kept.setdefault(frozenset(pair), pair)
    return list(kept.values())


def baseline(models: Mapping[str, Model]) -> str | None:
    """The model to compare with where the plan names none.

    The model called "alone"; else the only model that neither learns from another nor teaches one; else none.
    """
    if "alone" in judged(models):
        return "alone"
    teachers = {teacher for model in models.values() for teacher in model.teacher}
    free = [name for name in judged(models) if not models[name].teacher and name not in teachers]
    return free[0] if len(free) == 1 else None
