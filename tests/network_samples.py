"""Networks as the tests of all networks take them: deep ones are narrow there, and have few blocks."""

from __future__ import annotations

from typing import Any

from potstill import networks

NARROW: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 2, "dense": 8},
    "preact_resnet": {"width": 4, "depths": [1, 1, 1]},
    "resnet_in_resnet": {"width": 2, "depths": [1, 1]},
    "multilevel_resnet": {"width": 4, "depths": [1, 2]},
    "densenet": {"growth": 3, "depths": [2, 2]},
    "fractalnet": {"channels": [4, 4], "dropout": 0.2},
    "polynet": {"width": 12, "depths": [1, 1, 1]},
    "mobile": {"width": 4, "depths": [1, 2]},
    "airbench": {"width": 4},
    **{f"resnet{depth}": {"width": 4} for depth in (18, 34, 50)},
}
SMALL = {name: {"name": name, **NARROW[name]} if name in NARROW else name for name in networks.names()}
