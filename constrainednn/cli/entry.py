"""The entry point of the command line."""

import inspect
import io
import os
import sys

from constrainednn.cli import files, report, solve, study  # noqa: F401  (they register their commands)
from constrainednn.cli.app import app


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a C locale cannot show every name
    for command in app.registered_commands:
        # Lists of commands would be cut in the middle of a sentence.
        about = inspect.getdoc(command.callback) or ""
        command.short_help = about.partition("\n\n")[0].replace("\n", " ")
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
