"""What the drivers share: what a run was asked for, where it is saved, what it tells and hears."""

import contextlib
import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_count, as_positive, as_real, as_seed
from constrainednn._common.messages import shown
from constrainednn._common.pytrees import arrays_to_tree
from constrainednn._problem.problem import Problem
from constrainednn._storage.run_folder import Checkpoint, RunFolder
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.errors import BadTypeError, BadValueError, RunWarning, StoreError
from constrainednn.runs.history import Settings
from constrainednn.runs.listeners import Listeners, Progress, Sink
from constrainednn.runs.settings import record_settings
from constrainednn.runs.signals import Stop, collected_signals


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of `solve` that decide its result, as given."""

    steps: int | None = None
    seed: int = 0
    tolerance: float = 0.0
    heldout: int | None = None
    monitor: int | None = None
    redraw: int | None = None
    early_stopping: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a part of a run stands among the others.

    Attributes:
        name: What it is called.
        before: Steps of the parts before it.
        steps: Largest number of steps of all parts.
        arrays: What a checkpoint keeps of the parts before it, by names that begin with a word of
            their own.
        facts: The rest of it, as plain data.
    """

    name: str = ""
    before: int = 0
    steps: int | None = None
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


class Run:
    """One run of a driver.

    Args:
        problem: What is solved.
        arguments: As given by the user, or by the record of an earlier run.
        method_name: How the command line calls the method; empty otherwise.
        folder: Where to save, or None.
        record: The record of the run to resume, or None.
        allow_changed: Go on although the method or the machine's settings are stated otherwise.
        time_limit: Seconds.
        sinks: Where numbers go.
        progress: A display.
    """

    def __init__(
        self,
        problem: Problem,
        arguments: Arguments,
        *,
        method_name: str = "",
        folder: RunFolder | None = None,
        record: dict[str, Any] | None = None,
        allow_changed: bool = False,
        time_limit: float | None = None,
        sinks: Sequence[Sink] = (),
        progress: Callable[[Progress], None] | None = None,
    ):
        self.problem, self.method_name, self.place = problem, method_name, Place()
        least = int(problem.scheme.in_pieces)  # without a step there are no pieces
        steps = arguments.steps
        self.seed = as_seed(arguments.seed)
        self.tolerance = _as_tolerance(arguments.tolerance, problem)
        self.counts = {
            name: _as_drawn(getattr(arguments, name), name, problem, default=default)
            for name, default in (("heldout", 4096), ("monitor", 1024))
        }
        self.redraw = None if arguments.redraw is None else as_count(arguments.redraw, "redraw")
        _refuse_idle(problem, self.redraw)
        self.early_stopping = _as_early(arguments.early_stopping, problem)
        # As plain numbers, which a file can hold.
        given = {name for name in self.counts if getattr(arguments, name) is not None}
        self.arguments = Arguments(
            None if steps is None else as_count(steps, "steps", least=least),
            self.seed,
            self.tolerance,
            self.counts["heldout"] if "heldout" in given else None,
            self.counts["monitor"] if "monitor" in given else None,
            self.redraw,
            self.early_stopping,
        )
        self.folder, self.record, self.allow_changed = folder, record, allow_changed
        limit = None if time_limit is None else as_positive(time_limit, "time_limit")
        self.stop = Stop(limit)
        self.listeners = Listeners(progress, sinks)
        self.checkpoint: Checkpoint | None = None
        if record is not None and folder is not None:
            self.checkpoint = folder.newest()

    @property
    def taken(self) -> int:
        """Steps that count towards the limit: those of the checkpoint, or of the part it is in."""
        if self.checkpoint is None:
            return 0
        before = self.checkpoint.facts.get("before", 0)
        return self.checkpoint.step - (before if isinstance(before, int) else 0)

    def part(self, problem: Problem, place: Place, checkpoint: Checkpoint | None) -> "Run":
        """The run of a part of the problem, which is told of and saved as a part of this one."""
        part = copy.copy(self)
        part.problem, part.place, part.checkpoint = problem, place, checkpoint
        return part

    @property
    def where(self) -> str:
        """The folder in words, for messages."""
        return str(self.folder.path) if self.folder else "this run"

    def begin(self, method: str, steps: int) -> Settings:
        """Write down what the run is started with, or compare it with what it was.

        Raises:
            StoreError: If the folder cannot be used, or what is run differs from what was.
        """
        if self.method_name:  # the name says what the object cannot
            method = f"{self.method_name}: {method}"
        settings = record_settings(
            self.problem.source,
            method=method,
            steps=steps,
            seed=self.seed,
            tolerance=self.tolerance,
            **self.counts,
            redraw=self.redraw,
            early_stopping=self.early_stopping,
            dtype=str(jnp.result_type(float)),
        )
        if self.place.name:  # the whole run is written down
            return settings
        if self.record is not None and self.folder is not None:
            self._compare(self.record, dataclasses.asdict(settings))
            looked = self._extend(self.record, self.folder)
            settings = dataclasses.replace(settings, looked=looked)
        elif self.folder is not None:
            source = self.problem.source
            self.folder.begin(
                {
                    "source": None if source is None else source.recorded(self.folder.path),
                    "method": self.method_name,
                    "arguments": dataclasses.asdict(self.arguments),
                    "settings": dataclasses.asdict(settings),
                }
            )
        return settings

    def _extend(self, record: dict[str, Any], folder: RunFolder) -> int:
        """Write down a new limit of steps: the next resume must not know an older one.

        Returns:
            How often held-out points were looked at before: once for each limit that was set after
            a report.
        """
        arguments = dataclasses.asdict(self.arguments)
        looked = as_count(record["settings"].get("looked", 0), "looked", least=0)
        if arguments != record["arguments"]:
            looked += folder.reported
            settings = {**record["settings"], "steps": arguments["steps"], "looked": looked}
            folder.rewrite({**record, "arguments": arguments, "settings": settings})
        return looked

    def _compare(self, record: dict[str, Any], settings: dict[str, Any]) -> None:
        before = record["settings"]
        for key, change in (("dtype", "Set JAX_ENABLE_X64 as it was"), ("method", "Give method=")):
            if before.get(key) != settings[key] and not (key == "method" and self.allow_changed):
                raise StoreError(
                    f"{self.where}: {key} was {before.get(key)!r} and is {settings[key]!r} now. "
                    f"{change}."
                )
        for key in ("device", "threads", "versions", "environment"):
            if before.get(key) != settings[key]:
                warnings.warn(
                    f"{self.where}: {key} was {before.get(key)!r:.300} and is {settings[key]!r} "
                    "now: the last digits may differ from those of an uninterrupted run.",
                    RunWarning,
                    stacklevel=6,
                )

    def statement(self, sizes: Sequence[float]) -> str:
        """What identifies a problem: its constraints, and residuals before training."""
        items = [
            f"{c.name} {c.weight:.6e} {c.over!r:.500}"
            f"{'' if c.tolerance is None else f' tolerance {c.tolerance:.6e}'}"
            for c in self.problem.statements
        ]
        return "; ".join([*items, *(f"{size:.6e}" for size in sizes)])

    def refuse_another(self, before: str, sizes: Sequence[float]) -> None:
        """Refuse a problem that differs from that of the checkpoint.

        Raises:
            StoreError: With what was and what is.
        """
        now = self.statement(sizes)
        if before != now:
            raise StoreError(
                f"{self.where}: the run is of another problem. Its constraints, and residuals "
                f"before training, were {before:.500}, and are {now:.500}."
            )

    def restored(
        self, blank: PyTree, checkpoint: Checkpoint, prefix: str, *, older: bool = False
    ) -> PyTree:
        """A part of a checkpoint as a tree like `blank`; see `arrays_to_tree`."""
        return arrays_to_tree(blank, checkpoint.arrays, self.where, prefix, older=older)

    def save(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Save what the run is resumed from after a step, with that of the parts before it."""
        if self.folder is not None:
            place = self.place
            self.folder.save(place.before + step, arrays | place.arrays, facts | place.facts)

    def tell(self, phase: str, step: int, steps: int, train: float, monitor: float) -> None:
        """Show progress; numbers of the training also go to the history and the sinks."""
        place = self.place
        step, steps = place.before + step, steps if place.steps is None else place.steps
        seen = Progress(phase, step, steps, train, monitor, place.name)
        self._tell(seen, step, {"train": train, "monitor": monitor} if phase == "training" else {})

    def tell_share(self, phase: str, done: float, step: int, monitor: float) -> None:
        """Show the share of the work that is done, and pass on what was seen after a step."""
        seen = Progress(phase, round(100 * done), 100, math.nan, monitor)
        self._tell(seen, step, {"monitor": monitor})

    def _tell(self, seen: Progress, step: int, values: dict[str, float]) -> None:
        self.listeners.tell(seen, step, values)
        if self.folder is not None and values:
            number = lambda value: value if math.isfinite(value) else str(value)  # noqa: E731
            self.folder.log({"step": step} | {name: number(values[name]) for name in values})

    @contextlib.contextmanager
    def measuring(self, step: int) -> Iterator[None]:
        """While the gap is measured a signal waits, unless the state of `step` is saved."""
        saved = self.folder is not None and self.folder.saved == step
        with contextlib.nullcontext() if saved else collected_signals(self.stop, any_number=True):
            yield


def _as_drawn(value: Any, name: str, problem: Problem, *, default: int) -> int:
    """A number of held-out or monitor points, refused where no constraint has a domain."""
    if value is None:
        return default
    count = as_count(value, name)
    if not any(isinstance(item.over, AbstractDomain) for item in problem.statements):
        raise BadValueError(
            f"{name}={shown(value)} has nothing to draw: every constraint is over given points or "
            "rows. Leave it out; the rows that cx.Data holds out are set there, as in "
            "cx.Data(rows, holdout=0.2)."
        )
    return count


def _refuse_idle(problem: Problem, redraw: int | None) -> None:
    for item in problem.constraints:
        if isinstance(item.sampler, Adaptive) and redraw is None:
            raise BadValueError(
                f"constraint {item.name!r}: cx.domains.Adaptive() chooses points at redraws, "
                "and there are none. Give redraw=, such as redraw=100."
            )


def _as_early(value: Any, problem: Problem) -> bool:
    if not isinstance(value, bool):
        raise BadTypeError(f"early_stopping must be True or False, got {shown(value)}.")
    watched = any(
        isinstance(item.over, AbstractDomain)
        or (isinstance(item.over, Data) and item.over.monitor_rows)
        for item in problem.constraints
    )
    if value and problem.scheme.in_pieces:
        raise BadValueError(
            "early_stopping is for problems that are trained step by step, and this one is solved "
            "in pieces. Leave it out."
        )
    if value and not watched:
        raise BadValueError(
            "early_stopping is by the monitor loss, and this problem has no monitor points. Set "
            "some rows apart: cx.Data(rows, monitor=0.2)."
        )
    return value


def _as_tolerance(value: Any, problem: Problem) -> float:
    number = as_real(value, "tolerance")
    if number and problem.objective is not None:
        raise BadValueError(
            f"tolerance={number:g} is a size of residuals at which a run ends, and the least value "
            "of an objective is not known. Leave it out: steps= ends the run, and "
            "cx.Constraint(tolerance=) says how well a constraint should hold."
        )
    if not 0 <= number < math.inf:
        raise BadValueError(f"tolerance must be a finite number of at least 0, got {number}.")
    return number
