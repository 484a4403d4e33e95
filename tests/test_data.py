"""Sources, readers, splits and the cache, against files built by hand and plain numpy."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import potstill.data as data
from potstill import storage, types
from potstill.data import checks, idx, splits
from potstill.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (200, 6, 5)).astype(np.uint8)
Y = np.arange(200) % 4
F = RNG.normal(size=(200, 7)).astype(np.float32)


def idx_bytes(array: np.ndarray, *, code: int = 0x08, letter: str = "B") -> bytes:
    """An idx file, number by number."""
    head = struct.pack(">BBBB", 0, 0, code, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
    return head + b"".join(struct.pack(f">{letter}", number) for number in array.reshape(-1).tolist())


def write_mnist(folder: Path, *, zipped: bool = True, train: int = 60, test: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for word, n in (("train", train), ("t10k", test)):
        for what, array in (("images-idx3", X[:n]), ("labels-idx1", Y[:n])):
            content = idx_bytes(array)
            name = f"{word}-{what}-ubyte"
            (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)


def every(source: data.ArraySource, view: int = 0) -> types.Batch:
    return source.fetch(torch.arange(len(source)), view)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POTSTILL_DATA", raising=False)
    return tmp_path / "cache"


# --- idx files -------------------------------------------------------------------------------------------------------

IDX_TYPES = [
    (0x08, "B", np.uint8, [0, 255, 7]),
    (0x09, "b", np.int8, [-128, 127, 0]),
    (0x0B, "h", np.int16, [-300, 300, 1]),
    (0x0C, "i", np.int32, [-70000, 70000, 2]),
    (0x0D, "f", np.float32, [0.5, -1.25, 3.0]),
    (0x0E, "d", np.float64, [0.1, -1e300, 3.0]),
]


@pytest.mark.parametrize(("code", "letter", "dtype", "numbers"), IDX_TYPES)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_of_every_type_is_read(tmp_path, code, letter, dtype, numbers, zipped) -> None:
    array = np.array([numbers, numbers[::-1]], dtype)
    content = idx_bytes(array, code=code, letter=letter)
    path = tmp_path / "some-file"  # no suffix: gzip is seen by content
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = idx.read(path)
    assert found.dtype == dtype
    assert found.dtype.isnative
    assert np.array_equal(found, array)


GOOD = idx_bytes(X[:3])
BAD_IDX = [
    (GOOD[:-1], "is truncated: found 89 bytes of data, wanted 90 for the shape (3, 6, 5)"),
    (GOOD[:9], "is truncated: it ends inside its header"),
    (GOOD + b"\0", "has bytes after its end: found 91 bytes of data, wanted 90"),
    (b"\0\0\x07\x03" + GOOD[4:], "is not an idx file: found the magic number 1795"),
    (b"<html>" + GOOD, "is not an idx file"),
    (b"\0\1" + GOOD[2:], "is not an idx file: found the magic number 67587"),
    (b"ab", "found 2 bytes, wanted an idx file"),
    (b"", "found 0 bytes"),
    (b"\0\0\x08\x00", "found an array with 0 axes"),
    (gzip.compress(GOOD)[:-12], "is truncated or damaged"),
    (gzip.compress(GOOD)[:20] + b"xxxx" + gzip.compress(GOOD)[24:], "is truncated or damaged"),
    (idx_bytes(Y[:3]), "found an array with 1 axes (magic number 2049), wanted 3"),
    (struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is truncated: found 0 bytes of data"),
]


@pytest.mark.parametrize(("content", "message"), BAD_IDX)
def test_a_bad_idx_file_is_refused_by_name(tmp_path, content, message) -> None:
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        idx.read(path, axes=(3,))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


# --- built-in names and folders --------------------------------------------------------------------------------------


def test_digits_are_scikit_learns(cache) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    found = data.open("digits", validation=0, test=0)
    assert len(found.train) == 1797
    assert found.validation is None
    assert found.test is None
    assert found.spec == types.DataSpec((1, 8, 8), tuple("0123456789"), "multiclass", types.Preprocessing(1 / 16))
    batch = every(found.train)
    assert np.array_equal(batch.inputs.numpy(), (bunch.images[:, None] / 16).astype(np.float32))
    assert np.array_equal(batch.labels.numpy(), bunch.target)
    assert batch.labels.dtype == torch.int64
    assert batch.labelled.all()


def test_the_demos_split_of_the_digits(cache) -> None:
    found = data.open({"name": "digits"}, test=600, validation=100, labelled=100, seed=3)
    assert [len(found.train), len(found.validation), len(found.test)] == [1097, 100, 600]
    assert int(found.train.labelled.sum()) == 100
    assert found.validation.labelled.all()
    assert found.test.labelled.all()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["mnist", ".", "MNIST/raw"])
def test_mnist_is_found_below_or_in_the_data_folder(cache, tmp_path, zipped, place) -> None:
    write_mnist(tmp_path / "d" / place, zipped=zipped)
    found = data.open("mnist", folder=tmp_path / "d", validation=0)
    assert np.array_equal(every(found.train).inputs.numpy(), X[:60, None] * np.float32(1 / 255))
    assert np.array_equal(found.test.labels.numpy(), Y[:20])
    assert found.spec.classes == tuple("0123456789")
    assert found.name == "mnist"


def test_the_environment_names_the_data_folder(cache, tmp_path, monkeypatch) -> None:
    write_mnist(tmp_path / "fashion-mnist")
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path))
    found = data.open("fashion-mnist")
    assert found.spec.classes[0] == "T-shirt/top"
    assert found.spec.classes[9] == "Ankle boot"
    assert len(found.spec.classes) == 10
    assert [len(found.train), len(found.validation), len(found.test)] == [54, 6, 20]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("given_folder", [True, False])
def test_missing_files_are_listed_with_where_to_get_them(cache, tmp_path, name, given_folder) -> None:
    with pytest.raises(DataError) as caught:
        data.open(name, folder=tmp_path if given_folder else None)
    message = str(caught.value)
    for word in ("train", "t10k"):
        assert f"{word}-images-idx3-ubyte.gz, {word}-labels-idx1-ubyte.gz" in message
    assert {"mnist": "yann.lecun.com/exdb/mnist", "fashion-mnist": "github.com/zalandoresearch/fashion-mnist"}[
        name
    ] in message
    assert "--data FOLDER" in message
    assert (str(tmp_path / name) in message) == given_folder


def test_a_folder_of_the_other_set_is_not_taken(cache, tmp_path) -> None:
    write_mnist(tmp_path / "mnist")
    assert len(data.open("mnist", folder=tmp_path / "mnist").test) == 20
    with pytest.raises(DataError, match='"fashion-mnist" is not there'):
        data.open("fashion-mnist", folder=tmp_path / "mnist")


def test_one_of_four_files_missing(cache, tmp_path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="four files"):
        data.open("mnist", folder=tmp_path)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .* is missing"):
        data.open(tmp_path / "mnist")


def test_an_idx_folder_by_path(cache, tmp_path) -> None:
    write_mnist(tmp_path / "own")
    found = data.open(str(tmp_path / "own"))
    assert found.spec.classes == ("0", "1", "2", "3")
    assert found.name == "own"
    named = data.open({"name": str(tmp_path / "own"), "classes": ["a", "b", "c", "d"]})
    assert named.spec.classes == ("a", "b", "c", "d")
    assert len(data.open("own", folder=tmp_path).test) == len(data.open("own", folder=tmp_path / "own").test) == 20
    for file in (tmp_path / "own").glob("t10k*"):
        file.unlink()
    alone = data.open(str(tmp_path / "own"))
    assert [len(alone.train), len(alone.validation), len(alone.test)] == [43, 5, 12]  # 0.2 of 60, 0.1 of 48


def test_pictures_and_labels_must_be_as_many(cache, tmp_path) -> None:
    write_mnist(tmp_path / "own")
    (tmp_path / "own" / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(Y[:59]))
    with pytest.raises(DataError, match=r"train-images.*train-labels.*found 60 examples and 59 labels"):
        data.open(str(tmp_path / "own"))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_files_are_read(cache, real_data, name) -> None:
    def contents(file: str, header: int) -> np.ndarray:
        with gzip.open(real_data / name / file) as opened:
            return np.frombuffer(opened.read()[header:], np.uint8)

    pictures = contents("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = contents("train-labels-idx1-ubyte.gz", 8)
    found = data.open(name, folder=real_data, validation=200)
    assert len(found.validation) == 200
    for source in (found.train, found.validation):
        assert np.array_equal(every(source).inputs.numpy(), pictures[source.rows] * np.float32(1 / 255))
        assert np.array_equal(source.labels.numpy(), labels[source.rows])
    assert sorted([*found.train.rows.tolist(), *found.validation.rows.tolist()]) == list(range(len(labels)))
    assert np.array_equal(found.test.labels.numpy(), contents("t10k-labels-idx1-ubyte.gz", 8))


# --- arrays ----------------------------------------------------------------------------------------------------------


def test_pairs_and_dictionaries_of_arrays() -> None:
    pair = data.open((X, Y), validation=0, test=0).train
    assert np.array_equal(every(pair).inputs.numpy(), X[:, None] * np.float32(1 / 255))
    flat = data.open({"x_train": X, "y_train": Y, "X_test": X[:50], "Y_test": Y[:50]}, validation=0)
    nested = data.open({"train": (X, Y), "test": (X[:50], Y[:50])}, validation=0)
    tensors = data.open((torch.from_numpy(X), torch.from_numpy(Y).double()), validation=0, test=0).train
    assert len(data.open({"train": [X, Y]}, validation=0).test) == 40
    lists = data.open((X.tolist(), Y.tolist()), validation=0, test=0)
    assert len(flat.test) == len(nested.test) == 50
    assert flat.train.fingerprint() == nested.train.fingerprint() == tensors.fingerprint() == pair.fingerprint()
    assert lists.spec.preprocessing.scale == 1.0  # int64 becomes float32 and is taken as it is
    assert torch.equal(every(lists.train).inputs, torch.from_numpy(X[:, None].astype(np.float32)))


def test_arrays_from_python_are_copied() -> None:
    x = F.copy()
    source = data.open((x, Y), validation=0, test=0).train
    x[:] = 0
    assert np.array_equal(every(source).inputs.numpy(), F)


LAYOUTS = [
    ({"inputs": X, "labels": Y}, (200, 0)),
    ({"x": X, "y": Y}, (200, 0)),
    ({"X": X, "y": Y}, (200, 0)),
    ({"train_inputs": X, "train_labels": Y, "test_inputs": X[:40], "test_labels": Y[:40]}, (200, 40)),
    ({"x_train": X, "y_train": Y, "x_test": X[:40], "y_test": Y[:40]}, (200, 40)),
    ({"train_images": X, "train_labels": Y, "val_images": X[:4], "val_labels": Y[:4]}, (200, 0)),
]


@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_layouts_of_files(cache, tmp_path, layout, sizes, kind) -> None:
    source: Path = tmp_path / "set.npz"
    if kind == "npz":
        np.savez_compressed(source, **layout)
    else:
        source = tmp_path / "set"
        source.mkdir()
        for key, array in layout.items():
            np.save(source / f"{key}.npy", array)
    given_validation = "val_images" in layout
    found = data.open(str(source), validation=None if given_validation else 0, test=None if sizes[1] else 0)
    assert len(found.train) == sizes[0]
    assert (0 if found.test is None else len(found.test)) == sizes[1]
    assert (0 if found.validation is None else len(found.validation)) == (4 if given_validation else 0)
    assert np.array_equal(every(found.train).inputs.numpy(), X[:, None] * np.float32(1 / 255))
    assert found.train.raw.dtype == torch.uint8
    assert found.train.fingerprint() == data.open((X, Y), validation=0, test=0).train.fingerprint()


def test_unlabelled_examples_are_training_examples_without_labels(cache, tmp_path) -> None:
    np.savez(tmp_path / "u.npz", inputs=F[:50], labels=Y[:50], unlabelled=F[50:])
    for source in (str(tmp_path / "u.npz"), {"train": (F[:50], Y[:50]), "unlabelled": F[50:]}):
        found = data.open(source, test=10, validation=5)
        assert [len(found.train), len(found.validation), len(found.test)] == [35 + 150, 5, 10]
        assert found.train.labelled.tolist() == [True] * 35 + [False] * 150
        assert found.train.labels[35:].eq(0).all()
        assert np.array_equal(every(found.train).inputs.numpy()[35:], F[50:])
        fewer = data.open(source, test=10, validation=5, labelled=8)
        assert int(fewer.train.labelled.sum()) == 8
        assert not fewer.train.labelled[35:].any()


def test_text_labels_become_classes(cache, tmp_path) -> None:
    words = np.array(["cat", "ant", "bee", "dog"])[Y]
    np.savez(tmp_path / "w.npz", x=F, y=words, x_test=F[:9], y_test=words[:9].astype("S"))
    for source in (str(tmp_path / "w.npz"), {"train": (F, words), "test": (F[:9], words[:9])}):
        found = data.open(source, validation=0)
        assert found.spec.classes == ("ant", "bee", "cat", "dog")
        assert [found.spec.classes[i] for i in found.train.labels] == words.tolist()
        assert [found.spec.classes[i] for i in found.test.labels] == words[:9].tolist()
    ordered = data.open({"x": F, "y": words, "classes": ["dog", "cat", "bee", "ant"]}, validation=0, test=0)
    assert [ordered.spec.classes[i] for i in ordered.train.labels] == words.tolist()


SHAPES = [
    (np.uint8, (9, 5, 6), (1, 5, 6), None),
    (np.uint8, (9, 3, 5, 6), (3, 5, 6), None),
    (np.uint8, (9, 1, 5, 6), (1, 5, 6), None),
    (np.uint8, (9, 5, 6, 3), (3, 5, 6), (0, 3, 1, 2)),
    (np.float32, (9, 5, 6, 1), (1, 5, 6), (0, 3, 1, 2)),
    (np.float32, (9, 64, 1, 1), (64, 1, 1), None),
    (np.uint8, (9, 3, 5, 3), (3, 5, 3), None),
    (np.float64, (9, 2, 5, 6), (2, 5, 6), None),
    (np.int16, (9, 4), (4,), None),
    (np.bool_, (9, 4), (4,), None),
    (np.float16, (9, 4), (4,), None),
]


@pytest.mark.parametrize(("dtype", "shape", "wanted", "order"), SHAPES)
def test_shapes_and_types_of_inputs(dtype, shape, wanted, order) -> None:
    array = RNG.integers(0, 2 if dtype is np.bool_ else 100, shape).astype(dtype)
    found = data.open((array, np.arange(9) % 2), validation=0, test=0)
    assert found.spec.shape == wanted
    moved = array if order is None else array.transpose(order)
    scale = np.float32(1 / 255) if dtype is np.uint8 else np.float32(1)
    batch = every(found.train)
    assert batch.inputs.dtype == torch.float32
    assert np.array_equal(batch.inputs.numpy(), moved.reshape(9, *wanted).astype(np.float32) * scale)


NAN, INF = F.copy(), F.astype(np.float64)
NAN[17, 3] = np.nan
INF[5, 0] = 1e300
OBJECTS = np.array([[1, 2], [3, 4]], dtype=object)
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ((F[:0], Y[:0]), {}, "source[inputs] is empty: found inputs of shape (0, 7)"),
    ((F[:, :0], Y), {}, "is empty"),
    ((F, Y * 0), {}, "all training examples are of one class (0), wanted two or more"),
    ((F, Y * 0 + 3), {}, "all training examples are of one class (3)"),
    ((F, Y + 1), {}, "no training example has the label 0, but some have 1"),
    ((F, np.where(Y == 1, 7, Y)), {}, "no training example has the label 1, but some have 2"),
    (
        (F, Y - 1),
        {},
        'row 0 (from 0) has the label -1; classes count from 0. Rows without a label go under "unlabelled"',
    ),
    ((F, Y + 0.5), {}, "row 0 (from 0) has the label 0.5, wanted a whole number or text"),
    ((F, np.where(Y == 3, np.nan, Y)), {}, "row 3 (from 0) has the label nan"),
    ((F, Y[:199]), {}, "found 200 examples and 199 labels"),
    ((F, np.eye(4)[Y]), {}, "found labels of shape (200, 4), wanted (n,). One-hot labels: take labels.argmax(axis=1)"),
    ((F, Y.astype(complex)), {}, "found labels of type complex128"),
    ((NAN, Y), {}, "row 17 (from 0) holds nan in float32, and 1 of 200 rows"),
    ((INF, Y), {}, "row 5 (from 0) holds inf in float32"),
    ((F[:, 0], Y), {}, "found inputs of shape (200,), wanted (n, features)"),
    ((F.reshape(200, 7, 1, 1, 1), Y), {}, "found inputs of shape (200, 7, 1, 1, 1)"),
    ((F.astype(complex), Y), {}, "found inputs of type complex128, wanted numbers"),
    ((np.array([["a", "b"]] * 4), Y[:4]), {}, "found inputs of type <U1, wanted numbers"),
    ((OBJECTS, Y[:2]), {}, "source[inputs]: found an object array"),
    ((F[:2], np.array(["a", None], dtype=object)), {}, "source[labels]: found an object array"),
    (([[1, 2], [3]], Y[:2]), {}, "found rows of different lengths"),
    ((F,), {}, "found a tuple of 1, wanted a pair"),
    (F, {}, "source: found ndarray. Supported now: the names digits"),
    ({"train": F}, {}, 'source["train"]: found ndarray, wanted a pair (inputs, labels)'),
    ({"x": F}, {}, "labels of the train part are missing"),
    ({"test": (F, Y)}, {}, "inputs and labels of the train part are missing"),
    ({"x": F, "y": Y, "x_test": F}, {}, "labels of the test part are missing"),
    ({"x": F, "inputs": F, "y": Y}, {}, 'the keys "x" and "inputs" mean the same array'),
    ({"x": F, "y": Y, "train_label": Y}, {}, 'the keys "y" and "train_label" mean the same array'),
    ({"x": F, "y": Y, "ids": Y}, {}, 'found the key "ids". Wanted: inputs and labels'),
    ({"x": F, "y": Y, "unlabeled_inptus": F}, {}, 'found the key "unlabeled_inptus"'),
    ({"x": F, "y": Y, "unlabelled": F[:, :3]}, {}, "found unlabelled examples of shape (3,)"),
    ({"train": (F, Y), "test": (F[:, :3], Y)}, {}, "found test examples of shape (3,) and type float32, wanted"),
    (
        {"train": (X, Y), "test": (X / 255, Y)},
        {},
        "and type float32, wanted the training examples' (1, 6, 5) and uint8",
    ),
    ({"train": (F, Y), "test": (F, Y + 1)}, {}, "row 3 (from 0) has the label 4, wanted 0 to 3"),
    ({"train": (F, Y), "test": (F, Y.astype(str))}, {}, "wanted numbers in both or text in both"),
    ({"train": (F, np.array(list("abcd"))[Y]), "test": (F[:1], ["e"])}, {}, 'row 0 (from 0) has the label "e"'),
    (
        {"x": F, "y": Y, "classes": ["a", "b", "c"]},
        {},
        "row 3 (from 0) has the label 3, wanted 0 to 2 for the 3 classes",
    ),
    ({"x": F, "y": Y, "classes": ["a", "b", "a", "c"]}, {}, "wanted two or more different ones"),
    ({"name": "digits", "sise": 8}, {}, 'data source "digits" has no key "sise"'),
    ({"name": "nowhere.npz", "size": 8}, {}, 'the data in "nowhere.npz" has no key "size"'),
    ({"name": 3}, {}, "source: found dict"),
    ("mnits", {}, 'Unknown data source "mnits". Did you mean "mnist"? Supported now: the names digits'),
    ("cats-dogs", {}, 'Unknown data source "cats-dogs". Did you mean "cats-dogs-64"? Supported now'),
    ("nowhere.npz", {}, "nowhere.npz is not there"),
    ((F, Y), {"task": "binary"}, 'task = "binary" needs two classes; arrays has 4: 0, 1, 2, 3'),
    ((F, Y), {"task": "regresion"}, 'Unknown task "regresion". Did you mean "regression"?'),
    (
        (F, Y),
        {"augment": ["flip"]},
        "augment = flip: needs pictures (channels, height, width), found rows of shape (7,)",
    ),
    ((X, Y), {"augment": ["flap"]}, 'Did you mean "flip"'),
    ((F, Y), {"splits": ["train", "tset"]}, 'Unknown split "tset". Did you mean "test"'),
    ((F, Y), {"test": -1}, "test = -1: wanted a fraction between 0 and 1 or a whole number"),
    ((F, Y), {"test": True}, "test = True: wanted a fraction"),
    ((F, Y), {"validation": "much"}, "validation = 'much': wanted a fraction"),
    ((F, Y), {"test": 1.0}, "must be below 1; for a number of examples write test = 1"),
    ((F, Y), {"test": float("nan")}, "test = nan: wanted a fraction"),
    ((F, Y), {"test": 0.001}, "test = 0.001 of 200 labelled examples is none"),
    ((F, Y), {"test": 197}, "at most 196 can be held out"),
    ((F, Y), {"test": 100, "validation": 97}, "validation = 97: found 100 labelled training examples of 4 classes"),
    ({"train": (F, Y), "test": (F, Y)}, {"test": 0.2}, "test = 0.2: arrays has a test part of its own"),
    ((F, Y), {"labelled": 3}, "labelled = 3: wanted a whole number from 4 (one example of each class) to 144"),
    ((F, Y), {"labelled": 145}, "labelled = 145: wanted a whole number from 4"),
    ((F, Y), {"labelled": 0.5}, "labelled = 0.5: wanted a whole number"),
    ((F, Y), {"labelled": 0}, "labelled = 0: wanted"),
]


@pytest.mark.parametrize(("source", "options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_used_is_refused(cache, source, options, message) -> None:
    with pytest.raises(DataError) as caught:
        data.open(source, **options)
    assert message in str(caught.value)


def test_bad_files_are_refused_by_name(cache, tmp_path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(DataError) as caught:
            data.open(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
        assert message in str(caught.value)

    np.savez(tmp_path / "objects.npz", x=OBJECTS, y=Y[:2])
    refused("objects.npz", "[x]: found an object array (Python objects; reading them could run code)")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "x.npy", OBJECTS)
    np.save(tmp_path / "folder" / "y.npy", Y[:2])
    refused("folder", "found an object array")
    np.savez(tmp_path / "half.npz", x=F, y=Y)
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:3000])
    refused("half.npz", "is not a whole numpy array")
    np.save(tmp_path / "one.npz", F)
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    refused("one.npz", "is not a whole numpy array")
    (tmp_path / "text.npz").write_text("hello")
    refused("text.npz", "is not a whole numpy array: it is no .npy or .npz file. Write it again")
    np.savez(tmp_path / "single.npz", x=F, y=Y * 0)
    refused("single.npz", "single.npz[y]: all training examples are of one class")
    np.savez(tmp_path / "foreign.npz", x=F, y=Y, x_test=F, y_test=Y + 1)
    refused("foreign.npz", "foreign.npz[y_test]: row")
    np.save(tmp_path / "alone.npy", F)
    refused("alone.npy", "found one array, wanted inputs and labels")
    (tmp_path / "table.xlsx").write_text("a,b")
    refused("table.xlsx", 'found a file of the kind ".xlsx". Supported now')
    (tmp_path / "pictures").mkdir()
    refused("pictures", "found a folder with neither idx nor .npy files nor pictures. Supported now")
    np.savez(tmp_path / "nan.npz", x=NAN, y=Y)
    refused("nan.npz", "[x]: row 17")


def test_options_of_a_source(tmp_path) -> None:
    drawn = ["linear", "privileged", "softmax-linear"]
    tables = ["adult", "concrete", "naval-propulsion-plant", "power-plant", "sarcos", "wine-quality-red", "yacht"]
    others = ["cats-dogs-64", "diabetes", "digits", "fashion-mnist", "mnist", "tweets"]
    assert data.names() == sorted([*others, *drawn, *tables])
    assert data.options("digits") == data.options("mnist") == ()
    assert data.options("file.npz") == ("classes", "target_names")
    pictures = ("size", "interpolation", "crop", "corrupt", "duplicates")
    assert data.options("some/folder") == data.options(str(tmp_path)) == ("classes", *pictures, "target_names")
    assert data.options("cats-dogs-64") == pictures
    with pytest.raises(DataError, match='Unknown data source "minst"'):
        data.options("minst")


def test_binary_keeps_the_order_of_the_classes() -> None:
    found = data.open((F, np.where(Y > 1, "yes", "no")), task="binary")
    assert found.spec.classes == ("no", "yes")
    assert found.spec.outputs == 1
    assert data.open((F, Y % 2)).spec.outputs == 2  # never inferred


# --- splits ----------------------------------------------------------------------------------------------------------

LABELS = st.lists(st.integers(0, 5), min_size=20, max_size=200).map(np.array).filter(lambda y: len(np.unique(y)) > 1)


@settings(max_examples=80, deadline=None)
@given(LABELS, st.floats(0.05, 0.9))
def test_held_out_rows_are_stratified_and_leave_every_class(labels, fraction) -> None:
    counts = np.bincount(labels)
    count = min(round(fraction * len(labels)), len(labels) - int((counts > 0).sum()))
    rows = splits.hold_out(labels, count, "test")
    assert len(rows) == len(set(rows.tolist())) == count
    assert np.array_equal(rows, np.sort(rows))
    taken = np.bincount(labels[rows], minlength=len(counts))
    assert (taken[counts > 0] < counts[counts > 0]).all()
    if count / len(labels) <= 0.5 and counts[counts > 0].min() > 1:  # else the row that a class keeps may weigh more
        assert (np.abs(taken - counts * count / len(labels)) < 1).all()
    assert np.array_equal(rows, splits.hold_out(labels, count, "test"))


@settings(max_examples=80, deadline=None)
@given(LABELS, st.integers(0, 3), st.data())
def test_labelled_rows_have_every_class_and_the_right_shares(labels, seed, draw) -> None:
    counts = np.bincount(labels)
    count = draw.draw(st.integers(int((counts > 0).sum()), len(labels)))
    rows = splits.kept_rows(labels, count, "labelled", seed)
    assert len(set(rows.tolist())) == count
    taken = np.bincount(labels[rows], minlength=len(counts))
    assert (taken[counts > 0] >= 1).all()
    share = counts * count / len(labels)
    if share[counts > 0].min() >= 1:
        assert (np.abs(taken - share) < 1).all()


@pytest.mark.parametrize(
    ("counts", "wanted", "expected"),
    [
        ([10, 10, 10], 3, [1, 1, 1]),
        ([50, 30, 20], 10, [5, 3, 2]),
        ([5, 3, 2], 4, [2, 1, 1]),  # shares 2, 1.2, 0.8
        ([97, 2, 1], 3, [1, 1, 1]),  # at least one of each
        ([0, 6, 4], 5, [0, 3, 2]),
    ],
)
def test_allotment_by_hand(counts, wanted, expected) -> None:
    given_counts = np.array(counts)
    found = splits.allot(given_counts, wanted, lowest=np.minimum(given_counts, 1), highest=given_counts)
    assert found.tolist() == expected


def test_fewer_training_examples_leave_validation_and_test_as_they_are() -> None:
    whole, some = (data.open((F, Y), test=40, validation=0.25, train=train, seed=3) for train in (None, 30))
    assert len(some.train) == 30
    assert some.train.labelled.all()
    assert some.validation is not None
    assert whole.validation is not None
    assert some.test is not None
    assert some.validation.fingerprint() == whole.validation.fingerprint()
    assert whole.test is not None
    assert some.test.fingerprint() == whole.test.fingerprint()
    assert set(some.train.rows.tolist()) < set(whole.train.rows.tolist())
    again = data.open((F, Y), test=40, validation=0.25, train=30, seed=8)
    assert again.train.fingerprint() == some.train.fingerprint()  # a matter of the data, not of the seed
    few = data.open((F, Y), test=40, validation=0.25, train=30, labelled=12)
    assert len(few.train) == 30
    assert int(few.train.labelled.sum()) == 12


def test_fewer_training_examples_keep_those_without_a_label() -> None:
    source = {"train": (F, Y), "unlabelled": F[:7] + 1}
    found = data.open(source, test=0, validation=0, train=20)
    assert len(found.train) == 27
    assert int(found.train.labelled.sum()) == 20
    assert torch.equal(found.train.labels[:20], torch.from_numpy(Y[found.train.rows[:20].numpy()]))


def test_more_training_examples_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match=r"^train = 10000: wanted a whole number from"):
        data.open((F, Y), train=10000)


def test_splits_are_disjoint_complete_and_the_same_for_all_seeds() -> None:
    found = [data.open((F, Y), test=40, validation=0.25, labelled=20, seed=seed) for seed in range(4)]
    for one in found:
        rows = [one.train.rows.tolist(), one.validation.rows.tolist(), one.test.rows.tolist()]
        assert [len(r) for r in rows] == [120, 40, 40]
        assert sorted(row for part in rows for row in part) == list(range(200))
        assert torch.equal(one.test.rows, found[0].test.rows)
        assert torch.equal(one.train.rows, found[0].train.rows)
        assert np.array_equal(one.test.labels.numpy(), Y[one.test.rows])
        assert torch.bincount(one.train.labels[one.train.labelled]).tolist() == [5, 5, 5, 5]
        assert torch.bincount(one.validation.labels[one.validation.labelled]).tolist() == [5, 5, 5, 5]
        assert one.train.labels[~one.train.labelled].eq(0).all()
        assert one.test.labelled.all()
    subsets = [tuple(one.train.labelled.nonzero().flatten().tolist()) for one in found]
    assert len(set(subsets)) == 4
    again = data.open((F, Y), test=40, validation=0.25, labelled=20, seed=2)
    assert torch.equal(again.train.labelled, found[2].train.labelled)
    more = data.open((F, Y), test=40, validation=0.25, labelled=60, seed=2)
    assert more.train.labelled[found[2].train.labelled].all()  # a larger subset holds the smaller one


def test_the_validation_split_does_not_depend_on_the_labels_of_the_test_split() -> None:
    with_test = data.open((F, Y), test=40, validation=20)
    assert data.open((F, Y), test=40, validation=0).test.fingerprint() == with_test.test.fingerprint()


def test_defaults_of_the_splits() -> None:
    found = data.open((F, Y))
    assert [len(found.train), len(found.validation), len(found.test)] == [144, 16, 40]
    tiny = data.open((F[:6], Y[:6] % 2), test=0)
    assert [len(tiny.train), len(tiny.validation or [])] == [5, 1]
    tiny = data.open((F[:4], Y[:4] % 2), test=0)
    assert tiny.validation is None
    own = data.open({"train": (F, Y), "test": (F, Y), "validation": (F[:9], Y[:9])}, validation=0, test=0)
    assert own.validation is None
    assert own.test is None


def test_the_test_set_is_not_touched_unless_asked_for(cache, tmp_path) -> None:
    write_mnist(tmp_path / "mnist")
    whole = data.open("mnist", folder=tmp_path)
    for file in (tmp_path / "mnist").glob("t10k*"):
        file.write_bytes(b"poison")
    found = data.open("mnist", folder=tmp_path, splits=("train", "validation"))
    assert found.test is None
    assert found.train.fingerprint() == whole.train.fingerprint()
    with pytest.raises(DataError, match="t10k"):
        data.open("mnist", folder=tmp_path)
    within = data.open((F, Y), splits=("train",))
    assert within.test is within.validation is None
    assert torch.equal(within.train.rows, data.open((F, Y)).train.rows)
    assert data.open((F, Y)).without_test().test is None


# --- the source ------------------------------------------------------------------------------------------------------

SOURCES = {
    "uint8 pictures": lambda: data.open((X, Y), augment=["flip", {"name": "shift", "fraction": 0.4}]).train,
    "float pictures": lambda: data.open((X / 255, Y), augment={"name": "crop", "padding": 2}).train,
    "float rows": lambda: data.open((F, Y), labelled=40).train,
    "all rows": lambda: data.open((F, Y), test=0, validation=0).train,
    "digits": lambda: data.open("digits", augment="flip").train,
    "softmax-linear": lambda: data.open("softmax-linear").train,
    "linear": lambda: data.open("linear", task="regression").train,
    "privileged": lambda: data.open("privileged", redraw="seed", seed=3).train,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("view", [0, 1, 5])
def test_a_row_is_the_same_in_every_batch(name, view) -> None:
    source = SOURCES[name]()
    assert isinstance(source, types.Source)
    raw = source.raw.clone()
    whole = every(source, view)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    for index in (order[:7], order[:1], order, torch.tensor([3, 3, 0]), order[:0]):
        batch = source.fetch(index, view)
        again = source.fetch(index, view)
        for part in ("inputs", "labels", "labelled"):
            assert torch.equal(getattr(batch, part), getattr(whole, part)[index])
            assert torch.equal(getattr(batch, part), getattr(again, part))
        assert torch.equal(batch.index, index)
        batch.inputs.add_(1)  # a fetched batch is the caller's own
    assert torch.equal(source.raw, raw)
    assert whole.inputs.dtype == torch.float32
    if view and source.augment:
        assert not torch.equal(whole.inputs, every(source).inputs)
    else:
        assert torch.equal(whole.inputs, every(source).inputs)


def test_fetch_equals_numpy() -> None:
    source = data.open((X, Y), augment="flip").train  # which view 0 is without
    rows = source.rows[torch.tensor([5, 0, 9])].numpy()
    batch = source.fetch(torch.tensor([5, 0, 9]))
    assert np.array_equal(batch.inputs.numpy(), (X[rows][:, None].astype(np.float32) * np.float32(1 / 255)))
    assert batch.labels.tolist() == Y[rows].tolist()


def test_preprocessing_is_scale_then_offset() -> None:
    from dataclasses import replace

    source = data.open((F, Y), test=0, validation=0).train
    moved = replace(source, spec=replace(source.spec, preprocessing=types.Preprocessing(2.0, -1.0)))
    assert np.array_equal(every(moved).inputs.numpy(), F * np.float32(2) - np.float32(1))


def test_rows_outside_the_source_are_an_index_error() -> None:
    for source in (data.open((F, Y)).train, data.open((F, Y), test=0, validation=0).train):
        for row in (len(source), -1):
            with pytest.raises(IndexError):
                source.fetch(torch.tensor([row]))


def test_the_fingerprint_is_of_the_examples_and_their_order() -> None:
    def one(x: np.ndarray, y: np.ndarray = Y, **options: Any) -> str:
        return data.open((x, y), **{"test": 0, "validation": 0} | options).train.fingerprint()

    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in F)
    assert one(F) == hashlib.sha256(b'[200,7,"torch.float32"]' + digests).hexdigest()
    assert one(F) == one(F, (Y + 1) % 4) == one(F, labelled=40) == one(F.astype(np.float64))
    assert one(X) == one(X, augment="flip")
    changed = F.copy()
    changed[150, 2] += 1e-3
    others = [one(changed), one(F[::-1].copy()), one(F[:199], Y[:199]), one(F, test=0.2), one(F.reshape(200, 1, 7))]
    assert len({one(F), *others}) == 6
    split = data.open((F, Y))
    assert split.train.fingerprint() == one(F[split.train.rows], Y[split.train.rows])


def test_labels_can_be_hidden_and_do_not_come_back() -> None:
    source = data.open((F, Y), test=0, validation=0).train
    mask = torch.arange(200) % 3 == 0
    fewer = source.with_labelled(mask)
    assert torch.equal(fewer.labelled, mask)
    assert torch.equal(fewer.labels, torch.where(mask, source.labels, 0))
    assert fewer.fingerprint() == source.fingerprint()
    with pytest.raises(DataError, match="133 of the rows in the mask have no label"):
        fewer.with_labelled(torch.ones(200, dtype=torch.bool))
    for bad in (mask[:10], mask.long()):
        with pytest.raises(DataError, match=r"wanted \(200,\) of torch.bool"):
            source.with_labelled(bad)


def test_describe_can_be_json(cache) -> None:
    found = data.open("digits", validation=100, test=600, labelled=50, augment="flip", seed=1)
    told = json.loads(json.dumps(found.describe()))
    assert told["name"] == "digits"
    assert told["shape"] == [1, 8, 8]
    assert told["augmentation"] == '[{"name":"flip"}]'
    assert {name: s["examples"] for name, s in told["splits"].items()} == {
        "train": 1097,
        "validation": 100,
        "test": 600,
    }
    assert told["splits"]["train"]["labelled"] == sum(told["splits"]["train"]["per_class"]) == 50
    assert told["splits"]["validation"]["labelled"] == 50
    assert told["splits"]["test"]["fingerprint"] == found.test.fingerprint()
    other = data.open("digits", validation=100, test=600, labelled=50, augment="flip", seed=2).describe()
    assert other["splits"]["test"] == told["splits"]["test"]
    assert other["splits"]["train"]["labels_fingerprint"] != told["splits"]["train"]["labels_fingerprint"]
    assert "test" not in found.without_test().describe()["splits"]


def test_inputs_to_predict_on(cache, tmp_path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", inputs=X, labels=Y)
    np.savez(tmp_path / "two.npz", x_train=X, x_test=X)
    (tmp_path / "x-idx3-ubyte").write_bytes(idx_bytes(X))
    spec = data.open((X, Y)).spec
    for source in (X, torch.from_numpy(X), tmp_path / "x.npy", str(tmp_path / "x.npz"), tmp_path / "x-idx3-ubyte"):
        found = data.inputs(source, spec)
        assert np.array_equal(every(found).inputs.numpy(), X[:, None] * np.float32(1 / 255))
        assert not found.labelled.any()
    assert len(data.inputs("x.npy", spec, folder=tmp_path)) == 200
    assert len(data.inputs(F, data.open((F, Y)).spec)) == 200
    for source, message in (
        (X / 255, r"type float64, wanted \(1, 6, 5\) and uint8, raw .*it scales by 0.00392"),
        (X[:, :4], r"found examples of shape \(1, 4, 5\)"),
        (tmp_path / "two.npz", "wanted one array of inputs"),
        (tmp_path / "none.npy", "is not there"),
    ):
        with pytest.raises(DataError, match=message):
            data.inputs(source, spec)


def test_one_array_of_a_file(tmp_path) -> None:
    np.save(tmp_path / "a.npy", F)
    np.savez(tmp_path / "a.npz", logits=F)
    np.savez(tmp_path / "two.npz", logits=F, other=F)
    np.save(tmp_path / "o.npy", OBJECTS)
    (tmp_path / "t.npy").write_text("hello")
    for name in ("a.npy", "a.npz"):
        assert np.array_equal(data.read_array(tmp_path / name), F)
    for name, message in (
        ("two.npz", "found the keys logits, other, wanted one array"),
        ("o.npy", "found an object array"),
        ("t.npy", "is not a whole numpy array"),
        ("none.npy", "is not there"),
    ):
        with pytest.raises(DataError, match=message):
            data.read_array(tmp_path / name)


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded."""
    names: list[str] = []

    def counted(path: Path, **options: Any) -> Any:
        names.append(path.name)
        return read(path, **options)

    read = idx.read
    monkeypatch.setattr(idx, "read", counted)
    return names


