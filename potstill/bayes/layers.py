"""Between networks with distributions for weights (`networks.variational`) and posteriors, there and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potstill.bayes.fold import fold
from potstill.bayes.layout import Layout, is_network
from potstill.bayes.posterior import Diagonal, GaussianPosterior
from potstill.errors import PosteriorError
from potstill.networks.variational import Variational

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def from_variational(network: nn.Module) -> GaussianPosterior:
    """The diagonal posterior of a network that was trained with distributions for weights.

    Batch norms are folded in: scales multiply means and deviations alike. Raises `PosteriorError` for a layer without
    biases before a batch norm, whose folded bias would be known for certain.
    """
    if not isinstance(network, Variational):
        is_network(network)
        raise PosteriorError(
            f"This {type(network).__name__} has no distributions for weights. Train it with inference = "
            '"variational", or take bayes.laplace(network, data.train) of one that was trained as usual.'
        )
    means = fold(network.plain())
    deviations = network.plain(of="stds")
    for module in deviations.modules():
        if isinstance(module, _NORMS):
            _scale_only(module)
    stds = fold(deviations)
    layout = Layout.of(means)
    mean = layout.flat(dict(means.named_parameters()))
    variance = layout.flat(dict(stds.named_parameters())).square()
    certain = [layer.name for layer in layout.layers if layer.bias and bool((variance[layer.biases()] == 0).any())]
    if certain:
        raise PosteriorError(
            f"{certain[0]} has no biases of its own, and its batch norm's offset has no variance. Train a network "
            "without batch norms, or take Laplace's approximation of a network that is trained as usual."
        )
    return GaussianPosterior(layout, mean, Diagonal(variance), {"from": "variational"})


def set_posterior(network: Variational, posterior: GaussianPosterior, *, means: bool = True, stds: bool = True) -> None:
    """Give a network the means of a posterior over its weights, its standard deviations, or both.

    Numbers are copied: what the network learns does not change the posterior. Raises `PosteriorError` where the
    posterior is of another network.
    """
    fits(network, posterior)
    with torch.no_grad():
        for wanted, parameters, flat in (
            (means, network.means(), posterior.mean),
            (stds, network.log_stds(), posterior.variance.log() / 2),
        ):
            if wanted:
                for parameter, part in zip(parameters, parts(flat, parameters), strict=True):
                    parameter.copy_(part)


def fits(network: Variational, posterior: GaussianPosterior) -> None:
    """Raise `PosteriorError` unless a posterior is over the very weights of a network."""
    own = Layout.of(network.plain()).layers
    found = {layer.name: layer.weight for layer in posterior.layout.layers}
    wanted = {layer.name: layer.weight for layer in own}
    biases = [layer.bias for layer in own] == [layer.bias for layer in posterior.layout.layers]
    if list(found.items()) != list(wanted.items()) or not biases:
        raise PosteriorError(
            f"The posterior is over {_listed(found)}, the network has {_listed(wanted)}"
            f"{'' if found != wanted else ' with other biases'}. Bring it to the network's shape: bayes.reduce_to."
        )


def parts(flat: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """A flat vector cut into tensors of the parameters' shapes."""
    cut = torch.split(flat, [p.numel() for p in parameters])
    return [part.reshape(p.shape) for part, p in zip(cut, parameters, strict=True)]


def _listed(layers: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, weight))}" for name, weight in layers.items())


def _scale_only(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Make a batch norm do to deviations what it does to answers: scale them; of the sign a variance knows nothing."""
    with torch.no_grad():
        if norm.running_mean is not None:
            norm.running_mean.zero_()
        if norm.bias is not None:
            norm.bias.zero_()
