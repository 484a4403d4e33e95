"""Decoded parts on disk, so that a data set is decoded and checked once and then memory-mapped by every process.

An entry is a folder of .npy files and a `meta.json` that is written last. Its name is a hash of the CONTENT of the
source's files (sha256), not of their path, size and time: a file replaced within the clock's tick or copied with its
old time would otherwise bring back old data in silence, and hashing MNIST's files costs 7 ms. An entry is used when
its files have the hashes that `meta.json` tells (MNIST: 25 ms); otherwise it is made again. Where the cache folder
cannot be written (read-only, full), parts are kept in memory and nothing is said.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.data.parts import Part, joint_digests, row_digests
from potstill.errors import StorageError

FORMAT = 1
_ARRAYS = ("inputs", "labels", "digests")


def cached(recipe: dict[str, Any], where: str, decode: Callable[[], Part]) -> Part:
    """The part that `decode` makes, from the cache where it is there.

    `recipe` (JSON) decides the result: what is read, how, and the sha256 of every file that is read. `where` (for
    messages) is no part of it: the same content in another place is the same entry.
    """
    folder = storage.cache_folder() / "data" / storage.fingerprint(["part", FORMAT, recipe])[:32]
    part = _load(folder, where)
    if part is not None:
        return part
    part = decode()
    part = replace(part, digests=joint_digests(part.named) if part.named else row_digests(part.inputs))
    try:
        _store(folder, part)
    except StorageError:
        return part
    return _load(folder, where) or part


def arrays(recipe: dict[str, Any], make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays by name that `make` makes, from the cache where they are there; `recipe` (JSON) decides them."""
    folder = storage.cache_folder() / "data" / storage.fingerprint(["arrays", FORMAT, recipe])[:32]
    found = _checked(folder)
    if found is not None:
        return found
    arrays = make()
    try:
        _write(folder, arrays, {"names": storage.fingerprint(sorted(arrays))})
    except StorageError:
        return arrays
    return _checked(folder) or arrays


def _checked(folder: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an entry that has all that were written."""
    found = _read(folder)
    if found is None or found[1].get("names") != storage.fingerprint(sorted(found[0])):
        return None
    return found[0]


def _store(folder: Path, part: Part) -> None:
    names = list(part.named)
    arrays = {name: getattr(part, name) for name in _ARRAYS}
    arrays |= {f"inputs-{number}": part.named[name] for number, name in enumerate(names) if number}
    _write(folder, arrays, {"named": names} if names else {})


def _load(folder: Path, where: str) -> Part | None:
    found = _read(folder)
    if found is None:
        return None
    arrays, meta = found
    names = meta.get("named", [])
    try:
        inputs = [arrays["inputs"], *(arrays[f"inputs-{number}"] for number in range(1, len(names)))]
        labels, digests = (np.array(arrays[name]) for name in ("labels", "digests"))
    except (KeyError, TypeError):
        return None
    return Part(inputs[0], labels, where, digests, named=dict(zip(names, inputs, strict=False)))


def _write(folder: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    files = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with storage.writing(path) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
        files[name] = storage.sha256_file(path)
    storage.write_json(folder / "meta.json", {"format": FORMAT, "sha256": files, **meta})


def _read(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The arrays of an entry, mapped, and what its meta.json says; None where it is absent or damaged."""
    try:
        meta = storage.read_json(folder / "meta.json")
        files = meta["sha256"]
        if any(storage.sha256_file(folder / f"{name}.npy") != files[name] for name in files):
            return None
        # Mode "c" (private copy on write) gives torch a writable array without a way to change the file.
        read = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in files}
        return read, meta
    except (StorageError, OSError, ValueError, KeyError, TypeError):
        return None


def made(folder: Path, fill: Callable[[Path], None], *, whole: Callable[[Path], bool]) -> None:
    """A folder of the cache that is whole or absent: `fill` writes into a temporary one, which is renamed at the end.

    Whoever comes while another process fills waits for it, and finds it there. What is there and not `whole`, and what
    a killed process left, is removed first. `StorageError` where the cache folder cannot be written.
    """
    parent = storage.make_folder(folder.parent)
    with storage.explained(folder, "make"), (parent / f".{folder.name}.lock").open("wb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if folder.exists() and whole(folder):
            return
        for left in (folder, *parent.glob(f".{folder.name}.*.tmp")):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=parent))
        try:
            fill(temporary)
            os.chmod(temporary, 0o755)
            os.sync()  # one call for all files; fsync of each takes longer than decoding them
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        storage.sync_folder(parent)
