"""Forward and backward passes of a fully connected network whose weights are distributions, written out.

Like `networks.stack`, for linear layers with ReLUs between them: answers are drawn from their normals, one draw for
every example (Kingma, Salimans and Welling 2015), or are those of the means. All means lie in one stretch of memory,
all log standard deviations in another, so that what is done to every number is one call for all layers.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from potstill.networks.stack import ALIGNED, Precision, hooked, watched
from potstill.networks.variational import LEAST, Variational, VariationalLayer


class _Layer(NamedTuple):
    """One layer: views of its means (out, in) and (out,), of the variances of its weights, and of their gradients."""

    weight: Tensor
    bias: Tensor
    weight_spread: Tensor
    bias_spread: Tensor
    gradients: tuple[Tensor, Tensor, Tensor, Tensor]


class _Kept(NamedTuple):
    """For a layer's backward pass: its inputs (B, in), their squares, and noise / standard deviation (B, out)."""

    inputs: Tensor
    squares: Tensor
    pull: Tensor


@final
class DrawnStack:
    """The passes of one network. `DrawnStack.of` tells whether it is such a one.

    From then on its parameters lie side by side in `values`, their `.grad` in `gradients`, until `release`; the first
    `size` numbers of both are of means, the next `size` of log standard deviations, the rest of a prior that the
    network learns. Between parameters are zeros. `spread` (size,) holds the variances of the last forward pass.
    """

    def __init__(self, network: Variational) -> None:
        self.network = network
        self.local = next(iter(network.layers.values())).noise == "local"
        means, log_stds = network.means(), network.log_stds()
        unit = 1 if network.learn_prior else ALIGNED  # a learned prior is in one piece, as a posterior is
        starts = [0]
        for parameter in means:
            starts.append(starts[-1] + -(-parameter.numel() // unit) * unit)
        self.size = starts.pop()
        places = dict(zip(map(id, means), starts, strict=True))
        places |= {id(own): self.size + start for own, start in zip(log_stds, starts, strict=True)}
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
        spreads = [_view(self.spread, start, mean) for start, mean in zip(starts, means, strict=True)]
        found = [p.grad for pair in zip(means, log_stds, strict=True) for p in pair]
        told = [tensor for tensor in found if tensor is not None]
        self._layers = [
            _Layer(w.detach(), b.detach(), v, s, tuple(told[4 * number : 4 * number + 4]))  # type: ignore[arg-type]
            for number, (w, b, v, s) in enumerate(
                zip(means[::2], means[1::2], spreads[::2], spreads[1::2], strict=True)
            )
        ]
        self._kept: list[_Kept] = []

    @staticmethod
    def of(network: nn.Module) -> DrawnStack | None:
        """The passes of `network`; None where it holds anything else, is not float32 on the CPU, or has hooks."""
        if not isinstance(network, Variational) or not _fits(network):
            return None
        return DrawnStack(network)

    @property
    def means(self) -> Tensor:
        """(size,): all means."""
        return self.values[: self.size]

    @property
    def log_stds(self) -> Tensor:
        """(size,): all log standard deviations."""
        return self.values[self.size : 2 * self.size]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """`values` or `gradients` cut into stretches of `size` numbers: means, log standard deviations, a prior's."""
        return list(torch.split(flat, self.size))

    def padded(self, posterior: Tensor, fill: float) -> Tensor:
        """(size,) float32: a posterior's flat vector (P,) in the order and at the places of the means."""
        found, start = torch.full((self.size,), fill), 0
        for mean in self.network.means():
            offset = (mean.data_ptr() - self.values.data_ptr()) // 4
            found[offset : offset + mean.numel()] = posterior[start : start + mean.numel()]
            start += mean.numel()
        return found

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
            torch.mul(self.log_stds, 2, out=self.spread).exp_()
        with Precision(len(here)) as precision:
            for number, layer in enumerate(self._layers):
                if number:
                    here.relu_()
                precision.choose(layer.weight.unsqueeze(0))
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

    def backward(self, gradient: Tensor) -> None:
        """From the loss's gradient with respect to the answers, (B, outputs), to every mean's and log std's `.grad`."""
        deviations = self.gradients[self.size : 2 * self.size]
        if not self.local:
            deviations.zero_()
        with Precision(len(gradient)) as precision:
            for number in range(len(self._layers) - 1, -1, -1):
                layer, kept = self._layers[number], self._kept[number]
                by_weight, by_weight_spread, by_bias, by_bias_spread = layer.gradients
                precision.choose(layer.weight.unsqueeze(0))
                torch.sum(gradient, 0, out=by_bias)
                torch.mm(gradient.t(), kept.inputs, out=by_weight)
                back = gradient @ layer.weight if number else gradient
                if self.local:  # twice that with respect to the variance; a log std's is the variance times it
                    pull = gradient * kept.pull
                    torch.sum(pull, 0, out=by_bias_spread)
                    torch.mm(pull.t(), kept.squares, out=by_weight_spread)
                    if number:
                        back.addcmul_(pull @ layer.weight_spread, kept.inputs)
                if number:  # a ReLU's output is positive exactly where its input is
                    gradient = torch.ops.aten.threshold_backward(back, kept.inputs, 0)
        if self.local:
            deviations.mul_(self.spread)

    def release(self) -> None:
        """Give every parameter memory of its own again, and no gradient."""
        for parameter in self.network.parameters():
            parameter.data, parameter.grad = parameter.detach().clone(), None


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
