"""What the task of a plan decides: objectives and metrics by default, and which of them fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from potstill import metrics
from potstill.errors import unknown
from potstill.study import names
from potstill.study.area import inner
from potstill.study.family import judged
from potstill.study.plan_text import Path, Where
from potstill.study.tables import Model, Tables

REGRESSION: Final = "regression"
_OBJECTIVES: Final = (("hard_labels", "hinton"), ("squared_error", "probabilistic_regression"))
_METRICS: Final = ("accuracy", "squared_error")


def is_regression(plan: Mapping[str, Any]) -> bool:
    """Whether a plan as plain tables is of a regression."""
    data = plan.get("data")
    return isinstance(data, Mapping) and data.get("task") == REGRESSION


def objective(*, regression: bool, taught: bool) -> str:
    """The objective of a model that names none: of labels, or of a teacher too."""
    return _OBJECTIVES[regression][taught]


def metric(*, regression: bool) -> str:
    """The metric of the verdict, and of the weights' selection, where the plan names none."""
    return _METRICS[regression]


def select(plan: Tables, model: Model) -> str:
    """What picks a model's weights where the plan says nothing: the verdict's metric, if the model can be watched in
    it (it needs no teacher, nor variances that the model does not answer); else the task's."""
    if plan.data.validation == 0:
        return "last"
    regression = plan.data.task == REGRESSION
    wanted = metrics.declared(inner(plan.verdict.metric))
    if wanted.needs_teacher or (wanted.needs_variances and not names.answers_variances(model.objective)):
        return metric(regression=regression)
    return wanted.name


def check(plan: Tables, where: Where) -> None:
    """Raises `PlanError` at the first objective, metric or key that is of another task."""
    regression = plan.data.task == REGRESSION
    if plan.data.scale_targets is not None and not regression:
        raise where.fault(("data", "scale_targets"), f'targets are of a regression; data.task is "{plan.data.task}".')
    _metric(inner(plan.verdict.metric), ("verdict", "metric"), plan, where)
    _likelihood(plan, where)
    trainings: dict[Path, Any] = {("training",): plan.training}
    for name, model in plan.models.items():
        path: Path = ("models", name)
        trainings[(*path, "training")] = model.training
        _objective(plan, model, path, where)
        values = model.kind in ("values", "gaussian")
        if model.kind is not None and values != regression:
            raise where.fault((*path, "kind"), f'"{model.kind}" does not go with data.task = "{plan.data.task}".')
    for path, training in trainings.items():
        if training.label_smoothing and regression:
            raise where.fault((*path, "label_smoothing"), "spreads labels over classes, which a regression has not.")
        for key in ("monitor", "select"):
            found = getattr(training, key)
            if found in metrics.names():
                _metric(found, (*path, key), plan, where)
    for found in plan.published.metrics if plan.published else ():
        if found in metrics.names():
            _metric(found, ("published", found), plan, where)


def _likelihood(plan: Tables, where: Where) -> None:
    """A model that answers values alone has a variance from its errors on validation data alone."""
    if not metrics.declared(inner(plan.verdict.metric)).needs_variances:
        return
    if plan.data.validation != 0 and "validation" in plan.evaluation.splits:
        return
    for name in judged(plan.models):
        if not names.answers_variances(plan.models[name].objective):
            raise where.fault(
                ("data", "validation") if plan.data.validation == 0 else ("evaluation", "splits"),
                f'"{name}" answers values alone, so a likelihood needs its errors on "validation" examples.',
            )


def _objective(plan: Tables, model: Model, path: Path, where: Where) -> None:
    given = model.objective if isinstance(model.objective, tuple) else (model.objective,)
    for table in given:
        learns = "anything" if table is None else names.learns(table)
        if learns != "anything" and (learns == "classes") == (plan.data.task == REGRESSION):
            raise where.fault(
                (*path, "objective"), f'"{(table or {})["name"]}" learns {learns}; data.task is "{plan.data.task}".'
            )


def _metric(name: str, path: Path, plan: Tables, where: Where) -> None:
    regression = plan.data.task == REGRESSION
    if name not in metrics.names():
        raise where.fault(path, unknown("metric", name, metrics.names(regression=regression)))
    if name not in metrics.names(regression=regression):
        known = ", ".join(metrics.names(regression=regression))
        raise where.fault(path, f'"{name}" is a metric of another task than "{plan.data.task}". Known: {known}.')
