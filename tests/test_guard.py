"""Probabilities where logits are declared: refused at every door before a step is wasted, and no false alarm."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_samples import SMALL
from torch import Tensor, nn

import potstill as ps
from potstill import networks, objectives
from potstill.errors import TeacherError
from potstill.outputs import from_array
from potstill.outputs.check import check_logits, probabilities_of
from potstill.study.study import Study
from potstill.teachers import Ensemble, Function, Torch
from potstill.training.task import refuse_probabilities

ROWS = 32


def normal(*shape: int, scale: float = 2.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])) * scale


def soft(*shape: int, scale: float = 2.0) -> Tensor:
    return normal(*shape, scale=scale).softmax(-1)


# answers (B, members, K), and the member that answers probabilities; None: all may be logits
ANSWERS: dict[str, tuple[Tensor, int | None]] = {
    "softmax": (soft(ROWS, 1, 5), 0),
    "softmax, two classes": (soft(ROWS, 1, 2), 0),
    "softmax of an untrained network": (soft(ROWS, 1, 5, scale=0.01), 0),
    "softmax of a zero head": (torch.full((ROWS, 1, 10), 0.1), 0),
    "one row of softmax": (soft(1, 1, 5), 0),
    "one-hot": (torch.eye(4)[torch.arange(ROWS) % 4][:, None], 0),
    "rounded to three digits": (soft(ROWS, 1, 3).round(decimals=3), 0),
    "float16": (soft(ROWS, 1, 5).half(), 0),
    "bfloat16": (soft(ROWS, 1, 5).bfloat16(), 0),
    "the second member alone": (torch.cat([normal(ROWS, 1, 5), soft(ROWS, 2, 5)], 1), 1),
    "sigmoid of a trained network": (normal(ROWS, 1, 1, scale=3.0).sigmoid(), 0),
    "the second member's sigmoid": (torch.cat([normal(ROWS, 1, 1), normal(ROWS, 1, 1, scale=3.0).sigmoid()], 1), 1),
    "logits": (normal(ROWS, 1, 5), None),
    "log-probabilities": (normal(ROWS, 1, 5).log_softmax(-1), None),
    "a zero head": (torch.zeros(ROWS, 1, 5), None),
    "a zero head, one output": (torch.zeros(ROWS, 1, 1), None),
    "a bias alone that sums to nearly 1": (torch.tensor([0.4, 0.5995]).expand(ROWS, 1, 2), None),
    "a bias and little else": (torch.tensor([0.4, 0.5995]) + 1e-4 * normal(ROWS, 1, 2), None),
    "one row that sums to nearly 1": (torch.tensor([[[0.3, 0.7004]]]), None),
    "small logits": (torch.rand(ROWS, 1, 5, generator=torch.Generator().manual_seed(0)) * 0.4, None),
    "small logits, one output": (0.3 + 0.1 * normal(ROWS, 1, 1).tanh(), None),
    "one sign, one output": (2 + normal(ROWS, 1, 1).abs(), None),
    "probabilities, 1 added": (soft(ROWS, 1, 5) + 1, None),
    "half of the rows": (torch.cat([soft(ROWS, 1, 5), normal(ROWS, 1, 5)]), None),
}


@pytest.mark.parametrize(("answers", "member"), ANSWERS.values(), ids=ANSWERS)
def test_which_answers_are_probabilities(answers: Tensor, member: int | None) -> None:
    assert probabilities_of(answers) == member
    if member is None:
        check_logits(answers)
        return
    whose = "The teacher declares" if answers.shape[1] == 1 else f"Member {member} of the teacher declares"
    with pytest.raises(TeacherError, match=whose) as caught:
        check_logits(answers)
    for words in ("in [0, 1]", 'Declare kind="probabilities"', "leave out the softmax", "add 1 to each"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", SMALL.values())
@pytest.mark.parametrize("outputs", [1, 2, 10])
@pytest.mark.parametrize("head", ["as it comes", "zero", "zero with a bias"])
def test_a_fresh_network_is_no_false_alarm(name: str, outputs: int, head: str) -> None:
    for seed in range(5):
        network = networks.seeded(name, (1, 32, 32), outputs, seed=seed)
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        if head != "as it comes":
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, 0.0 if head == "zero" else 0.6)
        for rows in (1, 2, 64):
            refuse_probabilities(network(torch.rand(rows, 1, 32, 32)), name)


def test_one_output_from_near_0_to_near_1_may_be_a_linear_layer() -> None:
    """A fresh network's logits do that now and then; a sigmoid that is written out does it by nature."""
    linear = nn.Linear(1, 1)
    nn.init.ones_(linear.weight)
    nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
    logits = linear(torch.linspace(0, 1, ROWS)[:, None])
    refuse_probabilities(logits, "mine")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refuse_probabilities(linear(torch.linspace(0, 1, ROWS)[:, None]), "mine")
    with pytest.raises(TeacherError, match="answers probabilities"):
        refuse_probabilities(1 / (1 + (4 - 8 * logits).exp()), "mine")


