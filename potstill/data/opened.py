"""A data set, split: what `open` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from potstill import storage
from potstill.data.parts import TEST
from potstill.data.source import ArraySource
from potstill.data.truth import Truth
from potstill.types import DataSpec


@dataclass(frozen=True)
class Data:
    """A data set, split. `validation` and `test` are None where there are no such rows or they were not asked for.

    Where there are several test sets, `named` holds those that were asked for, and `test` is the first of them.
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
    named: Mapping[str, ArraySource] = field(default_factory=dict)

    @property
    def tests(self) -> dict[str, ArraySource]:
        """The test sets by name; one that has no name of its own is "test"."""
        return dict(self.named) or ({} if self.test is None else {TEST: self.test})

    def split(self, name: str) -> ArraySource | None:
        """The examples of a split: "train", "validation", or a test set by its name; None where it is not there."""
        return {"train": self.train, "validation": self.validation, **self.tests}.get(name)

    def without_test(self) -> Data:
        """The same without its test sets: what training and recording receive."""
        return replace(self, test=None, named={})

    def describe(self) -> dict[str, Any]:
        """For results.json: what the data is, and for each split its examples, those with a label (also per class), and
        the fingerprints of the examples and of their labels; of a regression the targets, and their range per split."""
        found = {"train": self.train, "validation": self.validation, **self.tests}
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
        several = self.train.several
        return values | {
            "name": self.name,
            "task": self.spec.task,
            "classes": list(self.spec.classes),
            "shape": list(self.spec.shape),
            **({"inputs": {name: list(one.spec.shape) for name, one in several.items()}} if several else {}),
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
