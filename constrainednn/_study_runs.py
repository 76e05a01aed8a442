"""What a study runs, here or in another process: some seeds of one combination of settings."""

import contextlib
import dataclasses
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn
from constrainednn._check import ProblemError
from constrainednn._ensemble import Ensemble, ensemble
from constrainednn._errors import BadTypeError, BadValueError, LoadError, StoreError
from constrainednn._gap import monitor_loss
from constrainednn._load import (
    RESERVED,
    build,
    find,
    find_method,
    load_module,
    methods_of,
    problem_keywords,
    resolve,
)
from constrainednn._memory import keep_below_map_limit
from constrainednn._methods._optax import Optax
from constrainednn._problem import Problem
from constrainednn._run import Arguments, Run
from constrainednn._solution import Solution, SolveFailed, Status, Timings
from constrainednn._solve import solve, training_of
from constrainednn._stages import described
from constrainednn._store import plain, report_dict
from constrainednn._together import Unlike, faster_together, together
from constrainednn._training import Chunk, Training
from constrainednn._validate import as_count, shown
from constrainednn._watching import Stop, collected_signals

# What may be an axis, or the same for all runs, besides keywords of the problem: arguments of
# `solve`, and the number of members of an ensemble. With the last two runs go one by one.
_ONE_BY_ONE = ("time_limit", "members")
ARGUMENTS = (
    *("method", "steps", "tolerance", "heldout", "monitor", "redraw", "early_stopping"),
    *_ONE_BY_ONE,
)
ENGINES = ("loop", "vmap")
# Runs in one computation at most, and what they may hold in memory together: numbers of the study
# alone, since it decides which run has which place.
LANES, _BYTES = 32, 1 << 30
_FEW = 4
# What a setting that cannot be right ends in: a row that says so.
_REFUSALS = (ProblemError, LoadError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Task:
    """Runs of one combination of settings.

    Attributes:
        settings: Values of keywords and arguments; methods of a file by their names.
        places: Seeds by their places in the list of all seeds.
        engine: "loop", "vmap", or None: to be decided.
        lanes: Width of one computation for "vmap", else 0.
        runs: How many runs of this combination there are.
    """

    settings: dict[str, Any]
    places: dict[int, int]
    engine: str | None
    lanes: int
    runs: int

    @property
    def decided(self) -> bool:
        """True if it is known how to run it."""
        return self.engine == "loop" or self.lanes > 0

    def one_by_one(self, done: set[int]) -> "Iterator[Task]":
        """A task for each seed that is not done."""
        for place, seed in self.places.items():
            if seed not in done:
                yield dataclasses.replace(self, places={place: seed}, engine="loop", lanes=0)


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        rows: Reports by seed; some of the seeds only, where the engine was not known before.
        engine: What was used.
        lanes: Width of one computation for "vmap", else 0.
        interrupted: True if a signal ended it.
    """

    rows: dict[int, dict[str, Any]]
    engine: str
    lanes: int
    interrupted: bool = False


@dataclasses.dataclass(frozen=True)
class Origin:
    """All that another process needs to know of what is studied: no code, where it is."""

    path: str
    name: str
    digest: str
    dtype: str
    version: str


class Stated:
    """What is studied: where problems come from, and what they are called with."""

    def __init__(self, problem: Any):
        self.module, self.path, self.name, self.methods = None, None, "problem", {}
        if isinstance(problem, (str, Path)):
            self.path, self.name = resolve(str(problem))
            self.module = load_module(self.path)
            self.methods = methods_of(self.module, self.path)
            problem = find(self.module, self.path, self.name)
        if not (isinstance(problem, Problem) or callable(problem)):
            raise BadTypeError(
                "problem of study must be a function that returns a cx.Problem, a file, or a "
                f"cx.Problem, got {shown(problem)}."
            )
        self.problem = problem
        keywords = problem_keywords(problem)
        for name, item in keywords.items():
            if item.default is inspect.Parameter.empty:
                raise BadTypeError(f"problem of study: give keyword {name!r} of it a default.")
            if name in RESERVED:
                raise BadTypeError(
                    f"problem of study: its keyword {name!r} is an argument of solve or study. "
                    f"Give it another name, such as my_{name}."
                )
        self.defaults = {name: item.default for name, item in keywords.items()}
        self._last: tuple[Any, Problem | Exception] | None = None

    @property
    def origin(self) -> Origin:
        """Where it is; the path and hash are empty for what is stated in Python."""
        path, digest, name = "", "", getattr(self.problem, "__name__", "problem")
        if self.module is not None and self.path is not None:
            path, name = str(self.path.resolve()), self.name
            source = build(self.module, self.path, self.name, {}).source
            digest = "" if source is None else source.digest
        dtype = str(jnp.result_type(float))
        return Origin(path, name, digest, dtype, constrainednn.__version__)

    def work(self, task: Task) -> Done:
        """Do the runs of a task, all of them or those that are done at once."""
        keep_below_map_limit()
        keywords, method, arguments, single = self.parted(task.settings)
        problem, stop = self.built(keywords), Stop()
        if isinstance(problem, Exception):
            rows = dict.fromkeys(task.places.values(), _refused(problem))
            return Done(rows, "loop", 0)
        start = functools.partial(_training, problem, method, arguments, stop)
        with np.errstate(over="ignore", invalid="ignore"), collected_signals(stop):
            engine, lanes = task.engine, task.lanes
            if engine != "loop" and not lanes:
                engine, lanes = _engine(start, problem, task)
            if engine == "vmap":
                block = min(task.places) // lanes
                some = {p: seed for p, seed in task.places.items() if p // lanes == block}
                found = _vmapped(start, some, lanes)
                rows = {seed: _row(item) for seed, item in found.items()}
                kept = {seed: row for seed, row in rows.items() if row is not None}
                if kept or stop.signals:
                    return Done(kept, "vmap", lanes, interrupted=len(kept) < len(some))
        # One by one; the first only where it was not known that it would be so.
        seeds = list(task.places.values())[: None if task.engine == "loop" else 1]
        rows = {}
        for seed in seeds:
            row = None if stop.signals else _solved(problem, method, seed, arguments, **single)
            if row is None:
                return Done(rows, "loop", 0, interrupted=True)
            rows[seed] = row
        return Done(rows, "loop", 0)

    def changed(self, settings: dict[str, Any], seed: int, row: dict[str, Any]) -> str:
        """What differs between a run that a row is of, and the same one now; empty if nothing."""
        keywords, method, arguments, single = self.parted(settings)
        problem = self.built(keywords)
        if single["members"] not in (None, 1):  # its curves are no more than its end
            return ""
        if "history" not in row or isinstance(problem, Exception) or problem.scheme is not None:
            return ""
        training = _training(problem, method, arguments, Stop(), seed, checked=True)
        going = training.go()
        look: Any = next(going)
        loss, before = monitor_loss(*look), row["history"]["monitor"][0]
        going.close()
        if before is not None and not math.isclose(loss, before, rel_tol=1e-4):
            return f"under seed {seed} the first monitor loss was {before:g} and is {loss:g} now"
        stages, were = described(training.stages, training.model), row["settings"]["method"]
        return "" if stages == were else f"its method was {were} and is {stages} now"

    def parted(self, settings: dict[str, Any]) -> tuple[dict, Any, dict, dict]:
        """Keywords of the problem, the method, arguments of `solve`, and those for one by one."""
        keywords = {name: value for name, value in settings.items() if name in self.defaults}
        arguments = {name: value for name, value in settings.items() if name in ARGUMENTS}
        method = arguments.pop("method", None)
        if isinstance(method, str):
            method = find_method(method, self.methods)
        single = {name: arguments.pop(name, None) for name in _ONE_BY_ONE}
        return keywords, method, arguments, single

    def built(self, keywords: Mapping[str, Any]) -> Problem | Exception:
        """The problem of some settings, or why there is none; built once for all seeds."""
        key = {name: (type(value), _telling(value)) for name, value in keywords.items()}
        last = self._last  # another thread of a worker may put its own there
        if last is None or last[0] != key:
            try:
                last = key, self._build(dict(keywords))
            except _REFUSALS as error:
                last = key, error
            self._last = last
        return last[1]

    def _build(self, keywords: dict[str, Any]) -> Problem:
        if isinstance(self.problem, Problem):
            return self.problem
        if self.module is not None and self.path is not None:
            return build(self.module, self.path, self.name, keywords)
        made = self.problem(**keywords)
        if not isinstance(made, Problem):
            raise BadTypeError(f"problem of study must return a cx.Problem, got {shown(made)}.")
        return made


def _telling(value: Any) -> Any:
    """What tells a value from others that are given in its place."""
    return value if isinstance(value, (bool, int, float, str)) else id(value)


_opened: dict[tuple[str, str], Stated] = {}
_opening = threading.Lock()


def work_elsewhere(origin: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Do a task in a process that knows the problem by its path only. All as plain data.

    Raises:
        StoreError: If the package or the problem file is another one there.
    """
    known = Origin(**origin)
    if known.version != constrainednn.__version__:
        raise StoreError(
            f"a worker has constrainednn {constrainednn.__version__}, the study is of "
            f"{known.version}. Install the same everywhere."
        )
    places = {int(place): seed for place, seed in task["places"].items()}
    with jax.enable_x64(known.dtype == "float64"):
        with _opening:
            source = f"{known.path}:{known.name}"
            stated = _opened.get((source, known.digest))
            if stated is None:  # once for all tasks: to compare builds the problem
                stated = Stated(source)
                if (digest := stated.origin.digest) != known.digest:
                    raise StoreError(
                        f"{known.path} is another file for a worker: its SHA-256 is {digest:.12}, "
                        f"that of the study {known.digest:.12}. Let both see the same file."
                    )
                _opened[source, known.digest] = stated
        return dataclasses.asdict(stated.work(Task(**{**task, "places": places})))


def _training(
    problem: Problem, method: Any, arguments: dict[str, Any], stop: Stop, seed: int, checked: bool
) -> Training:
    run = Run(problem, Arguments(**arguments, seed=seed))
    run.stop = stop
    return training_of(run, method, checked=checked)


def _engine(start: Callable[..., Training], problem: Problem, task: Task) -> tuple[str, int]:
    """How to run a combination of settings: decided by a trial where both are possible.

    First-order methods only: batches of factorisations are no faster than one after the other on a
    CPU (measured: 0.9 times the time), and XLA's may wait for each other for ever.
    """
    fits = problem.scheme is None
    if fits and (task.engine or task.runs >= _FEW):
        with contextlib.suppress(*_REFUSALS, StopIteration):  # each run says for itself why
            training = start(next(iter(task.places.values())), checked=False)
            fits = all(isinstance(stage.method, Optax) for stage in training.stages)
            if fits:
                going, answer = training.go(), None
                while not isinstance(chunk := going.send(answer), Chunk):
                    answer = np.nan
                lanes = min(LANES, _BYTES // (training.step_bytes(chunk) + 1))
                if task.engine:
                    return "vmap", max(lanes, 1)
                if lanes >= _FEW and faster_together(chunk, training.limit, lanes):
                    return "vmap", lanes
    if task.engine and not fits:
        raise BadValueError(
            'engine="vmap" is for cx.Optax methods on problems that are trained step by step: '
            "leave it out."
        )
    return "loop", 0


def _vmapped(
    start: Callable[..., Training], places: dict[int, int], lanes: int
) -> dict[int, Solution | Exception]:
    """Solutions by seed; none where the runs do not fit together, or not in memory."""
    try:
        # The first one is checked as a whole: the others differ in their numbers only.
        trainings = {
            place % lanes: start(seed, checked=number > 0)
            for number, (place, seed) in enumerate(places.items())
        }
        ended = together(trainings, lanes, _REFUSALS)
    except (Unlike, MemoryError):
        return {}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {}
    return {seed: ended[place % lanes] for place, seed in places.items()}


def goes_alone(settings: Mapping[str, Any]) -> bool:
    """True for settings whose runs are no part of a batch."""
    return settings.get("time_limit") is not None or settings.get("members") not in (None, 1)


def _solved(
    problem: Problem,
    method: Any,
    seed: int,
    arguments: dict[str, Any],
    *,
    time_limit: float | None,
    members: int | None,
) -> dict[str, Any] | None:
    """The row of a run, or of an ensemble; None if it was interrupted."""
    arguments = arguments | {"time_limit": time_limit}
    try:
        if members is None or as_count(members, "members") == 1:
            return _row(solve(problem, method, seed=seed, **arguments))
        # The first one sees what a single run of this seed sees, and judges by its held-out points.
        others = [((seed + 1) * 1_000_003 + i) % 2**32 for i in range(members - 1)]
        return _row_of_mean(ensemble(problem, method, seeds=[seed, *others], **arguments))
    except SolveFailed as failure:
        return _row(failure.solution)
    except _REFUSALS as error:
        return _refused(error)


def _row_of_mean(found: Ensemble) -> dict[str, Any] | None:
    """The row of an ensemble: its own gap, and what its members took together."""
    first = found.members[0]
    if any(member.status is Status.INTERRUPTED for member in found.members):
        return None
    train, monitor = zip(*((points.train, points.monitor) for points in found.streams), strict=True)
    times = zip(*(dataclasses.astuple(member.timings) for member in found.members), strict=True)
    steps = max(member.steps for member in found.members)
    watched = plain(monitor_loss(first.problem, found.model, train, monitor))
    curves = {"steps": [steps], "train": [plain(found.gap.loss)], "monitor": [watched]}
    return report_dict(first) | {
        "reason": f"mean of {len(found.members)} solutions",
        "steps": steps,
        "parameters": sum(member.parameters for member in found.members),
        "timings": dataclasses.asdict(Timings(*map(sum, times))),
        "gap": plain(dataclasses.asdict(found.gap)),
        "history": curves,
    }


def _row(found: Solution | Exception) -> dict[str, Any] | None:
    """The report of a run as plain data; None if it was interrupted."""
    if isinstance(found, Exception):
        return _refused(found)
    if found.status is Status.INTERRUPTED:
        return None
    history = found.history
    steps = history.monitor_steps
    losses = history.loss[np.minimum(steps, len(history.loss) - 1)]
    curves = {"steps": steps.tolist()}
    for name, values in (("train", losses), ("monitor", history.monitor)):
        # Six digits, since curves are for the eye.
        curves[name] = [plain(float(f"{value:.5e}")) for value in values]
    row = report_dict(found) | {"history": curves}
    if found.problem.scheme is not None and found.status is not Status.CONVERGED:
        row["covered"] = False  # the gap is that of the part that was reached
    return row


def _refused(error: Exception) -> dict[str, Any]:
    return {"status": "error", "reason": str(error)[:1000]}
