"""Pictures made by the tests, and trees and archives of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def noise(height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    """(H, W, C), or (H, W) of one channel: no two are equal."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return RNG.integers(0, 256, shape).astype(np.uint8)


def png(array: np.ndarray, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG", **options)
    return content.getvalue()


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def write(folder: Path, files: Mapping[str, bytes | np.ndarray]) -> Path:
    """Files by path below the folder; arrays as PNG."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else png(content))
    return folder


def tree(parts: Mapping[str, int], classes: tuple[str, ...] = ("cats", "dogs"), **shape: int) -> dict[str, np.ndarray]:
    """So many noise pictures of each class in every part ("" for a folder without parts)."""
    return {
        f"{part}/{name}/{i:03}.png".lstrip("/"): noise(**shape)
        for part, count in parts.items()
        for name in classes
        for i in range(count)
    }


def tar(path: Path, entries: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for entry, content in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path
