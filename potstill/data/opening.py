"""`open`: from a name, a path or arrays to train, validation and test sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import storage
from potstill.data import checks, named, splits, views
from potstill.data.parts import Contents, Part
from potstill.data.source import ArraySource
from potstill.errors import DataError, unknown
from potstill.registry import Spec
from potstill.types import DataSpec, Preprocessing, Task

VALIDATION: Final = 0.1
TEST: Final = 0.2
SPLITS: Final = ("train", "validation", "test")

Arrays: TypeAlias = "tuple[Any, Any] | Mapping[str, Any]"


@dataclass(frozen=True)
class Data:
    """A data set, split. `validation` and `test` are None where there are no such rows or they were not asked for.

    `notes`: sentences on what was left out of it.
    """

    train: ArraySource
    validation: ArraySource | None
    test: ArraySource | None
    spec: DataSpec
    name: str
    notes: tuple[str, ...] = ()

    def without_test(self) -> Data:
        """The same without the test set: what training and recording receive."""
        return replace(self, test=None)

    def describe(self) -> dict[str, Any]:
        """For results.json: what the data is, and for each split its examples, those with a label (also per class), and
        the fingerprints of the examples and of their labels."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "task": self.spec.task,
            "classes": list(self.spec.classes),
            "shape": list(self.spec.shape),
            "preprocessing": {"scale": self.spec.preprocessing.scale, "offset": self.spec.preprocessing.offset},
            "augmentation": self.train.augmentation,
            "notes": list(self.notes),
            "splits": {name: self._split(source) for name, source in found.items() if source is not None},
        }

    def _split(self, source: ArraySource) -> dict[str, Any]:
        counts = torch.bincount(source.labels[source.labelled], minlength=len(self.spec.classes))
        return {
            "examples": len(source),
            "labelled": int(source.labelled.sum()),
            "per_class": counts.tolist(),
            "fingerprint": source.fingerprint(),
            "labels_fingerprint": storage.tensor_sha256(torch.where(source.labelled, source.labels, -1)),
        }


def open(
    source: str | Path | Arrays,
    *,
    validation: float | None = None,
    test: float | None = None,
    train: int | None = None,
    labelled: int | None = None,
    redraw: Literal["seed"] | None = None,
    augment: views.Augmentation | Spec | Sequence[Spec] = (),
    task: Task = "multiclass",
    seed: int = 0,
    folder: str | Path | None = None,
    splits: Sequence[str] = SPLITS,
) -> Data:
    """Open a data set and split it.

    `source`: a built-in name (`names()`), the path of a folder or file, a table `{"name": name or path, options}`, or
    arrays: `(inputs, labels)` or `{"train": (x, y), "test": (x, y), "unlabelled": x}` (see `arrays` for the keys of
    files and dictionaries, `tree` for folders of pictures and `pixels.Options` for their options). Inputs are rows
    (n, F) or pictures (n, H, W), (n, C, H, W) or (n, H, W, C); uint8 is kept and scaled by 1/255 (digits by 1/16),
    anything else becomes float32 and is taken as it is. Labels are whole numbers from 0, or text (classes: sorted).

    `validation`, `test`: a whole number of examples, a fraction below 1, or 0 for none; taken from the labelled
    training examples, stratified by label and the same for every `seed`. Where the data has such a part, that one is
    used, and only 0 may be given. Otherwise the default is 0.2 of them for test, then 0.1 of the rest for validation.
    `train`: this many of the labelled training examples that are left are used, stratified and the same for every
    seed; the others are left out. `labelled`: this many training examples, stratified and keyed by `seed`, keep their
    label, and at most as many validation examples; test keeps all. `redraw="seed"`: a source that the program draws
    (`softmax-linear`, `privileged`) is drawn anew for each `seed`, all its parts; otherwise there is one draw.
    `augment`: transforms of views 1, 2, ... (`views`). `task="binary"` needs exactly two classes; the second is the
    positive one. `folder`: the user's data folder, by default `$POTSTILL_DATA`. `splits`: those to build beside train;
    parts that are not asked for are not read, and rows that would be theirs are never in train. Only pictures are
    decoded all at once, so that what is wrong with test pictures shows before a training.

    `DataError`: whatever cannot be used, saying where, what was found and wanted, and what to do.
    """
    for word in splits:
        if word not in SPLITS:
            raise DataError(unknown("split", word, SPLITS))
    if task not in ("multiclass", "binary"):
        raise DataError(unknown("task", str(task), ("multiclass", "binary")))
    contents = _redrawn(named.locate(source, folder), redraw, seed)
    part = contents.parts["train"]()
    classes = checks.class_names(part.labels, contents.classes, part.where_labels or part.where)
    if task == "binary" and len(classes) != 2:
        raise DataError(f'task = "binary" needs two classes; {contents.name} has {len(classes)}: {", ".join(classes)}.')
    scale = contents.scale if part.inputs.dtype == np.uint8 else 1.0
    spec = DataSpec(part.inputs.shape[1:], classes, task, Preprocessing(scale))
    make = _Maker(contents, part, spec, views.build(augment), seed, train, labelled)
    return make.data(validation, test, splits)


