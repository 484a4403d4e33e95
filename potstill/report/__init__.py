"""One self-contained page about a run: `write(folder)` turns its results into `report.html`. Never imports torch."""

from potstill.report.export import write_figures
from potstill.report.page import write

__all__ = ["write", "write_figures"]
