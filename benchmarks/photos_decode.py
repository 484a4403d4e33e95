"""The decoding part of `scripts/bench photos`: files into a fresh cache, and what opening them a second time takes.

Called with a task as one JSON argument, prints one JSON line. Counted: hashing the files, reading their heads,
decoding, writing the cache, starting the processes that decode. Not counted: finding the files, imports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from potstill.data import pixels, tree, unpack
from potstill.data.decoded import decoded

SIZE, CAMERA = 64, (500, 375)  # what is wanted; width and height of generated photos
NAME = "cats-dogs-64"


def write_files(folder: Path, count: int) -> Path:
    """Blotches as JPEG files of 500 x 375 in two class folders, for whoever has no photos."""
    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / "train" / ("cats", "dogs")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (75, 100, 3), np.uint8))
        coarse.resize(CAMERA, Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=90)
    return folder


def find_files(data: str) -> Path:
    """The folders of cats-dogs-64, unpacked into the user's cache where there is only the archive."""
    archive = Path(data) / NAME / f"{NAME}.tar.xz"
    return unpack.unpacked(archive) if archive.is_file() else Path(data) / NAME


def some(files: list[tree.Picture], count: int) -> list[tree.Picture]:
    """`count` of the files, evenly spaced; all where there are no more."""
    return [files[i * len(files) // count] for i in range(count)] if count < len(files) else files


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of decoding with `processes`, and of the second opening."""
    root = Path(task["root"])
    files, seconds = some(tree.pictures(root), task["files"]), []
    chosen = pixels.options({"size": SIZE, "duplicates": "drop"})
    with tempfile.TemporaryDirectory() as cache:
        os.environ["POTSTILL_CACHE"] = cache
        for _ in range(2):
            began = time.perf_counter()
            found = decoded(root, files, chosen, processes=task["processes"])
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[0], "again": seconds[1], "files": len(files), "bytes": found.inputs.nbytes}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
