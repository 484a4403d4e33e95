"""Rebuilds docs/reference.md and docs/results.schema.json from the code; `--check` only tells whether they are up to date."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from potstill import metrics, networks, objectives
from potstill.data import views
from potstill.registry import Registry
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.training import optimizers

HERE = Path(__file__).parent


def reference() -> str:
    """Every name a plan may use, with its keys, from the functions' signatures and docstrings."""
    parts = ["# Names and keys", "", "Made by `scripts/docs` from the signatures in the code.", ""]
    for title, registry in (
        ("Networks", networks.REGISTRY),
        ("Objectives", objectives.REGISTRY),
        ("Optimizers", optimizers.REGISTRY),
        ("Schedules", optimizers.SCHEDULES),
        ("Augmentations", views.REGISTRY),
    ):
        parts += [f"## {title}", "", *_table(registry), ""]
    parts += ["## Metrics", "", "| name | better |", "|---|---|"]
    parts += [f"| `{name}` | {metrics.get(name, classes=2).better} |" for name in metrics.names()]
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


def main() -> int:
    """Write both files, or check them."""
    wanted = {HERE / "reference.md": reference(), HERE / "results.schema.json": schema()}
    stale = [path.name for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        if stale:
            print(f"Out of date: {', '.join(stale)}. Run scripts/docs.", file=sys.stderr)
        return bool(stale)
    for path, text in wanted.items():
        path.write_text(text)
    print(f"Wrote {', '.join(stale) or 'nothing: all is up to date'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
