"""Neurons and layers removed and added: against numpy, the limit of a Kalman filter, and the networks' own answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bayes_samples import KINDS, cnn, every, filled, made_up, mlp
from torch import Tensor, nn

from potstill import bayes, networks
from potstill.bayes.layout import Layout
from potstill.bayes.posterior import Diagonal, GaussianPosterior
from potstill.errors import PosteriorError


def kalman(mean: np.ndarray, cov: np.ndarray, index: np.ndarray, values: np.ndarray, noise: float = 1e-10) -> Any:
    """Measure the numbers at `index` with nearly no noise: the textbook update, with a gain, in numpy."""
    H = np.eye(len(mean))[index]
    gain = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + noise * np.eye(len(index)))
    return mean + gain @ (values - H @ mean), cov - gain @ H @ cov


def by_hand(network: nn.Module, posterior: GaussianPosterior, layer: int, neurons: list[int]) -> tuple[Any, Any]:
    """Which flat numbers are outgoing and incoming, found by poking a network: not by the code under test."""
    own, following = posterior.layout.layers[layer], posterior.layout.layers[layer + 1]
    marks = {name: torch.zeros(p.shape, dtype=torch.int64) for name, p in network.named_parameters()}
    for neuron in neurons:
        marks[f"{own.name}.weight"][neuron] = 2
        marks[f"{own.name}.bias"][neuron] = 2
        if own.kernel and not following.kernel:  # flatten is channel first
            pixels = following.weight[1] // own.weight[0]
            marks[f"{following.name}.weight"][:, neuron * pixels : (neuron + 1) * pixels] = 1
        else:
            marks[f"{following.name}.weight"][:, neuron] = 1
    flat = torch.cat([mark.flatten() for mark in marks.values()]).numpy()
    return np.flatnonzero(flat == 1), np.flatnonzero(flat == 2)


# a network, its layer, the neurons to remove, and how many numbers go with them
CASES: dict[str, tuple[Callable[[], nn.Module], int, list[int], int]] = {
    "first layer": (lambda: mlp(4, 5, 3, 2), 0, [1, 3], 2 * (4 + 1 + 3)),
    "second layer": (lambda: mlp(4, 5, 3, 2), 1, [2], 5 + 1 + 2),
    "channels": (cnn, 0, [1], 9 + 1 + 3 * 9),
    "channels before flatten": (cnn, 1, [0, 2], 2 * (2 * 9 + 1 + 4 * 6)),
    "after flatten": (cnn, 2, [0, 1, 3], 3 * (18 + 1 + 3)),
}


@pytest.mark.parametrize(("make", "layer", "neurons", "count"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_removing_neurons_is_the_limit_of_a_kalman_filter(
    make: Callable[[], nn.Module], layer: int, neurons: list[int], count: int, kind: str
) -> None:
    posterior = made_up(make(), kind)
    silent, gone = by_hand(make(), posterior, layer, neurons)
    smaller = bayes.remove_neurons(posterior, layer, neurons)
    assert posterior.layout.size - smaller.layout.size == count
    mean, cov = kalman(posterior.mean.numpy(), every(posterior).numpy(), silent, np.zeros(len(silent)))
    keep = np.setdiff1d(np.arange(len(mean)), np.concatenate([silent, gone]))
    np.testing.assert_allclose(smaller.mean.numpy(), mean[keep], atol=1e-6)
    np.testing.assert_allclose(every(smaller).numpy(), cov[np.ix_(keep, keep)], atol=1e-6)
    assert float(torch.linalg.eigvalsh(every(smaller)).min()) > 0
    still = bayes.remove_neurons(posterior, layer, neurons, shift_means=False)
    assert torch.equal(still.mean, posterior.mean[torch.from_numpy(keep)])
    assert torch.equal(every(still), every(smaller))
    if kind == "diagonal":
        assert torch.equal(smaller.mean, posterior.mean[torch.from_numpy(keep)])
        assert torch.equal(smaller.variance, posterior.variance[torch.from_numpy(keep)])


@pytest.mark.parametrize("kind", KINDS)
def test_one_after_the_other_is_all_at_once_in_any_order(kind: str) -> None:
    posterior = made_up(mlp(3, 5, 4, 2), kind)
    at_once = bayes.remove_neurons(posterior, 0, [1, 3])
    for first, second in ((3, 1), (1, 2)):  # after 1 is gone, 3 is 2
        one = bayes.remove_neurons(bayes.remove_neurons(posterior, 0, [first]), 0, [second])
        assert one.layout == at_once.layout
        torch.testing.assert_close(one.mean, at_once.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(every(one), every(at_once), rtol=1e-12, atol=1e-12)
    a = bayes.remove_neurons(bayes.remove_neurons(posterior, 0, [2]), 1, [0])
    b = bayes.remove_neurons(bayes.remove_neurons(posterior, 1, [0]), 0, [2])
    assert torch.equal(a.mean, b.mean) == (kind == "diagonal")  # else what the later one says of the earlier is lost


def test_full_removal_is_the_update_of_optimal_brain_surgeon() -> None:
    """Hassibi and Stork 1993, for a group: dw = -H^-1 E (E^T H^-1 E)^-1 E^T w, and the loss rises by its quadratic."""
    posterior = made_up(mlp(3, 4, 2), "full")
    silent, gone = by_hand(mlp(3, 4, 2), posterior, 0, [2])
    inverse, w = every(posterior).numpy(), posterior.mean.numpy()
    E = np.eye(len(w))[:, silent]
    step = -inverse @ E @ np.linalg.solve(E.T @ inverse @ E, E.T @ w)
    smaller = bayes.remove_neurons(posterior, 0, [2])
    keep = np.setdiff1d(np.arange(len(w)), np.concatenate([silent, gone]))
    np.testing.assert_allclose(smaller.mean.numpy(), (w + step)[keep], rtol=1e-12, atol=1e-12)
    rise = 0.5 * step @ np.linalg.solve(inverse, step)
    assert float(bayes.ORDERS.call("cost").score(posterior, 0, None)[2]) == pytest.approx(rise, rel=1e-10)


@pytest.mark.parametrize(
    ("make", "smaller", "layer", "neurons"),
    [
        (lambda: mlp(4, 5, 3, 2), lambda: mlp(4, 3, 3, 2), 0, [0, 4]),
        (cnn, lambda: cnn(second=2), 1, [1]),
        (cnn, lambda: cnn(first=1), 0, [0]),
    ],
)
def test_neurons_that_nobody_hears_change_no_answer(
    make: Callable[[], nn.Module], smaller: Callable[[], nn.Module], layer: int, neurons: list[int]
) -> None:
    posterior = made_up(make(), "diagonal")
    mean = posterior.mean.clone()
    mean[posterior.layout.outgoing(layer, neurons).flatten()] = 0.0
    posterior = GaussianPosterior(posterior.layout, mean, posterior.covariance)
    inputs = (
        torch.randn(7, 1, 4, 6, dtype=torch.float64)
        if "conv1" in posterior.means().keys().__str__()
        else torch.randn(7, 4).double()
    )
    before = filled(make(), posterior)(inputs)
    after = filled(smaller(), bayes.remove_neurons(posterior, layer, neurons))(inputs)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


REFUSED: list[tuple[int, list[int], str]] = [
    (2, [0], "There is no hidden layer 2"),
    (-1, [0], "There is no hidden layer -1"),
    (0, [5], r"dense1 has 5 neurons; \[5\] cannot be removed"),
    (0, [-1], "cannot be removed"),
    (0, [0, 1, 2, 3, 4], "one has to stay"),
    ("dense3", [0], 'Unknown hidden layer "dense3". Did you mean "dense'),
    ("head", [0], 'Unknown hidden layer "head".* Known: dense1, dense2'),
]


@pytest.mark.parametrize(("layer", "neurons", "words"), REFUSED)
def test_neurons_that_cannot_be_removed(layer: int | str, neurons: list[int], words: str) -> None:
    with pytest.raises(PosteriorError, match=words):
        bayes.remove_neurons(made_up(mlp(4, 5, 3, 2), "diagonal"), layer, neurons)
    posterior = made_up(mlp(4, 5, 3, 2), "full")
    assert bayes.remove_neurons(posterior, 0, []) is posterior


def test_a_layer_has_a_name_and_a_place() -> None:
    posterior = made_up(mlp(4, 5, 5, 2), "diagonal")
    for do in (
        lambda layer: bayes.remove_neurons(posterior, layer, [1, 3]),
        lambda layer: bayes.remove_layer(posterior, layer),
        lambda layer: bayes.remove_layer(posterior, layer, "merge"),
        lambda layer: bayes.keep_neurons(posterior, layer, 2)[0],
        lambda layer: bayes.add_neurons(posterior, layer, 2),
        lambda layer: bayes.add_layer(posterior, layer, "more"),
    ):
        by_name, by_place = do("dense2"), do(1)
        assert by_name.layout == by_place.layout
        assert torch.equal(by_name.mean, by_place.mean)


# Layers


@pytest.mark.parametrize("kind", KINDS)
def test_dropping_a_layer_is_the_limit_of_a_kalman_filter(kind: str) -> None:
    posterior = made_up(mlp(2, 3, 3, 2), kind)
    smaller = bayes.remove_layer(posterior, 1)
    part = posterior.layout.layers[1].block
    index = np.arange(part.start, part.stop)
    values = np.concatenate([np.eye(3).flatten(), np.zeros(3)])
    mean, cov = kalman(posterior.mean.numpy(), every(posterior).numpy(), index, values)
    keep = np.setdiff1d(np.arange(len(mean)), index)
    np.testing.assert_allclose(smaller.mean.numpy(), mean[keep], atol=1e-6)
    np.testing.assert_allclose(every(smaller).numpy(), cov[np.ix_(keep, keep)], atol=1e-6)
    assert [layer.name for layer in smaller.layout.layers] == ["dense1", "head"]
    assert [layer.weight for layer in smaller.layout.layers] == [(3, 2), (2, 3)]


def with_identity(network: nn.Module, name: str) -> GaussianPosterior:
    posterior = made_up(network, "diagonal")
    tensors = posterior.layout.tensors(posterior.mean.clone())
    weight = tensors[f"{name}.weight"]
    torch.nn.init.dirac_(weight) if weight.dim() == 4 else torch.nn.init.eye_(weight)
    tensors[f"{name}.bias"].zero_()
    return GaussianPosterior(posterior.layout, posterior.layout.flat(tensors), posterior.covariance)


def test_a_layer_that_is_the_identity_changes_no_answer() -> None:
    posterior = with_identity(mlp(4, 3, 3, 2), "dense2")
    inputs = torch.randn(7, 4, dtype=torch.float64)
    smaller = bayes.remove_layer(posterior, 1)
    torch.testing.assert_close(filled(mlp(4, 3, 2), smaller)(inputs), filled(mlp(4, 3, 3, 2), posterior)(inputs))
    pictures, whole = torch.randn(7, 1, 4, 6, dtype=torch.float64), cnn(first=3, second=3)
    posterior = with_identity(whole, "conv2")
    smaller = bayes.remove_layer(posterior, 1)
    short = nn.Sequential(whole.conv1, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), whole.dense, nn.ReLU(), whole.head)
    before = filled(whole, posterior)(pictures)
    assert smaller.layout.layers[0].after == Layout.of(short).layers[0].after
    assert smaller.layout.layers[0].spread == 6
    torch.testing.assert_close(filled(short, smaller)(pictures), before)


NO_DROP: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "not square": (lambda: mlp(4, 5, 3, 2), 1, "dense2 cannot be removed: it has 5 inputs and 3 outputs"),
    "first": (lambda: mlp(3, 3, 3, 2), 0, "dense1 cannot be removed: it is the first"),
    "last": (lambda: mlp(3, 3, 3), 1, "There is no hidden layer 1"),
    "tanh": (lambda: mlp(4, 3, 3, 2, activation=nn.Tanh), 1, "Tanh"),
    "leaky": (lambda: mlp(4, 3, 3, 2, activation=nn.LeakyReLU), 1, "LeakyReLU.*only a ReLU done twice is a ReLU"),
    "gelu": (lambda: mlp(4, 3, 3, 2, activation=nn.GELU), 1, "GELU"),
    "no activation": (lambda: mlp(4, 3, 3, 2, activation=nn.Identity), 1, "stands nothing"),
    "after a convolution": (lambda: cnn(second=4), 2, "dense cannot be removed: it follows the convolution conv2"),
    "even kernel": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.ReLU(), nn.Linear(8, 2)),
        1,
        "no kernel of it is the identity",
    ),
    "stride": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
        ),
        1,
        r"3x3, stride \(2, 2\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "layer", "words"), NO_DROP.values(), ids=NO_DROP)
def test_layers_that_cannot_be_dropped(make: Callable[[], nn.Module], layer: int, words: str) -> None:
    with pytest.raises(PosteriorError, match=words):
        bayes.remove_layer(made_up(make(), "diagonal"), layer)


def test_merged_moments_against_monte_carlo() -> None:
    posterior = made_up(mlp(3, 4, 2, 2), "diagonal")
    merged = bayes.remove_layer(posterior, 0, "merge")
    generator = np.random.default_rng(0)
    mean, std = posterior.mean.numpy(), posterior.variance.sqrt().numpy()
    draws = 20_000
    parts = {}
    for layer in posterior.layout.layers[:2]:
        block = slice(layer.block.start, layer.block.stop)
        flat = mean[block] + std[block] * generator.standard_normal((draws, layer.size))
        parts[layer.name] = flat[:, : layer.weights].reshape(draws, *layer.weight), flat[:, layer.weights :]
    (u1, b1), (u2, b2) = parts["dense1"], parts["dense2"]
    weight, bias = np.einsum("noh,nhi->noi", u2, u1), np.einsum("noh,nh->no", u2, b1) + b2
    tensors = merged.layout.tensors(merged.mean), merged.layout.tensors(merged.variance)
    for found, name in ((weight, "dense2.weight"), (bias, "dense2.bias")):
        wanted, spread = tensors[0][name].numpy(), tensors[1][name].numpy()
        assert np.abs(found.mean(0) - wanted).max() < 5 * np.sqrt(spread.max() / draws)
        np.testing.assert_allclose(found.var(0), spread, rtol=0.1)
    assert torch.equal(tensors[0]["head.weight"], posterior.layout.tensors(posterior.mean)["head.weight"])
    inputs = torch.randn(5, 3, dtype=torch.float64)
    linear = filled(mlp(3, 4, 2, 2, activation=nn.Identity), posterior)
    torch.testing.assert_close(filled(mlp(3, 2, 2, activation=nn.Identity), merged)(inputs), linear(inputs))


def test_merging_without_biases() -> None:
    posterior = made_up(mlp(3, 4, 2, bias=False), "diagonal")
    merged = bayes.remove_layer(posterior, 0, "merge")
    assert [layer.bias for layer in merged.layout.layers] == [False]
    m, v = posterior.layout.tensors(posterior.mean), posterior.layout.tensors(posterior.variance)
    va, vb = v["head.weight"].numpy(), v["dense1.weight"].numpy()
    np.testing.assert_allclose(merged.mean.reshape(2, 3).numpy(), m["head.weight"].numpy() @ m["dense1.weight"].numpy())
    wanted = va @ m["dense1.weight"].numpy() ** 2 + m["head.weight"].numpy() ** 2 @ vb + va @ vb
    np.testing.assert_allclose(merged.variance.reshape(2, 3).numpy(), wanted)


def test_what_cannot_be_merged() -> None:
    with pytest.raises(PosteriorError, match=r"that needs a diagonal posterior, this one is full"):
        bayes.remove_layer(made_up(mlp(3, 4, 2, 2), "full"), 0, "merge")
    with pytest.raises(PosteriorError, match="conv2 is a convolution, and only linear layers are multiplied"):
        bayes.remove_layer(made_up(cnn(), "diagonal"), 1, "merge")
    with pytest.raises(PosteriorError, match='found "fold"'):
        bayes.remove_layer(made_up(mlp(3, 4, 2, 2), "diagonal"), 0, "fold")  # type: ignore[arg-type]


# Larger networks


@pytest.mark.parametrize("how", ["prior", "net2net"])
def test_wider_networks_answer_alike(how: Any) -> None:
    inputs, pictures = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 1, 4, 6, dtype=torch.float64)
    for make, larger, layer, more, rows in (
        (lambda: mlp(4, 3, 2), lambda: mlp(4, 10, 2), 0, 7, inputs),
        (cnn, lambda: cnn(second=5), 1, 2, pictures),
        (cnn, lambda: cnn(first=6), 0, 4, pictures),
    ):
        posterior = made_up(make(), "diagonal")
        wider = bayes.add_neurons(posterior, layer, more, how=how, variance=0.5)
        assert wider.layout == Layout.of(larger())
        torch.testing.assert_close(filled(larger(), wider)(rows), filled(make(), posterior)(rows))


def test_copies_share_mean_and_variance() -> None:
    """A neuron's outgoing weights, added up over its copies, have the mean and the variance that they had."""
    posterior = made_up(mlp(4, 3, 2), "diagonal")
    wider = bayes.add_neurons(posterior, 0, 4, how="net2net", seed=3)
    before, after = posterior.layout.tensors(posterior.mean), wider.layout.tensors(wider.mean)
    rows = [int((before["dense1.weight"] == row).all(1).nonzero()) for row in after["dense1.weight"]]
    assert rows[:3] == [0, 1, 2]
    assert max(map(rows.count, rows)) - min(map(rows.count, rows)) <= 1
    spread, wide_spread = posterior.layout.tensors(posterior.variance), wider.layout.tensors(wider.variance)
    for neuron in range(3):
        own = [i for i, row in enumerate(rows) if row == neuron]
        torch.testing.assert_close(after["head.weight"][:, own].sum(1), before["head.weight"][:, neuron])
        torch.testing.assert_close(wide_spread["head.weight"][:, own].sum(1), spread["head.weight"][:, neuron])
    other = bayes.add_neurons(posterior, 0, 4, how="net2net", seed=4)
    assert not torch.equal(other.mean, wider.mean)


