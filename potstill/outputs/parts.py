"""Where stored answers lie: shards on disk, or an array in memory. Both are read as class logits."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cached_property
from pathlib import Path
from typing import Protocol, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from potstill import storage
from potstill.errors import OutputsError, StorageError
from potstill.outputs import soften
from potstill.outputs.manifest import Header, Manifest, Shard
from potstill.types import Kind

DTYPES = {"float32": torch.float32, "float16": torch.float16}
_CODES = {torch.float32: "F32", torch.float16: "F16", torch.int32: "I32"}  # as safetensors names them


class Part(Protocol):
    """One teacher's answers for all rows of a source. `source` is its fingerprint, None where it is not known."""

    @property
    def kind(self) -> Kind: ...
    @property
    def rows(self) -> int: ...
    @property
    def members(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def views(self) -> tuple[int, ...]: ...
    @property
    def source(self) -> str | None: ...
    @property
    def name(self) -> str:
        """For messages."""

    def fingerprint(self) -> str: ...
    def read(self, view: int, index: Tensor) -> Tensor:
        """(B,) int64 rows of a view to class logits (B, members, K) float64."""


def tensor_shapes(header: Header, rows: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Names, shapes and types of the tensors of a shard with `rows` rows."""
    dtype, kept = DTYPES[header.dtype], header.kept
    if kept is None:
        return {"answers": ((rows, header.members, header.outputs), dtype)}
    return {
        "classes": ((rows, header.members, kept), torch.int32),
        "log_probs": ((rows, header.members, kept), dtype),
        "log_rest": ((rows, header.members), dtype),
    }


def write_shard(path: Path, tensors: dict[str, Tensor]) -> tuple[int, str]:
    """Write contiguous CPU tensors as safetensors, whole or not at all; returns size in bytes and sha256 (hex).

    Bytes go from the tensors to the file and the hash: the library's `save` copies them twice on the way, which costs
    more than the rest of the writing. The format: eight bytes with the length of the header, JSON, the tensors' bytes.
    """
    entries: dict[str, dict[str, object]] = {}
    end = 0
    # Widest types first, so that every tensor is aligned to its type.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    for name, tensor in ordered:
        offsets = [end, end + tensor.nbytes]
        entries[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        end = offsets[1]
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with storage.writing(path, sync="file") as file:  # the manifest follows
        blocks: list[bytes | memoryview[int]] = [struct.pack("<Q", len(head)) + head]
        for block in blocks + [_bytes(tensor) for _, tensor in ordered]:
            digest.update(block)
            file.write(block)
    return 8 + len(head) + end, digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview[int]:
    data: memoryview[int] = tensor.reshape(-1).view(torch.uint8).numpy().data
    return data


def as_stored(answers: Tensor, header: Header) -> dict[str, Tensor]:
    """(B, members, outputs) as answered to the tensors of a shard, in the precision they are computed in."""
    if header.kept is None:
        return {"answers": answers}
    log_probs, classes, log_rest = soften.to_top_k(soften.class_logits(answers, header.kind), header.kept)
    # The log of a mass that underflows (or that is not there, k = K) must stay finite in the storage type.
    least = torch.finfo(DTYPES[header.dtype]).min
    return {"classes": classes, "log_probs": log_probs.clamp_min(least), "log_rest": log_rest.clamp_min(least)}


def as_class_logits(stored: dict[str, Tensor], header: Header) -> Tensor:
    """The tensors of a shard, or some rows of them, to class logits (B, members, K) float64."""
    if header.kept is None:
        return soften.class_logits(stored["answers"], header.kind)
    return soften.from_top_k(stored["log_probs"], stored["classes"], stored["log_rest"], number=header.number)


@final
class ShardPart:
    """Answers in a folder of shards, mapped into memory when first read, so that processes share them."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        header = manifest.header
        self.header = header
        self.kind: Kind = header.kind
        self.rows = header.rows
        self.members = header.members
        self.outputs = header.outputs
        self.classes = header.classes
        self.views = header.views
        self.source: str | None = header.source
        self.name = str(folder)
        self._opened: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._shards = {(shard.view, shard.start // header.shard_rows): shard for shard in manifest.shards}

    @cached_property
    def _fingerprint(self) -> str:
        return self.manifest.fingerprint()

    def fingerprint(self) -> str:
        """Hash of the manifest."""
        return self._fingerprint

    def check_files(self, *, hashes: bool) -> None:
        """Raises `OutputsError` naming the first shard that is missing, of another size or (`hashes`) other bytes."""
        for shard in self.manifest.shards:
            fault = shard_fault(self.folder, shard, hashes=hashes)
            if fault:
                raise OutputsError(
                    f"{self.folder / shard.file} is damaged: {fault}. Delete {self.folder} and record again.",
                    field="shards",
                )

    def read(self, view: int, index: Tensor) -> Tensor:
        """(B,) int64 to class logits (B, members, K) float64."""
        if self.rows <= self.header.shard_rows:
            rows = {name: tensor.index_select(0, index) for name, tensor in self._open(view, 0).items()}
            return as_class_logits(rows, self.header)
        shapes = tensor_shapes(self.header, index.shape[0])
        rows = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
        which = index.div(self.header.shard_rows, rounding_mode="floor")
        for number in sorted(set(which.tolist())):
            at = (which == number).nonzero()[:, 0]
            inside = index.index_select(0, at) - number * self.header.shard_rows
            for name, tensor in self._open(view, number).items():
                rows[name].index_copy_(0, at, tensor.index_select(0, inside))
        return as_class_logits(rows, self.header)

    def _open(self, view: int, number: int) -> dict[str, Tensor]:
        opened = self._opened.get((view, number))
        if opened is None:
            shard = self._shards[view, number]
            opened = self._opened[view, number] = load_shard(self.folder, shard, self.header)
        return opened


def shard_fault(folder: Path, shard: Shard, *, hashes: bool) -> str:
    """What is wrong with a shard's file; empty if nothing is."""
    path = folder / shard.file
    with storage.explained(path, "read"):
        size = path.stat().st_size if path.is_file() else None
    if size is None:
        return "it is missing"
    if size != shard.bytes:
        return f"it has {size} bytes, {shard.bytes} were recorded"
    if hashes and storage.sha256_file(path) != shard.sha256:
        return "its sha256 differs from the recorded one"
    return ""


def load_shard(folder: Path, shard: Shard, header: Header) -> dict[str, Tensor]:
    """The tensors of a shard, mapped. Raises `OutputsError` if they are not those that its header tells of."""
    path = folder / shard.file
    wanted = tensor_shapes(header, shard.rows)
    try:
        with storage.explained(path, "read"), safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, StorageError) as error:
        raise OutputsError(f"{path} is damaged: {error}. Delete {folder} and record again.", field="shards") from error
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if found != wanted:
        raise OutputsError(
            f"{path} is damaged: it holds {found}, wanted {wanted}. Delete {folder} and record again.", field="shards"
        )
    return tensors


@final
class ArrayPart:
    """Answers (rows, members, outputs) in memory, of view 0."""

    def __init__(self, answers: Tensor, *, kind: Kind, name: str) -> None:
        self._answers = answers
        self.kind: Kind = kind
        self.rows, self.members, self.outputs = answers.shape
        self.classes: tuple[str, ...] | None = None
        self.views = (0,)
        self.source: str | None = None
        self.name = name

    def fingerprint(self) -> str:
        """Hash of the numbers and their kind."""
        return storage.fingerprint({"array": storage.tensor_sha256(self._answers), "kind": self.kind})

    def read(self, view: int, index: Tensor) -> Tensor:  # noqa: ARG002 - there is one view
        """(B,) int64 to class logits (B, members, K) float64."""
        return soften.class_logits(self._answers.index_select(0, index), self.kind)
