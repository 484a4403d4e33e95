"""Rebuilds docs/reference.md, results.schema.json, sizes in networks.md, the README's tour and the pages of studies.

`--check` only compares. `study RUN [NAME]` keeps a run as a page of docs/studies.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import study_page
import torch

from potstill import bayes, metrics, networks, objectives
from potstill.data import declared, named, views
from potstill.networks.catalogue import EXAMPLES
from potstill.registry import Registry
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.training import optimizers

HERE = Path(__file__).parent
ROOT = HERE.parent
BEGIN, END = "<!-- tour: made by scripts/docs -->", "<!-- end of tour -->"
SIZES_BEGIN, SIZES_END = "<!-- sizes: made by scripts/docs -->", "<!-- end of sizes -->"
LATENCY = HERE / "networks-latency.json"  # potstill networks --latency --json


def reference() -> str:
    """Every name a plan may use, with its keys, from the functions' signatures and docstrings."""
    parts = ["# Names and keys", "", "Made by `scripts/docs` from the signatures in the code.", ""]
    for title, registry in (
        ("Networks", networks.REGISTRY),
        ("Objectives", objectives.REGISTRY),
        ("Optimizers", optimizers.REGISTRY),
        ("Schedules", optimizers.SCHEDULES),
        ("Augmentations", views.registry),
        ("Data sources", named.registry),
        ("Kinds of inputs", declared.registry),
        ("Inference", bayes.REGISTRY),
        ("Orders of neurons", bayes.ORDERS),
    ):
        parts += [f"## {title}", "", *_table(registry), ""]
    for title, values in (("Metrics", False), ("Metrics of a regression", True)):
        parts += [f"## {title}", "", "| name | better |", "|---|---|"]
        parts += [f"| `{name}` | {metrics.declared(name).better} |" for name in metrics.names(regression=values)]
        parts += [""]
    parts.pop()
    parts += ["", "## Plans", "", "| name | title | needs | time |", "|---|---|---|---|"]
    for name in Plan.names():
        about = Plan.about(name)
        parts.append(f"| `{name}` | {about['title']} | {about['needs']} | {about['time']} |")
    return "\n".join(parts) + "\n"


def _table(registry: Registry) -> list[str]:
    rows = ["| name | what | keys |", "|---|---|---|"]
    for name in registry:
        doc = (inspect.getdoc(registry.table[name]) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        keys = ", ".join(f"`{key} = {_value(default)}`" for key, (_, default) in registry.parameters(name).items())
        rows.append(f"| `{name}` | {doc} | {keys or '-'} |")
    return rows


def _value(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "..."
    return json.dumps(list(default) if isinstance(default, tuple) else default)


def schema() -> str:
    """The JSON Schema of results.json."""
    return json.dumps(Results.model_json_schema(), indent=1, sort_keys=True) + "\n"


def sizes() -> str:
    """docs/networks.md with the table of sizes; times are those of the last measurement that was kept."""
    kept = json.loads(LATENCY.read_text()) if LATENCY.is_file() else {"machine": None, "networks": []}
    times = {row["title"]: f"{row['latency_ms']:.3g}" for row in kept["networks"]}
    rows = [
        "| | network | examples | outputs | parameters | multiply-adds | ms | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for example in EXAMPLES:
        with torch.device("meta"):
            network = networks.build(example.network, example.shape, example.outputs)
            parameters, multiply_adds, _ = networks.cost(network, example.shape)
        cells = [
            example.title,
            f"`{_toml(example.network)}`",
            " x ".join(map(str, example.shape)),
            f"{example.outputs:,}",
            f"{parameters:,}",
            f"{multiply_adds:,}",
            times.get(example.title, ""),
            example.published,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    machine = kept["machine"]
    told = (
        f"ms: the median processor time of one example's prediction in float32, with one thread of {machine}."
        if machine
        else "ms: `potstill networks --latency`."
    )
    before, rest = (HERE / "networks.md").read_text().split(SIZES_BEGIN)
    return f"{before}{SIZES_BEGIN}\n\n" + "\n".join(rows) + f"\n\n{told}\n\n{SIZES_END}" + rest.split(SIZES_END)[1]


def _toml(network: Any) -> str:
    """As a plan has it."""
    if isinstance(network, str):
        return network
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in network.items()) + " }"


def tour() -> str:
    """The README with the first sentence of every module's docstring in its tour."""
    rows = []
    for path in sorted((ROOT / "potstill").rglob("*.py"), key=lambda p: (len(p.parts) > len(ROOT.parts) + 2, p)):
        doc = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(f"    {path.relative_to(ROOT / 'potstill')!s:<27} {_first_sentence(doc)}")
    before, rest = (ROOT / "README.md").read_text().split(BEGIN)
    return f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}" + rest.split(END)[1]


def _first_sentence(text: str) -> str:
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def main() -> int:
    """Write the files, or check them."""
    if sys.argv[1:2] == ["study"]:
        return study_page.main(sys.argv[2:])
    wanted = {
        HERE / "reference.md": reference(),
        HERE / "results.schema.json": schema(),
        ROOT / "README.md": tour(),
        HERE / "networks.md": sizes(),
        **(studies := study_page.files()),
    }
    stale = [path.name for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    orphans = study_page.orphans(studies)
    stale += [path.name for path in orphans]
    if "--check" in sys.argv:
        if stale:
            print(f"Out of date: {', '.join(stale)}. Run scripts/docs.", file=sys.stderr)
        return bool(stale)
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for path in orphans:
        path.unlink()
    print(f"Wrote {', '.join(stale) or 'nothing: all is up to date'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