def test_new_neurons_of_a_prior() -> None:
    wider = bayes.add_neurons(made_up(mlp(4, 3, 2), "diagonal"), 0, 2, how="prior", variance=0.25)
    for part in (wider.layout.incoming(0, [3, 4]), wider.layout.outgoing(0, [3, 4])):
        assert torch.equal(wider.mean[part], torch.zeros_like(wider.mean[part]))
        assert torch.equal(wider.variance[part], torch.full_like(wider.mean[part], 0.25))


def test_deeper_networks_answer_alike() -> None:
    inputs, pictures = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 1, 4, 6, dtype=torch.float64)
    posterior = made_up(mlp(4, 3, 2), "diagonal")
    deeper = bayes.add_layer(posterior, 0, "dense2", variance=0.1)
    assert deeper.layout == Layout.of(mlp(4, 3, 3, 2))
    torch.testing.assert_close(filled(mlp(4, 3, 3, 2), deeper)(inputs), filled(mlp(4, 3, 2), posterior)(inputs))
    assert torch.equal(bayes.remove_layer(deeper, 1).mean, posterior.mean)
    posterior = made_up(cnn(), "diagonal")
    before = filled(cnn(), posterior)(pictures)
    deeper = bayes.add_layer(posterior, 1, "more", variance=0.1)
    whole = cnn()
    parts = dict(whole.named_children())
    order = ["conv1", "relu1", "conv2", "relu2"]
    larger = nn.Sequential(
        *(parts[n] for n in order),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.ReLU(),
        *(m for n, m in parts.items() if n not in order),
    )
    torch.testing.assert_close(filled(larger, deeper)(pictures), before)


