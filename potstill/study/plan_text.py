"""The text of a plan: where each key stands, reading one key or value, and writing TOML.

The standard library reads TOML but neither tells lines nor writes. Paths are tuples of keys and list positions:
`("models", "large", "training", "augment", 0)`.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from potstill.errors import PlanError

Path: TypeAlias = tuple[str | int, ...]

_SHORT = ("source", "network", "optimizer", "schedule", "objective", "augment")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


def dotted(path: Sequence[str | int]) -> str:
    """A path as one word.

    >>> dotted(("sweep", "data.labelled", 0))
    'sweep."data.labelled"[0]'
    """
    text = ""
    for number, part in enumerate(path):
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if number else "") + (part if _BARE.fullmatch(part) else _string(part, lines=False))
    return text


def parse(text: str) -> dict[str, Any]:
    """TOML to tables; a fault in the syntax is a `PlanError` with its line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$| \(at end of document\)$", message)
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        where = f" (column {found[2]})" if found and found[2] else " (end of the text)"
        bare = message[: found.start()] if found else message
        hint = " A text stands in quotes." if bare == "Invalid value" else ""
        raise PlanError(f"this is not TOML: {bare}{where}.{hint}", line=line) from None


def parse_key(text: str) -> tuple[str, ...]:
    """A dotted key, as in `--set`: `models.large.training.epochs`, `sweep."data.labelled"`."""
    try:
        table: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        table = None
    parts: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        part, table = next(iter(table.items()))
        parts.append(part)
    if table != 0 or not parts:
        raise PlanError(f'cannot read the key "{text}"; wanted is a dotted key such as training.epochs.')
    return tuple(parts)


