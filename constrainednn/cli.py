"""The command line. Imports jax only when it is about to compute."""

import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from constrainednn._terminal import terminal_width, wrapped

if TYPE_CHECKING:
    from constrainednn._run_folder import RunFolder
    from constrainednn._solution import Solution
    from constrainednn._watching import Progress, Sink


_STARTED = time.perf_counter()

USER, ENVIRONMENT, PARTLY = 2, 3, 4

app = typer.Typer(
    name="constrainednn",
    help=(
        "Learn functions from constraints and report an honest generalization gap.\n\n"
        "A problem file is Python code: every command that takes one runs it with your rights."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[
    str,
    typer.Argument(metavar="FILE|NAME", help="A problem file, FILE.py:NAME, or a gallery name."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Keyword of the problem function; repeatable."),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit", metavar="TIME", help="End the run after this time, such as 90s, 30m or 2h."
    ),
]
Tensorboard = Annotated[
    bool, typer.Option("--tensorboard", help="Write the losses for TensorBoard, too.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a C locale cannot show every name
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(show: bool) -> bool:
    if show:
        import constrainednn

        typer.echo(constrainednn.__version__)
        raise typer.Exit
    return show


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


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
        float, typer.Option(help="Stop when the root of the loss is at most this.")
    ] = 0.0,
    heldout: Annotated[
        int | None, typer.Option(help="Held-out points a constraint; default 4096.")
    ] = None,
    monitor: Annotated[
        int | None, typer.Option(help="Monitor points a constraint; default 1024.")
    ] = None,
    redraw: Annotated[
        int | None, typer.Option(help="Draw new training points every so many steps.")
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
    with _errors(source, out):
        seconds = _seconds(time_limit)
        _prepare_jax()
        from constrainednn._folders import check_folder
        from constrainednn._load import find_method
        from constrainednn._run import Arguments, Run
        from constrainednn._run_folder import RunFolder
        from constrainednn._solve import drive

        if tensorboard and out is None:
            _fail("--tensorboard writes into the run's folder: give --out DIR, too.")
        if out is not None:
            check_folder(out)
        problem, methods = _load(source, settings)
        chosen = None if method is None else find_method(method, methods)
        imported = time.perf_counter() - _STARTED
        with _bar() as progress:
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
        _end(outcome, run.folder, imported)


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
    with _errors(str(folder), folder):
        seconds = _seconds(time_limit)
        _prepare_jax()
        from constrainednn._resume import prepare
        from constrainednn._solve import drive

        imported = time.perf_counter() - _STARTED
        with _bar() as progress:
            run, method = prepare(
                folder,
                steps=steps,
                time_limit=seconds,
                allow_changed_problem=allow_changed_problem,
                sinks=_sinks(folder, tensorboard),
                progress=progress,
            )
            outcome = _outcome(lambda: drive(run, method))
        _end(outcome, run.folder, imported)


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
        int | None, typer.Option(help="Run in so many processes of one thread each.")
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
            _fail("--plot DIR draws a table that is there: leave out FILE, --vary and --out.")
        with _errors(str(plot), plot):
            _prepare_jax()
            from constrainednn._study_plots import write_figures
            from constrainednn._study_table import load_study

            found = load_study(plot)
            _show(found.shown(terminal_width()))
            for line in write_figures(found, plot):
                _show(line)
        return
    if source is None:
        _fail("study needs a problem: constrainednn study FILE --vary NAME=VALUE,VALUE.")
    with _errors(source, out), contextlib.ExitStack() as stack:
        _prepare_jax()
        from constrainednn._load import find, load_module, problem_keywords, resolve
        from constrainednn._study import study as run
        from constrainednn._study_table import has_failed

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
                    _fail(f"--{option} takes NAME=VALUE, got {item!r}.")
                texts = text.split(",") if option == "vary" else [text]
                axes[key] = [_typed(key, text, defaults.get(key), option) for text in texts]
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
        _show(found.shown(terminal_width()))
        if out is not None:
            _say(f"saved in {out}")
        if not found.complete:
            raise typer.Exit(_interrupted(found.ended_by))
        if any(map(has_failed, found.rows)):
            raise typer.Exit(PARTLY)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Any]:
    """An executor on a Dask cluster."""
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        _fail("--dask needs Dask: pip install 'constrainednn[dask]'.", ENVIRONMENT)
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        _fail(f"no Dask scheduler answers at {address}: {error}", ENVIRONMENT)
    with client:
        yield client.get_executor()


@app.command()
def show(folder: Folder) -> None:
    """Print the state of a run from its files alone; runs none of its code."""
    with _errors(str(folder)):
        from constrainednn._show import show as state

        _show(state(folder))


@app.command()
def check(
    source: Source,
    seed: Annotated[int, typer.Option(help="Seed of the model and of all points.")] = 0,
    settings: Setting = None,
) -> None:
    """Evaluate every residual before training: shapes, dtypes, finiteness, gradients."""
    with _errors(source):
        _prepare_jax()
        import jax

        from constrainednn._check import check_constraint, check_trained
        from constrainednn._load import user_traceback
        from constrainednn._validate import as_seed

        problem, _ = _load(source, settings)
        key = jax.random.key(as_seed(seed))
        model = problem.build_model(key=key)
        check_trained(model, problem.trainable)
        failed = False
        for constraint in problem.constraints:
            try:
                finding = check_constraint(problem, constraint, model, key=key)
            except Exception as error:  # noqa: BLE001  (the user's own; the others are checked too)
                failed = True
                _say(user_traceback(error), err=True)
                _say(f"FAIL constraint {constraint.name!r} raises {type(error).__name__}: {error}")
                continue
            if finding.error:
                failed = True
                _say(f"FAIL {finding.error}")
            else:
                _say(
                    f"ok   {finding.constraint}: residual of shape {finding.shape}, finite with a "
                    f"finite gradient, RMS {finding.rms:.3g} before training"
                )
            for warning in finding.warnings:
                _say(f"warn {warning}")
        if failed:
            raise typer.Exit(USER)


@app.command()
def problems() -> None:
    """List the gallery, one line each."""
    import ast

    from constrainednn._paths import gallery

    listed = gallery()
    width = max((len(name) for name in listed), default=0)
    for name, path in listed.items():
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        _show(f"{name:<{width}}  {doc.splitlines()[0] if doc else ''}")


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="Gallery problem to copy.")],
) -> None:
    """Copy a gallery problem to start from."""
    with _errors(source):
        from constrainednn._files import copy_file
        from constrainednn._paths import gallery
        from constrainednn._validate import known_names

        if file.suffix != ".py":
            _fail(f"{file} must end in .py, or solve would take it for a gallery name.")
        known = gallery()
        if source not in known:
            _fail(f"no gallery problem is named {source!r}. {known_names(source, known)}")
        copy_file(known[source], file)
        _say(f"wrote {file}; try: constrainednn solve {shlex.quote(str(file))}")


