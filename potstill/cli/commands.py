"""The commands: names, options and help. What they do is in the modules beside this one, imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeAlias, TypeVar

import typer

from potstill.cli import running
from potstill.cli.running import Request
from potstill.errors import Interrupted

CONTINUED = ("demo", "run", "record")  # the same command goes on where it was interrupted

app = typer.Typer(
    help="Knowledge distillation with an honest verdict.",
    epilog="Begin with: potstill demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

DataFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder that holds data sets. [default: $POTSTILL_DATA]")
]
Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run. [default: runs/NAME]")
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="Processes. [default: the number of cores]")
]
Seeds: TypeAlias = Annotated[
    int | None, typer.Option("--seeds", min=1, metavar="N", help="Seeds 0 to N-1. [default: the plan's]")
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the plan: training.epochs=3. May be repeated."),
]
Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Delete what an earlier run made in the folder, and start anew.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
PlanName: TypeAlias = Annotated[str, typer.Argument(metavar="PLAN", help="Name of a plan, or a .toml file.")]
RunFolder: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/demo.")]
ModelFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a model: runs/NAME/models/MODEL/seed-0.")
]
Validation: TypeAlias = Annotated[
    float | None,
    typer.Option("--validation", metavar="X", help="Validation examples, a number or a fraction, as in a plan."),
]
Test: TypeAlias = Annotated[
    float | None, typer.Option("--test", metavar="X", help="Test examples, a number or a fraction, as in a plan.")
]

P = ParamSpec("P")
R = TypeVar("R")


def command(example: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a command; a Ctrl-C that nobody else took ends it with exit status 130."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except KeyboardInterrupt:
                raise Interrupted("Stopped at once; what was saved before is kept.") from None

        return app.command(epilog=f"\b\nExample:\n  {example}")(guarded)

    return register


def _version(wanted: bool) -> None:
    if wanted:
        from potstill import __version__

        typer.echo(f"potstill {__version__}")
        raise typer.Exit


@app.callback()
def _potstill(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@command("potstill demo --seeds 3")
def demo(
    out: Out = None,
    *,
    workers: Workers = None,
    seeds: Seeds = None,
    settings: Settings = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Run the shipped study on digits. It takes under a minute, and needs no download."""
    running.demo(
        Request("demo", None, out, workers=workers, seeds=seeds, settings=settings, fresh=fresh, as_json=as_json)
    )


@command("potstill plans")
def plans(as_json: Json = False) -> None:
    """List the plans that come with potstill. For each: what data it needs, how long it takes."""
    from potstill.cli import planning

    planning.plans(as_json=as_json)


@command("potstill show demo > my.toml")
def show(name: PlanName) -> None:
    """Print a plan as TOML, comments and all. What is printed can be run."""
    from potstill.cli import planning

    planning.show(name)


@command("potstill check my.toml --data ~/data")
def check(
    plan: PlanName,
    data: DataFolder = None,
    *,
    workers: Workers = None,
    seeds: Seeds = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Check a plan by a rehearsal. Opens the data, runs a batch of every model, estimates time and disk."""
    from potstill.cli import planning

    planning.check(Request(plan, data, workers=workers, seeds=seeds, settings=settings, as_json=as_json))


@command("potstill run my.toml --seeds 3 --set training.epochs=5")
def run(
    plan: PlanName,
    data: DataFolder = None,
    out: Out = None,
    *,
    workers: Workers = None,
    seeds: Seeds = None,
    settings: Settings = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Run a study, or what is missing of it. Writes results.json and report.html, prints the verdicts."""
    running.run(Request(plan, data, out, workers=workers, seeds=seeds, settings=settings, fresh=fresh, as_json=as_json))


@command("potstill report runs/demo --figures figures")
def report(
    run: RunFolder,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write each figure as an SVG file, with index.json.")
    ] = None,
) -> None:
    """Write report.html anew."""
    running.report(run, figures)


@command("potstill verify runs/demo")
def verify(run: RunFolder, as_json: Json = False) -> None:
    """Check every hash in a run folder. The exit status is 1 if a file is damaged."""
    running.verify(run, as_json=as_json)


