"""A page of HTML from a template: one file with its style in it, without scripts and without the network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from potstill.report import format as fmt
from potstill.report.figures import GLYPH


def render(name: str, *, pictures: bool = False, **content: Any) -> str:
    """A template of this folder, filled. `pictures`: whether the page holds some, which its policy then allows."""
    style = resource("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
        loader=FunctionLoader(resource),
    )
    shown = "img-src data:; " if pictures else ""
    policy = f"default-src 'none'; {shown}style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    template = environment.get_template(name)
    return template.render(style=Markup(style), policy=policy, glyph=GLYPH, fmt=fmt, **content) + "\n"


def resource(name: str) -> str:
    """A template or the style sheet."""
    return files("potstill.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _final(thing: Any) -> Any:
    """Every expression of a template passes here: no control character reaches the page."""
    return fmt.clean(thing) if isinstance(thing, str) and not isinstance(thing, Markup) else thing
