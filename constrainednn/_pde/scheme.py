"""The march of an equation in space and time, as a scheme of a problem."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._pde.conditions import FlatStart, StartResidual
from constrainednn._pde.elements.discretisation import Discretisation, Equations, training_rules
from constrainednn._pde.elements.mesh import State, projected
from constrainednn._pde.march import MOST_ELEMENTS, March, Solved, status_of
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
from constrainednn.domains.boundaries import Segment
from constrainednn.domains.boxes import Box
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.space_time import SpaceTimePieces, stack_windows

# Monitor points in time of an element, the end among them; in space two for each polynomial.
_MONITOR_TIMES = 8
# Where u starts from zero, sizes below this share of what sources make of it are taken for it.
_NOTHING = 1e-6
# Places in one call of the compiled start.
_CHUNK = 512
# Training points that a report measures at most. All elements have their share.
_MOST_POINTS = 40_000


class SpaceTimeScheme(AbstractPieceScheme):
    """Windows in time, each with elements in space, from a given start.

    Attributes:
        equations: What must hold.
        start: From a place to the state.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        time: Start and end.
        mesh: Ends of the elements to begin with.
        shape: Polynomials in time and in space.
    """

    equations: Equations
    start: FlatStart
    unravel: Callable[[Array], PyTree]
    time: tuple[float, float]
    mesh: tuple[float, ...]
    shape: tuple[int, int] = eqx.field(static=True)

    # For each window. Errors in the end are smaller: windows are planned for less.
    default_tolerance = 1e-10
    digits = 500  # derivatives by x cost more of them than those by t

    def __repr__(self) -> str:
        Kt, Kx = self.shape
        return f"march of windows with elements of {Kt} x {Kx} polynomials, Gauss-Newton"

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
        """March from the start to the end."""
        del observed
        began = time.perf_counter()
        allowed = self.goal(tolerance, model.coefficients.dtype)
        state = self.begun(self.shape[1], allowed)
        disc = self.discretisation(self.shape, key)
        compiling = time.perf_counter() - began
        begin, end = self.time
        first = (end - begin) / 20
        march = March(disc, state, begin, first, end, allowed, self.least_size())
        before = 0.0
        if resumed is not None:
            before = _resume(march, resumed)
        began = time.perf_counter()

        def look(march: March) -> bool:
            done = (march.t - begin) / (end - begin)
            last = march.windows[-1].error if march.windows else math.nan
            spent = before + time.perf_counter() - began
            return watch(march.taken, done, last, lambda: _to_resume(march, spent))

        ending = march.run(steps, look)
        running = before + time.perf_counter() - began
        sizes = [len(item.c) for item in march.windows]
        at = march.t, f"x = {march.where:.6g}", march.why
        status, reason = status_of(ending, steps, sizes, MOST_ELEMENTS, at)
        solved = self._model(march)
        nothing = np.full(1, math.nan), np.zeros(1, int)
        errors, taken = (
            (np.array([w.error for w in march.windows]), np.array([w.steps for w in march.windows]))
            if march.windows
            else nothing
        )
        history = PieceHistory(solved.ends, errors, taken, march.rejected)
        return SchemeResult(solved, status, reason, int(taken.sum()), history, compiling, running)

    def given(self, unknowns: Float[Array, " q"]) -> "SpaceTimeScheme":
        """The same for other values of the unknowns."""
        equations, start = self.equations.given(unknowns), self.start.given(unknowns)
        return dataclasses.replace(self, equations=equations, start=start)

    def begun(self, Kx: int, allowed: float, edges: Sequence[float] | None = None) -> State:
        """The start on elements that resolve it, from these on or from `mesh`."""
        values = functools.partial(in_chunks, _start_of_chunk, self.start)
        first = np.array(self.mesh if edges is None else edges)
        return projected(values, first, Kx, 0.1 * allowed, MOST_ELEMENTS)

    def level(self, begun: State) -> tuple[SpaceTimePieces, Float[np.ndarray, "E Kt Kx d"]]:
        """The start at all times, and its coefficients."""
        c = np.zeros((len(begun.S), *self.shape, begun.S.shape[3]))
        c[:, 0] = np.sqrt(2) * begun.S[:, 0]
        return self.stacked(self.time, [begun.edges], [c]), c

    def discretisation(self, shape: tuple[int, int], key: Key[Array, ""]) -> Discretisation:
        """Polynomials of a shape, with places that steer."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        t = np.append(np.sort(rng.uniform(-1, 1, _MONITOR_TIMES - 1)), 1.0)
        x = np.sort(rng.uniform(-1, 1, 2 * shape[1]))
        return Discretisation.of(self.equations, shape, (t, x))

    def least_size(self) -> float:
        """A size of u that is nothing beside what sources make of it from zero."""
        interior, (begin, end) = self.equations.interior, self.time
        low, high = (begin, self.mesh[0]), (end, self.mesh[-1])
        p = np.random.default_rng(2).uniform(low, high, (512, 2))
        none = np.zeros((len(p), len(interior.orders), len(interior.highest)))
        r, G = interior.linearised(none, p)
        last = [a[0] == self.equations.order for a in interior.orders]
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.abs(r) / np.sqrt((G[:, :, last] ** 2).sum(axis=(2, 3)))
        rates = np.where(np.isfinite(rates), rates, 0.0)
        return _NOTHING * float(rates.mean() * (end - begin) ** self.equations.order)

    def _model(self, march: March) -> SpaceTimePieces:
        windows = march.windows
        if not windows:  # the start, for as short a time as numbers can tell
            begin, end = self.time
            c = np.zeros((len(march.state.S), *self.shape, march.state.S.shape[3]))
            c[:, 0] = math.sqrt(2) * march.state.S[:, 0]
            stop = begin + 64 * float(jnp.finfo(jnp.result_type(float)).eps) * max(
                abs(begin), end - begin
            )
            windows = [Solved(stop, march.state.edges, c, math.nan, 0)]
        return self.stacked(
            [self.time[0], *(w.stop for w in windows)],
            [w.edges for w in windows],
            [w.c for w in windows],
        )

    def stacked(
        self,
        times: Sequence[float],
        edges: list[Float[np.ndarray, " _"]],
        c: list[Float[np.ndarray, "_ Kt Kx d"]],
    ) -> SpaceTimePieces:
        """A model of these windows."""
        return stack_windows(
            times,
            edges,
            c,
            order=self.equations.order,
            smooth=self.equations.k,
            unravel=self.unravel,
            parameters=self.start.unknowns,
            arguments=self.start.arguments,
        )

    def defined_at(self, model: PyTree, points: Float[np.ndarray, "n 2"]) -> np.ndarray:
        """Anywhere: before training the model is the start at all times."""
        del model
        return points[:1]

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """The rows of the solve: places in all elements, or along an edge; as it weighs them."""
        times, nodes = np.asarray(model.ends), [model.elements(w) for w in range(model.count)]
        (t, of_t), (x, of_x) = training_rules(self.shape)
        if isinstance(constraint.residual, StartResidual):
            where, share = _on_pieces(nodes[0], x, of_x)
            points = np.stack([np.full(where.size, times[0]), where.ravel()], axis=1)
            return _weighted(points, share.ravel(), constraint.over)
        when, durations = _on_pieces(times, t, of_t)
        if isinstance(constraint.over, Segment):  # along a side
            side = np.full(when.size, constraint.over.start[1])
            points = np.stack([when.ravel(), side], axis=1)
            return _weighted(points, durations.ravel(), constraint.over)
        count = sum(len(edges) - 1 for edges in nodes)
        every = max(1, math.ceil(count * len(t) * len(x) / _MOST_POINTS))
        found, shares, number = [], [], 0
        for window, edges in enumerate(nodes):
            where, lengths = _on_pieces(edges, x, of_x)
            for e in range(-number % every, len(where), every):
                found.append(np.stack(np.meshgrid(when[window], where[e], indexing="ij"), axis=-1))
                shares.append(np.outer(durations[window], lengths[e]))
            number += len(where)
        points = np.concatenate([item.reshape(-1, 2) for item in found])
        return _weighted(points, np.concatenate(shares).ravel(), constraint.over)

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain | None:
        """Up to where the march got."""
        over, reached = constraint.over, float(model.ends[-1])
        if reached == self.time[1] or isinstance(constraint.residual, StartResidual):
            return None
        if isinstance(over, Segment):
            return Segment(over.start, (reached, *over.end[1:]))
        assert isinstance(over, Box)
        return Box(over.low, (reached, *over.high[1:]))

    def note(self, model: PyTree) -> str:
        """Where the training points lie."""
        count = sum(len(model.elements(w)) - 1 for w in range(model.count))
        return (
            f"train is the rows of the solve in {model.count} windows with {count} elements in "
            "all, a Gauss rule in each: the gap is what they miss between their places"
        )


