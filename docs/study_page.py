"""Pages of studies: the factual core of `docs/studies/NAME.md` from the results that are kept beside it.

`scripts/docs study RUN [NAME]` keeps a run's results.json as `docs/studies/NAME.json`, and writes page and figures.
Text outside the two markers of a page is written by hand, and stays as it is.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import study_tables
from study_tables import escape

from potstill import storage
from potstill.errors import PlanError, PotstillError
from potstill.report import export, published, tables
from potstill.report import format as fmt
from potstill.report.figures import GLYPH
from potstill.report.inputs import load
from potstill.report.names import Cast
from potstill.study.plan import Plan
from potstill.study.plotted import Figures
from potstill.study.results import Results

STUDIES = Path(__file__).parent / "studies"
BEGIN, END = "<!-- begin: generated -->", "<!-- end: generated -->"
MOST = 300_000  # bytes of kept results
FREQUENCIES = ".frequencies.json"
LEAST_SIZES = 4  # of models, from which a page shows what quality costs
FEW = 4  # classes that large results are still told by
NO_FILES = ("diabetes", "digits", "linear", "privileged", "softmax-linear")  # sources that need no --data
MACHINE = re.compile(r"(?<![\w.~:/])/\w[^\s\"]*/[^\s\"]+")  # an absolute path
NEW = """# {title}

<!-- What was asked, and by whom; what the plan leaves open, and how it was read. -->

{core}

## What holds of the published statements

