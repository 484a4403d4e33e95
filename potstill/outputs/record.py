"""Ask a teacher once (design: "A teacher is asked once")."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from potstill import storage
from potstill.engine import Engine, at_once, block
from potstill.errors import DataError, Interrupted, PotstillError, SettingError, TeacherError
from potstill.outputs import journal as journals
from potstill.outputs.check import as_members, check_classes, check_logits, check_values, must_be_teacher, name_of
from potstill.outputs.journal import Journal
from potstill.outputs.manifest import MANIFEST, Dtype, Header, Shard, compare, of_source, of_teacher, read_manifest
from potstill.outputs.opening import open as open_outputs
from potstill.outputs.parts import DTYPES, as_stored, tensor_shapes
from potstill.outputs.soften import OF_VALUES
from potstill.outputs.store import Stored
from potstill.types import Source, Teacher, seen_by

_SHARD_BYTES = 8 * 2**20
_SAVE_SECONDS = 60.0  # at most so much of a slow teacher's work is lost when the process is killed


def record(
    teacher: Teacher,
    source: Source,
    folder: str | Path,
    *,
    views: Sequence[int] = (0,),
    batch_size: int | None = None,
    shard_batches: int | None = None,
    top_k: int | None = None,
    dtype: Dtype = "float32",
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Stored:
    """Ask `teacher` for every row of `source` in every view, once, and keep every member's answers in `folder`.

    An interrupted recording is continued, and ends byte for byte as an uninterrupted one (on the same kind of CPU,
    torch version and thread count). A complete one is opened without asking the teacher. Anything else in the folder is
    refused. `batch_size`: by default 512, and fewer of large examples (`engine.at_once`). `shard_batches`: batches per
    file, by default as many as make 8 MiB. `top_k`: keep only the k largest log-probabilities at T = 1 and the log of
    the residual mass, which is spread uniformly over the other classes before tempering (exact for k >= K - 1).
    `should_stop()` is asked before every batch; `progress(done, total)` gets rows. Of several inputs the teacher gets
    the one that it sees; its answers are for the rows, whatever a student sees of them.

    Raises `OutputsError` (a foreign folder; `field` names what differs), `TeacherError` (answers of another shape or
    kind than declared, or not finite: names the row), `Interrupted` (after saving), `DataError` (no rows),
    `SettingError`, `StorageError`, `RunError` (another process records there).
    """
    folder = Path(folder)
    must_be_teacher(teacher)
    source = seen_by(teacher, source)
    batch_size = at_once(source.spec.shape) if batch_size is None else batch_size
    views = _check_settings(views, batch_size, shard_batches, top_k=top_k, dtype=dtype, source=source)
    if top_k is not None and teacher.kind in OF_VALUES:
        raise SettingError(f"top_k is for classes; this teacher answers {teacher.kind}. Leave it out.")
    wanted: dict[str, Any] = {
        **of_teacher(teacher),
        **of_source(source, views),
        "views": views,
        "dtype": dtype,
        "top_k": top_k,
        "batch_size": batch_size,
    }
    if shard_batches is not None:
        wanted["shard_batches"] = shard_batches
    if not (folder / MANIFEST).exists():
        with storage.lock(folder):
            if not (folder / MANIFEST).exists():
                _Recorder(teacher, source, folder, wanted=wanted, should_stop=should_stop, progress=progress).run()
    compare(read_manifest(folder).header, wanted, folder)
    journals.drop(folder)
    return open_outputs(folder)


def _check_settings(
    views: Sequence[int],
    batch_size: int,
    shard_batches: int | None,
    *,
    top_k: int | None,
    dtype: str,
    source: Source,
) -> tuple[int, ...]:
    views = tuple(int(view) for view in views)
    if not views or min(views) < 0 or len(set(views)) < len(views):
        raise SettingError(f"views is {views}; wanted different numbers from 0 (the plain examples) upwards.")
    for name, value in (("batch_size", batch_size), ("shard_batches", shard_batches), ("top_k", top_k)):
        if value is not None and value < 1:
            raise SettingError(f"{name} is {value}; it must be at least 1.")
    if dtype not in DTYPES:
        raise SettingError(f'dtype is "{dtype}"; it can be "float32" or "float16".')
    if len(source) == 0:
        raise DataError("There is nothing to record: the source has no rows.")
    return views


@final
class _Recorder:
    """One call of `record` that has something to ask."""

    def __init__(
        self,
        teacher: Teacher,
        source: Source,
        folder: Path,
        *,
        wanted: dict[str, Any],
        should_stop: Callable[[], bool] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.teacher = teacher
        self.source = source
        self.folder = folder
        self.wanted = wanted
        self.should_stop = should_stop
        self.progress = progress
        self.rows = torch.arange(wanted["rows"])
        self.total = wanted["rows"] * len(wanted["views"])
        self.done = 0
        self.limit = torch.finfo(torch.float32 if wanted["top_k"] is not None else DTYPES[wanted["dtype"]]).max
        self.first: Tensor | None = None  # the first answers, asked for before the header can be written
        self.checked = False

    def run(self) -> None:
        """Record what is missing; the manifest comes last."""
        journal = Journal.read(self.folder)
        if journal is not None:
            compare(journal.header, self.wanted, self.folder)
        with torch.no_grad(), Engine.pick().settings():
            if journal is None:
                journal = Journal.start(self.folder, self._header())
            shards = []
            for file, view, start, rows in journal.header.pieces():
                shard = journal.finished(file)
                if shard is None:
                    shard = self._shard(journal, file, view, start=start, rows=rows)
                else:
                    self._advance(rows)
                shards.append(shard)
            journal.finish(tuple(shards))

    def _header(self) -> Header:
        """Ask for the first batch, which tells the numbers of members and outputs."""
        view, batch = self.wanted["views"][0], self.wanted["batch_size"]
        self._stop_if_asked(view, 0)
        self.first = self._ask(view, 0, min(batch, len(self.rows)))
        _, members, outputs = self.first.shape
        fields = {"shard_batches": 0, **self.wanted, "members": members, "outputs": outputs}
        if not fields["shard_batches"]:
            row = sum(
                math.prod(shape) * dtype.itemsize
                for shape, dtype in tensor_shapes(Header(**{**fields, "shard_batches": 1}), 1).values()
            )
            fields["shard_batches"] = math.ceil(_SHARD_BYTES / (row * batch))
        return Header(**fields)

    def _shard(self, journal: Journal, file: str, view: int, *, start: int, rows: int) -> Shard:
        header = journal.header
        shapes = tensor_shapes(header, rows)
        tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
        kept, done = journal.saved(view, start)
        for name, tensor in kept.items():
            tensors[name][:done] = tensor
        self._advance(done)
        saved, clock = done, time.monotonic()
        try:
            while done < rows:
                if self.first is None:
                    self._stop_if_asked(view, start + done)
                size = min(header.batch_size, rows - done)
                answers = self._answers(header, view, start + done, size=size)
                for name, stored in as_stored(answers, header).items():
                    tensors[name][done : done + size] = stored
                done += size
                self._advance(size)
                if time.monotonic() - clock > _SAVE_SECONDS:
                    journal.save(tensors, rows=done, view=view, start=start)
                    saved, clock = done, time.monotonic()
        except BaseException:
            if done > saved:
                with suppress(PotstillError, OSError):  # the first error is the one to tell
                    journal.save(tensors, rows=done, view=view, start=start)
            raise
        return journal.write(file, tensors, view=view, start=start)

    def _answers(self, header: Header, view: int, start: int, *, size: int) -> Tensor:
        answers, self.first = self.first, None
        if answers is None:
            answers = self._ask(view, start, size)
        if tuple(answers.shape[1:]) != (header.members, header.outputs):
            raise TeacherError(
                f"The teacher answered {answers.shape[1]} members with {answers.shape[2]} outputs for the rows from "
                f"{start} of view {view}; before it answered {header.members} with {header.outputs}. "
                "It must answer every batch alike."
            )
        return answers

    def _ask(self, view: int, start: int, size: int) -> Tensor:
        index = self.rows[start : start + size]
        answers = as_members(self.teacher(block(self.source, start, start + size, view)), size)
        kind = self.wanted["kind"]
        check_values(answers, index, kind=kind, limit=self.limit)
        if not self.checked:
            if kind == "logits":
                check_logits(answers, name_of(self.teacher))
            check_classes(self.wanted["classes"], self.source.spec, kind=kind, outputs=answers.shape[-1])
            self.checked = True
        return answers

    def _advance(self, rows: int) -> None:
        self.done += rows
        if self.progress is not None and rows:
            self.progress(self.done, self.total)

    def _stop_if_asked(self, view: int, row: int) -> None:
        if self.should_stop is not None and self.should_stop():
            raise Interrupted(
                f"Recording into {self.folder} stopped before row {row} of view {view} ({self.done} of {self.total} "
                "rows are kept). Record again into the same folder: it continues there."
            )
