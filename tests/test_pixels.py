"""One picture to numbers: every mode, turn, crop and interpolation against numpy."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from photo_samples import noise, png, saved
from PIL import Image

from potstill.data import pixels
from potstill.errors import DataError

COLOUR, GREY = noise(), noise(channels=1)
ALPHA = np.resize(np.array([0, 255, 128, 1], np.uint8), (6, 5))
DEEP = np.random.default_rng(1).integers(0, 65536, (6, 5)).astype(np.uint16)
DEEP[0, :4] = [0, 65535, 128, 129]
INKS = noise(channels=4)
PALE = COLOUR // 4 + 96  # far from the ends of RGB


def decode(content: bytes, *, colour: bool = True, **table: Any) -> np.ndarray:
    return pixels.decode(content, pixels.options(table), colour=colour)


def first(array: np.ndarray) -> np.ndarray:
    """(H, W, 3) or (H, W) to three channels first."""
    return array.transpose(2, 0, 1) if array.ndim == 3 else np.repeat(array[None], 3, axis=0)


def over_white(array: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = alpha.astype(np.float64) / 255
    weight = weight[..., None] if array.ndim == 3 else weight
    return first(array * weight + 255 * (1 - weight))


def palette_picture(palette: np.ndarray, numbers: np.ndarray) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), "L").convert("L")
    out = Image.new("P", picture.size)
    out.putdata(numbers.reshape(-1).tolist())
    out.putpalette(palette.reshape(-1).tolist())
    return out


PALETTE = np.random.default_rng(2).integers(0, 256, (4, 3)).astype(np.uint8)
NUMBERS = np.resize(np.arange(4), (6, 5))
GREYS = np.repeat(np.array([[3], [90], [200], [255]], np.uint8), 3, axis=1)

MODES: list[tuple[str, bytes, np.ndarray, float, bool]] = [  # name, file, expected (3, H, W), tolerance, grey
    ("RGB", png(COLOUR), first(COLOUR), 0, False),
    ("L", png(GREY), first(GREY), 0, True),
    ("1", saved(Image.fromarray(GREY > 99), "PNG"), first(np.where(GREY > 99, 255, 0)), 0, True),
    ("P", saved(palette_picture(PALETTE, NUMBERS), "PNG"), first(PALETTE[NUMBERS]), 0, False),
    ("P grey", saved(palette_picture(GREYS, NUMBERS), "PNG"), first(GREYS[NUMBERS]), 0, True),
    (
        "P transparent",
        saved(palette_picture(PALETTE, NUMBERS), "PNG", transparency=bytes([0, 255, 128, 255])),
        over_white(PALETTE[NUMBERS], np.array([0, 255, 128, 255], np.uint8)[NUMBERS]),
        1,
        False,
    ),
    ("RGBA", png(np.dstack([COLOUR, ALPHA])), over_white(COLOUR, ALPHA), 1, False),
    ("LA", png(np.dstack([GREY, ALPHA])), over_white(GREY, ALPHA), 1, True),
    (
        "RGB with one transparent colour",
        png(COLOUR, transparency=tuple(COLOUR[0, 0].tolist())),
        over_white(COLOUR, np.where((COLOUR[0, 0] == COLOUR).all(axis=2), 0, 255)),
        0,
        False,
    ),
    ("I;16", png(DEEP), first(np.rint(DEEP / 257)), 0, True),
    ("I;16 in TIFF", saved(Image.fromarray(DEEP), "TIFF"), first(np.rint(DEEP / 257)), 0, True),
    ("I", saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), first(np.rint(DEEP / 257)), 0, True),
    (
        "CMYK",
        saved(Image.fromarray(INKS, "CMYK"), "TIFF"),
        first((255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255),
        1,
        False,
    ),
    ("LAB", saved(Image.fromarray(PALE).convert("LAB"), "TIFF"), first(PALE), 3, False),
    ("BMP", saved(Image.fromarray(COLOUR), "BMP"), first(COLOUR), 0, False),
    ("PPM", saved(Image.fromarray(COLOUR), "PPM"), first(COLOUR), 0, False),
    ("WEBP", saved(Image.fromarray(COLOUR), "WEBP", lossless=True), first(COLOUR), 0, False),
    (
        "the first of many frames",
        saved(
            palette_picture(PALETTE, NUMBERS),
            "GIF",
            save_all=True,
            append_images=[palette_picture(PALETTE, 3 - NUMBERS)],
        ),
        first(PALETTE[NUMBERS]),
        0,
        False,
    ),
]


@pytest.mark.parametrize(
    ("content", "expected", "tolerance", "grey"), [row[1:] for row in MODES], ids=[r[0] for r in MODES]
)
def test_every_mode_becomes_three_channels(content, expected, tolerance, grey) -> None:
    found = decode(content)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(np.float64)).max() <= tolerance
    assert pixels.look(content, sized=False) == pixels.Look(6, 5, grey)
    one = decode(content, colour=False)
    luma = np.tensordot([0.299, 0.587, 0.114], found.astype(np.float64), 1)
    assert one.shape == (1, 6, 5)
    assert np.abs(one[0] - luma).max() <= (1e-9 if grey else 1)


def test_a_jpeg_is_near_what_was_saved() -> None:
    ramp = np.dstack([np.add.outer(np.arange(32) * 3, np.arange(24) * 2).astype(np.uint8)] * 3)
    ramp[..., 1] //= 2
    found = decode(saved(Image.fromarray(ramp), "JPEG", quality=95))
    assert np.abs(found - first(ramp).astype(int)).max() < 12


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(turn, kind) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(COLOUR), kind, exif=exif, **options)
    expected = first(TURNS[turn](COLOUR))
    assert np.array_equal(decode(content), expected)
    seen = pixels.look(content, sized=False)
    assert (seen.height, seen.width) == expected.shape[1:]


@pytest.mark.parametrize("turn", [0, 9, 60000])
def test_an_orientation_that_is_none_turns_nothing(turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = png(COLOUR, exif=exif)
    assert pixels.look(content, sized=False) == pixels.Look(6, 5, False)
    assert np.array_equal(decode(content), first(COLOUR))


def test_damaged_exif_is_no_fault() -> None:
    content = saved(Image.fromarray(COLOUR), "PNG", exif=b"Exif\0\0MM\0*garbage")
    assert np.array_equal(decode(content), first(COLOUR))


def triangle(size: int, to: int) -> np.ndarray:
    """(to, size) weights: a triangle as wide as two new pixels where the picture shrinks, else two old ones."""
    scale = size / to
    width = max(scale, 1.0)
    centres = (np.arange(to) + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(size) + 0.5 - centres[:, None]) / width, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def overlap(size: int, to: int) -> np.ndarray:
    """(to, size) weights: how much of each old pixel a new one covers."""
    edges = np.arange(to + 1) * size / to
    low, high = np.maximum(edges[:-1, None], np.arange(size)), np.minimum(edges[1:, None], np.arange(size) + 1)
    return np.clip(high - low, 0, None) * to / size


def middle(size: int, to: int) -> np.ndarray:
    return np.eye(size)[np.floor((np.arange(to) + 0.5) * size / to).astype(int)]


@pytest.mark.parametrize(("name", "weights", "tolerance"), [("nearest", middle, 0), ("bilinear", triangle, 1.01)])
@pytest.mark.parametrize("size", [(4, 8), (15, 21), (16, 32), (5, 7), [2, 64]])
def test_resizing_equals_numpy(name, weights, tolerance, size) -> None:
    picture = noise(15, 21)  # no new pixel's middle falls between two old ones
    found = decode(png(picture), size=size, interpolation=name)
    rows, columns = weights(15, size[0]), weights(21, size[1])
    expected = np.einsum("ih,jw,hwc->cij", rows, columns, picture.astype(np.float64))
    assert found.shape == (3, *size)
    assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("size", [(4, 8), (8, 12), (2, 3), (16, 24)])
def test_area_is_the_mean_of_blocks(size) -> None:
    picture = noise(16, 24)
    found = decode(png(picture), size=size, interpolation="area")
    expected = np.einsum("ih,jw,hwc->cij", overlap(16, size[0]), overlap(24, size[1]), picture.astype(np.float64))
    assert np.abs(found - expected).max() <= 1.01


def test_interpolations_differ_and_bilinear_is_the_default() -> None:
    content = png(noise(16, 24))
    found = {name: decode(content, size=8, interpolation=name) for name in ("nearest", "bilinear", "area")}
    assert len({array.tobytes() for array in found.values()}) == 3
    assert np.array_equal(decode(content, size=8), found["bilinear"])


CROPS = [  # height, width, size, the window
    (16, 24, None, np.s_[:, 4:20]),
    (24, 15, None, np.s_[4:19, :]),
    (16, 24, (16, 16), np.s_[:, 4:20]),
    (16, 24, (4, 8), np.s_[2:14, :]),
    (16, 24, (8, 4), np.s_[:, 8:16]),
    (5, 5, None, np.s_[:, :]),
]


@pytest.mark.parametrize(("height", "width", "size", "window"), CROPS)
def test_the_crop_is_the_largest_window_in_the_middle(height, width, size, window) -> None:
    picture = noise(height, width)
    found = decode(png(picture), crop="centre", size=size, interpolation="nearest")
    assert np.array_equal(found, decode(png(picture[window]), size=size, interpolation="nearest"))


def claims(width: int, height: int) -> bytes:
    """A PNG whose head claims a size, without pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\1\0IDAT"


