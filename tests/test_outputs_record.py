"""Recording: asked once, interrupted = uninterrupted, foreign folders refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from outputs_samples import CLASSES, Asked, Rows, answers, contents, teacher
from safetensors.torch import load_file

from potstill import outputs, storage
from potstill.errors import (
    DataError,
    Interrupted,
    OutputsError,
    PotstillError,
    RunError,
    SettingError,
    StorageError,
    TeacherError,
)
from potstill.outputs import record
from potstill.outputs import record as record_function
from potstill.teachers import Function, Torch

SETTINGS: dict[str, Any] = {"views": (0, 2), "batch_size": 4, "shard_batches": 3}  # 23 rows: 2 shards, 6 batches a view
BATCHES = 12


def straight(folder: Path, **settings: Any) -> dict[str, bytes]:
    record(teacher(), Rows(), folder, **{**SETTINGS, **settings})
    return contents(folder)


def test_a_recording_holds_every_members_answers_and_is_asked_for_once(tmp_path: Path) -> None:
    asked, source = Asked(), Rows()
    stored = record(teacher(asked), source, tmp_path / "out", **SETTINGS)
    assert asked.count == BATCHES
    assert (len(stored), stored.members, stored.outputs, stored.views) == (23, 2, 5, (0, 2))
    names = [f"shard-{i:05d}.safetensors" for i in range(4)]
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", *names]
    for view, files in ((0, names[:2]), (2, names[2:])):
        found = torch.cat([load_file(tmp_path / "out" / name)["answers"] for name in files])
        torch.testing.assert_close(found, answers(source.inputs + view / 10, "logits"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for shard in manifest["shards"]:
        content = (tmp_path / "out" / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    again = record(teacher(asked), source, tmp_path / "out", **SETTINGS)
    assert asked.count == BATCHES
    assert again.fingerprint() == stored.fingerprint()


@pytest.mark.parametrize("settings", [{}, {"dtype": "float16"}, {"top_k": 2}], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 5, 6, 11])
def test_a_teacher_that_breaks_loses_no_batch_and_changes_no_byte(
    tmp_path: Path, batch: int, settings: dict[str, Any]
) -> None:
    whole = straight(tmp_path / "whole", **settings)
    asked = Asked()
    asked.breaks_at = batch
    with pytest.raises(ConnectionError):
        record(teacher(asked), Rows(), tmp_path / "broken", **SETTINGS, **settings)
    with pytest.raises(OutputsError, match=r"interrupted|no recorded outputs"):
        outputs.open(tmp_path / "broken")
    asked.breaks_at = None
    record(teacher(asked), Rows(), tmp_path / "broken", **SETTINGS, **settings)
    assert asked.count == BATCHES
    assert contents(tmp_path / "broken") == whole


def test_stopping_before_every_batch_in_turn_ends_as_if_never_stopped(tmp_path: Path) -> None:
    whole = straight(tmp_path / "whole")
    asked, seen, messages = Asked(), [], []
    for _ in range(2 * BATCHES):
        limit = asked.count + 1
        try:
            record(
                teacher(asked),
                Rows(),
                tmp_path / "out",
                **SETTINGS,
                should_stop=lambda limit=limit: asked.count >= limit,
                progress=lambda done, total: seen.append((done, total)),
            )
            break
        except Interrupted as error:
            messages.append(str(error))
    assert asked.count == BATCHES
    assert contents(tmp_path / "out") == whole
    assert seen[-1] == (46, 46)
    assert len(messages) == BATCHES - 1
    assert "(4 of 46 rows are kept)" in messages[0]


KILL = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from outputs_samples import Asked, Rows, teacher
import importlib
module = importlib.import_module("potstill.outputs.record")
module._SAVE_SECONDS = {seconds}
asked = Asked()
def dies(inputs):
    if asked.count == {batch}:
        os.kill(os.getpid(), signal.SIGKILL)
    return asked(inputs)
from potstill.teachers import Function
module.record(Function(dies, kind="logits", name="sample"), Rows(), Path({folder!r}), **{settings!r})
"""


