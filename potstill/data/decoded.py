"""Pictures decoded once, in parallel, into a file of uint8 that every process maps (design, decision 2).

An entry of the cache is named by a hash of the pictures' contents, names and order, of the options, and of Pillow's
version. Chunks of pictures come back from the processes that decode them in the order in which they were sent, and one
process writes them, so that the entry does not depend on how many there were. It is a folder that is renamed when it is
whole. Files are hashed again only where their size, times or inode changed.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.data import cache, pixels, tree
from potstill.data.tree import Picture
from potstill.errors import DataError, PotstillError, StorageError

FORMAT: Final = 2
_CHUNK = 256  # pictures that a process decodes at a time,
_CHUNK_BYTES = 32 << 20  # but no more than this
_FEW = 1000  # pictures for which no processes are started
_SETTLED = 2 * 10**9  # ns after which a file's times tell a later change
_FILES = ("inputs.u8", "digests.npy", "rows.npy")

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """Pictures as `inputs` (n, C, H, W) uint8 with `digests` (n, 32); row i is the file number `rows[i]`.

    `faults`: name of each file that cannot be read, and why. `twins`: names of a picture of the training or validation
    part and of the equal one (once decoded) by which a model would be judged.
    """

    inputs: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    rows: NDArray[np.int64]
    faults: list[tuple[str, str]]
    twins: list[tuple[str, str]]


def decoded(
    root: Path,
    files: Sequence[Picture],
    chosen: pixels.Options,
    *,
    colour: bool | None = None,
    processes: int | None = None,
) -> Decoded:
    """The pictures, from the cache where they are there. `colour` None: RGB unless all are grey.

    `DataError` where there is no `size` and the pictures are of several.
    """
    chosen = replace(chosen, corrupt="skip")  # whether faults are borne is decided by who asks
    names = [f"{file.part}\0{file.label}\0{file.name}" for file in files]
    recipe = {
        "files": storage.fingerprint(list(zip(names, hashes(root, files), strict=True))),
        "options": storage.plain(chosen),
        "colour": colour,
        "pillow": version("pillow"),
    }
    folder = storage.cache_folder() / "data" / storage.fingerprint(["pictures", FORMAT, recipe])[:32]
    found = _load(folder)
    if found is not None:
        return found
    job = _Job(str(root), files, chosen, colour, processes)
    try:
        cache.made(folder, job.store, whole=lambda place: _load(place) is not None)
    except StorageError:
        return job.in_memory()
    return _load(folder) or job.in_memory()


def hashes(root: Path, files: Sequence[Picture]) -> list[str]:
    """sha256 (hex) of every file, "" of one that cannot be read; remembered with the file's size, times and inode."""
    where = storage.cache_folder() / "data" / f"files-{storage.fingerprint(str(root.resolve()))[:32]}.json"
    try:
        known: dict[str, list[Any]] = storage.read_json(where)
    except StorageError:
        known = {}
    now = time.time_ns()
    told: dict[str, list[Any]] = {}
    for file in files:
        try:
            state = file.path.stat()
            mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            before = known.get(file.name, [])
            digest = before[4] if before[:4] == mark else storage.sha256_file(file.path)
        except OSError:
            mark, digest = [0, now, now, 0], ""
        told[file.name] = [*mark, digest]
    # A file that changed within the clock's tick after it was hashed looks as before: what is so young is not kept.
    kept = {name: row for name, row in told.items() if max(row[1:3]) < now - _SETTLED}
    if kept != known:
        with suppress(StorageError):  # else they are hashed each time
            storage.write_text(where, storage.canonical(kept))
    return [str(told[file.name][4]) for file in files]


