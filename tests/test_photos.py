"""Folders and archives of pictures as a source, from the files to the batches."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_samples import noise, png, saved, special, tar, tree, write, zipped
from PIL import Image

import potstill.data as data
from potstill import storage, types
from potstill.data import decoded, named, pixels, unpack
from potstill.data import tree as trees
from potstill.errors import DataError, PlanError, StorageError
from potstill.study.plan import Plan

WHOLE = {"validation": 0, "test": 0}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POTSTILL_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call decoded."""
    counts: list[int] = []
    real = pixels.decode_many

    def counted(paths: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(paths))
        return real(paths, *args, **options)

    monkeypatch.setattr(pixels, "decode_many", counted)
    return counts


def first(arrays: Any) -> np.ndarray:
    return np.stack([a.transpose(2, 0, 1) if a.ndim == 3 else a[None] for a in arrays])


def of(files: dict[str, np.ndarray], start: str) -> np.ndarray:
    return first([files[name] for name in sorted(files) if name.startswith(start)])


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_with_parts_is_train_and_test(cache, tmp_path) -> None:
    files = tree({"train": 12, "test": 4})
    found = data.open(write(tmp_path / "pets", files))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [22, 2, 8]
    assert found.spec == types.DataSpec((3, 6, 5), ("cats", "dogs"), "multiclass", types.Preprocessing(1 / 255))
    assert found.name == "pets"
    assert found.notes == ()
    train, test = of(files, "train/"), of(files, "test/")
    for part in (found.train, found.validation):
        assert np.array_equal(part.raw.numpy(), train)
        batch = part.fetch(torch.arange(len(part)))
        assert np.array_equal(batch.inputs.numpy(), train[part.rows].astype(np.float32) * np.float32(1 / 255))
        assert batch.labels.tolist() == [int(row >= 12) for row in part.rows]
    assert np.array_equal(found.test.raw.numpy(), test)
    assert found.test.labels.tolist() == [0] * 4 + [1] * 4


def test_a_folder_of_classes_is_split(cache, tmp_path) -> None:
    files = tree({"": 10}, ("a", "b", "c"))
    found = data.open(str(write(tmp_path / "abc", files)), validation=3, test=6)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [21, 3, 6]
    assert found.spec.classes == ("a", "b", "c")
    renamed = data.open({"name": str(tmp_path / "abc"), "classes": ["c", "b", "a"]}, **WHOLE)
    assert renamed.spec.classes == ("c", "b", "a")
    assert renamed.train.labels.tolist() == [2] * 10 + [1] * 10 + [0] * 10


def test_what_lies_beside_and_below(cache, tmp_path) -> None:
    """Nested folders, wrappers, other spellings of parts, hidden files, files that go along, links, strange names."""
    a, b, c, d, e = (noise() for _ in range(5))
    files: dict[str, Any] = {
        "top/LICENSE.txt": b"free",
        "top/inner/Training/cats/2/x.PNG": a,
        "top/inner/Training/cats/10.png": b,
        "top/inner/Training/dogs/d.png": c,
        "top/inner/Training/dogs/._d.png": b"resource fork",
        "top/inner/Training/dogs/.DS_Store": b"",
        "top/inner/Training/labels.csv": b"x,y",
        "top/inner/Training/.hidden/h.png": b"bad",
        "top/inner/val/cats/v.png": d,
        "top/inner/val/dogs/v.png": e,
        "__MACOSX/top/x.png": b"bad",
    }
    root = write(tmp_path / "set", files)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.png").write_bytes(png(e[::-1]))
    (root / "top/inner/Training/dogs/more").symlink_to(tmp_path / "elsewhere")
    (root / "top/inner/Training/dogs/back").symlink_to(root / "top/inner/Training/dogs")
    os.rename(root / "top/inner/Training/dogs/d.png", os.fsencode(root / "top/inner/Training/dogs") + b"/\xff.png")
    found = data.open(root, test=0)
    assert np.array_equal(found.train.raw.numpy(), first([b, a, e[::-1], c]))
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(found.validation.raw.numpy(), first([d, e]))
    assert found.train.fingerprint() == data.open(root, test=0).train.fingerprint()


def test_unlabelled_pictures_are_training_pictures_without_a_label(cache, tmp_path) -> None:
    files = tree({"train": 3, "test": 2}) | {f"unlabelled/{i}/x.png": noise() for i in range(4)}
    found = data.open(write(tmp_path / "set", files), validation=0)
    assert found.train.labelled.tolist() == [True] * 6 + [False] * 4
    assert np.array_equal(found.train.raw.numpy(), np.concatenate([of(files, "train/"), of(files, "unlabelled/")]))
    assert len(found.test) == 4


def test_grey_only_where_all_are_grey(cache, tmp_path) -> None:
    grey = tree({"train": 3, "test": 2}, channels=1)
    found = data.open(write(tmp_path / "grey", grey), validation=0)
    assert found.spec.shape == (1, 6, 5)
    assert np.array_equal(found.train.raw.numpy(), of(grey, "train/"))
    mixed = data.open(write(tmp_path / "mixed", grey | {"test/cats/zz.png": noise()}), validation=0)
    assert mixed.spec.shape == (3, 6, 5)  # one in the test part is enough
    assert np.array_equal(mixed.train.raw.numpy(), of(grey, "train/").repeat(3, axis=1))


