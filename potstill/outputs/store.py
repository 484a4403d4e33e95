"""Recorded outputs, read: softened and averaged for the temperature that an objective asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn, final

import torch
from torch import LongTensor, Tensor

from potstill import storage
from potstill.errors import OutputsError
from potstill.outputs import soften
from potstill.outputs.check import narrowed
from potstill.outputs.manifest import Manifest
from potstill.outputs.parts import Part, ShardPart
from potstill.types import Kind, TeacherOutputs

TABLE_LIMIT = 256 * 2**20  # bytes of one table (rows, K) float32; beyond it a lookup softens its own rows
_CHUNK = 2**17  # numbers softened at once while a table is built: they stay in the cache
_UNTEMPERED: Final = frozenset({"logits", "values", "variance"})
_NO_FEATURES: Final[Mapping[str, Tensor]] = MappingProxyType({})


@final
class Stored:
    """A teacher's answers for every row of a source. Satisfies `Answers`; made by `record`, `open`, `from_array`.

    Softening happens here, at read time: `lookup(index, view).probs(T)` (B, K) is the mean over members of
    softmax(logits / T). The whole split is softened once per view and temperature where such a table stays under
    `TABLE_LIMIT` bytes; a lookup then copies rows.
    """

    __slots__ = ("_cached", "_known", "_parts", "_recorded", "_tables", "_views")

    def __init__(self, parts: Sequence[Part], known: Tensor | None = None) -> None:
        self._parts = tuple(parts)
        self._views = tuple(v for v in parts[0].views if all(v in part.views for part in parts))
        self._recorded = frozenset(self._views)
        self._known = torch.ones(parts[0].rows, dtype=torch.bool) if known is None else known
        self._cached = len(self) * self.number * 4 <= TABLE_LIMIT
        self._tables: dict[tuple[str, int, float], Tensor] = {}

    def __len__(self) -> int:
        return self._parts[0].rows

    @property
    def kind(self) -> Kind:
        """What the teacher answered."""
        return self._parts[0].kind

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the outputs, where a teacher knew them."""
        return next((part.classes for part in self._parts if part.classes is not None), None)

    @property
    def members(self) -> int:
        """Number of members over all teachers."""
        return sum(part.members for part in self._parts)

    @property
    def outputs(self) -> int:
        """Numbers per member and row: K, or 1 for a binary task; D, or 2 D with variances."""
        return self._parts[0].outputs

    @property
    def number(self) -> int:
        """Number of classes K, or of targets D."""
        return soften.number(self.outputs, self.kind)

    @property
    def views(self) -> tuple[int, ...]:
        """The views that were recorded (by every teacher)."""
        return self._views

    @property
    def known(self) -> Tensor:
        """(n,) bool: rows with an answer."""
        return self._known

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests of the folders behind these answers; none behind an array."""
        return tuple(part.manifest for part in self._parts if isinstance(part, ShardPart))

    @property
    def folder(self) -> Path | None:
        """The folder, where there is exactly one."""
        part = self._parts[0]
        return part.folder if len(self._parts) == 1 and isinstance(part, ShardPart) else None

    def fingerprint(self) -> str:
        """Hash of the manifest; of all manifests and the known rows where there are several, or not all are known."""
        each = [part.fingerprint() for part in self._parts]
        if len(each) == 1 and bool(self._known.all()):
            return each[0]
        return storage.fingerprint({"answers": each, "known": storage.tensor_sha256(self._known)})

    def with_known(self, mask: Tensor) -> Stored:
        """The same answers, of which only the rows in `mask` (n,) bool are known (and were known before)."""
        return Stored(self._parts, narrowed(self._known, mask))

    @staticmethod
    def combine(recordings: Sequence[Stored]) -> Stored:
        """Several teachers' recordings of one source as one ensemble: all their members count alike.

        Rows are known where all of them know. Raises `OutputsError` naming the field in which two differ: rows, kind,
        outputs, classes, source; or if they have no view in common.
        """
        if not recordings:
            raise OutputsError("No recordings were given to combine; wanted at least one.")
        parts = [part for stored in recordings for part in stored._parts]
        for name in ("rows", "kind", "outputs", "classes", "source"):
            known = [(part, getattr(part, name)) for part in parts if getattr(part, name) is not None]
            for part, value in known:
                if value != known[0][1]:
                    raise OutputsError(
                        f"Recordings of one ensemble must agree: {name} is {known[0][1]} in {known[0][0].name}, "
                        f"{value} in {part.name}. Record all teachers on the same source.",
                        field=name,
                    )
        masks = torch.stack([stored._known for stored in recordings])
        combined = Stored(parts, masks.all(dim=0))
        if not combined._views:
            listed = "; ".join(f"{part.name}: {part.views}" for part in parts)
            raise OutputsError(
                f"The recordings have no view in common ({listed}). Record the same views.", field="views"
            )
        return combined

    def lookup(self, index: LongTensor, view: int = 0) -> TeacherOutputs:
        """The answers for the rows `index` (B,) int64 of view `view`, in that order.

        Raises `OutputsError` for a view that was not recorded, or (here or when read) a row that does not exist.
        """
        if view not in self._recorded:
            raise OutputsError(
                f"View {view} was not recorded; there are the views {', '.join(map(str, self._views))}. "
                "Record it too, or train with as many views as were recorded.",
                field="views",
            )
        if self._cached:
            return _Rows(self, index, view)
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            _no_such_row(index, len(self))
        return self._soften(view, index)

    def _soften(self, view: int, index: Tensor) -> soften.Softened:
        known = self._known.index_select(0, index)
        return soften.Softened(self._read(view, index), known, kind=self.kind, outputs=self.outputs)

    def _read(self, view: int, index: Tensor) -> Tensor:
        each = [part.read(view, index) for part in self._parts]
        return each[0] if len(each) == 1 else torch.cat(each, dim=1)

    def _build(self, name: str, view: int, temperature: float) -> Tensor:
        """Soften the whole split; probabilities and their entropy together, since objectives want both."""
        self._make_room(view)
        names = ("probs", "neg_entropy") if name in ("probs", "neg_entropy") else (name,)
        step = max(1, _CHUNK // (self.members * self.number))
        chunks: dict[str, list[Tensor]] = {each: [] for each in names}
        for start in range(0, len(self), step):
            index = torch.arange(start, min(start + step, len(self)))
            rows = self._soften(view, index)
            for each in names:
                asked = getattr(rows, each)
                chunks[each].append(asked() if each in _UNTEMPERED else asked(temperature))
        for each in names:
            self._tables[each, view, temperature] = torch.cat(chunks[each])
        return self._tables[name, view, temperature]

    def _make_room(self, view: int) -> None:
        # Training walks through the views one epoch each: the tables of other views go, oldest first. Those of this
        # view stay, whatever their size: objectives may ask for several temperatures in every step.
        size = sum(table.nbytes for table in self._tables.values())
        for key in [key for key in self._tables if key[1] != view]:
            if size + len(self) * (self.number + 1) * 4 <= TABLE_LIMIT:
                break
            size -= self._tables.pop(key).nbytes


@final
class _Rows:
    """Rows of the tables of a `Stored`. This runs in every training step: no checks that torch makes anyway."""

    __slots__ = ("_index", "_stored", "_tables", "_view")

    def __init__(self, stored: Stored, index: Tensor, view: int) -> None:
        self._stored = stored
        self._tables = stored._tables
        self._index = index
        self._view = view

    @property
    def known(self) -> Tensor:
        return self._select(self._stored._known)

    def probs(self, temperature: float = 1.0) -> Tensor:
        return self._rows("probs", temperature)

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        return self._rows("log_probs", temperature)

    def neg_entropy(self, temperature: float = 1.0) -> Tensor:
        return self._rows("neg_entropy", temperature)

    def member_probs(self, temperature: float = 1.0) -> Tensor:
        stored = self._stored
        if len(stored) * stored.members * stored.number * 4 <= TABLE_LIMIT:
            return self._rows("member_probs", temperature)
        return stored._soften(self._view, self._index).member_probs(temperature)

    def logits(self) -> Tensor:
        return self._rows("logits", 1.0)

    def values(self) -> Tensor:
        return self._rows("values", 1.0)

    def variance(self) -> Tensor | None:
        soften.refuse_classes(self._stored.kind)
        none = self._stored.kind == "values" and self._stored.members == 1
        return None if none else self._rows("variance", 1.0)

    def features(self) -> Mapping[str, Tensor]:
        return _NO_FEATURES

    def _rows(self, name: str, temperature: float) -> Tensor:
        table = self._tables.get((name, self._view, temperature))
        if table is None:
            table = self._stored._build(name, self._view, temperature)
        return self._select(table)

    def _select(self, table: Tensor) -> Tensor:
        try:
            return table.index_select(0, self._index)
        except IndexError:
            _no_such_row(self._index, len(self._stored))


def _no_such_row(index: Tensor, rows: int) -> NoReturn:
    raise OutputsError(f"Asked for the rows {int(index.min())} to {int(index.max())}; recorded are 0 to {rows - 1}.")
