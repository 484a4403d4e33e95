"""Adapters: whatever answers becomes a teacher that answers as it did before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import potstill.teachers as teachers_module
from potstill.errors import TeacherError
from potstill.teachers import Ensemble, Function, Torch
from potstill.types import Teacher

CLASSES = ("a", "b", "c")


def network(seed: int = 0, outputs: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, outputs)
    )


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "Torch": lambda: Torch(network(), classes=CLASSES),
    "Function": lambda: Function(lambda x: x[:, :3], kind="logits", classes=CLASSES, name="three"),
    "Ensemble": lambda: Ensemble([Torch(network(seed)) for seed in range(2)]),
}


def test_every_public_adapter_has_a_row() -> None:
    assert set(TEACHERS) == set(teachers_module.__all__)


@pytest.mark.parametrize("make", TEACHERS.values(), ids=TEACHERS)
def test_contract_of_a_teacher(make: Callable[[], Teacher]) -> None:
    teacher, inputs = make(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert isinstance(teacher, Teacher)
    assert teacher.kind == "logits"
    answers = teacher(inputs)
    assert answers.shape[0] == 6
    assert answers.shape[-1] == 3
    assert not answers.requires_grad
    torch.testing.assert_close(teacher(inputs), answers, rtol=0, atol=0)
    torch.testing.assert_close(teacher(inputs[[3, 1]]), answers[[3, 1]])
    assert teacher.fingerprint() == make().fingerprint()
    assert len(teacher.fingerprint()) == 64


def test_torch_asks_in_evaluation_mode_and_puts_every_submodules_mode_back() -> None:
    net = network()
    net[1].eval()  # a frozen batch norm inside a network in training
    before = [module.training for module in net.modules()]
    inputs = torch.randn(6, 4)
    found = Torch(net)(inputs)
    assert [module.training for module in net.modules()] == before == [True, True, False, True, True]
    torch.testing.assert_close(found, net.eval()(inputs).detach(), rtol=0, atol=0)


def test_torch_puts_the_mode_back_after_an_error() -> None:
    net = network()
    with pytest.raises(RuntimeError):
        Torch(net)(torch.zeros(2, 5))
    assert net.training
    assert net[2].training


def _change(net: torch.nn.Module, name: str) -> torch.nn.Module:
    with torch.no_grad():
        if name == "weight":
            net[0].weight[0, 0] += 1e-6
        elif name == "persistent buffer":
            net[1].running_mean[0] += 1e-6
        elif name == "hidden buffer":
            net[0].register_buffer("extra", torch.ones(1), persistent=False)
        elif name == "type":
            net.double()
        elif name == "structure":
            net[2] = torch.nn.Dropout(0.4)
    return net


@pytest.mark.parametrize("name", ["weight", "persistent buffer", "hidden buffer", "type", "structure"])
def test_fingerprint_of_torch_follows_whatever_decides_the_answers(name: str) -> None:
    assert Torch(_change(network(), name)).fingerprint() != Torch(network()).fingerprint()


class Addressed(torch.nn.Linear):
    """Its repr holds an address, which is another one in every process (and here in every object)."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.activation = lambda x: x
        torch.nn.init.ones_(self.weight)
        torch.nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return repr(self.activation)


def test_fingerprint_of_torch_does_not_depend_on_addresses() -> None:
    one, two = Addressed(), Addressed()
    assert repr(one) != repr(two)
    assert Torch(one).fingerprint() == Torch(two).fingerprint()


def test_function_takes_tensors_or_arrays() -> None:
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    model = LogisticRegression().fit(inputs.numpy(), (inputs[:, 0] > 0).numpy())
    teacher = Function(model.predict_proba, kind="probabilities", name="logistic regression 1", numpy=True)
    np.testing.assert_allclose(teacher(inputs).numpy(), model.predict_proba(inputs.numpy()))
    assert Function(lambda x: x.tanh(), kind="values", name="tanh")(inputs).shape == (30, 4)


def test_function_is_known_by_its_name() -> None:
    one, same, other = (Function(f, kind="logits", name=n) for f, n in ((abs, "a"), (bool, "a"), (abs, "b")))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_ensemble_keeps_every_member_and_lines_up_nested_ones() -> None:
    inputs = torch.randn(5, 4)
    one, two, three = (Torch(network(seed)) for seed in range(3))
    found = Ensemble([one, Ensemble([two, three])])(inputs)
    assert found.shape == (5, 3, 3)
    for number, member in enumerate((one, two, three)):
        torch.testing.assert_close(found[:, number], member(inputs), rtol=0, atol=0)


def test_fingerprint_of_an_ensemble_follows_members_and_their_order() -> None:
    one, two = Torch(network(0)), Torch(network(1))
    prints = {Ensemble(members).fingerprint() for members in ([one], [two], [one, two], [two, one])}
    assert len(prints) == 4
    assert one.fingerprint() not in prints


def test_classes_of_an_ensemble_come_from_the_members_that_know_them() -> None:
    assert Ensemble([Torch(network()), Torch(network(), classes=CLASSES)]).classes == CLASSES


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("no members", lambda: Ensemble([]), "without members"),
    ("a module", lambda: Ensemble([Torch(network()), network()]), r"Member 1 .*Sequential.*teachers\.Torch"),  # type: ignore[list-item]
    (
        "kinds",
        lambda: Ensemble([Torch(network()), Function(abs, kind="probabilities", name="forest")]),
        'Member 1 "forest" answers probabilities, Member 0',
    ),
    (
        "classes",
        lambda: Ensemble([Torch(network(), classes=CLASSES), Torch(network(), classes=CLASSES[::-1])]),
        "same classes in the same order",
    ),
    (
        "outputs",
        lambda: Ensemble([Torch(network()), Torch(network(outputs=4))])(torch.ones(2, 4)),
        "Member 1 .*4 outputs",
    ),
    (
        "rows",
        lambda: Ensemble([Function(lambda x: x[1:], kind="logits", name="short")])(torch.ones(2, 4)),
        r'Member 0 "short" answered \(1, 4\) to 2 examples',
    ),
    ("not a module", lambda: Torch(abs), r"teachers\.Function"),  # type: ignore[arg-type]
    ("kind of Torch", lambda: Torch(network(), kind="logit"), 'Did you mean "logits"'),  # type: ignore[arg-type]
    ("kind of Function", lambda: Function(abs, kind="probs", name="x"), "Unknown kind"),  # type: ignore[arg-type]
    ("no name", lambda: Function(abs, kind="logits", name=" "), "needs a name"),
    ("tuple", lambda: Torch(torch.nn.LSTM(4, 3))(torch.ones(2, 4)), "answered tuple"),
    ("objects", lambda: Function(lambda x: [None], kind="logits", name="none")(torch.ones(1, 4)), "type object"),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_teacher_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        make()


@pytest.mark.parametrize("numpy", [False, True])
def test_a_teacher_that_writes_into_its_inputs_does_not_touch_the_data(numpy: bool) -> None:
    def spoil(inputs: Any) -> Any:
        inputs *= 0
        return inputs

    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    for teacher in (Function(spoil, kind="values", name="spoil", numpy=numpy), Torch(module)):
        inputs = torch.full((2, 4), -1.0)
        teacher(inputs)
        assert torch.equal(inputs, torch.full((2, 4), -1.0))