TREES: list[tuple[dict[str, Any], str]] = [
    ({"a.png": noise(), "b.png": noise()}, "2 pictures (a.png, b.png, ...) that lie in no folder of a class"),
    ({"cats/a.png": noise(), "b.png": noise()}, "1 pictures (b.png, ...)"),
    ({"train/a.png": noise(), "test/cats/a.png": noise()}, "lie in no folder of a class"),
    ({"cats/a.png": noise()}, "all training examples are of one class (cats)"),
    ({"cats/a.png": noise(), "dogs/readme.txt": b""}, "dogs: found no picture of this class"),
    ({"train/cats/a.png": noise(), "extra/cats/a.png": noise()}, "found the folder extra beside train"),
    ({"train/cats/a.png": noise(), "training/cats/a.png": noise()}, "the folders train and training mean the same"),
    ({"test/cats/a.png": noise(), "val/dogs/b.png": noise()}, "found test, validation but no training part"),
    ({"cats/a.png": noise(), "dogs/b.heic": b"x", "dogs/c.png": noise()}, "1 file of another kind: b.heic. Wanted"),
    ({"train/cats/a.png": noise(), "train/dogs/b.png": noise(), "test/cows/a.png": noise()}, 'has the label "cows"'),
    (tree({"train": 2}, ("a", "b")) | tree({"test": 1}, ("a", "c")), 'has the label "c", which is no class'),
]


@pytest.mark.parametrize(("files", "message"), TREES, ids=range(len(TREES)))
def test_other_trees_are_refused(cache, tmp_path, files, message) -> None:
    with pytest.raises(DataError) as caught:
        data.open(write(tmp_path / "set", files))
    assert message in str(caught.value)
    assert str(tmp_path / "set") in str(caught.value)


# --- sizes and options -----------------------------------------------------------------------------------------------


def test_several_sizes_need_a_size(cache, tmp_path) -> None:
    files = tree({"train": 4, "test": 2}) | {"train/cats/w.png": noise(8, 9), "test/dogs/w.png": noise(8, 9)}
    root = write(tmp_path / "set", files | {"train/dogs/one.png": noise(3, 3)})
    with pytest.raises(DataError) as caught:
        data.open(root)
    told = str(caught.value)
    assert (
        "found pictures of 3 sizes (height x width): 6 x 5 (12 pictures), 8 x 9 (2 pictures), 3 x 3 (1 pictures)"
        in told
    )
    assert "size = [height, width]" in told
    for options, shape in (({"size": 4}, (3, 4, 4)), ({"size": [4, 2], "crop": "centre"}, (3, 4, 2))):
        found = data.open({"name": str(root), "interpolation": "nearest", **options}, validation=0)
        assert found.spec.shape == shape
        wanted = [
            pixels.decode(png(files[name]), pixels.options({"interpolation": "nearest", **options}), colour=True)
            for name in sorted(files)
            if name.startswith("test/")
        ]
        assert np.array_equal(found.test.raw.numpy(), wanted)
    square = write(tmp_path / "square", {"a/1.png": noise(4, 9), "b/1.png": noise(8, 4)})
    assert data.open({"name": str(square), "crop": "centre"}, **WHOLE).spec.shape == (3, 4, 4)


KEYS: list[tuple[dict[str, Any], str]] = [
    ({"sise": 3}, 'has no key "sise". Did you mean "size"? Known: classes, size, interpolation, crop, corrupt, dup'),
    ({"size": [3, 3, 3]}, "size = [3, 3, 3]: wanted [height, width]"),
    ({"interpolation": "cubic"}, 'Unknown interpolation "cubic"'),
    ({"classes": ["cats", "cows"]}, 'has the label "dogs", which is no class'),
]


@pytest.mark.parametrize(("table", "message"), KEYS)
def test_bad_keys_are_refused(cache, tmp_path, table, message) -> None:
    root = write(tmp_path / "set", tree({"": 2}))
    with pytest.raises(DataError) as caught:
        data.open({"name": str(root), **table})
    assert message in str(caught.value)


def test_keys_of_pictures_are_for_pictures(cache, tmp_path) -> None:
    (tmp_path / "arrays").mkdir()
    for key in ("inputs", "labels"):
        np.save(tmp_path / "arrays" / f"{key}.npy", np.arange(8) % 2)
    with pytest.raises(DataError, match=r'"size" is a key of pictures, and the data in .*arrays" are none'):
        data.open({"name": str(tmp_path / "arrays"), "size": 3})
    write(tmp_path, {"one.png": noise()})
    with pytest.raises(DataError, match="found one picture, wanted a folder"):
        data.open(tmp_path / "one.png")


def test_a_plan_checks_the_keys_with_their_lines(tmp_path) -> None:
    def load(words: str) -> Plan:
        (tmp_path / "plan.toml").write_text(words)
        return Plan.load(tmp_path / "plan.toml")

    text = '[data]\nsource = { name = "my/photos", size = 8, SETTING }\n[models.alone]\nnetwork = "linear"\n'
    for setting, key, message in (
        ('crop = "center"', "data.source.crop", 'Unknown crop "center". Did you mean "centre"?'),
        ("shape = 3", "data.source.shape", 'has no key "shape"'),
    ):
        with pytest.raises(PlanError) as caught:
            load(text.replace("SETTING", setting))
        assert (caught.value.key, caught.value.line) == (key, 2)
        assert message in str(caught.value)
    good = load(text.replace("SETTING", 'crop = "centre", interpolation = "nearest", corrupt = "skip"'))
    assert good.tables.data.source["size"] == 8
    named_set = text.replace("my/photos", "cats-dogs-64").replace("SETTING", 'duplicates = "drop"')
    assert load(named_set).tables.data.source == {"name": "cats-dogs-64", "size": 8, "duplicates": "drop"}


