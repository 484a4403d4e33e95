"""Several processes that begin together, as soon as all are ready: for contestants whose time is taken."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

Begin = Callable[[], None]


def run(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, wait: float) -> list[Any]:
    """What `work(*arguments, begin)` returned in each process. It calls `begin` when it is ready, and goes on with all.

    Exits with status 1 where one fails, or is not ready within `wait` seconds of another.
    """
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(len(arguments)), context.Queue()
    children = [
        context.Process(target=_child, args=(work, own, ready, answers, wait), daemon=False) for own in arguments
    ]
    for child in children:
        child.start()
    found = [answers.get() for _ in children]
    for child in children:
        child.join()
    if None in found:
        raise SystemExit(1)
    return found


def _child(work: Callable[..., Any], own: tuple[Any, ...], ready: Any, answers: Any, wait: float) -> None:
    try:
        answers.put(work(*own, lambda: ready.wait(timeout=wait)))
    except threading.BrokenBarrierError:
        answers.put(None)
    except Exception:
        ready.abort()
        traceback.print_exc()
        answers.put(None)