def test_what_cannot_grow() -> None:
    posterior = made_up(mlp(4, 3, 2), "diagonal")
    with pytest.raises(PosteriorError, match=r"dense1 has 3 neurons and shall have 5. Say what"):
        bayes.add_neurons(posterior, 0, 2, how="error")
    with pytest.raises(PosteriorError, match="only a diagonal posterior grows, this one is full"):
        bayes.add_neurons(made_up(mlp(4, 3, 2), "full"), 0, 2)
    with pytest.raises(PosteriorError, match="No layer can be put after dense1"):
        bayes.add_layer(made_up(mlp(4, 3, 2, activation=nn.Tanh), "diagonal"), 0, "more")
    with pytest.raises(PosteriorError, match="no hidden layer 1"):
        bayes.add_layer(posterior, 1, "more")


# Orders


def test_scores_of_single_weights_by_hand() -> None:
    posterior = made_up(mlp(3, 4, 2), "diagonal")
    m, v = posterior.layout.tensors(posterior.mean), posterior.layout.tensors(posterior.variance)
    h = torch.rand(posterior.layout.size, dtype=torch.float64)
    bends = posterior.layout.tensors(h)
    graves = (m["head.weight"].square() / (2 * v["head.weight"])).sum(0)
    damage = (bends["head.weight"] * m["head.weight"].square() / 2).sum(0)
    incoming = (m["dense1.weight"].square() / (2 * v["dense1.weight"])).sum(1) + m["dense1.bias"].square() / (
        2 * v["dense1.bias"]
    )
    call = bayes.ORDERS.call
    torch.testing.assert_close(call("graves").score(posterior, 0, None), graves)
    torch.testing.assert_close(call("cost").score(posterior, 0, None), graves)
    torch.testing.assert_close(call("brain_damage").score(posterior, 0, h), damage)
    torch.testing.assert_close(call({"name": "graves", "group": "incoming"}).score(posterior, 0, None), incoming)
    both = {"name": "graves", "group": "both", "reduce": "mean"}
    torch.testing.assert_close(call(both).score(posterior, 0, None), (incoming + graves) / 6)
    precision = GaussianPosterior(posterior.layout, posterior.mean, Diagonal(1 / h))
    torch.testing.assert_close(call("cost").score(precision, 0, None), damage)
    with pytest.raises(PosteriorError, match=r"needs the curvature .* found none"):
        call("brain_damage").score(posterior, 0, None)


