"""Named inputs: what `inputs` of a plan says about each, and how it is made. A new kind is a function and a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from potstill.data import columns, text
from potstill.data.columns import Columns
from potstill.data.fitted import Fitted, Maker, Ready
from potstill.data.parts import Contents, Target
from potstill.data.plain import Plain
from potstill.data.sentences import Embedding, embedded
from potstill.data.text import Hashing, Tokens, Weighted
from potstill.errors import DataError, did_you_mean, unknown
from potstill.registry import Registry
from potstill.types import DataSpec

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def array(*, array: str = "", resize: int | tuple[int, int] | None = None) -> Maker:
    """An array of the source, by its name, or the source's pictures; `resize`: made smaller, by averaging areas."""
    return Plain(array, resize)


def table(*, columns: tuple[str, ...] = ()) -> Maker:
    """Columns of a table, by name or pattern ("age*"), as one row of numbers; all but the targets where none is named.

    Numbers are scaled to mean 0 and standard deviation 1 over the training rows, missing ones are the mean, with a
    column that tells so; each category is a column of 0 and 1, and an unknown one 0 in all of them.
    """
    return Columns(columns)


def hashing(*, column: str, width: int = 4096, ngrams: int = 1, mask: bool = False) -> Maker:
    """Words of a text column, and up to `ngrams` of them in a row, counted in `width` columns by a hash.

    Rows are scaled to length 1. Nothing is learnt from training rows. `mask`: every mention is "@user".
    """
    return Hashing(column, width, ngrams, mask)


def tfidf(*, column: str, features: int = 20_000, least: int = 2, ngrams: int = 1, mask: bool = False) -> Maker:
    """Words of a text column, weighted by how rare they are: at most `features` that `least` training rows hold.

    Rows are scaled to length 1; other words count nothing. `ngrams` and `mask` as for hashing.
    """
    return Weighted(column, features, least, ngrams, mask)


def tokens(*, column: str, words: int = 20_000, least: int = 2, length: int = 64, mask: bool = False) -> Maker:
    """Word ids of a text column for a network with an embedding: 0 pads, 1 is an unknown word.

    The vocabulary: at most `words` of those that `least` training rows hold, the most frequent ones. Texts are cut
    after `length` words. `mask` as for hashing.
    """
    return Tokens(column, words, least, length, mask)


def embedding(*, column: str, model: str, length: int = 128, mask: bool = False) -> Maker:
    """A text column as a frozen transformer sees it: the mean of its last hidden states (extra `hub`).

    `model`: a folder in the layout of transformers, or a name on the Hugging Face hub. Texts are cut after `length`
    tokens. `mask` as for hashing.
    """
    return Embedding(column, model, length, mask)


KINDS: Final[dict[str, Callable[..., Maker]]] = {
    "array": array,
    "embedding": embedding,
    "hashing": hashing,
    "table": table,
    "tfidf": tfidf,
    "tokens": tokens,
}
registry: Final = Registry("kind of input", KINDS, DataError)
BY_RECIPE: Final[dict[str, Callable[[Mapping[str, Any]], Fitted]]] = {
    "table": columns.by_recipe,
    "embedding": embedded,
    **text.BY_RECIPE,
}
_USUAL: Final = ("array", "table")  # what may be left out: the source tells it


