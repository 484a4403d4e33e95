"""From the parts of a data set to its splits: which rows are whose, and which of them carry labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data import checks, splits, views
from potstill.data.assembly import Inputs
from potstill.data.fitted import Maker
from potstill.data.opened import Data
from potstill.data.parts import Contents, Part
from potstill.data.source import ArraySource
from potstill.data.truth import Truth
from potstill.errors import DataError
from potstill.types import DataSpec

VALIDATION: Final = 0.1
TEST: Final = 0.2


@dataclass(frozen=True)
class Splitter:
    """Builds the sources of one data set. `spec`: what its inputs have in common."""

    contents: Contents
    part: Part
    spec: DataSpec
    makers: Mapping[str, Maker]
    augment: views.Augmentation
    seed: int
    train: int | None
    labelled: int | None

    def data(
        self,
        validation: float | None,
        test: float | None,
        wanted: Sequence[str],
        sets: Mapping[str, Callable[[], Part]] | None = None,
    ) -> Data:
        """The sources of the splits that are `wanted`. `sets`: the test sets by name, of which none is held out."""
        labels = self._labels(self.part)
        strata = self._strata(labels)
        left = np.arange(len(labels))
        held: dict[str, NDArray[np.int64]] = {}
        default_test = 0.0 if sets else TEST
        for name, asked, default in (("test", test, default_test), ("validation", validation, VALIDATION)):
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
        inputs = Inputs(self.makers, self.part, rows, self.spec)
        train = self._source(inputs, self.part, labels, rows)
        if self.labelled is not None:
            train = train.with_labelled(self._keep(strata[left], self.labelled, len(rows), "train"))
        found: dict[str, ArraySource | None] = {}
        for name, asked in (("validation", validation), ("test", 0 if sets else test)):
            if name not in wanted or asked == 0:
                found[name] = None
            elif name in held:
                found[name] = self._source(inputs, self.part, labels, held[name]) if len(held[name]) else None
            else:
                found[name] = self._given(inputs, name, self.contents.parts[name])
        asked_for = {name: read for name, read in (sets or {}).items() if {name, "test"} & set(wanted)}
        several = {name: self._given(inputs, name, read) for name, read in asked_for.items()}
        return Data(
            train,
            self._fewer(found["validation"]),
            next(iter(several.values()), found["test"]),
            inputs.spec,
            self.contents.name,
            (*self.part.notes, *inputs.notes),
            self._truth(),
            several,
        )

    def _truth(self) -> Truth | None:
        if self.contents.truth is None:
            return None
        law = torch.from_numpy(self.contents.truth()).T
        weight = (law[1:] - law[:1] if self.spec.task == "binary" else law).contiguous()
        return Truth(weight, self.spec.names, "values" if self.spec.task == "regression" else "logits")

    def _only_zero(self, name: str, asked: float | None) -> None:
        if asked:
            raise DataError(
                f"{name} = {asked}: {self.contents.name} has a {name} part of its own; leave {name} out to use it, "
                f"or write {name} = 0 to do without."
            )

    def _given(self, inputs: Inputs, name: str, read: Callable[[], Part]) -> ArraySource:
        part = read()
        inputs.check(part, name)
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
        return self._source(inputs, part, self._labels(part), np.arange(len(part.inputs)))

    def _labels(self, part: Part) -> NDArray[Any]:
        """(m,) int64, of a regression (m, D) float32."""
        if self.spec.task == "regression":
            return part.labels
        return checks.encode(part.labels, self.spec.classes, part.where_labels or part.where)

    def _strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """(m,): what splits keep the shares of; a regression is one stratum."""
        return np.zeros(len(labels), np.int64) if self.spec.task == "regression" else labels

    def _source(self, inputs: Inputs, part: Part, labels: NDArray[Any], rows: NDArray[np.int64]) -> ArraySource:
        known = rows < len(labels)
        padded = np.zeros((len(rows), *labels.shape[1:]), labels.dtype)
        padded[known] = labels[rows[known]]
        return inputs.source(part, padded, known, rows).with_augment(self.augment)

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
