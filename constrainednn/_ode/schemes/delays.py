"""Delay equations by the method of steps: y'(t) = f(t, y(t), args, y(t - delay), ...).

Between two multiples of the shortest delay all delayed values are known, so each such step is an
initial value problem whose arguments include the solution so far. Steps also end where derivatives
of the solution jump: a kink at the start recurs one delay later, one order smoother.

Source:
    Method of steps: Bellen and Zennaro, Numerical Methods for Delay Differential Equations, Oxford
    (2003), section 3.1.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._ode.schemes.field import EquationResidual, Field, with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.scheme import (
    AbstractPieceScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
)
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import StoreError
from constrainednn.models.pieces import Pieces, stack_pieces

# Ends of steps that are closer than this fraction of the shortest delay are merged.
_NEAR = 1e-9
# With several delays, jumps are followed through this many: after that they are smooth enough.
_FOLLOWED = 4
# Capacity for the windows that delayed values come from: another capacity is another compilation.
_ROOM = 64


class DelayedField(eqx.Module):
    """The field of a delay equation as one whose arguments are (args, past).

    Attributes:
        fn: `fn(t, y, args, *delayed)`.
        history: The solution up to the start.
        start: Where the history ends.
        delays: Positive numbers.
    """

    fn: Callable[..., PyTree]
    history: Callable[[Array], PyTree]
    start: Float[Array, ""]
    delays: Float[Array, " k"]

    def __call__(self, t: Float[Array, ""], y: PyTree, arguments: tuple[PyTree, Any]) -> PyTree:
        """Evaluate with the past solution."""
        args, past = arguments
        delayed = []
        for delay in self.delays:
            before = t - delay
            in_history = before < self.start
            # Each is evaluated only where it is defined.
            old = self.history(jnp.minimum(before, self.start))
            new = past(jnp.maximum(before, self.start))
            choose = lambda a, b: jnp.where(in_history, a, b)  # noqa: B023, E731
            delayed.append(jax.tree.map(choose, old, new))
        return self.fn(t, y, args, *delayed)


class DelayResidual(eqx.Module):
    """u' - f(t, u, args, u(t - delay), ...) as a residual of the model at one time."""

    field: Field

    def __call__(self, u: Callable[[Array], PyTree], t: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one time."""
        return EquationResidual(with_args(self.field, (self.field.args, u)))(u, t)


class DelayScheme(AbstractPieceScheme):
    """Windows in time, step after step.

    Attributes:
        field: The field, whose function is a `DelayedField`, and the arguments of the equation.
        ends: Where steps begin and end.
        width: Number of features in a window.
        longest: Largest length of a window.
    """

    field: Field
    ends: tuple[float, ...]
    width: int
    longest: float = math.inf

    def __repr__(self) -> str:
        return f"method of steps, march of windows with {self.width} features, Gauss-Newton"

    def solve(
        self,
        model: PyTree,
        *,
        tolerance: float,
        steps: int,
        key: Key[Array, ""],
        watch: Watch,
        resumed: Resumable | None = None,
        observed: Sequence[Observed] = (),
    ) -> SchemeResult:
        """March from step to step."""
        so_far = _SolvedSteps(self.ends[0], model)
        if resumed is not None:
            so_far.resume(resumed, len(self.ends) - 1)
        start, whole = self.ends[0], self.ends[-1] - self.ends[0]
        longest_delay = float(np.max(self.delays))
        compiling = running = 0.0
        status, reason = "converged", ""
        for begin, end in itertools.pairwise(self.ends[so_far.number :]):

            def watch_step(more, done, residual, state, before=so_far.taken, begin=begin) -> bool:
                del done, state  # they concern this step only
                return watch(before + more, (begin - start) / whole, residual, None)

            field = with_args(self.field, (self.field.args, so_far.past(begin - longest_delay)))
            share = (end - begin) / whole
            step = InitialValueScheme(field, (begin, end), self.width, (), self.longest, share)
            found = step.solve(
                so_far.start(begin, end, self.width),
                tolerance=tolerance,
                steps=steps - so_far.taken,
                key=key,
                watch=watch_step,
            )
            compiling, running = compiling + found.compile, running + found.run
            status, reason = found.status, found.reason
            if status == "interrupted":  # an unfinished step starts again
                watch(so_far.taken, (begin - start) / whole, np.nan, so_far.resumable)
                reason = f"at t = {begin:.17g}"
                break
            so_far.add(found)
            last, done = float(so_far.monitor[-1]), (end - start) / whole
            if watch(so_far.taken, done, last, so_far.resumable) and end < self.ends[-1]:
                status, reason = "interrupted", f"at t = {end:.17g}"
            elif status == "converged" and so_far.taken >= steps and end < self.ends[-1]:
                status = "max_steps"
                reason = f"the limit of {steps} Newton steps, at t = {end:.17g}"
            if status != "converged":
                break
        if status == "converged":
            reason = f"the end is reached in {len(so_far.head)} windows"
        solved, history = so_far.result(self.width)
        return SchemeResult(solved, status, reason, so_far.taken, history, compiling, running)

    @property
    def delays(self) -> Float[Array, " k"]:
        """The delays."""
        fn = self.field.fn
        assert isinstance(fn, DelayedField)
        return fn.delays

    def _whole(self) -> InitialValueScheme:
        return InitialValueScheme(self.field, (self.ends[0], self.ends[-1]), self.width)

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """The start."""
        del points
        return np.asarray(model.ends[:1])

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw:
        """Gauss nodes of all windows."""
        return self._whole().training_points(model, constraint)

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain:
        """From the start to where the march ended."""
        return self._whole().covered(model, constraint)


class _SolvedSteps:
    """The windows solved so far.

    Attributes:
        number: Steps of the method of steps.
        taken: Newton steps.
        at: State at the end of the last window.
    """

    def __init__(self, start: float, model: Pieces):
        self.model, self.number, self.taken = model, 0, 0
        self.edges = np.asarray([start])
        self.states = np.zeros((0, *model.states.shape[1:]))
        self.head = np.zeros((0, *model.head.shape[1:]))
        self.monitor, self.steps, self.rejected = np.zeros(0), np.zeros(0, int), 0
        self.spacing, self.found = np.zeros(1), np.zeros(0)
        self.at = np.asarray(model.states[0])

    def add(self, found: SchemeResult) -> None:
        self.number, self.taken = self.number + 1, self.taken + found.steps
        count, model, pieces = found.model.count, found.model, found.pieces
        assert isinstance(pieces, PieceHistory)
        self.edges = np.concatenate([self.edges, model.ends[1:]])
        self.states = np.concatenate([self.states, np.asarray(model.states)[:count]])
        self.head = np.concatenate([self.head, np.asarray(model.head)[:count]])
        self.monitor = np.concatenate([self.monitor, pieces.monitor])
        self.steps = np.concatenate([self.steps, pieces.steps])
        self.rejected += pieces.rejected
        self.spacing = np.maximum(self.spacing, pieces.spacing)
        self.found = np.append(self.found, pieces.found)
        value = model(jnp.asarray(model.ends[-1]))
        self.at = np.asarray(ravel_pytree(value)[0])[None]

    def past(self, since: float) -> Pieces:
        """The windows since a time; the initial model before there are any."""
        if not len(self.head):
            return self._pieces(self.model.ends, self.at[None], np.asarray(self.model.head)[:1])
        first = int(np.searchsorted(self.edges[1:-1], since, side="right"))
        return self._pieces(self.edges[first:], self.states[first:], self.head[first:])

    def _pieces(self, edges: np.ndarray, states: np.ndarray, head: np.ndarray) -> Pieces:
        return stack_pieces(edges, states, head, unravel=self.model.unravel, capacity=_ROOM)

    def start(self, begin: float, end: float, width: int) -> Pieces:
        """A constant model with the state at the end of the last window."""
        head = np.zeros((1, width, self.at.shape[1]))
        ends = np.asarray([begin, end])
        return stack_pieces(ends, self.at[None], head, unravel=self.model.unravel)

    def resumable(self) -> Resumable:
        return self._arrays(), {"counters": [self.number, self.taken, self.rejected]}

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("edges", "states", "head", "monitor", "steps", "at", "spacing", "found")
        return {name: getattr(self, name) for name in names}

    def resume(self, resumed: Resumable, steps: int) -> None:
        self.number, self.taken, self.rejected = counters_of(resumed, 3)
        arrays, blank = resumed[0], self._arrays()
        count = len(arrays.get("head", ()))
        for name, own in blank.items():
            found = arrays.get(name)
            rows = {"edges": count + 1, "at": 1, "spacing": 1}.get(name, count)
            if found is not None and name == "found":  # may hold any number of times
                rows = len(found)
            if found is None or found.shape != (rows, *own.shape[1:]):
                raise StoreError("the checkpoint is damaged: its windows are not all there.")
            setattr(self, name, found)
        if not 0 <= self.number <= steps:
            raise StoreError(f"the checkpoint is damaged: it counts {self.number} steps.")

    def result(self, width: int) -> tuple[Pieces, PieceHistory]:
        if not len(self.head):  # no step was completed
            start, end = self.edges[0], self.model.ends[-1]
            length = 64 * float(jnp.finfo(self.model.head.dtype).eps) * max(abs(start), end - start)
            model = self.start(start, start + length, width)
            return model, PieceHistory(model.ends, np.full(1, np.nan), np.zeros(1, int), 0)
        history = PieceHistory(
            self.edges,
            self.monitor,
            self.steps,
            self.rejected,
            float(self.spacing[0]),
            tuple(self.found.tolist()),
        )
        model = stack_pieces(self.edges, self.states, self.head, unravel=self.model.unravel)
        return model, history


def step_ends(
    span: tuple[float, float], delays: Float[np.ndarray, " k"], breaks: Sequence[float] = ()
) -> tuple[float, ...]:
    """Ends of the steps: at most the shortest delay apart, and at jumps of derivatives.

    Jumps originate at the start and at `breaks`, where the field itself jumps.
    """
    start, end = span
    short = float(delays.min())
    count = int(np.ceil((end - start) / short * (1 - _NEAR)))
    places = start + short * np.arange(count)
    jumps = np.zeros(1)
    delays = np.minimum(delays, 2 * (end - start))  # longer ones lead beyond the end in any case
    for _ in range(_FOLLOWED):
        jumps = np.unique(np.concatenate([jumps, (jumps[:, None] + delays).ravel()]))
    if len(delays) > 1:
        places = np.union1d(places, start + jumps)
    if len(breaks):
        places = np.union1d(places, np.add.outer(np.asarray(breaks), jumps))
    places = places[places < end]
    keep = [places[0]]
    for place in places[1:]:
        if place - keep[-1] > _NEAR * short:
            keep.append(place)
    return (*(float(place) for place in keep if place < end - _NEAR * short), float(end))
