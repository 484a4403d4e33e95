"""One picture to an array of bytes: what is read, turned, laid over white, cropped and resized (Pillow decodes).

Does not import torch, so that a process which only decodes starts quickly.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError, unknown

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Formats whose readers are Pillow's own. EPS, for one, would start another program.
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_RESAMPLING: Final = {"nearest": "NEAREST", "bilinear": "BILINEAR", "area": "BOX"}
_CHOICES: Final = {
    "interpolation": tuple(_RESAMPLING),
    "crop": ("none", "centre"),
    "corrupt": ("refuse", "skip"),
    "duplicates": ("refuse", "drop"),
}
_LARGEST = 4096
_GREY: Final = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TURNS: Final = {  # EXIF 2.32, tag 274 (Orientation)
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class Options:
    """Keys of a source of pictures beside its name.

    `size` (height, width), None for pictures that are of one size already. `crop` "centre": the largest window in the
    middle that has the proportions of `size`, a square without one, is cut out before resizing; "none": the plain
    resize, which changes the proportions. `interpolation`: bilinear and area average over all pixels that a smaller
    picture's pixel covers; nearest takes the one in the middle. `corrupt` "skip" leaves out pictures that cannot be
    read. `duplicates` "drop" leaves out of the training part what is in the test or validation part too, and of the
    validation part what is in the test part.
    """

    size: tuple[int, int] | None = None
    interpolation: Literal["nearest", "bilinear", "area"] = "bilinear"
    crop: Literal["none", "centre"] = "none"
    corrupt: Literal["refuse", "skip"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"


KEYS: Final = ("size", *_CHOICES)


def options(table: Mapping[str, Any]) -> Options:
    """Options from the keys of a plan's table (others are left aside); `DataError` for a value out of its range.

    >>> options({"size": 64, "crop": "centre"}).size
    (64, 64)
    """
    given: dict[str, Any] = {key: table[key] for key in _CHOICES if key in table}
    for key, value in given.items():
        if value not in _CHOICES[key]:
            raise DataError(unknown(key, str(value), _CHOICES[key]))
    if table.get("size") is not None:
        given["size"] = _size(table["size"])
    return Options(**given)


def _size(value: Any) -> tuple[int, int]:
    pair = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _LARGEST for n in pair):
        raise DataError(f"size = {value!r}: wanted [height, width] or one number, in pixels from 1 to {_LARGEST}.")
    return pair[0], pair[1]


class Unreadable(Exception):
    """A picture that cannot be used; the text says why."""


@dataclass(frozen=True)
class Look:
    """What a picture is, from its header: size as it is shown, and whether it is grey."""

    height: int
    width: int
    grey: bool


def look(content: bytes, *, sized: bool) -> Look:
    """The header. `sized`: the size will be changed anyway, so that its turn by EXIF is not looked for."""
    with _reading(content) as picture:
        width, height = picture.size
        # Of a TIFF Pillow tells the size as it is shown.
        if not sized and picture.format != "TIFF" and _orientation(picture) >= 5:
            width, height = height, width
        return Look(height, width, _is_grey(picture))


def decode(content: bytes, chosen: Options, *, colour: bool) -> NDArray[np.uint8]:
    """A picture as (3, H, W), or (1, H, W) without `colour`, uint8. `Unreadable` says why not.

    In this order: the first frame is decoded; 16-bit grey is scaled to 8 bits (65535 becomes 255, rounded); EXIF's
    orientation is applied; what is transparent is laid over white; palette, CMYK and other modes become RGB (ITU-R
    601-2 luma where grey is wanted); crop; resize.
    """
    from PIL import Image

    with _reading(content) as picture:
        _load(picture)
        turn = _TURNS.get(_orientation(picture))
        plain = _plain(picture, "RGB" if colour else "L")
    if turn:
        plain = plain.transpose(Image.Transpose[turn])
    if chosen.crop == "centre":
        plain = _cropped(plain, chosen.size or (1, 1))
    if chosen.size is not None and plain.size != chosen.size[::-1]:
        plain = plain.resize(chosen.size[::-1], Image.Resampling[_RESAMPLING[chosen.interpolation]])
    array = np.asarray(plain, np.uint8)
    return np.ascontiguousarray(array.transpose(2, 0, 1) if colour else array[None])


@contextmanager
def _reading(content: bytes) -> Iterator[Picture]:
    """A picture, opened; whatever Pillow raises for bad bytes becomes `Unreadable`, and its warnings are not shown."""
    # Pillow knows the last two formats only when they are imported.
    from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                most = Image.MAX_IMAGE_PIXELS
                if most is not None and width * height > most:
                    raise Unreadable(f"it claims {width} x {height} pixels; at most {most / 1e6:.0f} million are read")
                yield picture
        except (Unreadable, MemoryError):
            raise
        except UnidentifiedImageError:
            nothing = f"it is none of {', '.join(FORMATS)}, or its head is damaged" if content else "it is empty"
            raise Unreadable(nothing) from None
        except Exception as error:
            raise Unreadable(str(error) or type(error).__name__) from error


def _load(picture: Picture) -> None:
    picture.load()
    if picture.mode == "F":
        raise Unreadable("its pixels are floating-point numbers; wanted 8 or 16 bits")


def _orientation(picture: Picture) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or where EXIF is damaged and the picture is not."""
    with suppress(Exception):
        told = int(picture.getexif().get(0x0112, 1))
        return told if told in _TURNS else 1
    return 1


