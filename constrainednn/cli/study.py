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
    pass


@app.command()
def study(
    source: Annotated[
        str | None,
        typer.Argument(metavar="FILE|NAME", help="A problem file, FILE.py:NAME, or gallery name."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="NAME=VALUE,VALUE",
            help="Values of a keyword of the problem function, or of method, steps, tolerance, "
            "heldout, monitor, redraw, early_stopping, time_limit or members; repeatable.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds for each combination.")] = 20,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="The same for one value in all runs; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the table; what is finished there is not run again."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of worker processes, of one thread each.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on the Dask cluster with this scheduler."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="loop or vmap; by default the faster one in a short trial."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run nothing: draw the table in this folder, into it."),
    ] = None,
) -> None:
    """Solve for all combinations of settings and all seeds; show the gap over seeds."""
    if plot is not None:
        if source or vary or out:
            fail("--plot DIR draws a table that is there: leave out FILE, --vary and --out.")
        with errors(str(plot), plot):
            prepare_jax()
            from constrainednn.studies.tables.figures import write_figures
            from constrainednn.studies.tables.table import load_study

            found = load_study(plot)
            show_text(found.shown(terminal_width()))
            for line in write_figures(found, plot):
                show_text(line)
        return
    if source is None:
        fail("study needs a problem: constrainednn study FILE --vary NAME=VALUE,VALUE.")
    with errors(source, out), contextlib.ExitStack() as stack:
        prepare_jax()
        from constrainednn._solve.problem_files import load_module, resolve
        from constrainednn._solve.problem_functions import find, problem_keywords
        from constrainednn.studies.study import study as run
        from constrainednn.studies.tables.rows import has_failed

        path, name = resolve(source)
        with warnings.catch_warnings():  # it is loaded again, and then heard
            warnings.simplefilter("ignore")
            keywords = problem_keywords(find(load_module(path), path, name))
        defaults = {key: item.default for key, item in keywords.items()}
        defaults |= {"method": "lm", "tolerance": 0.0, "early_stopping": False}
        defaults |= dict.fromkeys(("steps", "heldout", "monitor", "redraw"), 0)
        defaults |= {"time_limit": 0.0, "members": 1}
        axes = {}
        for option, items in (("vary", vary), ("set", settings)):
            for item in items or []:
                key, equals, text = item.partition("=")
                if not equals or not key:
                    fail(f"--{option} takes NAME=VALUE, got {item!r}.")
                texts = text.split(",") if option == "vary" else [text]
                axes[key] = [typed(key, text, defaults.get(key), option) for text in texts]
        found = run(
            source,
            vary=axes,
            seeds=seeds,
            out=out,
            workers=workers,
            executor=None if dask is None else stack.enter_context(_dask(dask)),
            engine=engine,
            progress=stack.enter_context(_study_bar()),
        )
        stack.close()
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


@contextlib.contextmanager
def _study_bar() -> Iterator[Any]:
    """A bar over runs on stderr, and nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    bar = Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        expand=True,
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("runs", total=None)
        yield lambda seen: bar.update(task, completed=seen.done, total=seen.runs)
