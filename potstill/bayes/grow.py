"""Larger networks' posteriors from smaller ones': neurons and layers added, which the paper does not cover.

The answers at the means stay what they were, for both ways to add neurons and for added layers (Chen, Goodfellow and
Shlens 2016, "Net2Net").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from potstill.bayes.layout import RELU, Layer, Layout
from potstill.bayes.posterior import Diagonal, GaussianPosterior
from potstill.bayes.reduce import cannot_drop, keeps_sign
from potstill.errors import PosteriorError
from potstill.seeding import permutation

Wider: TypeAlias = Literal["error", "prior", "net2net"]


def add_neurons(
    posterior: GaussianPosterior,
    layer: int | str,
    count: int,
    *,
    how: Wider = "net2net",
    variance: float = 1.0,
    seed: int = 0,
) -> GaussianPosterior:
    """The posterior with `count` more neurons (channels) in a hidden layer, by name or place (from 0), after its own.

    `"prior"`: new neurons have incoming weights, biases and outgoing weights N(0, variance): at the means nothing hears
    them. `"net2net"`: copies of neurons drawn by the key `seed`; what the next layer multiplies a neuron's c copies by
    has mean / c and variance / c each, so that their sum is what it was. Raises `PosteriorError` for a posterior that
    is not diagonal (what a copy goes together with is not known), a layer that is not hidden, and for `"error"`.
    """
    layout = posterior.layout
    layout.chain()
    number = layout.hidden(layer)
    own, following = layout.layers[number], layout.layers[number + 1]
    if how == "error":
        raise PosteriorError(
            f"{own.name} has {own.outputs} neurons and shall have {own.outputs + count}. "
            'Say what the new ones are: wider = "prior" or "net2net".'
        )
    variances = _variances(posterior, f"{own.name} wider")
    if how == "net2net":
        order = permutation(own.outputs, "net2net", own.name, seed)
        sources = torch.cat([torch.arange(own.outputs), order.repeat(-(-count // own.outputs))[:count]])
        copies = torch.bincount(sources, minlength=own.outputs)[sources].double()
    elif how == "prior":
        sources, copies = torch.arange(own.outputs), torch.ones(own.outputs, dtype=torch.float64)
    else:
        raise PosteriorError(f'wider is "{how}"; wanted is "error", "prior" or "net2net".')
    total = own.outputs + count
    layers = list(layout.layers)
    layers[number] = replace(own, weight=(total, *own.weight[1:]))
    layers[number + 1] = replace(following, weight=(following.outputs, total * own.spread, *following.kernel))
    larger = layout.with_layers(layers)
    flats = []
    for flat, fill in ((posterior.mean, 0.0), (variances, variance)):
        tensors = layout.tensors(flat)
        for part in ("weight", "bias") if own.bias else ("weight",):
            rows = tensors[f"{own.name}.{part}"][sources]
            tensors[f"{own.name}.{part}"] = _padded(rows, total, fill, axis=0)
        tensors[f"{following.name}.weight"] = _columns(
            tensors[f"{following.name}.weight"], own, total, sources=sources, copies=copies, fill=fill
        )
        flats.append(larger.flat(tensors))
    return GaussianPosterior(larger, flats[0], Diagonal(flats[1]), posterior.info)


def add_layer(posterior: GaussianPosterior, layer: int | str, name: str, *, variance: float = 1.0) -> GaussianPosterior:
    """The posterior with a layer of the same kind and width after a hidden one, by name or place (from 0).

    It is psi backwards: means are the identity (a centred delta kernel) and 0, which after a ReLU changes nothing;
    every number has the same variance. What stands after that layer stands after both. Raises `PosteriorError` where
    the identity is not to be had, or the posterior is not diagonal.
    """
    layout = posterior.layout
    layout.chain()
    number = layout.hidden(layer)
    own = layout.layers[number]
    variances = _variances(posterior, f"{own.name} twice")
    before = replace(own, after=(RELU,) if own.kernel else own.after, spread=1)
    settings = _same(own) if own.kernel else ""
    new = Layer(name, (own.outputs, own.outputs, *own.kernel), own.bias, 0, settings, own.after, own.spread)
    larger = layout.with_layers([*layout.layers[:number], before, new, *layout.layers[number + 1 :]])
    reason = cannot_drop(larger, number + 1)
    if reason:
        raise PosteriorError(f"No layer can be put after {own.name}: {reason}.")
    means, spread = layout.tensors(posterior.mean), layout.tensors(variances)
    identity = torch.zeros(new.weight, dtype=torch.float64)
    torch.nn.init.dirac_(identity) if new.kernel else torch.nn.init.eye_(identity)
    means[f"{name}.weight"], means[f"{name}.bias"] = identity, torch.zeros(new.outputs, dtype=torch.float64)
    spread[f"{name}.weight"] = torch.full_like(identity, variance)
    spread[f"{name}.bias"] = torch.full((new.outputs,), variance, dtype=torch.float64)
    return GaussianPosterior(larger, larger.flat(means), Diagonal(larger.flat(spread)), posterior.info)


def can_repeat(layout: Layout, number: int) -> bool:
    """Whether a layer can be put after the hidden layer `number`."""
    own = layout.layers[number]
    odd = all(size % 2 for size in own.kernel)
    return RELU in own.after and odd and all(map(keeps_sign, own.after))


def _same(own: Layer) -> str:
    padding = tuple((size - 1) // 2 for size in own.kernel)
    return f"stride (1, 1), padding {padding}, dilation (1, 1)"


def _variances(posterior: GaussianPosterior, what: str) -> Tensor:
    if not isinstance(posterior.covariance, Diagonal):
        raise PosteriorError(
            f"{what}: only a diagonal posterior grows, this one is {posterior.kind}. Take posterior.diagonal()."
        )
    return posterior.covariance.variance


def _padded(tensor: Tensor, total: int, fill: float, *, axis: int) -> Tensor:
    shape = list(tensor.shape)
    shape[axis] = total - shape[axis]
    return torch.cat([tensor, torch.full(shape, fill, dtype=tensor.dtype)], axis)


def _columns(weight: Tensor, own: Layer, total: int, *, sources: Tensor, copies: Tensor, fill: float) -> Tensor:
    """The next layer's weights with a group of columns for every neuron, shared by a neuron's copies."""
    groups = weight.reshape(weight.shape[0], own.outputs, -1)[:, sources] / copies[None, :, None]
    whole = _padded(groups, total, fill, axis=1)
    return whole.reshape(weight.shape[0], total * own.spread, *weight.shape[2:])
