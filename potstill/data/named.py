"""Data sets by name or path: of scikit-learn, MNIST and its kin, cats and dogs, drawn ones, idx, numpy, pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from potstill import storage
from potstill.data import arrays, cache, checks, idx, photos, pixels, synthetic, tree, unpack
from potstill.data.parts import Contents, Part, labelled_part
from potstill.errors import DataError, did_you_mean
from potstill.registry import Registry
from potstill.types import Task

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
_NAMES: Final = ("classes", "target_names")
_TORCHVISION: Final = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
SUPPORTED: Final = (
    "the names digits, diabetes, mnist, fashion-mnist, cats-dogs-64, softmax-linear and privileged; a folder with idx "
    "files (plain or .gz) or with .npy files; a .npz file; a folder of pictures in folders of classes (CLASS/*.jpg, or "
    "train/CLASS/*.jpg and test/CLASS/*.jpg), or a .tar, .tar.xz, .tar.gz, .tar.bz2 or .zip of one; arrays from Python"
)


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


registry: Final = Registry(
    "data source",
    {
        "diabetes": diabetes,
        "digits": digits,
        "mnist": mnist,
        "fashion-mnist": fashion_mnist,
        "cats-dogs-64": photos.cats_dogs_64,
        **synthetic.SOURCES,
    },
    DataError,
)


def resolve(text: str, folder: str | Path | None) -> Path:
    """A path; a relative one starts in the user's data folder if it is there, else in the working folder."""
    path, place = Path(text).expanduser(), _data_folder(folder)
    if path.is_absolute() or place is None:
        return path
    if (place / path).exists():
        return place / path
    return place if place.name == path.name and not path.exists() else path


def _from_path(path: Path, table: Mapping[str, Any], task: Task, wanted: Sequence[str]) -> Contents:
    if not path.exists():
        raise DataError(
            f"{path} is not there. Check the path; relative paths start in the data folder (--data) or here."
        )
    idx_files = path.is_dir() and (any(path.glob("*-ubyte")) or any(path.glob("*-ubyte.gz")))
    if not idx_files and (unpack.is_archive(path) or _holds_pictures(path)):
        return photos.contents(path, table)
    for word in table:
        if word not in ("name", *_NAMES):
            raise DataError(
                f'source: "{word}" is a key of pictures, and the data in "{path}" are none. Known: {", ".join(_NAMES)}.'
            )
    wrong, right = _NAMES if task == "regression" else _NAMES[::-1]
    if wrong in table:
        raise DataError(f'source: found "{wrong}" with task = "{task}", whose names are called "{right}".')
    names = table.get(right)
    if idx_files:
        return from_idx_folder(path, classes=table.get("classes"))
    if path.is_dir() and any(path.glob("*.npy")):
        return arrays.from_npy_folder(path, task=task, names=names, wanted=wanted)
    if path.is_dir():
        raise DataError(
            f"{path}: found a folder with neither idx nor .npy files nor pictures. Supported now: {SUPPORTED}."
        )
    if photos.is_picture(path):
        raise DataError(f"{path}: found one picture, wanted a folder of them. Supported now: {SUPPORTED}.")
    if path.suffix == ".npz":
        return arrays.from_npz(path, task=task, names=names, wanted=wanted)
    if path.suffix == ".npy":
        raise DataError(
            f"{path}: found one array, wanted inputs and labels. Put inputs.npy and labels.npy into one folder and "
            "give the folder, or write both into one .npz file."
        )
    raise DataError(
        f'{path}: found a file of the kind "{"".join(path.suffixes) or "unknown"}". Supported now: {SUPPORTED}.'
    )


def _data_folder(folder: str | Path | None) -> Path | None:
    found = folder or os.environ.get("POTSTILL_DATA")
    return Path(found).expanduser() if found else None


def names() -> list[str]:
    """Names of the built-in data sets, sorted."""
    return list(registry)


def drawn() -> list[str]:
    """Names of the sources that the program draws, sorted: those that can be drawn anew."""
    return sorted(synthetic.SOURCES)


def check(table: Mapping[str, Any]) -> None:
    """Refuse the settings of a built-in source that cannot be; `DataError`. Files are not looked for."""
    registry.expand(table)
    _drawn(table)


def has_truth(table: Mapping[str, Any]) -> bool:
    """Whether a source's table is one of data with a truth (`Data.truth`)."""
    contents = _drawn(table)
    return contents is not None and contents.truth is not None


def _drawn(table: Mapping[str, Any]) -> Contents | None:
    """A source that the program draws; nothing is drawn yet."""
    found: Contents | None = registry.call(table, None) if table["name"] in synthetic.SOURCES else None
    return found


def options(name: str) -> tuple[str, ...]:
    """Keys that a source's table may have beside `name`; `DataError` for what is neither a built-in name nor a path."""
    if name in registry.table:
        return tuple(registry.parameters(name))
    if not _is_path(name):
        raise DataError(_unknown(name))
    return path_options(name)


def path_options(name: str) -> tuple[str, ...]:
    """The same for a path, whether there is something or not: keys of pictures too, where these may be there."""
    return _NAMES if name.endswith((".npz", ".npy")) else (*_NAMES, *pixels.KEYS)


def _holds_pictures(path: Path) -> bool:
    return path.is_dir() and not any(path.glob("*.npy")) and tree.has_pictures(path)


def _is_path(name: str) -> bool:
    return "/" in name or "." in name or Path(name).exists()


def _unknown(name: str) -> str:
    return f'Unknown data source "{name}".{did_you_mean(name, registry)} Supported now: {SUPPORTED}.'


def locate(
    source: Any, folder: str | Path | None, task: Task = "multiclass", *, wanted: Sequence[str] = ()
) -> Contents:
    """The data set that `source` means: a name, a path, a table `{"name": ..., options}`, or arrays.

    `wanted`: names of arrays that are inputs.
    """
    if isinstance(source, tuple) or (isinstance(source, Mapping) and "name" not in source):
        return arrays.from_python(source, task=task, wanted=wanted)
    if isinstance(source, os.PathLike):
        source = str(Path(source).absolute())
    table = {"name": source} if isinstance(source, str) else source
    if not isinstance(table, Mapping) or not isinstance(table["name"], str):
        raise DataError(f"source: found {type(source).__name__}. Supported now: {SUPPORTED}.")
    name = table["name"]
    if name in registry.table:
        contents: Contents = registry.call(table, _data_folder(folder))
        return contents
    path = resolve(name, folder)
    if not (path.exists() or _is_path(name)):
        raise DataError(_unknown(name))
    known = path_options(name)
    for word in table:
        if word not in ("name", *known):
            near = did_you_mean(word, known)
            raise DataError(f'source: the data in "{name}" has no key "{word}".{near} Known: {", ".join(known)}.')
    return _from_path(path, table, task, wanted)
