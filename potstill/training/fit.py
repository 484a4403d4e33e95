"""`fit`: one network, trained (decision 4). It knows nothing of kinds of distillation: objectives are values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from torch import Tensor, nn

from potstill import bayes, metrics, networks, storage
from potstill.bayes import Inference
from potstill.bayes.inference import Prepared
from potstill.engine import Engine
from potstill.errors import DataError, NetworkError, SettingError
from potstill.networks.model import Model
from potstill.networks.start import Start, start_from
from potstill.registry import Spec
from potstill.training import hidden, together
from potstill.training.settings import Training
from potstill.training.task import (
    WATCHED,
    Progress,
    Task,
    TrainingData,
    describe_data,
    describe_objective,
    outputs_of,
    pick_answers,
    pick_monitor,
    pick_objective,
    pick_rows,
    prepared,
    refuse_smoothing,
    seeing,
)
from potstill.training.validation import Validation
from potstill.types import Answers, ObjectiveFunction, Penalty, Source, Teacher

P = ParamSpec("P")


def _to_the_end(make: Callable[P, Task]) -> Callable[P, Model]:
    """Train what `make` resolves."""

    @functools.wraps(make)
    def trained(*args: P.args, **settings: P.kwargs) -> Model:
        found: list[Model | Exception] = []
        together.train([make(*args, **settings)], lambda _, outcome: found.append(outcome))
        (outcome,) = found
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    trained.__annotations__ = {**make.__annotations__, "return": "Model"}
    trained.__signature__ = inspect.signature(make).replace(return_annotation="Model")  # type: ignore[attr-defined]
    return trained


@_to_the_end
def fit(
    network: Spec | networks.Builder,
    data: TrainingData,
    objective: ObjectiveFunction | Spec | None = None,
    *,
    teacher: Answers | Teacher | None = None,
    validation_teacher: Answers | None = None,
    seed: int = 0,
    member: int = 0,
    generation: int = 0,
    training: Training | None = None,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    sees: str = "",
    penalties: Sequence[Penalty] = (),
    inference: Inference | Spec | None = None,
    every: int | None = None,
    watch: Sequence[str] = (),
    folder: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Task:
    """Train one network from labels, from a teacher, or from both.

    `network`: a specification ("mlp:100") or a function (shape, outputs) -> nn.Module. `objective` defaults to hard
    labels, or to Hinton's with a `teacher`: recorded outputs, or a teacher that is asked live; of a regression to
    squared error. `validation_teacher`:
    its answers on the validation rows, needed to watch the objective there (a live teacher gives them itself).
    `settings` are fields of `Training`. With a `folder` the model is saved there, checkpoints too, and the same call
    continues an interrupted training. `weights`: where it starts (`networks.start_from`). `sees`: the input that the
    network is handed, by default the first; nothing of the others reaches the training. A live teacher gets its own.
    `inference`: weights that are distributions, or get a posterior afterwards (`bayes.build`); the folder then holds
    the posterior too. `penalties` are added to the loss, divided by the number of rows that the objective learns from.
    `every`: so many steps apart the validation data are looked at for a curve (`Model.curve`, and curve.jsonl in the
    folder), which changes nothing else; `watch`: metrics that are measured there besides.

    Raises `TrainingError` on a NaN or infinite loss (the last good weights are kept), `Interrupted` after saving when
    `should_stop()` answers true, `ObjectiveError`, `DataError`, `TeacherError` for what does not fit together.
    """
    options = Training.of(training, settings)
    if not hasattr(data, "train"):
        raise DataError(f"Found a {type(data).__name__}; wanted is a whole data set, which data.open gives.")
    infer = None if inference is None else bayes.build(inference)
    goal = pick_objective(_likelihood(objective, teacher, infer, data), teacher, data.train.spec)
    train, validation = _augmented(seeing(data.train, sees), options), seeing(data.validation, sees)
    asked = _augmented(data.train, options) if train.spec.sees else train
    told = pick_answers(teacher, validation_teacher, asked, data.validation)
    answers, validation_answers = (hidden.of_teacher(goal, each) for each in told)
    rows = pick_rows(goal, train, answers)
    key = {"seed": seed, "member": member, "generation": generation}
    module = networks.seeded(
        network, train.spec.shape, outputs_of(train.spec, goal), **key, vocabulary=train.spec.vocabulary
    )
    start = _start(module, weights, options.total_steps(len(train)))
    specification = None if callable(network) else networks.REGISTRY.full(network)
    hidden.check_student(goal, module, train)
    goal = prepared(goal, module, train, answers, key=key)
    ready = _ready(infer, module, train, rows=len(rows), options=options, seed=seed)
    options = pick_monitor(options, goal, validation, validation_answers, task=train.spec.task)
    decides = _described(specification or networks.label(network), goal, options)
    decides |= _beside(train, options, ready) | {"seed": key, "weights": start and start.sha256}
    return Task(
        network=module if ready is None else ready.network,
        train=train,
        validation=_validation(validation, validation_answers, goal, options, watch),
        objective=goal,
        answers=answers,
        rows=rows,
        seed=seed,
        training=options,
        engine=Engine.pick(options.precision, channels_last=options.channels_last),
        penalties=penalties if ready is None else (*ready.penalties, *penalties),
        settings=decides | describe_data(train, answers, validation, validation_answers),
        folder=Path(folder) if folder is not None else None,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        should_stop=should_stop,
        specification=specification,
        start=start,
        inference=infer,
        rebuild=None if ready is None else ready.rebuild,
        reduced={} if ready is None else ready.reduced,
        every=_every(every, validation),
    )


prepare: Callable[..., Task] = inspect.unwrap(fit)
"""The same arguments resolved to a task, for `together.train`."""


def _every(every: int | None, validation: Source | None) -> int | None:
    if every is None:
        return None
    if every < 1 or validation is None or len(validation) == 0:
        found = "no validation data" if every >= 1 else f"every = {every}"
        raise SettingError(f"A curve needs validation data, and a number of steps of at least 1; found {found}.")
    return every


def _likelihood(
    objective: ObjectiveFunction | Spec | None, teacher: object, infer: Inference | None, data: TrainingData
) -> ObjectiveFunction | Spec | None:
    """The objective; of a regression whose weights are distributions by default a likelihood, with a noise."""
    honest = infer is not None and infer.variational and infer.name != "published"
    if objective is None and teacher is None and honest and data.train.spec.task == "regression":
        return {"name": "gaussian", "sigma": "learned"}
    return objective


def _ready(
    infer: Inference | None, module: nn.Module, train: Source, *, rows: int, options: Training, seed: int
) -> Prepared | None:
    if infer is None:
        return None
    return infer.prepare(module, train.spec, rows=rows, batch_size=options.batch(len(train)), seed=seed)


def _start(module: nn.Module, weights: str | Path | Mapping[str, Tensor] | None, steps: int) -> Start | None:
    if weights is None:
        return None
    start = start_from(module, weights)
    if start.new and not steps:
        given = "what is given" if isinstance(weights, Mapping) else weights
        raise NetworkError(
            f"weights: {given} has a head for another number of outputs, so {' and '.join(start.new)} are made anew; "
            "a model that is used as it is would answer at random. Give it some epochs."
        )
    return start


def _described(network: Any, goal: ObjectiveFunction, options: Training) -> dict[str, Any]:
    return {"network": network, "objective": describe_objective(goal), "training": storage.plain(options)}


def _beside(train: Source, options: Training, ready: Prepared | None) -> dict[str, Any]:
    """What decides a result where it is not as usual."""
    found: dict[str, Any] = {"sees": train.spec.sees} if train.spec.sees else {}
    if train.spec.task == "regression":
        refuse_smoothing(options)
        found["target_scaling"] = storage.plain(train.spec.scaling)
    if train.spec.recipe:
        found["recipe"] = storage.fingerprint(storage.plain(train.spec.recipe))
    return found | ({"inference": ready.described} if ready is not None else {})


def _augmented(train: Source, options: Training) -> Source:
    if not options.augment:
        return train
    augmented: Source = train.with_augment(options.augment)  # type: ignore[attr-defined]
    return augmented


def _validation(
    source: Source | None, answers: Answers | None, goal: ObjectiveFunction, options: Training, watch: Sequence[str]
) -> Validation | None:
    if source is None:
        return None
    watched = [*WATCHED[source.spec.task == "regression"], options.select, options.monitor, *watch]
    names = [name for name in watched if name in metrics.names()]
    most = options.batch(len(source))
    return Validation.of(source, answers, goal, names=names, label_smoothing=options.label_smoothing, batch_size=most)
