"""Forward and backward passes of a fully connected network whose weights are distributions, written out.

Like `networks.stack`, for linear layers with ReLUs between them: answers are drawn from their normals, one draw for
every example (Kingma, Salimans and Welling 2015), or are those of the means. All means lie in one stretch of memory,
all log standard deviations in another, so that what is done to every number is one call for all layers, or one for each
piece of a large network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from potstill.networks.pieces import Flat, Piece, pieces_of
from potstill.networks.stack import Precision, hooked, watched
from potstill.networks.variational import LEAST, Variational, VariationalLayer, variances


class _Layer(NamedTuple):
    """One layer: views of its means (out, in) and (out,), and of the variances."""

    weight: Tensor
    bias: Tensor
    weight_spread: Tensor
    bias_spread: Tensor


class _Kept(NamedTuple):
    """For a layer's backward pass: its inputs (B, in), their squares, and noise / standard deviation (B, out)."""

    inputs: Tensor
    squares: Tensor
    pull: Tensor


@final
class DrawnStack:
    """The passes of one network. `DrawnStack.of` tells whether it is such a one.

    From then on its parameters lie side by side in `values`, their `.grad` in `gradients`, until `release`; the first
    `size` numbers of both are of means, in a posterior's order, the next `size` of log standard deviations, the rest of
    a prior that the network learns. `spread` (size,) holds the variances of the last forward pass.

    `most`: how many weights may be in a piece; None: all. With several pieces `.grad` means nothing.
    """

    def __init__(self, network: Variational, most: int | None = None) -> None:
        self.network = network
        self.local = next(iter(network.layers.values())).noise == "local"
        means, log_stds = network.means(), network.log_stds()
        self._starts = list(itertools.accumulate((p.numel() for p in means), initial=0))
        self.size = self._starts[-1]
        places = dict(zip(map(id, means), self._starts, strict=False))
        places |= {id(own): self.size + start for own, start in zip(log_stds, self._starts, strict=False)}
        shifts = [p for p in network.parameters() if id(p) not in places]
        places |= {id(own): (2 + number) * self.size for number, own in enumerate(shifts)}
        self._places = [places[id(p)] for p in network.parameters()]
        self._total = (2 + len(shifts)) * self.size
        self.values, self.gradients, self.spread = self.like(), self.like(), torch.zeros(self.size)
        for parameter, value, gradient in zip(
            network.parameters(), self.views(self.values)[0], self.views(self.gradients)[0], strict=True
        ):
            value.copy_(parameter.detach())
            parameter.data, parameter.grad = value, gradient
        views = [
            [_view(flat, start, p) for start, p in zip(self._starts, means, strict=False)]
            for flat in (self.means, self.spread)
        ]
        self._layers = [_Layer(w[0], w[1], v[0], v[1]) for w, v in zip(*map(_pairs, views), strict=True)]
        whole = Flat(self.means, self.log_stds, self.spread, *self.parts(self.gradients)[:2])
        shapes = [(len(layer.weight), layer.weight.shape[1]) for layer in self._layers]
        self.pieces = pieces_of(shapes, whole, None if shifts else most)
        self._kept: list[_Kept] = []

    @staticmethod
    def of(network: nn.Module, most: int | None = None) -> DrawnStack | None:
        """The passes of `network`; None where it holds anything else, is not float32 on the CPU, or has hooks."""
        if not isinstance(network, Variational) or not _fits(network):
            return None
        return DrawnStack(network, most)

    @property
    def means(self) -> Tensor:
        """(size,): all means."""
        return self.values[: self.size]

    @property
    def log_stds(self) -> Tensor:
        """(size,): all log standard deviations."""
        return self.values[self.size : 2 * self.size]

    @property
    def cuts(self) -> list[list[tuple[slice, Tensor]]] | None:
        """For every piece, where its means and log standard deviations lie in `values`, and their gradients.

        None where all is one piece, and `gradients` those of `values`.
        """
        if len(self.pieces) == 1:
            return None
        return [
            [(place, own.by_means), (slice(self.size + place.start, self.size + place.stop), own.by_log_stds)]
            for _, place, own, _ in self.pieces
        ]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """`values` or `gradients` cut into stretches of `size` numbers: means, log standard deviations, a prior's."""
        return list(torch.split(flat, self.size))

    def like(self) -> Tensor:
        """Zeros, as many as `values` has."""
        return torch.zeros(self._total)

    def views(self, flat: Tensor) -> list[list[Tensor]]:
        """The parts of a flat tensor that belong to the network's parameters, in their order and shapes; in a list, as
        of one network of several."""
        pairs = zip(self._places, self.network.parameters(), strict=True)
        return [[_view(flat, start, parameter) for start, parameter in pairs]]

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, outputs) answers of (B, ...) inputs, drawn from the default generator; keeps what `backward` needs."""
        here = inputs.flatten(1)
        self._kept = []
        if self.local:
            variances(self.log_stds, out=self.spread)
        with Precision(len(here)) as precision:
            for number, layer in enumerate(self._layers):
                if number:
                    here.relu_()
                precision.suit(layer.weight.numel())
                mean = torch.addmm(layer.bias, here, layer.weight.t())
                if not self.local:
                    self._kept.append(_Kept(here, here, mean))
                    here = mean
                    continue
                squares = here.square()
                std = torch.addmm(layer.bias_spread, squares, layer.weight_spread.t()).clamp_min_(LEAST).sqrt_()
                noise = torch.randn_like(mean)
                answer = mean.addcmul_(std, noise)
                self._kept.append(_Kept(here, squares, noise.div_(std)))
                here = answer
        return here

    def backward(self, gradient: Tensor, done: Callable[[Piece], None] | None = None) -> None:
        """From the loss's gradient with respect to the answers, (B, outputs), to every mean's and variance's.

        `done` is called with each piece, and may change its weights, which are no longer needed. Then come the
        gradients of the next one in the place of its own.
        """
        back, pulls = gradient, [gradient]
        with Precision(len(gradient)) as precision:
            for piece in self.pieces:
                for part in piece.rows:
                    layer, kept = self._layers[part.layer], self._kept[part.layer]
                    if part.by_bias is not None:  # a layer's last rows come first
                        precision.suit(layer.weight.numel())
                        pulls = [back, back * kept.pull] if self.local else [back]
                        back = self._back(part.layer, pulls)
                    precision.suit(part.by_weight[0].numel())
                    # A mean's by way of inputs; a variance's twice by way of their squares.
                    for number, (pull, given) in enumerate(zip(pulls, (kept.inputs, kept.squares), strict=False)):
                        if part.by_bias is not None:
                            torch.sum(pull, 0, out=part.by_bias[number])
                        torch.mm(pull.t()[part.rows], given, out=part.by_weight[number])
                if not self.local:
                    piece.own.by_log_stds.zero_()
                if done is not None:
                    done(piece)

    def _back(self, number: int, pulls: Sequence[Tensor]) -> Tensor:
        """The gradient with respect to the answers of the layer before."""
        layer, kept = self._layers[number], self._kept[number]
        if not number:
            return pulls[0]
        back = pulls[0] @ layer.weight
        if self.local:
            back.addcmul_(pulls[1] @ layer.weight_spread, kept.inputs)
        # A ReLU's output is positive exactly where its input is.
        found: Tensor = torch.ops.aten.threshold_backward(back, kept.inputs, 0)
        return found

    def release(self) -> None:
        """Give every parameter memory of its own again, and no gradient."""
        for parameter in self.network.parameters():
            parameter.data, parameter.grad = parameter.detach().clone(), None


def _pairs(views: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(views[::2], views[1::2], strict=True))


def _view(flat: Tensor, start: int, like: Tensor) -> Tensor:
    return flat[start : start + math.prod(like.shape)].view(like.shape)


def _fits(network: Variational) -> bool:
    inner = network.network
    modules = list(inner.children()) if type(inner) is nn.Sequential else []
    if not modules or type(modules[0]) is not nn.Flatten or (modules[0].start_dim, modules[0].end_dim) != (1, -1):
        return False
    layers, others = modules[1::2], modules[2::2]
    if len(modules) % 2 or not all(map(_is_linear, layers)) or any(type(m) is not nn.ReLU for m in others):
        return False
    if _has_any_global_hook() or any(map(watched, network.modules())):  # type: ignore[no-untyped-call]
        return False
    if len({layer.noise for layer in network.layers.values()}) > 1:
        return False
    parameters = list(network.parameters())
    return len({id(p) for p in network.means()}) == 2 * len(layers) and all(
        p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad and not hooked(p) for p in parameters
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, VariationalLayer) and type(module.how) is nn.Linear and module.bias is not None