@compiled
def _start_of_chunk(start: FlatStart, x: Array) -> Array:
    return jax.vmap(start)(x)


def in_chunks(
    fn: Callable[[FlatStart, Array], Array], start: FlatStart, x: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n o d"]:
    """A function of the start at many places: compiled once, whatever the mesh."""
    chunks = np.pad(x, (0, -len(x) % _CHUNK), mode="edge").reshape(-1, _CHUNK)
    found = [np.asarray(fn(start, jnp.asarray(chunk)), float) for chunk in chunks]
    return np.concatenate(found)[: len(x)]


def _on_pieces(
    ends: Float[np.ndarray, " n_1"], nodes: Float[np.ndarray, " m"], weights: np.ndarray
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Scaled nodes on all pieces, and their weights times the length of the piece."""
    lengths = np.diff(ends)[:, None]
    return ends[:-1, None] + lengths * (nodes + 1) / 2, lengths * weights


def _weighted(points: np.ndarray, share: np.ndarray, over: Any) -> Draw:
    low, high = (over.low, over.high) if isinstance(over, Box) else (over.start, over.end)
    moving = [i for i in range(2) if low[i] != high[i]]
    cube = [(points[:, i] - low[i]) / (high[i] - low[i]) for i in moving]
    dtype = jnp.result_type(float)
    return Draw(
        points.astype(dtype), (share / share.sum()).astype(dtype), np.stack(cube, 1).astype(dtype)
    )


def _to_resume(march: March, running: float) -> Resumable:
    windows = march.windows
    joined = lambda items: np.concatenate([np.zeros((0, *items[0].shape[1:])), *items])  # noqa: E731
    arrays = {
        "place": np.array([march.t, march.h, march.size]),
        "state_edges": march.state.edges,
        "state": march.state.S,
    }
    if windows:
        arrays |= {
            "windows": np.array([[w.stop, w.error, w.steps, len(w.c)] for w in windows]),
            "edges": joined([w.edges for w in windows]),
            "coefficients": joined([w.c for w in windows]),
        }
    return arrays, {"counters": [march.taken, march.rejected, round(1e3 * running)]}


def _resume(march: March, resumed: Resumable) -> float:
    """Go on from where a run was; the seconds that it took until then."""
    arrays, _ = resumed
    march.taken, march.rejected, milliseconds = counters_of(resumed, 3)
    march.t, march.h, march.size = map(float, arrays["place"])
    march.state = State(arrays["state_edges"], arrays["state"])
    table = arrays.get("windows", np.zeros((0, 4)))
    counts = table[:, 3].astype(int)
    ends = np.cumsum(counts)
    for (stop, error, steps, count), last in zip(table, ends, strict=True):
        number = len(march.windows)
        first = last - int(count)
        march.windows.append(
            Solved(
                float(stop),
                arrays["edges"][first + number : last + number + 1],
                arrays["coefficients"][first:last],
                float(error),
                int(steps),
            )
        )
    return milliseconds / 1e3
