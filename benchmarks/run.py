"""Speed as ratios within one run: `scripts/bench [NAME ...]`. Run it on a quiet machine.

Contestants take turns (A B A B ...), and a ratio is taken turn by turn: the median and the range are printed, so that a
drift of the speed of the machine does not count.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import potstill as ps
from potstill import bayes, engine, networks
from potstill.study.study import Study
from potstill.training.order import epoch_rows
from potstill.types import Source

ROWS, FEATURES, CLASSES, BATCH = 60_000, 784, 10, 128
EPOCHS = 3


def turns(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contestant, in turn, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(title: str, above: list[float], below: list[float], wanted: str) -> None:
    """Print the ratio turn by turn: median, and range."""
    found = sorted(a / b for a, b in zip(above, below, strict=True))
    print(f"  {title}: {statistics.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f}), wanted {wanted}")


def rate(title: str, seconds: list[float], samples: int) -> None:
    """Print thousand samples per second."""
    print(f"  {title}: {samples / statistics.median(seconds) / 1e3:.0f} thousand samples/s")


def _picture_data() -> tuple[ps.data.Data, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(ROWS, FEATURES, generator=generator)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    return ps.data.open((inputs.numpy(), labels.numpy()), validation=0, test=0), inputs, labels


def plain_loop(inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """What most people write: DataLoader over a TensorDataset, Adam as it comes, hard labels."""
    network = nn.Sequential(nn.Linear(FEATURES, 100), nn.ReLU(), nn.Linear(100, CLASSES))
    optimizer = torch.optim.Adam(network.parameters())
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=BATCH, shuffle=True)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()


def hand_loop(inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """The fastest simple loop: resident tensors, fused Adam, the same matrix precision and order as ours."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 100), nn.ReLU(), nn.Linear(100, CLASSES))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    rows = torch.arange(len(inputs))
    with engine.Engine().settings():
        for epoch in range(epochs):
            for index in epoch_rows(rows, len(inputs), 0, epoch).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs[index]), labels[index]).backward()
                optimizer.step()


