"""The posterior of a network that was trained as usual: a Gaussian at its weights, as wide as the loss is flat there.

MacKay 1992, "A practical Bayesian framework for backpropagation networks"; Daxberger et al. 2021, "Laplace redux". The
diagonal is ours; blocks, Kronecker factors and the whole matrix come from laplace-torch (extra `laplace`).
"""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from potstill import units
from potstill.bayes.curvature import Curvature, diagonal_ggn
from potstill.bayes.fold import fold
from potstill.bayes.layout import Layout
from potstill.bayes.posterior import Blocks, Diagonal, Full, GaussianPosterior, cholesky
from potstill.errors import MissingExtraError, PosteriorError
from potstill.types import Source

Structure: TypeAlias = Literal["diagonal", "block", "kronecker", "full"]

_LOG_PRECISIONS = (-25.0, 25.0)  # natural logarithms between which the prior's precision is looked for


def laplace(
    network: nn.Module,
    source: Source,
    *,
    structure: Structure = "diagonal",
    prior_precision: float | None = None,
    noise_variance: float | None = None,
) -> GaussianPosterior:
    """N(w, (H / s + t I)^-1) at a trained network's weights w: H its generalised Gauss-Newton matrix on `source`.

    H sums over the labelled rows; `structure` says how much of it is kept: its diagonal, a block for each layer
    (`"block"`), Kronecker factors, or all. `prior_precision` t > 0: of the prior N(0, I / t); t -> 0 leaves weights
    that the data say nothing of without bounds, t -> infinity leaves no uncertainty. Without one it is the t that
    maximises the evidence: t |w|^2 = sum_j h_j / (h_j + t), h_j the eigenvalues of H / s (MacKay 1992). Of a regression
    `noise_variance` s > 0, in the units in which the network answers; without one the mean squared residual. Batch
    norms are folded.

    Raises `PosteriorError` for a network whose curvature is not built, `MissingExtraError` without laplace-torch where
    that is needed.
    """
    positive(prior_precision=prior_precision, noise_variance=noise_variance)
    folded = fold(network).cpu()
    found = diagonal_ggn(folded, source)
    noise = _noise(found, noise_variance) if source.spec.task == "regression" else 1.0
    layout = Layout.of(folded)
    mean = layout.flat(dict(folded.named_parameters()))
    info: dict[str, Any] = {"from": "laplace", "structure": structure, "rows": found.rows, "noise_variance": noise}
    if structure == "diagonal":
        bends = found.diagonal / noise
        precision = prior_precision or tuned_precision(bends, mean)
        facts = info | {"prior_precision": precision}
        return GaussianPosterior(layout, mean, Diagonal(1 / (bends + precision)), facts)
    if structure not in ("block", "kronecker", "full"):
        raise PosteriorError(f'structure is "{structure}"; wanted is diagonal, block, kronecker or full.')
    outside = _outside(folded, source, structure, noise=noise)
    precision = prior_precision or tuned_precision(outside.eigenvalues(), mean)
    return _from(outside.la, layout, structure, precision, info=info)


def positive(**values: float | None) -> None:
    """Raise `PosteriorError` for a given number that is not above 0, by its name."""
    for name, value in values.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise PosteriorError(f"{name} is {value}; wanted is a finite number above 0.")


def found_outside(structure: Structure) -> None:
    """Raise `MissingExtraError` where a structure needs laplace-torch and that is not there: before a training, too."""
    try:
        there = structure == "diagonal" or importlib.util.find_spec("laplace") is not None
    except ValueError:  # half imported
        there = False
    if not there:
        raise MissingExtraError(
            f'structure = "{structure}" needs laplace-torch. It asks for torchvision without using it, which may '
            "replace your torch: install it beside the torch that you have, as docs/bayes.md says."
        )