@pytest.mark.parametrize(("batch", "seconds", "lost"), [(8, 1e9, 2), (11, -1.0, 0)])
def test_a_killed_process_is_continued_byte_for_byte(tmp_path: Path, batch: int, seconds: float, lost: int) -> None:
    whole = straight(tmp_path / "whole")
    folder = tmp_path / "killed"
    tests = str(Path(__file__).parent)
    script = KILL.format(tests=tests, seconds=seconds, batch=batch, folder=str(folder), settings=SETTINGS)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    asked = Asked()
    record(teacher(asked), Rows(), folder, **SETTINGS)
    assert asked.count == BATCHES - batch + lost
    assert contents(folder) == whole


def interrupted(folder: Path, batch: int = 8) -> None:
    asked = Asked()
    asked.breaks_at = batch
    with pytest.raises(ConnectionError):
        record(teacher(asked), Rows(), folder, **SETTINGS)


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "asked_again"),
    [
        (lambda folder: flip(folder / "shard-00000.safetensors"), 3),
        (lambda folder: (folder / "shard-00001.safetensors").unlink(), 3),
        (lambda folder: os.truncate(folder / "shard-00000.safetensors", 40), 3),
        (lambda folder: flip(folder / next(folder.glob("partial-*")).name), 2),
        (lambda folder: os.truncate(folder / "recording.jsonl", (folder / "recording.jsonl").stat().st_size - 9), 2),
        (lambda folder: (folder / ".shard-00002.safetensors.abc.tmp").write_bytes(b"half"), 0),
    ],
    ids=["flipped bit", "shard gone", "shard cut", "flipped bit in a part", "torn line", "left-over temporary file"],
)
def test_what_a_crash_leaves_is_verified_before_it_is_trusted(
    tmp_path: Path, harm: Callable[[Path], None], asked_again: int
) -> None:
    whole = straight(tmp_path / "whole")
    interrupted(tmp_path / "out")
    harm(tmp_path / "out")
    asked = Asked()
    record(teacher(asked), Rows(), tmp_path / "out", **SETTINGS)
    assert asked.count == BATCHES - 8 + asked_again
    assert contents(tmp_path / "out") == whole


def test_a_journal_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    folder, mine = tmp_path / "there", tmp_path / "mine.safetensors"
    interrupted(folder)
    part = next(folder.glob("partial-*.safetensors"))
    (folder / "partial-1").mkdir()
    shutil.copy(part, mine)
    journal = folder / "recording.jsonl"
    journal.write_text(journal.read_text().replace(part.name, "partial-1/../../mine.safetensors"))
    record(teacher(Asked()), Rows(), folder, **SETTINGS)
    assert mine.exists()


def test_a_torn_line_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    interrupted(tmp_path, 5)
    journal = tmp_path / "recording.jsonl"
    os.truncate(journal, journal.stat().st_size - 9)  # of the part of the second shard: batches 3 and 4 are lost
    interrupted(tmp_path, 3)  # asks for the second shard again and stops before the third
    asked = Asked()
    record(teacher(asked), Rows(), tmp_path, **SETTINGS)
    assert asked.count == 6


def test_a_crash_just_before_the_end_leaves_a_journal_that_goes(tmp_path: Path) -> None:
    whole = straight(tmp_path)
    (tmp_path / "recording.jsonl").write_text("left")
    record(teacher(), Rows(), tmp_path, **SETTINGS)
    assert contents(tmp_path) == whole


def named(**changes: Any) -> Function:
    return teacher(None, **changes)