def distill() -> None:
    """A student of 784-100-10 on 60,000 x 784, batch 128, one thread."""
    data, inputs, labels = _picture_data()
    teacher = ps.fit("mlp:32", data, steps=20, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        stored = ps.record(teacher, data.train, folder)
        common = {"batch_size": BATCH, "epochs": EPOCHS, "select": "last", "monitor": "train_objective"}
        hinton = ps.objectives.hinton(temperature=4.0, alpha=0.1)
        seconds = turns(
            {
                "distilled": lambda: ps.fit("mlp:100", data, hinton, teacher=stored, **common),
                "hard": lambda: ps.fit("mlp:100", data, **common),
                "hand": lambda: hand_loop(inputs, labels, EPOCHS),
                "plain": lambda: plain_loop(inputs, labels, EPOCHS),
            },
            repeats=9,
        )
    samples = EPOCHS * ROWS
    for name, title in (
        ("distilled", "distilled from recorded outputs"), ("hard", "hard labels, fit"),
        ("hand", "hard labels, loop by hand"), ("plain", "hard labels, DataLoader and default Adam"),
    ):  # fmt: skip
        rate(title, seconds[name], samples)
    ratio("throughput distilled / hard labels", seconds["hard"], seconds["distilled"], ">= 0.95")
    ratio("throughput distilled / plain loop", seconds["plain"], seconds["distilled"], ">= 1.7 (2 is hoped for)")
    ratio("time of fit / loop by hand", seconds["hard"], seconds["hand"], "<= 1.05")


def record() -> None:
    """Recording against the bare forward pass of a teacher that needs at least 1 ms per batch of 512."""
    data, inputs, _ = _picture_data()
    for spec in ("mlp:260-100", "mlp:500-300", "mlp:1200-1200"):
        teacher = ps.fit(spec, data, steps=1, batch_size=BATCH)
        _record_once(teacher, data, inputs)


def _record_once(teacher: networks.Model, data: ps.data.Data, inputs: torch.Tensor) -> None:
    def bare() -> None:
        with torch.inference_mode(), engine.Engine().settings():
            for batch in inputs.split(512):
                teacher.network(batch)

    with tempfile.TemporaryDirectory() as parent:
        folders = (Path(parent) / str(i) for i in range(1000))
        contestants = {"record": lambda: ps.record(teacher, data.train, next(folders)), "bare": bare}
        seconds = turns(contestants, repeats=9)
    each = statistics.median(seconds["bare"]) / -(-ROWS // 512) * 1e3
    ratio(
        f"time of record / bare forward pass of {each:.2f} ms per batch", seconds["record"], seconds["bare"], "<= 1.05"
    )


STUDY = {
    "title": "Bench", "seeds": 8,
    "data": {"source": "digits", "test": 600, "validation": 100},
    "training": {"steps": 9000, "batch_size": 64},
    "models": {
        "teacher": {"network": "mlp:400-400"},
        "alone": {"network": "mlp:100"},
        "student": {"network": "mlp:100", "teacher": "teacher"},
    },
}  # fmt: skip


def workers() -> None:
    """One study with one worker and with two."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for number in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                Study.open(STUDY, folder=Path(folder) / "run").run(workers=number)
                seconds[number].append(time.perf_counter() - start)
    print(f"  seconds with one worker: {seconds[1]}, with two: {seconds[2]}")
    ratio("time of two workers / one", seconds[2], seconds[1], "<= 0.6, for a study of at least 60 s")


def demo() -> None:
    """The demo, without the install."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        Study.open("demo", folder=Path(folder) / "run").run(workers=2)
        print(f"  {time.perf_counter() - start:.1f} s, wanted < 60 s on two cores")


# Networks of Grabovoy and Strijov 2021, which took batches of 8: features, outputs, network.
VARIATIONAL = {
    "10-100-50-1": (10, 1, "mlp:100-50"),
    "10-10-10-1": (10, 1, "mlp:10-10"),
    "784-50-10": (784, 10, "mlp:50"),
    "784-800-50-10": (784, 10, "mlp:800-50"),
}


def variational(steps: int = 400, repeats: int = 5, rows: int = 6000) -> None:
    """A variational training's step against an ordinary one's, batch 8, one thread: processor time.

    Ordinary is `fit` without an inference, and, as the peer, the loop that everybody writes: autograd and
    `torch.optim.Adam` as it comes.
    """
    for name, (features, outputs, network) in VARIATIONAL.items():
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand(rows, features, generator=generator).numpy()
        if outputs == 1:
            values = torch.rand(rows, 1, generator=generator).numpy()
            data = ps.data.open((inputs, values), task="regression", validation=0, test=0)
        else:
            labels = (torch.arange(rows) % outputs).numpy()
            data = ps.data.open((inputs, labels), validation=0, test=0)
        goal = {"name": "gaussian", "sigma": 0.1} if outputs == 1 else "hard_labels"
        common = {"batch_size": 8, "select": "last", "monitor": "train_objective", "objective": goal}
        kinds = {"ordinary": None} | _inferences(networks.seeded(network, (features,), outputs, seed=0))
        found: dict[str, list[float]] = {kind: [] for kind in kinds}  # long less short: no preparations
        plain: list[float] = []
        ps.fit(network, data, steps=1, inference="student", **common)  # what is done once in a process
        for _ in range(repeats):
            for kind, inference in kinds.items():
                short, long = (
                    _processor_time(lambda n: ps.fit(network, data, steps=n, inference=inference, **common), n)  # noqa: B023
                    for n in (steps, 3 * steps)
                )
                found[kind].append(max(long - short, 1e-9) / (2 * steps))
            plain.append(_plain_step(networks.seeded(network, (features,), outputs, seed=0), data.train, steps))
        ordinary = found.pop("ordinary")
        for kind, seconds in found.items():
            each = (statistics.median(own) * 1e3 for own in (ordinary, seconds))
            told = "ordinary {:.2f} ms, variational {:.2f} ms".format(*each)
            ratio(f"{name}, prior {kind}: {told}; ratio", seconds, ordinary, "<= 2.5")
            beside = f"{statistics.median(plain) * 1e3:.2f} ms"
            ratio(f"{name}, prior {kind}: the same against a plain loop of {beside}; ratio", seconds, plain, "<= 2.5")


def _inferences(network: nn.Module) -> dict[str, Any]:
    """By the numbers that the prior's divergence has to read: none, none, and a mean and a variance of each weight."""
    layout = bayes.Layout.of(network)
    generator = torch.Generator().manual_seed(0)
    mean, variance = (torch.rand(layout.size, generator=generator, dtype=torch.float64) for _ in range(2))
    teacher = bayes.GaussianPosterior(layout, 0.1 * mean - 0.05, bayes.Diagonal(0.001 + 0.01 * variance), {})
    return {
        "N(0, 1)": "student",
        "N(0, 0.1)": {"name": "variational", "prior": {"std": 0.1**0.5}},
        "of a teacher": bayes.build("distil-student-all").of(teacher),
    }


def _plain_step(network: nn.Module, source: Source, steps: int) -> float:
    """Seconds of processor time for a step of the usual loop; the first 50 are not counted."""
    batch = source.fetch(torch.arange(len(source)))  # type: ignore[arg-type]
    inputs, labels = torch.split(batch.inputs, 8), torch.split(batch.labels, 8)
    loss = nn.CrossEntropyLoss() if source.spec.task == "multiclass" else nn.MSELoss()
    optimizer = torch.optim.Adam(network.parameters())

    def run(number: int) -> None:
        for step in range(number):
            optimizer.zero_grad()
            loss(network(inputs[step % len(inputs)]), labels[step % len(labels)]).backward()
            optimizer.step()

    run(50)
    return _processor_time(run, steps) / steps


def _processor_time(run: Callable[[int], object], steps: int) -> float:
    start = time.process_time()
    run(steps)
    return time.process_time() - start


BENCHES = {"distill": distill, "record": record, "variational": variational, "workers": workers, "demo": demo}


def main() -> int:
    """Run the named benches, or all."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"Unknown: {', '.join(unknown)}. There are {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, products {engine.probe_matmul()}")
    for name in names:
        print(f"{name}: {(BENCHES[name].__doc__ or '').splitlines()[0]}")
        BENCHES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
