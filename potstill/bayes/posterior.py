"""A Gaussian posterior over a network's weights, as frozen data: diagonal, block by block (one per layer), or full.

posterior.safetensors   mean and covariance, float64
posterior.json          what the numbers belong to, and how they were found (written last)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from potstill import storage
from potstill.bayes.layout import Layout
from potstill.errors import PosteriorError, StorageError
from potstill.seeding import key

FORMAT = 1
Kind: TypeAlias = Literal["diagonal", "block", "full"]

# Added to a covariance's diagonal, relative to its mean, where it cannot be factorised: more each time.
_JITTERS = (0.0, 1e-12, 1e-10, 1e-8)


@dataclass(frozen=True, slots=True)
class Diagonal:
    """Independent weights: `variance` (P,)."""

    variance: Tensor


@dataclass(frozen=True, slots=True)
class Blocks:
    """Independent layers: for each layer of the layout its covariance (p, p), weights before biases."""

    blocks: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Full:
    """`matrix` (P, P)."""

    matrix: Tensor


Covariance: TypeAlias = Diagonal | Blocks | Full


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """N(mean, covariance) over the weights and biases of a layout; float64 on the CPU, in memory of its own.

    `info` is JSON-able: how it was found. Raises `PosteriorError` for shapes that do not fit the layout, numbers that
    are not finite, and variances that are not positive.
    """

    layout: Layout
    mean: Tensor
    covariance: Covariance
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _own(self.mean))
        object.__setattr__(self, "covariance", mapped(self.covariance, _own))
        number = self.layout.size
        found = [tuple(tensor.shape) for tensor in (self.mean, *_tensors(self.covariance))]
        if found != [(number,), *_shapes(self.kind, self.layout)]:
            raise PosteriorError(
                f"A {self.kind} posterior of {number} numbers in {len(self.layout.layers)} layers has a mean of shape "
                f"({number},) and a covariance of shapes {_shapes(self.kind, self.layout)}; found {found}."
            )
        if not all(bool(tensor.isfinite().all()) for tensor in (self.mean, *_tensors(self.covariance))):
            raise PosteriorError("A posterior's mean and covariance are finite numbers; found NaN or infinity.")
        if not bool((self.variance > 0).all()):
            at = int((self.variance <= 0).nonzero()[0])
            raise PosteriorError(f"A posterior's variances are positive; found {float(self.variance[at]):g} at {at}.")

    @property
    def kind(self) -> Kind:
        """What its covariance is."""
        names: dict[type, Kind] = {Diagonal: "diagonal", Blocks: "block", Full: "full"}
        return names[type(self.covariance)]

    @property
    def variance(self) -> Tensor:
        """(P,): of each weight by itself."""
        if isinstance(self.covariance, Diagonal):
            return self.covariance.variance
        return torch.cat([block.diagonal() for block in _tensors(self.covariance)])

    def diagonal(self) -> GaussianPosterior:
        """The same means and variances, correlations left out."""
        return GaussianPosterior(self.layout, self.mean, Diagonal(self.variance), self.info)

    def blocks(self) -> GaussianPosterior:
        """The same, correlations between layers left out; a diagonal posterior becomes blocks that are diagonal."""
        if isinstance(self.covariance, Blocks):
            return self
        own = self.covariance
        parts = [layer.block for layer in self.layout.layers]
        if isinstance(own, Full):
            found = tuple(own.matrix[part, part] for part in parts)
        else:
            found = tuple(torch.diag(own.variance[part]) for part in parts)
        return GaussianPosterior(self.layout, self.mean, Blocks(found), self.info)

    def covariance_of(self, index: Tensor) -> Tensor:
        """(n, n): the covariance of the numbers at `index` (n,)."""
        own = self.covariance
        if isinstance(own, Full):
            return own.matrix[index][:, index]
        if isinstance(own, Diagonal):
            return torch.diag(own.variance[index])
        found = torch.zeros(len(index), len(index), dtype=torch.float64)
        for layer, block in zip(self.layout.layers, own.blocks, strict=True):
            here = ((index >= layer.block.start) & (index < layer.block.stop)).nonzero().flatten()
            inside = index[here] - layer.start
            found[here[:, None], here] = block[inside[:, None], inside]
        return found

    def sample(self, seed: int) -> Tensor:
        """(P,) float64: one draw, keyed by `seed`."""
        generator = torch.Generator().manual_seed(key("posterior", seed))
        noise = torch.randn(self.layout.size, dtype=torch.float64, generator=generator)
        own = self.covariance
        if isinstance(own, Diagonal):
            return self.mean + own.variance.sqrt() * noise
        factors = [cholesky(block) for block in _tensors(own)]
        parts = torch.split(noise, [len(factor) for factor in factors])
        return self.mean + torch.cat([factor @ part for factor, part in zip(factors, parts, strict=True)])

    def means(self) -> dict[str, Tensor]:
        """The means under the network's own parameter names, float32."""
        return {name: tensor.float().clone() for name, tensor in self.layout.tensors(self.mean).items()}

    def variances(self) -> dict[str, Tensor]:
        """The variances under the network's own parameter names, float32."""
        return {name: tensor.float().clone() for name, tensor in self.layout.tensors(self.variance).items()}

    def with_info(self, **facts: Any) -> GaussianPosterior:
        """The same posterior with more said about it."""
        return GaussianPosterior(self.layout, self.mean, self.covariance, {**self.info, **facts})

    def fingerprint(self) -> str:
        """sha256 over the layout and every number."""
        numbers = [storage.tensor_sha256(tensor) for tensor in (self.mean, *_tensors(self.covariance))]
        return storage.fingerprint([self.layout.to_json(), self.kind, numbers])

    def save(self, folder: str | Path) -> Path:
        """Write `posterior.safetensors` and `posterior.json` (last) into a folder; returns it."""
        folder = Path(folder)
        tensors = {"mean": self.mean} | {f"covariance/{i}": t for i, t in enumerate(_tensors(self.covariance))}
        digest = storage.write_tensors(folder / "posterior.safetensors", tensors)
        described = {"kind": self.kind, "layout": self.layout.to_json(), "info": dict(self.info)}
        storage.write_json(folder / "posterior.json", {"format": FORMAT, **described, "sha256": digest})
        return folder


