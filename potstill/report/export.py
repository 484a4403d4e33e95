"""The page's figures as files of their own, for papers: SVG in light colours that needs no style sheet of a page."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from potstill.report.inputs import load
from potstill.report.page import render
from potstill.report.svg import Wanted
from potstill.storage import write_text
from potstill.study.plotted import Figures
from potstill.study.results import Results

INDEX: Final = "index.json"
PADDING: Final = 8  # units of paper around a figure
_DRAWING: Final = re.compile(
    r'<svg [^>]*aria-labelledby="([^"]+)-title"[^>]*><title[^>]*>(.*?)</title><desc[^>]*>(.*?)</desc>.*?</svg>',
    re.DOTALL,
)
_VARIABLE: Final = re.compile(r"var\(--([a-z]+)\)")
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Exported(NamedTuple):
    """One figure: its name without ending, title, description with the numbers, and its SVG."""

    name: str
    title: str
    description: str
    svg: str


def figures(results: Results, arrays: Figures | None = None, wanted: Wanted | None = None) -> list[Exported]:
    """Every figure of the page, in the page's order, or those whose name is wanted.

    The same results give the same names and texts.
    """
    style = files("potstill.report").joinpath("page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", style.split("}")[0]))
    rules = "\n".join(line for line in style.splitlines() if line.startswith(".tree "))
    found = []
    for match in _DRAWING.finditer(render(results, arrays, wanted)):
        name, title, description = match.groups()
        if wanted is not None and not wanted(name):
            continue
        alone = _alone(match.group(), rules, colours)
        found.append(Exported(name, html.unescape(title), html.unescape(description), alone))
    return found


def _alone(drawing: str, rules: str, colours: dict[str, str]) -> str:
    """A drawing with its own size, font, colours and white paper."""
    opening, rest = drawing.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', opening)
    left, top, width, height = (float(part) for part in box[1].split()) if box else (0.0, 0.0, 0.0, 0.0)
    size = (left - PADDING, top - PADDING, width + 2 * PADDING, height + 2 * PADDING)
    inside = f'viewBox="{size[0]:g} {size[1]:g} {size[2]:g} {size[3]:g}"'
    opening = re.sub(r'viewBox="[^"]+" width="[^"]+"', inside, opening)
    opening += f' width="{size[2]:g}" height="{size[3]:g}" font-family="{_FONT}" fill="{colours["ink"]}"'
    head, close, body = rest.partition("</desc>")
    style = f"<style>{rules}</style>" if 'class="tree"' in opening else ""
    corner = f'x="{size[0]:g}" y="{size[1]:g}" width="{size[2]:g}" height="{size[3]:g}"'
    paper = f'<rect {corner} fill="{colours["paper"]}"/>'
    whole = f"{opening}>{head}{close}{style}{paper}{body}\n"
    return _VARIABLE.sub(lambda name: colours[name.group(1)], whole)


def write_figures(folder: Path, out: Path) -> list[Path]:
    """Write every figure of a run's page into `out` as NAME.svg, and `index.json` with names, titles and texts.

    Returns the figures' paths. Raises what `report.write` raises.
    """
    results, arrays = load(Path(folder))
    paths = []
    index = []
    for one in figures(results, arrays):
        path = Path(out) / f"{one.name}.svg"
        write_text(path, one.svg)
        paths.append(path)
        index.append({"file": path.name, "title": one.title, "description": one.description})
    write_text(Path(out) / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return paths
