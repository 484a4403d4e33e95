"""Building blocks of networks: what torch does not have."""

from potstill.networks.blocks.fractal import LOCAL, Choice, Fractal
from potstill.networks.blocks.inception import Branches, Kind, PolyInception, Steps, inception
from potstill.networks.blocks.layers import (
    DropConnect,
    LocallyConnected,
    Padded,
    activation,
    convolution,
    he_normal,
    separable,
)
from potstill.networks.blocks.residual import (
    DenseLayer,
    PreActivation,
    Residual,
    ResnetInResnet,
    Streams,
    dense_block,
    projection,
)

__all__ = [
    "LOCAL",
    "Branches",
    "Choice",
    "DenseLayer",
    "DropConnect",
    "Fractal",
    "Kind",
    "LocallyConnected",
    "Padded",
    "PolyInception",
    "PreActivation",
    "Residual",
    "ResnetInResnet",
    "Steps",
    "Streams",
    "activation",
    "convolution",
    "dense_block",
    "he_normal",
    "inception",
    "projection",
    "separable",
]
