"""Plans: TOML files that say what a study trains, on what, and what it compares.

A study is a family tree of models. Importing this module does not import torch; opening a plan does, because the keys
of networks, objectives and optimizers come from their functions' signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path as File
from typing import Any

from potstill.errors import PlanError, unknown
from potstill.study import checks, family, names, resolve, sweep, tuning
from potstill.study.expand import expand, validate
from potstill.study.plan_text import Where, dotted, parse, parse_key, positions, short, write
from potstill.study.resolve import ModelPlan
from potstill.study.tables import Data, Evaluation, Model, Published, Tables, Verdict


@dataclass(frozen=True)
class Point:
    """One point of a sweep: `settings` (dotted key -> value), `label` ("data.labelled=100"), and the plan there.

    Or one trial of a model; then the keys are relative to the model.
    """

    settings: Mapping[str, Any]
    label: str
    plan: Plan


@dataclass(frozen=True)
class Plan:
    """A plan that has been read, expanded and checked. Two plans are equal when they say the same.

    Not said in the plan language, and decided here: `known = "labelled"` limits the teacher to the rows that carry
    labels; `story` is a text for the report; 0 turns `patience` and `clip` off, so that one model can do without.
    """

    tables: Tables
    name: str = field(default="study", compare=False)
    written: str | None = field(default=None, compare=False, repr=False)
    _points: tuple[Point, ...] = field(default=(), compare=False, repr=False)
    _trials: Mapping[str, tuple[Point, ...]] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def names() -> list[str]:
        """Names of the plans that come with potstill, sorted."""
        return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))

    @staticmethod
    def source(name_or_path: str | File) -> tuple[str, str]:
        """Name and text of a plan that comes with potstill, or of a .toml file; not yet checked."""
        word = str(name_or_path)
        if not (isinstance(name_or_path, File) or word.endswith(".toml") or "/" in word):
            if word not in Plan.names():
                raise PlanError(f"{unknown('plan', word, Plan.names())} A file is named with its .toml.")
            return word, (_folder() / f"{word}.toml").read_text(encoding="utf-8")
        try:
            return File(word).stem, File(word).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise PlanError(f"{word} is not a text in UTF-8, as TOML has to be.") from None
        except OSError as error:
            raise PlanError(
                f"{word} cannot be read ({error.strerror}). Plans by name: {', '.join(Plan.names())}."
            ) from None

    @staticmethod
    def about(name: str) -> dict[str, str]:
        """`title`, `needs` and `time` of a plan that comes with potstill; the last two from comments in its head."""
        text = Plan.source(name)[1]
        facts = {"title": str(parse(text).get("title", name)), "needs": "", "time": ""}
        for line in text.splitlines():
            word, colon, rest = line.removeprefix("# ").partition(": ")
            if line.startswith("# ") and colon and word in ("needs", "time"):
                facts[word] = rest.strip()
        return facts

    @staticmethod
    def load(name_or_path: str | File) -> Plan:
        """A plan by name, or from a .toml file. Errors are `PlanError` with the dotted key and the line."""
        name, text = Plan.source(name_or_path)
        raw = parse(text)
        return _build({"title": name} | raw, Where(positions(text)), name=name, written=text)

    @staticmethod
    def from_dict(raw: Mapping[str, Any], *, name: str = "study") -> Plan:
        """A plan from the tables that its TOML would hold."""
        return _build(raw, Where(), name=name)

    def with_settings(self, settings: Iterable[str]) -> Plan:
        """The plan with `["training.epochs=3", "models.large.network=mlp:50"]`; all are put in, then checked."""
        found = sweep.read_settings(settings)
        for path, _ in found:
            key = sweep.swept_already(path, self.tables.sweep)
            if key is not None:
                raise Where().fault(path, f'is swept over; set the sweep instead: sweep."{key}"=[...].')
            key = sweep.swept_already(path, self._searched())
            if key is not None:
                raise Where().fault(path, f"is tuned; set the search instead: {self._searched()[key]}=[...].")
        return _build(sweep.put(self.to_dict(), found, Where()), Where(), name=self.name) if found else self

    def with_seeds(self, n: int) -> Plan:
        """The plan with the seeds 0 .. n-1."""
        return _build(self.to_dict() | {"seeds": n}, Where(), name=self.name)

    @property
    def title(self) -> str:
        return self.tables.title

    @property
    def story(self) -> str | None:
        return self.tables.story

    @property
    def data(self) -> Data:
        return self.tables.data

    @property
    def models(self) -> dict[str, Model]:
        return self.tables.models

    @property
    def evaluation(self) -> Evaluation:
        return self.tables.evaluation

    @property
    def verdict(self) -> Verdict:
        return self.tables.verdict

    @property
    def published(self) -> Published | None:
        return self.tables.published

    @property
    def seed_list(self) -> list[int]:
        """The seeds: as listed, or 0 .. n-1."""
        seeds = self.tables.seeds
        return list(range(seeds)) if isinstance(seeds, int) else list(seeds)

    @property
    def baseline(self) -> str | None:
        """The declared baseline, else "alone", else the only model that neither learns from another nor teaches one."""
        return self.verdict.baseline or family.baseline(self.models)

    @property
    def text(self) -> str:
        """The TOML as it was written, comments and all; of a plan that was changed or made in Python, `to_toml()`."""
        return self.to_toml() if self.written is None else self.written

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, as the TOML would hold them, with shorthand and defaults written out."""
        plan = self.tables
        given = {
            key: getattr(plan, key).model_dump(mode="json", exclude_none=True)
            for key in ("data", "training", "tune", "evaluation", "verdict")
            if getattr(plan, key) is not None
        }
        models = {
            name: model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            for name, model in plan.models.items()
        }
        whole: dict[str, Any] = {
            "title": plan.title,
            "story": plan.story,
            "seeds": plan.seeds,
            "data": given["data"],
            "training": given["training"],
            "models": models,
            "tune": given.get("tune"),
            "sweep": {key: list(values) for key, values in plan.sweep.items()} or None,
            "evaluation": given["evaluation"],
            "verdict": given["verdict"],
        }
        if plan.published is not None:
            whole["published"] = {"source": plan.published.source, **plan.published.metrics}
        return {key: value for key, value in whole.items() if value is not None}

    def data_dict(self) -> dict[str, Any]:
        """[data] with every key; what is not given is None."""
        found: dict[str, Any] = self.data.model_dump(mode="json")
        return found

    def to_toml(self) -> str:
        """The plan with every default written out, as TOML that `load` accepts: `load(to_toml(p)) == p`."""
        return write(short(self.to_dict()), comment="A resolved plan: every default is written out.")

    def points(self) -> list[Point]:
        """The sweep, every combination of its values as a plan without a sweep; one point without settings if none."""
        return list(self._points) or [Point({}, "", self)]

    def trials(self) -> dict[str, tuple[Point, ...]]:
        """The trials of every tuned model, each with the plan in which it has its settings; known beforehand."""
        return dict(self._trials)

    @property
    def tune_seeds(self) -> list[int]:
        """The seeds of the trials, none of them the report's; empty where nothing is tuned."""
        return [] if self.tables.tune is None else tuning.seed_list(self.tables.tune, self.seed_list)

    def tuned(self, winners: Mapping[str, Mapping[str, Any]]) -> Plan:
        """The plan without [tune], with the settings that won: model -> key relative to it -> value."""
        return _build(_with(self.to_dict(), winners), Where(), name=self.name)

    def resolved(self, model: str) -> ModelPlan:
        """One model with every default filled in and its training merged over [training]."""
        return resolve.resolve(self.tables, self._known(model))

    def order(self) -> list[str]:
        """The models, every teacher before its students, else as declared."""
        return family.order(self.models)

    def depth(self, model: str) -> int:
        """The wave in which the first generation of a model can be trained: 0 where it learns from no model."""
        return family.depth(self.models, self._known(model))

    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs (model, other) to judge: as declared, else students against the baseline, then against their teachers.

        Without a baseline (see `baseline`) only the latter. A metric that compares a model with its teacher is judged
        between models that have one.
        """
        if self.verdict.compare is not None:
            return list(self.verdict.compare)
        pairs = family.comparisons(self.models, self.baseline)
        if not names.metric_needs_teacher(self.verdict.metric):
            return pairs
        told = [name for name, model in self.models.items() if model.teacher]
        told = [name for name in told if set(self.models[name].teacher) <= set(family.judged(self.models))]
        return [pair for pair in pairs if set(pair) <= set(told)]

    def _searched(self) -> dict[str, str]:
        """Every setting that is tuned, and the key that says so."""
        search = self.tables.tune.search if self.tables.tune is not None else {}
        return {f"models.{m}.{key}": dotted(("tune", "search", m, key)) for m, space in search.items() for key in space}

    def _known(self, model: str) -> str:
        if model not in self.models:
            raise PlanError(unknown("model", model, self.models))
        return model


def differences(plan: Plan, a: str, b: str) -> list[str]:
    """Settings in which two models differ, beside objective and teacher, which make the method; short phrases.

    `["network mlp:16 against small_cnn", "training.steps 1500 against 400"]`; empty where only the method differs.
    """
    return resolve.differences(plan.tables, plan._known(a), plan._known(b))


def _folder() -> Any:
    return resources.files("potstill.study") / "plans"


def _build(raw: Mapping[str, Any], where: Where, *, name: str, written: str | None = None) -> Plan:
    expanded = expand(raw, where)
    read = validate(expanded, where)
    checks.check(read, where)
    plan = Plan(read, name, written)
    tuning.check(read, plan.seed_list, where)
    if not read.sweep:
        return _with_trials(plan, where)
    base = {key: value for key, value in plan.to_dict().items() if key not in ("sweep", "published")}
    points = []
    for settings in sweep.grid(read.sweep, where):
        try:
            there = sweep.put(base, [(parse_key(key), value) for key, value in settings.items()], Where())
            points.append(Point(settings, sweep.label(settings), _build(there, Where(), name=name)))
        except PlanError as error:
            raise sweep.blame(error, settings, read.sweep, where=where) from None
    return replace(plan, _points=tuple(points))


def _with(whole: dict[str, Any], winners: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    base = {key: value for key, value in whole.items() if key != "tune"}
    pairs = [((*("models", name), *parse_key(key)), x) for name, found in winners.items() for key, x in found.items()]
    return sweep.put(base, pairs, Where())


def _with_trials(plan: Plan, where: Where) -> Plan:
    tune, whole = plan.tables.tune, plan.to_dict()
    found: dict[str, tuple[Point, ...]] = {}
    if tune is None:
        return plan
    for model in tune.search:
        points = []
        for settings in tuning.trials(tune, model, where):
            try:
                there = _build(_with(whole, {model: settings}), Where(), name=plan.name)
            except PlanError as error:
                raise tuning.blame(error, model, settings, where=where) from None
            points.append(Point(settings, sweep.label(settings), there))
        found[model] = tuple(points)
    counts = {model: len(points) for model, points in found.items()}
    tuning.check_equal(plan.tables, counts, plan.comparisons(), where=where)
    return replace(plan, _trials=found)
