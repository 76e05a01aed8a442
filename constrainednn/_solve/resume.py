"""Resuming a run from its folder."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from constrainednn._common.arguments import as_path
from constrainednn._common.messages import shown
from constrainednn._common.paths import gallery
from constrainednn._problem.problem import Problem
from constrainednn._solve.problem_files import file_digest, load_module
from constrainednn._solve.problem_functions import build, find_method, methods_of
from constrainednn._solve.solve import drive
from constrainednn._storage.run_folder import RECORD, RunFolder
from constrainednn.errors import BadTypeError, BadValueError, StoreError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.stages import Stage
from constrainednn.results.solution import Solution
from constrainednn.runs.display import displayed, of_run
from constrainednn.runs.listeners import Progress, Sink
from constrainednn.runs.run import Arguments, Run


def resume(
    path: str | Path,
    problem: Problem | None = None,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    steps: int | None = None,
    time_limit: float | None = None,
    allow_changed_problem: bool = False,
    sinks: Sequence[Sink] = (),
    progress: bool | Callable[[Progress], None] | None = None,
) -> Solution:
    """Go on with a run that was started with `out`, from its last checkpoint.

    On the same machine, with the same versions and number of threads, the result is that of a run
    that never stopped, to the last bit. The problem file is run again, with your rights: resume
    only runs that you started.

    Args:
        path: The folder of the run.
        problem: The problem; needed if it was not loaded from a file.
        method: The method; needed if it was neither the default nor named at the command line.
        steps: New limit of all steps together, to go further than asked for at first.
        time_limit: Seconds from now; a limit of the earlier run does not count.
        allow_changed_problem: Go on although the problem file or the method differs. What is in
            the checkpoint must still fit.
        sinks: As in `solve`.
        progress: As in `solve`.

    Returns:
        The solution, which is also saved.

    Raises:
        StoreError: If the folder holds no run, another process writes to it, or the problem, its
            dtype or structure differs; the difference is named.
        LoadError: If the problem file does not load.
        SolveFailed, ProblemError, TypeError, ValueError: As `solve`.
    """
    with displayed(progress, of_run) as display:
        run, chosen = prepare(
            as_path(path, "path of resume"),
            problem,
            method,
            steps=steps,
            time_limit=time_limit,
            allow_changed_problem=allow_changed_problem,
            sinks=sinks,
            progress=display,
        )
        return drive(run, chosen)


def prepare(
    path: Path,
    problem: Problem | None = None,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    steps: int | None,
    time_limit: float | None,
    allow_changed_problem: bool,
    sinks: Sequence[Sink],
    progress: Callable[[Progress], None] | None,
) -> tuple[Run, AbstractMethod | Stage | Sequence[Stage] | None]:
    """The run to drive on and its method. Arguments and errors as in `resume`."""
    if problem is not None and not isinstance(problem, Problem):
        raise BadTypeError(f"problem of resume must be a cx.Problem, got {shown(problem)}.")
    folder = RunFolder(path)
    record = folder.reopen()
    try:
        arguments, source, name = _stated(record, path)
        if problem is None:
            problem, methods = _loaded(source, path, allow_changed=allow_changed_problem)
            if method is None and name:
                method = find_method(name, methods)
        if steps is not None:
            arguments["steps"] = steps
        run = Run(
            problem,
            Arguments(**arguments),
            method_name=name,
            folder=folder,
            record=record,
            allow_changed=allow_changed_problem,
            time_limit=time_limit,
            sinks=sinks,
            progress=progress,
        )
        taken = run.taken
        if steps is not None and steps < taken:
            raise BadValueError(
                f"steps={steps} is less than the {taken} steps that {path} has taken. Steps of all "
                "parts together are counted."
            )
    except BaseException:
        folder.close()
        raise
    return run, method


def _stated(record: dict[str, Any], path: Path) -> tuple[dict[str, Any], Any, str]:
    """What the record says, or the first thing that is wrong with it."""
    arguments, name, settings = (record.get(key) for key in ("arguments", "method", "settings"))
    known = set(Arguments.__dataclass_fields__)
    if not isinstance(arguments, dict) or not set(arguments) <= known:
        raise StoreError(f"{path / RECORD} is damaged: it has no arguments.")
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise StoreError(f"{path / RECORD} is damaged: it has no method or settings.")
    return dict(arguments), record.get("source"), name


def _loaded(source: Any, folder: Path, *, allow_changed: bool) -> tuple[Problem, dict[str, Any]]:
    """Load the recorded problem file, once it is known to be the same."""
    if source is None:
        raise StoreError(
            f"{folder}: the problem was stated in Python. Give it: cx.resume(folder, problem)."
        )
    try:
        path, name = Path(source["path"]), source["name"]
        settings, files = dict(source["settings"]), dict(source["files"])
        if source["gallery"]:
            file = gallery()[source["path"]]
        else:
            file = (folder.resolve() / path).resolve()
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder / RECORD} is damaged: {error!r}") from None
    if file.is_relative_to(folder.resolve()):
        # A folder from somebody else must not bring the code that is run.
        raise StoreError(f"{folder}: the problem file {file} lies in the run's own folder.")
    if not file.is_file():
        raise StoreError(
            f"{folder}: there is no problem file {file} any more. Put it back, or give the "
            "problem: cx.resume(folder, problem)."
        )
    for beside, before in files.items():
        if Path(str(beside)).name != beside:
            raise StoreError(f"{folder / RECORD} is damaged: {beside!r} is no file name.")
        now = file_digest(file.parent / beside)
        if now != before and not allow_changed:
            raise StoreError(
                f"{folder}: {beside} has changed since the run was started: its SHA-256 was "
                f"{before!s:.12} and is {now or 'that of no file':.12}. Undo the change, or "
                "continue anyway with --allow-changed-problem (allow_changed_problem=True)."
            )
    module = load_module(file)
    function = getattr(module, str(name), None)
    if inspect.isroutine(function):
        home = getattr(sys.modules.get(function.__module__ or ""), "__file__", None) or ""
        if Path(home).resolve().parent != file.parent:
            # What the file imports from elsewhere is no problem: a record must not choose what
            # is called.
            raise StoreError(f"{folder / RECORD} is damaged: {file.name} defines no {name!r:.100}.")
    return build(module, file, name, settings), methods_of(module, file)
