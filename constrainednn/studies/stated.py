"""What a study runs, here or in another process: some seeds of one combination of settings."""

import dataclasses
import functools
import inspect
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn
from constrainednn._common.memory import keep_below_map_limit
from constrainednn._common.messages import shown
from constrainednn._gap.residuals import monitor_loss
from constrainednn._problem.problem import Problem
from constrainednn._solve.problem_files import load_module, resolve
from constrainednn._solve.problem_functions import (
    RESERVED,
    build,
    find,
    find_method,
    methods_of,
    problem_keywords,
)
from constrainednn.errors import BadTypeError, StoreError
from constrainednn.methods.stages import described
from constrainednn.runs.signals import Stop, collected_signals
from constrainednn.studies.engines import (
    REFUSALS,
    begun_training,
    chosen_engine,
    refused,
    row_of,
    solved,
    vmapped,
)
from constrainednn.studies.tasks import ARGUMENTS, ONE_BY_ONE, Done, Origin, Task


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
            rows = dict.fromkeys(task.places.values(), refused(problem))
            return Done(rows, "loop", 0)
        start = functools.partial(begun_training, problem, method, arguments, stop)
        with np.errstate(over="ignore", invalid="ignore"), collected_signals(stop):
            engine, lanes = task.engine, task.lanes
            if engine != "loop" and not lanes:
                engine, lanes = chosen_engine(start, problem, task)
            if engine == "vmap":
                block = min(task.places) // lanes
                some = {p: seed for p, seed in task.places.items() if p // lanes == block}
                found = vmapped(start, some, lanes)
                rows = {seed: row_of(item) for seed, item in found.items()}
                kept = {seed: row for seed, row in rows.items() if row is not None}
                if kept or stop.signals:
                    return Done(kept, "vmap", lanes, interrupted=len(kept) < len(some))
        # One by one; the first only where it was not known that it would be so.
        seeds = list(task.places.values())[: None if task.engine == "loop" else 1]
        rows = {}
        for seed in seeds:
            row = None if stop.signals else solved(problem, method, seed, arguments, **single)
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
        if "history" not in row or isinstance(problem, Exception) or problem.scheme.in_pieces:
            return ""
        training = begun_training(problem, method, arguments, Stop(), seed, checked=True)
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
        single = {name: arguments.pop(name, None) for name in ONE_BY_ONE}
        return keywords, method, arguments, single

    def built(self, keywords: Mapping[str, Any]) -> Problem | Exception:
        """The problem of some settings, or why there is none; built once for all seeds."""
        key = {name: (type(value), _telling(value)) for name, value in keywords.items()}
        last = self._last  # another thread of a worker may put its own there
        if last is None or last[0] != key:
            try:
                last = key, self._build(dict(keywords))
            except REFUSALS as error:
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
    """What distinguishes a value from others that are given in its place."""
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
