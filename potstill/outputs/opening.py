"""Opening recorded outputs: nothing foreign, stale or damaged gets past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.errors import OutputsError
from potstill.outputs import soften
from potstill.outputs.check import as_members, must_be_teacher
from potstill.outputs.manifest import Header, compare, of_source, of_teacher, read_manifest
from potstill.outputs.parts import ShardPart
from potstill.outputs.store import Stored
from potstill.types import Source, Teacher


def open(
    folder: str | Path,
    *,
    teacher: Teacher | None = None,
    source: Source | None = None,
    check: int = 8,
    verify: bool = False,
) -> Stored:
    """Open a folder of recorded outputs.

    Every shard must be there in its recorded size; `verify=True` also hashes them all. A given teacher and source are
    compared with the manifest by fingerprint. With both, the teacher is asked again for `check` examples, spread over
    rows and views, and must answer what was recorded: logits and values within 1e-3 of the largest of them, or 2e-3 in
    float16 storage; probabilities and top-k within 2e-3 in probability. (Other hardware, and another batch size, move
    the last bits.)

    Raises `OutputsError`; its `field` names the field of the manifest that differs.
    """
    folder = Path(folder)
    part = ShardPart(folder, read_manifest(folder))
    if teacher is not None:
        must_be_teacher(teacher)
        compare(part.header, of_teacher(teacher), folder)
    if source is not None:
        source, wanted = _told(part.header, source, part.views)
        compare(part.header, wanted, folder)
    part.check_files(hashes=verify)
    if teacher is not None and source is not None and check > 0:
        rows = torch.linspace(0, part.rows - 1, min(check, part.rows), dtype=torch.float64).long()
        for number, view in enumerate(part.views[: rows.shape[0]]):
            _ask_again(part, teacher, source, view=view, index=rows[number :: len(part.views)])
    return Stored([part])


def _told(header: Header, source: Source, views: tuple[int, ...]) -> tuple[Source | None, dict[str, Any]]:
    """The source as the teacher saw it, and the header's fields that it decides.

    Where its inputs are others now, the rows are compared alone, which have the same fingerprint whoever sees what.
    """
    if header.sees not in (getattr(source, "several", ()) or (source.spec.sees,)):
        return None, {key: value for key, value in of_source(source, ()).items() if key in ("rows", "source")}
    seen: Source = source.seeing(header.sees) if header.sees else source  # type: ignore[attr-defined]
    return seen, of_source(seen, views)


def _ask_again(part: ShardPart, teacher: Teacher, source: Source, *, view: int, index: Tensor) -> None:
    header = part.header
    with torch.no_grad():
        answers = as_members(teacher(source.fetch(index, view).inputs), index.shape[0]).cpu()  # type: ignore[arg-type]
    if tuple(answers.shape[1:]) != (header.members, header.outputs):
        at, fault = 0, f"has {answers.shape[1]} x {answers.shape[2]} numbers, {header.members} x {header.outputs} there"
    else:
        asked, recorded, limit = _comparable(soften.class_logits(answers, header.kind), part.read(view, index), header)
        off = (asked - recorded).abs().flatten(1).amax(dim=1)
        wrong = ~(off <= limit)
        if not bool(wrong.any()):
            return
        at = int(wrong.nonzero()[0])
        fault = f"differs by {float(off[at]):.3g} (allowed: {limit:.3g})"
    raise OutputsError(
        f"{part.folder} does not hold what the teacher answers now, although all fingerprints agree: its answer to row "
        f"{int(index[at])} of view {view} {fault}. The teacher is random or depends on something outside it, or the "
        "data comes in another order: mend that and record again.",
        field="teacher",
    )


def _comparable(asked: Tensor, recorded: Tensor, header: Header) -> tuple[Tensor, Tensor, float]:
    """Both (B, members, K) as numbers that may differ by rounding only, and by how much."""
    if header.kept is None and header.kind != "probabilities":
        share = 2e-3 if header.dtype == "float16" else 1e-3
        return asked, recorded, share * float(recorded.abs().max())
    asked, recorded = torch.softmax(asked, dim=-1), torch.softmax(recorded, dim=-1)
    if header.kept is not None:
        kept = recorded.topk(header.kept, dim=-1).indices  # ties may be cut otherwise now: compare what was kept
        asked, recorded = asked.gather(-1, kept), recorded.gather(-1, kept)
    return asked, recorded, 2e-3
