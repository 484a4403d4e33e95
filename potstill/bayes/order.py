"""Which neurons matter least: a score for every neuron of a hidden layer; the lowest goes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from potstill.bayes.posterior import Blocks, Diagonal, GaussianPosterior, cholesky
from potstill.bayes.reduce import remove_neurons
from potstill.errors import PosteriorError
from potstill.registry import Registry, Spec
from potstill.seeding import permutation

Group: TypeAlias = Literal["outgoing", "incoming", "both"]
Reduce: TypeAlias = Literal["sum", "mean"]
_LARGEST = 4096  # numbers whose correlations are decomposed at once; that takes a minute

# (posterior, hidden layer, curvature or None) -> a score for every neuron
Score: TypeAlias = "Callable[[GaussianPosterior, int, Tensor | None], Tensor]"


@final
class Order(NamedTuple):
    """A way to score neurons. `needs_curvature`: it reads the diagonal of the likelihood's curvature."""

    name: str
    score: Score
    needs_curvature: bool = False


class Removal(NamedTuple):
    """What was removed of one layer: neurons by their number in the layer as it was, in order, with their scores; and
    what was kept, with the scores of the last look."""

    layer: str
    neurons: tuple[int, ...]
    scores: tuple[float, ...]
    kept: tuple[int, ...] = ()
    kept_scores: tuple[float, ...] = ()


def random(*, seed: int = 0) -> Order:
    """A permutation keyed by `seed` and the layer: the only order that the paper's experiments used."""

    def score(posterior: GaussianPosterior, number: int, _: Tensor | None) -> Tensor:
        own = posterior.layout.layers[number]
        return permutation(own.outputs, "order of neurons", own.name, seed).double()

    return Order("random", score)


def brain_damage(*, group: Group = "outgoing", reduce: Reduce = "sum") -> Order:
    """Optimal brain damage: h_jj m_j^2 / 2 over the neuron's group (LeCun, Denker and Solla 1990).

    h is the diagonal of the curvature of the summed negative log-likelihood (`bayes.diagonal_ggn`), without a prior.
    """

    def score(posterior: GaussianPosterior, number: int, curvature: Tensor | None) -> Tensor:
        if curvature is None or curvature.shape != posterior.mean.shape:
            raise PosteriorError(
                "brain_damage needs the curvature of the likelihood for each of the posterior's "
                f"{posterior.layout.size} numbers; found {'none' if curvature is None else len(curvature)}. "
                "bayes.teacher_of gives it, and bayes.diagonal_ggn. After layers were merged there is none: take the "
                "order graves."
            )
        each = curvature * posterior.mean.square() / 2
        return _grouped(posterior, number, group, reduce, lambda index: each[index])

    return Order("brain_damage", score, needs_curvature=True)


def graves(*, group: Group = "outgoing", reduce: Reduce = "sum") -> Order:
    """m_j^2 / (2 s_j^2) over the neuron's group: how unlikely 0 is under the posterior (Graves 2011, section 6)."""

    def score(posterior: GaussianPosterior, number: int, _: Tensor | None) -> Tensor:
        each = posterior.mean.square() / (2 * posterior.variance)
        return _grouped(posterior, number, group, reduce, lambda index: each[index])

    return Order("graves", score)


def belsley(*, group: Group = "outgoing", reduce: Reduce = "sum") -> Order:
    """Collinearity: neurons whose weights share most in the worst conditioned direction go first (Belsley 1991).

    Of the correlation matrix of the weights - of covariances the units would decide - with eigenvalues l_i and vectors
    v_i: eta_i = l_max / l_i, i* the direction with the largest eta, q_ij = (v_ji / l_i)^2 / sum_i (v_ji / l_i)^2, score
    -q_(i*, j) over the neuron's group. Of a block posterior within each layer. Refused for a diagonal posterior, which
    knows nothing of collinearity, and for more than 4096 numbers that go together.
    """

    def score(posterior: GaussianPosterior, number: int, _: Tensor | None) -> Tensor:
        shares = -collinearity(posterior)
        return _grouped(posterior, number, group, reduce, lambda index: shares[index])

    return Order("belsley", score)


def cost(*, group: Group = "outgoing", reduce: Reduce = "sum") -> Order:
    """m^T S^-1 m / 2 over the neuron's group, S its covariance: the log-density that removing the neuron costs.

    Graves' sum on a diagonal posterior, Optimal Brain Surgeon's increase of the loss (Hassibi and Stork 1993), for a
    group, on a full one. Ours, not the paper's: it is what `remove_neurons` pays.
    """

    def score(posterior: GaussianPosterior, number: int, _: Tensor | None) -> Tensor:
        if isinstance(posterior.covariance, Diagonal):
            return graves(group=group, reduce=reduce).score(posterior, number, None)
        posterior.layout.chain()
        index = _index(posterior, number, group)
        prices = torch.stack([_price(posterior, own) for own in index])
        return prices / index.shape[1] if reduce == "mean" else prices

    return Order("cost", score)


