"""How figures look: roles instead of colours, so that one drawing serves light and dark.

matplotlib is given a sentinel colour for each role; `svg.inline` replaces it by the style sheet's variable.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

ROLES: Final = (
    "ink",
    "quiet",
    "grid",
    "paper",
    "model",
    "baseline",
    "better",
    "worse",
    "equivalent",
    "undecided",
    "band",
)
SENTINEL: Final = {role: f"#01020{at:x}" for at, role in enumerate(ROLES, 1)}
VARIABLE: Final = {colour: f"var(--{role})" for role, colour in SENTINEL.items()}

INK, QUIET, GRID, PAPER = (SENTINEL[role] for role in ("ink", "quiet", "grid", "paper"))
BAND: Final = SENTINEL["band"]
MODEL, BASELINE = SENTINEL["model"], SENTINEL["baseline"]
_LETTER: Final = 6.9  # units that a letter is wide, about
_FITS: Final = 6
TEXT: Final = 12.0  # units of the viewBox: pixels where a figure is shown at its own size

_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "potstill",
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "font.size": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Settings of all figures, whatever the user's own matplotlibrc says.

    Warnings about letters that matplotlib's font lacks are silenced: the browser draws the text.
    """
    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in pixels, in which matplotlib's own pixels are those of the drawing, too."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def axes(figure: Figure, margins: tuple[float, float, float, float]) -> Axes:
    """Axes with these margins in pixels: left, top, right, bottom."""
    left, top, right, bottom = margins
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure.add_axes(box)


def make_room(figure: Figure) -> None:
    """Moves axes whose labels of ticks are longer than their margin, and takes ticks away where they would meet.

    Labels of at most six characters fit where figures are laid out; small numbers in units of the user's own do not.
    """
    width = figure.get_figwidth() * 72
    for ax in figure.axes:
        box = ax.get_position()
        longest = max((len(label) for label in _labels(ax.yaxis)), default=0)
        left = (_LETTER * longest + 8) / width
        if longest > _FITS and ax.axison and left > box.x0:
            ax.set_position((left, box.y0, box.x1 - left, box.height))
        locator, told = ax.xaxis.get_major_locator(), _labels(ax.xaxis)
        room = ax.get_position().width * width
        if isinstance(locator, MaxNLocator) and _LETTER * sum(map(len, told)) > room:
            locator.set_params(nbins=max(int(room / (_LETTER * max(map(len, told)) + 8)) - 1, 1))


def _labels(axis: Axis) -> list[str]:
    return axis.get_major_formatter().format_ticks([float(x) for x in axis.get_majorticklocs()])


def write(figure: Figure, at: tuple[float, float], text: str, *, colour: str = INK, align: str = "left") -> None:
    """Text at this many pixels from the upper left corner of the figure, on its baseline."""
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    figure.text(at[0] / width, 1 - at[1] / height, text, color=colour, ha=align, va="baseline")