def test_a_second_opening_decodes_nothing_and_maps_the_file(cache, tmp_path, decoded) -> None:
    write_mnist(tmp_path / "mnist")
    first = data.open("mnist", folder=tmp_path)
    assert len(decoded) == 4
    second = data.open("mnist", folder=tmp_path)
    assert len(decoded) == 4
    assert second.describe() == first.describe()
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(cache) in mapped.read_text()
    second.train.raw.zero_()  # private: neither the file nor the first source changes
    assert data.open("mnist", folder=tmp_path).describe() == first.describe()
    assert np.array_equal(every(first.train).inputs.numpy(), X[first.train.rows][:, None] * np.float32(1 / 255))


def test_the_same_content_elsewhere_is_the_same_entry(cache, tmp_path, decoded) -> None:
    write_mnist(tmp_path / "a" / "mnist")
    write_mnist(tmp_path / "b" / "mnist")
    data.open("mnist", folder=tmp_path / "a")
    data.open("mnist", folder=tmp_path / "b")
    assert len(decoded) == 4


def test_changed_labels_beside_the_same_pictures_are_seen(cache, tmp_path) -> None:
    write_mnist(tmp_path / "mnist")
    data.open("mnist", folder=tmp_path)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(9 - Y[:60]))
    assert np.array_equal(data.open("mnist", folder=tmp_path, validation=0).train.labels.numpy(), 9 - Y[:60])


