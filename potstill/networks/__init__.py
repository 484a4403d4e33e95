"""Networks by name, and models: a network with what it knows of its data."""

from potstill.networks.build import NOT_YET, REGISTRY, Builder, build, cost, forward, label, names, seeded
from potstill.networks.model import Model, load, start_from

__all__ = [
    "NOT_YET",
    "REGISTRY",
    "Builder",
    "Model",
    "build",
    "cost",
    "forward",
    "label",
    "load",
    "names",
    "seeded",
    "start_from",
]
