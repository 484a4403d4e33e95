"""The least time that the study's products can take: its operations over the machine's own rate for large products."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Sequence
from typing import Any

from study_peer import LARGE, MEMBERS, PARTS, SMALL

COUNTED = (
    "Counted are the products of linear layers, 2 operations per multiply-add: forward 2, backward 4 less the gradient "
    "of the inputs; validation after every epoch; every teacher asked once for every training and validation row; "
    "every model once on test data. Not biases, ReLU, softmax, losses, Adam."
)
SIZE, ROUND_SECONDS = 1024, 1.0


def forward(hidden: Sequence[int]) -> int:
    """Operations of one row's forward pass through 784-hidden-10."""
    sizes = (784, *hidden, 10)
    return 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def training(hidden: Sequence[int]) -> int:
    """Operations of one row's forward and backward pass."""
    return 3 * forward(hidden) - 2 * 784 * hidden[0]


def study(epochs: int, seeds: int, rows: Sequence[int]) -> dict[str, int]:
    """Operations of each part; `rows` are those of train, validation and test."""
    train, validation, test = rows

    def fit(hidden: Sequence[int]) -> int:
        return epochs * (train * training(hidden) + validation * forward(hidden)) + test * forward(hidden)

    asked = (train + validation) * (forward(LARGE) + MEMBERS * forward(SMALL))
    each = (fit(LARGE), MEMBERS * fit(SMALL), fit(SMALL), 2 * fit(SMALL) + asked)
    return {part: seeds * operations for part, operations in zip(PARTS, each, strict=True)}


def _multiply(precision: str, rounds: int, ready: Any, rates: Any) -> None:
    """Operations per second of each round, on one thread."""
    import torch

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(precision)
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    out, found = torch.empty(SIZE, SIZE), []
    torch.mm(a, b, out=out)
    for _ in range(rounds):
        ready.wait(timeout=300)
        began, number = time.perf_counter(), 0
        while time.perf_counter() - began < ROUND_SECONDS:
            torch.mm(a, b, out=out)
            number += 1
        found.append(2 * SIZE**3 * number / (time.perf_counter() - began))
    rates.put(found)


def peak(processes: int = 2, rounds: int = 5) -> tuple[float, str]:
    """The best round's operations per second of all processes at once, and the precision of float32 products there."""
    context, best = multiprocessing.get_context("spawn"), (0.0, "")
    for precision in ("highest", "medium"):
        ready, rates = context.Barrier(processes), context.Queue()
        children = [context.Process(target=_multiply, args=(precision, rounds, ready, rates)) for _ in range(processes)]
        for child in children:
            child.start()
        found = [rates.get(timeout=300) for _ in children]
        for child in children:
            child.join()
        best = max(best, (max(map(sum, zip(*found, strict=True))), precision))
    return best
