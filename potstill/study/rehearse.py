"""A rehearsal: one real batch of everything a study does, and from its speed the time and the disk that it needs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import LongTensor, Tensor

from potstill import bayes, engine, outputs, storage
from potstill.data import ArraySource, Data
from potstill.errors import Interrupted, PotstillError
from potstill.networks.model import Model
from potstill.networks.variational import Variational
from potstill.outputs import Live, Stored
from potstill.study import inference, trials
from potstill.study.answers import known_rows, seed_of, stored
from potstill.study.estimate import Rehearsal, Speed, estimate
from potstill.study.job import Facts, Job, file_hash
from potstill.study.opened import forget, open_data
from potstill.study.tree import Family, Node, Tree, data_table, expand
from potstill.study.worker import settings_of, training_of
from potstill.teachers import Ensemble
from potstill.training.fit import fit
from potstill.training.settings import Training
from potstill.types import Answers, Teacher, TeacherOutputs

_WATCHED = 0.5  # seconds of steps that are timed for each model, where there are few models
_WATCHED_ALL = 20.0  # and for all of them together
_RECORDED = 512  # rows a teacher answers for in a rehearsal
_PREDICTED = 2048  # rows a model predicts


def rehearse(job: Job) -> Rehearsal:
    """Open the data, take one optimiser step with every model, then time some, with one thread as the workers do.

    Teachers answer with the weights of their own rehearsal. Of the test set only the number of examples is looked at.
    Nothing is written but into a temporary folder. Raises what the study itself would raise, with a note that names
    the model.
    """
    forget(job.began)
    facts = Facts(job.data_folder)
    winners = trials.firsts(job.plan)  # whichever will win: it takes about as long
    tree = expand(trials.settled(job.plan, winners), facts, file_hash)
    tried = trials.trial_tree(job.plan, winners, facts, hashed=file_hash).tree
    rows = _rows(data_table(job.plan), job)
    known: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory(prefix="potstill-") as scratch, engine.threads(1):
        stages = [(one, _speeds(one, job, Path(scratch), known=known)) for one in (tree, tried)]
    return replace(estimate(job, stages, rows), notes=facts(data_table(job.plan))["notes"])


def _speeds(tree: Tree, job: Job, scratch: Path, *, known: dict[str, Speed]) -> dict[str, Speed]:
    """The speed of every model that is trained; trials that are built and fed as another model are not watched anew."""
    speeds: dict[str, Speed] = {}
    seconds = min(_WATCHED, _WATCHED_ALL / max(len(tree.families), 1))
    earlier = dict(known)
    for key, family in tree.families.items():
        if family.brought:
            continue
        one = _Family(family, tree, job, speeds, scratch)
        try:
            speeds[key] = one.as_fast_as(earlier[one.kind]) if one.kind in earlier else one.speed(seconds)
        except PotstillError as error:
            error.add_note(f'This was the model "{key}".')
            raise
        known.setdefault(one.kind, speeds[key])
    return speeds


def _rows(table: Mapping[str, Any], job: Job) -> dict[str, int]:
    names = ("train", "validation", *job.plan.data.test_names)
    data = open_data(table, job.plan.seed_list[0], job.data_folder, names)
    parts = {name: data.split(name) for name in names}
    return {name: 0 if part is None else len(part) for name, part in parts.items()}


@final
class _Few:
    """Recorded answers for a few rows, as if they were those of `known` (n,) rows. Satisfies `Answers`."""

    def __init__(self, recorded: Stored, known: Tensor) -> None:
        self._recorded, self._known = recorded, known

    @property
    def known(self) -> Tensor:
        return self._known

    def lookup(self, index: LongTensor, view: int = 0) -> TeacherOutputs:  # noqa: ARG002 - every view answers alike
        few: Any = index % len(self._recorded)
        return self._recorded.lookup(few, self._recorded.views[0])

    def fingerprint(self) -> str:
        return self._recorded.fingerprint()


@final
class _Watch:
    """Notes when which step was reached, and stops the training after a while."""

    def __init__(self, seconds: float) -> None:
        self.began, self.seconds = time.perf_counter(), seconds
        self.marks: list[tuple[int, float]] = []

    def progress(self, step: int, total: int) -> None:  # noqa: ARG002 - the signature of `fit`
        self.marks.append((step, time.perf_counter()))

    def should_stop(self) -> bool:
        return len(self.marks) > 1 and time.perf_counter() - self.began > self.seconds

    def per_step(self) -> float:
        first, last = ((0, self.began), self.marks[-1]) if len(self.marks) == 1 else (self.marks[0], self.marks[-1])
        return (last[1] - first[1]) / max(last[0] - first[0], 1)


@dataclass(frozen=True)
class _Family:
    """The rehearsal of one model of the results; `speeds` are those of its teachers."""

    family: Family
    tree: Tree
    job: Job
    speeds: Mapping[str, Speed]
    scratch: Path

    @property
    def kind(self) -> str:
        """What its speed depends on."""
        settings, training = self.family.settings, self.family.settings["training"]
        fed = [training[key] for key in ("batch_size", "augment", "views", "precision", "channels_last")]
        objective = [one["name"] for one in settings["objective"]]
        built = [settings["network"], settings["sees"], objective, settings["answers"], training["optimizer"]["name"]]
        built += [settings["inference"]] if settings["inference"] else []
        return storage.canonical([*built, *fed])

    def as_fast_as(self, other: Speed) -> Speed:
        """The speed of a model of the same kind, for this one's budget."""
        node = self.tree.nodes[next(iter(self.family.trainings.values()))[0]]
        rows = len(open_data(node.settings["data"]["plan"], seed_of(node), self.job.data_folder).train)
        steps, epochs = _budget(training_of(node), rows)
        return replace(other, steps=steps, epochs=epochs)

    def speed(self, seconds: float) -> Speed:
        node = self.tree.nodes[next(iter(self.family.trainings.values()))[0]]
        data = open_data(node.settings["data"]["plan"], seed_of(node), self.job.data_folder)
        training = training_of(node)
        total, epochs = _budget(training, len(data.train))
        once = replace(training, steps=1, epochs=None) if total else training
        model = self._fit(node, data, once, None)
        watch = _Watch(seconds)
        if total:
            with suppress(Interrupted):
                self._fit(node, data, training, watch)
        few = _head(data.train, _PREDICTED)
        began = time.perf_counter()
        engine.predict(model, few)
        return Speed(
            step=watch.per_step() if total else 0.0,
            row=(time.perf_counter() - began) / len(few),
            steps=total,
            epochs=epochs,
            parameters=sum(p.numel() for p in model.network.parameters()),
            bytes=sum(t.nbytes for t in model.network.state_dict().values()),
            model=model,
        )

    def _fit(self, node: Node, data: Data, training: Training, watch: _Watch | None) -> Model:
        train = data.train.with_augment(training.augment) if training.augment else data.train
        told = settings_of(node, data, answers=self._teachers(node, data, train)) | {"training": training}
        told["inference"] = inference.build(node, self._prior(node, data))
        return fit(
            data=data,
            **told,
            progress=watch.progress if watch else None,
            should_stop=watch.should_stop if watch else None,
        )

    def _teachers(self, node: Node, data: Data, train: ArraySource) -> tuple[Answers | None, Answers | None]:
        if not node.work["teachers"]:
            return None, None
        told = list(zip(self.family.teachers, node.work["teachers"], strict=True))
        known = known_rows(node, data)
        live = [self._teacher(key) for key, work in told if "models" in work]
        if live:
            teacher = live[0] if len(live) == 1 else Ensemble(live)
            on_validation = None if data.validation is None else Live(teacher, data.validation)
            return Live(teacher, train).with_known(known), on_validation
        brought = [stored(self.scratch, work, data.train, "train") for _, work in told if "file" in work]
        recorded = [self._record(key, work["outputs"], data) for key, work in told if "outputs" in work]
        if not recorded:
            return Stored.combine(brought).with_known(known), None
        few = Stored.combine(recorded)
        on_validation_rows = None if data.validation is None else torch.ones(len(data.validation), dtype=torch.bool)
        return _Few(few, known), None if on_validation_rows is None else _Few(few, on_validation_rows)

    def _teacher(self, key: str) -> Teacher:
        members = self.tree.families[key].settings["members"]
        model = self.speeds[key].model
        return model if members == 1 else Ensemble([model] * members)

    def _prior(self, node: Node, data: Data) -> bayes.Teacher | None:
        """What the prior is made of: the posterior of the teacher's rehearsal."""
        if "prior" not in node.work:
            return None
        model, few = self.speeds[self.tree.nodes[node.work["prior"]].family].model, _head(data.train, _RECORDED)
        few = few.seeing(model.spec.sees) if model.spec.sees else few
        if isinstance(model.network, Variational):
            posterior = bayes.from_variational(model.network)
        else:
            posterior = bayes.laplace(model.network, few, prior_precision=1.0)
        return bayes.teacher_of(posterior, model.network, few, inference.prior_of(node))

    def _record(self, key: str, node: str, data: Data) -> Stored:
        """Really recorded, for a few rows of the first view that the study would record."""
        settings = self.tree.nodes[node].settings
        few = _head(data.train.with_augment(settings["augment"]), _RECORDED)
        folder = self.scratch / storage.fingerprint([key, node])[:16]
        return outputs.record(self._teacher(key), few, folder, views=settings["views"][:1])


def _budget(training: Training, rows: int) -> tuple[int, int]:
    """Steps and epochs, at most."""
    steps = training.total_steps(rows)
    return steps, -(-steps // max(training.steps_per_epoch(rows), 1))


def _head(source: ArraySource, rows: int) -> ArraySource:
    return replace(
        source, labels=source.labels[:rows], labelled=source.labelled[:rows], selection=source.rows[:rows].clone()
    )
