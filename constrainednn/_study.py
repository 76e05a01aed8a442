"""Studies: a grid of settings times seeds, one row a run, in a table that outlives the study.

Runs are paired by construction: every stream of points, and the first parameters, depend on the
seed alone. A run that diverged or failed is a row like others.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from constrainednn._errors import (
    BadTypeError,
    BadValueError,
    ProblemWarning,
    RunWarning,
    StoreError,
)
from constrainednn._load import find_method
from constrainednn._models import is_recipe
from constrainednn._problem import Problem
from constrainednn._provenance import usable_cores
from constrainednn._study_folder import Key, StudyFolder, text_of
from constrainednn._study_runs import (
    ARGUMENTS,
    ENGINES,
    LANES,
    Done,
    Origin,
    Stated,
    Task,
    goes_alone,
    work_elsewhere,
)
from constrainednn._study_table import LOST, Study
from constrainednn._validate import as_count, as_path, as_positive, as_seed, known_names, shown
from constrainednn._watching import Stop, collected_signals
from constrainednn._workers import TooLong, Workers

# So many runs that fail alike, and nothing else before them, end a study.
_ALIKE = 3
# So often a task is given to a worker that ends without an answer.
_TRIES = 3
_ENDED = (
    f"{_TRIES} worker processes ended while they ran this (killed, or out of memory?): run it "
    "alone to see why"
)
_MOST = 10**6


@runtime_checkable
class Executor(Protocol):
    """What runs tasks elsewhere: a `concurrent.futures.Executor`, or whatever has its `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future:
        """Call `fn(*args)` in another process."""
        ...


@dataclasses.dataclass(frozen=True)
class StudyProgress:
    """How far a study is: runs done and in all, and seconds that the rest may take."""

    done: int
    runs: int
    left: float


def study(
    problem: Problem | Callable[..., Problem] | str | Path,
    *,
    vary: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 20,
    out: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    engine: str | None = None,
    progress: Callable[[StudyProgress], None] | None = None,
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
        progress: Called after each run.
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
    axes = _axes(vary or {}, arguments, stated, elsewhere)
    chosen = _seeds(seeds)
    if engine is not None and engine not in ENGINES:
        raise BadValueError(f"engine must be one of {', '.join(ENGINES)}, got {shown(engine)}.")
    if workers is not None and executor is not None:
        raise BadValueError("workers and executor are two ways to say the same: leave out one.")
    if elsewhere and not stated.path:
        raise BadTypeError(
            "study with workers needs the problem as a file, study('my_problem.py'): other "
            "processes are told its path and never sent code."
        )
    _refuse_too_many(math.prod(len(values) for values in axes.values()) * len(chosen))
    limits = list(axes.get("time_limit", {"": None}).values())
    folder = None if out is None else StudyFolder(as_path(out, "out"), stated.origin)
    combinations = [
        _Combination.of(stated, dict(zip(axes, labels, strict=True)), axes, chosen, engine)
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
            executor = stack.enter_context(Workers(count, _patience(limits)))
        serve = _Here(stated) if executor is None else _Elsewhere(executor, stated.origin)
        _run_all(combinations, serve, stop, folder, progress)
    rows = tuple(item.rows[seed] for item in combinations for seed in chosen if seed in item.rows)
    before = sum(item.before for item in combinations)
    ended_by = "" if len(rows) == len(combinations) * len(chosen) else stop.name
    return Study(rows, tuple(name for name in axes if len(axes[name]) > 1), ended_by, before)


@dataclasses.dataclass
class _Combination:
    """One combination of settings, and how far its runs are.

    Attributes:
        given: All settings of a row, by their labels.
        settings: The values that are not defaults.
        places: Seeds by their places in the list of seeds.
        engine: What runs them, None until it is decided.
        lanes: Width of one computation for "vmap", else 0.
        rows: Rows by seed.
        before: How many of them were there before.
    """

    given: dict[str, Any]
    settings: dict[str, Any]
    places: dict[int, int]
    engine: str | None
    lanes: int = 0
    rows: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    before: int = 0

    @staticmethod
    def of(
        stated: Stated,
        labels: dict[str, Any],
        axes: dict[str, dict[Any, Any]],
        seeds: list[int],
        engine: str | None,
    ) -> "_Combination":
        plain = {name: label_of(value) for name, value in stated.defaults.items()}
        given = plain | dict.fromkeys(ARGUMENTS) | {"early_stopping": False} | labels
        settings = {name: axes[name][label] for name, label in labels.items()}
        if goes_alone(settings):
            engine = "loop"
        return _Combination(given, settings, dict(enumerate(seeds)), engine)

    def take(self, known: Mapping[Key, dict[str, Any]]) -> None:
        """Take rows that are finished; the rest goes on with their engine."""
        text = text_of(self.given)
        for seed in self.places.values():
            row = known.get((text, seed))
            if row is not None:
                self.rows[seed] = row
        self.before = len(self.rows)
        for row in self.rows.values():
            if self.engine is None and row["engine"] in ENGINES and row["status"] != "error":
                self.engine, self.lanes = row["engine"], row.get("lanes", 0)

    def tasks(self) -> Iterator[Task]:
        """What is left to do; one task only while the engine is not known."""
        left = {p: seed for p, seed in self.places.items() if seed not in self.rows}
        width = 1 if self.engine == "loop" else self.lanes or LANES
        for _, group in itertools.groupby(left.items(), key=lambda item: item[0] // width):
            task = Task(self.settings, dict(group), self.engine, self.lanes, len(self.places))
            yield task
            if not task.decided:
                return


def _run_all(
    combinations: list[_Combination],
    serve: "_Here | _Elsewhere",
    stop: Stop,
    folder: StudyFolder | None,
    progress: Callable[[StudyProgress], None] | None,
) -> None:
    """Hand out all tasks and write down what comes back: the one place that does."""
    ready = collections.deque((item, task) for item in combinations for task in item.tasks())
    running: dict[Future, tuple[_Combination, Task, int]] = {}
    runs = sum(len(item.places) for item in combinations)
    before = found = sum(len(item.rows) for item in combinations)
    began, reasons, tried = time.monotonic(), [], set()
    try:
        while (ready or running) and not stop:
            while ready and len(running) < serve.width:
                item, task = ready.popleft()
                running[serve.submit(task)] = item, task, 1
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                item, task, tries = running.pop(future)
                try:
                    done = serve.result(future)
                except TooLong as error:
                    done = _lost(task, str(error))
                if done is None and tries < _TRIES:
                    running[serve.submit(task)] = item, task, tries + 1
                    continue
                if done is None:
                    done = _lost(task, _ENDED)
                for seed, report in done.rows.items():
                    row = {"given": item.given, "seed": seed, "engine": done.engine}
                    row |= {"lanes": done.lanes, **report}
                    item.rows[seed] = row
                    if folder is not None and row["status"] != LOST:  # that one may be tried again
                        folder.append(row)
                    found += 1
                    if progress is not None:
                        each = (time.monotonic() - began) / (found - before)
                        progress(StudyProgress(found, runs, each * (runs - found)))
                    reasons.append(row["reason"] if row["status"] in ("error", LOST) else None)
                    tried.add(id(item))
                alike = len(set(reasons)) == 1 and reasons[0] is not None
                enough = len(reasons) >= _ALIKE and len(tried) >= min(_ALIKE, len(combinations))
                if enough and before == 0 and alike:
                    raise BadValueError(
                        f"the first {len(reasons)} runs all fail with: {reasons[0]}"
                    )
                if done.interrupted:
                    return
                more = item.tasks() if not task.decided else task.one_by_one(set(item.rows))
                if not task.decided:
                    item.engine, item.lanes = done.engine, done.lanes
                ready.extendleft((item, left) for left in [*more][::-1])
    finally:
        for future in running:
            future.cancel()


class _Here:
    """Runs tasks in this process, one after another."""

    width = 1

    def __init__(self, stated: Stated):
        self.stated = stated

    def submit(self, task: Task) -> Future:
        future: Future = Future()
        future.set_result(self.stated.work(task))
        return future

    def result(self, future: Future) -> Done:
        return future.result()


class _Elsewhere:
    """Hands tasks to other processes, as many as there are."""

    width = 1 << 20

    def __init__(self, executor: Executor, origin: Origin):
        self.executor, self.origin = executor, dataclasses.asdict(origin)

    def submit(self, task: Task) -> Future:
        try:
            return self.executor.submit(work_elsewhere, self.origin, dataclasses.asdict(task))
        except BrokenExecutor as error:
            raise StoreError(
                f"the executor takes no more tasks: {error}. The rows before it are kept."
            ) from error

    def result(self, future: Future) -> Done | None:
        """What came of a task; None where its process ended without an answer.

        Raises:
            TooLong: If it was killed, since it did not answer.
        """
        try:
            done = future.result()
        except TooLong:
            raise
        except (BrokenExecutor, CancelledError):
            return None
        except Exception as error:
            if type(error).__module__.startswith("distributed"):
                return None
            raise
        if done["interrupted"]:  # a signal was for that process, not for the study
            return None
        rows = {int(seed): row for seed, row in done["rows"].items()}
        return Done(**{**done, "rows": rows})


def _lost(task: Task, reason: str) -> Done:
    """What comes of a task that no worker answered: of several runs, each is tried alone."""
    if len(task.places) > 1:
        return Done({}, "loop", 0)
    rows = {seed: {"status": LOST, "reason": reason} for seed in task.places.values()}
    return Done(rows, "loop", 0)


def _patience(limits: list[float | None]) -> float | None:
    """Seconds that a worker has for an answer: the longest run, and time to start and compile."""
    longest = [as_positive(limit, "time_limit") for limit in limits if limit is not None]
    return 2 * max(longest) + 60 if len(longest) == len(limits) else None


def _refuse_changed(stated: Stated, combinations: list[_Combination]) -> None:
    """Compare finished rows of a problem that has no file, one for each method, with it."""
    methods = {item.given["method"]: item for item in combinations if item.rows}
    for item in methods.values():
        seed, row = next(iter(item.rows.items()))
        if what := stated.changed(item.settings, seed, row):
            raise StoreError(f"out= holds rows of another study: {what}. Give a new folder.")


def _refuse_too_many(runs: int) -> None:
    if runs > _MOST:
        raise BadValueError(
            f"this study is {runs:,} runs, and one has at most {_MOST:,}: give fewer values or "
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


def _warn_of_ready_model(stated: Stated, combination: _Combination, seeds: int) -> None:
    names = set(stated.defaults) & set(combination.settings)
    problem = stated.built({name: combination.settings[name] for name in names})
    if seeds < 2 or not isinstance(problem, Problem) or problem.scheme is not None:
        return
    if not is_recipe(problem.model):
        warnings.warn(
            "the model is ready-made: every seed starts from the same parameters, and only the "
            "points differ. Give a recipe, such as cx.MLP(...), for others.",
            ProblemWarning,
            stacklevel=3,
        )


def label_of(value: Any) -> Any:
    """A setting as it stands in a row."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return label_of(value.item())
    # Addresses differ from process to process, and would make each its own setting.
    return re.sub(r" at 0x[0-9a-f]+", "", shown(value))


def _axes(
    vary: Mapping[str, Any], arguments: dict[str, Any], stated: Stated, elsewhere: bool
) -> dict[str, dict[Any, Any]]:
    """Labels and values of each axis; what is the same for all runs is an axis of one."""
    axes = {}
    for name, values in [*vary.items(), *((name, [value]) for name, value in arguments.items())]:
        known = [*stated.defaults, *ARGUMENTS]
        if name not in known:
            ready = ""
            if isinstance(stated.problem, Problem):
                ready = " A problem has no keywords: give study the function that makes it."
            raise BadValueError(
                f"study cannot vary {shown(name)}. {known_names(str(name), known)}{ready}"
            )
        if name in axes:
            raise BadValueError(f"{name} is varied and given for all runs: leave out one.")
        if isinstance(values, Mapping):
            pairs = list(values.items())
        elif isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            raise BadTypeError(
                f"axis {name!r} must be a sequence of values, or a dict from labels to values, got "
                f"{shown(values)}."
            )
        else:
            pairs = [(label_of(value), value) for value in values]
        if not pairs:
            raise BadValueError(f"axis {name!r} is empty: give at least one value.")
        for _, value in pairs:
            if name == "method" and isinstance(value, str):
                find_method(value, stated.methods)
            if elsewhere and not (value is None or type(value) in (bool, int, float, str)):
                raise BadTypeError(
                    f"axis {name!r}: {shown(value)} cannot be told to another process. Give "
                    "numbers or text; a method by its name in the file's `methods`."
                )
        found = dict(pairs)
        if len(found) < len(pairs):
            raise BadValueError(f"axis {name!r} has a value twice: {shown([p[0] for p in pairs])}.")
        axes[name] = found
    return axes


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, (int, float, np.number)):
        return list(range(as_count(seeds, "seeds", most=10**6)))
    if isinstance(seeds, (str, bytes)) or not hasattr(seeds, "__iter__"):
        raise BadTypeError(f"seeds must be a number of seeds or a sequence, got {shown(seeds)}.")
    found = [as_seed(seed) for seed in list(seeds)]
    if not found:
        raise BadValueError("seeds is empty: give at least one.")
    if len(set(found)) < len(found):
        raise BadValueError(
            f"seeds repeat: {shown(found)}. Each is one run, and paired with itself."
        )
    return found
