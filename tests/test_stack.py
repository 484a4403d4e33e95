"""Passes that are written out: the gradients of autograd and of float64, and which networks are left to autograd."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import potstill as ps
from potstill import engine, networks
from potstill.networks.stack import Stack
from potstill.registry import Spec
from potstill.training import optimizers

SPECS: tuple[Spec, ...] = (
    "linear",
    "mlp:7",
    "mlp:100",  # a large product below a small one
    "mlp:500-400-300-200-100",
    {"name": "mlp", "hidden": [9, 5], "dropout": 0.0},
)


def network_of(spec: Spec) -> nn.Module:
    return networks.seeded(spec, (1, 28, 28), 10, seed=2)


def batch(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.rand(rows, 1, 28, 28, generator=generator), torch.randn(rows, 10, generator=generator)


def columns(rows: Tensor) -> Tensor:
    """(1, K, B) of (B, K): one network's, in the layout of a stack."""
    return rows.t().unsqueeze(0)


def in_float64(network: nn.Module, inputs: Tensor, gradient: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits and gradients by numpy, layer by layer."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    here, kept = inputs.flatten(1).double().numpy(), []
    for number, layer in enumerate(linear):
        kept.append(here)
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        here = here @ weight.T + bias
        if number < len(linear) - 1:
            here = np.maximum(here, 0)
    back, found = gradient.double().numpy(), []
    for layer, below in zip(reversed(linear), reversed(kept), strict=True):
        found += [back.sum(0), back.T @ below]
        back = (back @ layer.weight.detach().double().numpy()) * (below > 0)
    return here, found[::-1]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 128])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_passes_equal_float64(spec: Spec, rows: int, precision: str) -> None:
    network = network_of(spec)
    inputs, gradient = batch(rows)
    stack = Stack.of([network])
    assert stack is not None
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        logits = stack.forward(inputs)
        stack.backward(columns(gradient))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    wanted, gradients = in_float64(network, inputs, gradient)
    np.testing.assert_allclose(logits[0].t().numpy(), wanted, atol=2e-5)
    for parameter, expected in zip(network.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), expected, atol=2e-5 * max(1, np.abs(expected).max()))


def test_a_second_backward_pass_overwrites_the_first() -> None:
    network = network_of("mlp:7")
    stack = Stack.of([network])
    assert stack is not None
    found = []
    for _ in range(2):
        inputs, gradient = batch(5)
        stack.forward(inputs)
        stack.backward(columns(gradient))
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_passes_follow_the_weights_as_they_change() -> None:
    network = network_of("mlp:7")
    stack = Stack.of([network])
    assert stack is not None
    network.load_state_dict({name: 2 * t for name, t in network.state_dict().items()})
    inputs, _ = batch(4)
    torch.testing.assert_close(stack.forward(inputs), columns(network(inputs).detach()))


def _hooked(network: nn.Sequential) -> nn.Module:
    network[1].register_forward_hook(lambda *_: None)
    return network


def _backward_hooked(network: nn.Sequential) -> nn.Module:
    network[1].register_full_backward_hook(lambda *_: None)
    return network


def _tensor_hooked(network: nn.Sequential) -> nn.Module:
    network[1].weight.register_hook(lambda g: g)
    return network


def _hooked_after(network: nn.Sequential) -> nn.Module:
    network[1].weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_())
    return network


def _replaced(network: nn.Sequential) -> nn.Module:
    network[1].forward = lambda x: 0.5 * nn.Linear.forward(network[1], x)
    return network


def _frozen(network: nn.Sequential) -> nn.Module:
    network[1].weight.requires_grad_(False)
    return network


def _tied(network: nn.Sequential) -> nn.Module:
    network[-1].bias = network[1].bias
    return network


def _parametrized(network: nn.Sequential) -> nn.Module:
    nn.utils.parametrizations.weight_norm(network[1])
    return network


class _Own(nn.Sequential):
    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


class _OwnLinear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).sin()


def _layers(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"m{i}", m) for i, m in enumerate(modules)))


