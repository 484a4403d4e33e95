"""Answers brought as an array: their order and their kind are checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill.errors import OutputsError, TeacherError
from potstill.outputs import from_array


def good(n: int = 200, k: int = 4, right: float = 0.8) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
    """Logits (n, k) float32 of a teacher that is right in a share of rows, and the labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, k, n)
    guess = np.where(generator.random(n) < right, labels, generator.integers(0, k, n))
    z = generator.normal(size=(n, k)) + 6 * np.eye(k)[guess]
    return z.astype(np.float32), torch.from_numpy(labels)


@pytest.mark.parametrize("right", [1.0, 0.8, 0.4])
def test_an_array_in_the_order_of_the_data_is_taken_a_shuffled_one_refused(tmp_path: Path, right: float) -> None:
    z, labels = good(right=right)
    np.save(tmp_path / "z.npy", z)
    taken = from_array(tmp_path / "z.npy", kind="logits", rows=200, labels=labels)
    torch.testing.assert_close(taken.lookup(torch.arange(200), 0).logits(), torch.from_numpy(z))
    shuffled = z[np.random.default_rng(1).permutation(200)]
    with pytest.raises(OutputsError, match=r"agrees with \d+ of 200 labels.*look shuffled"):
        from_array(shuffled, kind="logits", rows=200, labels=labels)
    from_array(shuffled, kind="logits", rows=200)
    few = torch.arange(200) < 49
    from_array(shuffled, kind="logits", rows=200, labels=labels, labelled=few)


def test_one_logit_in_the_order_of_the_data_is_taken_a_shuffled_one_refused() -> None:
    z, labels = good(k=2, right=0.9)
    one = z[:, 1:] - z[:, :1]
    from_array(one, kind="logits", rows=200, labels=labels)
    with pytest.raises(OutputsError, match="look shuffled"):
        from_array(one[::-1], kind="logits", rows=200, labels=labels)


def test_chance_is_reckoned_from_the_classes_that_occur() -> None:
    """A teacher that always says the common class agrees often, and still knows nothing of the order."""
    labels = torch.tensor([0] * 180 + [1] * 20)
    constant = np.tile(np.array([[3.0, 0.0, 0.0]]), (200, 1))
    constant[7] = [0.0, 3.0, 0.0]
    with pytest.raises(OutputsError, match="chance alone gives 179"):
        from_array(constant, kind="logits", rows=200, labels=labels)


def with_nan() -> np.ndarray[Any, Any]:
    z = good()[0].copy()
    z[17, 2] = np.nan
    return z


BAD_ARRAYS: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("objects", np.array([[None, 1]] * 200, dtype=object), {}, OutputsError, "Object arrays are never read"),
    ("text", np.array([["a"]] * 200), {}, OutputsError, "wanted float32 numbers"),
    ("row count", good()[0][:-1], {}, OutputsError, r"shape \(199, 4\), the data has 200 rows"),
    ("one number", np.float32(1.0), {}, OutputsError, "the data has 200 rows"),
    ("one axis", good()[0][:, 0], {}, TeacherError, r"add \[:, None\]"),
    ("whole numbers", good()[0].round().astype(int), {}, TeacherError, "floating-point"),
    ("NaN", with_nan(), {}, TeacherError, "answered NaN for row 17"),
    ("probabilities as logits", np.eye(4)[[0, 1] * 100], {}, TeacherError, 'Declare kind="probabilities"'),
    ("logits as probabilities", good()[0], {"kind": "probabilities"}, TeacherError, 'declare kind="logits"'),
    ("labels of other classes", good()[0], {"labels": torch.full((200,), 4)}, TeacherError, "the labels go up to 4"),
    (
        "labels of other data",
        good()[0],
        {"labels": torch.zeros(3, dtype=torch.int64)},
        OutputsError,
        "3 labels for 200",
    ),
]


@pytest.mark.parametrize(
    ("array", "settings", "error", "message"), [row[1:] for row in BAD_ARRAYS], ids=[row[0] for row in BAD_ARRAYS]
)
def test_bad_arrays(array: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_array(array, **{"kind": "logits", "rows": 200, **settings})


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


def test_files_that_could_run_code_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("objects.npy", np.array([Trap()] * 3, dtype=object), allow_pickle=True)
    np.savez("several.npz", a=np.ones((3, 2)))
    Path("text.npy").write_text("hello")
    for name, message in (
        ("objects.npy", "can run code"),
        ("several.npz", "several arrays"),
        ("text.npy", "not a plain"),
        ("nowhere.npy", "does not exist"),
    ):
        with pytest.raises(OutputsError, match=message):
            from_array(name, kind="logits", rows=3)
    assert not Path("trapped").exists()
