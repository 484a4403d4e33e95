"""Views against loops in plain Python, and their keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill import seeding
from potstill.data import views
from potstill.errors import DataError


def _flip(picture: Tensor, numbers: list[float]) -> Tensor:
    out, width = picture.clone(), picture.shape[2]
    if numbers[0] < 0.5:
        for c, y, x in np.ndindex(*picture.shape):
            out[c, y, x] = picture[c, y, width - 1 - x]
    return out


def _shift(picture: Tensor, numbers: list[float], fraction: float) -> Tensor:
    out = picture.clone()
    _, height, width = picture.shape
    down, right = (
        math.floor(u * (2 * round(fraction * size) + 1)) - round(fraction * size)
        for u, size in zip(numbers, (height, width), strict=True)
    )
    for c, y, x in np.ndindex(*picture.shape):
        out[c, y, x] = picture[c, min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)]
    return out


def _crop(picture: Tensor, numbers: list[float], padding: int) -> Tensor:
    out = torch.zeros_like(picture)
    _, height, width = picture.shape
    top, left = (math.floor(u * (2 * padding + 1)) for u in numbers)
    for c, y, x in np.ndindex(*picture.shape):
        from_y, from_x = y + top - padding, x + left - padding
        if 0 <= from_y < height and 0 <= from_x < width:
            out[c, y, x] = picture[c, from_y, from_x]
    return out


def _erase(picture: Tensor, numbers: list[float], chance: float, least: float, most: float, stretch: float) -> Tensor:
    out = picture.clone()
    _, height, width = picture.shape
    if numbers[0] >= chance:
        return out
    area = (least + (most - least) * numbers[1]) * height * width
    ratio = math.exp((2 * numbers[2] - 1) * math.log(stretch))
    tall, wide = min(round(math.sqrt(area * ratio)), height), min(round(math.sqrt(area / ratio)), width)
    top, left = math.floor(numbers[3] * (height - tall + 1)), math.floor(numbers[4] * (width - wide + 1))
    lowest, highest = float(picture.min()), float(picture.max())
    grey = lowest + numbers[5] * (highest - lowest)
    for c, y, x in np.ndindex(*picture.shape):
        if top <= y < top + tall and left <= x < left + wide:
            out[c, y, x] = grey if picture.is_floating_point() else round(grey)
    return out


_ZHONG = {"chance": 0.5, "least": 0.02, "most": 0.4, "stretch": 3.3}
CASES = [
    ("flip", {}, _flip),
    ("shift", {"fraction": 0.4}, _shift),
    ("shift", {"fraction": 1.0}, _shift),
    ("shift", {"fraction": 0.0}, _shift),
    ("crop", {"padding": 2}, _crop),
    ("crop", {"padding": 9}, _crop),
    ("crop", {"padding": 0}, _crop),
    ("erase", _ZHONG, _erase),
    ("erase", {"chance": 1.0, "least": 0.1, "most": 1.0, "stretch": 1.5}, _erase),
    ("erase", {"chance": 0.0, "least": 0.1, "most": 1.0, "stretch": 1.5}, _erase),
    ("erase", {"chance": 1.0, "least": 0.0, "most": 0.0, "stretch": 2.0}, _erase),
    ("erase", {"chance": 1.0, "least": 1.0, "most": 1.0, "stretch": 1.0}, _erase),
]


@pytest.mark.parametrize(("name", "settings", "oracle"), CASES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 6, 4), (2, 1, 1)])
def test_a_transform_equals_the_loop(name, settings, oracle, dtype, shape) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(1, 256, (40, *shape), generator=generator).to(dtype)
    numbers = torch.rand(40, views.DRAWS[name], generator=generator, dtype=torch.float64)
    numbers[0], numbers[1] = 0.0, 1 - 2**-53  # the ends
    before = inputs.clone()
    found = views.TRANSFORMS[name](inputs, numbers, **settings)
    wanted = torch.stack([oracle(x, u.tolist(), **settings) for x, u in zip(inputs, numbers, strict=True)])
    assert found.dtype == dtype
    assert torch.equal(found, wanted)
    assert torch.equal(inputs, before)


def test_every_transform_has_draws_and_a_case() -> None:
    assert set(views.TRANSFORMS) == set(views.DRAWS) == {name for name, _, _ in CASES} == set(views.registry)


def test_a_shift_reaches_both_ends_and_each_place_equally_often() -> None:
    inputs = torch.arange(10).view(1, 1, 1, 10).repeat(7000, 1, 1, 1)
    numbers = torch.from_numpy(seeding.uniform(5, np.arange(7000), 2))
    first = views.shift(inputs, numbers, fraction=0.3)[:, 0, 0, 5]  # 5 - shift
    counts = torch.bincount(first, minlength=10)
    assert counts[:2].sum() == counts[9] == 0
    assert counts[2:9].min() > 1000 - 5 * 30  # 7 places, 1000 each, standard deviation 29
    assert counts[2:9].max() < 1000 + 5 * 30


def test_an_erased_rectangle_has_the_area_that_is_asked_for_and_comes_everywhere() -> None:
    inputs = torch.zeros(4000, 1, 20, 20)
    inputs[:, :, 0, 0] = 2.0  # numbers lie between 0 and 2
    found = views.erase(inputs, torch.from_numpy(seeding.uniform(6, np.arange(4000), 6)), **_ZHONG)
    changed = (found != inputs).flatten(1)
    share = changed.double().mean(1)
    assert 0.45 < (share > 0).double().mean() < 0.55
    assert 0.18 < share[share > 0].mean() < 0.24  # the middle of 0.02 and 0.4
    assert share.max() < 0.45
    assert changed.double().mean(0).min() > 0
    assert 0 <= found.min() < found.max() <= 2


def test_an_augmentation_uses_the_documented_numbers() -> None:
    inputs = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    index = torch.tensor([10, 2, 7])
    built = views.build(["flip", {"name": "crop", "padding": 1}])
    expected = []
    for x, i in zip(inputs, index.tolist(), strict=True):
        one = seeding.uniform(seeding.key("view", 0, "flip", 4), np.array([i]), 1)[0].tolist()
        two = seeding.uniform(seeding.key("view", 1, "crop", 4), np.array([i]), 2)[0].tolist()
        expected.append(_crop(_flip(x, one), two, padding=1))
    assert torch.equal(built(inputs, index, 4), torch.stack(expected))


def test_views_rows_and_positions_draw_different_numbers() -> None:
    inputs = torch.arange(64.0).view(1, 1, 8, 8).repeat(50, 1, 1, 1)
    index = torch.arange(50)
    shift = {"name": "shift", "fraction": 0.4}
    once, twice = views.build(shift), views.build([shift, shift])
    assert not torch.equal(once(inputs, index, 1), once(inputs, index, 2))
    assert len({tuple(x.flatten().tolist()) for x in once(inputs, index, 1)}) > 25
    again = once(once(inputs, index, 1), index, 1)  # what equal numbers at both positions would give
    assert not torch.equal(twice(inputs, index, 1), again)


def test_keys_come_from_signatures_and_text_is_canonical() -> None:
    assert list(views.registry) == ["crop", "erase", "flip", "shift"]
    assert list(views.registry.parameters("shift")) == ["fraction"]
    built = views.build(["flip", {"fraction": 0.4, "name": "shift"}])
    assert built.canonical() == '[{"name":"flip"},{"fraction":0.4,"name":"shift"}]'
    assert views.build(built) is built
    assert views.build([]).canonical() == ""
    assert not views.build([])
    assert views.build("flip") == views.build(["flip"]) == views.build({"name": "flip"})
    assert views.build({"name": "shift", "fraction": 1}) == views.build({"name": "shift", "fraction": 1.0})


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("flipp", 'Unknown augmentation "flipp". Did you mean "flip"'),
        (["flip", "rotate"], 'Unknown augmentation "rotate". Known: crop, erase, flip, shift'),
        ({"name": "shift", "fracton": 0.1}, 'no key "fracton". Did you mean "fraction"'),
        ("shift", 'needs the key "fraction"'),
        ({"name": "shift", "fraction": 1.5}, "found fraction = 1.5, wanted a number from 0 to 1"),
        ({"name": "shift", "fraction": -0.1}, "found fraction = -0.1"),
        ({"name": "shift", "fraction": float("nan")}, "found fraction = nan"),
        ({"name": "shift", "fraction": "much"}, "fraction of the augmentation"),
        ({"name": "crop", "padding": -1}, "found padding = -1, wanted a whole number"),
        ({"name": "crop", "padding": 1.5}, "padding of the augmentation"),
        ({"name": "erase", "chance": 1.1}, "found chance = 1.1"),
        ({"name": "erase", "least": 0.5}, "least = 0.5, most = 0.4"),
        ({"name": "erase", "stretch": 0.9}, "a stretch of 1 or more"),
        ({"fraction": 0.1}, 'needs a key "name"'),
    ],
)
def test_a_bad_augmentation_is_refused(augment, message) -> None:
    with pytest.raises(DataError) as caught:
        views.build(augment)
    assert message in str(caught.value)
