"""Where a command begins and ends: arguments in, exit status out, every error as one line.

Exit status 0: done; 1: something failed; 2: the user can mend it; 130: interrupted, after saving.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from potstill.cli.commands import CONTINUED, app
from potstill.errors import Interrupted, PotstillError


def main() -> None:
    """The `potstill` program."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. `--debug`, anywhere, shows the traceback of an error."""
    debug = "--debug" in arguments
    try:
        status = _status([word for word in arguments if word != "--debug"])
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Interrupted as error:
        _say(str(error))
        _say_command("Continue with:", arguments) if _command(arguments) in CONTINUED else None
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
    _say(f"{what}\n  {shlex.join(['potstill', *(word for word in arguments if word != '--fresh')])}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