@command("potstill record runs/demo/models/teacher/seed-0 digits --test 600 --validation 100 --out outputs/teacher")
def record(
    model: ModelFolder,
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="A data set's name, a folder, a file, or a source's table.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the answers.")],
    *,
    split: Annotated[
        str, typer.Option("--split", help="train, validation, test, or a test set of the plan.")
    ] = "train",
    views: Annotated[
        int, typer.Option("--views", min=0, metavar="V", help="Views 1 to V by --augment, beside the plain examples.")
    ] = 0,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            "--augment", metavar="NAME", help="flip, or a table: { name = 'shift', fraction = 0.1 }. Repeatable."
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, metavar="K", help="Keep the K largest classes and the rest's mass.")
    ] = None,
    validation: Validation = None,
    test: Test = None,
    data: DataFolder = None,
) -> None:
    """Keep a model's answers for a data set. Continues what was interrupted."""
    from potstill.cli import models

    opened = models.Opening(source, split, data, validation=validation, test=test)
    models.record(model, opened, out, views=views, augment=augment or [], top_k=top_k)


@command("potstill predict runs/demo/models/from-teacher/seed-0 my-pictures.npy --out predictions.csv")
def predict(
    model: ModelFolder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A .npy, .npz or idx file of inputs, pictures, or a data set with --split."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .csv or .npz file. [default: print CSV]")
    ] = None,
    *,
    split: Annotated[
        str | None, typer.Option("--split", help="train, validation, test, or a test set of the plan. [default: test]")
    ] = None,
    validation: Validation = None,
    test: Test = None,
    data: DataFolder = None,
) -> None:
    """Predict classes with probabilities, or a regression's values."""
    from potstill.cli import models

    models.predict(model, models.Opening(source, split, data, validation=validation, test=test), out)


@command("potstill explore fashion-mnist --data ~/data")
def explore(
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="A data set's name, a folder, a file, or a source's table.")
    ],
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page. [default: explored/NAME.html]")
    ] = None,
    *,
    task: Annotated[str, typer.Option("--task", help="multiclass, binary or regression.")] = "multiclass",
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="COLUMN", help="A table's labels: names, or how many columns at the end."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="COLUMN", help="A table's texts. [default: told by what its cells hold]"),
    ] = None,
    validation: Validation = None,
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="X", help="Test examples, or test sets by name, { a = FILE }, as in a plan."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at a data set. A page of counts, values, words, duplicates, examples, and what is wrong with them."""
    from potstill.cli import exploring, models

    opening = models.Opening(source, None, data, validation=validation)
    exploring.explore(opening, out, task=task, target=target, column=text, test=test, as_json=as_json)


@command("potstill networks resnet18 --shape 3x64x64 --outputs 2")
def networks(
    network: Annotated[
        str | None,
        typer.Argument(metavar="NETWORK", help="A name, a shorthand such as mlp:100-50, or a table as in a plan."),
    ] = None,
    *,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="CxHxW", help="Shape of one example. [default: what papers use]")
    ] = None,
    outputs: Annotated[
        int | None, typer.Option("--outputs", min=1, metavar="N", help="Outputs, one per class.")
    ] = None,
    deep: Annotated[bool, typer.Option("--all", help="Show what is inside the layers, too.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time one prediction on this CPU. Use a quiet machine.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List networks with their sizes, or the layers of one."""
    from potstill.cli import networks as command

    if network is None:
        command.refuse(shape=shape, outputs=outputs, all=deep)
        command.listing(latency=latency, as_json=as_json)
    else:
        command.one(network, shape, outputs, deep=deep, latency=latency, as_json=as_json)


@command("potstill doctor --data ~/data")
def doctor(data: DataFolder = None, as_json: Json = False) -> None:
    """Say what to mend on this machine. Looks at libraries, speed settings, disk, cache and data sets."""
    from potstill.cli import health

    health.doctor(data, as_json=as_json)
