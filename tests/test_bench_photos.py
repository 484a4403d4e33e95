"""benchmarks/photos*.py: its arithmetic with made-up seconds; its contestants, with narrow networks."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of benchmarks/, as its scripts do."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def _turn(teacher: float, student: float, **seconds: float) -> dict[str, Any]:
    """A turn whose processor times are twice its seconds; the teacher's and student's part of both loops are given."""
    parts = {"seconds": {"teacher": teacher, "student": student}, "cpu": {"teacher": 3 * teacher, "student": student}}
    return {name: {"seconds": value, "cpu": 2 * value, "parts": parts} for name, value in seconds.items()}


STEPS = ("plain", "+ recording", "+ bf16", "+ channels_last", "+ input pipeline", "potstill")


def _turns() -> list[dict[str, Any]]:
    first = dict(zip(STEPS, (36.0, 20.0, 16.0, 10.0, 9.0, 10.0), strict=True))
    second = dict(zip(STEPS, (60.0, 30.0, 20.0, 20.0, 16.0, 10.0), strict=True))
    return [_turn(4, 5, record=13.0, peer=15.0, **first), _turn(4, 4, record=13.0, peer=10.0, **second)]


def test_each_ratio_is_of_one_turn_and_held_against_the_bound(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench("photos").report(_turns(), 640)
    lines = capsys.readouterr().out.strip().splitlines()
    found = {line[2:20].strip(): line[20:46].strip() for line in lines if line.startswith("  ") and ":" not in line}
    assert found["plain"] == "48.00 (36.00 to 60.00)"
    parts = {name: found[name] for name in ("recording", "bf16", "channels_last", "input pipeline", "ps.fit")}
    assert parts == {
        "recording": "1.90 (1.80 to 2.00)",
        "bf16": "1.38 (1.25 to 1.50)",
        "channels_last": "1.30 (1.00 to 1.60)",
        "input pipeline": "1.18 (1.11 to 1.25)",
        "ps.fit": "1.25 (0.90 to 1.60)",
    }
    assert found["cost ratio t/s"] == "0.90 (0.80 to 1.00)"
    assert found["bound, 1 + t/s"] == "1.90 (1.80 to 2.00)"
    assert found["plain / potstill"] == "4.80 (3.60 to 6.00)"
    assert found["... over the bound"] == "2.50 (2.00 to 3.00)"  # 3.6 / 1.8 and 6 / 2
    assert found["peer / potstill"] == "1.25 (1.00 to 1.50)"
    assert lines[-6:-4] == [
        "plain / potstill over the bound from recording alone: 2.50 (2.00 to 3.00), wanted >= 1.5: reached",
        "plain / potstill over the bound from recording alone, in processor time: 1.28 (1.06 to 1.50), "
        "wanted >= 1.5: NOT reached",  # its own bounds: 1 + 12/5 and 1 + 12/4
    ]
    assert found["against plain"] == "1 (1 to 1)"  # 13 / 26, 13 / 50
    assert found["against peer"] == "never (3 to never)"  # 13 / 5; as fast as potstill


@pytest.mark.parametrize(
    ("values", "wanted", "text"),
    [
        ([1.5], 1.5, "1.50, wanted >= 1.5: reached"),
        ([1.496], 1.5, "1.50, wanted >= 1.5: NOT reached"),
        ([1.0, 1.4, 9.0], 1.5, "1.40 (1.00 to 9.00), wanted >= 1.5: NOT reached"),
    ],
)
def test_the_median_is_judged(bench: Any, values: list[float], wanted: float, text: str) -> None:
    assert bench("photos").judged(values, wanted) == text


@pytest.mark.parametrize(
    ("record", "other", "ours", "epochs"),
    [
        (10.0, 7.0, 2.0, 2),
        (10.1, 7.0, 2.0, 3),
        (0.1, 7.0, 2.0, 1),
        (10.0, 2.0, 2.0, math.inf),
        (1.0, 2.0, 3.0, math.inf),
    ],
)
def test_recording_has_paid_when_both_took_as_long(
    bench: Any, record: float, other: float, ours: float, epochs: float
) -> None:
    assert bench("photos").paid(record, other, ours) == epochs
    if epochs < math.inf:
        took = [record + n * ours <= n * other for n in (epochs - 1, epochs)]
        assert took == [False, True]


def test_ingredients_are_switched_on_one_after_another(bench: Any) -> None:
    found = bench("photos").tasks({"pictures": "p"}, {"processes": 1, "threads": 2}, {"processes": 2, "threads": 1})
    switches = ("recorded", "bf16", "channels_last", "batched")
    on = {name: [word for word in switches if task.get(word)] for name, task in found.items() if task["kind"] == "loop"}
    assert on == {
        "plain": [],
        "+ recording": ["recorded"],
        "+ bf16": ["recorded", "bf16"],
        "+ channels_last": ["recorded", "bf16", "channels_last"],
        "+ input pipeline": list(switches),
        "peer": ["bf16", "channels_last"],
    }
    assert next(iter(found)) == "record"  # its answers are what the others learn from
    cores = {name: (task["processes"], task["threads"]) for name, task in found.items()}
    assert cores == {**dict.fromkeys(on, (1, 2)), **dict.fromkeys(("record", "potstill", "peer"), (2, 1))}


def test_the_fastest_setting_is_used(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, limits = bench("photos"), []
    tried = iter([9.0, None, 4.0])

    def call(script: str, task: dict[str, Any], limit: float | None) -> dict[str, Any]:
        assert task["budget"] == photos.TRIED
        limits.append(limit)
        seconds = next(tried)
        if seconds is None:
            raise bench("study").Failed("stopped")
        return {"seconds": seconds}

    monkeypatch.setattr(photos, "call", call)
    assert photos.choose("plain", {}) == list(photos.LOOPS.values())[2]
    assert limits == [None, 18.0 + photos.START_SECONDS, 18.0 + photos.START_SECONDS]


def test_decoding_is_compared_turn_by_turn(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    one = [{"seconds": seconds, "again": 0.5, "files": 1000} for seconds in (4.0, 8.0, 6.0)]
    two = [{"seconds": seconds, "again": 0.25, "files": 1000} for seconds in (4.0, 4.0, 4.5)]
    bench("photos").report_decoding({1: one, 2: two})
    assert capsys.readouterr().out.splitlines() == [
        "  1 process: 6.00 (4.00 to 8.00) s, 6.00 ms per file; opened again: 0.50 (0.50 to 0.50) s",
        "  2 processes: 4.00 (4.00 to 4.50) s, 4.00 ms per file; opened again: 0.25 (0.25 to 0.25) s",
        "  time of two processes / one: 0.75 (0.50 to 1.00)",
    ]


def test_files_are_taken_evenly(bench: Any) -> None:
    decode = bench("photos_decode")
    assert decode.some(list("abcdefg"), 3) == ["a", "c", "e"]
    assert decode.some(list("abc"), 3) == decode.some(list("abc"), 9) == ["a", "b", "c"]


def test_generated_files_are_decoded_into_a_cache_of_their_own(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = bench("photos_decode")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))  # put back afterwards; `run` sets another
    root = decode.write_files(tmp_path / "files", 6)
    found = decode.run({"root": str(root), "files": 5, "processes": 1})
    assert (found["files"], found["bytes"]) == (5, 5 * 3 * 64 * 64)
    assert found["again"] > 0
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def small(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """The contestants' module with narrow networks, and what a task of six pictures of 32 x 40 begins with."""
    loops, photos = bench("photos_loops"), bench("photos")
    monkeypatch.setattr(loops, "BATCH", 4)
    for name in ("TEACHER", "STUDENT"):
        monkeypatch.setattr(loops, name, {**getattr(loops, name), "width": 4})

    def write(data: None, count: int, path: Path) -> None:
        pictures = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 40), np.uint8)
        np.savez(path, inputs=pictures, labels=np.arange(count) % 2)

    monkeypatch.setattr(photos, "write_pictures", write)
    base = json.loads(json.dumps(photos.prepare(None, 6, tmp_path)))
    return loops, {**base, "outputs": str(tmp_path / "outputs"), "workers": 0}


