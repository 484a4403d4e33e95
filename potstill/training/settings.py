"""What a training needs to know besides network, data and objective; the keys of `[training]` in a plan."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from potstill.engine import Precision
from potstill.errors import SettingError, did_you_mean
from potstill.registry import Spec


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of one training. The budget is counted in optimiser steps (decision 5).

    An epoch is ceil(n / batch_size) steps for the n rows of the training source, whichever of them carry labels: with 1
    (online) n steps, with "all" (full batch) one.
    `steps` wins over `epochs`. `patience`: stop after so many epochs (0: never) without a better `monitor`:
    `"objective"` (the model's own objective on validation data), `"train_objective"`, or a metric on validation data.
    `select`: keep the weights with the best value of this metric on validation data (of a regression squared_error is
    the default), or `"last"`. `clip`: largest norm
    of the gradient, 0 for none. `views`: `"fresh"`, or a number V: epoch e uses view 1 + (e mod V).
    """

    optimizer: Spec = "adam"
    schedule: Spec = "constant"
    batch_size: int | Literal["all"] = 128
    epochs: int | None = 20
    steps: int | None = None
    patience: int | None = None
    monitor: str = "objective"
    select: str = "accuracy"
    augment: tuple[Spec, ...] = ()
    views: int | Literal["fresh"] = "fresh"
    precision: Precision = "float32"
    channels_last: bool = False
    clip: float | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        def need(right: bool, name: str, wanted: str) -> None:
            if not right:
                raise SettingError(f"{name} is {getattr(self, name)!r}; wanted is {wanted}.")

        size: Any = self.batch_size
        whole = not isinstance(size, str) and size >= 1 and size == int(size)
        need(size == "all" or whole, "batch_size", 'a whole number of at least 1, or "all"')
        need(self.epochs is None or self.epochs >= 0, "epochs", "a whole number of at least 0")
        need(self.steps is None or self.steps >= 0, "steps", "a whole number of at least 0")
        need(self.epochs is not None or self.steps is not None, "epochs", "a number, or give steps")
        need(self.patience is None or self.patience >= 0, "patience", "a whole number of at least 0, or none")
        need(
            self.views == "fresh" or (isinstance(self.views, int) and self.views >= 1), "views", '"fresh" or 1, 2, ...'
        )
        need(self.clip is None or self.clip >= 0, "clip", "a number of at least 0, or none")
        need(0 <= self.label_smoothing < 1, "label_smoothing", "a number from 0 up to, not including, 1")

    @staticmethod
    def of(base: Training | None, settings: dict[str, Any]) -> Training:
        """`base` (or the defaults) with some settings replaced; unknown ones are refused with a suggestion."""
        known = {field.name for field in dataclasses.fields(Training)}
        for word in settings:
            if word not in known:
                raise SettingError(
                    f'Unknown training setting "{word}".{did_you_mean(word, known)} Known: {", ".join(sorted(known))}.'
                )
        return dataclasses.replace(base or Training(), **settings)

    def total_steps(self, rows: int) -> int:
        """Optimiser steps of the whole training on a source of `rows` rows."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * self.steps_per_epoch(rows)

    def steps_per_epoch(self, rows: int) -> int:
        """ceil(rows / batch_size)."""
        return -(-rows // self.batch(rows))

    def batch(self, rows: int) -> int:
        """Rows of a step on a source of `rows` rows; an epoch's last may have fewer."""
        return max(rows, 1) if self.batch_size == "all" else int(self.batch_size)  # NumPy's too

    def view(self, epoch: int, *, augmented: bool) -> int:
        """The view of an epoch (from 0): 0 without augmentation, else 1 + epoch, or 1 + (epoch mod V)."""
        if not augmented:
            return 0
        return 1 + (epoch if self.views == "fresh" else epoch % self.views)

    def all_views(self, rows: int, *, augmented: bool) -> tuple[int, ...]:
        """Every view that a training on `rows` rows uses: what a recording for it must hold."""
        if not augmented:
            return (0,)
        epochs = -(-self.total_steps(rows) // max(self.steps_per_epoch(rows), 1))
        return tuple(range(1, 1 + (epochs if self.views == "fresh" else min(epochs, self.views))))
