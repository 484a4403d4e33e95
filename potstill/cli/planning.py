"""`plans`, `show` and `check`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import typer

from potstill.cli import text
from potstill.cli.running import Request
from potstill.study.plan import Plan

_SHOWN = 10  # names of classes or targets


def plans(*, as_json: bool) -> None:
    """The shipped plans, one paragraph each."""
    found = {name: Plan.about(name) for name in Plan.names()}
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for name, about in found.items():
        typer.echo(f"{name}\n  {about['title']}\n  needs: {about['needs']}\n  time: {about['time']}")


def show(name: str) -> None:
    """A plan's text, as it was written."""
    typer.echo(Plan.load(name).text, nl=False)


def check(request: Request) -> None:
    """What a study would do and cost."""
    from potstill.study.rehearse import rehearse

    found = rehearse(request.study().job(request.workers))
    if found.bytes > found.free_bytes:
        typer.echo(
            f"warning: it needs about {text.size(found.bytes)} of disk, and {text.size(found.free_bytes)} are free.",
            err=True,
        )
    for note in found.notes:
        typer.echo(f"warning: {note}", err=True)
    if request.as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
        return
    rows = [
        [
            model.model,
            model.network,
            f"{model.parameters:,}",
            str(model.trainings),
            f"{model.steps:,}",
            f"{model.step_ms:.2f}",
            text.duration(model.seconds),
        ]
        for model in found.models
    ]
    examples = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    head = ["model", "network", "parameters", "trainings", "steps at most", "ms/step", "in all"]
    named = found.targets or found.classes
    several = [f"{name} {_shape(shape)}" for name, shape in found.inputs.items()]
    shape = ", ".join(several) if len(several) > 1 else _shape(found.shape)
    some = ", ".join(named[:_SHOWN]) + (", ..." if len(named) > _SHOWN else "")
    what = text.plural(len(named), "target") if found.targets else f"{len(named)} classes"
    seeds = text.plural(len(found.seeds), "seed")
    typer.echo(f"{found.title}\n{examples} examples of {shape}; {what} ({some}); {seeds}\n")
    typer.echo(text.table(head, rows, right=range(2, 7)))
    typer.echo(
        f"\nThe plan can run: about {text.duration(found.seconds)} with {text.plural(found.workers, 'worker')} "
        f"(less where training stops early), and {text.size(found.bytes)} of disk."
    )


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
