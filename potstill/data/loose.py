"""Arrays beside a data set: inputs to predict on, a teacher's answers, row numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.data import arrays, checks, columns, declared, idx, named, photos, pixels, unpack
from potstill.data.parts import Part
from potstill.data.shrink import all_shrunk
from potstill.data.source import ArraySource
from potstill.data.sparse import Sparse
from potstill.data.table import Format, Options, Table, Tabular, read
from potstill.errors import DataError, unknown
from potstill.types import DataSpec, Preprocessing


def inputs(source: Any, spec: DataSpec, *, folder: str | Path | None = None) -> ArraySource:
    """All examples of an array, a .npy or idx file, a .npz file with one array of inputs, or pictures, for a model.

    The numbers must be raw, as those the model of `spec` learnt from: uint8 where `spec.preprocessing` scales, else
    float32 or what becomes it. No example carries a label. Pictures: one file, an archive, or a folder with all below
    it, ordered by path; a table `{"name": path, "size": ..., ...}` says how they are made (`pixels.Options`). Their
    names are the source's `names`. Of several inputs it is the one that the model sees; in a file, the array of its
    name. What is made from raw material (`spec.recipe`) may be given as that. `DataError` where shape or type differ.
    """
    if "targets" in spec.recipe:
        return _rows(_table(source, spec, folder), spec)
    array, where, names = _read(source, spec, folder)
    stored = checks.inputs(array, where)
    if spec.recipe.get("kind") == "resize":
        return _source(_shrunk(stored, spec, where), spec, names)
    wanted = np.float32 if spec.preprocessing == Preprocessing() else np.uint8
    if stored.shape[1:] != spec.shape or stored.dtype != wanted:
        advice = ""
        if wanted == np.uint8 and stored.dtype != wanted:
            advice = ' Whole numbers from 0 to 255 in another type: give array.astype("uint8").'
        raise DataError(
            f"{where}: found examples of shape {stored.shape[1:]} and type {array.dtype}, wanted {spec.shape} and "
            f"{np.dtype(wanted)}, raw as the model's training data (it scales by {spec.preprocessing.scale:g} itself)."
            f"{advice}"
        )
    return _source(torch.from_numpy(stored), spec, names)


def _table(source: Any, spec: DataSpec, folder: str | Path | None) -> Table:
    """Rows as they are written, with the columns of the training table; targets may be there or not."""
    source = source["name"] if isinstance(source, Mapping) and "name" in source else source
    if not isinstance(source, (str, os.PathLike)):
        raise DataError("source: found arrays; the model was trained on a table. Give a file with its columns.")
    path, told = named.resolve(os.fspath(source), folder), spec.recipe
    _must_be_there(path, "a table with the columns of the training data")
    table = read(path, Format(header=told["header"]))
    if told["header"]:
        return table
    inputs = [name for name in told["names"] if name not in told["targets"]]
    names = told["names"] if len(table.names) == len(told["names"]) else inputs
    if len(table.names) != len(names):
        raise DataError(
            f"{path}: found {len(table.names)} columns, wanted the {len(inputs)} of the training data: "
            f"{', '.join(inputs[:5])}, ... (with the targets {len(told['names'])})."
        )
    return replace(table, columns=dict(zip(names, table.columns.values(), strict=True)))


def _rows(table: Table, spec: DataSpec) -> ArraySource:
    """Made as the training rows were; a row has a label where its target is there and known."""
    told = spec.recipe
    options, empty = Options(missing=tuple(told["missing"])), np.zeros((len(table), 0), np.uint8)
    part = Part(empty, np.zeros(0, np.int64), table.where, table=Tabular(table, (), tuple(told["targets"]), options))
    made = _source(declared.BY_RECIPE[told["kind"]](told).make(part).raw, spec, ())
    if not set(told["targets"]) <= set(table.names):
        return made
    if spec.task == "regression":
        found = [columns.numbers(table.column(name), name, options.missing, where=table.where) for name in spec.targets]
        values = torch.from_numpy(np.stack(found, axis=1).astype(np.float32))
        known = ~values.isnan().any(dim=1)
        return replace(made, labels=torch.where(known[:, None], values, 0.0), labelled=known)
    place = {name: i for i, name in enumerate(spec.classes)}
    words = columns.words(table.column(told["targets"][0]), options.missing)
    labels = torch.tensor([place.get(word, -1) for word in words])
    return replace(made, labels=labels.clamp_min(0), labelled=labels >= 0)


def _source(raw: torch.Tensor | Sparse, spec: DataSpec, names: tuple[str, ...]) -> ArraySource:
    n = len(raw)
    none, hidden = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
    if spec.task == "regression":
        none = torch.zeros(n, spec.outputs)
    return ArraySource(raw, none, hidden, spec, names=names)


def _shrunk(pictures: NDArray[Any], spec: DataSpec, where: str) -> torch.Tensor:
    """Small pictures (n, C, h, w) float32, from those or from the large ones of the training data."""
    shape = tuple(spec.recipe["shape"])
    if pictures.shape[1:] not in (shape, spec.shape):
        raise DataError(
            f"{where}: found examples of shape {pictures.shape[1:]}, wanted {shape}, to be made smaller as the "
            f"training data were, or {spec.shape}."
        )
    height, width = spec.shape[1:]
    return all_shrunk(torch.from_numpy(pictures), (height, width))


def read_array(path: str | Path) -> NDArray[Any]:
    """The array of a .npy file, or of a .npz file that holds one (a teacher's logits, row numbers); never objects.

    `DataError` where it is not there, damaged, or something else.
    """
    path = Path(path)
    _must_be_there(path, "a .npy file, or a .npz file with one array")
    if path.suffix != ".npz":
        return arrays.load_npy(path)
    loaders = arrays.npz_loaders(path)
    if len(loaders) != 1:
        raise DataError(f"{path}: found the keys {', '.join(loaders) or 'none'}, wanted one array.")
    return checks.as_array(next(iter(loaders.values()))(), str(path))


def holds(source: Any, folder: str | Path | None = None) -> bool:
    """Whether `inputs` reads it: arrays, a file that is there, or a folder of pictures that lie in it directly."""
    if isinstance(source, Mapping):
        source = source["name"]
    if not isinstance(source, (str, os.PathLike)):
        return True
    path = named.resolve(os.fspath(source), folder)
    return not path.is_dir() or any(photos.is_picture(inside) for inside in path.iterdir())


def _read(source: Any, spec: DataSpec, folder: str | Path | None) -> tuple[NDArray[Any], str, tuple[str, ...]]:
    table = source if isinstance(source, Mapping) and "name" in source else {}
    source = table.get("name", source)
    if not isinstance(source, (str, os.PathLike)):
        if isinstance(source, Mapping):
            if spec.sees not in source:
                raise DataError(f'source: found the inputs {", ".join(source)}; the model sees "{spec.sees}".')
            source = source[spec.sees]
        return np.array(checks.as_array(source, "source")), "source", ()
    path = named.resolve(os.fspath(source), folder)
    if path.is_dir() or (path.is_file() and (photos.is_picture(path) or unpack.is_archive(path))):
        for word in table:
            if word not in ("name", *pixels.KEYS):
                raise DataError(unknown("key of pictures", word, pixels.KEYS))
        pictures, names = photos.loose(path, tuple(spec.recipe.get("shape", spec.shape)), table)
        return pictures, str(path), tuple(names)
    return (*_of_file(path, str(spec.recipe.get("array", spec.sees))), ())


def _of_file(path: Path, array: str) -> tuple[NDArray[Any], str]:
    _must_be_there(path, "a .npy, .npz or idx file of inputs, or pictures")
    if path.suffix == ".npy":
        return arrays.load_npy(path), str(path)
    if path.suffix != ".npz":
        return idx.read(path, axes=(2, 3, 4)), str(path)
    loaders = arrays.npz_loaders(path)
    wanted = ("inputs", f"inputs.{array}")
    keys = [key for key in loaders if key == array] or [
        key for key in loaders if (place := arrays.slot(key)) and place[1] in wanted
    ]
    if len(keys) != 1:
        raise DataError(f"{path}: found the keys {', '.join(loaders)}, wanted one array of inputs (such as `inputs`).")
    return loaders[keys[0]](), f"{path}[{keys[0]}]"


def _must_be_there(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is not there, or is not a file; wanted {wanted}.")