def _say(message: str, err: bool = False) -> None:
    # Control characters in names must not reach the terminal.
    typer.echo("".join(c if c.isprintable() or c in "\n\t" else "?" for c in message), err=err)


def _show(text: str) -> None:
    """Results on stdout, wrapped at words where that is a terminal."""
    _say(wrapped(text, terminal_width()))


def _fail(message: str, code: int = USER) -> NoReturn:
    _say(f"error: {message}", err=True)
    raise typer.Exit(code)


def _show_warning(message: Warning | str, *_: object) -> None:
    _say(f"warning: {message}", err=True)


@contextlib.contextmanager
def _errors(source: str, folder: Path | None = None) -> Iterator[None]:
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
            kept = f"go on with: constrainednn resume {shlex.quote(str(folder))}"
        _fail(f"interrupted; {kept}", 143 if str(stopped) == "SIGTERM" else 130)
    except Exception as error:  # noqa: BLE001  (the outermost frame: everything ends here)
        _explain(error, source)


def _explain(error: Exception, source: str) -> NoReturn:
    from constrainednn._errors import LoadError, StoreError, UsageError

    if isinstance(error, LoadError) and error.details:
        _say(error.details, err=True)
    if isinstance(error, (LoadError, StoreError, UsageError)):
        _fail(str(error))
    if type(error).__module__.startswith("jax") and "RESOURCE_EXHAUSTED" in str(error):
        _fail(f"out of memory: {str(error).splitlines()[0]}. Lower points or width.", 1)
    from constrainednn._load import resolve, user_traceback

    try:
        name = resolve(source)[0].name
    except LoadError:  # the folder of a run
        name = source
    if trace := user_traceback(error):
        _say(trace, err=True)
    _fail(f"{name} raises {type(error).__name__}: {error}")


def _prepare_jax() -> None:
    """Switch float64 on unless the user decided, and check what jax would die of."""
    flags = os.environ.get("XLA_FLAGS")
    if flags:  # XLA ends the process where it does not know a flag: let it end another one
        trial = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], capture_output=True, text=True
        )
        if trial.returncode < 0 or "XLA_FLAGS" in trial.stderr:
            reason = (trial.stderr.strip().splitlines() or ["it ends the process"])[-1]
            _fail(f"environment variable XLA_FLAGS={flags!r}: {reason}", ENVIRONMENT)
    for name in ("JAX_ENABLE_X64", "JAX_DISABLE_JIT", "JAX_DEBUG_NANS"):
        value = os.environ.get(name)
        if value is not None and value.lower() not in (
            "0",
            "1",
            "true",
            "false",
            "yes",
            "no",
            "on",
            "off",
            "t",
            "f",
            "y",
            "n",
        ):
            _fail(f"environment variable {name}={value!r}: write 1 or 0.", ENVIRONMENT)
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    # Factorisations go through the BLAS of SciPy, which reads this when it is first imported. Its
    # threads wait for each other in busy loops: on two cores that others used, too, solves of any
    # size (100 x 322 to 1000 x 1502) took 4 to 60 times as long with the default.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # without its plugin a platform is asserted
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).splitlines() or ["it is not installed here"])[0]
        _fail(
            f"jax finds no device for JAX_PLATFORMS={platforms!r}: {reason}. "
            "Unset it, or write JAX_PLATFORMS=cpu.",
            ENVIRONMENT,
        )


