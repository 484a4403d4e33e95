"""Variational training with both passes written out: against float64 and autograd, and what is left to autograd."""

from __future__ import annotations

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
from potstill.errors import Interrupted
from potstill.networks.drawn import DrawnStack
from potstill.networks.variational import LEAST, Variational
from potstill.training import step
from potstill.types import DataSpec

SPEC = DataSpec((4,), ("a", "b", "c"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3)).astype(np.float32)
Y = X @ np.array([[2.0], [-1.0], [0.5]]) + 1 + 0.3 * RNG.normal(size=(120, 1))


def network_of(*sizes: int, **settings: Any) -> Variational:
    torch.manual_seed(1)
    return Variational(mlp(*sizes), spec=SPEC, **{"std": 0.3} | settings)


@pytest.mark.parametrize("noise", ["local", "none"])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 7, 3), (4, 9, 5, 3)], ids=str)
def test_passes_equal_float64(sizes: tuple[int, ...], noise: str) -> None:
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
    stack = DrawnStack.of(network)
    assert stack is not None
    torch.manual_seed(5)
    torch.testing.assert_close(stack.forward(inputs), here.float(), rtol=1e-4, atol=1e-5)
    stack.backward(gradient)
    for name, parameter in network.named_parameters():
        wanted = twins[name].grad
        found = parameter.grad
        assert found is not None
        expected = torch.zeros_like(found) if wanted is None else wanted.float()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
    before = [p.detach().clone() for p in network.parameters()]
    stack.release()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize("learn_prior", [0.0, 0.3])
def test_the_divergence_and_its_gradient_by_autograd(learn_prior: float, standard: bool) -> None:
    prior = made_up(mlp(4, 7, 3), "diagonal")
    prior = bayes.Prior().posterior(prior.layout, None) if standard else prior
    network = network_of(4, 7, 3, learn_prior=learn_prior)
    divergence = bayes.Divergence(network, prior, beta=0.7)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("prior"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
    value = divergence(network) / 50
    value.backward()
    wanted = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    stack = DrawnStack.of(network)
    assert stack is not None
    stack.forward(torch.randn(2, 4))
    stack.backward(torch.zeros(2, 3))
    found = divergence.descend(stack, 1 / 50)
    assert found == pytest.approx(float(value.detach()), rel=1e-5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5, msg=name)
    between = (
        stack.gradients.sum() - torch.stack([p.grad.sum() for p in network.parameters() if p.grad is not None]).sum()
    )
    assert abs(float(between)) < 1e-4  # nothing moves where no parameter lies


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


def test_a_trained_prior_interrupted_and_continued(tmp_path: Path) -> None:
    """Bit for bit, means, deviations and prior alike."""
    case = CASES["the published objective"]()
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
