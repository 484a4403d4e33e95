"""Checks across the models of a plan: names that must exist, and settings that must fit each other."""

from __future__ import annotations

import re
from collections.abc import Collection

from potstill.errors import unknown
from potstill.study import area, inference, names, resolve, sweep, tasks, words
from potstill.study.family import cycle, judged
from potstill.study.plan_text import Path, Where, shown
from potstill.study.tables import TRUTH, Model, Tables, Training


def check(plan: Tables, where: Where) -> None:
    """Raises `PlanError` at the first thing that does not fit."""
    _seeds(plan, where)
    _redrawn(plan, where)
    _truth(plan, where)
    for name, model in plan.models.items():
        path = ("models", name)
        _teachers(plan, name, where)
        if plan.data.inputs is not None and model.sees is not None and model.sees not in plan.data.inputs:
            raise where.fault((*path, "sees"), unknown("input", model.sees, plan.data.inputs))
        if model.outputs is not None:
            _outputs(model, path, where)
        else:
            _trained(plan, model, path, where)
        _learns(plan, model, path, where)
        inference.check(plan, name, where)
    found = cycle(plan.models)
    if found:
        raise where.fault(("models", found[0], "teacher"), f"the models learn from each other: {' <- '.join(found)}.")
    _shared(plan, where)
    for name, model in plan.models.items():
        _hidden(plan, name, model, where)
    tasks.check(plan, where)
    _watching(plan, plan.training, ("training",), where)
    for name, model in plan.models.items():
        _watching(plan, model.training, ("models", name, "training"), where)
    _evaluation(plan, where)
    _verdict(plan, where)
    _published(plan, where)


def _seeds(plan: Tables, where: Where) -> None:
    if isinstance(plan.seeds, tuple):
        if not plan.seeds:
            raise where.fault(("seeds",), "found an empty list; wanted is at least one seed.")
        twice = [seed for seed in plan.seeds if plan.seeds.count(seed) > 1]
        if twice:
            raise where.fault(("seeds",), f"found the seed {twice[0]} twice; the same seed gives the same model.")


def _redrawn(plan: Tables, where: Where) -> None:
    """Where every seed has examples of its own, they must be drawn by the program, and nothing is one for all seeds."""
    if plan.data.redraw is None:
        return
    source, drawn = plan.data.source["name"], names.drawn()
    if source not in drawn:
        raise where.fault(
            ("data", "redraw"),
            f'the examples of "{source}" are given and cannot be drawn anew; those of {words.listed(drawn)} can.',
        )
    for name, one in plan.data.test.items() if isinstance(plan.data.test, dict) else ():
        if one.file is not None:
            raise where.fault(
                ("data", "test", name), 'is one file for all seeds, and data.redraw = "seed" draws test examples anew.'
            )
    for name, model in plan.models.items():
        for key, given in (("shared", model.shared), ("outputs", model.outputs is not None)):
            if given:
                raise where.fault(
                    ("models", name, key),
                    'is one for all seeds, and data.redraw = "seed" gives each seed examples of its own.',
                )


def _truth(plan: Tables, where: Where) -> None:
    """The law by which the data were drawn is known of some sources only."""
    asked: list[Path] = [("models", name, "teacher") for name, model in plan.models.items() if TRUTH in model.teacher]
    asked += [("models", name, "weights") for name, model in plan.models.items() if model.weights == TRUTH]
    if asked and not names.has_truth(plan.data.source):
        raise where.fault(
            asked[0],
            f'"{TRUTH}" is the law by which the program drew the data, and that of "{plan.data.source["name"]}" '
            'is not known, or is no probability. That of "linear" is, and of "softmax-linear" with labels = "drawn".',
        )


def _model_name(word: str, path: Path, known: Collection[str], where: Where) -> None:
    if word not in known:
        raise where.fault(path, unknown("model", word, known))


def _teachers(plan: Tables, name: str, where: Where) -> None:
    path = ("models", name, "teacher")
    teachers = plan.models[name].teacher
    for teacher in teachers:
        if teacher == name:
            raise where.fault(
                path,
                f'"{name}" cannot be its own teacher. For a chain of students give the first model a table of its own, '
                "name it as the teacher, and set generations = N.",
            )
        _model_name(teacher, path, [other for other in plan.models if other != name], where)
        if teachers.count(teacher) > 1:
            raise where.fault(path, f'found "{teacher}" twice; wanted are different models.')


