"""The command line. Importing it imports neither torch nor numpy: commands import what they need when they run."""

from potstill.cli.entry import call, main

__all__ = ["call", "main"]
