"""One table, universal tests: every network trains, records, is distilled, is continued bit for bit, and comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_samples import SMALL

import potstill as ps
from potstill import networks
from potstill.errors import Interrupted

# Shared by training and distilling: two steps an epoch, so that a stop falls inside one.
SETTINGS: dict[str, Any] = {"batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 1e-2}, "seed": 1}


@pytest.fixture(scope="module")
def pictures() -> Any:
    """Two kinds of pictures, 1 x 16 x 16: bright at the top or at the bottom, in noise."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 2
    found = random.integers(0, 120, (96, 1, 16, 16), np.uint8)
    found[labels == 1, :, :8] += 100
    found[labels == 0, :, 8:] += 100
    return ps.data.open((found, labels), validation=16, test=16)


@pytest.mark.parametrize("name", networks.names())
def test_trains_records_distils_continues_and_comes_back(pictures: Any, tmp_path: Path, name: str) -> None:
    straight = ps.fit(SMALL[name], pictures, folder=tmp_path / "straight", epochs=3, **SETTINGS)
    assert straight.history[-1]["train_objective"] != straight.history[0]["train_objective"]

    asked = iter([False, True])
    with pytest.raises(Interrupted):
        ps.fit(
            SMALL[name],
            pictures,
            folder=tmp_path / "broken",
            epochs=3,
            checkpoint_seconds=0.0,
            should_stop=lambda: next(asked),
            **SETTINGS,
        )
    continued = ps.fit(SMALL[name], pictures, folder=tmp_path / "broken", epochs=3, **SETTINGS)
    assert continued.history == straight.history
    assert continued.fingerprint() == straight.fingerprint()

    loaded = ps.load(tmp_path / "straight")
    assert loaded.fingerprint() == straight.fingerprint()
    inputs = pictures.test.fetch(torch.arange(16), 0).inputs
    assert torch.equal(loaded(inputs), straight(inputs))

    stored = ps.record(loaded, pictures.train, tmp_path / "outputs")
    rows = torch.arange(32)
    answers = loaded(pictures.train.fetch(rows, 0).inputs)
    torch.testing.assert_close(stored.lookup(rows, 0).logits(), answers, rtol=1e-4, atol=1e-4)
    student = ps.fit(SMALL[name], pictures, "hinton", teacher=stored, epochs=1, **SETTINGS)
    assert math.isfinite(student.history[-1]["train_objective"])
    assert not all(
        torch.equal(a, b) for a, b in zip(student.network.parameters(), straight.network.parameters(), strict=True)
    )