REGISTRY = Registry(
    "order of neurons",
    {"random": random, "brain_damage": brain_damage, "graves": graves, "belsley": belsley, "cost": cost},
    PosteriorError,
)


def build(spec: Spec | Order) -> Order:
    """An order from its name, a table, or itself."""
    if isinstance(spec, Order):
        return spec
    found: Order = REGISTRY.call(spec)
    return found


def keep_neurons(
    posterior: GaussianPosterior,
    layer: int | str,
    keep: int,
    order: Spec | Order = "graves",
    *,
    curvature: Tensor | None = None,
    greedy: bool = False,
    shift_means: bool = False,
) -> tuple[GaussianPosterior, Tensor | None, Removal]:
    """The posterior (and curvature) with the `keep` best neurons of a hidden layer, by name or place (from 0), and
    what was removed.

    One shot: scores as they are now. `greedy`: one neuron after the other, scored anew after each removal; the same on
    a diagonal posterior. Equal scores: the later neuron goes first.
    """
    how, layout = build(order), posterior.layout
    number = layout.hidden(layer)
    own = layout.layers[number]
    if not 1 <= keep <= own.outputs:
        raise PosteriorError(f"{own.name} has {own.outputs} neurons; {keep} of them cannot be kept.")
    left, gone, scores, others = list(range(own.outputs)), list[int](), list[float](), list[float]()
    while len(left) > keep:
        found = how.score(posterior, number, curvature)
        ranked = sorted(range(len(left)), key=lambda i: (float(found[i]), -i))
        chosen = ranked[: 1 if greedy else len(left) - keep]
        gone += [left[i] for i in chosen]
        scores += [float(found[i]) for i in chosen]
        curvature = _without(posterior, number, chosen, curvature)
        posterior = remove_neurons(posterior, number, chosen, shift_means=shift_means)
        others = [float(one) for i, one in enumerate(found) if i not in set(chosen)]
        left = [neuron for i, neuron in enumerate(left) if i not in set(chosen)]
    return posterior, curvature, Removal(own.name, tuple(gone), tuple(scores), tuple(left), tuple(others))


def collinearity(posterior: GaussianPosterior) -> Tensor:
    """(P,): each number's share q in the worst conditioned direction of the correlations it has part in."""
    own = posterior.covariance
    if isinstance(own, Diagonal):
        raise PosteriorError(
            "belsley reads how weights go together, of which a diagonal posterior knows nothing. Take another "
            'order, or a posterior with structure = "block", "kronecker" or "full".'
        )
    return torch.cat([_shares(block) for block in (own.blocks if isinstance(own, Blocks) else (own.matrix,))])


def _price(posterior: GaussianPosterior, index: Tensor) -> Tensor:
    factor, mean = cholesky(posterior.covariance_of(index)), posterior.mean[index][:, None]
    half: Tensor = torch.linalg.solve_triangular(factor, mean, upper=False)
    return half.square().sum() / 2


def _shares(covariance: Tensor) -> Tensor:
    if len(covariance) > _LARGEST:
        raise PosteriorError(f"belsley: {len(covariance)} numbers go together here; at most {_LARGEST} can.")
    scale = covariance.diagonal().rsqrt()
    values, vectors = torch.linalg.eigh(covariance * scale[:, None] * scale)
    values = values.clamp_min(torch.finfo(torch.float64).eps * float(values[-1]))
    parts: Tensor = (vectors / values).square()  # (j, i)
    return parts[:, 0] / parts.sum(1)  # eigenvalues rise: the first has the largest eta


def _index(posterior: GaussianPosterior, number: int, group: Group) -> Tensor:
    """(neurons, size) int64: the group of every neuron."""
    layout = posterior.layout
    every: Sequence[int] = range(layout.layers[number].outputs)
    parts = []
    if group in ("incoming", "both"):
        parts.append(layout.incoming(number, every))
    if group in ("outgoing", "both"):
        parts.append(layout.outgoing(number, every))
    return torch.cat(parts, 1)


def _grouped(
    posterior: GaussianPosterior, number: int, group: Group, reduce: Reduce, values: Callable[[Tensor], Tensor]
) -> Tensor:
    posterior.layout.chain()
    found = values(_index(posterior, number, group))
    return found.sum(1) if reduce == "sum" else found.mean(1)


def _without(
    posterior: GaussianPosterior, number: int, neurons: Sequence[int], curvature: Tensor | None
) -> Tensor | None:
    if curvature is None or curvature.shape != posterior.mean.shape:
        return None
    layout = posterior.layout
    kept = torch.ones(layout.size, dtype=torch.bool)
    kept[layout.outgoing(number, neurons).flatten()] = False
    kept[layout.incoming(number, neurons).flatten()] = False
    return curvature[kept]
