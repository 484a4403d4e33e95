"""`run`, `demo`, `report` and `verify`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from potstill.cli import text

if TYPE_CHECKING:
    from potstill.study.results import Results
    from potstill.study.study import Study


@dataclass(frozen=True)
class Request:
    """The arguments of a command about a plan."""

    plan: str
    data: Path | None = None
    out: Path | None = None
    _: KW_ONLY
    workers: int | None = None
    seeds: int | None = None
    settings: list[str] | None = None
    fresh: bool = False
    as_json: bool = False

    def study(self) -> Study:
        """The study that is asked for."""
        from potstill.study.study import Study

        return Study.open(self.plan, folder=self.out, data=self.data, seeds=self.seeds, settings=self.settings or ())


def demo(request: Request) -> None:
    """The shipped study, introduced and followed by commands to copy."""
    folder = request.out or Path("runs/demo")
    if not request.as_json:
        typer.echo(
            text.wrapped(
                "Handwritten digits, of which 100 carry a label. A small student learns from them alone, or from a "
                "larger teacher's answers, also to the unlabelled ones. Every model is trained with several seeds, so "
                "that each verdict has an interval."
            )
        )
        typer.echo(f"Everything is written to {folder}\n")
    _run(dataclasses.replace(request, out=folder))
    if not request.as_json:
        typer.echo("\nNext, copy one of these:\n")
        typer.echo("\n\n".join(f"  # {what}\n  {command}" for what, command in _next(folder)))


def _next(folder: Path) -> list[tuple[str, str]]:
    opener = next((word for word in ("xdg-open", "open") if shutil.which(word)), "python3 -m webbrowser")
    program = shlex.quote(text.program())
    return [
        ("open the report", f"{opener} {shlex.quote(str(folder / 'report.html'))}"),
        ("see the plan", f"{program} show demo"),
        (
            "run it on your own pictures: my-arrays.npz holds inputs (n, height, width) and labels (n,)",
            f"{program} run demo --set data.source=my-arrays.npz --set data.test=0.3 --set title='My pictures' "
            "--set story= --out runs/my-pictures",
        ),
    ]


def run(request: Request) -> None:
    """A study, whole or what is missing of it."""
    _run(request)


def _run(request: Request) -> None:
    from potstill.cli.progress import Progress

    study = request.study()
    with Progress(study.folder) as progress:
        results = study.run(workers=request.workers, fresh=request.fresh, listener=progress)
    if request.as_json:
        typer.echo(results.model_dump_json(indent=1))
    else:
        typer.echo(_told(results))
    page = _page(study.folder)
    typer.echo(f"Report: {page}", err=request.as_json)
    failed = [
        f"{key} with seed {failure.seed} {failure.state}: {failure.reason.strip().splitlines()[-1]}"
        for key, model in results.models.items()
        for failure in model.failures
    ]
    if failed:
        typer.echo("\n".join(f"failed: {line}" for line in failed), err=True)
        raise typer.Exit(1)


def _page(folder: Path) -> Path:
    from potstill import report

    return report.write(folder)


def _told(results: Results) -> str:
    """Verdicts, then a small table of the models."""
    lines = [results.title, ""]
    lines += [text.wrapped(verdict.sentence, first="* ", rest="  ") for verdict in results.verdicts]
    lines += _tuned(results)
    rows = []
    for key, model in results.models.items():
        found = model.metrics.get(results.metric)
        value = "-" if found is None else _digits(found.mean)
        spread = "-" if found is None or found.std is None else _digits(found.std)
        size = "-" if model.cost is None else f"{model.cost.parameters:,}"
        rows.append([key, model.network, size, value, spread, str(len(model.seeds))])
    from potstill.study.area import is_area

    on = "validation" if is_area(results.metric) else results.on
    head = ["model", "network", "parameters", f"{on} {results.metric}", "sd over seeds", "seeds"]
    return "\n".join([*lines, "", text.table(head, rows, right=range(2, 6)), ""])


def _digits(value: float) -> str:
    """Four decimals, or three significant digits of a number that is too small for them."""
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def _tuned(results: Results) -> list[str]:
    """The winners among the trials, and the trials that failed."""
    from potstill.study import words

    if results.tuning is None:
        return []
    found = [""]
    for name, one in results.tuning.models.items():
        failed = [str(trial.number) for trial in one.trials if trial.state != "done"]
        lost = f"; failed: trial {', '.join(failed)}" if failed else ""
        told = words.winner(one.trials[one.winner - 1], results.metric)
        found.append(text.wrapped(f"{name}: of {text.plural(len(one.trials), 'trial')}, {told}{lost}"))
    return found


def report(run: Path, figures: Path | None = None) -> None:
    """The page, written anew, and its figures as files."""
    typer.echo(str(_page(run)))
    if figures is not None:
        from potstill.report import write_figures

        typer.echo(f"{text.plural(len(write_figures(run, figures)), 'figure')} and index.json in {figures}")


def verify(run: Path, *, as_json: bool) -> None:
    """All hashes of a run."""
    from potstill.study.verify import verify as check

    found = check(run)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
    else:
        for damage in found.damaged:
            typer.echo(f"damaged: {damage.file}: {damage.fault}")
        left = f", {text.plural(found.unfinished, 'piece')} unfinished" if found.unfinished else ""
        typer.echo(f"{text.plural(found.files, 'file')} checked, {len(found.damaged)} damaged{left}.")
    if found.damaged:
        typer.echo(
            "Delete the folder (models/.../seed-N, outputs/...) of each damaged file and run the plan again: what is "
            "missing is made anew, with the same bytes.",
            err=True,
        )
        raise typer.Exit(1)