@pytest.mark.parametrize("kind", ["block", "full"])
@pytest.mark.parametrize("group", ["outgoing", "incoming", "both"])
def test_the_cost_of_a_group_by_numpy(kind: str, group: str) -> None:
    posterior = made_up(mlp(3, 4, 2), kind)
    found = bayes.ORDERS.call({"name": "cost", "group": group}).score(posterior, 0, None)
    whole, mean = every(posterior).numpy(), posterior.mean.numpy()
    for neuron in range(4):
        silent, gone = by_hand(mlp(3, 4, 2), posterior, 0, [neuron])
        index = {"outgoing": silent, "incoming": gone, "both": np.concatenate([silent, gone])}[group]
        wanted = 0.5 * mean[index] @ np.linalg.solve(whole[np.ix_(index, index)], mean[index])
        assert float(found[neuron]) == pytest.approx(wanted, rel=1e-10)


def test_belsley_against_the_diagnostics_of_regression() -> None:
    """The variance-decomposition proportions of Belsley, Kuh and Welsch, by numpy's SVD of the correlations."""
    posterior = made_up(mlp(2, 3, 2), "full")
    scales = torch.logspace(-3, 3, posterior.layout.size, dtype=torch.float64)
    whole = every(posterior)
    C = whole.numpy() / np.sqrt(np.outer(np.diag(whole), np.diag(whole)))
    _, lam, Vt = np.linalg.svd(C)
    eta = lam.max() / lam
    phi = (Vt.T / lam[None, :]) ** 2  # (j, i)
    q = phi / phi.sum(1, keepdims=True)
    shares = bayes.order.collinearity(posterior).numpy()
    np.testing.assert_allclose(shares, q[:, np.argmax(eta)], rtol=1e-8)
    scaled = GaussianPosterior(posterior.layout, posterior.mean, bayes.Full(whole * scales[:, None] * scales))
    np.testing.assert_allclose(bayes.order.collinearity(scaled).numpy(), shares, rtol=1e-6)
    found = bayes.ORDERS.call("belsley").score(posterior, 0, None)
    silent = [by_hand(mlp(2, 3, 2), posterior, 0, [neuron])[0] for neuron in range(3)]
    np.testing.assert_allclose(found.numpy(), [-shares[index].sum() for index in silent], rtol=1e-8)
    with pytest.raises(PosteriorError, match="of which a diagonal posterior knows nothing"):
        bayes.ORDERS.call("belsley").score(posterior.diagonal(), 0, None)