def _load(folder: Path) -> Decoded | None:
    try:
        meta = storage.read_json(folder / "meta.json")
        if any(storage.sha256_file(folder / name) != meta["sha256"][name] for name in _FILES):
            return None
        # Mode "c" (private copy on write) gives torch a writable array without a way to change the file.
        inputs = np.memmap(folder / "inputs.u8", np.uint8, mode="c", shape=tuple(meta["shape"]))
        digests, rows = (np.load(folder / name, allow_pickle=False) for name in _FILES[1:])
        faults, twins = ([(a, b) for a, b in meta[word]] for word in ("faults", "twins"))
        return Decoded(inputs, digests, rows, faults, twins)
    except (StorageError, OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: the caller makes it


@dataclass
class _Sorted:
    """Takes decoded pictures in order; notes faults and twins, and passes on what is to be kept."""

    files: Sequence[Picture]
    drop: bool
    digests: list[bytes] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    twins: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given_test = any(file.part == "test" for file in self.files)
        self.loose = all(file.part == "unlabelled" for file in self.files)
        self.judged: dict[bytes, Picture] = {}  # pictures by which a model is or may be judged
        self.number = 0

    def take(self, pictures: NDArray[np.uint8], reasons: Sequence[str]) -> Iterator[memoryview]:
        """The bytes of the pictures that are kept."""
        good = iter(pictures)
        for number, reason in enumerate(reasons, self.number):
            if reason:
                self.faults.append((self.files[number].name, reason))
                continue
            row = next(good)
            digest = hashlib.sha256(row.data).digest()
            if self._twin(self.files[number], digest) and self.drop:
                continue
            self.digests.append(digest)
            self.rows.append(number)
            yield row.reshape(-1).data
        self.number += len(reasons)

    def _twin(self, file: Picture, digest: bytes) -> bool:
        """Whether it is, once decoded, equal to a picture that a model is judged by.

        Test and validation pictures come first; within either one a picture may be there twice. Without a test part
        the test examples are drawn from the training part, where none may then be there twice.
        """
        twin = None if file.part == "test" or self.loose else self.judged.get(digest)
        if twin is not None and twin.part == file.part == "validation":
            return False
        if twin is not None:
            self.twins.append((file.name, twin.name))
        elif file.part != "unlabelled" and (file.part != "train" or not self.given_test):
            self.judged[digest] = file
        return twin is not None

    def result(self, inputs: NDArray[np.uint8]) -> Decoded:
        """With these pictures."""
        digests = np.frombuffer(bytearray(b"".join(self.digests)), np.uint8).reshape(-1, 32)
        return Decoded(inputs, digests, np.array(self.rows, np.int64), self.faults, self.twins)


@dataclass(frozen=True)
class _Job:
    """What is to be decoded."""

    where: str
    files: Sequence[Picture]
    chosen: pixels.Options
    colour: bool | None
    processes: int | None

    def store(self, place: Path) -> None:
        """Into a folder of the cache."""
        with (place / _FILES[0]).open("wb") as file:
            shape, found = self._decode(file.write)
        np.save(place / _FILES[1], found.result(np.empty(0, np.uint8)).digests)
        np.save(place / _FILES[2], np.array(found.rows, np.int64))
        sums = {name: storage.sha256_file(place / name) for name in _FILES}
        meta = {"sha256": sums, "shape": [len(found.rows), *shape], "faults": found.faults, "twins": found.twins}
        storage.write_json(place / "meta.json", meta)

    def in_memory(self) -> Decoded:
        """The same, where no cache can be written."""
        whole = io.BytesIO()
        shape, found = self._decode(whole.write)
        return found.result(np.frombuffer(whole.getbuffer(), np.uint8).reshape(-1, *shape))

    def _decode(self, write: Callable[[memoryview], Any]) -> tuple[tuple[int, int, int], _Sorted]:
        shape = self._shape()
        found = _Sorted(self.files, self.chosen.duplicates == "drop")
        size = max(1, min(_CHUNK, _CHUNK_BYTES // int(np.prod(shape))))
        for pictures, reasons in self._each(pixels.decode_many, size, self.chosen, shape=shape):
            for row in found.take(pictures, reasons):
                write(row)
        if not found.rows:
            raise self._nothing(found.faults)
        return shape, found

    def _shape(self) -> tuple[int, int, int]:
        """(C, H, W) of all pictures, from their heads."""
        sized = self.chosen.size is not None
        answers = [look for chunk in self._each(pixels.look_many, _CHUNK, sized=sized) for look in chunk]
        looks = [look for look in answers if isinstance(look, pixels.Look)]
        if not looks:
            raise self._nothing([(file.name, str(why)) for file, why in zip(self.files, answers, strict=True)])
        colour = self.colour if self.colour is not None else not all(look.grey for look in looks)
        height, width = self.chosen.size or self._one_size(looks)
        return 3 if colour else 1, height, width

    def _one_size(self, looks: Sequence[pixels.Look]) -> tuple[int, int]:
        def cut(look: pixels.Look) -> tuple[int, int]:
            side = min(look.height, look.width)
            return (side, side) if self.chosen.crop == "centre" else (look.height, look.width)

        sizes = Counter(cut(look) for look in looks)
        if len(sizes) > 1:
            told = [f"{height} x {width} ({count:,} pictures)" for (height, width), count in sizes.most_common()]
            raise DataError(
                f"{self.where}: found pictures of {len(sizes):,} sizes (height x width): {tree.listed(told)}. Wanted "
                'one size: say which, with size = [height, width] in the table of the source ({ name = "...", size = '
                "64 }), and how, with interpolation and crop."
            )
        return next(iter(sizes))

    def _nothing(self, faults: Sequence[tuple[str, str]]) -> DataError:
        told = tree.listed([f"{name} ({why})" for name, why in faults])
        return DataError(f"{self.where}: no picture can be read: {told}.")

    def _each(self, function: Callable[..., T], size: int, *args: Any, **options: Any) -> Iterator[T]:
        """`function` of chunks of files, in order, by several processes where that is worth their start."""
        from joblib import Parallel, cpu_count, delayed

        paths = [file.path.absolute() for file in self.files]
        chunks = [paths[start : start + size] for start in range(0, len(paths), size)]
        processes = min(self.processes or (1 if len(paths) < _FEW else int(cpu_count())), len(chunks))
        if processes == 1:
            yield from (function(chunk, os.getpid(), *args, **options) for chunk in chunks)
            return
        from joblib.externals.loky.process_executor import BrokenProcessPool

        pool = Parallel(n_jobs=processes, backend="loky", batch_size=1, return_as="generator")
        try:
            yield from pool(delayed(function)(chunk, os.getpid(), *args, **options) for chunk in chunks)
        except BrokenProcessPool:
            raise PotstillError(
                "A process that decoded pictures was killed. Often that is the system running out of memory: set "
                "LOKY_MAX_CPU_COUNT=1 for one process, and run again."
            ) from None
