"""Opening: nothing foreign, stale or damaged gets past."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from outputs_samples import ALL, CLASSES, Asked, Rows, recorded, same, teacher

from potstill import outputs
from potstill.errors import OutputsError
from potstill.teachers import Function
from potstill.types import Kind


def test_opening_asks_the_teacher_again_for_a_few_examples(tmp_path: Path) -> None:
    stored = recorded(tmp_path, views=(0, 1, 2))
    asked = Asked()
    seen: list[int] = []

    def counting(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return asked(inputs)

    again = outputs.open(tmp_path, teacher=Function(counting, kind="logits", name="sample"), source=Rows(), verify=True)
    assert sum(seen) == 8
    same(stored.lookup(ALL, 1), again.lookup(ALL, 1), 0.0)
    outputs.open(tmp_path, teacher=teacher(asked), source=Rows(), check=0)
    assert sum(seen) == 8


CHANGED: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [
    ("scaled", lambda z: z * 1.01),
    ("other rows", lambda z: z.roll(1, 0)),
    ("other classes", lambda z: z.roll(1, 2)),
    ("NaN", lambda z: z * math.nan),
    ("other members", lambda z: z[:, :1]),
]


@pytest.mark.parametrize("settings", [{}, {"dtype": "float16"}, {"top_k": 3}, {"views": (0, 1)}], ids=str)
@pytest.mark.parametrize("change", [row[1] for row in CHANGED], ids=[row[0] for row in CHANGED])
def test_a_teacher_that_answers_otherwise_now_is_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], settings: dict[str, Any]
) -> None:
    recorded(tmp_path, **settings)
    asked = Asked()
    outputs.open(tmp_path, teacher=teacher(asked), source=Rows())
    moved = Function(lambda x: change(asked(x)), kind="logits", name="sample")
    with pytest.raises(
        OutputsError, match=r"although all fingerprints agree: its answer to row \d+ of view \d"
    ) as error:
        outputs.open(tmp_path, teacher=moved, source=Rows())
    assert error.value.field == "teacher"


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"dtype": "float16", "top_k": 2}, {"top_k": 5}], ids=str)
def test_the_self_check_allows_for_rounding(tmp_path: Path, kind: Kind, settings: dict[str, Any]) -> None:
    recorded(tmp_path, kind, **settings)
    asked = Asked(kind)
    noisy = Function(lambda x: asked(x) * (1 + 1e-5), kind=kind, name="sample")
    outputs.open(tmp_path, teacher=noisy, source=Rows(), check=23)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("teacher", {"teacher": teacher(name="another")}),
        ("kind", {"teacher": teacher(kind="probabilities")}),
        ("classes", {"teacher": teacher(classes=CLASSES)}),
        ("source", {"source": Rows(seed=1)}),
        ("rows", {"source": Rows(n=24)}),
        ("preprocessing", {"source": Rows().preprocessed(2.0)}),
        ("augmentation", {"source": Rows(augmentation="flip")}),
    ],
)
def test_opening_foreign_outputs(tmp_path: Path, field: str, given: dict[str, Any]) -> None:
    recorded(tmp_path, views=(0, 1))
    with pytest.raises(OutputsError, match=rf"{field} is .+ there, .+ is wanted") as error:
        outputs.open(tmp_path, **given)
    assert error.value.field == field


@pytest.mark.parametrize("shard", [0, 2])
@pytest.mark.parametrize("byte", [3, 40, -1], ids=["length", "header", "numbers"])
def test_a_flipped_bit_is_found_by_verifying(tmp_path: Path, shard: int, byte: int) -> None:
    recorded(tmp_path)
    path = tmp_path / f"shard-{shard:05d}.safetensors"
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    outputs.open(tmp_path)
    with pytest.raises(OutputsError, match=rf"shard-{shard:05d}.safetensors is damaged: its sha256") as error:
        outputs.open(tmp_path, verify=True)
    assert error.value.field == "shards"


def _truncate(folder: Path) -> None:
    os.truncate(folder / "shard-00001.safetensors", 100)


def _rewrite(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / "manifest.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return harm


DAMAGED: list[tuple[str, Callable[[Path], None], str]] = [
    ("truncated", _truncate, r"shard-00001.safetensors is damaged: it has 100 bytes"),
    ("missing", lambda folder: (folder / "shard-00002.safetensors").unlink(), "shard-00002.* it is missing"),
    ("version", _rewrite(lambda m: m["header"].update(format=7)), "format = 7; this version .* reads format 1"),
    ("typo", _rewrite(lambda m: m["header"].update(rowz=1)), r"header\.rowz"),
    ("type", _rewrite(lambda m: m["header"].update(members="many")), r"header\.members"),
    ("outside", _rewrite(lambda m: m["shards"][0].update(file="../../x")), r"shards\.0\.file"),
    (
        "another file",
        _rewrite(lambda m: m["shards"][0].update(file="shard-00001.safetensors")),
        "shards are not those of its header",
    ),
    ("shard left out", _rewrite(lambda m: m["shards"].pop()), "shards are not those of its header"),
    ("not an object", lambda folder: (folder / "manifest.json").write_text("[1]"), "is damaged"),
    ("none", lambda folder: (folder / "manifest.json").unlink(), "holds no recorded outputs"),
]


@pytest.mark.parametrize(("harm", "message"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_opening_damaged_outputs(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    recorded(tmp_path)
    harm(tmp_path)
    with pytest.raises(OutputsError, match=message):
        outputs.open(tmp_path)


@pytest.mark.parametrize("change", [{"outputs": 4}, {"dtype": "float16"}, {"members": 1}])
def test_shards_that_are_not_what_the_manifest_says(tmp_path: Path, change: dict[str, Any]) -> None:
    recorded(tmp_path)
    _rewrite(lambda m: m["header"].update(change))(tmp_path)
    with pytest.raises(OutputsError, match=r"shard-00000.* is damaged: it holds") as error:
        outputs.open(tmp_path).lookup(ALL, 0).probs(1.0)
    assert error.value.field == "shards"