def test_random_is_a_permutation_by_key() -> None:
    posterior = made_up(mlp(3, 9, 2), "diagonal")
    a, b, c = (bayes.ORDERS.call({"name": "random", "seed": s}).score(posterior, 0, None) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert sorted(a.tolist()) == list(range(9))


def test_one_shot_keeps_the_best_and_tells_the_rest() -> None:
    posterior = made_up(mlp(3, 6, 2), "diagonal")
    scores = bayes.ORDERS.call("graves").score(posterior, 0, None)
    smaller, curvature, removal = bayes.keep_neurons(posterior, 0, 2, "graves", curvature=posterior.variance)
    ranked = scores.argsort()
    assert removal.neurons == tuple(ranked[:4].tolist())
    assert removal.scores == tuple(scores[ranked[:4]].tolist())
    best = sorted(ranked[4:].tolist())
    assert removal.kept == tuple(best)
    assert removal.kept_scores == tuple(scores[best].tolist())
    assert torch.equal(
        smaller.layout.tensors(smaller.mean)["dense1.weight"],
        posterior.layout.tensors(posterior.mean)["dense1.weight"][best],
    )
    assert curvature is not None
    assert torch.equal(curvature, smaller.variance)
    greedy = bayes.keep_neurons(posterior, 0, 2, "graves", greedy=True)
    assert torch.equal(greedy[0].mean, smaller.mean)
    assert greedy[2] == removal


def test_greedy_looks_again() -> None:
    """Two neurons that stand in for each other: either can go, not both. One shot does not see it."""
    network = mlp(1, 3, 1, bias=False)
    layout = Layout.of(network)
    cov = torch.eye(6, dtype=torch.float64)
    cov[3, 4] = cov[4, 3] = -0.99
    posterior = GaussianPosterior(layout, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.5]), bayes.Full(cov))
    one_shot = bayes.keep_neurons(posterior, 0, 1, "cost", shift_means=True)[2]
    greedy = bayes.keep_neurons(posterior, 0, 1, "cost", shift_means=True, greedy=True)[2]
    assert set(one_shot.neurons) == {0, 1}
    assert greedy.neurons == (1, 2)


