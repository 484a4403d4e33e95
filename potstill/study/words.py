"""Short texts about models: what a network, an objective, a cost is called in results and sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from potstill import storage
from potstill.study.plan_text import value_text
from potstill.study.results import Cost, ModelResult, Trial, Tuning
from potstill.study.tables import TRUTH


def network(table: Mapping[str, Any] | None, sees: str | None = None) -> str:
    """A network's table as text, without the settings that are left at their defaults, and the input that it sees.

    >>> network({"name": "mlp", "hidden": [100, 50], "dropout": 0.0}), network({"name": "linear"}, "x_star")
    ('mlp:100-50', 'linear on x_star')
    """
    if table is None:
        return "recorded outputs"
    from potstill.networks import REGISTRY

    defaults = {key: storage.plain(default) for key, (_, default) in REGISTRY.parameters(table["name"]).items()}
    first = next(iter(defaults), None)
    told = _call({k: v for k, v in table.items() if k == first or k not in defaults or v != defaults[k]})
    return f"{told} on {sees}" if sees else told


def objective(tables: Sequence[Mapping[str, Any]] | None) -> str:
    """One objective, or a sum of several. Words, switches and weights that are left at their defaults are not told.

    >>> objective([{"name": "hinton", "temperature": 2.0, "alpha": 0.1}])
    'hinton(temperature=2.0, alpha=0.1)'
    >>> objective([{"name": "generalised", "lam": 1.0, "student_temperature": "1", "t2_scale": False}])
    'generalised(lam=1.0)'
    """
    if not tables:
        return "none"
    return " + ".join(_call(_telling(table)) for table in tables)


def _telling(table: Mapping[str, Any]) -> dict[str, Any]:
    from potstill.objectives import REGISTRY

    usual = {key: default for key, (_, default) in REGISTRY.parameters(str(table["name"])).items()}
    return {
        key: value
        for key, value in table.items()
        if value != usual.get(key) or not (isinstance(value, str | bool) or key.endswith("weight"))
    }


ANSWERED: Final = "rows that the teacher answers for"
INFERRED: Final = ", inferred by "  # between an objective and an inference


def known(found: float | str) -> str:
    """For which rows a teacher's answer is known: a fraction, or a file of their numbers.

    >>> known(0.3), known("rows.npy")
    ('30 %', 'those in rows.npy')
    """
    return f"those in {found}" if isinstance(found, str) else f"{100 * found:.4g} %"


def learns(settings: Mapping[str, Any]) -> str:
    """What a model learns from: its objective, and for which rows its teacher answers where that is not all.

    >>> learns({"objective": [{"name": "soft_labels"}], "known": 0.3})
    'soft_labels, rows that the teacher answers for: 30 %'
    """
    training = settings.get("training") or {}
    if settings.get("weights") == TRUTH and 0 in (training.get("epochs"), training.get("steps")):
        return "the law by which the data were drawn"
    some = settings.get("known")
    rows = "the labelled ones" if some == "labelled" else None if some is None else known(some)
    inferred = f"{INFERRED}{_inference(settings['inference'])}" if settings.get("inference") else ""
    return objective(settings["objective"]) + (f", {ANSWERED}: {rows}" if rows else "") + inferred


def _inference(table: Mapping[str, Any]) -> str:
    """An inference as text, without what is left at its defaults.

    >>> _inference({"name": "variational", "beta": 0.5, "samples": 32, "prior": {"scale": 1.0}})
    'variational(beta=0.5)'
    """
    from potstill.study.names import full_inference

    usual = full_inference({"name": table["name"]})
    told = {key: value for key, value in table.items() if key == "name" or value != usual.get(key)}
    before = usual.get("prior") or {}
    prior = {key: value for key, value in (told.pop("prior", None) or {}).items() if value != before.get(key)}
    return _call(told | ({"prior": ", ".join(f"{key} {value}" for key, value in prior.items())} if prior else {}))


def _call(table: Mapping[str, Any], *, drop_zeros: bool = False) -> str:
    rest = {
        key: value for key, value in table.items() if key != "name" and not (drop_zeros and value in (0, 0.0, None))
    }
    name = str(table["name"])
    first = next(iter(rest), None)
    if first is not None and isinstance(rest[first], (list, tuple)):
        name += ":" + "-".join(map(str, rest.pop(first)))
    return name + (f"({', '.join(f'{key}={value}' for key, value in rest.items())})" if rest else "")


def settings(found: Mapping[str, Any]) -> str:
    """The settings of a trial.

    >>> settings({"objective.temperature": 4, "objective.alpha": 0.1})
    'objective.temperature = 4, objective.alpha = 0.1'
    """
    return ", ".join(
        f"{key} = {value if isinstance(value, str) else value_text(value)}" for key, value in found.items()
    )


def listed(found: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["train", "validation", "test"])
    'train, validation and test'
    """
    return " and ".join(filter(None, (", ".join(found[:-1]), *found[-1:])))


