"""Smaller networks' posteriors from larger ones': neurons and layers removed (Grabovoy and Strijov 2021, with the
slips of print put right).

Removing neuron j of a layer conditions on its outgoing weights being 0 - nothing hears it any more - and then leaves
out its incoming weights and bias, of which the answers no longer depend. Removing a layer conditions on it being the
identity, or multiplies it with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from potstill.bayes.layout import RELU, Layer, Layout
from potstill.bayes.posterior import Blocks, Diagonal, Full, GaussianPosterior, cholesky
from potstill.errors import PosteriorError

Layers: TypeAlias = Literal["drop", "merge"]


def remove_neurons(
    posterior: GaussianPosterior, layer: int | str, neurons: Sequence[int], *, shift_means: bool = True
) -> GaussianPosterior:
    """The posterior without some neurons (channels) of a hidden layer, by name or place (from 0): phi of the paper.

    xi are their outgoing weights, the columns of the next layer; rho their rows here, with their biases:
    m' = m - S_(.,xi) S_(xi,xi)^-1 m_xi and S' = S - S_(.,xi) S_(xi,xi)^-1 S_(xi,.), then both without xi and rho.
    On a full posterior that is Optimal Brain Surgeon's update (Hassibi and Stork 1993), on a diagonal one plain
    selection. The paper's count of 2 n removed numbers holds only for equal layers. `shift_means` False leaves the
    other means where they are: for more than a few neurons the shift, right in a quadratic, leads astray in a network.
    Neurons of one layer may go one after the other, in any order; of neighbouring layers the order matters where
    weights go together, because a row that was left out tells nothing any more.

    Raises `PosteriorError` for a layer that is not hidden, unknown neurons, or a layer without neurons.
    """
    layout = posterior.layout
    layout.chain()
    number = layout.hidden(layer)
    own = layout.layers[number]
    chosen = sorted(set(neurons))
    if not chosen:
        return posterior
    if chosen[0] < 0 or chosen[-1] >= own.outputs or len(chosen) == own.outputs:
        raise PosteriorError(
            f"{own.name} has {own.outputs} neurons; {chosen} cannot be removed (numbers from 0; one has to stay)."
        )
    silent = layout.outgoing(number, chosen).flatten()
    gone = torch.cat([silent, layout.incoming(number, chosen).flatten()])
    layers, following = list(layout.layers), layout.layers[number + 1]
    layers[number] = replace(own, weight=(own.outputs - len(chosen), *own.weight[1:]))
    columns = following.weight[1] - len(chosen) * own.spread
    layers[number + 1] = replace(following, weight=(following.outputs, columns, *following.kernel))
    values = torch.zeros(len(silent), dtype=torch.float64)
    return given(posterior, silent, values, gone=gone, layout=layout.with_layers(layers), shift_means=shift_means)


def remove_layer(
    posterior: GaussianPosterior, layer: int | str, how: Layers = "drop", *, shift_means: bool = True
) -> GaussianPosterior:
    """The posterior without a layer, by name or place (from 0), which is not the last: psi of the paper.

    `"drop"` conditions on the layer being the identity (a convolution: on the centred delta kernel) and its biases
    being 0. The layer before it has as many neurons, and what stands between is a ReLU, which done twice is a ReLU.
    The next layer then reads neurons that it never saw.

    `"merge"` leaves out what stands between the layer and the next, and takes the product of both linear layers, with
    the exact means and variances of its elements: M3 M2 and V3 (M2^2) + (M3^2) V2 + V3 V2 (squares elementwise),
    biases M3 b2 + b3 and B3 + V3 (b2^2) + (M3^2) B2 + V3 B2. Not in the paper. It needs a diagonal posterior, and the
    result leaves out how the product's elements go together.

    Raises `PosteriorError` where a layer cannot be removed so, saying why.
    """
    layout = posterior.layout
    layout.chain()
    number = layout.hidden(layer)
    own = layout.layers[number]
    if how == "merge":
        return _merge(posterior, number)
    if how != "drop":
        raise PosteriorError(f'Layers are removed by "drop" or "merge"; found "{how}".')
    reason = cannot_drop(layout, number)
    if reason:
        raise PosteriorError(f"{own.name} cannot be removed: {reason}.")
    before = layout.layers[number - 1]
    layers = [one for one in layout.layers if one is not own]
    layers[number - 1] = replace(before, after=joined(before.after, own.after), spread=own.spread)
    gone = torch.arange(own.block.start, own.block.stop)
    identity = torch.zeros(own.weight, dtype=torch.float64)
    torch.nn.init.dirac_(identity) if own.kernel else torch.nn.init.eye_(identity)
    values = torch.cat([identity.flatten(), torch.zeros(own.size - own.weights, dtype=torch.float64)])
    return given(posterior, gone, values, gone=gone, layout=layout.with_layers(layers), shift_means=shift_means)


def cannot_drop(layout: Layout, number: int) -> str:
    """Why layer `number` cannot be the identity; empty where it can."""
    own = layout.layers[number]
    if number == 0:
        return "it is the first, and no ReLU stands before it"
    before = layout.layers[number - 1]
    if before.kernel and not own.kernel:
        return f"it follows the convolution {before.name}"
    if own.outputs != own.weight[1]:
        return f"it has {own.weight[1]} inputs and {own.outputs} outputs; remove neurons first, until they are equal"
    pointwise = [word for layer in (before, own) for word in layer.after if not keeps_sign(word)]
    if pointwise or RELU not in before.after:
        found = (pointwise or list(before.after) or ["nothing"])[0]
        return f"between the layers stands {found}, and only a ReLU done twice is a ReLU"
    if own.kernel and not _keeps_size(own):
        return f"no kernel of it is the identity ({'x'.join(map(str, own.kernel))}, {own.settings})"
    return ""


def keeps_sign(word: str) -> bool:
    """Whether what stands between two layers leaves numbers of at least 0 as they are, or at least 0."""
    return word == RELU or word.partition("(")[0] in (
        "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"
    )  # fmt: skip


def joined(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    """What stands between two layers after one between them is gone; a ReLU of numbers of at least 0 says nothing."""
    return (*first, *(word for word in then if word != RELU)) if RELU in first else (*first, *then)


def given(
    posterior: GaussianPosterior,
    index: Tensor,
    values: Tensor,
    *,
    gone: Tensor,
    layout: Layout,
    shift_means: bool = True,
) -> GaussianPosterior:
    """Conditioned on the numbers at `index` (n,) being `values` (n,), then without those at `gone`, which hold `index`.

    `layout` is that of what is left, in the same order. With `shift_means` False the other means stay.
    """
    kept = torch.ones(posterior.layout.size, dtype=torch.bool)
    kept[gone] = False
    keep, own = kept.nonzero().flatten(), posterior.covariance
    if isinstance(own, Diagonal):
        return GaussianPosterior(layout, posterior.mean[keep], Diagonal(own.variance[keep]), posterior.info)
    offset = values - posterior.mean[index]
    if isinstance(own, Full):
        mean, matrix = _conditioned(posterior.mean, own.matrix, index, offset, keep)
        return GaussianPosterior(layout, mean if shift_means else posterior.mean[keep], Full(matrix), posterior.info)
    means, blocks = [], []
    for layer, block in zip(posterior.layout.layers, own.blocks, strict=True):
        part = layer.block
        inside = (index >= part.start) & (index < part.stop)
        left = keep[(keep >= part.start) & (keep < part.stop)] - part.start
        if not len(left):
            continue
        mean = posterior.mean[part]
        shifted, matrix = _conditioned(mean, block, index[inside] - part.start, offset[inside], left)
        means.append(shifted if shift_means else mean[left])
        blocks.append(matrix)
    return GaussianPosterior(layout, torch.cat(means), Blocks(tuple(blocks)), posterior.info)


def _conditioned(mean: Tensor, matrix: Tensor, index: Tensor, offset: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the numbers at `keep`, those at `index` being `offset` off their means."""
    own = matrix[keep][:, keep]
    if not len(index):
        return mean[keep], own
    factor = cholesky(matrix[index][:, index])
    half = torch.linalg.solve_triangular(factor, matrix[index][:, keep], upper=False)
    whitened = torch.linalg.solve_triangular(factor, offset[:, None], upper=False)
    return mean[keep] + (half.T @ whitened)[:, 0], own - half.T @ half


