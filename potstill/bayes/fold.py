"""Batch norms folded into the layers before them: the same answers in evaluation mode, from a chain of plain layers."""

from __future__ import annotations

import copy

import torch
from torch import nn

from potstill.bayes.layout import is_network
from potstill.errors import PosteriorError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode in which no batch norm is left; the network stays as it is.

    A batch norm right after a linear or convolution layer is a scale and an offset of that layer's answers, from its
    running statistics: weight * a and (bias - mean) * a + offset, a = scale / sqrt(variance + eps). Raises
    `PosteriorError` for a batch norm that stands elsewhere, or that keeps no running statistics.
    """
    is_network(network)
    folded = copy.deepcopy(network).eval()
    for path, sequence in list(folded.named_modules()):
        if type(sequence) is nn.Sequential:
            _fold_sequence(sequence, path)
    left = next((name for name, module in folded.named_modules() if isinstance(module, _NORMS)), None)
    if left is not None:
        raise PosteriorError(f"{left} cannot be folded: it does not stand right after a linear or convolution layer.")
    return folded


def _fold_sequence(sequence: nn.Sequential, path: str) -> None:
    before: nn.Module | None = None
    for name, child in list(sequence._modules.items()):
        if isinstance(child, _NORMS) and isinstance(before, nn.Linear | nn.Conv2d):
            _fold_into(before, child, f"{path}.{name}".lstrip("."))
            del sequence._modules[name]
        else:
            before = child


def _fold_into(layer: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d, path: str) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise PosteriorError(f"{path} keeps no running statistics: what it does depends on the batch.")
    with torch.no_grad():
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        offset = torch.zeros_like(scale) if norm.bias is None else norm.bias
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias = nn.Parameter((bias - norm.running_mean) * scale + offset)