JPEG = saved(Image.fromarray(noise(64, 64)), "JPEG")
BAD = [
    (b"", "it is empty"),
    (b"hello", "it is none of BMP, GIF, JPEG"),
    (b"<svg/>", "it is none of"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of"),
    (JPEG[: len(JPEG) // 2], "truncated"),
    (png(COLOUR)[:-30], "truncated|broken|incomplete"),
    (claims(10_000, 10_000), "it claims 10000 x 10000 pixels; at most 89 million"),
    (claims(90_000, 90_000), "exceeds limit"),
    (claims(9, 9), "truncated|broken|incomplete|No IDAT"),
    (saved(Image.fromarray(COLOUR[..., 0].astype(np.float32)), "TIFF"), "floating-point"),
    (saved(Image.fromarray(DEEP.astype(np.int32) * 9), "TIFF"), "more than 16 bits"),
    (saved(Image.fromarray(DEEP.astype(np.int32) - 9), "TIFF"), "more than 16 bits"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_says_why(content, message) -> None:
    with pytest.raises(pixels.Unreadable, match=message) as caught:
        decode(content)
    assert str(caught.value)


def test_many_files_give_rows_and_reasons(tmp_path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "gone.png", "c.png", "d.png")]
    for path, content in zip(paths, (png(COLOUR), b"", None, png(noise(7, 5)), png(COLOUR[::-1])), strict=True):
        if content is not None:
            path.write_bytes(content)
    rows, reasons = pixels.decode_many(paths, 0, pixels.Options(), shape=(3, 6, 5))
    assert np.array_equal(rows, [first(COLOUR), first(COLOUR[::-1])])
    assert [bool(reason) for reason in reasons] == [False, True, True, True, False]
    assert "No such file" in reasons[2]
    assert "7 x 5" in reasons[3]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"size": 0}, "size = 0: wanted [height, width] or one number, in pixels from 1 to 4096"),
        ({"size": 64.0}, "size = 64.0"),
        ({"size": True}, "size = True"),
        ({"size": "64"}, "size = '64'"),
        ({"size": [64]}, "size = [64]"),
        ({"size": [64, 64, 3]}, "size = [64, 64, 3]"),
        ({"size": [64, 5000]}, "size = [64, 5000]"),
        ({"interpolation": "bilinaer"}, 'Unknown interpolation "bilinaer". Did you mean "bilinear"?'),
        ({"crop": True}, 'Unknown crop "True". Known: centre, none.'),
        ({"corrupt": "ignore"}, 'Unknown corrupt "ignore". Known: refuse, skip.'),
        ({"duplicates": "dropp"}, 'Unknown duplicates "dropp". Did you mean "drop"?'),
    ],
)
def test_bad_options_are_refused(table, message) -> None:
    with pytest.raises(DataError) as caught:
        pixels.options(table)
    assert message in str(caught.value)


def test_sizes_are_height_and_width() -> None:
    assert pixels.options({"size": [3, 4], "name": "x"}).size == (3, 4)
    assert pixels.options({"size": 5}).size == (5, 5)
    assert pixels.options({"size": None}) == pixels.Options()