# Whole networks


def student(*sizes: int, **settings: Any) -> Layout:
    return Layout.of(mlp(*sizes, **settings))


def test_the_paper_s_students() -> None:
    posterior = made_up(mlp(10, 100, 50, 1), "diagonal")
    assert posterior.layout.size == 6201
    fewer = bayes.reduce_to(posterior, student(10, 10, 10, 1))
    assert fewer.posterior.layout.size == 231
    assert [(r.layer, len(r.neurons)) for r in fewer.neurons] == [("dense2", 40), ("dense1", 90)]
    logged = bayes.reduce_to(posterior, student(10, 100, 10, 1))
    assert logged.posterior.layout.size == 2121
    for layers, gone in (("merge", "dense1"), ("drop", "dense2")):
        shallow = bayes.reduce_to(posterior, student(10, 50, 1), layers=layers)  # type: ignore[arg-type]
        assert shallow.posterior.layout == student(10, 50, 1)
        assert shallow.layers == (gone,)
        assert sum(len(r.neurons) for r in shallow.neurons) == (0 if layers == "merge" else 50)
    assert bayes.reduce_to(posterior, student(10, 1)).layers == ("dense1", "dense2")
    same = bayes.reduce_to(posterior, posterior.layout)
    assert (same.neurons, same.layers) == ((), ())
    assert torch.equal(same.posterior.mean, posterior.mean)


