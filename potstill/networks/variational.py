"""Networks whose weights are distributions: independent normals, one per weight, with a draw for every example.

The layers are those of the network that they replace. A trained one answers with its posterior predictive: the mean
over networks that are drawn by key, the same for every row and in every process.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from potstill.errors import NetworkError
from potstill.seeding import key
from potstill.types import DataSpec

Noise: TypeAlias = Literal["local", "none"]

LEAST = 1e-20  # of a variance of answers, which is 0 where inputs are 0 and there is no bias
_DOUBLINGS = 2 / math.log(2)  # of a variance, per unit of a log standard deviation


def variances(log_stds: Tensor, *, out: Tensor | None = None) -> Tensor:
    """exp(2 log_stds), of the same shape, as a power of two: torch computes those in a third of the time.

    Rounding the exponent costs a relative 3e-7 where a standard deviation is 0.02, exp itself 1e-7.
    """
    found: Tensor = torch.mul(log_stds, _DOUBLINGS, out=out).exp2_()
    return found


@final
class VariationalLayer(nn.Module):
    """A linear layer or a convolution with weights and biases N(mean, exp(log_std)^2).

    The means have the layer's own names; `how` is the layer without them, which knows how to be computed.
    """

    bias_log_std: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, std: float) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_log_std = nn.Parameter(torch.full_like(layer.weight, std).log())
        log_std = None if layer.bias is None else nn.Parameter(torch.full_like(layer.bias, std).log())
        self.register_parameter("bias_log_std", log_std)
        layer.weight = layer.bias = None  # type: ignore[assignment]
        self.how = layer
        self.noise: Noise = "local"
        self.drawn: tuple[Tensor, Tensor | None] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.drawn is not None or self.noise == "none" or not self.training:
            return self._computed(inputs, *(self.drawn or (self.weight, self.bias)))
        log_std = self.bias_log_std
        if isinstance(self.how, nn.Linear):
            answer: Tensor = _Local.apply(inputs, self.weight, self.weight_log_std, self.bias, log_std)  # type: ignore[no-untyped-call]
            return answer
        mean = self._computed(inputs, self.weight, self.bias)
        offset = None if log_std is None else variances(log_std)
        variance = self._computed(inputs.square(), variances(self.weight_log_std), offset)
        return mean + variance.clamp_min(LEAST).sqrt() * torch.randn_like(mean)

    def draw(self, generator: torch.Generator) -> None:
        """Answer with one draw of the weights from now on, until `drawn` is None again."""
        weight = _drawn(self.weight, self.weight_log_std, generator)
        log_std = self.bias_log_std
        self.drawn = weight, None if self.bias is None or log_std is None else _drawn(self.bias, log_std, generator)

    def plain(self, *, means: bool) -> nn.Module:
        """The layer that it was made of, with the means or the standard deviations for weights; this one is used up."""
        log_std = self.bias_log_std
        weight = self.weight if means else self.weight_log_std.exp()
        bias = self.bias if means or log_std is None else log_std.exp()
        self.how.weight = nn.Parameter(weight.detach())
        self.how.bias = None if bias is None else nn.Parameter(bias.detach())
        return self.how

    def _computed(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.how, nn.Linear):
            return functional.linear(inputs, weight, bias)
        answer: Tensor = self.how._conv_forward(inputs, weight, bias)
        return answer


@final
class _Local(torch.autograd.Function):
    """The local reparameterisation (Kingma, Salimans and Welling 2015, section 2.2), both passes written out.

    Answers are N(x M^T + b, x^2 V^T + v), one draw for each of them; V, v the variances of weights and biases.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, weight_log_std: Tensor, bias: Tensor | None, log_std: Tensor | None
    ) -> Tensor:
        spread, squares = variances(weight_log_std), inputs.square()
        mean = functional.linear(inputs, weight, bias)
        offset = None if log_std is None else variances(log_std)
        std = functional.linear(squares, spread, offset).clamp_min_(LEAST).sqrt_()
        noise = torch.randn_like(mean)
        ctx.save_for_backward(inputs, weight, spread, squares, offset, std, noise)
        return torch.addcmul(mean, std, noise)

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Any) -> Any:  # type: ignore[override]
        (gradient,) = gradients
        inputs, weight, spread, squares, offset, std, noise = ctx.saved_tensors
        by_variance = (gradient * noise).div_(std.mul(2))
        by_spread = (by_variance.t() @ squares).mul_(spread).mul_(2)
        by_bias = by_log_std = by_inputs = None
        if offset is not None:
            by_bias, by_log_std = gradient.sum(0), by_variance.sum(0).mul_(offset).mul_(2)
        if ctx.needs_input_grad[0]:
            by_inputs = torch.addcmul(gradient @ weight, inputs, by_variance @ spread, value=2)
        return by_inputs, gradient.t() @ inputs, by_spread, by_bias, by_log_std


