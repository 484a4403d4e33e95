"""Small pieces of text for people: tables, wrapped paragraphs, durations, sizes."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Columns side by side; those in `right` are aligned to the right.

    >>> print(table(["model", "n"], [["alone", "8"], ["b", "12"]], right={1}))
    model   n
    alone   8
    b      12
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def program() -> str:
    """How to call this program from here: by its name where the shell finds that, else as it was called."""
    called = sys.argv[0]
    return called if Path(called).name == "potstill" and shutil.which("potstill") is None else "potstill"


def wrapped(text: str, *, first: str = "", rest: str = "") -> str:
    """A paragraph in the width of the terminal; one line where the output is no terminal."""
    if not sys.stdout.isatty():
        return first + text
    width = min(max(shutil.get_terminal_size().columns, 40), 100)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest)


def duration(seconds: float) -> str:
    """
    >>> duration(0.04), duration(34.2), duration(95), duration(4000), duration(200000)
    ('0.04 s', '34 s', '1 min 35 s', '1 h 7 min', '2 d 8 h')
    """
    if seconds < 9.5:
        return f"{seconds:.1g} s"
    for size, name, small, short in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        whole = round(seconds / small)
        if whole * small >= size:
            return f"{whole * small // size} {name} {whole % (size // small)} {short}"
    return f"{round(seconds)} s"


def size(count: float) -> str:
    """
    >>> size(900), size(1_500_000), size(2.5e12)
    ('900 B', '1.5 MB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def plural(count: int, word: str) -> str:
    """
    >>> plural(1, "seed"), plural(1200, "example")
    ('1 seed', '1,200 examples')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"
