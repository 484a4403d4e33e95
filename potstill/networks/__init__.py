"""Networks by name, and models: a network with what it knows of its data."""

from potstill.networks.build import ON_WORDS, REGISTRY, Builder, build, cost, forward, label, names, seeded
from potstill.networks.model import Model, load
from potstill.networks.start import Start, locate, start_from

__all__ = [
    "ON_WORDS",
    "REGISTRY",
    "Builder",
    "Model",
    "Start",
    "build",
    "cost",
    "forward",
    "label",
    "load",
    "locate",
    "names",
    "seeded",
    "start_from",
]
