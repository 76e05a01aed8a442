"""The command line: one file for each group of commands."""

from constrainednn.cli.entry import main

__all__ = ["main"]