def _outputs(model: Model, path: Path, where: Where) -> None:
    given = model.model_fields_set - {"outputs", "kind", "shared"}
    for key in sorted(given):
        raise where.fault((*path, key), "a model that is given by its outputs is not trained and has no such key.")
    if model.kind is None:
        raise where.fault(
            (*path, "kind"),
            'is missing; wanted is what the outputs are: "logits" or "probabilities", of a regression "values" or '
            '"gaussian".',
        )


def _trained(plan: Tables, model: Model, path: Path, where: Where) -> None:
    if model.kind is not None:
        raise where.fault((*path, "kind"), "says what `outputs` are, and there are no outputs.")
    if model.network is None and model.weights is None:
        raise where.fault((*path, "network"), 'is missing; wanted is a network such as "mlp:100".')
    own = model.training
    used_as_is = 0 in (own.epochs, own.steps)
    if own.epochs is None and own.steps is None:
        used_as_is = 0 in (plan.training.epochs, plan.training.steps)
    if used_as_is and model.weights is None:
        key = "steps" if own.steps == 0 or plan.training.steps == 0 else "epochs"
        place = (*path, "training") if 0 in (own.epochs, own.steps) else ("training",)
        raise where.fault((*place, key), f"found 0, but {path[1]} has no weights to be used as they are.")
    if used_as_is and model.members > 1:
        raise where.fault((*path, "members"), "members that start from the same weights and are not trained are equal.")


def _learns(plan: Tables, model: Model, path: Path, where: Where) -> None:
    """Teacher, objective and the keys that only a student has."""
    found = model.objective if isinstance(model.objective, tuple) else (model.objective,)
    objectives = [objective for objective in found if objective is not None]
    wants = [objective["name"] for objective in objectives if names.needs_teacher(objective)]
    distributed = model.inference is not None and model.inference["name"] != "laplace"
    if model.teacher and not any(map(names.can_use_teacher, objectives)) and not inference.of_prior(model):
        raise where.fault(
            (*path, "objective"),
            f'"{objectives[0]["name"]}" learns nothing from the teacher; leave the teacher out, name an objective that '
            + ('uses it, or a prior that is made of it: prior = { from = "MODEL" }.' if distributed else "uses it."),
        )
    if not model.teacher:
        if wants:
            raise where.fault((*path, "objective"), f'"{wants[0]}" learns from a teacher, and there is no `teacher`.')
        for key, given in (
            ("known", model.known is not None),
            ("answers", model.answers is not None),
            ("generations", model.generations > 1),
        ):
            if given:
                raise where.fault((*path, key), "is about learning from a teacher, and there is no `teacher`.")
    for teacher in model.teacher:
        if plan.models[teacher].outputs is None:
            continue
        if model.answers == "live":
            raise where.fault((*path, "answers"), f'"{teacher}" is given by its outputs and cannot be asked live.')
        own = model.training.augment
        if own if own is not None else plan.training.augment:
            place = (*path, "training", "augment") if own else ("training", "augment")
            raise where.fault(
                place,
                f'"{teacher}" is given by its outputs, which are for plain examples; '
                f'its student "{path[1]}" cannot learn from augmented ones. '
                "Give the student training = { augment = [] }.",
            )


def _shared(plan: Tables, where: Where) -> None:
    for name, model in plan.models.items():
        for teacher in model.teacher if model.shared else ():
            above = plan.models[teacher]
            if not (above.shared or above.outputs is not None):
                raise where.fault(
                    ("models", name, "shared"),
                    f'is one model for all seeds, but its teacher "{teacher}" is one per seed; share that too.',
                )


def _hidden(plan: Tables, name: str, model: Model, where: Where) -> None:
    """Objectives over hidden features need one teacher that has such, and that is asked live."""
    found = model.objective if isinstance(model.objective, tuple) else (model.objective,)
    read = [(i, o["name"]) for i, o in enumerate(found) if o is not None and names.reads_features(o)]
    if not read:
        return
    number, objective = read[0]
    path: Path = ("models", name, "objective", *([number] if isinstance(model.objective, tuple) else []))
    if resolve.resolve(plan, name).answers != "live":
        raise where.fault(
            ("models", name, "answers") if model.answers else path,
            f'"{objective}" reads hidden features of the teacher, which recorded outputs do not have; '
            'wanted is answers = "live", so that the teacher is asked in every step.',
        )
    if len(model.teacher) > 1 or any(t == TRUTH or plan.models[t].members > 1 for t in model.teacher):
        raise where.fault(path, f'"{objective}" reads hidden features of one model; the teacher is not a single one.')


