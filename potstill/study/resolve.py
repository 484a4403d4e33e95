"""What one model of a plan comes down to, every default filled in; and in what two models differ."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from potstill.study import names, tasks, words
from potstill.study.family import ancestors
from potstill.study.plan_text import value_text
from potstill.study.tables import TRUTH, Model, Table, Tables


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingPlan(_Frozen):
    """All settings of one training; `training.settings.Training` takes the same names. `epochs` or `steps` is None."""

    optimizer: Table
    schedule: Table
    batch_size: int | Literal["all"]
    epochs: int | None
    steps: int | None
    patience: int | None
    monitor: str
    select: str
    augment: tuple[Table, ...]
    views: int | Literal["fresh"]
    precision: Literal["float32", "bf16"]
    channels_last: bool
    clip: float | None
    label_smoothing: float


class ModelPlan(_Frozen):
    """One model with every default filled in. `to_dict` is what its nodes' fingerprints are made of.

    `objective` None: the model is not trained (given by its outputs). `known` None: the teacher is asked about every
    training row. `shared`: one model for all seeds; declared, or because nothing of it depends on the seed.
    """

    name: str
    network: Table | None
    sees: str | None
    teachers: tuple[str, ...]
    objective: tuple[Table, ...] | None
    inference: Table | None
    labelled: int | Literal["all"] | None
    members: int
    generations: int
    known: float | str | None
    weights: str | None
    outputs: str | None
    kind: Literal["logits", "probabilities", "values", "gaussian"] | None
    shared: bool
    answers: Literal["stored", "live"] | None
    training: TrainingPlan | None

    @property
    def used_as_is(self) -> bool:
        """Whether its weights are used without training."""
        return self.training is not None and 0 in (self.training.epochs, self.training.steps)

    @property
    def is_truth(self) -> bool:
        """Whether it is the law by which the data were drawn."""
        return self.weights == TRUTH and self.used_as_is

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, lists, texts and numbers, as for JSON."""
        return self.model_dump(mode="json")


def resolve(plan: Tables, name: str) -> ModelPlan:
    """The model `name` of a plan that `check` has accepted."""
    model = plan.models[name]
    training = None if model.outputs is not None else _training(plan, model)
    as_is = training is not None and 0 in (training.epochs, training.steps)
    same = plan.data.redraw is None  # examples drawn anew make every seed's models its own
    return ModelPlan(
        name=name,
        network=None if model.network is None else names.full("network", model.network),
        sees=model.sees,
        teachers=model.teacher,
        objective=None
        if model.objective is None
        else tuple(names.full("objective", o) for o in listed(model.objective)),
        inference=None if model.inference is None else names.full_inference(model.inference),
        labelled=model.labelled,
        members=model.members,
        generations=model.generations,
        known=model.known,
        weights=model.weights,
        outputs=model.outputs,
        kind=model.kind,
        shared=model.shared or (as_is and same) or model.outputs is not None,
        answers=_answers(model, training),
        training=training,
    )


def listed(objective: Table | tuple[Table, ...]) -> tuple[Table, ...]:
    """One objective or several, as several."""
    return objective if isinstance(objective, tuple) else (objective,)


def merged(plan: Tables, model: Model) -> dict[str, Any]:
    """[training] with the model's own keys put over it; `epochs` puts `steps` out, and the other way round."""
    whole = plan.training.model_dump(exclude_none=True)
    own = model.training.model_dump(exclude_none=True)
    if "epochs" in own or "steps" in own:
        whole = {key: value for key, value in whole.items() if key not in ("epochs", "steps")}
    return whole | own


def _training(plan: Tables, model: Model) -> TrainingPlan:
    given = {"epochs": None, "steps": None, "select": tasks.select(plan, model)} | merged(plan, model)
    full = {
        "optimizer": names.full("optimizer", given["optimizer"]),
        "schedule": names.full("schedule", given["schedule"]),
        "augment": tuple(names.full("augmentation", step) for step in given["augment"]),
        "patience": given["patience"] or None,
        "clip": given["clip"] or None,
    }
    return TrainingPlan(**(given | full))


def _answers(model: Model, training: TrainingPlan | None) -> Literal["stored", "live"] | None:
    if not model.teacher or training is None:
        return None
    return model.answers or ("live" if training.augment and training.views == "fresh" else "stored")


Pair: TypeAlias = tuple[Any, Any]