def _is_grey(picture: Picture) -> bool:
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.int64).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GREY


def _plain(picture: Picture, mode: str) -> Picture:
    from PIL import Image

    if picture.mode.startswith("I"):
        picture = _eight_bits(picture)
    if picture.has_transparency_data or picture.mode in ("La", "RGBa"):
        whole = picture.convert("RGBA") if picture.mode != "La" else picture.convert("LA").convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    if picture.mode == "LAB":  # which Pillow turns into RGB alone
        picture = picture.convert("RGB")
    return picture.convert(mode)


def _eight_bits(picture: Picture) -> Picture:
    from PIL import Image

    numbers = np.asarray(picture).astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() > 65535):
        raise Unreadable("its pixels have more than 16 bits; wanted 8 or 16")
    return Image.fromarray(((numbers * 255 + 32767) // 65535).astype(np.uint8))


def _cropped(picture: Picture, shape: tuple[int, int]) -> Picture:
    """The largest window in the middle with the proportions of `shape` (height, width)."""
    width, height = picture.size
    new_width = min(width, max(1, height * shape[1] // shape[0]))
    new_height = min(height, max(1, width * shape[0] // shape[1]))
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return picture.crop((left, top, left + new_width, top + new_height))


def look_many(paths: Sequence[Path], parent: int, *, sized: bool) -> list[Look | str]:
    """Of every file its header, or why there is none."""
    _leave_interrupts_to(parent)
    found: list[Look | str] = []
    for path in paths:
        try:
            found.append(look(path.read_bytes(), sized=sized))
        except (Unreadable, OSError) as error:
            found.append(_reason(error))
    return found


def decode_many(
    paths: Sequence[Path], parent: int, chosen: Options, *, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures (k, *shape) and for every file why it has none, empty for a good one; the k good ones in order."""
    _leave_interrupts_to(parent)
    rows, reasons = np.empty((len(paths), *shape), np.uint8), []
    good = 0
    for path in paths:
        reason = ""
        try:
            array = decode(path.read_bytes(), chosen, colour=shape[0] == 3)
            if array.shape != shape:
                raise Unreadable(f"it is {array.shape[1]} x {array.shape[2]}, not as its head says")
            rows[good] = array
            good += 1
        except (Unreadable, OSError) as error:
            reason = _reason(error)
        reasons.append(reason)
    return rows[:good], reasons


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _leave_interrupts_to(parent: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent stops those that decode for it."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
