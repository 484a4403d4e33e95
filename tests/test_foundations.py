"""errors, seeding, storage, registry: the ground floor."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import potstill
from potstill import errors, seeding, storage
from potstill.registry import Registry

# ---------------------------------------------------------------- errors


def test_every_error_is_in_the_drawn_tree() -> None:
    drawn = set(re.findall(r"^[ |`-]*([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE))
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PotstillError)
    }
    assert found <= drawn


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.DataError, 2),
        (errors.PlanError, 2),
        (errors.StorageError, 1),
        (errors.TrainingError, 1),
        (errors.Interrupted, 130),
    ],
)
def test_exit_statuses(kind: type[errors.PotstillError], status: int) -> None:
    assert kind("x").exit_status == status


def test_a_plan_error_tells_line_and_key() -> None:
    assert str(errors.PlanError("wrong", key="training.epochs", line=7)) == "line 7, training.epochs: wrong"


# ---------------------------------------------------------------- seeding


def test_keys_tell_parts_and_types_apart() -> None:
    keys = [
        seeding.key("order", 3, 0), seeding.key("order", 30), seeding.key("order", 0, 3), seeding.key("order", "3", 0),
        seeding.key("weights", 3, 0),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 2**63 for k in keys)


def test_a_key_is_the_same_on_every_machine() -> None:
    # blake2b of "sorder\x1fi3\x1fi0", 8 bytes, big endian, shifted right by one.
    import hashlib

    wanted = int(hashlib.blake2b(b"sorder\x1fi3\x1fi0", digest_size=8).hexdigest(), 16) // 2
    assert seeding.key("order", 3, 0) == wanted


def _splitmix(x: int) -> int:
    mask = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_uniform_equals_plain_integers() -> None:
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    found = seeding.uniform(12345, np.array([0, 7, 2**40]), 3)
    for i, counter in enumerate([0, 7, 2**40]):
        stream = _splitmix((counter * golden + 12345) & mask)
        for j in range(3):
            assert found[i, j] == (_splitmix((stream + (j + 1) * golden) & mask) >> 11) * 2.0**-53


def test_uniform_depends_on_the_counter_alone() -> None:
    rows = np.arange(1000)
    whole = seeding.uniform(99, rows, 4)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(seeding.uniform(99, rows[order], 4), whole[order])
    assert np.array_equal(seeding.uniform(99, rows[:10], 2), whole[:10, :2])
    assert not np.array_equal(seeding.uniform(98, rows, 4), whole)


def test_uniform_is_uniform_and_independent() -> None:
    x = seeding.uniform(seeding.key("view", 1), np.arange(20000), 2)
    assert ((x >= 0) & (x < 1)).all()
    counts = np.histogram(x, bins=20, range=(0, 1))[0] / x.size
    assert np.abs(counts - 0.05).max() < 0.004  # 5 standard errors
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 0.035
    assert abs(np.corrcoef(x[1:, 0], x[:-1, 0])[0, 1]) < 0.035


def test_permutations_have_keys() -> None:
    a, b = seeding.permutation(100, "order", 0, 1), seeding.permutation(100, "order", 0, 1)
    torch.manual_seed(5)
    assert torch.equal(a, b)
    assert torch.equal(a.sort().values, torch.arange(100))
    assert not torch.equal(a, seeding.permutation(100, "order", 0, 2))


def test_a_step_has_its_own_noise() -> None:
    def noise(seed: int, step: int) -> torch.Tensor:
        seeding.reseed_step(seed, step)
        return torch.rand(8)

    assert torch.equal(noise(1, 2), noise(1, 2))
    assert len({tuple(noise(s, t).tolist()) for s in range(10) for t in range(10)}) == 100


# ---------------------------------------------------------------- storage


def test_a_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    storage.write_json(path, {"a": 1})
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(errors.StorageError, match=r"disk is full.*run the same command again"):
        storage.write_json(path, {"a": 2})
    assert storage.read_json(path) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]  # no temporary file stays behind


def test_files_are_flushed_to_the_disk_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (calls.append("fsync"), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    storage.write_text(tmp_path / "x", "text")
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "Permission denied"), (errno.ENOSPC, "disk is full")],
)
def test_the_disk_is_explained(code: int, advice: str) -> None:
    message = str(storage.explain(OSError(code, os.strerror(code)), Path("/some/where")))
    assert advice in message
    assert "/some/where" in message


def test_a_path_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StorageError, match="file"):
        storage.write_text(tmp_path / "file" / "below", "x")


def test_canonical_json_refuses_nan_and_sorts() -> None:
    assert storage.canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        storage.canonical({"a": float("nan")})


def test_damaged_json_and_tensors_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(errors.StorageError, match=r"a\.json is not valid JSON"):
        storage.read_json(tmp_path / "a.json")
    (tmp_path / "a.safetensors").write_bytes(b"short")
    with pytest.raises(errors.StorageError, match=r"a\.safetensors"):
        storage.read_tensors(tmp_path / "a.safetensors")


def test_tensors_come_back_and_are_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    wanted = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(2.0), "d": torch.randn(4, 3).t()}
    digest = storage.write_tensors(path, wanted)
    assert digest == storage.sha256_file(path)
    found = storage.read_tensors(path)
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)
    found["a"].zero_()
    assert torch.equal(storage.read_tensors(path)["a"], wanted["a"])


def test_tensor_hashes_tell_shape_type_and_value() -> None:
    x = torch.arange(6, dtype=torch.float32)
    different = [x, x.view(2, 3), x.double(), x + 1, x.int(), x.bfloat16()]
    assert len({storage.tensor_sha256(t) for t in different}) == len(different)
    assert storage.tensor_sha256(x.view(2, 3).t().contiguous().t()) == storage.tensor_sha256(x.view(2, 3))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with storage.lock(tmp_path):
        code = (
            "import sys; from pathlib import Path; from potstill import storage, errors\n"
            "try:\n    storage.lock(Path(sys.argv[1])).__enter__()\n"
            "except errors.RunError as e: print(e)"
        )
        found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert f"in use by another run (process {os.getpid()})" in found.stdout
    with storage.lock(tmp_path):
        pass  # free again


def test_plain_makes_json_of_anything_we_store() -> None:
    from potstill.types import DataSpec

    found = storage.plain({"spec": DataSpec((1, 8, 8), ("a", "b")), "path": Path("x"), 1: (1, 2)})
    assert json.loads(json.dumps(found)) == found
    assert found["spec"]["preprocessing"] == {"scale": 1.0, "offset": 0.0}


# ---------------------------------------------------------------- registry


def _thing(*, sizes: tuple[int, ...] = (1,), rate: float = 0.5, word: str = "x") -> dict[str, object]:
    return {"sizes": sizes, "rate": rate, "word": word}


def _strict(*, number: int) -> int:
    return number


THINGS = Registry("thing", {"thing": _thing, "strict": _strict}, errors.NetworkError)


@pytest.mark.parametrize(
    ("spec", "expanded"),
    [
        ("thing", {"name": "thing"}),
        ("thing:3-2", {"name": "thing", "sizes": (3, 2)}),
        ("strict:4", {"name": "strict", "number": 4}),
        ({"name": "thing", "rate": 1}, {"name": "thing", "rate": 1.0}),
        ({"name": "thing", "sizes": [3, 2]}, {"name": "thing", "sizes": (3, 2)}),
    ],
)
def test_specifications_expand(spec: object, expanded: dict[str, object]) -> None:
    assert THINGS.expand(spec) == expanded  # type: ignore[arg-type]
    assert THINGS.expand(THINGS.expand(spec)) == expanded  # type: ignore[arg-type]


def test_full_fills_in_defaults_and_call_calls() -> None:
    assert THINGS.full("thing:3") == {"name": "thing", "sizes": (3,), "rate": 0.5, "word": "x"}
    assert THINGS.call({"name": "thing", "word": "y"}) == {"sizes": (1,), "rate": 0.5, "word": "y"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("thin", 'Unknown thing "thin". Did you mean "thing"?'),
        ({"name": "thing", "rat": 1}, 'no key "rat". Did you mean "rate"?'),
        ({"rate": 1}, 'needs a key "name"'),
        ("strict", 'needs the key "number"'),
        ("thing:a", "whole numbers"),
        ({"name": "thing", "rate": "high"}, "rate of the thing"),
        ({"name": "thing", "rate": True}, "rate of the thing"),
    ],
)
def test_wrong_specifications_are_refused(spec: object, message: str) -> None:
    with pytest.raises(errors.NetworkError, match=re.escape(message)):
        THINGS.expand(spec)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the package


def test_the_public_list_is_sorted_and_loads() -> None:
    assert potstill.__all__ == sorted(potstill.__all__)
    for name in potstill.__all__:
        assert getattr(potstill, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = potstill.nothing


def test_the_public_list() -> None:
    assert potstill.__all__ == [
        "Study", "bayes", "data", "errors", "evaluate", "fit", "load", "losses", "metrics", "networks", "objectives",
        "outputs", "record", "report", "teachers",
    ]  # fmt: skip


def test_importing_potstill_imports_nothing_heavy() -> None:
    code = (
        "import sys, potstill, potstill.errors, potstill.types, potstill.seeding, potstill.storage; print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("torch", "scipy", "sklearn", "matplotlib", "pandas", "joblib", "pydantic", "optuna", "transformers"):
        assert heavy not in found
