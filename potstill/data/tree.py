"""Which pictures a folder holds: `DIR/CLASS/...`, or `DIR/{train,validation,test,unlabelled}/CLASS/...`.

Below a class, folders may be nested. Hidden files and folders, `__MACOSX`, and files that go along with pictures (text,
tables, JSON, ...) are left aside; a file of another kind is refused, because it may be a picture that was meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from potstill import storage
from potstill.errors import DataError

_KINDS: Final = "bmp gif jfif jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"
_BESIDE: Final = "csv db htm html ini json log md pdf rst toml tsv txt xml yaml yml"
SUFFIXES: Final = tuple(f".{kind}" for kind in _KINDS.split())
PART_NAMES: Final = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}
PARTS: Final = {**PART_NAMES, "testing": "test"}
ORDER: Final = ("test", "validation", "train", "unlabelled")
_LISTED = 10


@dataclass(frozen=True)
class Picture:
    """One file. `label` is its class, None in `unlabelled`; `name` its path below the folder."""

    path: Path
    part: str
    label: str | None
    name: str


def pictures(root: Path) -> list[Picture]:
    """The pictures of a folder with classes, ordered by part (`ORDER`), class and path. `DataError` for other trees."""
    root = _down(root)
    parts = _parts(root)
    found = [picture for part in ORDER if part in parts for picture in _of_part(root, parts[part], part)]
    if not any(picture.part == "train" for picture in found):
        raise DataError(f"{root}: found {', '.join(sorted(parts))} but no training part; wanted a folder train too.")
    return found


def has_pictures(root: Path) -> bool:
    """Whether there is a picture anywhere below."""
    return next(_files(root, strict=False), None) is not None


def loose(root: Path) -> list[Picture]:
    """All pictures below a folder, whatever its folders are called, or one file; none with a label."""
    files = [root] if root.is_file() else sorted(_files(root), key=lambda path: path.relative_to(root).parts)
    if not files:
        raise DataError(f"{root}: found no picture; wanted files that end in {', '.join(SUFFIXES)}.")
    return [Picture(path, "unlabelled", None, _name(path, root)) for path in files]


def listed(names: Sequence[str]) -> str:
    """The first ten, and how many others there are.

    >>> listed(["a", "b"]), listed(list("abcdefghijkl"))[-22:]
    ('a, b', 'h, i, j and 2 others')
    """
    more = len(names) - _LISTED
    others = f" and {more:,} other{'s' if more > 1 else ''}" if more > 0 else ""
    return ", ".join(names[:_LISTED]) + others


def _name(path: Path, root: Path) -> str:
    return _text(path.relative_to(root).as_posix() if path != root else path.name)


def _text(name: str) -> str:
    """A file's name as text that can be written, where its bytes are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _visible(folder: Path) -> list[Path]:
    with storage.explained(folder, "read"):
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX")


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _down(root: Path) -> Path:
    """Past folders that hold nothing but one other folder, as archives often begin."""
    while True:
        inside = _visible(root)
        below = [path for path in inside if path.is_dir()]
        if len(below) != 1 or below[0].name.lower() in PARTS or not _folders(below[0]):
            return root
        if any(path.suffix.lower() in SUFFIXES for path in inside):
            return root
        root = below[0]


def _parts(root: Path) -> dict[str, Path]:
    """Folders by part; the folder itself is the training part where it has no such folders."""
    folders = _folders(root)
    named = [path for path in folders if path.name.lower() in PARTS]
    if not named:
        return {"train": root}
    other = [path.name for path in folders if path not in named]
    if other:
        raise DataError(
            f"{root}: found the folder{'s' if len(other) > 1 else ''} {listed(other)} beside "
            f"{', '.join(path.name for path in named)}; wanted either folders of parts (train, validation, test, "
            "unlabelled) that hold classes, or folders of classes alone. Move or rename one kind."
        )
    parts: dict[str, Path] = {}
    for path in named:
        part = PARTS[path.name.lower()]
        if part in parts:
            raise DataError(f"{root}: the folders {parts[part].name} and {path.name} mean the same part; join them.")
        parts[part] = path
    return parts


def _of_part(root: Path, folder: Path, part: str) -> Iterator[Picture]:
    if part == "unlabelled":
        yield from (Picture(p.path, part, None, f"{folder.name}/{p.name}") for p in loose(folder))
        return
    direct = [path.name for path in _visible(folder) if path.is_file() and path.suffix.lower() in SUFFIXES]
    if direct:
        raise DataError(
            f"{folder}: found {len(direct):,} pictures ({listed(direct[:2])}, ...) that lie in no folder of a class; "
            "wanted a folder for each class with its pictures: CLASS/*.jpg. Pictures without a class go into a folder "
            "unlabelled beside train."
        )
    classes = _folders(folder)
    if not classes:
        raise DataError(f"{folder}: found no folders; wanted one for each class, with its pictures: CLASS/*.jpg.")
    for group in classes:
        files = sorted(_files(group), key=lambda path: path.relative_to(group).parts)
        if not files:
            raise DataError(
                f"{group}: found no picture of this class; wanted files that end in {', '.join(SUFFIXES)}. Remove the "
                "folder if it is no class."
            )
        yield from (Picture(path, part, _text(group.name), _name(path, root)) for path in files)


def _files(folder: Path, *, strict: bool = True) -> Iterator[Path]:
    """Pictures below a folder; a link to a folder is followed, but none that leads back.

    `strict`: at the end, files of another kind are refused.
    """
    seen: set[str] = set()
    strange: list[str] = []
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not name.startswith("."):
                yield Path(place, name)
            elif suffix[1:] not in _BESIDE.split() and not name.startswith("."):
                strange.append(Path(place, name).relative_to(folder).as_posix())
    if strange and strict:
        raise DataError(
            f"{folder}: found {len(strange):,} file{'s' if len(strange) > 1 else ''} of another kind: "
            f"{listed(sorted(strange))}. Wanted pictures ({', '.join(SUFFIXES)}): convert them, or move them elsewhere."
        )
