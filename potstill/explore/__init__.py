"""Structure and statistics of a data set, and what a user should look at in it. See `explore`.

The names are loaded when they are first used: the report reads what was found without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.explore.found import Exploration
    from potstill.explore.whole import explore

_WHERE = {"Exploration": "found", "explore": "whole"}

__all__ = ["Exploration", "explore"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"potstill.explore.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'potstill.explore' has no attribute {name!r}")
