"""Views: augmented versions of pictures, batched and keyed (design, decision 1).

Each transform is a pure function `transform(inputs, numbers, *, settings)`: `inputs` (B, C, H, W) of the raw stored
dtype, `numbers` (B, draws) float64 in [0, 1); row i of the result depends on row i of both alone. The numbers are
counter-based, keyed by (position in the list, transform, view, row of the source), so that the same row of the same
view is the same picture in every batch and for teacher and student. A new transform is a function and a table row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from potstill import seeding, storage
from potstill.errors import DataError
from potstill.registry import Registry, Spec


def flip(inputs: Tensor, numbers: Tensor) -> Tensor:
    """Mirror left and right, where the number is below one half.

    `inputs` (B, C, H, W), `numbers` (B, 1); returns (B, C, H, W).

    >>> flip(torch.tensor([[[[1, 2, 3]]]] * 2), torch.tensor([[0.2], [0.7]])).flatten(1).tolist()
    [[3, 2, 1], [1, 2, 3]]
    """
    width = inputs.shape[-1]
    columns = torch.arange(width).expand(len(inputs), -1)
    columns = torch.where(numbers[:, :1] < 0.5, width - 1 - columns, columns)
    return inputs.gather(3, columns[:, None, None].expand(inputs.shape))


def shift(inputs: Tensor, numbers: Tensor, *, fraction: float) -> Tensor:
    """Shift down and right by whole pixels; the nearest pixel fills the hole.

    Each axis moves on its own by a number uniform in [-m, m], m = round(fraction * size) (Python's `round`: halves to
    even). `inputs` (B, C, H, W), `numbers` (B, 2) for height and width; returns (B, C, H, W). At fraction = 0 nothing
    moves; 1 is the largest, where a picture may be its own border repeated. `DataError` outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise DataError(
            f"shift: found fraction = {fraction}, wanted a number from 0 to 1 (a part of the picture's size)."
        )
    height, width = inputs.shape[-2:]
    most = torch.tensor([round(fraction * height), round(fraction * width)])
    moved = torch.floor(numbers * (2 * most + 1)).long() - most
    rows = (torch.arange(height) - moved[:, :1]).clamp_(0, height - 1)
    columns = (torch.arange(width) - moved[:, 1:]).clamp_(0, width - 1)
    return _pick(inputs, rows, columns)


def crop(inputs: Tensor, numbers: Tensor, *, padding: int) -> Tensor:
    """Cut a window of the old size at a random place out of the picture padded by `padding` zero pixels on every side.

    The usual augmentation of CIFAR with residual networks (He et al. 2015, section 4.2: 4 pixels). `inputs`
    (B, C, H, W), `numbers` (B, 2) for top and left; returns (B, C, H, W). Zero is the raw stored number, before
    preprocessing. At padding = 0 nothing changes. `DataError` for a negative padding.
    """
    if padding < 0:
        raise DataError(f"crop: found padding = {padding}, wanted a whole number of pixels, 0 or more.")
    height, width = inputs.shape[-2:]
    corner = torch.floor(numbers * (2 * padding + 1)).long()
    rows, columns = torch.arange(height) + corner[:, :1], torch.arange(width) + corner[:, 1:]
    return _pick(functional.pad(inputs, (padding,) * 4), rows, columns)