<!-- Each statement, and what the verdicts above say about it. -->
"""


def keep(run: Path, name: str, folder: Path = STUDIES) -> Path:
    """Keep a run's results as NAME.json, less what is not compared where they are too large; returns its path.

    Raises `PotstillError` where they name a folder of the machine that made them.
    """
    results = load(run)[0]
    value = results.model_dump(mode="json")
    if value["data"].get("notes"):  # of published tables they begin with the file
        notes = [MACHINE.sub(lambda path: Path(path.group()).name, note) for note in value["data"]["notes"]]
        value["data"]["notes"] = notes
    if len(_text(value)) > MOST:
        wanted = {results.metric, *(metric for source in results.published for metric in source.metrics)}
        wanted |= {verdict.metric for verdict in results.verdicts}
        for model in value["models"].values():
            model["validation"] = {}
            for split in model["splits"].values():
                split["classes"] = split["classes"] if len(split["classes"]) <= FEW else {}
            model["metrics"] = {metric: found for metric, found in model["metrics"].items() if metric in wanted}
        for one in value["inheritance"].values():
            one["classes"] = one["classes"] if len(one["classes"]) <= FEW + 1 else one["classes"][:1]
    found = MACHINE.search(_text(value))
    if found:
        raise PotstillError(
            f"{run / 'results.json'} holds {found.group()}, a path of the machine that made it; wanted are results "
            "that can be kept. Name the data by a source's name and give its folder with --data, then run again."
        )
    path = folder / f"{name}.json"
    storage.write_text(path, _text(value))
    arrays = load(run)[1]
    counts: dict[str, Any] = {}
    few = len(results.models) <= study_tables.ALIKE or any(one.generations > 1 for one in results.models.values())
    if arrays is not None and len(arrays.classes) == 2 and few:  # nobody could tell more, unless they are chains
        counts["frequencies"] = {
            key: {split: one[split] for split in one if split == "test"} for key, one in arrays.frequencies.items()
        }
    elif arrays is not None and results.metric == "macro_f1":
        counts["confusion"] = arrays.confusion
    if arrays is not None and counts:
        kept = Figures(classes=arrays.classes, **counts).model_dump(mode="json", include={"format", "classes", *counts})
        storage.write_text(counted(path), storage.canonical(kept) + "\n")
    return path


def counted(path: Path) -> Path:
    """Beside the results: of two classes how often each model gives which probability, else what F1 is made of."""
    return path.with_suffix(FREQUENCIES)


def read_arrays(path: Path) -> Figures | None:
    """The counts that were kept beside results."""
    there = counted(path)
    return Figures.model_validate(storage.read_json(there)) if there.is_file() else None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> Results:
    """Results that were kept."""
    return Results.model_validate(storage.read_json(path))


@cache
def _plans() -> dict[str, Plan]:
    return {name: Plan.load(name) for name in Plan.names()}


def shipped(results: Results, name: str) -> str | None:
    """The command that repeats a study by a plan that comes with potstill; None where no such plan says the same."""
    try:
        plan = Plan.from_dict(tomllib.loads(results.plan_toml))
    except (PlanError, tomllib.TOMLDecodeError):
        return None
    n = len(results.seeds)
    for known, candidate in sorted(_plans().items(), key=lambda one: one[0] != name):
        if candidate == plan:
            return f"potstill run {known}"
        if results.seeds == list(range(n)) and candidate.with_seeds(n) == plan:
            return f"potstill run {known} --seeds {n}"
    return None


def figures(results: Results, arrays: Figures | None = None) -> list[export.Exported]:
    """The figures that matter: tuning, bars or gains over the baseline, the forest, fronts, generations or frequencies.

    Fronts of four sizes or more: of fewer the table of models tells as much.
    """
    starts = ("tuning", f"bars-{results.metric}", "gain-", "forest-", "front-", "generations-", "frequencies-")
    drawn = export.figures(results, arrays, lambda name: name.startswith(starts) and not name.endswith("-narrow"))

    def some(start: str, most: int) -> list[export.Exported]:
        return [one for one in drawn if one.name.startswith(start)][:most]

    bars = some(f"bars-{results.metric}", 1) if len(Cast(results).order) == len(_names(results)) else []
    sizes = {one.cost.parameters for one in results.models.values() if one.cost}
    fronts = some("front-", len(drawn)) if len(sizes) >= LEAST_SIZES else []
    found = [*(bars or _gains(some("gain-", len(drawn)))), *some("forest-", 1), *fronts]
    chains = some("generations-", len(drawn))
    return [*some("tuning", 4), *found, *(chains or some("frequencies-", len(drawn)))]


def _gains(drawn: list[export.Exported]) -> list[export.Exported]:
    """The first of every compared pair, or two of the only one."""
    pairs: dict[str, list[export.Exported]] = {}
    for one in drawn:
        pairs.setdefault(one.name.partition("-across-")[0], []).append(one)
    if len(pairs) == 1:
        return drawn[:2]
    return [many[0] for many in pairs.values()][:4]


def _names(results: Results) -> set[str]:
    return {one.model for one in results.models.values()}


def core(results: Results, name: str, arrays: Figures | None = None, drawn: list[export.Exported] | None = None) -> str:
    """The generated part of a page, markers included. `drawn`: its figures, where they are made already."""
    cast = Cast(results)
    command = shipped(results, name) or f"potstill run docs/studies/{name}.toml"
    source = (results.data.get("plan") or {}).get("source") or {}
    command += "" if source.get("name") in NO_FILES else " --data DIR"
    parts = [BEGIN, f"<!-- Made by scripts/docs from {name}.json: edit outside these markers. -->"]
    parts += [f"```sh\n{command}\n```", _facts(cast)]
    parts += ["### Models", study_tables.markdown(tables.models(cast))]
    beside = published.table(cast)
    if beside:
        told = "; ".join(one.source for one in results.published)
        parts += ["### Published numbers", f"From: {escape(told)}.", study_tables.markdown(beside)]
    if results.verdicts:
        parts += ["### Verdicts", "\n".join(f"- {escape(verdict.sentence)}" for verdict in results.verdicts)]
    for head, made in study_tables.parts(cast, arrays):
        parts += [f"### {head}", *map(study_tables.markdown, made)]
    shown = figures(results, arrays) if drawn is None else drawn
    if shown:
        parts.append("### Figures")
        parts += [f"![{escape(f'{one.title}: {one.description}')}](figures/{name}-{one.name}.svg)" for one in shown]
    return "\n\n".join([*parts, END])


def _facts(cast: Cast) -> str:
    results, environment, data = cast.results, cast.results.environment, cast.results.data
    engine, libraries = environment.get("engine") or {}, environment.get("libraries") or {}
    precision = results.plan.get("training", {}).get("precision", "float32")
    examples = sorted({v.examples for v in results.verdicts if v.examples})
    redrawn = " of all seeds, drawn anew for each" if (data.get("plan") or {}).get("redraw") else ""
    rows = {
        "seeds": f"{len(results.seeds)}: {study_tables.seeds(results.seeds)}",
        "data": ", ".join(
            [str(((data.get("plan") or {}).get("source") or {}).get("name", "arrays"))]
            + [f"{fmt.count(data[key])} {what}" for key, what in _ROWS.items() if data.get(key)]
            + [f"{fmt.count(n)} test examples{redrawn}" for n in examples]
        ),
        **({"inputs": "; ".join(map(": ".join, cast.inputs.items()))} if cast.inputs else {}),
        "versions": ", ".join(
            [f"potstill {results.potstill}", f"Python {environment.get('python', '?')}"]
            + [f"{library} {libraries[library]}" for library in sorted(libraries)]
        ),
        "hardware": ", ".join(
            str(part) for part in (environment.get("cpu"), engine.get("cpu"), environment.get("system")) if part
        )
        + f"; {fmt.plural(environment.get('cores', 0), 'core')}; trained on {engine.get('device', 'cpu')}"
        + f", {precision}, matrix products {engine.get('matmul', '?')}",
        "time": f"{fmt.seconds(results.seconds)} with {fmt.plural(results.workers, 'worker')}",
        "test set": f"read {fmt.plural(results.test_reads.count, 'time')}, "
        f"{fmt.plural(results.test_reads.looks, 'look')}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {escape(text)} |" for name, text in rows.items())])


_ROWS = {"rows": "training rows", "validation_rows": "validation rows"}


def page(made: str, name: str, title: str, before: str | None) -> str:
    """The whole page: what was written by hand around the markers in `before`, and the generated part `made`."""
    if before is None:
        return NEW.format(title=title, core=made)
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise PotstillError(
            f"{name}.md has not one pair of the markers {BEGIN} and {END}; wanted is the generated part between them. "
            "Put them back around it, or move the page away."
        )
    return before.split(BEGIN)[0] + made + before.split(END)[1]


def files(folder: Path = STUDIES) -> dict[Path, str]:
    """Every file that the kept results lead to. A figure whose texts are right stays: drawing differs by version."""
    found = {}
    rows = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(FREQUENCIES):
            continue
        name, results = path.stem, read(path)
        found.update(_files(results, name, folder, read_arrays(path)))
        counts = {decision: sum(v.decision == decision for v in results.verdicts) for decision in GLYPH}
        told = ", ".join(f"{n} {decision}" for decision, n in counts.items() if n)
        rows.append(f"| [{escape(results.title)}]({name}.md) | {len(results.models)} | {len(results.seeds)} | {told} |")
    index = folder / "README.md"
    if index.is_file():
        head = ["| study | models | seeds | verdicts |", "|---|---:|---:|---|"]
        table = "\n".join([*head, *rows]) if rows else "No study is kept yet."
        before, rest = index.read_text(encoding="utf-8").split(BEGIN)
        found[index] = f"{before}{BEGIN}\n\n{table}\n\n{END}" + rest.split(END)[1]
    return found


def _files(results: Results, name: str, folder: Path, arrays: Figures | None) -> dict[Path, str]:
    path, drawn_anew = folder / f"{name}.md", figures(results, arrays)
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    found = {path: page(core(results, name, arrays, drawn_anew), name, results.title, before)}
    if shipped(results, name) is None:
        found[folder / f"{name}.toml"] = results.plan_toml
    for one in drawn_anew:
        drawn = folder / "figures" / f"{name}-{one.name}.svg"
        kept = drawn.read_text(encoding="utf-8") if drawn.is_file() else ""
        found[drawn] = kept if _texts(kept) == _texts(one.svg) else one.svg
    return found


def _texts(svg: str) -> str:
    """What a figure says: title, description with the numbers, labels."""
    return "\n".join(re.findall(r"<(?:title|desc|text)[^>]*>([^<]*)<", svg))


def orphans(made: dict[Path, str], folder: Path = STUDIES) -> list[Path]:
    """Figures and plans that no kept results lead to any more."""
    return [path for kind in ("figures/*.svg", "*.toml") for path in sorted(folder.glob(kind)) if path not in made]


def write(folder: Path = STUDIES) -> None:
    """Write every page, plan and figure; take away those that belong to none."""
    made = files(folder)
    for path, text in made.items():
        storage.write_text(path, text)
    for path in orphans(made, folder):
        path.unlink()


def main(arguments: list[str]) -> int:
    """`study RUN [NAME]`: keep a run's results, write its page and figures."""
    if len(arguments) not in (1, 2):
        print("Usage: scripts/docs study RUN [NAME]", file=sys.stderr)
        return 2
    run = Path(arguments[0])
    name = arguments[1] if len(arguments) == 2 else run.resolve().name
    try:
        keep(run, name)
        write()
    except PotstillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(STUDIES / f"{name}.md")
    return 0
