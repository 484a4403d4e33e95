"""Variational training with both passes written out: against float64 and autograd, and what is left to autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bayes_samples import made_up, mlp
from torch import Tensor, nn

import potstill as ps
from potstill import bayes, networks
from potstill.errors import Interrupted, TrainingError
from potstill.networks.drawn import DrawnStack
from potstill.networks.pieces import Flat, Piece, pieces_of
from potstill.networks.variational import LEAST, Noise, Variational, variances
from potstill.training import step
from potstill.types import DataSpec

SPEC = DataSpec((4,), ("a", "b", "c"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3)).astype(np.float32)
Y = X @ np.array([[2.0], [-1.0], [0.5]]) + 1 + 0.3 * RNG.normal(size=(120, 1))


def network_of(*sizes: int, **settings: Any) -> Variational:
    torch.manual_seed(1)
    return Variational(mlp(*sizes), spec=SPEC, **{"std": 0.3} | settings)


@pytest.mark.parametrize("most", [None, 60, 20, 3])
@pytest.mark.parametrize("noise", ["local", "none"])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 7, 3), (4, 9, 5, 3)], ids=str)
def test_passes_equal_float64(sizes: tuple[int, ...], noise: str, most: int | None) -> None:
    """`most` 60: the largest network in two pieces, of one layer and of two; 20: layers are cut; 3: row by row."""
    network = network_of(*sizes, noise=noise)
    inputs, gradient = torch.randn(6, 4), torch.randn(6, 3)
    twins = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    torch.manual_seed(5)
    here = inputs.double()
    for number, name in enumerate(network.layers):
        if number:
            here = here.relu()
        weight, bias, weight_log_std, bias_log_std = (
            twins[f"network.{name}.{part}"] for part in ("weight", "bias", "weight_log_std", "bias_log_std")
        )
        mean = here @ weight.T + bias
        variance = here.square() @ (2 * weight_log_std).exp().T + (2 * bias_log_std).exp()
        draws = torch.randn(mean.shape).double() if noise == "local" else torch.zeros_like(mean)
        here = mean + variance.clamp_min(LEAST).sqrt() * draws
    here.backward(gradient.double())
    stack = DrawnStack.of(network, most)
    assert stack is not None
    torch.manual_seed(5)
    torch.testing.assert_close(stack.forward(inputs), here.float(), rtol=1e-4, atol=1e-5)
    gathered = torch.full_like(stack.values, torch.nan)

    def take(piece: Piece) -> None:
        own, part = piece.own, piece.stretch
        gathered[: stack.size][part] = own.by_means
        gathered[stack.size :][part] = own.by_log_stds.mul_(own.variances)
        for mine in (own.means, own.log_stds):  # weights of a piece that is done are used no more
            mine.add_(1000)

    stack.backward(gradient, take)
    stack.values.sub_(1000)
    for (name, parameter), found in zip(network.named_parameters(), stack.views(gathered)[0], strict=True):
        wanted = twins[name].grad
        assert parameter.grad is not None
        assert len(stack.pieces) > 1 or torch.equal(parameter.grad, found)
        expected = torch.zeros_like(found) if wanted is None else wanted.float()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
    before = [p.detach().clone() for p in network.parameters()]
    stack.release()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("sizes", "most", "counted"), [
    ([(3, 4)], None, [1]), ([(7, 4), (3, 7)], 60, [2]), ([(7, 4), (3, 7)], 28, [1, 1]),
    ([(7, 4), (3, 7)], 12, [1, 1, 2, 1, 1]), ([(3, 4)], 2, [1, 1, 1]),
    ([(100, 10), (5, 100)], 501, [1, 1, 1]), ([(8, 4), (2, 8), (2, 2)], 20, [2, 1, 1]),
])  # fmt: skip
def test_pieces_hold_every_number_once(sizes: list[tuple[int, int]], most: int | None, counted: list[int]) -> None:
    """From the last to the first, and no more weights in one than were allowed; `counted`: parts of layers in each."""
    numbers = torch.arange(float(sum(outputs * (width + 1) for outputs, width in sizes)))
    found = pieces_of(sizes, Flat(*(numbers.clone() for _ in range(5))), most)
    assert [len(piece.rows) for piece in found] == counted
    assert torch.equal(torch.cat([piece.own.means for piece in reversed(found)]), numbers)
    for piece in found:
        assert torch.equal(piece.own.variances, numbers[piece.stretch])
        weights = [part.by_weight[0].numel() for part in piece.rows]
        biases = [0 if part.by_bias is None else part.by_bias[1].numel() for part in piece.rows]
        assert sum(weights) + sum(biases) == len(piece.own.by_log_stds) == len(piece.own.means)
        assert most is None or sum(weights) <= max(most, sizes[0][1])
        assert {part.by_weight[0].shape[1] == sizes[part.layer][1] for part in piece.rows} == {True}
    assert len({piece.own.by_means.data_ptr() for piece in found}) == 1


def test_variances_are_those_of_float64() -> None:
    log_stds = torch.linspace(-12, 3, 1001)
    exact = (2 * log_stds.double()).exp()
    assert float(((variances(log_stds).double() - exact) / exact).abs().max()) < 2e-6
    assert torch.equal(variances(torch.zeros(3)), torch.ones(3))


def _prior(kind: str) -> bayes.GaussianPosterior:
    """By whose means and variances the divergence goes other ways."""
    own = made_up(mlp(4, 7, 3), "diagonal")
    mean = torch.zeros_like(own.mean) if kind in ("standard", "N(0, 4)", "own variances") else own.mean
    shared = {"standard": 1.0, "N(0, 4)": 4.0, "own means": 0.5, "own means, unit variances": 1.0}
    variance = own.variance if kind not in shared else torch.full_like(own.variance, shared[kind])
    return bayes.GaussianPosterior(own.layout, mean, bayes.Diagonal(variance), {})


@pytest.mark.parametrize("most", [None, 12])
@pytest.mark.parametrize("noise", ["local", "none"])
@pytest.mark.parametrize(
    "kind", ["standard", "N(0, 4)", "own means", "own means, unit variances", "own variances", "own"]
)
@pytest.mark.parametrize("learn_prior", [0.0, 0.3])
def test_the_divergence_and_its_gradient_by_autograd(
    learn_prior: float, kind: str, noise: Noise, most: int | None
) -> None:
    prior = _prior(kind)
    network = network_of(4, 7, 3, learn_prior=learn_prior, noise=noise)
    divergence = bayes.Divergence(network, prior, beta=0.7)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("prior"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
    value = divergence(network) / 50
    value.backward()
    wanted = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    if not learn_prior:  # the plain formula, in float64
        means, stds = (
            torch.cat([p.detach().double().flatten() for p in own]).requires_grad_()
            for own in (network.means(), network.log_stds())
        )
        gap, v = means - prior.mean, prior.variance
        plain = 0.7 / 50 * 0.5 * ((2 * stds).exp() / v + gap.square() / v + v.log() - 2 * stds - 1).sum()
        plain.backward()
        assert float(value.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    stack = DrawnStack.of(network, most)
    assert stack is not None
    assert (len(stack.pieces) > 1) is (most is not None and not learn_prior)
    torch.manual_seed(3)
    inputs, gradient, each = torch.randn(2, 4), torch.randn(2, 3), list[float]()
    stack.forward(inputs)
    gathered, alone = torch.zeros_like(stack.values), torch.zeros_like(stack.values)

    def take(piece: Piece, flat: Tensor, *, apart: bool) -> None:
        own, part = piece.own, piece.stretch
        if apart:
            own.by_log_stds.mul_(own.variances)
        else:
            each.append(divergence.descend(stack, piece, 1 / 50))
        flat[: stack.size][part], flat[stack.size : 2 * stack.size][part] = own.by_means, own.by_log_stds
        flat[2 * stack.size :] = stack.gradients[2 * stack.size :] if not apart else 0

    stack.backward(gradient, lambda piece: take(piece, alone, apart=True))
    stack.backward(gradient, lambda piece: take(piece, gathered, apart=False))
    assert sum(each) == pytest.approx(float(value.detach()), rel=1e-5)
    for name, both, one in zip(
        dict(network.named_parameters()), stack.views(gathered)[0], stack.views(alone)[0], strict=True
    ):
        torch.testing.assert_close(both - one, wanted[name], rtol=1e-4, atol=1e-5, msg=name)
    if not learn_prior:
        for flat, twin in zip(stack.parts(gathered - alone), (means, stds), strict=True):
            assert twin.grad is not None
            torch.testing.assert_close(flat, twin.grad.float(), rtol=1e-4, atol=1e-5)


def digits(**options: Any) -> Any:
    return ps.data.open("digits", **({"test": 300, "validation": 100, "labelled": 200} | options))


def values() -> Any:
    return ps.data.open((X, Y), task="regression", test=20, validation=20)


def told() -> bayes.GaussianPosterior:
    return made_up(networks.seeded("mlp:9", (1, 8, 8), 10, seed=0), "diagonal")


HINTON = {"name": "hinton", "temperature": 2.0, "alpha": 0.3}
CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "the paper's student": lambda: {"data": digits(), "inference": "student"},
    "a teacher's posterior": lambda: {"data": digits(), "inference": bayes.build("distil-student-all").of(told())},
    "its means alone": lambda: {"data": digits(), "inference": bayes.build("distil-student").of(told())},
    "no layer between": lambda: {"data": digits(), "network": "linear", "inference": "variational"},
    "clipped": lambda: {"data": digits(), "inference": "student", "clip": 0.01},
    "without fixed targets": lambda: {
        "data": digits(), "inference": "student", "objective": {"name": "probabilistic", "lam": 0.5},
        "teacher": ps.fit("linear", digits(), seed=0, steps=3),
    },
    "half a bound": lambda: {"data": digits(), "inference": {"name": "variational", "beta": 0.5}},
    "a prior that is trained": lambda: {
        "data": digits(), "inference": {"name": "variational", "empirical_bayes": True, "prior": {"std": 0.3}}
    },
    "the published objective": lambda: {"data": values(), "inference": {"name": "published", "alpha": 0.01}},
    "values with noise": lambda: {
        "data": values(), "inference": "student", "objective": {"name": "gaussian", "sigma": 0.3}
    },
    "values and their noise": lambda: {"data": values(), "inference": "student", "objective": "gaussian"},
}  # fmt: skip


def fitted(case: dict[str, Any], **settings: Any) -> ps.Model:
    given = {"network": "mlp:6", "seed": 0, "steps": 12, "batch_size": 32, "select": "last"} | case | settings
    return ps.fit(given.pop("network"), given.pop("data"), **given)


@pytest.mark.parametrize("name", CASES)
def test_a_training_is_that_of_autograd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, taken = CASES[name](), []
    original = step._Drawn.step
    monkeypatch.setattr(step._Drawn, "step", lambda self, *given: (taken.append(1), original(self, *given))[1])
    written = fitted(case)
    assert len(taken) == 12
    monkeypatch.setattr(step._Drawn, "of", staticmethod(lambda learner: None))
    recorded = fitted(case)
    assert len(taken) == 12
    for key, value in recorded.network.state_dict().items():
        torch.testing.assert_close(written.network.state_dict()[key], value, rtol=1e-3, atol=2e-5, msg=key)
    for a, b in zip(written.history, recorded.history, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["the paper's student", "a teacher's posterior", "its means alone", "without fixed targets", "clipped"]
)
def test_a_training_in_pieces_is_that_of_autograd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64-6-10, row by row; with gradients that are clipped, and with an optimizer without pieces, at once."""
    case, counts = CASES[name](), list[int]()
    monkeypatch.setattr(step, "PIECE", 100)
    original = step._Drawn.step
    monkeypatch.setattr(
        step._Drawn, "step", lambda self, *given: (counts.append(len(self._stack.pieces)), original(self, *given))[1]
    )
    optimizer = {"name": "sgd", "learning_rate": 0.01} if name == "its means alone" else "adam"
    written = fitted(case, optimizer=optimizer)
    assert set(counts) == ({1} if name in ("clipped", "its means alone") else {7})
    monkeypatch.setattr(step._Drawn, "of", staticmethod(lambda learner: None))
    recorded = fitted(case, optimizer=optimizer)
    for key, value in recorded.network.state_dict().items():
        torch.testing.assert_close(written.network.state_dict()[key], value, rtol=1e-3, atol=2e-5, msg=key)
    for a, b in zip(written.history, recorded.history, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_a_divergence_that_is_not_finite_stops_a_training_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "PIECE", 100)
    monkeypatch.setattr(bayes.Divergence, "descend", lambda *_: math.inf)
    with pytest.raises(TrainingError, match="penalty"):
        fitted(CASES["the paper's student"]())


