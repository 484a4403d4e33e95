"""`inference` in plans: whose posterior makes a prior, what does not fit, and what a worker is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as Folder
from typing import TYPE_CHECKING, Any

from potstill.errors import unknown
from potstill.study.plan_text import Path, Where
from potstill.study.tables import Model, Table, Tables

if TYPE_CHECKING:
    from potstill.bayes import Inference, Teacher
    from potstill.data import Data
    from potstill.study.tree import Node

DISTILS = ("distil-student", "distil-student-all")


def prior_from(table: Mapping[str, Any] | None, teachers: Sequence[str]) -> str | None:
    """The model whose posterior makes a model's prior: as `prior.from` says, else the only teacher where one is needed.

    None where the prior is of no model.

    >>> prior_from({"name": "distil-student"}, ["large"]), prior_from({"name": "student"}, ["large"])
    ('large', None)
    """
    if table is None:
        return None
    named = (table.get("prior") or {}).get("from")
    if named is not None or not needs_teacher(table):
        return named
    return teachers[0] if len(teachers) == 1 else None


def needs_teacher(table: Mapping[str, Any]) -> bool:
    """Whether an inference cannot do without a teacher."""
    return table["name"] in DISTILS or table.get("start") in ("teacher", "prior")


def check(plan: Tables, name: str, where: Where) -> None:
    """Raises `PlanError` where a model's prior cannot be had."""
    model = plan.models[name]
    table, path = model.inference, ("models", name, "inference")
    if table is None:
        return
    found = prior_from(table, model.teacher)
    if found is None:
        if needs_teacher(table):
            raise where.fault(
                path,
                f'"{table["name"]}" begins with the posterior of a teacher. Say of which of this model\'s teachers: '
                'prior = { from = "MODEL" }.',
            )
        return
    at: Path = (*path, "prior", "from") if "from" in (table.get("prior") or {}) else ("models", name, "teacher")
    if found not in model.teacher:
        hint = (
            f'Name it there too: teacher = "{found}".' if found in plan.models else unknown("model", found, plan.models)
        )
        raise where.fault(at, f'"{found}" is not among the teachers of "{name}". {hint}')
    above = plan.models[found]
    if above.inference is None:
        raise where.fault(
            at,
            f'"{found}" has no posterior. Give it one: inference = "variational", or "laplace" after plain training.',
        )
    for key, given in (("members", above.members > 1), ("generations", above.generations > 1)):
        if given:
            raise where.fault(at, f'"{found}" has several {key}; a prior is made of the posterior of one.')
    if model.generations > 1:
        raise where.fault(("models", name, "generations"), "a prior is made of one teacher, not of the model before.")


def of_prior(model: Model) -> bool:
    """Whether a model has a prior made of a teacher, which teaches by that if by nothing else."""
    return prior_from(model.inference, model.teacher) is not None


def asks(settings: Mapping[str, Any]) -> bool:
    """Whether a model's teachers answer for rows: not where one gives its posterior, and labels are all else."""
    from potstill.study.names import needs_teacher as wants

    made = prior_from(settings["inference"], settings["teachers"]) is not None
    return not made or any(map(wants, settings["objective"]))


def without_from(table: Table) -> Table:
    """The table as `bayes.build` takes it: a posterior is no name there."""
    prior = table.get("prior")
    if prior is None:
        return table
    return {**table, "prior": {key: value for key, value in prior.items() if key != "from"}}


def build(node: Node, teacher: Teacher | None) -> Inference | None:
    """A node's inference, its prior made of a teacher's posterior."""
    from potstill import bayes

    table = node.settings.get("inference")
    if table is None:
        return None
    found = bayes.build(without_from(dict(table)))
    return found if teacher is None else found.of(teacher)


def teacher(node: Node, root: Folder, data: Data) -> Teacher | None:
    """What a node's prior is made of: the posterior in its teacher's folder."""
    from potstill import bayes, networks

    folder = node.work.get("prior")
    if folder is None:
        return None
    posterior, prior = bayes.load(root / folder), prior_of(node)
    if not prior.needs_curvature:
        return bayes.Teacher(posterior)
    model = networks.load(root / folder)
    rows = data.train.seeing(model.spec.sees) if model.spec.sees else data.train
    return bayes.teacher_of(posterior, model.network, rows, prior)


def prior_of(node: Node) -> Any:
    """A node's `bayes.Prior`."""
    from potstill import bayes

    return bayes.Prior.of(without_from(dict(node.settings["inference"]))["prior"] or {})
