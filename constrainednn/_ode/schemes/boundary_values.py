"""Boundary value problems: elements solved together, divided where the residual is too large."""

import math
import time
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.batched import in_blocks
from constrainednn._common.messages import shown
from constrainednn._ode.linearised.element_step import Statement, Unknowns
from constrainednn._ode.linearised.elements import Newton, solve_elements
from constrainednn._ode.schemes.boundary_fields import BoundaryField
from constrainednn._pieces.refinement import (
    OnHost,
    Round,
    divided,
    ending_of,
    half_of,
    heads,
    parts_of,
    spread,
    with_waves,
)
from constrainednn._problem.scheme import (
    AbstractScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
    goal,
)
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boxes import Interval
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import StoreError
from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import (
    Features,
    Pieces,
    stack_pieces,
    training_nodes,
    training_points,
)

# Monitor points in each element.
_MONITOR = 32
# Newton steps between two looks at the clock, and on one set of elements at most.
_LOOK_EVERY = 5
_MOST_STEPS = 60
# Room for elements times components at first: a compilation costs more than idle elements.
_ROOM = 128
# Steps of collocation that show where a residual arises.
_LOCATING = 3
# Problems on the way to another are solved to this tolerance.
_ON_THE_WAY = 1e-5


class BoundaryValueScheme(AbstractScheme):
    """Elements between two ends.

    Attributes:
        statement: The equations on flat arrays.
        span: Left and right end.
        width: Number of features in an element.
        path: Statements that lead to this one, each solved from the one before.
        names: What to call them and this one.
    """

    statement: Statement
    span: tuple[float, float]
    width: int
    path: tuple[Statement, ...] = ()
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"elements with {self.width} features, damped Gauss-Newton"

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
        """Solve on a few elements, divide those with too large a residual, and again."""
        eps = float(jnp.finfo(model.head.dtype).eps)
        given, tolerance = tolerance > 0, goal(tolerance, model.head.dtype)
        places = draw(Interval(-1.0, 1.0), _MONITOR, Independent(), key=key).points
        nodes, weights = training_nodes(self.width)
        half = half_of(weights)
        features = [Features(at, self.width, 1) for at in (nodes, places)]
        statements = [*self.path, self.statement]

        edges, unknowns = model.ends, unknowns_of(model)
        floors = self.least(model), eps * np.abs(unknowns.p)
        least = jax.tree.map(lambda size: jnp.asarray(size, model.head.dtype), floors)
        undamped = jnp.zeros((), model.head.dtype)

        def newton(
            weights: np.ndarray, padded: Array, start: Unknowns, damping: Array, limit: int
        ) -> tuple[Newton, float]:
            began = time.perf_counter()
            found = solve_elements(
                statements[stage],
                features[0],
                jnp.asarray(weights),
                features[1],
                padded,
                start,
                least,
                damping,
                jnp.asarray(limit),
            )
            return jax.block_until_ready(found), time.perf_counter() - began

        def to_go_on() -> Resumable:
            counters = [capacity, taken, given_up, failures, here, round(1e3 * running), stage]
            named = start._asdict() | {"damping": damping, "edges": edges, "off": off}
            return jax.tree.map(np.asarray, named), {"counters": counters}

        capacity, compiling, running = 0, 0.0, 0.0
        taken, given_up, failures, stage, share = 0, 0, 0, 0, 0.0
        largest, off = np.nan, math.inf
        within = None  # where a round is taken up again
        if resumed is not None:
            arrays = resumed[0]
            counters = counters_of(resumed, 7)
            capacity, taken, given_up, failures, here, milliseconds, stage = counters
            names = (*Unknowns._fields, "damping", "edges", "off")
            whole = set(names) <= arrays.keys() and stage < len(statements)
            if not whole or len(arrays["b"]) != capacity:
                raise StoreError("the checkpoint is damaged: its elements are not all there.")
            running = milliseconds / 1e3
            start = Unknowns(*(jnp.asarray(arrays[name]) for name in Unknowns._fields))
            within = start, jnp.asarray(arrays["damping"]), here
            edges, off = arrays["edges"], float(arrays["off"])
            unknowns = _cut(start, len(edges) - 1)
        while True:
            count, here = len(edges) - 1, 0
            asked = tolerance if stage == len(self.path) else max(tolerance, _ON_THE_WAY)
            if count > capacity:
                capacity = max(4 * capacity, count, _ROOM // unknowns.y.shape[1])
                compiling += newton(weights, *_padded(edges, unknowns, capacity), undamped, 0)[1]
            padded, start = _padded(edges, unknowns, capacity)
            damping = undamped
            if within is not None:
                (start, damping, here), within = within, None
            elif given_up:  # the elements of the next round are worth saving too
                watch(taken, share, largest, to_go_on)
            while True:
                limit = min(_LOOK_EVERY, steps - taken)
                found, seconds = newton(weights, padded, start, damping, limit)
                start, damping, running = found.unknowns, found.damping, running + seconds
                taken, here = taken + int(found.steps), here + int(found.steps)
                seen = _seen(edges, found)
                largest = float(seen.error[seen.worst])
                ended = not found.unfinished or taken >= steps or here >= _MOST_STEPS
                stopped = watch(taken, share, largest, None if ended else to_go_on)
                if ended or stopped:
                    break
            unknowns = _cut(found.unknowns, count)
            failures = 0 if found.solved else failures + 1
            parts, small = parts_of(seen), seen.error <= np.maximum(asked, 2 * seen.noise)
            if found.solved and not stopped:
                if small.all():
                    check, seconds = newton(half, padded, found.unknowns, undamped, 1)
                    running, seen = running + seconds, seen._replace(off=float(check.moved))
                    stuck = off / 2 < seen.off < eps**0.5  # by rounding
                    off = seen.off
                    if seen.off <= asked or seen.rounded or stuck:
                        parts = np.ones_like(parts)
                if spread(parts):
                    check, seconds = newton(half, padded, found.unknowns, undamped, _LOCATING)
                    running, other = running + seconds, _seen(edges, check)
                    if np.isfinite(other.error).all() and (parts_of(other) > 1).any():
                        parts, unknowns = parts_of(other), _cut(check.unknowns, count)
            if (parts > 1).any():
                parts = with_waves(parts, np.asarray(found.slopes)[:count], self.width)
            share = float(np.mean(small))
            undefined = None
            if not np.isfinite(seen.error).all():
                undefined = self._undefined(statements[stage], edges, unknowns)
            ending = undefined or ending_of(
                seen, parts, tolerance=asked, given=given, spent=taken >= steps, failures=failures
            )
            # There is no verdict on a round that was not finished.
            if stopped and (ending is None or not ended):
                ending = "interrupted", f"with {count} elements"
            if ending is not None:
                if ending[0] != "converged" or stage == len(self.path):
                    break
                stage, failures = stage + 1, 0
                continue
            given_up += 1
            edges, unknowns = divided(edges, unknowns, parts, self.width)
        if self.path and ending[0] != "converged":
            way = ", on the way" * (stage < len(self.path))
            ending = ending[0], f"at {self.names[stage]}{way}: {ending[1]}"
        solved = stack_pieces(
            edges,
            unknowns.y[:-1, None],
            heads(unknowns),
            unravel=model.unravel,
            parameters=unknowns.p,
        )
        history = PieceHistory(edges, seen.error, np.full(count, here), given_up)
        return SchemeResult(solved, *ending, taken, history, compiling, running)

    def _undefined(
        self, statement: Statement, edges: np.ndarray, unknowns: OnHost
    ) -> tuple[str, str] | None:
        """The ending where the field is not finite at a training point, and no step is possible."""
        # A field that is finite there gave finite heads; those that it did not are the guess's.
        nodes, _ = training_nodes(self.width)
        x = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
        y = unknowns.y[:-1, None] + integrals(nodes, self.width, 1)[1] @ heads(unknowns)
        x, y = x.ravel(), y.reshape(-1, y.shape[-1])
        field = eqx.Partial(_at_point, statement.field)
        values = in_blocks(field, (x, y, np.tile(unknowns.p, (len(x), 1))))
        bad = ~np.isfinite(values).all(axis=1)
        if not bad.any():
            return None
        first = int(np.argmax(bad))
        return "stalled", (
            f"the vector field is {_kind(values[first])} at x = {x[first]:.6g}, y = "
            f"{shown(y[first].tolist())}. Another guess may stay where it is defined"
        )

    def least(self, guess: Pieces) -> Float[np.ndarray, " d"]:
        """Sizes of components that are rounding to the guess, and need not be resolved."""
        eps = float(jnp.finfo(guess.head.dtype).eps)
        return eps * np.abs(unknowns_of(guess).y).max(axis=0)

    def known_at(self, model: PyTree) -> float:
        """The middle of an element of the guess: the equation may be singular at the ends."""
        return float(np.mean(model.ends[:2]))

    def training_points(self, model: PyTree) -> Draw:
        """Gauss nodes of all elements."""
        return training_points(model.ends, self.width)

    def covered(self, model: PyTree) -> AbstractDomain:
        """All of the interval."""
        del model
        return Interval(*self.span)


def unchanged(y: Array) -> Array:
    return y


def unknowns_of(model: Pieces) -> OnHost:
    """The unknowns behind a model."""
    count = model.count
    y, head = np.asarray(model.states)[:count, 0], np.asarray(model.head)[:count]
    last = y[-1] + math.sqrt(2) * head[-1, 0]
    return OnHost(np.concatenate([y, last[None]]), head[:, 1:], np.asarray(model.parameters))


def _padded(edges: np.ndarray, unknowns: OnHost, capacity: int) -> tuple[Array, Unknowns]:
    """Fill up with elements of length zero to a few capacities, which saves compilations."""
    spare = capacity - (len(edges) - 1)
    repeat = lambda a: np.concatenate([a, np.repeat(a[-1:], spare, axis=0)])  # noqa: E731
    b = np.concatenate([unknowns.b, np.zeros((spare, *unknowns.b.shape[1:]))])
    filled = repeat(edges), repeat(unknowns.y), b, unknowns.p
    dtype = jnp.result_type(float)
    padded, y, b, p = (jnp.asarray(array, dtype) for array in filled)
    return padded, Unknowns(y, b, p)


def _seen(edges: np.ndarray, found: Newton) -> Round:
    count = len(edges) - 1
    error, noise = (np.asarray(part)[:count] for part in (found.error, found.noise))
    return Round(edges, error, noise, bool(found.solved), float(found.condition), math.nan)


def _at_point(field: BoundaryField, point: tuple[Array, Array, Array]) -> Array:
    return field(*point)


def _kind(value: np.ndarray) -> str:
    return "NaN" if np.isnan(value).any() else "infinite"


def _cut(unknowns: Unknowns, count: int) -> OnHost:
    y, b, p = (np.asarray(array) for array in unknowns)
    return OnHost(y[: count + 1], b[:count], p)
