"""How many examples a forward pass takes at once, and who minds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import potstill as ps
from potstill import engine
from potstill.cli.models import _load
from potstill.outputs.manifest import read_manifest
from potstill.study.answers import models_as_teacher


@pytest.mark.parametrize(
    ("shape", "most", "wanted"),
    [
        ((), 512, 512),
        ((1, 28, 28), 512, 512),
        ((1, 28, 28), 1024, 1024),
        ((3, 32, 32), 512, 256),
        ((3, 64, 64), 512, 64),
        ((3, 64, 64), 1024, 64),
        ((3, 64, 64), 32, 32),
        ((2**16,), 512, 16),
        ((3, 224, 224), 512, 16),
    ],
)
def test_at_once(shape: tuple[int, ...], most: int, wanted: int) -> None:
    assert engine.at_once(shape, most) == wanted


def test_another_device_takes_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_DEVICE", "meta")
    assert engine.at_once((3, 224, 224)) == 512


class Counting(nn.Module):
    """Mean brightness as the one logit; notes how many rows come at once."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.rows = nn.Linear(1, 1), list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows.append(len(inputs))
        logits: Tensor = self.linear(inputs.flatten(1).mean(1, keepdim=True))
        return logits


def test_recording_predicting_and_validating(tmp_path: Path) -> None:
    pixels, labels = torch.randint(0, 256, (150, 3, 64, 64), dtype=torch.uint8), torch.arange(150) % 2
    data: Any = ps.data.open({"inputs": pixels, "labels": labels}, task="binary", validation=70, test=20)
    network = Counting()
    model = ps.fit(lambda *_: network, data, epochs=1, batch_size=60, select="accuracy")
    assert network.rows[-3:] == [60, 64, 6]
    network.rows.clear()
    ps.record(model, data.validation, folder=tmp_path / "answers")
    assert network.rows == [64, 6]
    assert read_manifest(tmp_path / "answers").header.batch_size == 64
    network.rows.clear()
    ps.evaluate(model, data.validation)
    assert network.rows == [64, 6]


def test_models_of_a_study_answer_where_training_would_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = ps.data.open("digits", validation=0.1, test=0.1)
    for name in ("member-0", "member-1"):
        ps.fit("linear", data, steps=1).save(tmp_path / name)
    monkeypatch.setenv("POTSTILL_DEVICE", "meta")
    alone, several = (models_as_teacher(tmp_path, names) for names in (["member-0"], ["member-0", "member-1"]))
    asked, _ = _load(tmp_path)
    for teacher in (alone, several, asked):
        assert teacher(torch.rand(2, 1, 8, 8)).device.type == "meta"
    assert ps.load(tmp_path / "member-0").on("meta")(torch.rand(2, 1, 8, 8)).device.type == "meta"
    assert ps.load(tmp_path / "member-0")(torch.rand(2, 1, 8, 8)).device.type == "cpu"
