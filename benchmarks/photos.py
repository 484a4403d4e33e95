"""`scripts/bench photos`: an epoch of distilling a ResNet-18 from a ResNet-50 at 64 px; and decoding photos.

Two students at a time, on two cores. The plain loop asks the live teacher; then recording, bf16, channels_last, the
input pipeline and `ps.fit` are switched on one after another. Contestants take turns, and every ratio is of one turn.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import photos_decode
import photos_loops
import torch
from study import LOOPS, START_SECONDS, TWO, call, fastest, spread

import potstill as ps

PARTS = ("epoch", "decode")
CLOCKS = ("seconds", "cpu")
SEEDS, WANTED, SIDE = [0, 1], 1.5, 64
TRIED = {"steps": 4}
PLAIN = {"kind": "loop", "recorded": False, "bf16": False, "channels_last": False, "batched": False}
STEPS: dict[str, dict[str, Any]] = {  # each has all that the ones before it have
    "plain": PLAIN,
    "+ recording": {"recorded": True},
    "+ bf16": {"bf16": True},
    "+ channels_last": {"channels_last": True},
    "+ input pipeline": {"batched": True},
    "potstill": {"kind": "fit"},
}
PEER = {**PLAIN, "bf16": True, "channels_last": True}
REST = "ps.fit"  # the last step's part: order, closed-form loss, fused Adam, less what else it does

RULES = """Equal for all: pictures, flips and shifts, networks, batches, Adam's learning rate, the teacher's answers.
NOT equal: the plain loop computes in float32 in torch's default layout, potstill in bf16 and channels_last (weights and
Adam stay float32); the peer is the plain loop in bf16 and channels_last, its live teacher too. Loops have torch's Adam
as it comes, ps.fit its fused one. Not counted for anybody: starting processes, imports, opening pictures and teacher,
one step to warm up. Recording, in float32, is not in potstill's epoch; when it has paid is told below."""


def write_pictures(data: str | None, count: int, path: Path) -> None:
    """Decoded pictures for all contestants: some training photos of cats-dogs-64, or noise."""
    if not data:
        generator = np.random.default_rng(0)
        pictures = generator.integers(0, 256, (count, 3, SIDE, SIDE), np.uint8)
        labels = np.arange(count) % 2
    else:
        source = ps.data.open(photos_decode.NAME, folder=data, validation=0, task="binary", splits=()).train
        rows = torch.arange(count) * len(source) // count
        pictures = source.raw[source.rows[rows]].numpy()
        labels = source.labels[rows].numpy()
    np.savez(path, inputs=pictures, labels=labels)


def prepare(data: str | None, count: int, folder: Path) -> dict[str, Any]:
    """The pictures, and a ResNet-50 that has taken a few steps; what every task begins with."""
    path = folder / "pictures.npz"
    write_pictures(data, count, path)
    few = {"steps": 4, "batch_size": 16, "select": "last"}
    ps.fit(photos_loops.TEACHER, photos_loops.open_data(str(path)), **few).save(folder / "teacher")
    return {"pictures": str(path), "teacher": str(folder / "teacher"), "seeds": SEEDS, "outputs": ""}