LEFT: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: network_of("lenet"),
    "dropout": lambda: network_of({"name": "mlp", "hidden": [8], "dropout": 0.5}),
    "another activation": lambda: _layers(nn.Flatten(), nn.Linear(784, 8), nn.Tanh(), nn.Linear(8, 10)),
    "two layers without an activation": lambda: _layers(nn.Flatten(), nn.Linear(784, 8), nn.Linear(8, 10)),
    "a ReLU at the end": lambda: _layers(nn.Flatten(), nn.Linear(784, 10), nn.ReLU()),
    "no bias": lambda: _layers(nn.Flatten(), nn.Linear(784, 10, bias=False)),
    "nothing that flattens": lambda: _layers(nn.Linear(784, 10)),
    "another flattening": lambda: _layers(nn.Flatten(0), nn.Linear(784, 10)),
    "flattening alone": lambda: _layers(nn.Flatten()),
    "a class of one's own": lambda: _Own(nn.Flatten(), nn.Linear(784, 10)),
    "a layer of one's own": lambda: _layers(nn.Flatten(), _OwnLinear(784, 10)),
    "float64": lambda: network_of("mlp:8").double(),
    "another device": lambda: network_of("mlp:8").to("meta"),
    "a forward hook": lambda: _hooked(network_of("mlp:8")),  # type: ignore[arg-type]
    "a backward hook": lambda: _backward_hooked(network_of("mlp:8")),  # type: ignore[arg-type]
    "a tensor's hook": lambda: _tensor_hooked(network_of("mlp:8")),  # type: ignore[arg-type]
    "a hook on a gradient that has been added": lambda: _hooked_after(network_of("mlp:8")),  # type: ignore[arg-type]
    "a forward pass that was replaced": lambda: _replaced(network_of("mlp:8")),  # type: ignore[arg-type]
    "a frozen layer": lambda: _frozen(network_of("mlp:8")),  # type: ignore[arg-type]
    "shared parameters": lambda: _tied(network_of("mlp:10")),  # type: ignore[arg-type]
    "parametrised weights": lambda: _parametrized(network_of("mlp:8")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_autograd(name: str) -> None:
    assert Stack.of([LEFT[name]()]) is None


def test_hooks_on_all_modules_are_left_to_autograd() -> None:
    network = network_of("mlp:8")
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert Stack.of([network]) is None
    finally:
        hook.remove()
    assert Stack.of([network]) is not None


@pytest.fixture(scope="module")
def digits() -> Any:
    return ps.data.open("digits", test=600, validation=100, labelled=300, splits=("train", "validation"))


@pytest.mark.parametrize("objective", ["hard_labels", "hinton", "pseudo_labels"])
def test_both_ways_train_alike(digits: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    teacher = None
    if objective != "hard_labels":
        teacher = ps.record(ps.fit("mlp:32", digits, seed=3, steps=60), digits.train, folder=tmp_path)
    settings: dict[str, Any] = {"seed": 1, "batch_size": 50, "steps": 40, "clip": 1.0, "teacher": teacher}
    asked = []
    plain, of = Stack.backward, Stack.of
    monkeypatch.setattr(Stack, "backward", lambda self, gradient: (asked.append(1), plain(self, gradient))[1])
    by_hand = ps.fit("mlp:24-12", digits, objective, **settings)
    assert len(asked) == 40
    monkeypatch.setattr(Stack, "of", staticmethod(lambda networks: of([nn.Sequential()])))
    by_autograd = ps.fit("mlp:24-12", digits, objective, **settings)
    assert len(asked) == 40
    for a, b in zip(by_hand.network.parameters(), by_autograd.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_penalty_is_left_to_autograd(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Stack, gradient: Tensor) -> None:
        raise AssertionError("the penalty's gradient would be lost")

    monkeypatch.setattr(Stack, "backward", refuse)
    penalty = lambda network: sum(p.square().sum() for p in network.parameters())  # noqa: E731
    ps.fit("mlp:8", digits, steps=2, penalties=[penalty])


def test_no_gradients_stay_after_training(digits: Any) -> None:
    assert all(p.grad is None for p in ps.fit("mlp:8", digits, steps=2).network.parameters())


@pytest.mark.parametrize(
    "spec", ["adam", {"name": "adam", "weight_decay": 0.1}, {"name": "adamw", "betas": [0.5, 0.9]}, "sgd", "adadelta"]
)
@pytest.mark.parametrize("count", [1, 3])
def test_updates_equal_the_optimizers_own_steps(spec: Spec, count: int) -> None:
    """The learning rate changes between steps, and the state goes through a checkpoint in the middle."""
    found = []
    for own in (False, True):
        layers = [network_of("mlp:5") for _ in range(count)]
        for number, network in enumerate(layers):
            for p in network.parameters():
                p.data.mul_(1 + number)
        stack = Stack(layers)
        parameters = [list(network.parameters()) for network in layers]
        given = [optimizers.REGISTRY.call(spec, rows) for rows in parameters]
        for number in range(8):
            if number in (0, 5):
                states = [optimizers.state_tensors(optimizer) for optimizer in given]
                given = [optimizers.REGISTRY.call(spec, rows) for rows in parameters]
                for optimizer, state in zip(given, states, strict=True):
                    optimizers.load_state(optimizer, state)
                update = (lambda: None) if own else optimizers.updater(given, stack)
            for optimizer in given:
                optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
            for p in itertools.chain(*parameters):
                assert p.grad is not None
                p.grad.copy_(torch.sin(p.detach() * (number + 1)))
            update()
            for optimizer in given if own else ():
                optimizer.step()
        for optimizer in given:
            optimizers.separate(optimizer)
            optimizer.step()  # every parameter counts its own steps again
        found.append([p.detach().clone() for p in itertools.chain(*parameters)])
        found[-1] += [t for optimizer in given for t in optimizers.state_tensors(optimizer).values()]
    assert len(found[0]) > 4 * count
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)  # the ends of tensors may round otherwise


@pytest.mark.parametrize(
    ("flushing", "threads", "eps", "kept"),
    [(False, 1, 1e-8, False), (True, 1, 1e-8, False), (False, 2, 1e-8, True), (False, 1, 0.0, True)],
)
def test_means_too_small_become_zero_and_no_weight_notices(
    flushing: bool, threads: int, eps: float, kept: bool
) -> None:
    """Adam's running mean of a gradient that is zero from some step on; torch's own goes below the smallest normal."""
    tiny, halves = torch.finfo(torch.float32).tiny, []
    torch.set_flush_denormal(flushing)
    try:
        found = []
        for own in (False, True):
            network = network_of("mlp:5")
            stack = Stack([network])
            optimizer = optimizers.REGISTRY.call({"name": "adam", "eps": eps}, list(network.parameters()))
            update = optimizer.step if own else optimizers.updater([optimizer], stack)
            with engine.threads(threads):
                for number in range(900):
                    for p in network.parameters():
                        assert p.grad is not None
                        p.grad.fill_(0.0 if number else 1e-3)
                    update()
                    halves.append(float(torch.tensor(tiny) / 2))
            found.append([p.detach().clone() for p in network.parameters()])
            means = [state["exp_avg"].abs().max().item() for state in optimizer.state.values()]
            assert (0 < max(means) < tiny) is ((own or kept) and not flushing)
        assert all(map(torch.equal, *found))
    finally:
        torch.set_flush_denormal(False)
    assert {half == 0 for half in halves} == {flushing}, "the thread's own setting was not put back"


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("settings", [{}, {"eps": 0.0}, {"eps": 1e-30}, {"eps": 0.0, "betas": [0.0, 0.0]}])
def test_a_mean_that_a_step_is_divided_by_is_kept(name: str, settings: dict[str, Any]) -> None:
    """The squares of such gradients are below the smallest normal; with no eps to speak of they are all there is."""
    found = []
    for own in (False, True):
        network = network_of("mlp:5")
        stack = Stack([network])
        optimizer = optimizers.REGISTRY.call({"name": name, "weight_decay": 0.0} | settings, network.parameters())
        update = optimizer.step if own else optimizers.updater([optimizer], stack)
        for _ in range(3):
            stack.gradients.fill_(1e-20)
            with engine.threads(1):
                update()
        found.append([p.detach().clone() for p in network.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_setting_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(torch, "_fused_adam_", fail)
    network = network_of("mlp:5")
    stack = Stack([network])
    with engine.threads(1), pytest.raises(RuntimeError, match="broken"):
        optimizers.updater([optimizers.REGISTRY.call("adam", network.parameters())], stack)()
    assert float(torch.tensor(torch.finfo(torch.float32).tiny) / 2) > 0


def test_threads_that_start_in_an_update_flush_nothing() -> None:
    """A thread starts with the setting of the one that starts it; torch starts its own at the first need."""
    zeros = []

    def work() -> None:
        network = network_of("mlp:5")
        stack = Stack([network])
        optimizers.updater([optimizers.REGISTRY.call("adam", network.parameters())], stack)()
        zeros.append(int((torch.full((2**20,), torch.finfo(torch.float32).tiny) / 2 == 0).sum()))

    with engine.threads(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert zeros == [0]
