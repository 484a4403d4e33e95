"""Progress of a study on standard error: a bar where that is a terminal, else plain lines.

A thread of its own draws, twice a second, from the study's events and from the files in which the workers tell how far
they are. The study's thread only leaves events here: it may do so in a signal's handler, where printing is not safe.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from potstill.cli.text import duration

_TICK = 0.5
_LINE_SECONDS = 3.0  # at least so long between two plain lines
_LINE_SHARE = 0.03  # and this share of the time so far: a run of hours does not fill the log
_SILENT_SECONDS = 15.0  # at most, while something runs
_TELLING = 0.01  # share of the work from whose speed the time left is told
_LISTED = 3  # names of what runs
_TROUBLE = ("failed", "stop")


class Event(Protocol):
    """What is read of `study.job.Event`; importing that would import torch."""

    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def done(self) -> float: ...
    @property
    def total(self) -> float: ...
    @property
    def work(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Told:
    """An event that is not the study's: rows that were recorded."""

    kind: str
    text: str
    done: float = 0.0
    total: float = 0.0
    work: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What can be said at one moment. `left` is in seconds, None where it cannot be told yet."""

    stage: str
    share: float
    elapsed: float
    left: float | None
    running: tuple[str, ...]
    trouble: tuple[str, ...]

    @property
    def times(self) -> str:
        left = "" if self.left is None else f", about {duration(self.left)} left"
        return duration(self.elapsed) + left


class View(Protocol):
    """Where a snapshot is shown."""

    def draw(self, now: Snapshot, *, last: bool = False) -> None: ...
    def close(self) -> None: ...


class Progress:
    """A listener for `Study.run`, and the context in which its thread draws."""

    def __init__(self, folder: Path | None = None, *, console: Console | None = None) -> None:
        self._folder = folder
        console = console or Console(stderr=True)
        bar = console.is_terminal and not console.is_dumb_terminal
        self._view: View = Bar(console) if bar else Lines(console)
        self._events: deque[tuple[float, Event]] = deque()
        self._meter = Meter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __call__(self, event: Event) -> None:
        """Leave an event here."""
        self._events.append((time.monotonic(), event))

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._draw(last=True)
        self._view.close()

    def _work(self) -> None:
        while not self._ended.wait(_TICK):
            self._draw()

    def _draw(self, *, last: bool = False) -> None:
        while self._events:
            self._meter.take(*self._events.popleft())
        self._view.draw(self._meter.read({} if last else self._running()), last=last)

    def _running(self) -> dict[str, float]:
        """Folder of every node that a worker is at -> the share of it that is done."""
        found = {}
        # The last stage measures latency, alone on the machine: nothing is read then.
        if self._folder is not None and not self._meter.quiet:
            for path in sorted((self._folder / ".running").glob("*.json")):
                try:
                    row = json.loads(path.read_text(encoding="utf-8"))
                    found[str(row["folder"])] = row["step"] / max(row["total"], 1)
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # just being written, or gone
        return found


class Meter:
    """Adds up work. Time left is what remains at the speed so far, begun nodes counted by their share.

    The clock of that speed starts when the first node does: worker processes need seconds until then.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.quiet = False
        self._moving: float | None = None
        self._stage = ""
        self._ready, self._todo = 0, 0
        self._first = self._done = self._total = 0.0
        self._work: Mapping[str, float] = {}
        self._trouble: list[str] = []

    def take(self, when: float, event: Event) -> None:
        """Count one event."""
        if event.kind == "begin":
            if not self._work:
                self.began, self._done = when, 0.0
            self._first += event.done - self._done  # what is there already; a later stage goes on with the clock
            self._done = event.done
            self._work = {**self._work, **event.work}
            self._stage = event.text
        if event.total:
            self._done, self._total = event.done, event.total
        if event.kind in ("done", "failed"):
            self._ready += 1
            self._stage = f"{self._ready} done"
        if event.kind in _TROUBLE:
            self._trouble.append(event.text if event.kind == "stop" else f"failed: {brief(event.text)}")
        if event.kind in ("evaluate", "latency"):
            self._stage = event.text if event.kind == "evaluate" else f"latency of {event.text}"
        self.quiet = event.kind == "latency"

    def read(self, running: Mapping[str, float]) -> Snapshot:
        """What to show now; trouble is told once."""
        done = self._done + sum(share * self._work.get(name, 0.0) for name, share in running.items())
        share = min(done / self._total, 1.0) if self._total else 0.0
        now = time.monotonic()
        if running and self._moving is None:
            self._moving = now
        spent, since = done - self._first, now - (self._moving or self.began)
        left = None
        if share < 1.0 and since > 1.0 and spent > _TELLING * (self._total - self._first):
            left = (self._total - done) * since / spent
        trouble, self._trouble = tuple(self._trouble), []
        names = tuple(name.partition("/")[2] or name for name in running)
        return Snapshot(self._stage, share, now - self.began, left, names, trouble)


def brief(text: str) -> str:
    """A node's name and the last line of what went wrong with it.

    >>> brief("models/a/seed-0: Traceback ...\\n  File ...\\nValueError: 3")
    'models/a/seed-0: ValueError: 3'
    """
    first, *rest = text.strip().splitlines() or [""]
    return f"{first.partition(': ')[0]}: {rest[-1]}" if rest else first


def listed(names: Sequence[str]) -> str:
    """The first names, and how many others there are.

    >>> listed(["a", "b"]), listed(list("abcdef"))
    ('a, b', 'a, b, c and 3 others')
    """
    shown = names if len(names) <= _LISTED + 1 else names[:_LISTED]
    others = "" if len(shown) == len(names) else f" and {len(names) - len(shown)} others"
    return ", ".join(shown) + others


class Bar:
    """One line that moves."""

    def __init__(self, console: Console) -> None:
        short: Any = {"no_wrap": True, "overflow": "ellipsis"}
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=Column(**short)),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[times]}", markup=False, table_column=Column(**short)),
            TextColumn("{task.fields[running]}", markup=False, style="dim", table_column=Column(ratio=1, **short)),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("starting", total=1.0, times="", running="")
        self._bar.start()

    def draw(self, now: Snapshot, *, last: bool = False) -> None:  # noqa: ARG002 - the last one is no other
        for text in now.trouble:
            self._bar.console.print(text, markup=False, highlight=False)
        self._bar.update(
            self._task,
            description=now.stage or "starting",
            completed=now.share,
            times=now.times,
            running=listed(now.running),
            refresh=True,
        )

    def close(self) -> None:
        self._bar.stop()


class Lines:
    """Plain lines, not too many of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""
        self._when = float("-inf")

    def draw(self, now: Snapshot, *, last: bool = False) -> None:
        for text in now.trouble:
            self._write(text)
        silent = time.monotonic() - self._when
        wait = max(_LINE_SECONDS, _LINE_SHARE * now.elapsed)
        news = now.stage not in ("", self._said)
        if (news and (last or silent >= wait)) or (now.running and silent >= max(_SILENT_SECONDS, wait)):
            self._said, self._when = now.stage, time.monotonic()
            running = f"; running {listed(now.running)}" if now.running else ""
            self._write(f"{now.share:4.0%}  {now.times}: {now.stage}{running}")

    def _write(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass
