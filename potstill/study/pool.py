"""Waves of nodes in worker processes, through joblib: results as they come, killed workers, Ctrl-C (decision 7)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from potstill.errors import Interrupted, PotstillError
from potstill.study.folder import is_complete
from potstill.study.tree import Node
from potstill.study.worker import STOP, Outcome, Place, failed, run_nodes

T = TypeVar("T")
MEMORY = "Often that is the system running out of memory: try fewer workers, or a smaller batch_size."
KILLED = f"its worker process was killed twice. {MEMORY}"
STOPPED = "Stopped; everything so far is saved. Run again to continue."


@contextmanager
def stop_on_signal(place: Place, say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C writes the stop file, so that everybody saves and leaves; a second one kills the workers."""
    stop, asked = place.root / STOP, False
    stop.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            # Without `reuse` loky would first wait for the workers, since joblib asked for others than the default.
            get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
            raise KeyboardInterrupt
        asked = True
        stop.write_text("stop\n")
        say("Stopping: every worker saves and leaves. Press Ctrl-C again to kill them.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.unlink(missing_ok=True)


def run_wave(
    bundles: Sequence[Sequence[Node]], place: Place, workers: int, done: Callable[[Node, Outcome], None]
) -> None:
    """Run bundles of independent nodes, in the order given; `done` is called once per node, when its bundle ends.

    When a worker is killed, what was not begun runs on in a fresh pool; what was running is tried once more, a bundle
    at a time, and then each node alone.
    """
    waiting = {node.folder: node for bundle in bundles for node in bundle}

    def take(outcome: Outcome) -> None:
        done(waiting.pop(outcome.folder), outcome)

    while waiting:
        batch = [[node for node in bundle if node.folder in waiting] for bundle in bundles]
        batch = [bundle for bundle in batch if bundle]
        try:
            for outcomes in parallel(workers, run_nodes, [(bundle, place) for bundle in batch]):
                for outcome in outcomes:
                    take(outcome)
        except BrokenProcessPool:
            if place.stopping():
                for folder in list(waiting):
                    take(Outcome(folder, "interrupted"))
                return
            for node in [node for node in waiting.values() if is_complete(place.root, node)]:
                place.running(node.folder).unlink(missing_ok=True)
                take(Outcome(node.folder, "done"))  # the worker was killed before its bundle ended
            begun = {folder for folder in waiting if place.running(folder).exists()} or set(list(waiting)[:1])
            for bundle in batch:
                for outcome in _again([node for node in bundle if node.folder in begun & waiting.keys()], place):
                    take(outcome)


def _again(bundle: Sequence[Node], place: Place) -> list[Outcome]:
    """Once more, with nobody beside it, so that nobody else is blamed; then each node by itself."""
    done = [Outcome(node.folder, "done") for node in bundle if is_complete(place.root, node)]
    bundle = [node for node in bundle if not is_complete(place.root, node)]
    if not bundle:
        return done
    try:
        (outcomes,) = parallel(2, run_nodes, [(bundle, place)])
        return done + outcomes
    except BrokenProcessPool:
        if len(bundle) > 1:
            return done + [outcome for node in bundle for outcome in _again([node], place)]
        place.running(bundle[0].folder).unlink(missing_ok=True)
        return [*done, failed(bundle[0], place, KILLED)]


def parallel(workers: int, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """`function(*row)` for every row, in this process if there is one worker; outcomes as they end."""
    if workers == 1:
        yield from (function(*row) for row in arguments)
        return
    pool = Parallel(n_jobs=workers, backend="loky", batch_size=1, pre_dispatch="all", return_as="generator_unordered")
    yield from pool(delayed(function)(*row) for row in arguments)


def run_all(
    workers: int, function: Callable[..., Outcome], arguments: Sequence[tuple[Any, ...]], *, place: Place
) -> list[Outcome]:
    """All outcomes of short work. When a worker is killed, what it had not written is made by the next run."""
    try:
        return list(parallel(workers, function, arguments))
    except BrokenProcessPool:
        if place.stopping():
            raise Interrupted(STOPPED) from None
        raise PotstillError(f"A worker process was killed. {MEMORY} Run again: what is complete is kept.") from None
