"""Reader of idx files, the format of MNIST (yann.lecun.com/exdb/mnist, "the IDX file format"), plain or gzip.

Two zero bytes, a code for the type, the number of axes; then the length of each axis as a big-endian 32-bit number;
then the numbers, big-endian, the last axis fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_FETCH = "Fetch the file again."


def read(path: Path, *, axes: tuple[int, ...] = ()) -> NDArray[Any]:
    """The array in an idx file, in the machine's byte order.

    `axes`: the numbers of axes that are wanted (empty: any). `DataError`, naming the file, for a wrong magic number, an
    unknown type, another number of axes, and a file that is damaged, too short or too long.
    """
    content = _content(path)
    if len(content) < 4:
        raise DataError(f"{path}: found {len(content)} bytes, wanted an idx file (4 bytes and more). {_FETCH}")
    zeros, code, count = struct.unpack(">HBB", content[:4])
    magic = int.from_bytes(content[:4], "big")
    if zeros or code not in _TYPES:
        known = ", ".join(f"0x{known:02X}" for known in _TYPES)
        raise DataError(
            f"{path} is not an idx file: found the magic number {magic} (0x{magic:08X}), wanted two zero bytes, a type "
            f"({known}) and the number of axes; 2051 for MNIST's pictures, 2049 for its labels. {_FETCH}"
        )
    if count == 0 or (axes and count not in axes):
        wanted = " or ".join(map(str, axes)) or "1 or more"
        raise DataError(
            f"{path}: found an array with {count} axes (magic number {magic}), wanted {wanted}. "
            "Are the files of pictures (3 axes) and labels (1 axis) exchanged?"
        )
    start = 4 + 4 * count
    if len(content) < start:
        raise DataError(f"{path} is truncated: it ends inside its header, after {len(content)} bytes. {_FETCH}")
    shape = struct.unpack(f">{count}I", content[4:start])
    dtype = np.dtype(_TYPES[code])
    found, wanted_bytes = len(content) - start, math.prod(shape) * dtype.itemsize
    if found != wanted_bytes:
        what = "is truncated" if found < wanted_bytes else "has bytes after its end"
        raise DataError(
            f"{path} {what}: found {found} bytes of data, wanted {wanted_bytes} for the shape {shape}. {_FETCH}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))  # a copy, since what frombuffer gives is read-only


def _content(path: Path) -> bytes:
    with storage.explained(path, "read"):
        content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":  # by content, not by name: files get renamed
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged: {error}. {_FETCH}") from error