def test_other_content_of_the_same_size_and_time_is_seen(cache, tmp_path) -> None:
    import os

    np.savez(tmp_path / "a.npz", x=F, y=Y)
    before = (tmp_path / "a.npz").stat()
    old = data.open(str(tmp_path / "a.npz")).train.fingerprint()
    np.savez(tmp_path / "a.npz", x=-F, y=Y)
    os.utime(tmp_path / "a.npz", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (tmp_path / "a.npz").stat().st_size == before.st_size
    assert data.open(str(tmp_path / "a.npz")).train.fingerprint() != old


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "flipped bit": _flip_bit,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["inputs.npy", "labels.npy", "digests.npy", "meta.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(cache, tmp_path, decoded, name, damage) -> None:
    write_mnist(tmp_path / "mnist")
    wanted = data.open("mnist", folder=tmp_path).describe()
    files = list(cache.rglob(name))
    assert len(files) == 2
    for file in files:
        DAMAGE[damage](file)
    if (name, damage) == ("meta.json", "flipped bit"):
        for file in files:
            file.write_text('{"sha256": []}')
    assert data.open("mnist", folder=tmp_path).describe() == wanted
    assert len(decoded) == 8
    assert data.open("mnist", folder=tmp_path).describe() == wanted
    assert len(decoded) == 8


def test_without_a_writable_cache_everything_works(tmp_path, monkeypatch, decoded) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file" / "cache"))
    write_mnist(tmp_path / "mnist")
    torch.set_warn_always(True)  # or only the first read-only array of the program is a warning
    first = data.open("mnist", folder=tmp_path)
    second = data.open("mnist", folder=tmp_path)
    torch.set_warn_always(False)
    assert first.describe() == second.describe()
    assert len(decoded) == 8


def test_a_full_disk_does_not_matter(cache, tmp_path, monkeypatch) -> None:
    import errno

    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_mnist(tmp_path / "mnist")
    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert len(data.open("mnist", folder=tmp_path).train) == 54
    assert not list(cache.rglob("*.npy"))
    assert not list(cache.rglob("*.tmp"))


def test_a_refusal_is_not_cached(cache, tmp_path) -> None:
    np.savez(tmp_path / "nan.npz", x=NAN, y=Y)
    for _ in range(2):
        with pytest.raises(DataError, match="row 17"):
            data.open(str(tmp_path / "nan.npz"))
    assert not list(cache.rglob("meta.json"))


def test_digits_come_from_the_cache(cache, monkeypatch) -> None:
    first = data.open("digits").describe()
    monkeypatch.setattr(checks, "inputs", lambda *a: pytest.fail("decoded again"))
    assert data.open("digits").describe() == first
    assert storage.cache_folder() == cache


def test_a_block_is_what_fetch_gives() -> None:
    rng = np.random.default_rng(0)
    floats, bytes_ = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 255, (50, 1, 4, 4)).astype(np.uint8)
    labels = np.arange(50) % 3
    for inputs, arguments in ((floats, {"validation": 0, "test": 0}), (floats, {}), (bytes_, {"augment": ("flip",)})):
        source = data.open((inputs, labels), **arguments).train  # type: ignore[arg-type]
        for view in (0, 1):
            wanted = source.fetch(torch.arange(3, min(20, len(source))), view).inputs  # type: ignore[arg-type]
            assert torch.equal(source.block(3, 20, view), wanted)
