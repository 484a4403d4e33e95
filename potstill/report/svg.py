"""A matplotlib figure as SVG that may stand inside a page: no style attributes, no fixed size, ids of its own.

matplotlib's SVG repeats ids from figure to figure and carries inline styles, which the page's
Content-Security-Policy forbids. Here styles become attributes, sentinel colours the page's variables, and only
ids that something refers to are kept, with the figure's prefix.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib.figure import Figure

from potstill.report.format import clean
from potstill.report.theme import VARIABLE, make_room

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_KEPT = {
    "clip-path", "fill", "fill-opacity", "font-size", "font-weight", "opacity", "stroke", "stroke-dasharray",
    "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
}  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"^url\(#(.+)\)$")
Wanted: TypeAlias = Callable[[str], bool]
_WANTED: Final[ContextVar[Wanted | None]] = ContextVar("_WANTED", default=None)


@contextmanager
def only(wanted: Wanted | None) -> Iterator[None]:
    """Within it figures whose prefix is not wanted are empty: drawing is most of a page's work. None wants all."""
    token = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(token)


def inline(figure: Figure, *, prefix: str, title: str, description: str) -> Markup:
    """The figure as one `<svg>` element with a title and description for screen readers.

    Every id starts with `prefix`; the same figure always gives the same text.
    """
    wanted = _WANTED.get()
    if wanted is not None and not wanted(prefix):
        return element("", prefix=prefix, title=title, description=description, box="0 0 0 0", kind="plot")
    make_room(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(buffer.getvalue())
    used = _references(root)
    names = {old: f"{prefix}-{at}" for at, old in enumerate(sorted(used))}
    for one in root.iter():
        _tidy(one, names)
    _flatten(root)
    box = root.get("viewBox", "")
    content = "".join(_text(child) for child in root)
    return element(content, prefix=prefix, title=title, description=description, box=box, kind="plot")


def element(content: str, *, prefix: str, title: str, description: str, box: str, kind: str) -> Markup:
    """An `<svg>` element around ready-made content, named by `title` and described by `description`."""
    head = Markup('<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>').format(
        prefix, clean(title), clean(description)
    )
    opening = Markup(
        '<svg class="{}" viewBox="{}" width="{}" role="img" aria-labelledby="{}-title" aria-describedby="{}-desc" '
        'xmlns="http://www.w3.org/2000/svg" stroke-linejoin="round">'
    ).format(kind, box, box.split()[2], prefix, prefix)
    return Markup("{}{}{}</svg>").format(opening, head, Markup(content))


def _references(root: ET.Element) -> set[str]:
    used = set()
    for one in root.iter():
        for key, value in one.attrib.items():
            found = _REFERENCE.match(value)
            if found:
                used.add(found.group(1))
            elif key == _LINK:
                used.add(value.removeprefix("#"))
    return used


def _tidy(one: ET.Element, names: dict[str, str]) -> None:
    style = dict(part.split(":", 1) for part in one.attrib.pop("style", "").split(";") if ":" in part)
    for key, value in style.items():
        if key.strip() in _KEPT:
            one.set(key.strip(), value.strip())
    for key, value in list(one.attrib.items()):
        reference = _REFERENCE.match(value)
        if key == "id":
            del one.attrib[key]
            if value in names:
                one.set(key, names[value])
        elif key == _LINK:
            del one.attrib[key]
            one.set("href", f"#{names[value.removeprefix('#')]}")
        elif reference:
            one.set(key, f"url(#{names[reference.group(1)]})")
        elif value.lower() in VARIABLE:
            one.set(key, VARIABLE[value.lower()])
        elif key == "font-size":
            one.set(key, value.removesuffix("px"))
        elif key == "transform" and value.startswith("rotate(-0 "):
            del one.attrib[key]
        elif key not in ("href", "fill", "stroke"):
            one.set(key, _NUMBER.sub(_round, " ".join(value.split())))


def _round(found: re.Match[str]) -> str:
    return f"{float(found.group()):.2f}".rstrip("0").rstrip(".")


def _flatten(parent: ET.Element) -> None:
    """Take out groups that say nothing, matplotlib's own style element, and white space."""
    children: list[ET.Element] = []
    for child in list(parent):
        _flatten(child)
        child.tail = None
        if child.tag == f"{_SVG}style" or (child.tag in (f"{_SVG}g", f"{_SVG}defs") and len(child) == 0):
            continue
        if child.tag == f"{_SVG}g" and not child.attrib:
            children.extend(child)
        else:
            children.append(child)
    parent[:] = children
    if parent.tag != f"{_SVG}text":
        parent.text = None


def _text(one: ET.Element) -> str:
    for inner in one.iter():
        inner.tag = inner.tag.removeprefix(_SVG)
    return ET.tostring(one, encoding="unicode")