# --- corrupt pictures and duplicates ---------------------------------------------------------------------------------


def broken(count: int) -> dict[str, bytes]:
    whole = saved(Image.fromarray(noise(6, 5)), "JPEG")
    kinds = [b"", b"not a picture", whole[:40], whole[: len(whole) // 2]]
    return {f"train/cats/bad{i:02}.jpg": kinds[i % 4] for i in range(count)}


def test_corrupt_pictures_are_named_and_refused(cache, tmp_path) -> None:
    files = tree({"train": 5, "test": 2})
    root = write(tmp_path / "set", files | broken(12) | {"test/dogs/b.png": b"x"})
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            data.open(root, splits=("train", "validation"))  # also those of the test part, before any training
        told = str(caught.value)
        assert "13 pictures of 27 cannot be read: test/dogs/b.png (it is none of" in told
        assert "train/cats/bad00.jpg (it is empty)" in told
        assert "bad08.jpg" in told
        assert "bad09.jpg" not in told
        assert 'and 3 others. Mend or delete them, or leave them out: corrupt = "skip"' in told


def test_corrupt_pictures_can_be_skipped(cache, tmp_path) -> None:
    files = tree({"train": 5, "test": 2})
    root = write(tmp_path / "set", files | broken(3))
    for _ in range(2):
        found = data.open({"name": str(root), "corrupt": "skip"}, validation=0)
        assert np.array_equal(found.train.raw.numpy(), of(files, "train/"))
        assert found.train.labels.tolist() == [0] * 5 + [1] * 5
        assert len(found.test) == 4
        (note,) = found.notes
        assert "3 pictures left out that cannot be read: train/cats/bad00.jpg (it is empty)" in note
        assert found.describe()["notes"] == [note]
    with pytest.raises(DataError, match="3 pictures of 17"):
        data.open(root)
    for path in root.glob("train/cats/bad*"):
        path.unlink()
    assert data.open(root, validation=0).notes == ()


def test_nothing_but_corrupt_pictures(cache, tmp_path) -> None:
    root = write(tmp_path / "set", {"a/x.png": b"x", "b/x.jpg": b""})
    with pytest.raises(DataError, match=r"no picture can be read: a/x.png \(it is none.*b/x.jpg \(it is empty\)"):
        data.open({"name": str(root), "corrupt": "skip"})
    half = write(tmp_path / "half", tree({"train": 2}) | {"test/cats/x.png": b"x"})
    with pytest.raises(DataError, match="no picture of the test part is left"):
        data.open({"name": str(half), "corrupt": "skip"})


def test_the_same_picture_in_train_and_test_is_refused(cache, tmp_path) -> None:
    files = tree({"train": 4, "test": 2, "validation": 2})
    same = files["test/dogs/001.png"]
    copies = {
        "train/cats/copy.png": png(same, compress_level=0),
        "train/dogs/b.bmp": saved(Image.fromarray(same), "BMP"),
    }
    more = {"validation/cats/v.png": files["test/cats/000.png"], "train/cats/v.png": files["validation/dogs/000.png"]}
    twice = {"train/cats/twice.png": files["train/cats/000.png"]}  # within the training part nobody is judged by it
    root = write(tmp_path / "set", files | copies | more | twice)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            data.open(root, splits=("train", "validation"))
        told = str(caught.value)
        assert "4 pictures that models would be trained on or picked by, and judged by, equal once decoded" in told
        for pair in (
            "train/cats/copy.png = test/dogs/001.png",
            "train/dogs/b.bmp = test/dogs/001.png",
            "validation/cats/v.png = test/cats/000.png",
            "train/cats/v.png = validation/dogs/000.png",
        ):
            assert pair in told
        assert "twice" not in told
        assert 'duplicates = "drop"' in told
    found = data.open({"name": str(root), "duplicates": "drop"})
    kept = sorted(name for name in files | twice if name.startswith("train/"))
    assert np.array_equal(found.train.raw.numpy(), first([(files | twice)[name] for name in kept]))
    assert [len(found.validation), len(found.test)] == [4, 4]
    assert "4 pictures left out as duplicates" in found.notes[0]


def test_within_one_part_by_which_is_judged_a_picture_may_be_there_twice(cache, tmp_path) -> None:
    files = tree({"train": 4, "test": 2, "validation": 2})
    for part in ("validation", "test"):
        root = write(tmp_path / part, files | {f"{part}/cats/twice.png": files[f"{part}/cats/000.png"]})
        found = data.open(root)
        assert len(getattr(found, part)) == 5
        assert found.notes == ()


def test_without_a_test_part_no_picture_may_be_there_twice(cache, tmp_path) -> None:
    files = tree({"": 6})
    root = write(tmp_path / "set", files | {"dogs/again.png": files["cats/002.png"]})
    with pytest.raises(DataError, match=r"1 picture that models would .*dogs/again.png = cats/002.png"):
        data.open(root)
    found = data.open({"name": str(root), "duplicates": "drop"}, **WHOLE)
    assert np.array_equal(found.train.raw.numpy(), of(files, ""))


def test_an_unlabelled_copy_of_a_test_picture_counts_too(cache, tmp_path) -> None:
    files = tree({"train": 3, "test": 2})
    write(tmp_path / "set", files | {"unlabelled/u.png": files["test/cats/000.png"]})
    with pytest.raises(DataError, match=r"unlabelled/u.png = test/cats/000.png"):
        data.open(tmp_path / "set")
    write(tmp_path / "fine", files | {"unlabelled/u.png": files["train/cats/000.png"]})
    assert len(data.open(tmp_path / "fine", validation=0).train) == 7


# --- the cache -------------------------------------------------------------------------------------------------------


def entry(cache: Path) -> Path:
    (meta,) = (cache / "data").glob("*/meta.json")
    return meta.parent


def test_pictures_are_decoded_once_and_mapped(cache, tmp_path, reads) -> None:
    root = write(tmp_path / "set", tree({"train": 5, "test": 2}))
    one = data.open(root)
    assert reads == [14]
    two = data.open(root)
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    three = data.open(moved)
    assert reads == [14]
    assert one.describe()["splits"] == two.describe()["splits"] == three.describe()["splits"]
    if Path("/proc/self/maps").exists():
        assert str(entry(cache) / "inputs.u8") in Path("/proc/self/maps").read_text()
    two.train.raw.zero_()  # private: neither the file nor the other source changes
    assert data.open(moved).describe()["splits"] == one.describe()["splits"]
    assert one.train.raw.any()


def test_options_contents_and_names_make_other_entries(cache, tmp_path, reads) -> None:
    root = write(tmp_path / "set", tree({"": 5}))
    data.open(root)
    for options in ({"size": 3}, {"size": 3, "interpolation": "area"}, {"crop": "centre"}, {"duplicates": "drop"}):
        data.open({"name": str(root), **options})
    assert len(reads) == 5
    data.open({"name": str(root), "corrupt": "skip", "size": None})  # the same pictures
    assert len(reads) == 5
    (root / "cats/000.png").rename(root / "cats/zzz.png")
    data.open(root)
    assert len(reads) == 6


def test_a_changed_file_of_the_same_size_and_time_is_seen(cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoded, "_SETTLED", 0)  # so that hashes are kept though the files are young
    root = write(
        tmp_path / "set", {f"{c}/{i}.bmp": saved(Image.fromarray(noise()), "BMP") for c in "ab" for i in range(3)}
    )
    before = data.open(root, **WHOLE).train
    path = root / "a" / "1.bmp"
    state = path.stat()
    new = noise()
    path.write_bytes(saved(Image.fromarray(new), "BMP"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    after = data.open(root, **WHOLE).train
    assert np.array_equal(after.raw[1].numpy(), new.transpose(2, 0, 1))
    assert before.fingerprint() != after.fingerprint()


def test_files_are_hashed_again_only_where_they_changed(cache, tmp_path, monkeypatch) -> None:
    root = write(tmp_path / "set", tree({"": 3}))
    files = trees.pictures(root)
    wanted = [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in files]
    hashed: list[str] = []
    real = storage.sha256_file
    monkeypatch.setattr(storage, "sha256_file", lambda path: (hashed.append(path.name), real(path))[1])
    assert decoded.hashes(root, files) == wanted
    assert decoded.hashes(root, files) == wanted
    assert len(hashed) == 12  # younger than the clock's tick: not believed
    old = 10**18
    monkeypatch.setattr(decoded.time, "time_ns", lambda: 3 * old)
    assert decoded.hashes(root, files) == decoded.hashes(root, files) == wanted
    assert len(hashed) == 18
    files[2].path.write_bytes(b"other")
    assert decoded.hashes(root, files)[2] == hashlib.sha256(b"other").hexdigest()
    assert hashed[18:] == [files[2].path.name]


def test_the_number_of_processes_does_not_matter(cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoded, "_CHUNK", 4)
    root = write(tmp_path / "set", tree({"train": 11, "test": 3}) | broken(3))
    files, chosen = trees.pictures(root), pixels.options({"size": 4})
    found = []
    for processes in (1, 2, 3):
        monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / f"cache-{processes}"))
        one = decoded.decoded(root, files, chosen, processes=processes)
        content = {p.name: p.read_bytes() for p in entry(tmp_path / f"cache-{processes}").iterdir()}
        found.append((content, one.faults, one.rows.tolist()))
    assert found[0] == found[1] == found[2]
    wanted = [pixels.decode(f.path.read_bytes(), chosen, colour=True) for f in files if "bad" not in f.name]
    assert np.array_equal(one.inputs, wanted)


def test_an_interrupted_decoding_leaves_nothing(cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoded, "_CHUNK", 4)
    root = write(tmp_path / "set", tree({"": 8}))
    real, calls = pixels.decode_many, []

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(pixels, "decode_many", stopped)
    with pytest.raises(KeyboardInterrupt):
        data.open(root)
    assert not [path for path in (cache / "data").iterdir() if path.is_dir()]
    found = data.open(root)
    assert len(calls) == 3 + 4
    assert len(found.train) + len(found.validation) + len(found.test) == 16


def test_what_a_killed_process_left_is_removed(cache, tmp_path) -> None:
    """A temporary folder stays behind a kill; whoever decodes the same removes it, and nobody reads it."""
    root = write(tmp_path / "set", tree({"": 4}))
    wanted = data.open(root).describe()
    whole = entry(cache)
    left = whole.parent / f".{whole.name}.abc.tmp"
    whole.rename(left)
    (left / "inputs.u8").write_bytes(b"half")
    assert data.open(root).describe() == wanted
    assert not left.exists()


@pytest.mark.parametrize("name", ["inputs.u8", "digests.npy", "rows.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_entry_is_made_again(cache, tmp_path, reads, name, damage) -> None:
    root = write(tmp_path / "set", tree({"": 4}))
    wanted = data.open(root).describe()
    path = entry(cache) / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "flipped" and name != "meta.json" else content[:-9])
    assert data.open(root).describe() == wanted
    assert len(reads) == 2
    assert data.open(root).describe() == wanted
    assert len(reads) == 2


def test_without_a_writable_cache_pictures_are_kept_in_memory(cache, tmp_path, monkeypatch, reads) -> None:
    root = write(tmp_path / "set", tree({"train": 4, "test": 2}) | broken(1))
    wanted = data.open({"name": str(root), "corrupt": "skip"}).describe()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file" / "cache"))
    torch.set_warn_always(True)  # or only the first read-only array of the program is a warning
    assert data.open({"name": str(root), "corrupt": "skip"}).describe() == wanted
    torch.set_warn_always(False)
    assert len(reads) == 2


def test_two_openings_at_once_decode_once(cache, tmp_path) -> None:
    root = write(tmp_path / "set", tree({"": 40}, height=60, width=50))
    code = (
        "import sys, potstill.data as d; from potstill.data import pixels; real = pixels.decode_many\n"
        "def counted(*a, **k): print('decoded', flush=True); return real(*a, **k)\n"
        "pixels.decode_many = counted; print(d.open(sys.argv[1]).train.fingerprint())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    told = [process.communicate(timeout=120)[0].split() for process in started]
    assert told[0][-1] == told[1][-1]
    assert sum(line.count("decoded") for line in told) == 1


# --- what a source does ----------------------------------------------------------------------------------------------

AUGMENT = ["flip", {"name": "shift", "fraction": 0.4}]


def test_a_source_of_pictures_is_one_of_arrays(cache, tmp_path) -> None:
    """Everything equals what the same arrays give from memory: splits, labels, views, blocks, fingerprints."""
    files = tree({"train": 20, "test": 5}, height=10, width=8)
    arrays = {
        "train": (of(files, "train/"), np.repeat(["cats", "dogs"], 20)),
        "test": (of(files, "test/"), ["cats"] * 5 + ["dogs"] * 5),
    }
    options: dict[str, Any] = {"validation": 0.2, "labelled": 6, "augment": AUGMENT, "task": "binary", "seed": 3}
    mapped, memory = data.open(write(tmp_path / "set", files), **options), data.open(arrays, **options)
    assert {**mapped.describe(), "name": ""} == {**memory.describe(), "name": ""}
    for name in ("train", "validation", "test"):
        one, other = getattr(mapped, name), getattr(memory, name)
        assert isinstance(one, types.Source)
        assert one.raw.dtype == torch.uint8
        index = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))
        for view in (0, 1, 4):
            batch, wanted = one.fetch(index, view), other.fetch(index, view)
            assert torch.equal(batch.inputs, wanted.inputs)
            assert torch.equal(batch.labels, wanted.labels)
            assert torch.equal(batch.labelled, wanted.labelled)
            assert torch.equal(one.block(1, 4, view), other.block(1, 4, view))
        assert torch.equal(one.with_labelled(one.labelled).labels, one.labels)


def test_views_move_bytes_and_are_scaled_afterwards(cache, tmp_path) -> None:
    """Against numpy: flip, shift by up to 0.4 of each side with the nearest pixel in the hole, then 1/255."""
    from potstill import seeding

    files = tree({"": 15}, height=10, width=8)
    source = data.open(write(tmp_path / "set", files), augment=AUGMENT, **WHOLE).train
    raw, index = of(files, ""), np.arange(30)
    flips = seeding.uniform(seeding.key("view", 0, "flip", 2), index, 1)[:, 0] < 0.5
    shifts = seeding.uniform(seeding.key("view", 1, "shift", 2), index, 2)
    found = source.fetch(torch.from_numpy(index), 2).inputs.numpy()
    assert 5 < flips.sum() < 25
    for i in index:
        picture = raw[i][:, :, ::-1] if flips[i] else raw[i]
        down, right = np.floor(shifts[i] * [9, 7]).astype(int) - [4, 3]  # 0.4 of 10 and of 8: 4 and 3 pixels
        padded = np.pad(picture, ((0, 0), (4, 4), (3, 3)), mode="edge")
        moved = padded[:, 4 - down : 14 - down, 3 - right : 11 - right]
        assert np.array_equal(found[i], moved.astype(np.float32) * np.float32(1 / 255))


def test_pillow_is_imported_for_pictures_and_torch_is_not_needed_to_decode() -> None:
    code = (
        "import sys, numpy as np, potstill.data.pixels, potstill.data.decoded; assert 'torch' not in sys.modules\n"
        "import potstill.data as d; d.open((np.ones((9, 4)), np.arange(9) % 2)); d.names(); print('PIL' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# --- archives --------------------------------------------------------------------------------------------------------

FILES = {name: png(array) for name, array in tree({"train": 3, "test": 2}).items()}
KINDS = {
    "tar": lambda path: tar(path, list(FILES.items()), "w"),
    "tar.xz": lambda path: tar(path, list(FILES.items()), "w:xz"),
    "tar.gz": lambda path: tar(
        path, [(special("wrapped", tarfile.DIRTYPE), b""), *((f"./wrapped/{n}", c) for n, c in FILES.items())]
    ),
    "tgz": lambda path: tar(path, list(FILES.items())),
    "tar.bz2": lambda path: tar(path, list(FILES.items()), "w:bz2"),
    "zip": lambda path: zipped(path, [("wrapped/", b""), *((f"wrapped/{n}", c) for n, c in FILES.items())]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_unpacked_once(cache, tmp_path, monkeypatch, kind) -> None:
    path = KINDS[kind](tmp_path / f"My.{kind}")
    found = data.open(path, validation=0)
    assert found.name == "My"
    wanted = data.open(write(tmp_path / "My", FILES), validation=0)
    assert found.describe() == wanted.describe()
    monkeypatch.setattr(unpack, "_unpack", lambda *a: pytest.fail("unpacked again"))
    path.rename(tmp_path / f"moved.{kind}")
    again = data.open(tmp_path / f"moved.{kind}", validation=0)
    assert again.describe()["splits"] == wanted.describe()["splits"]
    (folder,) = (p for p in (cache / "unpacked").iterdir() if p.is_dir())
    assert folder.name == hashlib.sha256((tmp_path / f"moved.{kind}").read_bytes()).hexdigest()[:32]
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o7133 == 0 for p in folder.rglob("*.png"))


def mode(name: str, bits: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = bits << 16
    return info


X = png(noise())
EVIL_TARS: list[tuple[list[tuple[Any, bytes]], str]] = [
    ([("../outside.png", X)], '"../outside.png", which leads elsewhere'),
    ([("train/../../outside.png", X)], "which leads elsewhere"),
    ([("/tmp/outside.png", X)], '"/tmp/outside.png", which leads elsewhere'),
    ([("a\\..\\outside.png", X)], "which leads elsewhere"),
    ([("c:/outside.png", X)], "which leads elsewhere"),
    ([(special("../folder", tarfile.DIRTYPE), b"")], "which leads elsewhere"),
    ([(special("a/link.png", tarfile.SYMTYPE, "/etc/passwd"), b"")], '"a/link.png", which is no plain file'),
    ([(special("a", tarfile.SYMTYPE, ".."), b""), ("a/x.png", X)], '"a", which is no plain file'),
    ([("a/x.png", X), (special("a/hard.png", tarfile.LNKTYPE, "a/x.png"), b"")], '"a/hard.png", which is no plain'),
    ([(special("a/null", tarfile.CHRTYPE), b"")], "no plain file (a link, a device or the like)"),
    ([(special("a/disk", tarfile.BLKTYPE), b"")], "no plain file"),
    ([(special("a/pipe", tarfile.FIFOTYPE), b"")], "no plain file"),
    ([("a/x.png", X), ("a/x.png", X)], 'the path "a/x.png" twice, or as a file and as a folder'),
    ([("a", X), ("a/x.png", X)], "as a file and as a folder"),
    ([("", X)], "found"),
    ([(f"a/{'x' * 300}.png", X)], "an entry whose path is longer than this system writes"),
]
EVIL_ZIPS: list[tuple[list[tuple[Any, bytes]], str]] = [
    ([("../outside.png", X)], "which leads elsewhere"),
    ([("/outside.png", X)], "which leads elsewhere"),
    ([(mode("a/link.png", 0o120777), b"/etc/passwd")], '"a/link.png", which is no plain file'),
    ([(mode("a/pipe", 0o010644), b"")], "no plain file"),
    ([("a", X), ("a/x.png", X)], "as a file and as a folder"),
]


@pytest.mark.parametrize(
    ("write_archive", "name", "entries", "message"),
    [(tar, "bad.tar.gz", *row) for row in EVIL_TARS] + [(zipped, "bad.zip", *row) for row in EVIL_ZIPS],
)
def test_an_evil_archive_is_refused_whole(cache, tmp_path, write_archive, name, entries, message) -> None:
    (tmp_path / "in").mkdir()
    path = write_archive(tmp_path / "in" / name, [("good/first.png", X), *entries])
    before = {p for p in tmp_path.rglob("*") if cache not in p.parents}
    with pytest.raises(DataError) as caught:
        data.open(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: found")
    assert not [p for p in (cache / "unpacked").iterdir() if p.is_dir()]
    assert {p for p in tmp_path.rglob("*") if cache not in p.parents} - before <= {cache}


def test_an_encrypted_zip_is_refused(cache, tmp_path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", [("a/x.png", X)]).read_bytes())
    for head in (b"PK\3\4", b"PK\1\2"):
        content[content.index(head) + (6 if head == b"PK\3\4" else 8)] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r'"a/x.png", which is encrypted'):
        data.open(tmp_path / "a.zip")


LIMITS = [
    (unpack.Limits(files=4), "more than 4 entries"),
    (unpack.Limits(one=2000), 'more than 2,000 bytes in "a/2.png"'),
    (unpack.Limits(total=2500), "more than 2,500 bytes in an archive of"),
    (unpack.Limits(ratio=1, free_of_ratio=0), "bytes in an archive of"),
]


@pytest.mark.parametrize(("limits", "message"), LIMITS)
@pytest.mark.parametrize("kind", ["tar.xz", "zip"])
def test_bombs_are_refused(cache, tmp_path, limits, message, kind) -> None:
    entries = [(f"a/{i}.png", bytes(3000 if i == 2 else 10)) for i in range(6)]
    path = tmp_path / f"bomb.{kind}"
    _ = tar(path, entries, "w:xz") if kind == "tar.xz" else zipped(path, entries)
    with pytest.raises(DataError) as caught:
        unpack.unpacked(path, limits)
    assert message in str(caught.value)
    assert not [p for p in (cache / "unpacked").iterdir() if p.is_dir()]
    assert len(list(unpack.unpacked(path).rglob("*.png"))) == 6


def test_a_header_that_claims_much_is_not_read_into_memory(cache, tmp_path) -> None:
    head = special("x", tarfile.XHDTYPE)
    head.size = (1 << 33) - 1
    content = lzma.compress(head.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 16))
    (tmp_path / "a.tar.xz").write_bytes(content)
    with pytest.raises(DataError, match="one of its headers claims 8,589,934,592 bytes"):
        data.open(tmp_path / "a.tar.xz")


def test_what_follows_the_last_entry_is_bounded(cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(unpack, "_AFTER", 1 << 21)
    content = lzma.decompress(tar(tmp_path / "a.tar.xz", list(FILES.items()), "w:xz").read_bytes())
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(content + bytes(1 << 23)))
    with pytest.raises(DataError, match="more than 2,097,152 bytes after the last entry"):
        data.open(tmp_path / "a.tar.xz")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_refused(cache, tmp_path, kind) -> None:
    whole = KINDS[kind](tmp_path / f"a.{kind}").read_bytes()
    path = tmp_path / f"b.{kind}"
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[: len(whole) // 3] + whole[len(whole) // 3 + 99 :]):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            data.open(path)
        assert str(path) in str(caught.value)
    assert not [p for p in (cache / "unpacked").iterdir() if p.is_dir()]


def test_an_archive_without_a_writable_cache(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"set \$POTSTILL_CACHE to a folder with room, or unpack it yourself"):
        data.open(KINDS["zip"](tmp_path / "a.zip"))


# --- cats and dogs ---------------------------------------------------------------------------------------------------


def test_cats_and_dogs_are_found_by_name(cache, tmp_path, monkeypatch) -> None:
    write(tmp_path / "one" / "cats-dogs-64", FILES)
    (tmp_path / "two" / "cats-dogs-64").mkdir(parents=True)
    tar(tmp_path / "two" / "cats-dogs-64" / "cats-dogs-64.tar.xz", list(FILES.items()), "w:xz")
    wanted = data.open(tmp_path / "one" / "cats-dogs-64").describe()
    for folder in ("one", "one/cats-dogs-64", "two", "two/cats-dogs-64"):
        found = data.open("cats-dogs-64", folder=tmp_path / folder, task="binary")
        assert found.describe() == {**wanted, "task": "binary"}
        assert found.spec.classes[1] == "dogs"
    sized = data.open({"name": "cats-dogs-64", "size": [4, 3], "crop": "centre"}, folder=tmp_path / "two")
    assert sized.spec.shape == (3, 4, 3)
    monkeypatch.setattr(unpack, "unpacked", lambda path: pytest.fail("unpacked to see whether it is there"))
    assert set(named.locate("cats-dogs-64", tmp_path / "two").parts) == {"train", "test"}
    with pytest.raises(DataError) as caught:
        data.open("cats-dogs-64", folder=tmp_path)
    for part in ("looked in", "cats-dogs-64.tar.xz", "train/cats", "kaggle.com/c/dogs-vs-cats", "--data FOLDER"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r'has no key "sise"\. Did you mean "size"'):
        data.open({"name": "cats-dogs-64", "sise": 3}, folder=tmp_path / "two")


def test_the_real_cats_and_dogs(cache, real_data) -> None:
    if not (real_data / "cats-dogs-64").is_dir():
        pytest.skip("no cats-dogs-64 in the data folder")
    found = data.open("cats-dogs-64", folder=real_data, validation=20, task="binary")
    assert found.spec == types.DataSpec((3, 64, 64), ("cats", "dogs"), "binary", types.Preprocessing(1 / 255))
    assert len(found.validation) == 20
    sizes = [len(found.train) + 20, len(found.test)]
    assert sizes in ([200, 100], [21_000, 3_980])
    if sizes[0] == 200:
        names = sorted((real_data / "cats-dogs-64" / "test").rglob("*.jpg"), key=lambda p: p.parts)
        with Image.open(names[70]) as picture:
            assert np.array_equal(found.test.raw[70].numpy(), np.asarray(picture.convert("RGB")).transpose(2, 0, 1))


# --- pictures to predict on ------------------------------------------------------------------------------------------


def test_loose_pictures(cache, tmp_path) -> None:
    arrays = {f"{i}.png": noise() for i in range(3)} | {"deeper/a.png": noise()}
    root = write(tmp_path / "new", arrays)
    spec = types.DataSpec((3, 6, 5), ("a", "b"), preprocessing=types.Preprocessing(1 / 255))
    found = data.inputs(root, spec)
    assert found.names == ("0.png", "1.png", "2.png", "deeper/a.png")
    assert np.array_equal(found.raw.numpy(), first([arrays[name] for name in found.names]))
    assert not found.labelled.any()
    assert torch.equal(found.fetch(torch.tensor([2])).inputs[0], found.raw[2] * torch.tensor(1 / 255))
    archive = zipped(tmp_path / "new.zip", [(name, png(array)) for name, array in arrays.items()])
    assert data.inputs(archive, spec).fingerprint() == found.fingerprint()
    one = data.inputs("1.png", spec, folder=root)
    assert one.names == ("1.png",)
    assert np.array_equal(one.raw[0].numpy(), found.raw[1].numpy())
    grey = data.inputs(root, types.DataSpec((1, 6, 5), ("a", "b"), preprocessing=spec.preprocessing))
    assert grey.spec.shape == grey.raw.shape[1:] == (1, 6, 5)
    twice = write(tmp_path / "twice", {"1.png": arrays["0.png"], "2.png": arrays["0.png"]})
    assert len(data.inputs(twice, spec)) == 2


def test_loose_pictures_of_another_size(cache, tmp_path) -> None:
    root = write(tmp_path / "new", {"a.png": noise(9, 8), "b.png": noise(9, 8)})
    spec = types.DataSpec((3, 6, 5), ("a", "b"), preprocessing=types.Preprocessing(1 / 255))
    with pytest.raises(DataError, match=r"found pictures of 9 x 8 pixels, wanted 6 x 5 .*size = \[6, 5\]"):
        data.inputs(root, spec)
    table = {"name": str(root), "size": [6, 5], "interpolation": "area"}
    wanted = pixels.decode((root / "a.png").read_bytes(), pixels.options(table), colour=True)
    assert np.array_equal(data.inputs(table, spec).raw[0].numpy(), wanted)
    for bad, message in (
        ({"sise": 3}, 'Unknown key of pictures "sise". Did you mean "size"'),
        ({"name": str(tmp_path / "none")}, "is not there"),
    ):
        with pytest.raises(DataError, match=message):
            data.inputs({**table, **bad}, spec)
    with pytest.raises(DataError, match=r"examples of shape \(7,\), which no pictures have"):
        data.inputs(root, types.DataSpec((7,), ("a", "b"), preprocessing=spec.preprocessing))
    write(root, {"c.png": b"x"})
    with pytest.raises(DataError, match=r"1 picture of 3 cannot be read: c.png"):
        data.inputs(table, spec)
    assert data.inputs({**table, "corrupt": "skip"}, spec).names == ("a.png", "b.png")
    with pytest.raises(DataError, match="found no picture"):
        data.inputs(write(tmp_path / "empty", {"a.txt": b""}), spec)


# --- a study ---------------------------------------------------------------------------------------------------------


def test_a_study_of_photos(cache, tmp_path, monkeypatch, capsys) -> None:
    """From a folder of photos of several sizes to verdicts and to answers for new photos, by the command line."""
    from potstill.cli.entry import call

    monkeypatch.chdir(tmp_path)
    files = tree({"train": 12, "test": 6}, height=9, width=12) | {"train/cats/other.png": noise(20, 11)}
    write(tmp_path / "photos", files | {"train/dogs/bad.jpg": b"x"})
    (tmp_path / "pets.toml").write_text(
        'title = "Pets"\nseeds = 2\n[data]\ntask = "binary"\n'
        'source = { name = "photos", size = [6, 8], interpolation = "nearest", corrupt = "skip" }\n'
        '[training]\nsteps = 3\nbatch_size = 4\naugment = ["flip", { name = "shift", fraction = 0.4 }]\n'
        '[models.teacher]\nnetwork = "small_cnn"\n[models.alone]\nnetwork = "mlp:4"\n'
        '[models.student]\nnetwork = "mlp:4"\nteacher = "teacher"\n'
        "[evaluation]\nlatency = { batch = [1], threads = [1] }\n"
    )
    assert call(["check", "pets.toml"]) == 0
    told = capsys.readouterr()
    assert "examples of 3 x 6 x 8; 2 classes (cats, dogs)" in told.out
    assert "warning: photos: 1 picture left out that cannot be read: train/dogs/bad.jpg" in told.err
    assert call(["run", "pets.toml", "--workers", "1"]) == 0
    results = json.loads((tmp_path / "runs/pets/results.json").read_text())
    assert results["data"]["shape"] == [3, 6, 8]
    assert "bad.jpg" in results["data"]["notes"][0]
    assert "note: photos: 1 picture left out" in (tmp_path / "runs/pets/log.txt").read_text()
    capsys.readouterr()
    write(tmp_path / "new", {"b.png": noise(9, 12), "a.png": noise(30, 20)})
    assert call(["predict", "runs/pets/models/student/seed-0", "new"]) == 0  # made as the plan says
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row,file,class,p(cats),p(dogs)"
    assert [line.split(",")[:2] for line in lines[1:]] == [["0", "a.png"], ["1", "b.png"]]
    other = '{ name = "new", size = [6, 8], interpolation = "bilinear" }'
    assert call(["predict", "runs/pets/models/student/seed-0", other, "--out", "answers.npz"]) == 0
    with np.load("answers.npz") as found:
        assert found["files"].tolist() == ["a.png", "b.png"]
        assert [f"{p:.6g}" for p in found["probabilities"][:, 1]] != [line.split(",")[-1] for line in lines[1:]]
    source = '{ name = "photos", size = [6, 8], interpolation = "nearest", corrupt = "skip" }'
    assert call(["predict", "runs/pets/models/student/seed-0", source]) == 0  # classes: the test part, with labels
    answers = capsys.readouterr()
    assert answers.out.splitlines()[0] == "row,class,label,p(cats),p(dogs)"
    assert len(answers.out.splitlines()) == 13
    assert "bad.jpg" in answers.err
    assert call(["predict", "runs/pets/models/student/seed-0", "{ size = 3 }"]) == 2
    assert "wanted is a table with a name" in capsys.readouterr().err


def test_the_page_on_photos_tells_every_key_and_choice() -> None:
    page = (Path(__file__).parents[1] / "docs" / "photos.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert {"classes", *pixels.KEYS} == set(rows) - {"key"}
    for key, choices in pixels._CHOICES.items():
        assert all(f'"{choice}"' in rows[key] for choice in choices)
    for suffix in unpack.SUFFIXES:
        assert suffix in page or suffix in (".txz", ".tgz", ".tbz2")
