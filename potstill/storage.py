"""Files that are whole or absent: write-then-rename with fsync, hashes, canonical JSON, locks (decision 8).

Nothing here, and nothing that reads what is written here, can run code: bytes, JSON, TOML and safetensors only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from potstill.errors import RunError, StorageError

if TYPE_CHECKING:
    from torch import Tensor


def explain(error: OSError, path: Path, doing: str = "write") -> StorageError:
    """An `OSError` as a `StorageError` that says what to do."""
    advice = {
        errno.ENOSPC: "The disk is full: free some space and run the same command again; what is complete is kept.",
        errno.EDQUOT: "The disk quota is used up: free some space and run the same command again.",
        errno.EROFS: "The file system is read-only: choose another folder.",
        errno.EACCES: "Permission denied: choose another folder or mend its rights.",
        errno.EPERM: "Permission denied: choose another folder or mend its rights.",
        errno.EEXIST: "It is a file, not a folder: choose another folder.",
        errno.ENOTDIR: "Part of the path is a file, not a folder: choose another folder.",
    }.get(error.errno or 0, "Check the path.")
    return StorageError(f"Cannot {doing} {path}: {error.strerror or error}. {advice}")


@contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn every `OSError` inside the block into a `StorageError` that names `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise explain(error, path, doing) from error


def make_folder(path: Path) -> Path:
    """The folder, made if it is missing, parents too."""
    with explained(path, "create the folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def writing(path: Path, *, sync: Literal["folder", "file", "none"] = "folder") -> Iterator[BinaryIO]:
    """A file to write into, whole or absent: temporary name, flush, fsync, rename, fsync of the folder.

    `sync` "file" leaves out the fsync of the folder, for a file that another one of the same folder follows; "none"
    leaves out both: the file is whole after a crash of the program, not after a power cut.
    """
    make_folder(path.parent)
    with explained(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                if sync != "none":
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if sync == "folder":
            sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with writing(path) as file:
        file.write(content)


def sync_folder(path: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log file and fsync it."""
    make_folder(path.parent)
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.write(line.rstrip("\n") + "\n")
        file.flush()
        os.fsync(file.fileno())


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities are refused.

    >>> canonical({"b": (1, 2.5), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with explained(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON (indented, sorted keys, no NaN) whole or not at all."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a `StorageError` that names it."""
    with explained(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON ({error}). Delete it and run again.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file whole or not at all; returns its sha256 (hex)."""
    import torch
    from safetensors.torch import save

    # safetensors refuses tensors that share memory (tied weights, views of one tensor); clones do not.
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = save(own, dict(metadata or {}))
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory of its own (never aliasing the mapped file)."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with explained(path, "read"):
        content = path.read_bytes()
    try:
        return {name: tensor.clone() for name, tensor in load(content).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise StorageError(f"{path} is not a whole safetensors file ({error}). Delete it and run again.") from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one run at a time; a second one is refused with the holder's process number."""
    make_folder(folder)
    path = folder / ".lock"
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise RunError(
                f"{folder} is in use by another run (process {holder}). Wait for it, or choose another folder."
            ) from error
        with explained(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """`$POTSTILL_CACHE`, else the user's cache folder."""
    base = os.environ.get("POTSTILL_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potstill"


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 (hex) over a tensor's dtype, shape and bytes."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON knows it: dataclasses and mappings to dicts, tuples to lists, paths to text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
