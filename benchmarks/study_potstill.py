"""The study in potstill: the shipped plan with its epochs fixed, once part by part and once whole.

Part by part: the plan is cut down to the models of a part and those before it, and run in the same folder; running
again runs only what is missing. What every run does besides training is counted each time: reading and hashing the
data, recording, saving, predictions on validation and test data, results.json. Latency is left out, as the peers do.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from potstill.study.plan import Plan
from potstill.study.study import Study

PLAN = "mnist-hard-vs-distilled"
STAGES = {
    "large": ["large"],
    "members": ["ensemble"],
    "alone": ["alone"],
    "students": ["from-large", "from-ensemble"],
}
WARM = {
    "title": "Warm-up", "seeds": 2, "data": {"source": "digits", "test": 600, "validation": 100},
    "training": {"steps": 20}, "models": {"teacher": {"network": "mlp:10"}, "alone": {"network": "mlp:10"},
    "student": {"network": "mlp:10", "teacher": "teacher"}},
}  # fmt: skip


def cut(models: list[str], epochs: int, seeds: list[int]) -> dict[str, Any]:
    """The plan's tables with these models only, a fixed number of epochs, the last weights kept, and no latency."""
    tables = Plan.load(PLAN).to_dict()
    tables["models"] = {name: table for name, table in tables["models"].items() if name in models}
    tables["training"] |= {"epochs": epochs, "patience": 0, "select": "last"}
    tables["seeds"] = seeds
    tables["evaluation"] = {"latency": {"batch": []}}
    tables.pop("published", None)
    if "alone" not in models:
        tables["verdict"].pop("baseline")
    return tables


def run(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Stage by stage, then the whole in another folder. The workers have started and imported torch before."""
    Study.open(WARM, folder=folder / "warm").run(workers=2)
    parts, models = {}, []
    for part, added in STAGES.items():
        models += added
        study = Study.open(cut(models, task["epochs"], task["seeds"]), folder=folder / "parts", data=task["folder"])
        began = time.perf_counter()
        study.run(workers=2)
        parts[part] = time.perf_counter() - began
    study = Study.open(cut(models, task["epochs"], task["seeds"]), folder=folder / "whole", data=task["folder"])
    began = time.perf_counter()
    results = study.run(workers=2)
    seconds = time.perf_counter() - began
    accuracy = {
        name: sorted(1 - error for error in model.metrics["error_rate"].values)
        for name, model in results.models.items()
    }
    return {"seconds": seconds, "parts": parts, "accuracy": accuracy}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(json.loads(sys.argv[1]), Path(scratch))))