def erase(
    inputs: Tensor,
    numbers: Tensor,
    *,
    chance: float = 0.5,
    least: float = 0.02,
    most: float = 0.4,
    stretch: float = 3.3,
) -> Tensor:
    """Lay a grey rectangle over the picture, where the first number is below `chance`.

    Random erasing (Zhong, Zheng, Kang, Li and Yang 2020, algorithm 1, whose settings are the defaults; 1 / `stretch`
    is 0.3 there). Its area is a part of the picture's, uniform in [`least`, `most`]; height over width is log-uniform
    in [1 / `stretch`, `stretch`] (there uniform); both sides are rounded to pixels and cut to the picture's (there
    drawn again); its place is uniform among those inside. It is filled with one number between the picture's smallest
    and largest, whole if pixels are (there each pixel has one). `inputs` (B, C, H, W), `numbers` (B, 6) for whether,
    area, height over width, top, left, grey; returns (B, C, H, W). At chance = 0 nothing changes, at 1 every picture
    has one; with least = most = stretch = 1 it covers square pictures. `DataError` outside these ends.
    """
    if not (0.0 <= chance <= 1.0 and 0.0 <= least <= most <= 1.0 and 1.0 <= stretch < float("inf")):
        raise DataError(
            f"erase: found chance = {chance}, least = {least}, most = {most}, stretch = {stretch}; wanted are "
            "0 <= chance <= 1, 0 <= least <= most <= 1 and a stretch of 1 or more."
        )
    if not inputs.numel():
        return inputs
    height, width = inputs.shape[-2:]
    area = (least + (most - least) * numbers[:, 1]) * height * width
    ratio = stretch ** (2 * numbers[:, 2] - 1)
    tall = torch.sqrt(area * ratio).round().clamp(max=height)
    wide = torch.sqrt(area / ratio).round().clamp(max=width)
    top, left = (
        torch.floor(u * (size + 1)) for u, size in ((numbers[:, 3], height - tall), (numbers[:, 4], width - wide))
    )
    rows, columns = torch.arange(height), torch.arange(width)
    down = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    covered = (down[:, :, None] & across[:, None, :] & (numbers[:, 0] < chance)[:, None, None]).unsqueeze(1)
    lowest, highest = (edge.double() for edge in inputs.flatten(1).aminmax(dim=1))
    grey = lowest + (highest - lowest) * numbers[:, 5]
    if not inputs.is_floating_point():
        grey = grey.round()
    return torch.where(covered, grey.to(inputs.dtype)[:, None, None, None], inputs)


def _pick(inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`out[b, c, i, j] = inputs[b, c, rows[b, i], columns[b, j]]`, by one gather."""
    batch, channels, height, width = inputs.shape
    place = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).flatten(1).unsqueeze(1).expand(-1, channels, -1)
    picked = inputs.reshape(batch, channels, height * width).gather(2, place)
    return picked.view(batch, channels, rows.shape[1], columns.shape[1])


TRANSFORMS: Final[dict[str, Callable[..., Tensor]]] = {
    "crop": crop,
    "erase": erase,
    "flip": flip,
    "shift": shift,
}
DRAWS: Final[dict[str, int]] = {"crop": 2, "erase": 6, "flip": 1, "shift": 2}
registry: Final = Registry("augmentation", TRANSFORMS, DataError)


@dataclass(frozen=True)
class Augmentation:
    """Transforms in their order, each a table `{"name": ..., settings}` that `build` has checked."""

    steps: tuple[dict[str, Any], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __call__(self, inputs: Tensor, index: Tensor, view: int) -> Tensor:
        """View number `view` >= 1 of raw pictures (B, C, H, W) that are the rows `index` (B,) of their source."""
        counters = index.numpy()
        for position, step in enumerate(self.steps):
            name = step["name"]
            drawn = seeding.uniform(seeding.key("view", position, name, view), counters, DRAWS[name])
            inputs = TRANSFORMS[name](inputs, torch.from_numpy(drawn), **_settings(step))
        return inputs

    def canonical(self) -> str:
        """Text that decides the views; empty without a transform. Part of the fingerprint of recorded outputs."""
        return storage.canonical(self.steps) if self.steps else ""


def _settings(step: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in step.items() if word != "name"}


PLAIN: Final = Augmentation()


def build(augment: Augmentation | Spec | Sequence[Spec]) -> Augmentation:
    """An augmentation from names and tables, checked.

    >>> build(["flip", {"name": "shift", "fraction": 0.4}]).canonical()
    '[{"name":"flip"},{"fraction":0.4,"name":"shift"}]'

    `DataError` for an unknown name or key (with a suggestion), a missing key, or a setting out of its range.
    """
    if isinstance(augment, Augmentation):
        return augment
    many = [augment] if isinstance(augment, (str, Mapping)) else list(augment)
    steps = tuple(registry.full(spec) for spec in many)
    for step in steps:
        # A batch of no pictures makes each transform check its own settings.
        TRANSFORMS[step["name"]](torch.zeros(0, 1, 2, 2), torch.zeros(0, DRAWS[step["name"]]), **_settings(step))
    return Augmentation(steps)
