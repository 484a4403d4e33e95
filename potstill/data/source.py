"""`ArraySource`: examples in one array, fetched by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import LongTensor, Tensor

from potstill import storage
from potstill.data import views
from potstill.data.parts import row_digests
from potstill.data.shrink import shrink
from potstill.data.sparse import Sparse
from potstill.errors import DataError, unknown
from potstill.registry import Spec
from potstill.types import Batch, DataSpec, Preprocessing, TargetScaling


@dataclass(frozen=True, eq=False)
class Input:
    """One of several inputs: `raw` (N, *shape), what a model has to know of it, and the pictures it is made from."""

    raw: Tensor | Sparse = field(repr=False)
    spec: DataSpec
    large: Tensor | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of one raw array (uint8, float32 or int32 word ids, in memory or memory-mapped), or of sparse rows.

    Satisfies `types.Source`.

    `raw` (N, *shape); `selection` (n,) int64 are this source's rows of it, in order, or None for all; `labels` (n,)
    int64, of a regression (n, D) float32, 0 where `labelled` (n,) bool is False; `digests` (N, 32) uint8 is the sha256
    of every raw row where that is known; `names` are those of the raw rows where they are files. Example i is the same
    numbers in every batch, bit for bit, in every view.

    Several inputs have names: `fetch` hands out one of them, `spec.sees`, the first until `seeing` chooses another.
    `several` holds all until then; `digests` and `form` are of all of them, also afterwards. `large` (N, C, H, W): the
    pictures that small ones in `raw` are made from, again for each view. `texts`: the raw rows in words, to be shown,
    where inputs are made from texts.
    """

    raw: Tensor | Sparse = field(repr=False)
    labels: Tensor = field(repr=False)
    labelled: Tensor = field(repr=False)
    spec: DataSpec
    selection: Tensor | None = field(default=None, repr=False)
    augment: views.Augmentation = views.PLAIN
    digests: Tensor | None = field(default=None, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    large: Tensor | None = field(default=None, repr=False)
    several: Mapping[str, Input] = field(default_factory=dict)
    form: tuple[Any, ...] = field(default=(), repr=False)
    texts: Sequence[str] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rows(self) -> Tensor:
        """(n,) int64: the rows of `raw`, in this source's order."""
        return torch.arange(len(self.raw)) if self.selection is None else self.selection

    @property
    def augmentation(self) -> str:
        """Canonical text of the transforms of views 1, 2, ...; empty without one."""
        return self._views.canonical()

    @property
    def _views(self) -> views.Augmentation:
        """Rows have no views, also where pictures beside them have some."""
        return self.augment if len(self.spec.shape) == 3 else views.PLAIN

    def fetch(self, index: LongTensor, view: int = 0) -> Batch:
        """Rows `index` (B,) int64 of this source: inputs (B, *shape) float32, `raw * scale + offset`.

        View 0 is plain; views 1, 2, ... are augmented before preprocessing, keyed by (view, index). Indices outside
        [0, n) raise `IndexError`.
        """
        inputs = self.inputs(index, view)
        return Batch(inputs, self.labels.index_select(0, index), self.labelled.index_select(0, index), index)

    def inputs(self, index: Tensor, view: int = 0) -> Tensor:
        """The inputs of `fetch` alone, for whoever has the labels already."""
        selection = self.selection
        rows = index if selection is None else selection.index_select(0, index)
        if view and self._views:
            inputs = self._augmented(rows, index, view)
        else:
            inputs = self.raw.index_select(0, rows)
        inputs = inputs.to(torch.int64 if self.spec.vocabulary else torch.float32)
        preprocessing = self.spec.preprocessing
        # index_select has made a copy of our own, so the arithmetic may be in place.
        if preprocessing.scale != 1.0:
            inputs.mul_(preprocessing.scale)
        if preprocessing.offset != 0.0:
            inputs.add_(preprocessing.offset)
        return inputs

    def _augmented(self, rows: Tensor, index: Tensor, view: int) -> Tensor:
        if self.large is None:
            return self.augment(self.raw.index_select(0, rows), index, view)
        height, width = self.spec.shape[1:]
        return shrink(self.augment(self.large.index_select(0, rows), index, view), (height, width))

    def block(self, start: int, stop: int, view: int = 0) -> Tensor:
        """The inputs of the rows start .. stop-1: those of `fetch`, but the data itself where that can be.

        Whoever gets them must not write into them.
        """
        index = torch.arange(start, min(stop, len(self)))
        preprocessing = self.spec.preprocessing
        touched = preprocessing != Preprocessing() or self.raw.dtype != torch.float32 or (view and self._views)
        if self.selection is not None or touched:
            return self.inputs(index, view)
        return self.raw[start:stop]

    def fingerprint(self) -> str:
        """sha256 (hex) over shape, dtype and the sha256 of every row's raw bytes, in order: of the examples alone.

        So the same examples in the same order have the same fingerprint, wherever they come from.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        if self.digests is not None:
            digests = self.digests if self.selection is None else self.digests.index_select(0, self.selection)
        else:
            raw = self.raw[0 : len(self)] if self.selection is None else self.raw.index_select(0, self.selection)
            digests = torch.from_numpy(row_digests(raw.numpy()))
        form = [len(self), *(self.form or (*self.raw.shape[1:], str(self.raw.dtype)))]
        return hashlib.sha256(storage.canonical(form).encode() + digests.numpy().tobytes()).hexdigest()

    def with_labelled(self, mask: Tensor) -> ArraySource:
        """The same examples with labels only where `mask` (n,) bool is True; a hidden label cannot come back.

        `DataError` where the mask has another form or wants a label that is not there.
        """
        if mask.dtype != torch.bool or mask.shape != self.labelled.shape:
            raise DataError(
                f"with_labelled: found a mask {tuple(mask.shape)} of {mask.dtype}, wanted ({len(self)},) of torch.bool."
            )
        missing = int((mask & ~self.labelled).sum())
        if missing:
            raise DataError(
                f"with_labelled: {missing} of the rows in the mask have no label (the first is row "
                f"{int((mask & ~self.labelled).int().argmax())}). Give a mask of rows where `labelled` is True."
            )
        kept = mask if self.labels.dim() == 1 else mask[:, None]
        return replace(self, labels=torch.where(kept, self.labels, 0), labelled=mask.clone())

    def with_augment(self, augment: views.Augmentation | Spec | Sequence[Spec]) -> ArraySource:
        """The same examples with other views (see `views.build`); `DataError` for rows, which have no views.

        Of several inputs those that are pictures have views, the same ones.
        """
        built = views.build(augment)
        if built and not any(len(one.spec.shape) == 3 for one in self.several.values() or (self,)):
            names = ", ".join(step["name"] for step in built.steps)
            raise DataError(
                f"augment = {names}: needs pictures (channels, height, width), found rows of shape {self.spec.shape}. "
                "Leave augment out, or give the pictures unflattened."
            )
        return replace(self, augment=built)

    def with_scaling(self, scaling: TargetScaling) -> ArraySource:
        """The same examples for networks whose answers are scaled in this way."""
        several = {name: replace(one, spec=replace(one.spec, scaling=scaling)) for name, one in self.several.items()}
        return replace(self, spec=replace(self.spec, scaling=scaling), several=several)

    def seeing(self, name: str = "") -> ArraySource:
        """The same rows with one input, by default the first, and no trace of the others; `DataError` for another name.

        Their number, order and fingerprint stay: answers for these rows are answers for those.
        """
        if not self.several and name in ("", self.spec.sees):
            return self
        if not self.several:
            has = f'the input "{self.spec.sees}" alone' if self.spec.sees else "one input, which has no name"
            raise DataError(f'Found no input "{name}": these examples have {has}.')
        name = name or self.spec.sees
        if name not in self.several:
            raise DataError(unknown("input", name, self.several))
        one = self.several[name]
        return replace(self, raw=one.raw, spec=one.spec, large=one.large, several={}, texts=())