class Ends(nn.Module):
    """A linear network whose answers go through `end`."""

    def __init__(self, shape: tuple[int, ...], outputs: int, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.end = nn.Linear(math.prod(shape), outputs), end

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.head(inputs.flatten(1)))


def ending(end: Callable[[Tensor], Tensor]) -> Callable[[tuple[int, ...], int], nn.Module]:
    def network(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return Ends(shape, outputs, end)

    return network


# ends of a network, the number of classes, and what the refusal says
ENDS: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "softmax": (lambda z: z.softmax(-1), 10, "last operation is a softmax"),
    "softmax, reshaped": (lambda z: z.softmax(-1)[:, None].squeeze(1).view(-1, 10), 10, "last operation is a softmax"),
    "softmax, converted": (lambda z: z.double().softmax(-1).float(), 10, "last operation is a softmax"),
    "softmax, clamped": (lambda z: z.softmax(-1).clamp(1e-7, 1 - 1e-7), 10, "last operation is a softmax"),
    "softmax written out": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), 10, "sums to 1"),
    "exp of log-probabilities": (lambda z: z.log_softmax(1).exp(), 10, "sums to 1"),
    "a sigmoid for each class": (lambda z: z.sigmoid(), 10, "last operation is a sigmoid"),
    "sigmoid, binary": (lambda z: z.sigmoid(), 2, "last operation is a sigmoid"),
}


def data(classes: int) -> Any:
    whole = ps.data.open("digits", test=600, validation=100)
    if classes == 10:
        return whole
    train = whole.train.fetch(torch.arange(200), 0)
    arrays = (train.inputs.numpy(), (train.labels >= 5).long().numpy())
    return ps.data.open(arrays, task="binary", test=50, validation=50)


