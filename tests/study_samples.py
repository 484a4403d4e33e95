"""A toy plan on the digits, and how tests change and run it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from potstill.study.results import Results
from potstill.study.study import Study

BASE: dict[str, Any] = {
    "data": {"source": "digits", "test": 300, "validation": 100, "labelled": 200},
    "training": {"steps": 40, "batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 0.01}},
    "models": {
        "teacher": {"network": "mlp:16"},
        "alone": {"network": "mlp:4"},
        "taught": {"network": "mlp:4", "teacher": "teacher", "objective": {"name": "hinton", "temperature": 2.0}},
    },
    "evaluation": {"latency": {"batch": [1], "threads": [1]}},
}


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A plan with dotted keys (`__` for a dot) replaced; None takes a key out."""
    plan = copy.deepcopy(base)
    for key, value in changes.items():
        *path, last = key.split("__")
        table = plan
        for part in path:
            table = table.setdefault(part, {})
        table.pop(last, None)
        if value is not None:
            table[last] = value
    return plan


def run(plan: dict[str, Any], folder: Path, **arguments: Any) -> Results:
    """The results of a plan, by one worker unless it says otherwise."""
    return Study.open(plan, folder=folder).run(**({"workers": 1} | arguments))
