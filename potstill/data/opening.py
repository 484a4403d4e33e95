"""`open`: from a name, a path or arrays to train, validation and test sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import storage
from potstill.data import checks, named, splits, views
from potstill.data.parts import Contents, Part
from potstill.data.source import ArraySource
from potstill.data.truth import Truth
from potstill.errors import DataError, unknown
from potstill.registry import Spec
from potstill.types import DataSpec, Preprocessing, TargetScaling, Task

VALIDATION: Final = 0.1
TEST: Final = 0.2
SPLITS: Final = ("train", "validation", "test")

Arrays: TypeAlias = "tuple[Any, Any] | Mapping[str, Any]"


@dataclass(frozen=True)
class Data:
    """A data set, split. `validation` and `test` are None where there are no such rows or they were not asked for.

    `notes`: sentences on what was left out of it. `truth`: the law by which the labels were drawn, as a teacher, where
    the program knows it.
    """

    train: ArraySource
    validation: ArraySource | None
    test: ArraySource | None
    spec: DataSpec
    name: str
    notes: tuple[str, ...] = ()
    truth: Truth | None = None

    def without_test(self) -> Data:
        """The same without the test set: what training and recording receive."""
        return replace(self, test=None)

    def describe(self) -> dict[str, Any]:
        """For results.json: what the data is, and for each split its examples, those with a label (also per class), and
        the fingerprints of the examples and of their labels; of a regression the targets, and their range per split."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        scaling = self.spec.scaling
        values = (
            {}
            if self.spec.task != "regression"
            else {
                "targets": list(self.spec.targets),
                "target_scaling": None
                if scaling is None
                else {"scale": list(scaling.scale), "offset": list(scaling.offset)},
            }
        )
        return values | {
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
        labels = source.labels[source.labelled]
        told: dict[str, Any] = {"examples": len(source), "labelled": len(labels)}
        if self.spec.task == "regression":
            hidden = torch.where(source.labelled[:, None], source.labels, torch.nan)
            told["per_target"] = [_range(column) for column in labels.double().t()]
        else:
            hidden = torch.where(source.labelled, source.labels, -1)
            told["per_class"] = torch.bincount(labels, minlength=len(self.spec.classes)).tolist()
        return told | {"fingerprint": source.fingerprint(), "labels_fingerprint": storage.tensor_sha256(hidden)}


def _range(column: torch.Tensor) -> dict[str, float]:
    """Of one target's labels (n,) float64; empty without any."""
    if not len(column):
        return {}
    told = {"mean": column.mean(), "std": column.std(correction=0), "least": column.min(), "greatest": column.max()}
    return {name: float(value) for name, value in told.items()}


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
    scale_targets: bool = True,
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
    positive one. `task="regression"`: labels are finite numbers, (n,) or (n, D), and nothing is stratified. Networks
    then learn targets of mean 0 and standard deviation 1 over the labelled training rows, and answers are scaled back;
    `scale_targets=False` takes targets as they are. `folder`: the user's data folder, by default `$POTSTILL_DATA`.
    `splits`: those to build beside train; parts that are not asked for are not read, and rows that would be theirs are
    never in train. Only pictures are decoded all at once, so that what is wrong with test pictures shows before a
    training.

    `DataError`: whatever cannot be used, saying where, what was found and wanted, and what to do.
    """
    for word in splits:
        if word not in SPLITS:
            raise DataError(unknown("split", word, SPLITS))
    if task not in get_args(Task):
        raise DataError(unknown("task", str(task), get_args(Task)))
    contents = _redrawn(named.locate(source, folder, task), redraw, seed)
    part = contents.parts["train"]()
    scale = contents.scale if part.inputs.dtype == np.uint8 else 1.0
    classes, targets = _names(contents, part, task)
    spec = DataSpec(part.inputs.shape[1:], classes, task, Preprocessing(scale), targets)
    found = _Maker(contents, part, spec, views.build(augment), seed, train, labelled).data(validation, test, splits)
    return _scaled(found) if task == "regression" and scale_targets else found


def _names(contents: Contents, part: Part, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and of the targets; `DataError` where the labels are not what the task wants."""
    where = part.where_labels or part.where
    if task == "regression":
        if part.labels.ndim != 2:
            raise DataError(
                f'{where}: found classes, and task = "regression" wants measured numbers. Leave task out, or give '
                "arrays: inputs and the numbers."
            )
        if not len(part.labels):
            raise DataError(f"{where}: found no labelled example, wanted at least one.")
        return (), checks.target_names(part.labels.shape[1], contents.targets, where)
    if part.labels.ndim == 2:
        raise DataError(f'{where}: found measured numbers as labels, with task = "{task}"; say task = "regression".')
    classes = checks.class_names(part.labels, contents.classes, where)
    if task == "binary" and len(classes) != 2:
        raise DataError(f'task = "binary" needs two classes; {contents.name} has {len(classes)}: {", ".join(classes)}.')
    return classes, ()


def _scaled(data: Data) -> Data:
    """With mean and standard deviation of the labelled training rows; a target that is the same in all is shifted."""
    labels = data.train.labels[data.train.labelled].double()
    spread = labels.std(0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    spec = replace(data.spec, scaling=TargetScaling(tuple(scale.tolist()), tuple(labels.mean(0).tolist())))
    validation, test = (None if held is None else replace(held, spec=spec) for held in (data.validation, data.test))
    return replace(data, train=replace(data.train, spec=spec), validation=validation, test=test, spec=spec)


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
        if part.inputs.shape[1:] != self.spec.shape or part.inputs.dtype != self.part.inputs.dtype:
            raise DataError(
                f"{part.where}: found {name} examples of shape {part.inputs.shape[1:]} and type {part.inputs.dtype}, "
                f"wanted the training examples' {self.spec.shape} and {self.part.inputs.dtype}."
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
        strata = self._strata(source.labels.numpy())
        return source.with_labelled(self._keep(strata, self.labelled, len(source), "validation"))
