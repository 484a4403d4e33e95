"""A recording under way: `recording.jsonl` holds the header, then a line per finished file; the manifest replaces it.

A shard is large, so the answered rows of one are saved now and then (`partial-VIEW-START-ROWS.safetensors`).
A line is written after its file and carries its hash, so what a crash leaves is verified, or else recorded again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import final

from torch import Tensor

from potstill import storage
from potstill.errors import OutputsError
from potstill.outputs.manifest import JOURNAL, MANIFEST, Header, Manifest, Shard, parse
from potstill.outputs.parts import load_shard, shard_fault, write_shard

_LEFTOVERS = (".shard-*.tmp", ".partial-*.tmp", f".{MANIFEST}.*.tmp", f".{JOURNAL}.*.tmp")


@final
class Journal:
    """What an unfinished folder holds. One process at a time (the caller holds the folder's lock)."""

    def __init__(self, folder: Path, header: Header, entries: dict[str, Shard]) -> None:
        self.folder = folder
        self.header = header
        self._entries = entries

    @staticmethod
    def read(folder: Path) -> Journal | None:
        """The journal of a folder, None if it has none.

        Raises `OutputsError` if there are shards that no journal tells of, or the journal is damaged.
        """
        path = folder / JOURNAL
        for pattern in _LEFTOVERS:
            for leftover in folder.glob(pattern):
                leftover.unlink(missing_ok=True)
        if not path.exists():
            stray = next(folder.glob("shard-*.safetensors"), None)
            if stray is not None:
                raise OutputsError(
                    f"{folder} holds {stray.name} but neither {MANIFEST} nor {JOURNAL}, so nobody knows whose answers "
                    "they are. Choose another folder, or delete this one."
                )
            return None
        with storage.explained(path, "read"):
            first, *lines = path.read_text(encoding="utf-8").split("\n")
        header = parse(Header, _json(first), path)
        entries: dict[str, Shard] = {}
        for line in lines:
            with suppress(ValueError):  # a torn line: its file is recorded again
                shard = Shard.model_validate_json(line)
                entries[shard.file] = shard
        return Journal(folder, header, entries)

    @staticmethod
    def start(folder: Path, header: Header) -> Journal:
        """Write the header; nothing is recorded before it. A power cut may take it: then shards are refused, aloud."""
        with storage.writing(folder / JOURNAL, sync="none") as file:
            file.write((storage.canonical(header.model_dump(mode="json")) + "\n").encode())
        return Journal(folder, header, {})

    def finished(self, file: str) -> Shard | None:
        """The entry of a shard that is there, whole, with its recorded bytes."""
        shard = self._entries.get(file)
        return None if shard is None or shard_fault(self.folder, shard, hashes=True) else shard

    def write(self, file: str, tensors: dict[str, Tensor], *, view: int, start: int) -> Shard:
        """Write a file and its line; saved parts of it are dropped."""
        path = self.folder / file
        size, digest = write_shard(path, tensors)
        rows = next(iter(tensors.values())).shape[0]
        shard = Shard(file=file, view=view, start=start, rows=rows, bytes=size, sha256=digest)
        with storage.explained(self.folder / JOURNAL), (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            # No fsync: a line that a power cut takes costs a file's work again, never a wrong byte. The newline before
            # it closes a line that a crash tore.
            journal.write("\n" + shard.model_dump_json())
        self._entries[file] = shard
        for other in self._saved(view, start):
            if other.file != file:
                (self.folder / other.file).unlink(missing_ok=True)
                del self._entries[other.file]
        return shard

    def save(self, tensors: dict[str, Tensor], *, rows: int, view: int, start: int) -> None:
        """Keep the first `rows` rows of an unfinished shard."""
        part = {name: tensor[:rows] for name, tensor in tensors.items()}
        self.write(f"partial-{view}-{start}-{rows}.safetensors", part, view=view, start=start)

    def saved(self, view: int, start: int) -> tuple[dict[str, Tensor], int]:
        """What was kept of the shard that starts there, and how many rows of it; ({}, 0) if nothing was."""
        for shard in reversed(self._saved(view, start)):
            if not shard_fault(self.folder, shard, hashes=True):
                return load_shard(self.folder, shard, self.header), shard.rows
        return {}, 0

    def _saved(self, view: int, start: int) -> list[Shard]:
        found = [s for s in self._entries.values() if s.file.startswith("partial-")]
        return [s for s in found if (s.view, s.start) == (view, start)]

    def finish(self, shards: tuple[Shard, ...]) -> None:
        """Write the manifest, which makes the folder complete, and drop the journal."""
        manifest = Manifest(header=self.header, shards=shards)
        for left in self.folder.glob("partial-*.safetensors"):
            left.unlink()
        storage.write_json(self.folder / MANIFEST, manifest.model_dump(mode="json"))
        drop(self.folder)


def drop(folder: Path) -> None:
    """Remove the journal of a complete folder, also one that a crash left; a read-only folder keeps it."""
    with suppress(OSError):
        (folder / JOURNAL).unlink(missing_ok=True)


def _json(line: str) -> object:
    with suppress(ValueError):
        return json.loads(line)
    return None
