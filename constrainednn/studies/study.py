"""Studies: a grid of settings times seeds, one row a run, in a table that outlives the study.

Runs are paired by construction: every stream of points, and the first parameters, depend on the
seed alone. A run that diverged or failed is a row like others.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from constrainednn._common.arguments import as_count, as_path
from constrainednn._common.memory import usable_cores
from constrainednn._common.messages import shown
from constrainednn._problem.problem import Problem
from constrainednn.errors import (
    BadTypeError,
    BadValueError,
    ProblemWarning,
    RunWarning,
    StoreError,
)
from constrainednn.models.recipes import is_recipe
from constrainednn.runs.display import displayed
from constrainednn.runs.signals import Stop, collected_signals
from constrainednn.studies.axes import MOST, Combination, as_axes, as_seeds
from constrainednn.studies.folder import StudyFolder, source_of
from constrainednn.studies.scheduler import Elsewhere, Executor, Here, patience, run_all
from constrainednn.studies.stated import Stated
from constrainednn.studies.tables.table import Study
from constrainednn.studies.tasks import ENGINES, StudyProgress, goes_alone
from constrainednn.studies.workers import Workers


def study(
    problem: Problem | Callable[..., Problem] | str | Path,
    *,
    vary: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 20,
    out: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    engine: str | None = None,
    progress: bool | Callable[[StudyProgress], None] | None = None,
    **arguments: Any,
) -> Study:
    """Run a problem for every combination of settings and every seed.

    Args:
        problem: A function with keyword defaults that returns a problem, a file or gallery name
            with one, or a problem.
        vary: Axes by name: a sequence of values for a keyword of the function, or for `method`,
            `steps`, `tolerance`, `heldout`, `monitor`, `redraw`, `early_stopping` or `time_limit`
            of `solve`; or `members`, for ensembles of so many solutions (`cx.ensemble`), which
            judge by the held-out points of the single run of that seed.
            Values that are no plain numbers or text, such as methods, are given as a dict from
            labels to values.
        seeds: So many seeds from 0 on, or the seeds.
        out: Folder of the table, new or of the same study: what is finished there is not run again,
            and axes and seeds may be added, removed or in another order.
        workers: Number of other processes of this machine to run in, with one thread each. The
            problem must then be a file, its settings numbers or text, and methods names. With a
            `time_limit` a process that does not answer long after it is killed.
        executor: What runs tasks in processes of its own, likewise: such as
            `dask.distributed.Client(...).get_executor()`. They must see the problem file at the
            same path.
        engine: "loop" (seeds one by one) or "vmap" (seeds together in one computation). Default:
            for each combination of settings the faster one in a short trial.
        progress: A function that is called with a `StudyProgress` after each run; True for a bar,
            False for silence. Default: a bar in a terminal and in a notebook.
        **arguments: The same for all runs: arguments of `solve` or keywords of the function.

    Returns:
        The rows of all combinations. Ctrl-C or SIGTERM ends the study with what is finished.

    Raises:
        TypeError, ValueError: If an axis is not known or empty, seeds repeat, or the runs of the
            first three combinations (or of all, where there are fewer) fail for one reason.
        StoreError: If `out` holds another study, or cannot be used.
    """
    stated = Stated(problem)
    elsewhere = workers is not None or executor is not None
    axes = as_axes(vary or {}, arguments, stated, elsewhere)
    chosen = as_seeds(seeds)
    if engine is not None and engine not in ENGINES:
        raise BadValueError(f"engine must be one of {', '.join(ENGINES)}, got {shown(engine)}.")
    if workers is not None and executor is not None:
        raise BadValueError("workers and executor are two ways to say the same: leave out one.")
    if elsewhere and not stated.path:
        raise BadTypeError(
            "study with workers needs the problem as a file, study('my_problem.py'): other "
            "processes are told its path and never sent code."
        )
    runs = math.prod(len(values) for values in axes.values()) * len(chosen)
    _refuse_too_many(runs)
    limits = list(axes.get("time_limit", {"": None}).values())
    folder = None if out is None else StudyFolder(as_path(out, "out"), stated.origin)
    combinations = [
        Combination.of(stated, dict(zip(axes, labels, strict=True)), axes, chosen, engine)
        for labels in itertools.product(*axes.values())
    ]
    if engine == "vmap" and any(goes_alone(item.settings) for item in combinations):
        raise BadValueError(
            'runs with time_limit or members go one by one: leave out engine="vmap".'
        )
    _warn_of_ready_model(stated, combinations[0], len(chosen))
    stop = Stop()
    with contextlib.ExitStack() as stack:
        known = {} if folder is None else stack.enter_context(folder).rows
        for item in combinations:
            item.take(known)
        if not stated.path:
            _refuse_changed(stated, combinations)
        stack.enter_context(collected_signals(stop))
        if workers is not None:
            count = as_count(workers, "workers", most=1024)
            _warn_of_waiting(count)
            executor = stack.enter_context(Workers(count, patience(limits)))
        serve = Here(stated) if executor is None else Elsewhere(executor, stated.origin)
        display = stack.enter_context(displayed(progress, _in_words))
        if display is not None and display is not progress:  # a bar: the first runs compile
            display(StudyProgress(sum(len(item.rows) for item in combinations), runs, math.nan))
        run_all(combinations, serve, stop, folder, display)
    rows = tuple(item.rows[seed] for item in combinations for seed in chosen if seed in item.rows)
    before = sum(item.before for item in combinations)
    ended_by = "" if len(rows) == len(combinations) * len(chosen) else stop.name
    varied = tuple(name for name in axes if len(axes[name]) > 1)
    return Study(rows, varied, ended_by, before, source_of(stated.origin))


def _in_words(seen: StudyProgress) -> tuple[str, int, int, str]:
    return "runs", seen.done, seen.runs, ""


def _refuse_changed(stated: Stated, combinations: list[Combination]) -> None:
    """Compare finished rows of a problem that has no file, one for each method, with it."""
    methods = {item.given["method"]: item for item in combinations if item.rows}
    for item in methods.values():
        seed, row = next(iter(item.rows.items()))
        if what := stated.changed(item.settings, seed, row):
            raise StoreError(f"out= holds rows of another study: {what}. Give a new folder.")


def _refuse_too_many(runs: int) -> None:
    if runs > MOST:
        raise BadValueError(
            f"this study is {runs:,} runs, and one has at most {MOST:,}: give fewer values or "
            "seeds."
        )


def _warn_of_waiting(workers: int) -> None:
    cores = usable_cores()
    if workers > cores:
        warnings.warn(
            f"{workers} workers on {cores} cores wait for each other, and each holds its own "
            f"memory: workers={cores} is as fast.",
            RunWarning,
            stacklevel=3,
        )


def _warn_of_ready_model(stated: Stated, combination: Combination, seeds: int) -> None:
    names = set(stated.defaults) & set(combination.settings)
    problem = stated.built({name: combination.settings[name] for name in names})
    if seeds < 2 or not isinstance(problem, Problem) or problem.scheme.in_pieces:
        return
    if not is_recipe(problem.model):
        warnings.warn(
            "the model is ready-made: every seed starts from the same parameters, and only the "
            "points differ. Give a recipe, such as cx.MLP(...), for others.",
            ProblemWarning,
            stacklevel=3,
        )
