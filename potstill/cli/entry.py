"""Where a command begins and ends: arguments in, exit status out, every error as one line.

Exit status 0: done; 1: something failed; 2: the user can mend it; 130: interrupted, after saving.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from potstill.cli import text
from potstill.cli.commands import CONTINUED, app
from potstill.errors import Interrupted, PotstillError


def main() -> None:
    """The `potstill` program."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. `--debug`, anywhere, shows the traceback of an error."""
    debug = "--debug" in arguments
    try:
        return _status([word for word in arguments if word != "--debug"])
    except Interrupted as error:
        _say(str(error))
        if _command(arguments) in CONTINUED:
            _say_command("Continue with:", arguments)
        return error.exit_status
    except PotstillError as error:
        _trace(debug)
        _say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        return error.exit_status
    except Exception as error:
        _trace(debug)
        _say(f"error: {type(error).__name__}: {error}\nThis was not expected.")
        if not debug:
            _say_command("To see where it happened:", ["--debug", *arguments])
        return 1


def _status(arguments: list[str]) -> int:
    """What typer ends with; it tells wrong arguments itself (2), and bears a reader that left, as `head` does (1)."""
    try:
        app(arguments, prog_name="potstill")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()


def _command(arguments: Sequence[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _say_command(what: str, arguments: Sequence[str]) -> None:
    """A command to copy: the same arguments, but never `--fresh`, which would throw away what is saved."""
    _say(f"{what}\n  {shlex.join([text.program(), *(word for word in arguments if word != '--fresh')])}")


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