def parse_value(text: str) -> Any:
    """A value, as in `--set`: read as TOML, else taken as a string.

    >>> parse_value("3"), parse_value("mlp:16"), parse_value('{ name = "sgd" }')
    (3, 'mlp:16', {'name': 'sgd'})
    """
    try:
        table = tomllib.loads(f"value = {text.strip()}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


class _Scanner:
    """Walks TOML that `tomllib` has accepted and notes the line (from 1) of every key and list element."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.newlines = [m.start() for m in re.finditer("\n", text)]
        self.lines: dict[Path, int] = {}
        self.repeated: dict[Path, int] = {}

    def note(self, path: Path, *, first: bool = True) -> None:
        line = bisect_right(self.newlines, self.at - 1) + 1
        if first:
            self.lines.setdefault(path, line)
        else:
            self.lines[path] = line

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self.at)

    def document(self) -> dict[Path, int]:
        prefix: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.peek("["):
                prefix = self.header()
            else:
                self.pair(prefix)
            self.skip(_BLANK)
        return self.lines

    def header(self) -> Path:
        many = self.peek("[[")
        self.at += 2 if many else 1
        path: Path = ()
        keys = self.key()
        for number, part in enumerate(keys):
            path = (*path, part)
            last = number == len(keys) - 1
            self.note(path, first=not last or many)
            if last and many:
                self.repeated[path] = self.repeated.get(path, -1) + 1
            if path in self.repeated:  # below an array of tables: its newest element
                path = (*path, self.repeated[path])
                self.note(path)
        self.at += 2 if many else 1
        return path

    def key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self.skip(_SPACE)
            string = _STRING.match(self.text, self.at)
            match = string or _BARE.match(self.text, self.at)
            if match is None:  # pragma: no cover - tomllib has accepted the text
                raise PlanError(f"cannot find a key at character {self.at}.")
            parts.append(tomllib.loads(f"k = {match[0]}")["k"] if string else match[0])
            self.at = match.end()
            self.skip(_SPACE)
            if not self.peek("."):
                return parts
            self.at += 1

    def pair(self, prefix: Path) -> None:
        start = self.at
        path = prefix
        parts = self.key()
        end, self.at = self.at, start
        for part in parts:
            path = (*path, part)
            self.note(path)
        self.at = end + 1  # the "="
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        if self.peek("["):
            self.elements(path, "]")
        elif self.peek("{"):
            self.elements(path, "}")
        else:
            self.skip(_STRING if self.peek('"') or self.peek("'") else _SCALAR)

    def elements(self, path: Path, end: str) -> None:
        self.at += 1
        number = 0
        while True:
            self.skip(_BLANK)
            if self.peek(end):
                self.at += 1
                return
            if self.peek(","):
                self.at += 1
            elif end == "}":
                self.pair(path)
            else:
                self.note((*path, number))
                self.value((*path, number))
                number += 1


def positions(text: str) -> dict[Path, int]:
    """Line (from 1) of every table, key and list element of valid TOML."""
    return _Scanner(text).document()


@dataclass(frozen=True)
class Where:
    """Makes errors that know the dotted key and, where a text was read, the line."""

    lines: Mapping[Path, int] = field(default_factory=dict)

    def fault(self, path: Path, message: str, *, error: type[PlanError] = PlanError) -> PlanError:
        """An error at `path`; its line is that of the nearest thing around it that the text holds."""
        line = next((self.lines[path[:stop]] for stop in range(len(path), 0, -1) if path[:stop] in self.lines), None)
        return error(message, key=dotted(path), line=line)

    def wrong(self, path: Path, value: Any, wanted: str) -> PlanError:
        """Found this, wanted that."""
        return self.fault(path, f"found {shown(value)}; wanted is {wanted}.")


def _string(text: str, *, lines: bool = True) -> str:
    found = text.split("\n") if lines else [text]
    safe = [json.dumps(line, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f") for line in found]
    return f'"{safe[0]}"' if len(safe) == 1 else '"""\n' + "\n".join(safe) + '"""'


def value_text(value: Any) -> str:
    """A value as TOML on one line (a text of several lines as a multi-line string).

    >>> value_text({"name": "adam", "betas": (0.9, 0.99)})
    '{ name = "adam", betas = [0.9, 0.99] }'
    """
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{dotted((key,))} = {value_text(v)}" for key, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return f"[{', '.join(map(value_text, value))}]"


def shown(value: Any, *, most: int = 60) -> str:
    """A value for a message: as TOML, cut where it is long."""
    known = isinstance(value, str | bool | int | float | Mapping | list | tuple)
    text = value_text(value) if known else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def write(tables: Mapping[str, Any], *, comment: str = "") -> str:
    """A plan's tables as TOML: values of the top level first, one section per table, one per model."""
    blocks = ["\n".join(f"# {line}" for line in comment.splitlines())] if comment else []
    top = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    blocks.append("\n".join(f"{dotted((key,))} = {value_text(value)}" for key, value in top.items()))
    sections: list[tuple[Path, Mapping[str, Any]]] = []
    for key, value in tables.items():
        if key == "models":
            sections += [((key, name), model) for name, model in value.items()]
        elif key == "tune" and isinstance(value, Mapping) and _are_tables(value.get("search")):
            sections.append(((key,), {word: inner for word, inner in value.items() if word != "search"}))
            sections += [((key, "search", name), space) for name, space in value["search"].items()]
        elif isinstance(value, Mapping):
            sections.append(((key,), value))
    for path, section in sections:
        rows = [f"{dotted((key,))} = {value_text(value)}" for key, value in section.items()]
        blocks.append("\n".join([f"[{dotted(path)}]", *rows]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _are_tables(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(inner, Mapping) for inner in value.values())


def short(value: Any, key: str = "") -> Any:
    """Tables that hold a name alone as that name, and lists of one teacher as the teacher: easier to read."""
    if isinstance(value, dict) and key != "tune":
        if key in _SHORT and list(value) == ["name"]:
            return value["name"]
        return {inner: short(found, inner) for inner, found in value.items()}
    if key in ("augment", "objective") and isinstance(value, list):
        return [short(inner, key) for inner in value]
    return value[0] if key == "teacher" and isinstance(value, list) and len(value) == 1 else value
