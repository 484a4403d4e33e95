"""A toy plan on the digits, and how tests change and run it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

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
    "evaluation": {"latency": {"batch": [], "threads": [1]}},
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


def odd_or_even(**changes: Any) -> dict[str, Any]:
    """A binary plan: is the digit of a picture odd? A teacher, a baseline, a student, a chain of three generations."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = (digits.images * 15).astype(np.uint8)
    student = {"network": "mlp:6", "teacher": "teacher"}
    plan = changed(
        BASE,
        title="Odd or even",
        seeds=3,
        data={"source": (pictures, np.array(["even", "odd"])[digits.target % 2]), "task": "binary", "test": 300,
              "validation": 100},
        training__augment=["flip", {"name": "shift", "fraction": 0.15}],
        models__alone__network="mlp:6",
        models__taught=student | {"objective": "soft_labels"},
        models__chain=student | {"objective": "soft_labels", "generations": 3},
        evaluation__splits=["train", "validation", "test"],
    )  # fmt: skip
    return changed(plan, **changes)
