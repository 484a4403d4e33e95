"""Named inputs: what `inputs` of a plan says about each, and how each is made from a part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potstill.data.parts import Part
from potstill.data.shrink import all_shrunk, size_of
from potstill.errors import DataError, did_you_mean, unknown
from potstill.types import Preprocessing

KEYS: Final = ("array", "resize")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Made:
    """An input of one part: `raw` (n, *shape), and the pictures (n, C, H, W) that small ones were made from."""

    raw: Tensor
    large: Tensor | None = None


@dataclass(frozen=True)
class Plain:
    """An array of the source as it is, or pictures made smaller.

    `array`: its name in the source, empty where the source has one input without a name.
    """

    array: str = ""
    resize: Any = None
    name: str = ""

    def of(self, part: Part) -> NDArray[Any]:
        """The array of a part."""
        return part.named[self.array] if self.array else part.inputs

    def size(self, part: Part) -> tuple[int, int] | None:
        """(height, width) of the small pictures; None where they are as they are."""
        return None if self.resize is None else size_of(self.resize, self.of(part).shape[1:], part.where)

    def shape(self, part: Part) -> tuple[int, ...]:
        """The shape of one example."""
        whole, size = self.of(part).shape[1:], self.size(part)
        return whole if size is None else (whole[0], *size)

    def preprocessing(self, part: Part, scale: float) -> Preprocessing:
        """`scale` for uint8, none for other numbers."""
        return Preprocessing(scale if self.of(part).dtype == np.uint8 else 1.0)

    def recipe(self, part: Part) -> dict[str, Any]:
        """How the input is made from raw material; empty where that is what is stored."""
        size, array = self.size(part), {"array": self.array} if self.array not in ("", self.name) else {}
        if size is None:
            return {"kind": "array", **array} if array else {}
        return {"kind": "resize", "shape": list(self.of(part).shape[1:]), "size": list(size), **array}

    def make(self, part: Part) -> Made:
        """The input of a part."""
        array, size = torch.from_numpy(self.of(part)), self.size(part)
        return Made(array) if size is None else Made(all_shrunk(array, size), array)


def read(inputs: Mapping[str, Any] | Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Declarations by name, checked: a table `{name: {keys}}`, or a list of names. None: nothing is declared."""
    if inputs is None:
        return {}
    given = inputs if isinstance(inputs, Mapping) else {name: {} for name in inputs}
    if isinstance(inputs, str) or not given:
        raise DataError(f"inputs = {inputs!r}: wanted a table of inputs by name, {{ x = {{}}, x_star = {{}} }}.")
    for name, table in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DataError(
                f"inputs: {name!r} is no name for an input; wanted are letters, digits, - and _, beginning with a "
                "letter or digit."
            )
        if not isinstance(table, Mapping):
            raise DataError(f"inputs.{name}: found {table!r}, wanted a table, {{}} for an array of that name.")
        for key in table:
            if key not in KEYS:
                raise DataError(
                    f'inputs.{name}: an input has no key "{key}".{did_you_mean(key, KEYS)} Known: {", ".join(KEYS)}.'
                )
        if not isinstance(table.get("array", ""), str):
            raise DataError(f"inputs.{name}.array = {table['array']!r}: wanted the name of an array.")
    return {name: dict(table) for name, table in given.items()}


def of_recipe(name: str, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """A declaration of the input that a model sees, to open data for it; None where the data need none."""
    if not recipe:
        return None
    array = {"array": recipe["array"]} if "array" in recipe else {}
    return {name: array | ({"resize": list(recipe["size"])} if "size" in recipe else {})}


def arrays(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names that arrays of declared inputs may have in a file."""
    return list(dict.fromkeys(str(table.get("array", name)) for name, table in declared.items()))


def resolve(declared: Mapping[str, Mapping[str, Any]], names: Sequence[str], where: str) -> dict[str, Plain]:
    """How each input is made, by name, for a source that has the arrays `names` (none: one without a name)."""
    if not declared:
        return {name: Plain(name, None, name) for name in names} or {"": Plain()}
    found = {}
    for name, table in declared.items():
        array = str(table.get("array", name))
        if names and array not in names:
            raise DataError(f"inputs.{name}: {where}: {unknown('array', array, names)}")
        if not names and "array" in table:
            raise DataError(f'inputs.{name}: {where} has no array "{array}".')
        found[name] = Plain(array if names else "", table.get("resize"), name)
    return found