@pytest.mark.parametrize(("end", "classes", "words"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("taught", [False, True], ids=["hard_labels", "hinton"])
def test_a_student_that_answers_probabilities_is_refused_before_its_first_step(
    end: Callable[[Tensor], Tensor], classes: int, words: str, taught: bool
) -> None:
    """The paper's networks, read literally: they end in softmax, and the loss softens what they answer."""
    opened = data(classes)
    teacher = ps.fit("linear", opened, steps=2) if taught else None
    steps: list[int] = []
    with pytest.raises(TeacherError, match=words) as caught:
        ps.fit(ending(end), opened, teacher=teacher, steps=5, progress=lambda step, total: steps.append(step))
    assert "ending.<locals>.network" in str(caught.value)
    assert "Remove its last" in str(caught.value)
    assert steps == []


def test_log_probabilities_and_probabilities_meant_as_logits_train() -> None:
    opened = data(10)
    for end in (lambda z: z.log_softmax(-1), lambda z: z.softmax(-1) + 1):
        assert ps.fit(ending(end), opened, steps=2).info["steps"] == 2


def test_the_mistake_can_be_studied_on_logits() -> None:
    opened = data(10)
    teacher = ps.fit("linear", opened, steps=200)
    twice = objectives.hinton_twice_softened(temperature=10.0, alpha=0.0)
    student = ps.fit("mlp:16", opened, twice, teacher=teacher, epochs=3)
    soft_terms = [row["train_soft"] for row in student.history]
    assert soft_terms == sorted(soft_terms, reverse=True)
    assert 0 < soft_terms[-1] < 0.95 * soft_terms[0] < 0.01  # next to nothing: about half the mean of (p - q)^2


class Softmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs.flatten(1)).softmax(-1)


def plain() -> Torch:
    return Torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def function(name: str = "forest") -> Function:
    network = Softmax()
    return Function(network, kind="logits", name=name)


TEACHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "torch": (lambda: Torch(Softmax()), r"The teacher \(Softmax\) declares logits"),
    "function": (function, 'The teacher "forest" declares logits'),
    "one member of three": (lambda: Ensemble([plain(), function(), plain()]), r"Member 1 of the teacher \(Ensemble\)"),
}


@pytest.mark.parametrize(("make", "words"), TEACHERS.values(), ids=TEACHERS)
@pytest.mark.parametrize("live", [False, True], ids=["recorded", "live"])
def test_a_teacher_that_answers_probabilities_is_refused(
    tmp_path: Path, make: Callable[[], Any], words: str, live: bool
) -> None:
    opened, steps = data(10), list[int]()

    def ask() -> Any:
        if live:
            return ps.fit("mlp:4", opened, teacher=make(), steps=5, progress=lambda step, total: steps.append(step))
        return ps.record(make(), opened.train, tmp_path / "outputs")

    with pytest.raises(TeacherError, match=words) as caught:
        ask()
    assert 'Declare kind="probabilities"' in str(caught.value)
    assert steps == []
    assert not (tmp_path / "outputs" / "manifest.json").exists()


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid(), nn.Sequential(nn.Softmax(1))], ids=repr)
def test_a_module_whose_last_layer_gives_it_away_is_refused_at_once(last: nn.Module) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), last)
    with pytest.raises(TeacherError, match="Declare kind"):
        Torch(network)
    assert Torch(network, kind="probabilities").kind == "probabilities"
    assert Torch(nn.Sequential(nn.Linear(2, 2), nn.LogSoftmax(-1))).kind == "logits"


def test_a_study_refuses_a_file_of_probabilities_before_it_trains_anything(tmp_path: Path) -> None:
    opened = ps.data.open("digits", test=300, validation=100)
    answers = np.eye(10, dtype=np.float32)[opened.train.labels.numpy()] * 0.9 + 0.01
    np.save(tmp_path / "answers.npy", answers)
    plan: dict[str, Any] = {
        "seeds": 1,
        "data": {"source": "digits", "test": 300, "validation": 100},
        "training": {"steps": 5},
        "models": {
            "brought": {"outputs": str(tmp_path / "answers.npy"), "kind": "logits"},
            "alone": {"network": "linear"},
            "taught": {"network": "linear", "teacher": "brought"},
        },
    }
    with pytest.raises(TeacherError, match=r"answers\.npy|the array"):
        Study.open(plan, folder=tmp_path / "run").run(workers=1)
    assert not list((tmp_path / "run").glob("models/**/result.json"))
    plan["models"]["brought"]["kind"] = "probabilities"
    assert Study.open(plan, folder=tmp_path / "run").run(workers=1).models["taught"].metrics


def test_an_array_with_one_member_of_probabilities_is_refused() -> None:
    both = torch.cat([normal(ROWS, 1, 5), soft(ROWS, 1, 5)], 1).numpy()
    with pytest.raises(TeacherError, match="Member 1 of the array declares logits"):
        from_array(both, kind="logits", rows=ROWS)
