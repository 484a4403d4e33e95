"""Latency with a clock that the tests turn: what is counted, in which order; processes; the page's table by hand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_samples import SAMPLES
from study_samples import BASE, changed, run
from torch import Tensor, nn

from potstill import storage
from potstill.engine import products
from potstill.errors import Interrupted
from potstill.evaluation import call_times
from potstill.networks.model import Model
from potstill.report import page, speed
from potstill.report.names import Cast
from potstill.report.tables import Table
from potstill.study import latency
from potstill.study.results import Latency, Results
from potstill.study.study import Study
from potstill.types import DataSpec


class Clock:
    """Stands still until somebody works."""

    def __init__(self) -> None:
        self.now = 64.0

    def __call__(self) -> float:
        return self.now


class Works(nn.Module):
    """Takes the next of its seconds with every call, the last for ever; notes who was called with how many rows."""

    def __init__(self, clock: Clock, seconds: list[float], name: str = "", log: list[tuple[str, int]] | None = None):
        super().__init__()
        self.clock, self.seconds, self.name = clock, list(seconds), name
        self.log = [] if log is None else log

    def forward(self, inputs: Tensor) -> Tensor:
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.log.append((self.name, len(inputs)))
        return inputs


def model(network: nn.Module) -> Model:
    return Model(network, DataSpec((3,), ("a", "b", "c")))


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        # five calls do not count, then three at least
        ([2**-10] * 5 + [0.5, 0.25, 0.125, 9.0], [500, 250, 125]),
        # the first call takes longer than the warm-up may: only that one does not count
        ([2**-5, 0.5, 0.25, 0.125, 9.0], [500, 250, 125]),
        # fast calls are repeated until the time is over
        ([2**-10] * 5 + [2**-6] * 4 + [9.0], [15.625] * 4),
    ],
)
def test_what_is_counted(seconds: list[float], wanted: list[float]) -> None:
    clock = Clock()
    network = Works(clock, seconds)
    found = call_times([model(network)], 7, seconds=2**-4, clock=clock)
    assert found == pytest.approx(wanted)
    assert {rows for _, rows in network.log} == {7}


def test_a_call_of_an_ensemble_is_a_call_of_all_members() -> None:
    clock = Clock()
    members = [model(Works(clock, [0.1])), model(Works(clock, [0.2]))]
    assert call_times(members, 1, clock=clock) == pytest.approx([300, 300, 300])


def test_it_is_plain_torchs_precision_and_evaluation_mode() -> None:
    seen, before = set(), torch.get_float32_matmul_precision()

    class Watched(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.add((torch.get_float32_matmul_precision(), self.training, inputs.requires_grad))
            return inputs

    with products("medium"):
        assert all(ms > 0 for ms in call_times([model(Watched())], 2, seconds=0.0))
    assert seen == {("highest", False, False)}
    assert torch.get_float32_matmul_precision() == before


def turn(clock: Clock, log: list[tuple[str, int]], **seconds: float) -> dict[str, list[Model]]:
    return {name: [model(Works(clock, [each], name, log))] for name, each in seconds.items()}


def test_models_take_turns_forth_and_back() -> None:
    clock, log = Clock(), list[tuple[str, int]]()
    found = latency.in_turns(turn(clock, log, teacher=0.4, student=0.1), [1, 32], clock=clock)
    order = [log[0], *(after for before, after in pairwise(log) if after != before)]
    forth = [("teacher", 1), ("teacher", 32), ("student", 1), ("student", 32)]
    # the last of a turn is the first of the next
    wanted = [forth[0]]
    for at in range(latency.TURNS):
        wanted += (forth if at % 2 == 0 else forth[::-1])[1:]
    assert order == wanted
    assert found is not None
    assert set(found) == set(forth)
    for (name, _), turns in found.items():
        assert len(turns) == latency.TURNS
        np.testing.assert_allclose(turns, np.full((latency.TURNS, 3), 400.0 if name == "teacher" else 100.0))


def test_it_stops_between_models() -> None:
    clock, log = Clock(), list[tuple[str, int]]()
    answers: Iterator[bool] = iter([False, False, True])
    models = turn(clock, log, teacher=0.4, student=0.1)
    assert latency.in_turns(models, [1], clock=clock, stopping=lambda: next(answers)) is None
    assert [name for name, _ in log] == ["teacher"] * 4 + ["student"] * 4


def test_a_summary_by_hand() -> None:
    turns = [[1.0, 9.0, 2.0], [4.0, 4.0, 40.0, 5.0], [3.0, 3.0, 3.0]]
    every = np.array([1, 9, 2, 4, 4, 40, 5, 3, 3, 3], np.float64)
    assert latency.summary(turns) == {
        "median_ms": 3.5,
        "p90_ms": pytest.approx(float(np.percentile(every, 90))),
        "mean_ms": pytest.approx(7.4),
        "turns_ms": [2.0, 4.5, 3.0],
    }


# ---------------------------------------------------------------- processes


def test_the_process_has_so_many_threads() -> None:
    asked = "(__import__('torch').get_num_threads(), *map(__import__('os').getenv, NAMES), __import__('os').getpid())"
    told = latency.alone(2, eval, asked.replace("NAMES", "['OMP_NUM_THREADS', 'MKL_NUM_THREADS']"))
    assert told[:3] == (2, "2", "2")
    assert told[3] != os.getpid()


ASKED = changed(
    BASE, seeds=2, models__teacher__members=2, training__steps=4, evaluation__latency={"batch": [1, 5], "threads": [1]}
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("latency") / "run"
    return folder, run(ASKED, folder)


def test_a_study_times_every_model(done: tuple[Path, Results]) -> None:
    for name, one in done[1].models.items():
        assert one.cost is not None
        assert [(row.batch, row.threads) for row in one.cost.latency] == [(1, 1), (5, 1)], name
        for row in one.cost.latency:
            assert len(row.turns_ms) == latency.TURNS
            assert row.mean_ms is not None
            assert 0 < min(row.turns_ms) <= row.median_ms <= max(row.turns_ms)
            assert row.median_ms <= row.p90_ms
        assert one.cost.machine is not None
        assert one.cost.machine.endswith(f", torch {torch.__version__}")


def heard(plan: dict[str, Any], folder: Path, alone: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(latency, "alone", alone)
    return run(plan, folder)


def test_what_is_there_is_not_timed_again_and_all_are_timed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, set[str]]] = []

    def alone(threads: int, function: Any, place: Any, models: Any, batches: Any) -> Any:
        asked.append((threads, set(models)))
        return {(key, batch): [[1.0]] * latency.TURNS for key in models for batch in batches}

    plan = changed(ASKED, evaluation__latency__threads=[1, 2])
    heard(plan, tmp_path, alone, monkeypatch)
    everybody = {"teacher", "alone", "taught"}
    assert asked == [(1, everybody), (2, everybody)]
    heard(changed(plan, seeds=3), tmp_path, alone, monkeypatch)
    assert len(asked) == 2
    results = heard(changed(plan, models__more={"network": "mlp:3"}), tmp_path, alone, monkeypatch)
    assert asked[2:] == [(1, everybody | {"more"}), (2, everybody | {"more"})]
    cost = results.models["more"].cost
    assert cost is not None
    assert [(row.threads, row.batch) for row in cost.latency] == [(1, 1), (1, 5), (2, 1), (2, 5)]
    # as an older version left it
    path = tmp_path / "models" / "alone" / "cost.json"
    storage.write_json(path, {key: value for key, value in storage.read_json(path).items() if key != "turns"})
    heard(changed(plan, models__more={"network": "mlp:3"}), tmp_path, alone, monkeypatch)
    assert len(asked) == 6


def test_a_study_that_is_stopped_meanwhile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "alone", lambda *arguments: None)
    with pytest.raises(Interrupted):
        Study.open(ASKED, folder=tmp_path).run(workers=1)
    assert not list(tmp_path.rglob("cost.json"))


def test_models_take_turns_as_long_as_they_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"a": 40, "b": 50, "c": 20, "d": 500, "e": 1}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(size))
    monkeypatch.setattr(latency, "_TOGETHER", 100)
    assert list(latency._groups(tmp_path, {name: [name] for name in sizes})) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(latency._groups(tmp_path, {"both": ["a", "b"], "c": ["c"], "e": ["e"]})) == [["both"], ["c", "e"]]


# ---------------------------------------------------------------- the page

TEACHER = Latency(batch=32, threads=2, median_ms=960.0, p90_ms=1000, mean_ms=1280.0, turns_ms=[800.0, 960.0, 1600.0])
STUDENT = Latency(batch=32, threads=2, median_ms=192.0, p90_ms=200, mean_ms=224.0, turns_ms=[200.0, 192.0, 160.0])


def with_times(teacher: Latency, student: Latency, published: dict[str, float] | None = None) -> Results:
    results = SAMPLES["evaluated"]()[0]
    models = dict(results.models)
    for key, one in models.items():
        assert one.cost is not None
        row = teacher if not one.teachers else student
        models[key] = one.model_copy(
            update={"cost": one.cost.model_copy(update={"latency": [row], "machine": "A machine, 2 cores"})}
        )
    told = {"source": "A paper", "metrics": {"seconds_per_example": published or {}}}
    return Results.model_validate({**results.model_copy(update={"models": models}).model_dump(), "published": [told]})


def rows(table: Table) -> dict[str, list[tuple[str, ...]]]:
    return {
        " ".join((row[0].text, *row[0].notes)): [(cell.text, *cell.notes) for cell in row[1:]] for row in table.rows
    }


def test_the_papers_table_by_hand() -> None:
    results = with_times(TEACHER, STUDENT)
    student = next(key for key, one in results.models.items() if one.teachers and one.generation == 1)
    teacher = results.models[student].teachers[0]
    results = with_times(TEACHER, STUDENT, {results.models[student].model: 0.07168, teacher: 0.35452})
    cast = Cast(results)
    table = speed.table(cast)
    assert table is not None
    assert "A machine, 2 cores" in table.caption
    n = results.models[student].splits["test"].examples
    assert f"Total for {n} test examples" in table.columns
    told = dict(zip(table.columns[1:], rows(table)[teacher], strict=True))
    assert told["Time per example"] == ("30.0 ms", "25.0 ms to 50.0 ms", "disturbed")
    assert told["Examples per second"] == ("33.3",)
    assert told["Mean, s per example"] == ("0.04",)
    assert told["Times as fast as its teacher"] == ("–",)
    assert told["Published"] == ("0.3545 s",)
    last = max(
        (key for key, one in results.models.items() if one.model == results.models[student].model),
        key=lambda key: results.models[key].generation,
    )
    told = dict(zip(table.columns[1:], next(v for k, v in rows(table).items() if k == _head(cast, last)), strict=True))
    assert told["Time per example"] == ("6.00 ms", "5.00 ms to 6.25 ms")
    assert told["Examples per second"] == ("167",)
    assert told["Mean, s per example"] == ("0.007",)
    assert told[f"Total for {n} test examples"][0] == _seconds(0.007 * n)
    assert told["Times as fast as its teacher"] == ("5.00", "4.00 to 10.0")
    assert told["Published"] == ("0.07168 s", "4.95 times as fast")
    text = " ".join(page.render(results, None).split())
    assert "Models are asked in turns, 3 times" in text
    assert "seconds per example of" not in text  # nothing is left that stands beside no number


def _head(cast: Cast, key: str) -> str:
    return f"{cast.name(key)} {cast.qualifier(key)}".strip()


def _seconds(value: float) -> str:
    from potstill.report.format import seconds

    return seconds(value)


def test_times_of_before_are_no_turns() -> None:
    old = Latency(batch=1, threads=1, median_ms=1.0, p90_ms=2.0)
    results = with_times(old, old)
    assert speed.table(Cast(results)) is None
    assert not re.search("asked in turns", page.render(results, None))


def test_turns_of_other_runs_give_no_ratio() -> None:
    table = speed.table(Cast(with_times(TEACHER.model_copy(update={"turns_ms": [1.0]}), STUDENT)))
    assert table is not None
    assert {row[table.columns.index("Times as fast as its teacher")].text for row in table.rows} == {"–"}


def test_a_long_table_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MOST_ROWS", 1)
    assert speed.table(Cast(with_times(TEACHER, STUDENT))) is None