@final
class Variational(nn.Module):
    """A network whose linear and convolution layers have distributions for weights, made of a plain one.

    In training every row is answered with a draw of its own (`noise` "local"), or with the means (`"none"`). In
    evaluation mode the answer is the posterior predictive of `samples` networks, drawn by the key `seed`: the logarithm
    of the mean probability, (B, K), of one logit its log-odds, of a regression the mean; with 0 samples the answer of
    the means. Batch norms and other parameters stay numbers. `std`: each weight's standard deviation at the beginning.

    `noise_variance` (D,), of a regression: how far targets lie from the answers, in the units in which the network
    answers; members then answer its logarithm too. `learn_prior`: the network has a prior of its own, trained with the
    learning rate times this number (`bayes.elbo`); 0 for none.

    Raises `NetworkError` for a network without such layers, and settings out of their range.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        spec: DataSpec,
        samples: int = 32,
        seed: int = 0,
        noise: Noise = "local",
        std: float = 0.02,
        noise_variance: Sequence[float] | None = None,
        learn_prior: float = 0.0,
    ) -> None:
        super().__init__()
        _check(samples=samples, std=std, noise=noise, learn_prior=learn_prior)
        self.spec, self.samples, self.seed, self.learn_prior = spec, samples, seed, learn_prior
        self.noise_variance = noise_variance
        self.network = _replaced(copy.deepcopy(network), std)
        self.layers = {name: m for name, m in self.network.named_modules() if isinstance(m, VariationalLayer)}
        if not self.layers:
            raise NetworkError(f"No layer of this {type(network).__name__} is linear or a convolution.")
        for layer in self.layers.values():
            layer.noise = noise
        if learn_prior:
            numbers = sum(mean.numel() for mean in self.means())
            for name in ("prior_mean", "prior_log_std"):
                self.register_buffer(name, torch.zeros(numbers))
                self.register_parameter(f"{name}_shift", nn.Parameter(torch.zeros(numbers)))

    def means(self) -> list[Tensor]:
        """Of every layer the means of weight and biases: together a posterior's flat vector."""
        return [p for layer in self.layers.values() for p in (layer.weight, layer.bias) if p is not None]

    def log_stds(self) -> list[Tensor]:
        """The logarithms of the standard deviations, in the same order."""
        pairs = ((layer.weight_log_std, layer.bias_log_std) for layer in self.layers.values())
        return [p for pair in pairs for p in pair if p is not None]

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training or self.samples == 0:
            answer: Tensor = self.network(inputs)
            return answer
        return _pooled(self._members(inputs), self.spec)

    def members(self, inputs: Tensor) -> Tensor:
        """(B, samples, K): the answer of each drawn network, or (B, 1, K) of the means where there are no samples.

        With a noise (B, samples, 2 D): values and log variances.
        """
        found = self._members(inputs)
        if self.noise_variance is None:
            return found
        noise = torch.tensor(self.noise_variance, device=found.device).log().expand_as(found)
        return torch.cat([found, noise], -1)

    def _members(self, inputs: Tensor) -> Tensor:
        if self.samples == 0:
            return torch.stack([self.network(inputs)], 1)
        return torch.stack([self.network(inputs) for _ in self._draws()], 1)

    def plain(self, *, of: Literal["means", "stds"] = "means") -> nn.Module:
        """A copy of the network that it was made of, with the means for weights, or the standard deviations."""
        return _restored(copy.deepcopy(self.network), of == "means")

    def _draws(self) -> Iterator[int]:
        """While a number is held, the layers have the weights of that draw."""
        try:
            for sample in range(self.samples):
                generator = torch.Generator().manual_seed(key("posterior sample", self.seed, sample))
                for layer in self.layers.values():
                    layer.draw(generator)
                yield sample
        finally:
            for layer in self.layers.values():
                layer.drawn = None


def rebuilt(network: nn.Module, spec: DataSpec, inference: Mapping[str, Any]) -> Variational:
    """The variational network that a model's file describes, around a plain one, for its weights to be filled in."""
    table = dict(inference)
    name = table.pop("name", None)
    if name != "variational" or not set(table) <= {"samples", "seed", "noise", "noise_variance", "learn_prior"}:
        raise NetworkError(f"This version of potstill cannot rebuild the inference {dict(inference)}; a newer one may.")
    return Variational(network, spec=spec, **table)


def _check(**values: Any) -> None:
    if values["samples"] < 0 or values["learn_prior"] < 0 or values["noise"] not in ("local", "none"):
        raise NetworkError(
            f"samples is {values['samples']}, learn_prior {values['learn_prior']}, noise {values['noise']!r}; wanted "
            'are numbers of at least 0, and "local" or "none".'
        )
    if not (values["std"] > 0 and math.isfinite(values["std"])):
        raise NetworkError(f"std is {values['std']}; wanted is a finite number above 0.")


def _drawn(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    # On the CPU, so that every device draws the same.
    noise = torch.randn(mean.shape, generator=generator)
    return torch.addcmul(mean.detach(), log_std.detach().exp(), noise.to(mean.device))


def _replaced(module: nn.Module, std: float) -> nn.Module:
    if type(module) in (nn.Linear, nn.Conv2d):
        return VariationalLayer(module, std)  # type: ignore[arg-type]
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _replaced(child, std)
    return module


def _restored(module: nn.Module, means: bool) -> nn.Module:
    if isinstance(module, VariationalLayer):
        return module.plain(means=means)
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _restored(child, means)
    return module


def _pooled(members: Tensor, spec: DataSpec) -> Tensor:
    """One answer of several members', (B, S, K) to (B, K); of means and log variances those of the members' mixture."""
    if spec.task == "multiclass":
        return members.log_softmax(-1).logsumexp(1) - torch.tensor(float(members.shape[1])).log()
    if spec.task == "binary":
        return functional.logsigmoid(members).logsumexp(1) - functional.logsigmoid(-members).logsumexp(1)
    means, logs = members[..., : spec.outputs], members[..., spec.outputs :]
    if not logs.shape[-1]:
        return means.mean(1)
    return torch.cat([means.mean(1), (logs.exp().mean(1) + means.var(1, correction=0)).log()], -1)