def _load(source: str, settings: list[str] | None) -> tuple[Any, dict[str, Any]]:
    import inspect

    from constrainednn._load import build, find, load_module, methods_of, problem_keywords, resolve

    path, name = resolve(source)
    module = load_module(path)
    keywords = problem_keywords(find(module, path, name))
    values = {}
    for item in settings or []:
        key, equals, text = item.partition("=")
        if not equals or not key:
            _fail(f"--set takes KEY=VALUE, got {item!r}.")
        default = keywords[key].default if key in keywords else None
        required = default is inspect.Parameter.empty
        values[key] = _typed(key, text, None if required else default)
    return build(module, path, name, values), methods_of(module, path)


def _typed(key: str, text: str, default: object, option: str = "set") -> object:
    """Read a setting as the type of the keyword's default."""
    if isinstance(default, bool):
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in known:
            return known[text.lower()]
        _fail(f"--{option} {key}={text}: write true or false.")
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            _fail(f"--{option} {key}={text}: expected {kind}, like the default {default!r}.")
    if default is None or isinstance(default, str):
        return text
    _fail(f"--{option} {key}: its default {default!r} is no number or text; change it in the file.")


def _seconds(text: str | None) -> float | None:
    """Read a time such as 90, 90s, 30m, 2h or 1h30m."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d*)?)s?)?", text.strip())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        _fail(f"--time-limit {text}: write a time above zero such as 90s, 30m, 2h or 1h30m.")
    return total


def _sinks(folder: Path | None, tensorboard: bool) -> "list[Sink]":
    if not tensorboard or folder is None:
        return []
    from constrainednn._sinks import TensorBoard

    try:
        return [TensorBoard(folder / "tensorboard")]
    except ModuleNotFoundError as error:
        _fail(str(error), ENVIRONMENT)


def _outcome(solve: "Callable[[], Solution]") -> "tuple[Solution, str]":
    """The solution, and why there is none that can be used."""
    from constrainednn._solution import SolveFailed

    try:
        return solve(), ""
    except SolveFailed as failed:
        return failed.solution, str(failed)


def _end(outcome: "tuple[Solution, str]", folder: "RunFolder | None", imported: float) -> NoReturn:
    """Print what was found and where it is, and end with the code that says how it went."""
    solution, failure = outcome
    code = _exit_code(solution)
    try:
        _print_solution(solution, imported)
    except BrokenPipeError:  # `| head` closed the pipe: all is saved by now
        raise typer.Exit(ENVIRONMENT if folder and folder.failure else code) from None
    if failure:
        _say(f"error: {failure}", err=True)
    if folder is None:
        if solution.status in ("interrupted", "time_limit"):
            _say("nothing was saved: give --out DIR to keep results", err=True)
    elif folder.failure:
        _fail(f"{folder.path}: {folder.failure}. Make room, then: {_resume(folder)}", ENVIRONMENT)
    else:
        _say(f"saved in {folder.path}")
        if solution.status in ("interrupted", "time_limit", "max_steps", "out_of_memory"):
            more = " --steps N" if solution.status == "max_steps" else ""
            _say(f"go on with: {_resume(folder)}{more}")
    raise typer.Exit(code)


def _resume(folder: "RunFolder") -> str:
    return f"constrainednn resume {shlex.quote(str(folder.path))}"


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


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """A live bar on stderr, and nothing where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),  # what the others leave of 80 columns
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("train {task.fields[train]}  monitor {task.fields[monitor]}"),
        TextColumn("{task.fields[left]}"),
        expand=True,
        console=console,
        transient=True,
    )

    def show(seen: "Progress") -> None:
        bar.update(
            task,
            description=seen.phase,
            completed=seen.step,
            total=seen.steps,
            train=_loss(seen.train),
            monitor=_loss(seen.monitor),
        )
        seconds = bar.tasks[0].time_remaining
        # None before the first steps, 0 after the last: the gap takes a time that nobody knows.
        bar.update(task, left=f"{timedelta(seconds=round(seconds))} left" if seconds else "")

    with bar:
        task = bar.add_task("starting", total=None, train="-", monitor="-", left="")
        yield show


def _loss(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1e}"


def _print_solution(solution: "Solution", imported: float) -> None:
    from rich.console import Console

    from constrainednn._report import error_lines, gap_tables, header, notes, unknown_lines

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)

    def say(line: str) -> None:
        # Lines wrap at words, and not at all in a file.
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    say(str(solution.verdict))
    for table in gap_tables(solution.gap, console):
        console.print(table)
    text = header(solution).replace("compile ", f"import {imported:.2f} s, compile ")
    lines = [*unknown_lines(solution), *error_lines(solution), *notes(solution.gap)]
    for line in [*lines, "", text]:
        say(line)


def _interrupted(reason: str) -> int:
    return 143 if "SIGTERM" in reason else 130


def _exit_code(solution: Any) -> int:
    if solution.status == "interrupted":
        return _interrupted(solution.reason)
    return 0 if solution.verdict.success else 1