def test_the_last_hidden_layer_is_cut_first() -> None:
    """So that the scores of those before it count only what is still there to hear them."""
    posterior = made_up(mlp(3, 6, 5, 2), "diagonal")
    found = bayes.reduce_to(posterior, student(3, 2, 2, 2), order="graves")
    by_hand = bayes.keep_neurons(bayes.keep_neurons(posterior, 1, 2, "graves")[0], 0, 2, "graves")[0]
    assert torch.equal(found.posterior.mean, by_hand.mean)


def test_layers_are_matched_with_the_fewest_neurons_removed() -> None:
    posterior = made_up(mlp(3, 8, 4, 6, 2), "diagonal")
    found = bayes.reduce_to(posterior, student(3, 4, 6, 2))
    assert (found.layers, found.neurons) == (("dense1",), ())
    found = bayes.reduce_to(posterior, student(3, 8, 2))
    assert (found.layers, found.neurons) == (("dense2", "dense3"), ())
    dropped = bayes.reduce_to(posterior, student(3, 4, 6, 2), layers="drop", order={"name": "random", "seed": 2})
    assert dropped.layers == ("dense2",)
    assert [(r.layer, len(r.neurons)) for r in dropped.neurons] == [("dense1", 4)]


def test_larger_students() -> None:
    posterior = made_up(mlp(4, 3, 2), "diagonal")
    inputs = torch.randn(7, 4, dtype=torch.float64)
    found = bayes.reduce_to(posterior, student(4, 5, 3, 2), wider="net2net")
    assert found.added == ("dense2",)
    assert found.posterior.layout == student(4, 5, 3, 2)
    torch.testing.assert_close(
        filled(mlp(4, 5, 3, 2), found.posterior)(inputs), filled(mlp(4, 3, 2), posterior)(inputs)
    )
    with pytest.raises(PosteriorError, match="The student has 2 hidden layers, the teacher's posterior 1"):
        bayes.reduce_to(posterior, student(4, 3, 3, 2))
    with pytest.raises(PosteriorError, match="dense1 has 3 neurons and shall have 5"):
        bayes.reduce_to(posterior, student(4, 5, 2))


