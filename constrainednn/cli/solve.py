"""The commands that solve and resume."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from constrainednn._common.tables import terminal_width
from constrainednn.cli.app import app
from constrainednn.cli.environment import STARTED, prepare_jax
from constrainednn.cli.terminal import ENVIRONMENT, errors, fail, say, show_text
from constrainednn.cli.values import (
    Folder,
    Setting,
    Source,
    Tensorboard,
    TimeLimit,
    as_seconds,
    load,
)

if TYPE_CHECKING:
    from constrainednn._storage.run_folder import RunFolder
    from constrainednn.results.solution import Solution
    from constrainednn.runs.listeners import Sink


@app.command()
def solve(
    source: Source,
    method: Annotated[
        str | None,
        typer.Option(help="lm (the default), gd, adam, lbfgs, or a name in the file's `methods`."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Largest number of steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the model and of all points.")] = 0,
    tolerance: Annotated[
        float, typer.Option(help="Largest residual to call solved; equations have a default.")
    ] = 0.0,
    heldout: Annotated[
        int | None, typer.Option(help="Held-out points per constraint; default 4096.")
    ] = None,
    monitor: Annotated[
        int | None, typer.Option(help="Monitor points per constraint; default 1024.")
    ] = None,
    redraw: Annotated[
        int | None, typer.Option(help="Number of steps between new draws of the training points.")
    ] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Keep the lowest monitor loss, and stop by it.")
    ] = False,
    settings: Setting = None,
    time_limit: TimeLimit = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for checkpoints, model, history, report and figures."),
    ] = None,
    tensorboard: Tensorboard = False,
) -> None:
    """Solve a problem and report its gap. A problem file is Python code, run with your rights."""
    with errors(source, out):
        seconds = as_seconds(time_limit)
        prepare_jax()
        from constrainednn._solve.problem_functions import find_method
        from constrainednn._solve.solve import drive
        from constrainednn._storage.folders import check_folder
        from constrainednn._storage.run_folder import RunFolder
        from constrainednn.runs.display import displayed, of_run
        from constrainednn.runs.run import Arguments, Run

        if tensorboard and out is None:
            fail("--tensorboard writes into the run's folder: give --out DIR, too.")
        if out is not None:
            check_folder(out)
        problem, methods = load(source, settings)
        chosen = None if method is None else find_method(method, methods)
        imported = time.perf_counter() - STARTED
        with displayed(None, of_run) as progress:
            run = Run(
                problem,
                Arguments(steps, seed, tolerance, heldout, monitor, redraw, early_stopping),
                method_name=method or "",
                folder=None if out is None else RunFolder(out),
                time_limit=seconds,
                sinks=_sinks(out, tensorboard),
                progress=progress,
            )
            outcome = _outcome(lambda: drive(run, chosen))
        end_of(outcome, run.folder, imported)


@app.command()
def resume(
    folder: Folder,
    steps: Annotated[
        int | None, typer.Option(help="New limit of all steps together, to go further.")
    ] = None,
    time_limit: TimeLimit = None,
    allow_changed_problem: Annotated[
        bool,
        typer.Option(
            "--allow-changed-problem", help="Go on although the problem file has changed."
        ),
    ] = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Go on with a run of `solve --out`. This runs its problem file again: only resume your own."""
    with errors(str(folder), folder):
        seconds = as_seconds(time_limit)
        prepare_jax()
        from constrainednn._solve.resume import prepare
        from constrainednn._solve.solve import drive
        from constrainednn.runs.display import displayed, of_run

        imported = time.perf_counter() - STARTED
        with displayed(None, of_run) as progress:
            run, method = prepare(
                folder,
                steps=steps,
                time_limit=seconds,
                allow_changed_problem=allow_changed_problem,
                sinks=_sinks(folder, tensorboard),
                progress=progress,
            )
            outcome = _outcome(lambda: drive(run, method))
        end_of(outcome, run.folder, imported)


def _sinks(folder: Path | None, tensorboard: bool) -> "list[Sink]":
    if not tensorboard or folder is None:
        return []
    from constrainednn.runs.tensorboard import TensorBoard

    try:
        return [TensorBoard(folder / "tensorboard")]
    except ModuleNotFoundError as error:
        fail(str(error), ENVIRONMENT)


def _outcome(solve: "Callable[[], Solution]") -> "tuple[Solution, str]":
    """The solution, and why there is none that can be used."""
    from constrainednn.results.solution import SolveFailed

    try:
        return solve(), ""
    except SolveFailed as failed:
        return failed.solution, str(failed)


def end_of(
    outcome: "tuple[Solution, str]", folder: "RunFolder | None", imported: float
) -> NoReturn:
    """Print what was found and where it is, and end with the code that says how it went."""
    solution, failure = outcome
    code = _exit_code(solution)
    from constrainednn.results.summary import summary

    show_text(summary(solution, solution.verdict, terminal_width(), imported))
    if failure:
        say(f"error: {failure}", err=True)
    if folder is None:
        if solution.status in ("interrupted", "time_limit"):
            say("nothing was saved: give --out DIR to keep results", err=True)
    elif folder.failure:
        fail(f"{folder.path}: {folder.failure}. Make room, then: {_resume(folder)}", ENVIRONMENT)
    else:
        say(f"saved in {folder.path}")
        if solution.status in ("interrupted", "time_limit", "max_steps", "out_of_memory"):
            more = " --steps N" if solution.status == "max_steps" else ""
            say(f"continue with: {_resume(folder)}{more}")
    raise typer.Exit(code)


def _resume(folder: "RunFolder") -> str:
    return f"constrainednn resume {shlex.quote(str(folder.path))}"


def interrupted(reason: str) -> int:
    """The exit code of a process that a signal ended."""
    return 143 if "SIGTERM" in reason else 130


def _exit_code(solution: Any) -> int:
    """The exit code that the verdict asks for."""
    if solution.status == "interrupted":
        return interrupted(solution.reason)
    return 0 if solution.verdict.success else 1