def load(folder: str | Path) -> GaussianPosterior:
    """Read what `save` wrote. Raises `PosteriorError` where there is none, `StorageError` where it is damaged."""
    folder = Path(folder)
    path, file = folder / "posterior.json", folder / "posterior.safetensors"
    if not path.is_file():
        raise PosteriorError(f"{folder} holds no posterior: it has no posterior.json.")
    found = storage.read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise PosteriorError(f"{path} is not of format {FORMAT}, the only one this version of potstill reads.")
    if not file.is_file() or storage.sha256_file(file) != found.get("sha256"):
        raise StorageError(f"{file} is missing or damaged: its sha256 differs from posterior.json. Make it again.")
    tensors = storage.read_tensors(file)
    try:
        layout = Layout.from_json(found["layout"])
        parts = [tensors[f"covariance/{i}"] for i in range(len(tensors) - 1)]
        return GaussianPosterior(layout, tensors["mean"], _covariance(found["kind"], parts), found["info"])
    except (KeyError, TypeError, IndexError) as error:
        raise StorageError(f"{path} is damaged: {error}. Make it again.") from error


def from_means(network: nn.Module, variance: float | Mapping[str, float] = 1.0) -> GaussianPosterior:
    """A diagonal posterior at a network's weights, with one variance, or one for each parameter by its name.

    A variance near 0 is a network that is sure of its weights; the larger it is, the less a prior made of it says.
    """
    layout = Layout.of(network)
    names = layout.tensors(torch.empty(layout.size))
    given = variance if isinstance(variance, Mapping) else dict.fromkeys(names, variance)
    if set(given) != set(names):
        missing, extra = sorted(set(names) - set(given)), sorted(set(given) - set(names))
        raise PosteriorError(f"variance: wanted is one for each parameter; missing {missing}, not there {extra}.")
    spread = {name: torch.full_like(tensor, float(given[name])) for name, tensor in names.items()}
    info = {"from": "means", "variance": dict(variance) if isinstance(variance, Mapping) else float(variance)}
    return GaussianPosterior(layout, layout.flat(dict(network.named_parameters())), Diagonal(layout.flat(spread)), info)


def cholesky(matrix: Tensor) -> Tensor:
    """The lower factor of a covariance; where rounding took its last bits, with a jitter of at most 1e-8.

    Raises `PosteriorError` for a matrix that is no covariance.
    """
    size = float(matrix.diagonal().mean()) if len(matrix) else 1.0
    for jitter in _JITTERS:
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix + jitter * size * torch.eye(len(matrix), dtype=matrix.dtype))
        if not int(failed):
            return factor
    raise PosteriorError(f"A matrix of {len(matrix)} x {len(matrix)} is no covariance: it is not positive definite.")


def mapped(covariance: Covariance, change: Callable[[Tensor], Tensor]) -> Covariance:
    """A covariance of the same kind, every tensor changed."""
    if isinstance(covariance, Diagonal):
        return Diagonal(change(covariance.variance))
    if isinstance(covariance, Full):
        return Full(change(covariance.matrix))
    return Blocks(tuple(map(change, covariance.blocks)))


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64, copy=True).contiguous()


def _tensors(covariance: Covariance) -> tuple[Tensor, ...]:
    if isinstance(covariance, Diagonal):
        return (covariance.variance,)
    return (covariance.matrix,) if isinstance(covariance, Full) else covariance.blocks


def _covariance(kind: Kind, parts: Sequence[Tensor]) -> Covariance:
    if kind == "block":
        return Blocks(tuple(parts))
    return Diagonal(parts[0]) if kind == "diagonal" else Full(parts[0])


def _shapes(kind: Kind, layout: Layout) -> list[tuple[int, ...]]:
    if kind == "diagonal":
        return [(layout.size,)]
    sizes = [layout.size] if kind == "full" else [layer.size for layer in layout.layers]
    return [(size, size) for size in sizes]
