"""Archives of pictures (.tar, .tar.xz, .tar.gz, .tar.bz2, .zip), unpacked once into the cache.

An archive is somebody else's work. Only plain files and folders come out of it, below the folder that is made for it:
an entry that is a link or a device, whose path is absolute or climbs (`..`), or that comes twice, and an archive of too
many or too large files, is refused as a whole. Sizes are counted as the bytes come, not as the archive tells them.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from potstill import storage
from potstill.data import cache
from potstill.errors import DataError, StorageError

SUFFIXES: Final = (".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
_PIECE = 1 << 20
_AFTER = 64 << 20
_OPENERS: Final[dict[str, Callable[[Path], Any]]] = {"xz": lzma.LZMAFile, "gz": gzip.GzipFile, "z2": bz2.BZ2File}
_DAMAGE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to: files, bytes of one, bytes in all, and bytes in all per byte of the archive.

    The ratio counts from 64 MiB: pictures hardly shrink, and a bomb shrinks a thousandfold.
    """

    files: int = 2_000_000
    one: int = 1 << 30
    total: int = 1 << 40
    ratio: int = 100
    free_of_ratio: int = 64 << 20


def is_archive(path: Path) -> bool:
    """By the end of its name."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(path: Path, limits: Limits | None = None) -> Path:
    """The folder with an archive's files, in the cache, named by its sha256. `DataError` for a bad archive."""
    folder = storage.cache_folder() / "unpacked" / storage.sha256_file(path)[:32]
    try:
        cache.made(folder, lambda place: _unpack(path, place, limits or Limits()), whole=Path.is_dir)
    except StorageError as error:
        raise StorageError(
            f"{error} {path} is unpacked there; set $POTSTILL_CACHE to a folder with room, or unpack it yourself and "
            "give the folder."
        ) from error
    return folder


class _Files:
    """Writes the entries of the archive `path` below `place`, and counts."""

    def __init__(self, path: Path, place: Path, limits: Limits) -> None:
        self.path, self.place, self.limits = path, place, limits
        self.size = path.stat().st_size
        self.most = min(limits.total, max(limits.free_of_ratio, self.size * limits.ratio))
        self.count = self.total = 0

    def refuse(self, found: str) -> DataError:
        return DataError(
            f"{self.path}: found {found}. Wanted an archive of plain files and folders whose paths stay inside; "
            "nothing is kept of it. If you trust it, unpack it yourself and give the folder."
        )

    def target(self, name: str) -> Path:
        """Where an entry goes."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name.partition("/")[0]:
            raise self.refuse(f'an entry with the path "{name}", which leads elsewhere')
        self.count += 1
        if self.count > self.limits.files:
            raise self.refuse(f"more than {self.limits.files:,} entries")
        return self.place.joinpath(*pure.parts)

    def folder(self, name: str) -> None:
        """A folder, unless it is there."""
        self.target(name).mkdir(parents=True, exist_ok=True)

    def write(self, name: str, source: IO[bytes]) -> None:
        """One file, which must not be there yet, with the rights of any new file."""
        target = self.target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with target.open("xb") as file:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > self.limits.one:
                    raise self.refuse(f'more than {self.limits.one:,} bytes in "{name}"')
                if self.total + size > self.most:
                    raise self.refuse(
                        f"more than {self.most:,} bytes in an archive of {self.size:,}, unlike any of pictures"
                    )
                file.write(piece)
        self.total += size


def _unpack(path: Path, place: Path, limits: Limits) -> None:
    files = _Files(path, place, limits)
    reader = _zip if path.name.lower().endswith(".zip") else _tar
    try:
        for name, source in reader(path, files):
            if source is None:
                files.folder(name)
            else:
                files.write(name, source)
    except DataError:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        where = Path(str(error.filename)).relative_to(place).as_posix()
        raise files.refuse(f'the path "{where}" twice, or as a file and as a folder') from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            raise files.refuse(
                "an entry whose path is longer than this system writes, or of other characters"
            ) from error
        if error.errno in (None, errno.EINVAL):  # as bz2 says that its data are bad, and zipfile that it was led astray
            raise _damaged(path, error) from error
        raise


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a whole archive: {error}. Fetch it again.")


def _tar(path: Path, files: _Files) -> Iterator[tuple[str, IO[bytes] | None]]:
    with _OPENERS.get(path.name.lower()[-2:], Path.open)(path, mode="rb") as plain:
        bounded: Any = _Bounded(plain)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            while entry := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps every entry
                if entry.isdir():
                    yield entry.name, None
                    continue
                source = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
                if source is None:
                    raise files.refuse(f'"{entry.name}", which is no plain file (a link, a device or the like)')
                with source:
                    yield entry.name, source
            if bounded.last != bytes(tarfile.BLOCKSIZE):  # for tarfile anything that is no head is an end
                raise tarfile.ReadError("its end is missing, or the head of an entry is damaged")
        more = 0
        while piece := plain.read(_PIECE):  # to the end, where the compression keeps its check sum
            more += len(piece)
            if more > _AFTER:
                raise files.refuse(f"more than {_AFTER:,} bytes after the last entry")


class _Bounded:
    """A file that is never asked for much at once (tarfile reads a header of any size into memory); `last` was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.tell, self.seek, self.last = file, file.tell, file.seek, b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _PIECE:
            raise tarfile.ReadError(f"one of its headers claims {size:,} bytes")
        self.last = self.file.read(size)
        return self.last


def _zip(path: Path, files: _Files) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            kind = entry.external_attr >> 28  # the upper bits of the Unix mode; 0 where it was packed elsewhere
            if kind not in (0, 0o04, 0o10):
                raise files.refuse(f'"{entry.filename}", which is no plain file (a link, a device or the like)')
            if entry.flag_bits & 1:
                raise files.refuse(f'"{entry.filename}", which is encrypted')
            if entry.is_dir():
                yield entry.filename, None
                continue
            with archive.open(entry) as source:
                yield entry.filename, source