def _merge(posterior: GaussianPosterior, number: int) -> GaussianPosterior:
    layout = posterior.layout
    own, following = layout.layers[number], layout.layers[number + 1]
    reason = cannot_merge(layout, number)
    if reason or not isinstance(posterior.covariance, Diagonal):
        reason = reason or f"that needs a diagonal posterior, this one is {posterior.kind}: take posterior.diagonal()"
        raise PosteriorError(f"{own.name} cannot be merged with {following.name}: {reason}.")
    means, variances = layout.tensors(posterior.mean), layout.tensors(posterior.covariance.variance)
    m2, v2 = means[f"{own.name}.weight"], variances[f"{own.name}.weight"]
    m3, v3 = means[f"{following.name}.weight"], variances[f"{following.name}.weight"]
    zero = torch.zeros((), dtype=torch.float64)
    b2, c2 = (found.get(f"{own.name}.bias", zero.expand(own.outputs)) for found in (means, variances))
    b3, c3 = (found.get(f"{following.name}.bias", zero.expand(following.outputs)) for found in (means, variances))
    bias = own.bias or following.bias
    means[f"{following.name}.weight"] = m3 @ m2
    variances[f"{following.name}.weight"] = v3 @ m2.square() + m3.square() @ v2 + v3 @ v2
    if bias:
        means[f"{following.name}.bias"] = m3 @ b2 + b3
        variances[f"{following.name}.bias"] = c3 + v3 @ b2.square() + m3.square() @ c2 + v3 @ c2
    merged = replace(following, weight=(following.outputs, own.weight[1]), bias=bias)
    smaller = layout.with_layers([*layout.layers[:number], merged, *layout.layers[number + 2 :]])
    return GaussianPosterior(smaller, smaller.flat(means), Diagonal(smaller.flat(variances)), posterior.info)


def cannot_merge(layout: Layout, number: int) -> str:
    """Why layer `number` cannot be multiplied with the next one; empty where it can."""
    own, following = layout.layers[number], layout.layers[number + 1]
    if own.kernel or following.kernel:
        return f"{(own if own.kernel else following).name} is a convolution, and only linear layers are multiplied"
    return ""


def _keeps_size(layer: Layer) -> bool:
    """Whether a convolution has a centre, and answers as many pixels as it sees."""
    if not all(size % 2 for size in layer.kernel) or "stride (1, 1)" not in layer.settings:
        return False
    same = tuple((size - 1) // 2 for size in layer.kernel)
    plain = f"padding {same}, dilation (1, 1)" in layer.settings
    return plain or "padding same" in layer.settings
