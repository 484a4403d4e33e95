"""Networks as the tests of all networks take them: deep ones are narrow there."""

from __future__ import annotations

from potstill import networks

SMALL = {name: f"{name}:4" if name.startswith("resnet") else name for name in networks.names()}