def test_brain_damage_of_a_whole_network_and_after_a_merge() -> None:
    posterior = made_up(mlp(3, 6, 5, 2), "diagonal")
    found = bayes.reduce_to(posterior, student(3, 2, 2, 2), order="brain_damage", curvature=1 / posterior.variance)
    assert torch.equal(found.posterior.mean, bayes.reduce_to(posterior, student(3, 2, 2, 2)).posterior.mean)
    with pytest.raises(PosteriorError, match="After layers were merged there is none"):
        bayes.reduce_to(posterior, student(3, 2, 2), order="brain_damage", curvature=1 / posterior.variance)


def test_convolutions_of_a_whole_network() -> None:
    posterior = made_up(cnn(first=4, second=5, dense=6), "diagonal")
    found = bayes.reduce_to(posterior, Layout.of(cnn()))
    assert found.posterior.layout == Layout.of(cnn())
    assert [(r.layer, len(r.neurons)) for r in found.neurons] == [("dense", 2), ("conv2", 2), ("conv1", 2)]


# teacher, student, words
UNALIGNED: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], str]] = {
    "inputs": (lambda: mlp(4, 3, 2), lambda: mlp(5, 3, 2), "The student has 5 inputs, the teacher's posterior 4"),
    "outputs": (lambda: mlp(4, 3, 2), lambda: mlp(4, 3, 3), "The student has 3 outputs"),
    "activation": (
        lambda: mlp(4, 3, 2), lambda: mlp(4, 2, 2, activation=nn.Tanh),
        r"dense1 cannot be aligned with the teacher's dense1: what follows it Tanh\(\) against ReLU\(\)",
    ),
    "biases": (lambda: mlp(4, 3, 2), lambda: mlp(4, 2, 2, bias=False), "biases not there against there"),
    "kernel": (
        cnn, lambda: nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(),
                                   nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 3)),
        "0 has a kernel of 5x5, conv1 a kernel of 3x3",
    ),
    "padding": (
        cnn, lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(),
                                   nn.Linear(18, 2), nn.ReLU(), nn.Linear(2, 3)),
        r"convolution stride \(1, 1\), padding \(0, 0\).* against stride \(1, 1\), padding \(1, 1\)",
    ),
    "pictures": (
        lambda: mlp(64, 4, 3), lambda: networks.build("small_cnn:2-2", (1, 8, 8), 3),
        "conv1 has a kernel of 3x3, dense1 no kernel",
    ),
    "linear": (cnn, lambda: mlp(1, 2, 2, 3, 3), "dense1 has no kernel .it is linear., conv1 a kernel of 3x3"),
    "residual student": (
        cnn, lambda: bayes.fold(networks.build("resnet18:2", (1, 8, 8), 3)),
        "The student's network cannot be aligned .* stage1.block1 is a Residual",
    ),
    "residual teacher": (
        lambda: bayes.fold(networks.build("resnet18:2", (1, 8, 8), 3)), cnn, "The teacher's posterior cannot be",
    ),
    "drop a convolution": (
        cnn,
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
        "conv2 is a convolution, and only linear layers are multiplied",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("teacher", "own", "words"), UNALIGNED.values(), ids=UNALIGNED)
def test_what_cannot_be_aligned_is_refused_by_name(
    teacher: Callable[[], nn.Module], own: Callable[[], nn.Module], words: str
) -> None:
    with pytest.raises(PosteriorError, match=words):
        bayes.reduce_to(bayes.from_means(teacher()), Layout.of(own()))


def test_a_full_posterior_of_a_whole_network() -> None:
    posterior = made_up(mlp(3, 5, 4, 2), "full")
    found = bayes.reduce_to(posterior, student(3, 3, 3, 2))
    assert found.posterior.kind == "full"
    assert float(torch.linalg.eigvalsh(every(found.posterior)).min()) > 0
    held: Tensor = bayes.reduce_to(posterior, student(3, 3, 3, 2), shift_means=True).posterior.mean
    assert not torch.allclose(held, found.posterior.mean)
