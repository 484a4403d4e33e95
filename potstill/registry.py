"""Names to functions, with the keys of a plan taken from the functions' own signatures.

A specification is a string (`"mlp:100-50"`, `"flip"`) or a table (`{"name": "hinton", "temperature": 4.0}`). `expand`
turns each into a table with the name and the given keys, checked against the signature's keyword-only parameters;
`call` calls the function with them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from potstill.errors import SettingError, UsageError, did_you_mean, unknown

Spec = str | Mapping[str, Any]


@cache
def _parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of a function: name -> (type, default or inspect.Parameter.empty)."""
    hints = typing.get_type_hints(function)
    return {
        p.name: (hints.get(p.name, Any), p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _kinds(kind: Any) -> set[Any]:
    """What an annotation stands for: itself, or the members of a union."""
    return set(typing.get_args(kind)) if typing.get_origin(kind) in (typing.Union, types.UnionType) else {kind}


class Registry:
    """A table of functions of one kind (`"network"`, `"objective"`, ...); `error` is what its complaints are."""

    def __init__(
        self, kind: str, table: Mapping[str, Callable[..., Any]], error: type[UsageError] = SettingError
    ) -> None:
        self.kind = kind
        self.table = dict(table)
        self.error = error

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.table))

    def parameters(self, name: str) -> dict[str, tuple[Any, Any]]:
        """Keys a plan may give for `name`: key -> (type, default or `inspect.Parameter.empty` if it must be given)."""
        if name not in self.table:
            raise self.error(unknown(self.kind, name, self.table))
        return _parameters(self.table[name])

    def expand(self, spec: Spec) -> dict[str, Any]:
        """The specification as a table with `name` first and checked, converted keys; defaults are left out."""
        table = self._shorthand(spec) if isinstance(spec, str) else dict(spec)
        name = table.pop("name", None)
        if not isinstance(name, str):
            raise self.error(f'A {self.kind} table needs a key "name"; found the keys {sorted(table)}.')
        parameters = self.parameters(name)
        for word in table:
            if word not in parameters:
                raise self.error(
                    f'The {self.kind} "{name}" has no key "{word}".{did_you_mean(word, parameters)} '
                    f"Known: {', '.join(parameters) or 'none'}."
                )
        for word, (_, default) in parameters.items():
            if default is inspect.Parameter.empty and word not in table:
                raise self.error(f'The {self.kind} "{name}" needs the key "{word}".')
        return {"name": name} | {
            word: self._convert(name, word, value, parameters[word][0]) for word, value in table.items()
        }

    def full(self, spec: Spec) -> dict[str, Any]:
        """`expand` with every default filled in: what a fingerprint is made of."""
        table = self.expand(spec)
        defaults = {word: default for word, (_, default) in self.parameters(table["name"]).items()}
        return {"name": table.pop("name")} | defaults | table

    def call(self, spec: Spec, *args: Any) -> Any:
        """Call the named function with `args` and the specification's keys."""
        table = self.expand(spec)
        return self.table[table.pop("name")](*args, **table)

    def label(self, spec: Spec) -> str:
        """The specification as short text: `mlp:100-50`, `hinton(temperature=4.0, alpha=0.1)`."""
        if isinstance(spec, str):
            return spec
        table = self.expand(spec)
        name = str(table.pop("name"))
        keys = list(table)
        if keys and keys[0] == next(iter(self.parameters(name)), None) and isinstance(table[keys[0]], tuple):
            name += ":" + "-".join(map(str, table.pop(keys[0])))
        return name + (f"({', '.join(f'{k}={v}' for k, v in table.items())})" if table else "")

    def _shorthand(self, text: str) -> dict[str, Any]:
        name, colon, rest = text.partition(":")
        if not colon:
            return {"name": name}
        parameters = self.parameters(name)
        if not parameters:
            raise self.error(f'The {self.kind} "{name}" takes nothing after a colon; found "{text}".')
        word, (kind, _) = next(iter(parameters.items()))
        many = typing.get_origin(kind) is tuple
        parts = rest.split("-") if many else [rest]
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            raise self.error(
                f'Cannot read "{text}": after the colon come whole numbers joined by "-", such as "{name}:100-50".'
            ) from None
        return {"name": name, word: numbers if many else numbers[0]}

    def _convert(self, name: str, word: str, value: Any, kind: Any) -> Any:
        from pydantic import TypeAdapter, ValidationError

        if isinstance(value, bool) and bool not in _kinds(kind) and _kinds(kind) & {int, float}:
            raise self.error(f'{word} of the {self.kind} "{name}" is a number; found {value!r}.')
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
            raise self.error(
                f'{word} of the {self.kind} "{name}": {problem["msg"].lower()}; found {value!r}.'
            ) from None