def test_the_plain_augmentation_gives_the_recorded_view(small: tuple[Any, dict[str, Any]]) -> None:
    loops, task = small
    source, rows = loops.open_data(task["pictures"]).train, torch.arange(6)
    wanted = source.fetch(rows, loops.VIEW).inputs
    numbers = loops.view_numbers(6).tolist()
    found = torch.stack([loops.augmented(source.raw[row], numbers[row]) for row in range(6)])
    torch.testing.assert_close(found, wanted)
    assert not torch.equal(found, source.fetch(rows, 0).inputs)
    assert {row[0] < 0.5 for row in numbers} == {True, False}


def test_contestants_train_on_the_same_answers(small: tuple[Any, dict[str, Any]]) -> None:
    loops, task = small
    photos = importlib.import_module("photos")
    stored = loops.Record(task).train(0)
    base = {**task, **photos.PLAIN}
    recorded = loops.Loop({**base, "recorded": True})
    teacher = loops.ps.load(task["teacher"])
    pictures = torch.stack([recorded.loader.dataset[row][0] for row in range(6)])
    torch.testing.assert_close(recorded.answers, teacher(pictures), rtol=1e-3, atol=1e-4)
    assert torch.equal(recorded.answers, stored.lookup(torch.arange(6), loops.VIEW).logits())

    plain = loops.Loop(base)
    assert plain.parts == loops._no_parts()  # the step before the clock is not counted
    plain.train(0)
    recorded.train(0)
    assert plain.parts["seconds"]["teacher"] > recorded.parts["seconds"]["teacher"] >= 0
    assert min(plain.parts["cpu"]["student"], recorded.parts["cpu"]["student"]) > 0


def test_switches_do_what_they_say(small: tuple[Any, dict[str, Any]]) -> None:
    loops, task = small
    photos = importlib.import_module("photos")
    loops.Record(task).train(0)
    batched = {**task, **photos.PLAIN, "recorded": True, "bf16": True, "channels_last": True, "batched": True}
    for flags, last in ((task | photos.PLAIN, False), (task | photos.PEER, True), (batched, True)):
        loop = loops.Loop(flags)
        student = loop.train(1)
        weights = student[0].conv.weight
        assert weights.dtype == torch.float32
        assert weights.is_contiguous(memory_format=torch.channels_last) == last
        with loop.autocast():
            assert student(torch.zeros(2, 3, 32, 40)).dtype == (torch.bfloat16 if last else torch.float32)
    engine = loops.Fit(task).train(1).info["engine"]
    assert (engine["precision"], engine["channels_last"]) == ("bf16", True)