FOREIGN = [
    ("teacher", named(name="another"), Rows(), {}),
    ("kind", named(kind="values"), Rows(), {}),
    ("classes", named(classes=CLASSES), Rows(), {}),
    ("source", named(), Rows(seed=1), {}),
    ("rows", named(), Rows(n=22), {}),
    ("preprocessing", named(), Rows().preprocessed(0.5), {}),
    ("augmentation", named(), Rows(augmentation="flip"), {}),
    ("views", named(), Rows(), {"views": (0, 1)}),
    ("dtype", named(), Rows(), {"dtype": "float16"}),
    ("top_k", named(), Rows(), {"top_k": 3}),
    ("batch_size", named(), Rows(), {"batch_size": 5}),
    ("shard_batches", named(), Rows(), {"shard_batches": 2}),
]


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "interrupted"])
@pytest.mark.parametrize(("field", "other", "source", "settings"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_a_foreign_folder_is_refused_naming_the_field_and_both_values(
    tmp_path: Path, field: str, other: Function, source: Rows, settings: dict[str, Any], complete: bool
) -> None:
    if complete:
        straight(tmp_path)
    else:
        interrupted(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputsError, match=rf"{field} is .+ there, .+ is wanted.*Choose another folder") as error:
        record(other, source, tmp_path, **{**SETTINGS, **settings})
    assert error.value.field == field
    assert contents(tmp_path) == before


def test_another_augmentation_does_not_matter_to_the_plain_view(tmp_path: Path) -> None:
    first = record(teacher(), Rows(), tmp_path, views=(0,))
    assert record(teacher(), Rows(augmentation="flip"), tmp_path, views=(0,)).fingerprint() == first.fingerprint()


@pytest.mark.parametrize("name", ["manifest.json", "recording.jsonl"])
def test_another_format_version_is_refused(tmp_path: Path, name: str) -> None:
    interrupted(tmp_path) if name == "recording.jsonl" else straight(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace('"format": 1', '"format": 2').replace('"format":1', '"format":2'))
    with pytest.raises(OutputsError, match="format = 2; this version of potstill reads format 1") as error:
        record(teacher(), Rows(), tmp_path, **SETTINGS)
    assert error.value.field == "format"


def test_shards_of_nobody_are_refused(tmp_path: Path) -> None:
    straight(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(OutputsError, match="nobody knows whose answers"):
        record(teacher(), Rows(), tmp_path, **SETTINGS)


def says(answer: Callable[[torch.Tensor], Any], kind: str = "logits", **changes: Any) -> Function:
    return Function(answer, kind=kind, name="bad", **changes)  # type: ignore[arg-type]


def logits(x: torch.Tensor) -> torch.Tensor:
    return answers(x, "logits", members=1)[:, 0]


def broken(value: float, row: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def answer(x: torch.Tensor) -> torch.Tensor:
        z = logits(x)
        z[(x == Rows().inputs[row]).all(dim=1), 2] = value
        return z

    return answer


def changing() -> Callable[[torch.Tensor], torch.Tensor]:
    calls = []

    def answer(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return logits(x)[:, : 5 if len(calls) == 1 else 4]

    return answer


BAD_TEACHERS = [
    ("probabilities as logits", says(lambda x: logits(x).softmax(-1)), {}, 'Declare kind="probabilities"'),
    ("logits as probabilities", says(logits, "probabilities"), {}, 'declare kind="logits"'),
    ("sums to two", says(lambda x: logits(x).softmax(-1) * 2, "probabilities"), {}, "sum 1"),
    ("sums to 0.9", says(lambda x: logits(x).softmax(-1) * 0.9, "probabilities"), {}, "sum 1"),
    ("binary logit as p", says(lambda x: logits(x)[:, :1], "probabilities"), {}, 'declare kind="logits"'),
    ("one axis", says(lambda x: logits(x)[:, 0]), {}, r"add \[:, None\]"),
    ("labels", says(lambda x: logits(x).argmax(-1)), {}, "Labels alone"),
    ("whole numbers", says(lambda x: logits(x).round().long()), {}, "floating-point"),
    ("row missing", says(lambda x: logits(x)[1:]), {}, r"\(3, 5\) to 4 examples"),
    ("other outputs later", says(changing()), {}, r"1 members with 4 outputs for the rows from 4.*before.* 5"),
    ("NaN", says(broken(float("nan"), 13)), {}, "answered NaN for row 13"),
    ("infinite", says(broken(float("-inf"), 5)), {}, "answered inf for row 5"),
    ("too large", says(broken(7e4, 9)), {"dtype": "float16"}, '70000 for row 9.*dtype="float32"'),
    ("classes", says(logits, classes=("a", "b")), {}, "5 classes .*the teacher names 2"),
    ("other classes", says(logits, classes=("a", "b", "c", "e", "d")), {}, "same order"),
    ("not a tensor", says(lambda x: ["no"] * len(x)), {}, "wanted a tensor or array of numbers"),
    ("a module", torch.nn.Linear(4, 5), {}, r"teachers\.Torch\(network\)"),
]


@pytest.mark.parametrize(
    ("bad", "settings", "message"), [row[1:] for row in BAD_TEACHERS], ids=[r[0] for r in BAD_TEACHERS]
)
def test_a_teacher_that_answers_something_else_is_refused(
    tmp_path: Path, bad: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TeacherError, match=message):
        record(bad, Rows(), tmp_path, batch_size=4, **settings)
    assert not (tmp_path / "manifest.json").exists()


def test_a_large_logit_is_fine_in_float16_when_only_top_k_is_kept(tmp_path: Path) -> None:
    stored = record(says(broken(7e4, 9)), Rows(), tmp_path, dtype="float16", top_k=1)
    found = stored.lookup(torch.tensor([9]), 0)
    assert float(found.probs(1.0)[0, 2]) == 1.0
    assert float(found.neg_entropy(1.0)) == 0.0, "0 log 0, not NaN"


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"views": ()}, "logits", "views"),
        ({"views": (0, 0)}, "logits", "different numbers"),
        ({"views": (-1,)}, "logits", "upwards"),
        ({"batch_size": 0}, "logits", "batch_size is 0"),
        ({"shard_batches": 0}, "logits", "shard_batches is 0"),
        ({"top_k": 0}, "logits", "top_k is 0"),
        ({"top_k": 2}, "values", "answers values"),
        ({"dtype": "bfloat16"}, "logits", '"float32" or "float16"'),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        record(teacher(None, kind=kind), Rows(), tmp_path, **settings)


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        record(teacher(), Rows(n=0), tmp_path)


def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = straight(tmp_path / "whole")
    writes, real = [], os.fsync

    def full(descriptor: int) -> None:
        writes.append(descriptor)
        if len(writes) > 1:  # the first shard
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    asked = Asked()
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises(StorageError, match="disk is full"):
            record(teacher(asked), Rows(), tmp_path / "out", **SETTINGS)
    assert asked.count == 6
    record(teacher(asked), Rows(), tmp_path / "out", **SETTINGS)
    assert asked.count == 6 + BATCHES - 3
    assert contents(tmp_path / "out") == whole


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PotstillError, match="file"):
        record(teacher(), Rows(), tmp_path / "file" / "out")


def test_two_processes_do_not_record_into_one_folder(tmp_path: Path) -> None:
    with storage.lock(tmp_path), pytest.raises(RunError, match="in use"):
        record(teacher(), Rows(), tmp_path)


def test_half_precision_answers_are_stored(tmp_path: Path) -> None:
    network = torch.nn.Linear(4, 5).bfloat16()
    half = Function(lambda x: network(x.bfloat16()), kind="logits", name="bf16")
    stored = record(half, Rows(), tmp_path)
    expected = network(Rows().inputs.bfloat16()).float()
    torch.testing.assert_close(stored.lookup(torch.arange(23), 0).logits(), expected)


def test_default_shards_hold_eight_mebibytes(tmp_path: Path) -> None:
    stored = record_function(Torch(torch.nn.Linear(4, 5)), Rows(), tmp_path, batch_size=16)
    header = stored.manifests[0].header
    assert header.shard_batches == -(-8 * 2**20 // (16 * 5 * 4))
