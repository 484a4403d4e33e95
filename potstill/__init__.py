"""potstill: a small model from a big one, and an interval that says whether distilling beat plain training.

The public names are loaded when they are first used: importing potstill does not import torch.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill import bayes, data, errors, losses, metrics, networks, objectives, outputs, report, teachers
    from potstill.evaluation import evaluate
    from potstill.networks.model import load
    from potstill.outputs.record import record
    from potstill.study.study import Study
    from potstill.training.fit import fit

_WHERE = {
    "Study": "potstill.study.study",
    "evaluate": "potstill.evaluation",
    "fit": "potstill.training.fit",
    "load": "potstill.networks.model",
    "record": "potstill.outputs",
}
_MODULES = ("bayes", "data", "errors", "losses", "metrics", "networks", "objectives", "outputs", "report", "teachers")

__all__ = [
    "Study",
    "bayes",
    "data",
    "errors",
    "evaluate",
    "fit",
    "load",
    "losses",
    "metrics",
    "networks",
    "objectives",
    "outputs",
    "record",
    "report",
    "teachers",
]
__version__ = metadata.version("potstill")


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _MODULES:
        return import_module(f"potstill.{name}")
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