def tasks(base: Mapping[str, Any], plain: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every contestant's task; `plain` and `peer` say in how many processes and threads the loops run."""
    found: dict[str, dict[str, Any]] = {"record": {**base, **TWO, "kind": "record"}}
    switched: dict[str, Any] = {}
    for name, change in STEPS.items():
        switched |= change
        found[name] = {**base, **(TWO if switched["kind"] == "fit" else plain), **switched}
    found["peer"] = {**base, **peer, **PEER}
    return found


def choose(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Try every number of processes, threads and workers for a few steps; the setting that took least."""

    def seconds(setting: str, best: float) -> float:
        limit = None if best == math.inf else 2 * best + START_SECONDS
        return float(call("photos_loops.py", {**task, **LOOPS[setting], "budget": TRIED}, limit)["seconds"])

    return LOOPS[fastest(name, LOOPS, seconds)]


Turn = Mapping[str, Mapping[str, Any]]


def over(turns: Sequence[Turn], above: str, below: str, key: str = "seconds") -> list[float]:
    """The ratio of two contestants' times, turn by turn."""
    return [turn[above][key] / turn[below][key] for turn in turns]


def bounds(turns: Sequence[Turn], name: str = "plain", key: str = "seconds") -> list[float]:
    """1 + t/s of every turn: the teacher's forward passes over the student's steps, in one loop."""
    parts = [turn[name]["parts"][key] for turn in turns]
    return [1 + each["teacher"] / each["student"] for each in parts]


def shares(turns: Sequence[Turn], key: str = "seconds") -> list[float]:
    """The plain loop over potstill, over the bound, turn by turn."""
    pairs = zip(over(turns, "plain", "potstill", key), bounds(turns, "plain", key), strict=True)
    return [ratio / bound for ratio, bound in pairs]


def paid(record: float, other: float, ours: float) -> float:
    """Epochs after which recording and our epochs take no longer than the other's; infinite if ours are no faster."""
    return math.ceil(record / (other - ours)) if other > ours else math.inf


def judged(values: Sequence[float], wanted: float) -> str:
    """Median, range, and whether the median is what was wanted."""
    word = "reached" if statistics.median(values) >= wanted else "NOT reached"
    return f"{spread(values)}, wanted >= {wanted}: {word}"


def report(turns: Sequence[Turn], pictures: int) -> None:
    """Seconds, each ingredient's part, the bound, and when recording has paid."""
    print(f"\nfor {len(SEEDS)} students, one epoch of {pictures:,} pictures each; median over turns (range)")
    _line("", "seconds", "processor time")
    for name in turns[0]:
        _line(name, *(spread(turn[name][key] for turn in turns) for key in CLOCKS))
    print("\nhow many times faster each makes it, after those above it; turn by turn")
    for before, after in itertools.pairwise(STEPS):
        label = REST if after == "potstill" else after.removeprefix("+ ")
        _line(label, *(spread(over(turns, before, after, key)) for key in CLOCKS))
    print()
    _line("cost ratio t/s", *(spread(bound - 1 for bound in bounds(turns, "plain", key)) for key in CLOCKS))
    _line("bound, 1 + t/s", *(spread(bounds(turns, "plain", key)) for key in CLOCKS))
    _line("plain / potstill", *(spread(over(turns, "plain", "potstill", key)) for key in CLOCKS))
    _line("... over the bound", *(spread(shares(turns, key)) for key in CLOCKS))
    _line("peer's 1 + t/s", *(spread(bounds(turns, "peer", key)) for key in CLOCKS))
    _line("peer / potstill", *(spread(over(turns, "peer", "potstill", key)) for key in CLOCKS))
    print()
    for clock, key in (("", "seconds"), (", in processor time", "cpu")):
        print(f"plain / potstill over the bound from recording alone{clock}: {judged(shares(turns, key), WANTED)}")
    print("\nepochs after which a recording of one view has paid (V views: V times as many; for k students: a k-th)")
    for name in ("plain", "peer"):
        _line(f"against {name}", *(_epochs([_paid(turn, name, key) for turn in turns]) for key in CLOCKS))


def _paid(turn: Turn, name: str, key: str) -> float:
    return paid(*(turn[who][key] for who in ("record", name, "potstill")))


def _line(name: str, seconds: str, cpu: str) -> None:
    print(f"  {name:<18}{seconds:>26}{cpu:>26}")


def _epochs(numbers: Sequence[float]) -> str:
    """Median and range of whole numbers, some of which may be infinite."""
    median, *ends = (
        "never" if number == math.inf else f"{number:.0f}"
        for number in (statistics.median_high(numbers), min(numbers), max(numbers))
    )
    return median if len(numbers) == 1 else f"{median} ({ends[0]} to {ends[1]})"


def epoch(asked: argparse.Namespace, scratch: Path) -> None:
    """Tryouts, turns, report."""
    count = max(asked.pictures // photos_loops.BATCH, 1) * photos_loops.BATCH
    kind = "noise" if not asked.data else photos_decode.NAME
    print(f"epoch: {count:,} pictures ({kind}), batches of {photos_loops.BATCH}, {asked.turns} turns\n{RULES}")
    base = prepare(asked.data, count, scratch)
    print(f"\nsettings of the loops, tried for {TRIED['steps']} steps")
    plain, peer = (choose(name, {**base, **task}) for name, task in (("plain", PLAIN), ("peer", PEER)))
    turns: list[dict[str, dict[str, Any]]] = []
    for number in range(asked.turns):
        folder = scratch / f"turn-{number}"
        folder.mkdir()
        turns.append({})
        for name, task in tasks({**base, "outputs": str(folder / "outputs")}, plain, peer).items():
            turns[-1][name] = call("photos_loops.py", task)
            print(f"  turn {number + 1}, {name}: {turns[-1][name]['seconds']:.1f} s", flush=True)
    report(turns, count)


def report_decoding(turns: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Seconds with one process and with two, and of the second opening."""
    for processes, found in turns.items():
        each = statistics.median(turn["seconds"] for turn in found) / found[0]["files"] * 1e3
        seconds, again = ([turn[key] for turn in found] for key in ("seconds", "again"))
        print(
            f"  {processes} process{'' if processes == 1 else 'es'}: {spread(seconds)} s, {each:.2f} ms per file; "
            f"opened again: {spread(again)} s"
        )
    ratios = [two["seconds"] / one["seconds"] for one, two in zip(turns[1], turns[2], strict=True)]
    print(f"  time of two processes / one: {spread(ratios)}")


def decode(asked: argparse.Namespace, scratch: Path) -> None:
    """One process against two, each into a fresh cache, in turns."""
    if not asked.data:
        root, kind = photos_decode.write_files(scratch / "files", asked.files or 2000), "generated, 500 x 375"
    else:
        root, kind = photos_decode.find_files(asked.data), photos_decode.NAME
    task = {"root": str(root), "files": asked.files or 20_000}
    turns: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(asked.turns):
        for processes, found in turns.items():
            found.append(call("photos_decode.py", {**task, "processes": processes}))
    print(f"\ndecode: {turns[1][0]['files']:,} files ({kind}) to {SIDE} px, {turns[1][0]['bytes'] / 1e6:.0f} MB")
    report_decoding(turns)


def main() -> int:
    """Both parts, or one."""
    parser = argparse.ArgumentParser(prog="scripts/bench photos", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1024, help="of an epoch, in whole batches")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--files", type=int, help="to decode: 20,000, or 2,000 generated ones")
    parser.add_argument("--data", default=os.environ.get("POTSTILL_DATA"), help="the folder that holds cats-dogs-64/")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `call` then ends what it started
    torch.set_num_threads(1)
    print(f"photos: torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        for part, bench in (("epoch", epoch), ("decode", decode)):
            if part in asked.only:
                bench(asked, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
