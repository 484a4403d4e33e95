"""Pictures as a source: folders with classes, archives of such folders, and cats-dogs-64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill.data import pixels, tree, unpack
from potstill.data.decoded import Decoded, decoded
from potstill.data.parts import Contents, Part
from potstill.errors import DataError

_CATS_DOGS: Final = "cats-dogs-64"


def is_picture(path: Path) -> bool:
    """By the end of its name."""
    return path.suffix.lower() in tree.SUFFIXES


def contents(path: Path, table: Mapping[str, Any]) -> Contents:
    """A folder or archive of pictures in folders of classes. `table`: `pixels.KEYS`, and `classes`."""
    chosen = pixels.options(table)
    classes = table.get("classes")
    pictures = _Pictures(path, chosen)
    parts = {file.part for file in pictures.files()} - {"unlabelled"}
    return Contents(
        path.name.partition(".")[0] if unpack.is_archive(path) else path.resolve().name,
        {part: partial(pictures.part, part) for part in parts},
        None if classes is None else tuple(map(str, classes)),
    )


def cats_dogs_64(
    folder: Path | None,
    *,
    size: Any = None,
    interpolation: Any = "bilinear",
    crop: Any = "none",
    corrupt: Any = "refuse",
    duplicates: Any = "refuse",
) -> Contents:
    """Cats and dogs at 64 x 64: 21,000 training and 3,980 test photos (3, 64, 64) of Kaggle's Dogs vs Cats (2013)."""
    table = {"size": size, "interpolation": interpolation, "crop": crop, "corrupt": corrupt, "duplicates": duplicates}
    archive = f"{_CATS_DOGS}.tar.xz"
    places = [] if folder is None else [folder / _CATS_DOGS, folder]
    found = [place / archive for place in places if (place / archive).is_file()]
    found += [place for place in places if place.name == _CATS_DOGS and (place / "train").is_dir()]
    if not found:
        looked = f"looked in {', '.join(map(str, places))}" if places else "no data folder is given"
        raise DataError(
            f'"{_CATS_DOGS}" is not there: {looked}. Wanted {archive}, or its folders train/cats, train/dogs, '
            "test/cats and test/dogs with photos of 64 x 64 pixels, made from https://www.kaggle.com/c/dogs-vs-cats. "
            f"Give the folder that holds FOLDER/{_CATS_DOGS}: --data FOLDER, folder=... in Python, or $POTSTILL_DATA. "
            "Any other folder of photos is a source by its path."
        )
    pictures = _Pictures(found[0], pixels.options(table))
    # Not unpacked before it is opened.
    return Contents(_CATS_DOGS, {part: partial(pictures.part, part) for part in ("train", "test")}, ("cats", "dogs"))


def loose(path: Path, shape: tuple[int, ...], table: Mapping[str, Any]) -> tuple[NDArray[np.uint8], list[str]]:
    """All pictures of a folder, an archive or one file for a model that takes `shape` (C, H, W), and their names."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{path}: found pictures; the model wants examples of shape {shape}, which no pictures have.")
    chosen = pixels.options(table)
    root = unpack.unpacked(path) if unpack.is_archive(path) else path
    files = tree.loose(root)
    found = decoded(root, files, chosen, colour=shape[0] == 3)
    _bear_faults(str(path), found, chosen, total=len(files))
    if found.inputs.shape[1:] != shape:
        size = "{} x {}".format(*found.inputs.shape[2:])
        raise DataError(
            f"{path}: found pictures of {size} pixels, wanted {shape[1]} x {shape[2]} as the model's training data "
            f'were. Say how those were made: {{ name = "{path}", size = [{shape[1]}, {shape[2]}], interpolation = '
            "..., crop = ... }, with the values of the training plan."
        )
    return found.inputs, [files[row].name for row in found.rows]


class _Pictures:
    """The pictures of a folder or archive, found and decoded when they are asked for."""

    def __init__(self, path: Path, chosen: pixels.Options) -> None:
        self.path, self.chosen = path, chosen
        self.root = cache(self._root)
        self.files = cache(self._files)
        self.whole = cache(self._whole)

    def _root(self) -> Path:
        return unpack.unpacked(self.path) if unpack.is_archive(self.path) else self.path

    def _files(self) -> list[tree.Picture]:
        return tree.pictures(self.root())

    def _whole(self) -> Decoded:
        """Every part at once: what is wrong with test pictures shall show before a training, not after it."""
        found = decoded(self.root(), self.files(), self.chosen)
        _bear_faults(str(self.path), found, self.chosen, total=len(self.files()))
        if found.twins and self.chosen.duplicates == "refuse":
            pairs = tree.listed([f"{name} = {other}" for name, other in found.twins])
            raise DataError(
                f"{self.path}: {_count(found.twins)} that models would be trained on or picked by, and judged by, "
                f"equal once decoded: {pairs}. Delete one of each pair, or leave the first of each out: duplicates "
                '= "drop" in the table of the source.'
            )
        return found

    def part(self, name: str) -> Part:
        """One part; pictures without a class are the last of the training part."""
        found, files = self.whole(), self.files()
        wanted = (name, "unlabelled") if name == "train" else (name,)
        numbers = [i for i, row in enumerate(found.rows) if files[row].part in wanted]
        labels = [files[found.rows[i]].label for i in numbers]
        known = [label for label in labels if label is not None]
        if not known:
            raise DataError(f"{self.path}: no picture of the {name} part is left; see corrupt and duplicates.")
        rows = slice(numbers[0], numbers[-1] + 1)  # parts lie one after the other
        return Part(
            found.inputs[rows],
            np.array(known),
            f"{self.path} ({name})",
            np.ascontiguousarray(found.digests[rows]),
            notes=self._notes(found),
        )

    def _notes(self, found: Decoded) -> tuple[str, ...]:
        notes = []
        if found.faults:
            told = tree.listed([f"{name} ({why})" for name, why in found.faults])
            notes.append(f"{self.path}: {_count(found.faults)} left out that cannot be read: {told}.")
        if found.twins:
            told = tree.listed([f"{name} = {other}" for name, other in found.twins])
            notes.append(f"{self.path}: {_count(found.twins)} left out as duplicates: {told}.")
        return tuple(notes)


def _bear_faults(where: str, found: Decoded, chosen: pixels.Options, *, total: int) -> None:
    if found.faults and chosen.corrupt == "refuse":
        told = tree.listed([f"{name} ({why})" for name, why in found.faults])
        raise DataError(
            f"{where}: {_count(found.faults)} of {total:,} cannot be read: {told}. "
            'Mend or delete them, or leave them out: corrupt = "skip" in the table of the source.'
        )


def _count(some: Sequence[Any]) -> str:
    return f"{len(some):,} picture{'' if len(some) == 1 else 's'}"
