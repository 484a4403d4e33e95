"""Data: sources, splits, views. See `open`."""

from potstill.data import views
from potstill.data.loose import inputs, read_array
from potstill.data.named import names, options
from potstill.data.opening import Data, open
from potstill.data.source import ArraySource

__all__ = ["ArraySource", "Data", "inputs", "names", "open", "options", "read_array", "views"]
