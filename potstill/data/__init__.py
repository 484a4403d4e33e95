"""Data: sources, splits, views. See `open`."""

from potstill.data import views
from potstill.data.loose import inputs
from potstill.data.named import names, options
from potstill.data.opening import Data, open
from potstill.data.source import ArraySource

__all__ = ["ArraySource", "Data", "inputs", "names", "open", "options", "views"]