def _redrawn(contents: Contents, redraw: str | None, seed: int) -> Contents:
    if redraw is None:
        return contents
    if redraw != "seed":
        raise DataError(f'redraw = {redraw!r}: wanted is "seed", examples drawn anew for every seed, or None.')
    if contents.redrawn is None:
        raise DataError(
            f'redraw = "seed": the examples of {contents.name} are given, they cannot be drawn anew. Leave redraw out, '
            f"or take a source that the program draws: {', '.join(named.drawn())}."
        )
    return contents.redrawn(seed)


@dataclass(frozen=True)
class _Maker:
    """Builds the sources of one data set."""

    contents: Contents
    part: Part
    spec: DataSpec
    augment: views.Augmentation
    seed: int
    train: int | None
    labelled: int | None

    def data(self, validation: float | None, test: float | None, wanted: Sequence[str]) -> Data:
        labels = checks.encode(self.part.labels, self.spec.classes, self.part.where_labels or self.part.where)
        left = np.arange(len(labels))
        held: dict[str, NDArray[np.int64]] = {}
        for name, asked, default in (("test", test, TEST), ("validation", validation, VALIDATION)):
            if name in self.contents.parts:
                self._only_zero(name, asked)
            else:
                count = splits.size(asked, default, len(left), name)
                chosen = splits.hold_out(labels[left], count, name)
                held[name] = left[chosen]
                left = np.delete(left, chosen)
        if self.train is not None:
            left = left[splits.kept_rows(labels[left], self.train, "train", len(left))]
        rows = np.concatenate([left, np.arange(len(labels), len(self.part.inputs))])
        train = self._source(self.part, labels, rows)
        if self.labelled is not None:
            train = train.with_labelled(self._keep(labels[left], self.labelled, len(rows), "train"))
        found: dict[str, ArraySource | None] = {}
        for name, asked in (("validation", validation), ("test", test)):
            if name not in wanted or asked == 0:
                found[name] = None
            elif name in held:
                found[name] = self._source(self.part, labels, held[name]) if len(held[name]) else None
            else:
                found[name] = self._given(name)
        validated = self._fewer(found["validation"])
        return Data(train, validated, found["test"], self.spec, self.contents.name, self.part.notes)

    def _only_zero(self, name: str, asked: float | None) -> None:
        if asked:
            raise DataError(
                f"{name} = {asked}: {self.contents.name} has a {name} part of its own; leave {name} out to use it, "
                f"or write {name} = 0 to do without."
            )

    def _given(self, name: str) -> ArraySource:
        part = self.contents.parts[name]()
        if part.inputs.shape[1:] != self.spec.shape or part.inputs.dtype != self.part.inputs.dtype:
            raise DataError(
                f"{part.where}: found {name} examples of shape {part.inputs.shape[1:]} and type {part.inputs.dtype}, "
                f"wanted the training examples' {self.spec.shape} and {self.part.inputs.dtype}."
            )
        where = part.where_labels or part.where
        if (part.labels.dtype.kind == "U") != (self.part.labels.dtype.kind == "U"):
            raise DataError(
                f"{where}: found {name} labels of type {part.labels.dtype}, and training labels of type "
                f"{self.part.labels.dtype}; wanted numbers in both or text in both."
            )
        return self._source(part, checks.encode(part.labels, self.spec.classes, where), np.arange(len(part.inputs)))

    def _source(self, part: Part, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> ArraySource:
        known = rows < len(labels)
        padded = np.zeros(len(rows), np.int64)
        padded[known] = labels[rows[known]]
        whole = len(rows) == len(part.inputs)
        source = ArraySource(
            torch.from_numpy(part.inputs),
            torch.from_numpy(padded),
            torch.from_numpy(known),
            self.spec,
            selection=None if whole else torch.from_numpy(rows),
            digests=None if part.digests is None else torch.from_numpy(part.digests),
        )
        return source.with_augment(self.augment)

    def _keep(self, labels: NDArray[np.int64], count: int, n: int, name: str) -> torch.Tensor:
        mask = torch.zeros(n, dtype=torch.bool)
        mask[torch.from_numpy(splits.kept_rows(labels, count, "labelled", name, self.seed))] = True
        return mask

    def _fewer(self, source: ArraySource | None) -> ArraySource | None:
        """The validation set with at most `labelled` labels."""
        if source is None or self.labelled is None or len(source) <= self.labelled:
            return source
        return source.with_labelled(self._keep(source.labels.numpy(), self.labelled, len(source), "validation"))