def from_laplace(la: Any, network: nn.Module) -> GaussianPosterior:
    """The posterior of a fitted laplace-torch object (all weights; diagonal, Kronecker or full) of this network.

    Kronecker factors become the block of each layer. The prior's precision and the noise are those of the object.
    """
    kinds: dict[str, Structure] = {"DiagLaplace": "diagonal", "KronLaplace": "kronecker", "FullLaplace": "full"}
    structure = kinds.get(type(la).__name__)
    layout = Layout.of(network)
    if structure is None or int(la.n_params) != layout.size:
        raise PosteriorError(
            f"Found a {type(la).__name__} over {getattr(la, 'n_params', '?')} numbers; wanted is a DiagLaplace, "
            f"KronLaplace or FullLaplace over all {layout.size} of this network's layers."
        )
    info = {"from": "laplace-torch", "structure": structure}
    if structure == "diagonal":
        return GaussianPosterior(layout, la.mean, Diagonal(1 / la.posterior_precision.detach().double()), info)
    return _from(la, layout, structure, None, info=info)


def tuned_precision(eigenvalues: Tensor, mean: Tensor) -> float:
    """The prior's precision with the largest evidence, for eigenvalues of the curvature and weights around 0.

    t |w|^2 - sum_j h_j / (h_j + t) rises with t, so there is one root.
    """
    norm, bends = float(mean.square().sum()), eigenvalues.double().clamp_min(0.0)

    def excess(log_precision: float) -> float:
        precision = math.exp(log_precision)
        return precision * norm - float((bends / (bends + precision)).sum())

    low, high = _LOG_PRECISIONS
    if not excess(low) < 0 < excess(high):
        raise PosteriorError(
            "No prior precision has the largest evidence: the likelihood does not bend at these weights, or all are 0. "
            "Give prior_precision."
        )
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return math.exp((low + high) / 2)


def _noise(found: Curvature, given: float | None) -> float:
    noise = given or 2 * found.loss / found.numbers
    if noise <= 0:
        raise PosteriorError("The network fits every target exactly, so the noise cannot be told. Give noise_variance.")
    return noise


class _Outside(NamedTuple):
    """A fitted laplace-torch object and the layout that it is used for."""

    la: Any
    layout: Layout
    structure: Structure

    def eigenvalues(self) -> Tensor:
        """Of the curvature, noise and all."""
        factor = float(self.la._H_factor)
        if self.structure == "kronecker":
            pairs = self.la.H.eigenvalues
            return factor * torch.cat([ls[0] if len(ls) == 1 else torch.outer(*ls).flatten() for ls in pairs])
        parts = [layer.block for layer in self.layout.layers] if self.structure == "block" else [slice(None)]
        return factor * torch.cat([torch.linalg.eigvalsh(self.la.H[part, part]) for part in parts])


def _outside(network: nn.Module, source: Source, structure: Structure, *, noise: float) -> _Outside:
    found_outside(structure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from laplace import Laplace

        regression = source.spec.task == "regression"
        wide = copy.deepcopy(network).double()
        if source.spec.task == "binary":
            wide = nn.Sequential(wide, _TwoLogits())
        rows = source.labelled.nonzero().flatten()
        batch = units.learnt_batch(source.fetch(rows), source.spec.scaling)  # type: ignore[arg-type]
        labels = batch.labels.double() if regression else batch.labels
        loader = DataLoader(TensorDataset(batch.inputs.double(), labels), batch_size=min(256, len(rows)))
        la = Laplace(
            wide,
            "regression" if regression else "classification",
            subset_of_weights="all",
            hessian_structure="kron" if structure == "kronecker" else "full",
            sigma_noise=math.sqrt(noise),
        )
        la.fit(loader)
    return _Outside(la, Layout.of(network), structure)


class _TwoLogits(nn.Module):
    """One logit z as two, 0 and z: the same likelihood."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(logits), logits], 1)


def _from(
    la: Any, layout: Layout, structure: Structure, precision: float | None, *, info: dict[str, Any]
) -> GaussianPosterior:
    if precision is not None:
        la.prior_precision = precision
        info = info | {"prior_precision": precision}
    parts = [layer.block for layer in layout.layers]
    if structure == "kronecker":
        matrix = la.posterior_precision.to_matrix(exponent=-1).detach().double()
        return GaussianPosterior(layout, la.mean, Blocks(tuple(matrix[part, part] for part in parts)), info)
    matrix = la.posterior_precision.detach().double()
    if structure == "block":
        inverses = tuple(torch.cholesky_inverse(cholesky(matrix[part, part])) for part in parts)
        return GaussianPosterior(layout, la.mean, Blocks(inverses), info)
    return GaussianPosterior(layout, la.mean, Full(torch.cholesky_inverse(cholesky(matrix))), info)
