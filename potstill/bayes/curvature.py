"""How sharply the likelihood bends at a network's weights: the diagonal of its generalised Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from potstill import units
from potstill.bayes.layout import Layout
from potstill.engine import at_once
from potstill.errors import DataError, PosteriorError
from potstill.types import Source, Task


class Curvature(NamedTuple):
    """`diagonal` (P,) float64: sum over `rows` labelled rows of h_jj; `loss`: their negative log-likelihood in nats.

    Of a regression for a noise variance of 1, in the units in which the network answers: `loss` is then half the sum of
    squares; divide both by the noise variance for another one. `numbers` is rows times targets.
    """

    diagonal: Tensor
    loss: float
    rows: int
    numbers: int


def diagonal_ggn(network: nn.Module, source: Source, *, batch_size: int | None = None) -> Curvature:
    """The diagonal of the generalised Gauss-Newton matrix of the negative log-likelihood of a source's labelled rows.

    sum_n J_n^T L_n J_n, J_n the derivatives of the outputs by the weights, L_n the second derivative of the negative
    log-likelihood by the outputs: diag(p) - p p^T for several classes, p (1 - p) for one logit, the identity for a
    regression (noise variance 1). Exact, in one backward pass per output and batch: L_n = sum_c l_c l_c^T.

    The network is taken in evaluation mode. Raises `PosteriorError` for batch norms (`fold` them first), other
    parameters than those of linear and convolution layers, convolutions in groups; `DataError` without labelled rows.
    """
    layout = Layout.of(network)
    layers = _layers(network, layout)
    if not hasattr(source, "labelled"):
        raise PosteriorError(f"Found a {type(source).__name__}; wanted is one of its parts, such as data.train.")
    rows = source.labelled.nonzero().flatten()
    if len(rows) == 0:
        raise DataError("No row carries a label, so there is no likelihood whose curvature could be computed.")
    batch_size = batch_size or at_once(source.spec.shape, 256)
    training, device = network.training, next(network.parameters()).device
    network.eval()
    total, loss = torch.zeros(layout.size, dtype=torch.float64), 0.0
    try:
        with _watched(layers) as watched:
            for index in torch.split(rows, batch_size):
                found = units.learnt_batch(source.fetch(index), source.spec.scaling)  # type: ignore[arg-type]
                outputs = network(found.inputs.to(device))
                roots, value = _roots(outputs, found.labels.to(device), source.spec.task)
                loss += value
                for root in roots:
                    watched.gradients.clear()
                    outputs.backward(root, retain_graph=True)
                    total += watched.squares(layout)
    finally:
        network.train(training)
        network.zero_grad(set_to_none=True)
    return Curvature(total, loss, len(rows), len(rows) * source.spec.outputs)


def _layers(network: nn.Module, layout: Layout) -> dict[str, nn.Module]:
    modules = dict(network.named_modules())
    layers = {layer.name: modules[layer.name] for layer in layout.layers}
    own = {id(p) for module in layers.values() for p in module.parameters(recurse=False)}
    other = [name for name, p in network.named_parameters() if id(p) not in own]
    if other:
        raise PosteriorError(f"{other[0]} belongs to no linear or convolution layer (batch norms: bayes.fold).")
    norm = next((n for n, m in modules.items() if isinstance(m, nn.modules.batchnorm._NormBase)), None)
    if norm is not None:
        raise PosteriorError(f"{norm} is a {type(modules[norm]).__name__}: fold it first (bayes.fold).")
    grouped = next((n for n, m in layers.items() if isinstance(m, nn.Conv2d) and m.groups > 1), None)
    if grouped is not None:
        raise PosteriorError(f"{grouped} is a convolution in groups, whose curvature is not built.")
    return layers


def _roots(outputs: Tensor, labels: Tensor, task: Task) -> tuple[Iterator[Tensor], float]:
    """The vectors l_c (B, K) of a batch, one after the other, and its negative log-likelihood."""
    z = outputs.detach()
    if task == "regression":
        loss = 0.5 * float((z.double() - labels.double()).square().sum())
        return (torch.eye(z.shape[1], device=z.device)[c].expand_as(z) for c in range(z.shape[1])), loss
    if task == "binary":
        p = z.sigmoid()
        signed = torch.where(labels[:, None] == 1, z, -z).double()
        return iter([(p * (1 - p)).sqrt()]), -float(nn.functional.logsigmoid(signed).sum())
    logs = z.double().log_softmax(1)
    p = logs.exp().float()
    loss = -float(logs.gather(1, labels[:, None]).sum())
    # diag(p) - p p^T = sum_c p_c (e_c - p) (e_c - p)^T
    ones = torch.eye(z.shape[1], device=z.device)
    return (p[:, c : c + 1].sqrt() * (ones[c] - p) for c in range(z.shape[1])), loss


@final
class _Watched:
    """What enters each layer, and the gradient by what leaves it."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.layers = layers
        self.inputs: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def squares(self, layout: Layout) -> Tensor:
        """(P,): the sum over the batch of each example's squared gradient."""
        found: dict[str, Tensor] = {}
        for layer in layout.layers:
            own, inputs, gradient = self.layers[layer.name], self.inputs[layer.name], self.gradients[layer.name]
            if isinstance(own, nn.Conv2d):
                weight, bias = _convolution(own, inputs, gradient)
            elif inputs.dim() == 2:
                weight, bias = gradient.square().T @ inputs.square(), gradient.square().sum(0)
            else:
                raise PosteriorError(f"{layer.name} takes inputs of {inputs.dim()} axes; wanted are rows (batch, in).")
            found[f"{layer.name}.weight"] = weight.reshape(layer.weight)
            if layer.bias:
                found[f"{layer.name}.bias"] = bias
        return layout.flat(found)


def _convolution(layer: nn.Conv2d, inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """An example's gradient is a sum over positions, and squared after it."""
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        inputs = nn.functional.pad(
            inputs,
            layer._reversed_padding_repeated_twice,
            mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        )
        padding: tuple[int, ...] = (0, 0)
    else:
        padding = tuple(layer.padding)
    kernel = (layer.kernel_size[0], layer.kernel_size[1])
    patches = unfold(inputs, kernel, layer.dilation, padding, layer.stride)
    each = torch.einsum("bop,bip->boi", gradient.flatten(2), patches)
    return each.square().sum(0), gradient.flatten(2).sum(2).square().sum(0)


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[_Watched]:
    watched = _Watched(layers)
    handles = []
    for name, module in layers.items():

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            watched.inputs[name] = inputs[0].detach()
            output.register_hook(lambda found: watched.gradients.update({name: found}))  # type: ignore[no-untyped-call]

        handles.append(module.register_forward_hook(keep))
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()
