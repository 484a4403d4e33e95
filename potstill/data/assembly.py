"""The inputs of a data set, fitted on its training rows, and the sources that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import storage
from potstill.data.fitted import Made, Maker
from potstill.data.parts import Part, joint_digests, row_digests
from potstill.data.plain import Plain
from potstill.data.source import ArraySource, Input
from potstill.types import DataSpec


@final
class Inputs:
    """Every input by name ("" where the data have one without a name); what each needs comes from training rows alone.

    `spec`: what all have in common (classes, task, targets).
    """

    def __init__(self, makers: Mapping[str, Maker], part: Part, rows: NDArray[np.int64], spec: DataSpec) -> None:
        self._makers, self._part = makers, part
        self._fitted = {name: maker.fit(part, rows) for name, maker in makers.items()}
        self.specs = {
            name: replace(
                spec,
                shape=one.shape,
                preprocessing=one.preprocessing,
                sees=name,
                recipe=storage.plain(one.recipe),
                vocabulary=one.vocabulary,
            )
            for name, one in self._fitted.items()
        }
        self._own = self._make(part)

    @property
    def spec(self) -> DataSpec:
        """Of the first input."""
        return next(iter(self.specs.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found while fitting."""
        return tuple(dict.fromkeys(note for one in self._fitted.values() for note in one.notes))

    def check(self, part: Part, name: str) -> None:
        """Refuse a part `name` whose examples have another form than the training examples; `DataError`."""
        for maker in self._plain():
            maker.check(part, self._part, name)

    def source(
        self, part: Part, labels: NDArray[Any], labelled: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> ArraySource:
        """The rows (n,) of a part, with their labels (n, ...)."""
        inputs = self._own if part is self._part else self._make(part)
        several = {name: Input(one.raw, self.specs[name], one.large) for name, one in inputs.items()}
        first, digests = next(iter(several.values())), self._digests(part)
        return ArraySource(
            first.raw,
            torch.from_numpy(labels),
            torch.from_numpy(labelled),
            first.spec,
            selection=None if len(rows) == len(part.inputs) else torch.from_numpy(rows),
            digests=None if digests is None else torch.from_numpy(digests),
            large=first.large,
            several=several if len(several) > 1 else {},
            form=self._form(part),
            texts=self._texts(part),
        )

    def _texts(self, part: Part) -> Sequence[str]:
        """Of the first text column that an input is made from."""
        columns = [spec.recipe["column"] for spec in self.specs.values() if "column" in spec.recipe]
        return part.table.table.texts(columns[0]) if columns and part.table is not None else ()

    def _make(self, part: Part) -> dict[str, Made]:
        return {name: one.make(part) for name, one in self._fitted.items()}

    def _plain(self) -> list[Plain]:
        return [maker for maker in self._makers.values() if isinstance(maker, Plain)]

    def _arrays(self, part: Part) -> dict[str, NDArray[Any]]:
        """The arrays that inputs are made from, by their names in the source."""
        return {maker.array: maker.of(part) for maker in self._plain()}

    def _digests(self, part: Part) -> NDArray[np.uint8] | None:
        """Of each row in all arrays that inputs are made from, or of the cells of a table that are no targets.

        None where the source can tell by itself.
        """
        arrays = self._arrays(part)
        if part.digests is not None and (part.table or len(arrays) == max(len(part.named), 1)):
            return part.digests
        if "" in arrays:
            return row_digests(part.inputs) if any(spec.recipe for spec in self.specs.values()) else None
        return joint_digests(arrays)

    def _form(self, part: Part) -> tuple[Any, ...]:
        """Shape and type of all those arrays, or what the columns are; empty where the source can tell by itself."""
        if part.table is not None:
            return ("table", *part.table.identity)
        if tuple(self._makers) == ("",):
            return ()
        arrays = self._arrays(part)
        form = {name: (*array.shape[1:], str(torch.from_numpy(array[:1]).dtype)) for name, array in arrays.items()}
        return form[""] if "" in form else tuple((name, *form[name]) for name in sorted(form))
