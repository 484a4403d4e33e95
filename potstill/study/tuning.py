"""What `[tune]` says: the settings of every trial, their seeds, and whether the compared models are tuned equally."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill import seeding, storage
from potstill.errors import NotYetError, PlanError, unknown
from potstill.study import names
from potstill.study.area import is_area
from potstill.study.draws import Range, Space, draw, rounded
from potstill.study.family import ancestors
from potstill.study.plan_text import Path, Where, parse_key, shown
from potstill.study.resolve import resolve
from potstill.study.sweep import label, repeated, swept_already
from potstill.study.tables import Tables, Tune

MOST_TRIALS = 1000
_BLOCK = 1000  # a number of seeds begins at a multiple of this, so that more report seeds change no trial
_TUNED = ("network", "objective", "training", "known", "weights", "members", "generations")


def seed_list(tune: Tune, report: Sequence[int]) -> list[int]:
    """The seeds of the trials: as listed, or N from the next thousand after the report's.

    >>> seed_list(Tune(seeds=2, search={"a": {}}), [0, 1, 2])
    [1000, 1001]
    """
    if not isinstance(tune.seeds, int):
        return list(tune.seeds)
    first = (max(report) // _BLOCK + 1) * _BLOCK
    return list(range(first, first + tune.seeds))


def check(plan: Tables, report: Sequence[int], where: Where) -> None:
    """Raises `PlanError` at the first thing of `[tune]` that cannot be done, but for the spaces themselves."""
    tune = plan.tune
    if tune is None:
        return
    if plan.sweep:
        raise where.fault(
            ("tune",), "tuning at each point of a sweep is not built yet; leave out [sweep].", error=NotYetError
        )
    if tune.method == "grid" and tune.trials is not None:
        raise where.fault(("tune", "trials"), 'is for method = "random"; a grid has one trial per combination.')
    if tune.method == "random" and tune.trials is None:
        raise where.fault(("tune", "trials"), 'is missing; method = "random" draws so many trials: trials = 20.')
    _seeds(tune, report, where)
    if plan.data.validation == 0:
        message = "the winner is the best on validation data, and data.validation is 0; set it to 0.1, say."
        raise where.fault(("tune",), message)
    for name in tune.search:
        _model(plan, name, where)


def _seeds(tune: Tune, report: Sequence[int], where: Where) -> None:
    seeds, path = seed_list(tune, report), ("tune", "seeds")
    if not seeds:
        raise where.fault(path, "found an empty list; wanted is at least one seed.")
    if len(set(seeds)) < len(seeds):
        raise where.fault(path, f"found {shown(seeds)}; wanted are different seeds.")
    both = sorted(set(seeds) & set(report))
    if both:
        raise where.fault(
            path,
            f"found {', '.join(map(str, both))}, also among the seeds of the report: settings picked on a seed look "
            "better there than they are. Wanted are other seeds, or a number of them.",
        )


def _model(plan: Tables, name: str, where: Where) -> None:
    path = ("tune", "search", name)
    if name not in plan.models:
        raise where.fault(path, unknown("model", name, plan.models))
    model = plan.models[name]
    if model.outputs is not None or resolve(plan, name).used_as_is:
        raise where.fault(path, f'"{name}" is not trained, so it cannot be tuned.')
    metric = plan.verdict.metric
    if is_area(metric):
        raise where.fault(("verdict", "metric"), "trials are picked by what a model is in the end; name a metric.")
    if names.metric_needs_teacher(metric) and not model.teacher:
        raise where.fault(path, f'the best "{metric}" wins, which compares a model with its teacher; it has none.')
    if not plan.tune or not plan.tune.search[name]:
        raise where.fault(path, 'is empty; wanted is at least one key, such as "training.optimizer.learning_rate".')


def trials(tune: Tune, model: str, where: Where) -> list[dict[str, Any]]:
    """The settings of every trial of a model: key relative to the model -> value. A grid's last key runs fastest."""
    search = tune.search[model]
    space = {}
    for key, written in search.items():
        path = ("tune", "search", model, key)
        _key(key, [other for other in search if other != key], path, where=where)
        space[key] = _space(written, tune.method, path, where=where)
    counts = [math.inf if isinstance(s, Range) and not s.whole else _count(s) for s in space.values()]
    here: Path = ("tune", "search", model)
    if tune.method == "random":
        wanted = tune.trials or 0
        if wanted > MOST_TRIALS:
            raise where.fault(("tune", "trials"), f"found {wanted}; wanted are at most {MOST_TRIALS}.")
        found = [] if math.prod(counts) < wanted else draw(space, wanted, seeding.key("tune", *search))
        if len(found) < wanted:
            some = f"{math.prod(counts):g} different trials" if math.prod(counts) < wanted else "fewer different trials"
            what = f"its values make {some}, and trials is {wanted}; wanted are more values, or fewer trials."
            raise where.fault(here, what)
        return found
    if math.prod(counts) > MOST_TRIALS:
        raise where.fault(here, f"found {math.prod(counts)} trials; wanted are at most {MOST_TRIALS}.")
    lists = [values for values in space.values() if not isinstance(values, Range)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def _count(space: Space) -> int:
    return int(space.high) - int(space.low) + 1 if isinstance(space, Range) else len(space)


def _key(key: str, others: Iterable[str], path: Path, *, where: Where) -> None:
    try:
        parts = parse_key(key)
    except PlanError as error:
        raise where.fault(path, error.bare) from None
    if parts[0] not in _TUNED:
        what = unknown("key to tune", parts[0], _TUNED)
        raise where.fault(path, f"{what} Keys are those of the model, as in [models.{path[2]}].")
    clash = swept_already(parts, dict.fromkeys(others))
    if clash is not None:
        raise where.fault(path, f'sets what "{clash}" sets too; wanted is one of them.')


def _space(written: Any, method: str, path: Path, *, where: Where) -> Space:
    """A list of values as it is; of a range its points where they are asked for."""
    if isinstance(written, tuple | list):
        if not written:
            raise where.fault(path, "found an empty list; wanted is at least one value.")
        return _different(storage.plain(written), path, where)
    points = ", points = 20" if method == "grid" else ""
    wanted = f"a list of values, {{ log = [low, high]{points} }} or {{ linear = [low, high]{points} }}"
    if not isinstance(written, Mapping) or len({"log", "linear"} & set(written)) != 1:
        raise where.wrong(path, written, wanted)
    for key in written:
        if key not in ("log", "linear", "points"):
            raise where.fault((*path, key), unknown("key of a range", key, ("log", "linear", "points")))
    scale = "log" if "log" in written else "linear"
    space = _range(scale, written[scale], (*path, scale), where=where)
    count = written.get("points")
    if method == "random":
        if count is not None:
            raise where.fault((*path, "points"), 'is for method = "grid"; random trials are drawn from the range.')
        return space
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= MOST_TRIALS:
        message = "is missing" if count is None else f"found {shown(count)}"
        raise where.fault((*path, "points"), f"{message}; wanted is a whole number of points, 2 or more.")
    return _different(_points(space, count), path, where)


def _range(scale: Any, ends: Any, path: Path, *, where: Where) -> Range:
    numbers = [x for x in ends if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)]
    if not isinstance(ends, tuple | list) or len(numbers) != len(ends) or len(ends) != 2 or not ends[0] < ends[1]:
        raise where.wrong(path, ends, "two numbers, the lower one first")
    if scale == "log" and ends[0] <= 0:
        raise where.wrong(path, ends, "two numbers above 0 on a logarithmic scale")
    return Range(scale, ends[0], ends[1])