def _watching(plan: Tables, training: Training, path: Path, where: Where) -> None:
    if plan.data.validation != 0:
        return
    monitor = training.monitor or plan.training.monitor
    if training.patience and monitor != "train_objective":
        raise where.fault((*path, "patience"), f'"{monitor}" needs validation data, and data.validation is 0.')
    if training.select not in (None, "last"):
        raise where.fault((*path, "select"), f'found "{training.select}" with data.validation = 0; wanted is "last".')
    if training.monitor not in (None, "objective", "train_objective"):
        raise where.fault((*path, "monitor"), f'"{training.monitor}" needs validation data, and data.validation is 0.')


def _evaluation(plan: Tables, where: Where) -> None:
    evaluation = plan.evaluation
    for key in ("splits", "labels", "views"):
        found = getattr(evaluation, key)
        twice = [word for word in found if found.count(word) > 1]
        if twice:
            raise where.fault(("evaluation", key), f"found {shown(twice[0])} twice.")
    if plan.verdict.on not in plan.data.test_names:
        raise where.fault(("verdict", "on"), unknown("test set", plan.verdict.on, plan.data.test_names))
    if plan.verdict.on not in evaluation.splits:
        raise where.fault(
            ("evaluation", "splits"), f'the verdict is given on "{plan.verdict.on}", which is not among these splits.'
        )
    if "teacher" in evaluation.labels and not any(model.teacher for model in plan.models.values()):
        raise where.fault(("evaluation", "labels"), 'found "teacher", and no model of this plan has one.')
    area.check(plan, where)
    trainings = (plan.training, *(model.training for model in plan.models.values()))
    if any(evaluation.views) and not any(training.augment for training in trainings):
        raise where.fault(
            ("evaluation", "views"),
            f"found {shown(max(evaluation.views))}; views are made by a model's own augmentation, and no training has "
            'any. Set augment = ["flip"] or the like, or leave views out.',
        )


def _verdict(plan: Tables, where: Where) -> None:
    verdict = plan.verdict
    names.metric(verdict.metric, ("verdict", "metric"), where)
    if verdict.margin >= 1 and names.is_fraction(verdict.metric):
        raise where.fault(
            ("verdict", "margin"),
            f"found {verdict.margin:g}; {verdict.metric} lies between 0 and 1, so half a percentage point is 0.005.",
        )
    if verdict.baseline is not None:
        _judged_name(plan, verdict.baseline, ("verdict", "baseline"), where)
    seen: set[tuple[str, str]] = set()
    for number, pair in enumerate(verdict.compare or ()):
        path = ("verdict", "compare", number)
        for name in pair:
            _judged_name(plan, name, path, where)
        if pair[0] == pair[1] or pair in seen or pair[::-1] in seen:
            what = "with itself" if pair[0] == pair[1] else f'with "{pair[1]}" twice'
            raise where.fault(path, f'found "{pair[0]}" compared {what}; wanted are different comparisons.')
        seen.add(pair)


def _judged_name(plan: Tables, name: str, path: Path, where: Where) -> None:
    _model_name(name, path, plan.models, where)
    if name not in judged(plan.models):
        raise where.fault(path, f'"{name}" is given by its outputs, which say nothing about test examples.')
    if names.metric_needs_teacher(plan.verdict.metric):
        metric = plan.verdict.metric
        if not plan.models[name].teacher:
            raise where.fault(path, f'"{metric}" compares a model with its teacher, and "{name}" has none.')
        for teacher in set(plan.models[name].teacher) - set(judged(plan.models)):
            raise where.fault(
                path,
                f'"{metric}" compares a model with its teacher on test examples, and "{teacher}", the teacher of '
                f'"{name}", is given by its outputs, which say nothing about them.',
            )


def _published(plan: Tables, where: Where) -> None:
    """Of a student also `NAME#2`, its second generation; where the chain is shorter the number is told by itself.

    Of a swept plan also `NAME@key=value`, a model at a point, as results call it.
    """
    points = {f"{key}={value}" for point in sweep.grid(plan.sweep, where) for key, value in point.items()}
    for metric, numbers in (plan.published.metrics if plan.published else {}).items():
        names.published(metric, ("published", metric), where)
        for name in numbers:
            path = ("published", metric, name)
            whole, _, generation = name.partition("#")
            model, _, point = whole.partition("@")
            for part in point.split(",") if point else ():
                if part not in points:
                    raise where.fault(path, unknown("point of the sweep", part, points))
            counted = model in plan.models and plan.models[model].teacher and re.fullmatch("[1-9][0-9]*", generation)
            _model_name(model if counted or (point and not generation) else name, path, plan.models, where)