def differences(plan: Tables, a: str, b: str) -> list[str]:
    """Settings in which two models differ, beside what makes the method (objective, teacher); short phrases.

    `["network (mlp:16 against small_cnn)", "training.steps (1500 against 400)"]`. Which rows a student learns from is
    told where some rows carry no label. The law by which the data were drawn is no method to compare with: nothing.
    """
    first, second = resolve(plan, a), resolve(plan, b)
    if any(model.is_truth for model in (first, second)):
        return []
    models = plan.models[a], plan.models[b]
    pairs: dict[str, Pair] = {
        "network": (_network(models[0]), _network(models[1])),
        "input": (first.sees, second.sees),
        "members": (first.members, second.members),
        "generations": (first.generations, second.generations),
        "starting weights": (first.weights, second.weights),
        "training rows": (_rows(plan, first), _rows(plan, second)),
        "labels that teachers learned from": (_labels_above(plan, a), _labels_above(plan, b)),
        "trained": tuple("once for all seeds" if m.shared else "once per seed" for m in (first, second)),  # type: ignore[dict-item]
    }
    if {None, "labelled"} < {None, "labelled", first.known, second.known}:
        pairs[words.ANSWERED] = (_answered(first), _answered(second))
    if first.used_as_is != second.used_as_is:
        pairs["training"] = tuple("none (used as it is)" if m.used_as_is else _budget(m) for m in (first, second))  # type: ignore[assignment]
    elif first.training and second.training and not first.used_as_is:
        pairs |= _training_pairs(first.training, second.training)
    return [f"{key} ({_shown(x)} against {_shown(y)})" for key, (x, y) in pairs.items() if x != y]


def _training_pairs(first: TrainingPlan, second: TrainingPlan) -> dict[str, Pair]:
    a, b = dict(first), dict(second)
    pairs: dict[str, Pair] = {}
    for key in a:
        x, y = a[key], b[key]
        if key in ("epochs", "steps"):
            if key == "steps" and (x is None) != (y is None):
                pairs["training budget"] = (_steps(first), _steps(second))
            elif x is not None and y is not None:
                pairs[f"training.{key}"] = (x, y)
        elif key == "views" and not (first.augment or second.augment):
            continue  # without augmentation every view is the plain example
        elif key in ("optimizer", "schedule") and x["name"] == y["name"]:
            pairs |= {f"training.{key}.{word}": (x[word], y[word]) for word in x}
        elif key in ("optimizer", "schedule"):
            pairs[f"training.{key}"] = (_table(x), _table(y))
        elif key == "augment":
            pairs["training.augment"] = (" + ".join(map(_table, x)), " + ".join(map(_table, y)))
        else:
            pairs[f"training.{key}"] = (x, y)
    return pairs


def _network(model: Model) -> str | None:
    if model.network is None:
        return f"that of {model.weights}" if model.weights else None
    return names.label("network", model.network)


def _rows(plan: Tables, model: ModelPlan) -> str:
    """The training rows that give a model's objective anything to learn from."""
    some = plan.data.labelled if model.labelled is None else model.labelled
    labelled = "all" if some in (None, "all") else "the labelled ones"
    if model.labelled is not None and labelled != "all":
        labelled = f"{some} labelled ones"
    objectives = model.objective or ()
    if not model.teachers or not any(map(names.needs_teacher, objectives)):
        return labelled
    told = "those that the teacher answers for"
    if model.known in (None, 1.0, "labelled"):
        told = labelled if model.known == "labelled" else "all"
    if told in ("all", labelled) or not any(map(names.needs_labels, objectives)):
        return told
    return "all" if labelled == "all" else f"{labelled} and {told}"


def _labels_above(plan: Tables, name: str) -> str | None:
    """What teachers, and theirs, say of their own labels: they may have seen some that the student has not."""
    found = {str(some) for above in ancestors(plan.models, name) if (some := plan.models[above].labelled) is not None}
    return " and ".join(sorted(found)) or None


def _answered(model: ModelPlan) -> str:
    if not model.teachers:
        return "none"
    if model.known == "labelled":
        return "the labelled ones"
    return "all" if model.known in (None, 1.0) else words.known(model.known)


def _steps(training: TrainingPlan) -> str:
    return f"{training.epochs} epochs" if training.steps is None else f"{training.steps} steps"


def _budget(model: ModelPlan) -> str:
    return "none" if model.training is None else _steps(model.training)


def _table(table: Table) -> str:
    settings = ", ".join(f"{key}={_shown(value)}" for key, value in table.items() if key != "name")
    return f"{table['name']}({settings})" if settings else str(table["name"])


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return value if isinstance(value, str) else value_text(value)