def _points(space: Range, count: int) -> list[Any]:
    low, high = float(space.low), float(space.high)
    shares = [i / (count - 1) for i in range(count)]
    if space.scale == "log":
        middle = [math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares]
    else:
        middle = [low + share * (high - low) for share in shares]
    return [space.low, *(rounded(x, space) for x in middle[1:-1]), space.high]


def _different(values: list[Any], path: Path, where: Where) -> list[Any]:
    twice = repeated([value] for value in values)
    if twice is not None:
        hint = " Between whole numbers lie whole numbers; write 1.0 for others." if len(values) > 2 else ""
        raise where.fault(path, f"found {twice} twice.{hint}")
    return values


def blame(error: PlanError, model: str, settings: Mapping[str, Any], *, where: Where) -> PlanError:
    """An error of one trial, told at the searched key that it speaks of."""
    found = (error.key or "").removeprefix(f"models.{model}.")
    near = [key for key in settings if found.startswith(key) or key.startswith(found)]
    key = max(near, key=len) if near and found else next(iter(settings))
    told = f"in the trial {label(settings)}: {error.key + ': ' if error.key else ''}{error.bare}"
    return where.fault(("tune", "search", model, key), told, error=type(error))


def check_equal(plan: Tables, counts: Mapping[str, int], pairs: Iterable[tuple[str, str]], *, where: Where) -> None:
    """Refuses a comparison between models with different numbers of trials.

    A model and a teacher of its, or a teacher's teacher, do not compete; nothing of a model that is used as it is can
    be tuned. Such comparisons may be unequal.
    """
    for model, other in pairs:
        ours, theirs = counts.get(model, 0), counts.get(other, 0)
        above = other in ancestors(plan.models, model) or model in ancestors(plan.models, other)
        if ours == theirs or above or any(resolve(plan, name).used_as_is for name in (model, other)):
            continue
        few = model if ours < theirs else other
        raise where.fault(
            ("tune", "search", *([few] if few in counts else [])),
            f'"{model}" has {_trials(ours)} and "{other}" has {_trials(theirs)}, and the two are compared: the one '
            "with more trials would look better than its method is. Give both the same number, or name other "
            "comparisons (verdict.compare).",
        )


def _trials(count: int) -> str:
    return f"{count or 'no'} trial{'' if count == 1 else 's'}"
