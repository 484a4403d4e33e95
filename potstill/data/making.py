"""From the parts of a data set to its sources: which rows are whose, labels, inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data import checks, splits, views
from potstill.data.declared import Made, Plain
from potstill.data.opened import Data
from potstill.data.parts import Contents, Part, joint_digests, row_digests
from potstill.data.source import ArraySource, Input
from potstill.data.truth import Truth
from potstill.errors import DataError
from potstill.types import DataSpec

VALIDATION: Final = 0.1
TEST: Final = 0.2


@dataclass(frozen=True)
class Maker:
    """Builds the sources of one data set."""

    contents: Contents
    part: Part
    specs: Mapping[str, DataSpec]
    made: Mapping[str, Plain]
    augment: views.Augmentation
    seed: int
    train: int | None
    labelled: int | None

    @property
    def spec(self) -> DataSpec:
        """Of the first input."""
        return next(iter(self.specs.values()))

    def data(self, validation: float | None, test: float | None, wanted: Sequence[str]) -> Data:
        labels = self._labels(self.part)
        strata = self._strata(labels)
        left = np.arange(len(labels))
        held: dict[str, NDArray[np.int64]] = {}
        for name, asked, default in (("test", test, TEST), ("validation", validation, VALIDATION)):
            if name in self.contents.parts:
                self._only_zero(name, asked)
            else:
                count = splits.size(asked, default, len(left), name)
                chosen = splits.hold_out(strata[left], count, name)
                held[name] = left[chosen]
                left = np.delete(left, chosen)
        if self.train is not None:
            left = left[splits.kept_rows(strata[left], self.train, "train", len(left))]
        rows = np.concatenate([left, np.arange(len(labels), len(self.part.inputs))])
        train = self._source(self.part, labels, rows)
        if self.labelled is not None:
            train = train.with_labelled(self._keep(strata[left], self.labelled, len(rows), "train"))
        found: dict[str, ArraySource | None] = {}
        for name, asked in (("validation", validation), ("test", test)):
            if name not in wanted or asked == 0:
                found[name] = None
            elif name in held:
                found[name] = self._source(self.part, labels, held[name]) if len(held[name]) else None
            else:
                found[name] = self._given(name)
        validated = self._fewer(found["validation"])
        truth = self._truth()
        return Data(train, validated, found["test"], self.spec, self.contents.name, self.part.notes, truth)

    def _truth(self) -> Truth | None:
        if self.contents.truth is None:
            return None
        law = torch.from_numpy(self.contents.truth()).T
        return Truth((law[1:] - law[:1] if self.spec.task == "binary" else law).contiguous(), self.spec.classes)

    def _only_zero(self, name: str, asked: float | None) -> None:
        if asked:
            raise DataError(
                f"{name} = {asked}: {self.contents.name} has a {name} part of its own; leave {name} out to use it, "
                f"or write {name} = 0 to do without."
            )

    def _given(self, name: str) -> ArraySource:
        part = self.contents.parts[name]()
        for one in self.made.values():
            found, wanted = one.of(part), one.of(self.part)
            if found.shape[1:] != wanted.shape[1:] or found.dtype != wanted.dtype:
                raise DataError(
                    f"{part.where}: found {name} examples of shape {found.shape[1:]} and type {found.dtype}, "
                    f"wanted the training examples' {wanted.shape[1:]} and {wanted.dtype}."
                )
        where = part.where_labels or part.where
        if part.labels.shape[1:] != self.part.labels.shape[1:]:
            raise DataError(
                f"{where}: found {name} labels of shape {part.labels.shape}, wanted {len(self.spec.targets)} targets "
                f"per example, as in training: {', '.join(self.spec.targets)}."
            )
        if (part.labels.dtype.kind == "U") != (self.part.labels.dtype.kind == "U"):
            raise DataError(
                f"{where}: found {name} labels of type {part.labels.dtype}, and training labels of type "
                f"{self.part.labels.dtype}; wanted numbers in both or text in both."
            )
        return self._source(part, self._labels(part), np.arange(len(part.inputs)))

    def _labels(self, part: Part) -> NDArray[Any]:
        """(m,) int64, of a regression (m, D) float32."""
        if self.spec.task == "regression":
            return part.labels
        return checks.encode(part.labels, self.spec.classes, part.where_labels or part.where)

    def _strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """(m,): what splits keep the shares of; a regression is one stratum."""
        return np.zeros(len(labels), np.int64) if self.spec.task == "regression" else labels

    def _source(self, part: Part, labels: NDArray[Any], rows: NDArray[np.int64]) -> ArraySource:
        known = rows < len(labels)
        padded = np.zeros((len(rows), *labels.shape[1:]), labels.dtype)
        padded[known] = labels[rows[known]]
        whole = len(rows) == len(part.inputs)
        inputs = self._own if part is self.part else {name: one.make(part) for name, one in self.made.items()}
        several = {name: Input(one.raw, self.specs[name], one.large) for name, one in inputs.items()}
        first, digests = next(iter(several.values())), self._digests(part)
        source = ArraySource(
            first.raw,
            torch.from_numpy(padded),
            torch.from_numpy(known),
            first.spec,
            selection=None if whole else torch.from_numpy(rows),
            digests=None if digests is None else torch.from_numpy(digests),
            large=first.large,
            several=several if len(several) > 1 else {},
            form=self._form(part),
        )
        return source.with_augment(self.augment)

    @cached_property
    def _own(self) -> dict[str, Made]:
        """The inputs of the training part, of which validation and test examples may be rows."""
        return {name: one.make(self.part) for name, one in self.made.items()}

    def _arrays(self, part: Part) -> dict[str, NDArray[Any]]:
        """The arrays that inputs are made from, by their names in the source."""
        return {one.array: one.of(part) for one in self.made.values()}

    def _digests(self, part: Part) -> NDArray[np.uint8] | None:
        """Of each row in all arrays that inputs are made from; None where the source can tell by itself."""
        arrays = self._arrays(part)
        if part.digests is not None and len(arrays) == max(len(part.named), 1):
            return part.digests
        if "" in arrays:
            return row_digests(part.inputs) if any(spec.recipe for spec in self.specs.values()) else None
        return joint_digests(arrays)

    def _form(self, part: Part) -> tuple[Any, ...]:
        """Shape and type of all those arrays; empty where it is those of the one that the source hands out."""
        arrays = self._arrays(part)
        if tuple(self.made) == ("",):
            return ()
        form = {name: (*array.shape[1:], str(torch.from_numpy(array[:1]).dtype)) for name, array in arrays.items()}
        return form[""] if "" in form else tuple((name, *form[name]) for name in sorted(form))

    def _keep(self, labels: NDArray[np.int64], count: int, n: int, name: str) -> torch.Tensor:
        mask = torch.zeros(n, dtype=torch.bool)
        mask[torch.from_numpy(splits.kept_rows(labels, count, "labelled", name, self.seed))] = True
        return mask

    def _fewer(self, source: ArraySource | None) -> ArraySource | None:
        """The validation set with at most `labelled` labels."""
        if source is None or self.labelled is None or len(source) <= self.labelled:
            return source
        strata = self._strata(source.labels.numpy())
        return source.with_labelled(self._keep(strata, self.labelled, len(source), "validation"))
