"""Data: sources, splits, views. See `open`.

The names are loaded when they are first used: a process that only decodes pictures need not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.data import views
    from potstill.data.loose import inputs, read_array
    from potstill.data.named import check, drawn, has_truth, names, options
    from potstill.data.opened import Data
    from potstill.data.opening import open
    from potstill.data.source import ArraySource
    from potstill.data.truth import Truth

_WHERE = {
    "ArraySource": "source",
    "Data": "opened",
    "check": "named",
    "Truth": "truth",
    "drawn": "named",
    "has_truth": "named",
    "inputs": "loose",
    "names": "named",
    "open": "opening",
    "options": "named",
    "read_array": "loose",
}

__all__ = [
    "ArraySource",
    "Data",
    "Truth",
    "check",
    "drawn",
    "has_truth",
    "inputs",
    "names",
    "open",
    "options",
    "read_array",
    "views",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"potstill.data.{_WHERE[name]}"), name)
    if name == "views":
        return import_module("potstill.data.views")
    raise AttributeError(f"module 'potstill.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
