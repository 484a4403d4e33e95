"""`explore`: the page about a data set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import typer

from potstill.cli import text
from potstill.cli.models import Opening, count
from potstill.errors import SettingError, unknown

_TASKS = ("multiclass", "binary", "regression")


def explore(
    opening: Opening,
    out: Path | None,
    *,
    task: str,
    target: str | None,
    column: str | None,
    test: str | None,
    as_json: bool,
) -> None:
    """Write the page, and say on the terminal what to look at."""
    from potstill.explore import explore as look
    from potstill.report import explored

    if task not in _TASKS:
        raise SettingError(unknown("task", task, _TASKS))
    found = look(
        opening.table,
        folder=opening.folder,
        task=task,  # type: ignore[arg-type]
        target=_target(target),
        validation=count(opening.validation),
        test=_test(test),
        text=column,
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-.") or "data"
    page = explored.write(found, out or Path("explored") / f"{name}.html")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
        return
    rows = [
        [split, f"{one.examples:,}", f"{one.labelled:,}", f"{one.different:,}"] for split, one in found.splits.items()
    ]
    typer.echo(text.table(["split", "examples", "with a label", "different"], rows, right=range(1, 4)))
    typer.echo("\nTo look at:" if found.faults else "\nNothing was found that would have to be mended.")
    for fault in found.faults:
        typer.echo(text.wrapped(f"{fault.what} {fault.advice}", first="! " if fault.grave else "- ", rest="  "))
    if set(found.splits) - {"train", "validation"}:
        typer.echo(
            text.wrapped("The page shows test examples too: whoever reads it has taken a look at them.", first="\n")
        )
    typer.echo(f"\nPage: {page}")


def _target(target: str | None) -> Any:
    """A column's name, several with commas between them, or how many at the end."""
    if target is None:
        return None
    if target.isdigit():
        return int(target)
    names = [name.strip() for name in target.split(",")]
    return names[0] if len(names) == 1 else names


def _test(test: str | None) -> float | dict[str, Any] | None:
    """A number or a fraction of examples, or a table of test sets by name."""
    from potstill.study.plan_text import parse_value

    found = None if test is None else parse_value(test)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return count(float(found))
    if found is not None and not isinstance(found, dict):
        raise SettingError(
            f"--test {test}: wanted is a number or a fraction of examples, or test sets by name as in a plan: "
            "{ new = 'new.csv' }."
        )
    return found
