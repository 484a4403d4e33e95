"""A binary task's "yes" is p > 0.5, strictly, wherever an answer is made of a probability (paper 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import potstill as ps
from potstill import evaluation, metrics, networks
from potstill.networks.model import Model
from potstill.teachers import Ensemble, Function
from potstill.training.validation import Validation

# Logits about 0; float32 probabilities are 0.5 exactly where a logit is below 1e-7.
LOGITS = torch.tensor([0.0, -0.0, 1e-6, -1e-6, 2.0, -2.0, 0.0, 60.0])
YES = (LOGITS > 0).long()
LABELS = np.array([1, 0, 1, 1, 1, 0, 0, 0])
RIGHT = float(np.mean(YES.numpy() == LABELS))


@pytest.fixture(scope="module")
def data() -> Any:
    """Rows that are the logits themselves, in order, three times over."""
    whole = (np.tile(LOGITS.numpy()[:, None], (3, 1)), np.tile(LABELS, 3))
    return ps.data.open(whole, task="binary", validation=0, test=0)


def as_they_are(shape: tuple[int, ...], outputs: int) -> nn.Module:
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)  # type: ignore[arg-type]
    return network


def models(data: Any) -> dict[str, Any]:
    """Teachers of every kind that give these answers."""

    def probability(inputs: Tensor) -> Tensor:
        return inputs.sigmoid()

    def both(inputs: Tensor) -> Tensor:
        return torch.cat([1 - inputs.sigmoid(), inputs.sigmoid()], 1)

    def two_logits(inputs: Tensor) -> Tensor:
        return torch.cat([inputs * 0 + 3, inputs + 3], 1)

    model = Model(as_they_are((1,), 1).eval(), data.train.spec)
    return {
        "a network with one logit": model,
        "one probability": Function(probability, kind="probabilities", name="one"),
        "two probabilities": Function(both, kind="probabilities", name="two"),
        "members that balance": Ensemble([model, Function(lambda x: x * 0, kind="logits", name="half")]),
        "two logits": Function(two_logits, kind="logits", name="two"),
    }


def test_a_half_is_no_yes_in_any_metric(data: Any) -> None:
    rows = 3 * len(LOGITS)
    for name, model in models(data).items():
        found = evaluation.predict(model, data.train)
        answers = torch.from_numpy(found.log_probs).argmax(1).reshape(3, -1)
        # 3 + 1e-6 is 3 + 9.5e-7 in float32: still above 3.
        assert answers.unique(dim=0).tolist() == [YES.tolist()], name
        values = evaluation.measure(found, ("accuracy", "error_rate", "uncertainty"))
        assert values["accuracy"] == pytest.approx(RIGHT), name
        assert values["error_rate"] == pytest.approx(1 - RIGHT), name
        table = metrics.confusion(found.log_probs, found.labels, 2)
        assert table[:, 1].sum() == 3 * int(YES.sum()), name
        assert table.sum() == rows
        certain = np.exp(found.log_probs.astype(np.float64))[:, 1]
        own = np.tile(YES.numpy(), 3)
        assert values["uncertainty"] == pytest.approx(np.mean((certain - own) ** 2), rel=1e-6), name


def test_validation_in_training_counts_as_the_evaluation_does(data: Any) -> None:
    validation = Validation.of(data.train, None, ps.objectives.hard_labels(), names=["accuracy"], label_smoothing=0.0)
    assert validation is not None
    found = validation.measure(as_they_are((1,), 1), ps.engine.Engine())
    assert found["validation_accuracy"] == pytest.approx(RIGHT)


def test_hard_answers_of_a_teacher_are_strict(data: Any) -> None:
    """Equation 13: the student's label is 1 where the teacher's p > 0.5."""
    for name, teacher in models(data).items():
        batch = ps.outputs.Live(teacher, data.train).lookup(torch.arange(len(LOGITS)), 0)  # type: ignore[arg-type]
        student = torch.full((len(LOGITS), 1), 1.5)
        whole = ps.types.Batch(student, YES, YES > 9, torch.arange(len(LOGITS)), batch)
        terms = ps.objectives.pseudo_labels()(ps.types.Outputs(student), whole)["hard"]
        wanted = nn.functional.binary_cross_entropy_with_logits(student[:, 0], YES.float(), reduction="none")
        torch.testing.assert_close(terms, wanted, msg=name)


def test_accuracy_against_soft_labels_is_the_agreement() -> None:
    """Equation 11: predictions and soft labels, both cut strictly at 0.5, and compared."""
    random = np.random.default_rng(0)
    p, y = random.choice([0.0, 0.3, 0.5, 0.5 + 1e-6, 0.9, 1.0], (2, 500))
    with np.errstate(divide="ignore"):
        student, teacher = (np.log(np.stack([1 - x, x], 1)) for x in (p, y))
    wanted = sum((a > 0.5) == (b > 0.5) for a, b in zip(p, y, strict=True)) / 500
    assert metrics.get("agreement", classes=2).value(student, teacher) == wanted
    assert wanted != np.mean((p >= 0.5) == (y >= 0.5))


def test_a_network_for_a_binary_task_has_one_logit(data: Any) -> None:
    assert data.train.spec.outputs == 1
    for name in ("resnet18:4", "linear"):
        shape = (3, 16, 16)
        assert networks.build(name, shape, data.train.spec.outputs)(torch.rand(2, *shape)).shape == (2, 1)
