"""What the command line prints, and how it ends."""

import contextlib
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from constrainednn._common.tables import terminal_width, wrapped

if TYPE_CHECKING:
    pass


USER, ENVIRONMENT, PARTLY = 2, 3, 4


def say(message: str, err: bool = False) -> None:
    """Print a line without the control characters that names may hold."""
    # Control characters in names must not reach the terminal.
    typer.echo("".join(c if c.isprintable() or c in "\n\t" else "?" for c in message), err=err)


def show_text(text: str) -> None:
    """Results on stdout, wrapped at words where that is a terminal."""
    say(wrapped(text, terminal_width()))


def fail(message: str, code: int = USER) -> NoReturn:
    """End with an error message and its exit code."""
    say(f"error: {message}", err=True)
    raise typer.Exit(code)


def _show_warning(message: Warning | str, *_: object) -> None:
    say(f"warning: {message}", err=True)


@contextlib.contextmanager
def errors(source: str, folder: Path | None = None) -> Iterator[None]:
    """Turn our exceptions into one line and an exit code; show the user's own as theirs."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt as stopped:  # the second signal, or one before the run began
        kept = "nothing was saved"
        if folder is not None and (folder / "run.json").exists():
            kept = f"continue with: constrainednn resume {shlex.quote(str(folder))}"
        fail(f"interrupted; {kept}", 143 if str(stopped) == "SIGTERM" else 130)
    except Exception as error:  # noqa: BLE001  (the outermost frame: everything ends here)
        _explain(error, source)


def _explain(error: Exception, source: str) -> NoReturn:
    from constrainednn.errors import LoadError, StoreError, UsageError

    if isinstance(error, LoadError) and error.details:
        say(error.details, err=True)
    if isinstance(error, (LoadError, StoreError, UsageError)):
        fail(str(error))
    if type(error).__module__.startswith("jax") and "RESOURCE_EXHAUSTED" in str(error):
        fail(f"out of memory: {str(error).splitlines()[0]}. Lower points or width.", 1)
    from constrainednn._common.messages import user_traceback
    from constrainednn._solve.problem_files import resolve

    try:
        name = resolve(source)[0].name
    except LoadError:  # the folder of a run
        name = source
    if trace := user_traceback(error):
        say(trace, err=True)
    fail(f"{name} raises {type(error).__name__}: {error}")