@pytest.mark.parametrize("name", ["the published objective", "a teacher's posterior"])
def test_interrupted_and_continued(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, means, deviations and a trained prior alike; the second in pieces."""
    monkeypatch.setattr(step, "PIECE", 100)
    case = CASES[name]()
    whole = fitted(case)
    with pytest.raises(Interrupted):
        fitted(case, folder=tmp_path, checkpoint_seconds=0, should_stop=lambda: True)
    found = fitted(case, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(found.network.parameters(), whole.network.parameters(), strict=True))


def _frozen(network: Variational) -> Variational:
    network.means()[0].requires_grad_(False)
    return network


def _hooked(network: Variational) -> Variational:
    network.layers["head"].register_forward_hook(lambda *_: None)
    return network


LEFT: dict[str, Callable[[], nn.Module]] = {
    "no distributions": lambda: mlp(4, 7, 3),
    "other activations": lambda: Variational(mlp(4, 7, 3, activation=nn.Tanh), spec=SPEC),
    "no biases": lambda: Variational(mlp(4, 7, 3, bias=False), spec=SPEC),
    "a convolution": lambda: Variational(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), spec=SPEC),
    "a batch norm": lambda: Variational(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)), spec=SPEC
    ),
    "double precision": lambda: network_of(4, 7, 3).double(),
    "a frozen layer": lambda: _frozen(network_of(4, 7, 3)),
    "a hook": lambda: _hooked(network_of(4, 7, 3)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_autograd(name: str) -> None:
    assert DrawnStack.of(LEFT[name]()) is None


def test_hooks_on_all_modules_are_left_to_autograd() -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert DrawnStack.of(network_of(4, 7, 3)) is None
    finally:
        hook.remove()
    assert DrawnStack.of(network_of(4, 7, 3)) is not None


@pytest.mark.parametrize("name", ["a full prior", "a learnt noise", "two penalties"])
def test_trainings_that_are_left_to_autograd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step._Drawn, "step", lambda *_: pytest.fail("written out"))
    case: dict[str, Any] = {"data": values(), "network": "linear", "inference": "student"}
    if name == "a full prior":
        full = made_up(networks.seeded("linear", (3,), 1, seed=0), "full")
        case["inference"] = bayes.build("distil-student-all").of(full)
    elif name == "a learnt noise":
        case["objective"] = {"name": "gaussian", "sigma": "learned"}
    else:
        case["penalties"] = [_nothing]
    assert fitted(case, steps=2).history


def _nothing(network: nn.Module) -> Tensor:
    return next(network.parameters()).sum() * 0.0