def winner(trial: Trial, metric: str) -> str:
    """`trial 7 won with objective.alpha = 0.1 (validation error_rate 0.0213, sd 0.0004)`."""
    spread = "" if trial.std is None else f", sd {trial.std:.2g}"
    return f"trial {trial.number} won with {settings(trial.settings)} (validation {metric} {trial.mean:.4g}{spread})"


def tuned(model: str, other: str, tuning: Tuning | None, *, above: Collection[str] = ()) -> str | None:
    """How two compared models were tuned, and tuned teachers `above` them, for the sentence; None where none was."""
    if tuning is None:
        return None
    counts = {name: len(tuning.models[name].trials) for name in (model, other) if name in tuning.models}
    seeds = f"on {_many(len(tuning.seeds), 'other seed')}, judged on validation data"
    if len(set(counts.values())) == 1 and len(counts) == 2:
        parts = [f"Both were tuned with {_many(counts[model], 'trial')} each {seeds}"]
    else:
        parts = [f"{name} was tuned with {_many(count, 'trial')} {seeds}" for name, count in counts.items()]
        parts += [f"{name} was not tuned" for name in (model, other) if counts and name not in counts]
    taught = [name for name in tuning.models if name in above and name not in counts]
    parts += [f"the teacher {name} was tuned with {_many(len(tuning.models[name].trials), 'trial')}" for name in taught]
    return "; ".join(parts) if counts or taught else None


def differences(found: Sequence[str], model: str, other: str, *, tuning: Tuning | None) -> list[str]:
    """Settings in which two models differ; those that a search picked say so.

    >>> differences(["members (1 against 2)"], "a", "b", tuning=None)
    ['members (1 against 2)']
    """
    if tuning is None:
        return list(found)
    keys = {name: list(tuning.models[name].search) for name in (model, other) if name in tuning.models}
    said = []
    for phrase in found:
        by = [name for name, searched in keys.items() if any(_is(phrase.partition(" (")[0], key) for key in searched)]
        whom = "" if len(by) == 2 else f" for {by[0]}" if by else None
        said.append(phrase if whom is None else f"{phrase.removesuffix(')')}; tuned{whom})")
    return said


_CALLED = {"known": ("training rows", ANSWERED), "weights": ("starting weights",)}


def _is(said: str, key: str) -> bool:
    """Whether a setting that differs, as it is called there, is a searched key, or part of it."""
    if key in _CALLED:
        return said in _CALLED[key]
    if said == "training budget":
        return key in ("training.epochs", "training.steps")
    return said == key or said.startswith(f"{key}.") or key.startswith(f"{said}.")


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cost(key: str, other: str, models: Mapping[str, ModelResult]) -> str | None:
    """What the compared model costs, beside the other: size where it differs, and the training its teachers took."""
    ours, theirs = models[key].cost, models[other].cost
    if ours is None or theirs is None:
        return None
    parts = [_size(ours, theirs)]
    above, beside = _ancestors(key, models) - {key}, _ancestors(other, models)
    for shared, often in ((False, "per seed"), (True, "once for all seeds")):
        extra = _seconds({name for name in above - beside if models[name].shared is shared}, models)
        if extra >= 0.05:
            parts.append(f"its teacher adds {_duration(extra)} of training and recording {often}")
    return "; ".join(parts)


def _size(ours: Cost, theirs: Cost) -> str:
    if ours.parameters == theirs.parameters:
        return f"both have {ours.parameters:,} parameters"
    small, big = sorted((ours.parameters, theirs.parameters))
    text = f"{ours.parameters:,} parameters against {theirs.parameters:,} ({big / small:.3g} times)"
    pair = {(row.batch, row.threads): row.median_ms for row in theirs.latency}
    for row in ours.latency:
        if (row.batch, row.threads) in pair:
            return (
                f"{text}, {row.median_ms:.3g} ms against {pair[(row.batch, row.threads)]:.3g} ms at batch {row.batch}"
            )
    return text


def _ancestors(key: str, models: Mapping[str, ModelResult]) -> set[str]:
    found = {key}
    for teacher in models[key].teachers:
        found |= _ancestors(teacher, models) if teacher in models else set()
    return found


def _seconds(keys: set[str], models: Mapping[str, ModelResult]) -> float:
    costs = [models[key].cost for key in keys]
    return sum((c.train_seconds or 0.0) + (c.record_seconds or 0.0) for c in costs if c is not None)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
