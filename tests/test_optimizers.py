"""Adam's variants: against the equations in float64, torch's own Adam, Keras' own Adam; what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import potstill as ps
from potstill.errors import SettingError
from potstill.training import optimizers

SETTINGS: dict[str, Any] = {"learning_rate": 0.03, "betas": (0.8, 0.99), "eps": 1e-3}
STEPS = 1005  # past both of the paper's thresholds


def gradients(steps: int = STEPS) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(steps, 3)) * np.array([1.0, 1e-3, 30.0]) + 0.1


def stepped(table: dict[str, Any], given: np.ndarray, *, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Where a parameter that starts at 1 is after each gradient."""
    parameter = nn.Parameter(torch.ones(given.shape[1], dtype=dtype))
    optimizer = optimizers.REGISTRY.call({"name": "adam"} | table, [parameter])
    found = []
    for row in given:
        parameter.grad = torch.tensor(row, dtype=dtype)
        optimizer.step()
        found.append(parameter.detach().numpy().copy())
    return np.array(found)


def by_hand(variant: str, given: np.ndarray, decay: float) -> np.ndarray:
    """Paper 1, equations 6 to 10, line by line; `keras` leaves out the corrections of m and v."""
    beta1, beta2 = SETTINGS["betas"]
    m = v = np.zeros(given.shape[1])
    theta, found = np.ones(given.shape[1]), []
    for t, g in enumerate(given, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rate = SETTINGS["learning_rate"] / (1 + decay * (t - 1)) * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        m_used, v_used = m, v
        if variant == "paper":
            m_used = m / (1 - beta1**t) if t < 10 else m
            v_used = v / (1 - beta2**t) if t < 1000 else v
        theta = theta - rate * m_used / (np.sqrt(v_used) + SETTINGS["eps"])
        found.append(theta)
    return np.array(found)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("variant", ["keras", "paper"])
def test_the_equations_of_the_paper(variant: str, decay: float) -> None:
    given = gradients()
    found = stepped(SETTINGS | {"variant": variant, "decay": decay}, given)
    np.testing.assert_allclose(found, by_hand(variant, given, decay), rtol=1e-11)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_decay_of_torchs_adam_is_a_rate_that_falls(weight_decay: float) -> None:
    given, parameter = gradients(50), nn.Parameter(torch.ones(3, dtype=torch.float64))
    beta, eps = SETTINGS["betas"], SETTINGS["eps"]
    plain = torch.optim.Adam([parameter], lr=1.0, betas=beta, eps=eps, weight_decay=weight_decay)
    wanted = []
    for t, row in enumerate(given):
        plain.param_groups[0]["lr"] = SETTINGS["learning_rate"] / (1 + 0.2 * t)
        parameter.grad = torch.tensor(row)
        plain.step()
        wanted.append(parameter.detach().numpy().copy())
    found = stepped(SETTINGS | {"decay": 0.2, "weight_decay": weight_decay}, given)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_first_step_by_hand() -> None:
    """Gradient 1, betas 0.9 and 0.999: m = 0.1, v = 0.001. Corrected once, the step is the learning rate."""
    one = np.ones((1, 1))
    for variant, wanted in {"torch": 0.1, "keras": 0.1, "paper": 0.1 * math.sqrt(0.001) / 0.1}.items():
        table = {"learning_rate": 0.1, "eps": 0.0, "variant": variant, "decay": 0.5}
        assert 1 - stepped(table, one)[0, 0] == pytest.approx(wanted, rel=1e-12), variant


def test_where_the_variants_differ() -> None:
    """torch adds eps to the corrected moment, Keras to the raw one: with a large eps Keras' first step is shorter."""
    one = np.ones((1, 1))
    table = {"learning_rate": 0.1, "eps": 1.0}
    assert 1 - stepped(table, one)[0, 0] == pytest.approx(0.1 / 2)
    raw = math.sqrt(0.001)
    assert 1 - stepped(table | {"variant": "keras"}, one)[0, 0] == pytest.approx(0.1 * raw / (raw + 1))


def test_keras_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("jax")
    keras = pytest.importorskip("keras")
    given = gradients(60).astype(np.float32)
    beta1, beta2 = SETTINGS["betas"]
    for decay in (0.0, 0.01):
        rate = keras.optimizers.schedules.InverseTimeDecay(SETTINGS["learning_rate"], 1, decay)
        theirs = keras.optimizers.Adam(rate, beta_1=beta1, beta_2=beta2, epsilon=SETTINGS["eps"])
        variable, wanted = keras.Variable(np.ones(3, np.float32)), []
        for row in given:
            theirs.apply([keras.ops.convert_to_tensor(row)], [variable])
            wanted.append(np.array(variable.value))
        found = stepped(SETTINGS | {"variant": "keras", "decay": decay}, given, dtype=torch.float32)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_the_papers_teacher_ends_at_a_137th_of_its_rate() -> None:
    """25 epochs of 17,500 photos in batches of 32, d = 0.01; the history tells the rate of each epoch's last step."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = optimizers.adam([parameter], learning_rate=1e-6, decay=0.01, variant="keras")
    optimizers.load_state(
        optimizer,
        {"0/step": torch.tensor(25 * 547 - 1.0), "0/exp_avg": torch.zeros(1), "0/exp_avg_sq": torch.zeros(1)},
    )
    assert optimizers.rate(optimizer) == 1e-6
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert 1e-6 / optimizers.rate(optimizer) == pytest.approx(137.74)
    data = ps.data.open("digits", test=600, validation=97)
    table = {"name": "adam", "learning_rate": 1e-2, "decay": 0.5}
    model = ps.fit("linear", data, optimizer=table, batch_size=550, epochs=3)  # of two steps
    assert [row["learning_rate"] for row in model.history] == pytest.approx([1e-2 / (1 + 0.5 * t) for t in (1, 3, 5)])


def test_parameters_without_a_gradient_are_left_alone() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = optimizers.adam(parameters, variant="paper")
    parameters[0].grad = torch.ones(2)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(parameters[1], torch.ones(2))
    assert list(optimizers.state_tensors(optimizer)) == ["0/step", "0/exp_avg", "0/exp_avg_sq"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "variant": ({"variant": "tensorflow"}, "variant .* 'tensorflow'"),
    "decay": ({"decay": -0.1}, "decay is -0.1"),
    "weight decay": ({"variant": "keras", "weight_decay": 0.1}, '"keras" has no weight_decay; found 0.1'),
    "betas": ({"variant": "paper", "betas": [1.0, 0.9]}, r"betas are \(1.0, 0.9\)"),
}


@pytest.mark.parametrize(("table", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        optimizers.REGISTRY.call({"name": "adam"} | table, [nn.Parameter(torch.ones(1))])


def test_moments_have_the_layout_of_their_parameters() -> None:
    """torch's fused steps go through memory from end to end: a moment of another layout would meet other numbers."""
    given = torch.randn(3, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=layout))
        kept: dict[str, torch.Tensor] = {}
        for gradient in given:
            optimizer = optimizers.adam([parameter])
            optimizers.load_state(optimizer, {name: tensor.contiguous() for name, tensor in kept.items()})
            parameter.grad = gradient.to(memory_format=layout)
            optimizer.step()
            kept = optimizers.state_tensors(optimizer)
        found.append(parameter.detach().clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
