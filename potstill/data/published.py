"""Published sets: of scikit-learn (digits, diabetes), and those in idx files (MNIST, Fashion-MNIST, a user's own)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from potstill import storage
from potstill.data import cache, checks, idx
from potstill.data.parts import Contents, Part, labelled_part
from potstill.errors import DataError

_FILES: Final = {  # part -> (pictures, labels)
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_PUBLISHED: Final = {
    "mnist": (
        "http://yann.lecun.com/exdb/mnist/ and its mirror https://ossci-datasets.s3.amazonaws.com/mnist/",
        tuple("0123456789"),
    ),
    "fashion-mnist": (
        "https://github.com/zalandoresearch/fashion-mnist (folder data/fashion)",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
_TORCHVISION: Final = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


def digits(folder: Path | None) -> Contents:  # noqa: ARG001 - built-in sets have one signature
    """The 1,797 handwritten digits of scikit-learn (UCI, Alpaydin and Kaynak 1998): (1, 8, 8), numbers 0 to 16."""

    def decode() -> Part:
        from sklearn.datasets import load_digits

        found = load_digits()
        return Part(
            checks.inputs(found.images.astype(np.uint8), "digits"), checks.labels(found.target, "digits"), "digits"
        )

    # The cache also saves each worker scikit-learn's import.
    recipe = {"kind": "digits", "scikit-learn": version("scikit-learn")}
    return Contents(
        "digits", {"train": lambda: cache.cached(recipe, "digits", decode)}, tuple("0123456789"), scale=1 / 16
    )


def diabetes(folder: Path | None) -> Contents:  # noqa: ARG001 - built-in sets have one signature
    """442 patients of Efron et al. 2004, "Least angle regression", from scikit-learn: a regression with one target.

    (10,) float32: age, sex, body mass index, blood pressure, six blood values; each of mean 0 and variance 1. The
    target, 25 to 346, is a measure of the disease's progression after a year.
    """

    def decode() -> Part:
        from sklearn.datasets import load_diabetes

        found = load_diabetes()  # whose columns have a sum of squares of 1
        rows = checks.inputs(found.data * len(found.data) ** 0.5, "diabetes")
        return Part(rows, checks.targets(found.target, "diabetes"), "diabetes")

    recipe = {"kind": "diabetes", "scikit-learn": version("scikit-learn")}
    return Contents(
        "diabetes", {"train": lambda: cache.cached(recipe, "diabetes", decode)}, targets=("disease progression",)
    )


def _published(name: str, folder: Path | None) -> Contents:
    """MNIST or Fashion-MNIST from the four published files, below the user's data folder or in it."""
    places = []
    if folder is not None:
        places = [folder / name, folder / _TORCHVISION[name]]
        # The two sets have the same file names: a folder that is called after the other one is not taken for this one.
        if folder.name.lower() not in set(_PUBLISHED) - {name}:
            places.append(folder)
    for place in places:
        if all(_find(place, stem) for pair in _FILES.values() for stem in pair):
            return from_idx_folder(place, name=name, classes=_PUBLISHED[name][1])
    files = ", ".join(f"{stem}.gz" for pair in _FILES.values() for stem in pair)
    looked = f"looked in {', '.join(map(str, places))}" if places else "no data folder is given"
    raise DataError(
        f'"{name}" is not there: {looked}. Wanted the four files {files} (or unpacked, without .gz), published at '
        f"{_PUBLISHED[name][0]}. Put them into one folder and give it: --data FOLDER, folder=... in Python, or "
        f"$POTSTILL_DATA; FOLDER may also hold them in FOLDER/{name}."
    )


def mnist(folder: Path | None) -> Contents:
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 pictures (1, 28, 28)."""
    return _published("mnist", folder)


def fashion_mnist(folder: Path | None) -> Contents:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 and 10,000 pictures (1, 28, 28)."""
    return _published("fashion-mnist", folder)


def _find(folder: Path, stem: str) -> Path | None:
    """The file of that name, plain or .gz; the spelling `train-images.idx3-ubyte` is known too."""
    for name in (stem, f"{stem}.gz", stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def from_idx_folder(folder: Path, *, name: str = "", classes: Sequence[Any] | None = None) -> Contents:
    """A folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and perhaps their t10k- fellows, plain or .gz."""

    def decode(pictures: Path, labels: Path) -> Part:
        stored = checks.inputs(idx.read(pictures, axes=(2, 3, 4)), str(pictures))
        return labelled_part(
            stored, checks.labels(idx.read(labels, axes=(1,)), str(labels)), str(pictures), str(labels)
        )

    def part(pictures: Path, labels: Path) -> Part:
        recipe = {"kind": "idx", "sha256": [storage.sha256_file(pictures), storage.sha256_file(labels)]}
        return cache.cached(recipe, str(pictures), partial(decode, pictures, labels))

    parts: dict[str, Callable[[], Part]] = {}
    for word, stems in _FILES.items():
        found = [_find(folder, stem) for stem in stems]
        if found[0] and found[1]:
            parts[word] = partial(part, found[0], found[1])
        elif any(found) or word == "train":
            lacks = ", ".join(stem for stem, path in zip(stems, found, strict=True) if not path)
            raise DataError(f"{folder}: the idx file {lacks} (plain or .gz) is missing.")
    return Contents(name or folder.name, parts, None if classes is None else tuple(map(str, classes)))


SOURCES: Final[dict[str, Callable[..., Contents]]] = {
    "diabetes": diabetes,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
}