def read(inputs: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Declarations by name, checked: a table `{name: {keys}}`, or a list of names. None: nothing is declared.

    What was fitted before (`Ready`) passes.
    """
    if inputs is None:
        return {}
    given = inputs if isinstance(inputs, Mapping) else {name: {} for name in inputs}
    if isinstance(inputs, str) or not given:
        raise DataError(f"inputs = {inputs!r}: wanted a table of inputs by name, {{ x = {{}}, x_star = {{}} }}.")
    for name, keys in given.items():
        if isinstance(keys, Ready):
            continue
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DataError(
                f"inputs: {name!r} is no name for an input; wanted are letters, digits, - and _, beginning with a "
                "letter or digit."
            )
        if not isinstance(keys, Mapping):
            raise DataError(f"inputs.{name}: found {keys!r}, wanted a table, {{}} for an array of that name.")
    return {name: keys if isinstance(keys, Ready) else _checked(name, keys) for name, keys in given.items()}


def _checked(name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with their kind, where that is said, converted."""
    try:
        if "as" in keys:
            table = registry.expand({"name": keys["as"], **{key: keys[key] for key in keys if key != "as"}})
            return {"as": table.pop("name"), **table}
        for kind in _USUAL:
            if set(keys) <= set(registry.parameters(kind)):
                found = registry.expand({"name": kind, **keys})
                return {key: found[key] for key in keys}
    except DataError as error:
        raise DataError(f"inputs.{name}: {error}") from None
    known = [*dict.fromkeys(key for kind in _USUAL for key in registry.parameters(kind)), "as"]
    everywhere = {key for kind in registry for key in registry.parameters(kind)}
    wrong = next((key for key in keys if key not in everywhere), None)
    if wrong is None:
        raise DataError(
            f"inputs.{name}: found the keys {', '.join(keys)}; say what is to be made of them: as = KIND, which can be "
            f"{', '.join(registry)}."
        )
    raise DataError(
        f'inputs.{name}: an input has no key "{wrong}".{did_you_mean(wrong, (*everywhere, "as"))} '
        f"Known: {', '.join(known)}."
    )


def like(spec: DataSpec) -> tuple[dict[str, Any] | None, Target]:
    """Inputs and target with which data are what a model with this `spec` learnt from, for `open`."""
    recipe = spec.recipe
    if recipe.get("kind") in BY_RECIPE:
        return {spec.sees: Ready(BY_RECIPE[recipe["kind"]](recipe))}, recipe["targets"]
    if not recipe:
        return None, None
    array = {"array": recipe["array"]} if "array" in recipe else {}
    return {spec.sees: array | ({"resize": list(recipe["size"])} if "size" in recipe else {})}, None


def arrays(declared: Mapping[str, Any]) -> list[str]:
    """The names that arrays of declared inputs may have in a file."""
    told = {name: keys for name, keys in declared.items() if not isinstance(keys, Ready)}
    return list(dict.fromkeys(str(keys.get("array") or name) for name, keys in told.items()))


def makers(declared: Mapping[str, Any], contents: Contents) -> dict[str, Maker]:
    """How each input is made, by name ("" where the data have one without a name)."""
    if not declared and contents.tabular:
        return {"": Columns()}
    if not declared:
        return {name: Plain(name, None, name, contents.scale) for name in contents.inputs} or {
            "": Plain(scale=contents.scale)
        }
    return {name: _maker(name, keys, contents) for name, keys in declared.items()}


def _maker(name: str, keys: Any, contents: Contents) -> Maker:
    if isinstance(keys, Ready):
        return keys
    kind = keys.get("as", "table" if contents.tabular else "array")
    if (kind == "array") == contents.tabular:
        has = "a table" if contents.tabular else "no table"
        raise DataError(f'inputs.{name}: as = "{kind}": {contents.name} is {has}.')
    settings = {key: keys[key] for key in keys if key != "as"}
    if kind != "array":
        try:
            made: Maker = registry.call({"name": kind, **settings})
        except DataError as error:
            raise DataError(f"inputs.{name}: {error}") from None
        return made
    array = settings.get("array") or name
    if contents.inputs and array not in contents.inputs:
        raise DataError(f"inputs.{name}: {contents.name}: {unknown('array', array, contents.inputs)}")
    if not contents.inputs and settings.get("array"):
        raise DataError(f'inputs.{name}: {contents.name} has no array "{array}".')
    return Plain(array if contents.inputs else "", settings.get("resize"), name, contents.scale)
