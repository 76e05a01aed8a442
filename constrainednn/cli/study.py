"""The command that runs studies."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constrainednn._common.tables import terminal_width
from constrainednn.cli.app import app
from constrainednn.cli.environment import prepare_jax
from constrainednn.cli.solve import interrupted
from constrainednn.cli.terminal import ENVIRONMENT, PARTLY, errors, fail, say, show_text
from constrainednn.cli.values import typed

if TYPE_CHECKING:
    from constrainednn.studies.tables.table import Study

_Problem = Annotated[
    str | None,
    typer.Argument(metavar="FILE|NAME", help="A problem file, FILE.py:NAME, or a gallery name."),
]
_Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="NAME=VALUE,VALUE",
        help="Values of a keyword of the problem function, or of method, steps, tolerance, "
        "heldout, monitor, redraw, early_stopping, time_limit or members; repeatable.",
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="One value of such a setting for all runs; repeatable."
    ),
]
_Dask = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on the Dask cluster with this scheduler."),
]
_Plot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run nothing; draw the study in this folder, and save there."),
]


@app.command()
def study(
    source: _Problem = None,
    vary: _Vary = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds per combination.")] = 20,
    settings: _Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the table; runs finished there are not repeated."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of worker processes, one thread each.")
    ] = None,
    dask: _Dask = None,
    engine: Annotated[
        str | None,
        typer.Option(help="loop or vmap; by default whichever is faster in a short trial."),
    ] = None,
    plot: _Plot = None,
) -> None:
    """Solve for all combinations of settings and all seeds; show the gap over seeds."""
    if plot is not None:
        if source or vary or out:
            fail("--plot DIR draws a study that is there: leave out FILE, --vary and --out.")
        _draw(plot)
        return
    if source is None:
        fail("study needs a problem: constrainednn study FILE --vary NAME=VALUE,VALUE.")
    with errors(source, out), contextlib.ExitStack() as stack:
        prepare_jax()
        from constrainednn.studies.study import study as run

        found = run(
            source,
            vary=_values(source, {"vary": vary or [], "set": settings or []}),
            seeds=seeds,
            out=out,
            workers=workers,
            executor=None if dask is None else stack.enter_context(_dask(dask)),
            engine=engine,
        )
        stack.close()
        _end(found, out)


def _draw(folder: Path) -> None:
    """Show the table in a folder, and draw its figures there."""
    with errors(str(folder), folder):
        prepare_jax()
        from constrainednn.studies.tables.figures import write_figures
        from constrainednn.studies.tables.table import load_study

        found = load_study(folder)
        show_text(found.shown(terminal_width()))
        for line in write_figures(found.rows, found.axes, found.name, folder):
            show_text(line)


def _values(source: str, options: dict[str, list[str]]) -> dict[str, list[object]]:
    """The values of each setting, read as the type of its default."""
    from constrainednn._solve.problem_files import load_module, resolve
    from constrainednn._solve.problem_functions import find, problem_keywords

    path, name = resolve(source)
    with warnings.catch_warnings():  # the file is loaded again, and its warnings shown then
        warnings.simplefilter("ignore")
        keywords = problem_keywords(find(load_module(path), path, name))
    defaults = {key: item.default for key, item in keywords.items()}
    defaults |= {"method": "lm", "tolerance": 0.0, "early_stopping": False}
    defaults |= dict.fromkeys(("steps", "heldout", "monitor", "redraw"), 0)
    defaults |= {"time_limit": 0.0, "members": 1}
    values = {}
    for option, items in options.items():
        for item in items:
            key, equals, text = item.partition("=")
            if not equals or not key:
                fail(f"--{option} takes NAME=VALUE, got {item!r}.")
            texts = text.split(",") if option == "vary" else [text]
            values[key] = [typed(key, text, defaults.get(key), option) for text in texts]
    return values


def _end(found: "Study", out: Path | None) -> None:
    """Show the table and where it is, and end with the code that says how the study went."""
    from constrainednn.studies.tables.rows import has_failed

    show_text(found.shown(terminal_width()))
    if out is not None:
        say(f"saved in {out}")
    if not found.complete:
        raise typer.Exit(interrupted(found.ended_by))
    if any(map(has_failed, found.rows)):
        raise typer.Exit(PARTLY)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Any]:
    """An executor on a Dask cluster."""
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        fail("--dask needs Dask: pip install 'constrainednn[dask]'.", ENVIRONMENT)
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        fail(f"no Dask scheduler answers at {address}: {error}", ENVIRONMENT)
    with client:
        yield client.get_executor()
