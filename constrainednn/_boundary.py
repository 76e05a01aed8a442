"""Boundary value problems: elements solved together, divided where the residual is too large."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._calculus import derivative
from constrainednn._domains import AbstractDomain, Interval
from constrainednn._elements import Newton, Statement, Unknowns, solve_elements
from constrainednn._files import StoreError
from constrainednn._legendre import integrals
from constrainednn._pieces import (
    Features,
    Pieces,
    stack_pieces,
    training_nodes,
    training_points,
)
from constrainednn._samplers import Draw, Independent, draw
from constrainednn._scheme import (
    AbstractScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
    goal,
)

# Monitor points in each element.
_MONITOR = 32
_MOST_ELEMENTS = 2048
# Newton's method failing in so many rounds running is not for want of elements.
_FAILURES = 3
# Newton steps between two looks at the clock, and on one set of elements at most.
_LOOK_EVERY = 5
_MOST_STEPS = 60
# Room for elements times components at first: a compilation costs more than idle elements.
_ROOM = 128
# Elements with a residual below this share of the largest wait for the next round.
_SPOILT = 1e-2
# Parts of an element at most; at an end, where layers lie, they get shorter towards it.
_MOST_PARTS = 4


class OnHost(NamedTuple):
    """`Unknowns` between solves, as NumPy arrays: every new shape on the device is compiled."""

    y: Float[np.ndarray, "N_1 d"]
    b: Float[np.ndarray, "N K_1 d"]
    p: Float[np.ndarray, " q"]


class BoundaryField(eqx.Module):
    """The user's right-hand side with its singular term, on flat arrays.

    Attributes:
        fn: `fn(x, y)`, or `fn(x, y, p)` where there are unknown parameters.
        singular: The matrix S of the term S y / (x - a), or None.
        start: The left end, a.
        unknown: Whether `fn` takes p.
    """

    fn: Callable[..., Array]
    singular: Float[Array, "d d"] | None
    start: float
    unknown: bool

    def __call__(
        self, x: Float[Array, ""], y: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate at one place."""
        value = self.regular(x, y, p)
        return value if self.singular is None else value + self.singular @ y / (x - self.start)

    def regular(
        self, x: Float[Array, ""], y: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate without the singular term."""
        return jnp.ravel(jnp.asarray(self.fn(x, y, p) if self.unknown else self.fn(x, y)))


class BoundaryConditions(eqx.Module):
    """The user's boundary conditions; zero where they hold."""

    fn: Callable[..., Array]
    unknown: bool

    def __call__(
        self, left: Float[Array, " d"], right: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d_q"]:
        """Evaluate for values at both ends."""
        value = self.fn(left, right, p) if self.unknown else self.fn(left, right)
        return jnp.ravel(jnp.asarray(value))


class EquationResidual(eqx.Module):
    """u' - f(x, u, p); times (x - a) where there is a singular term, which it keeps finite."""

    field: BoundaryField

    def __call__(self, u: Callable[[Array], Array], x: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one place."""
        r = derivative(u)(x) - self.field.regular(x, u(x), _parameters(u))
        if self.field.singular is None:
            return r
        return (x - self.field.start) * r - self.field.singular @ u(x)


class ConditionsResidual(eqx.Module):
    """The boundary conditions as a residual of the model."""

    conditions: BoundaryConditions
    span: tuple[float, float]

    def __call__(self, u: Callable[[Array], Array], x: Float[Array, ""]) -> Float[Array, " d_q"]:
        """Evaluate; the point does not matter."""
        del x
        left, right = (u(jnp.asarray(end)) for end in self.span)
        return self.conditions(left, right, _parameters(u))


def _parameters(u: Callable[[Array], Array]) -> Float[Array, " q"]:
    """Those of the model; a reference that is a plain function has none."""
    return getattr(u, "parameters", jnp.zeros(0))


class BoundaryValueScheme(AbstractScheme):
    """Elements between two ends.

    Attributes:
        statement: The equations on flat arrays.
        span: Left and right end.
        width: Number of features in an element.
    """

    statement: Statement
    span: tuple[float, float]
    width: int

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
        tolerance = goal(tolerance, model.head.dtype)
        places = draw(Interval(-1.0, 1.0), _MONITOR, Independent(), key=key).points
        nodes, weights = training_nodes(self.width)
        features = [Features(at, self.width, 1) for at in (nodes, places)]

        edges, unknowns = model.ends, _unknowns(model)
        floors = self.least(model), eps * np.abs(unknowns.p)
        least = jax.tree.map(lambda size: jnp.asarray(size, model.head.dtype), floors)

        def newton(
            padded: Array, start: Unknowns, damping: Array, limit: int
        ) -> tuple[Newton, float]:
            began = time.perf_counter()
            found = solve_elements(
                self.statement,
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
            counters = [capacity, taken, given_up, failures, here, round(1e3 * running)]
            named = start._asdict() | {"damping": damping, "edges": edges}
            return jax.tree.map(np.asarray, named), {"counters": counters}

        capacity, compiling, running = 0, 0.0, 0.0
        taken, given_up, failures, share = 0, 0, 0, 0.0
        worst, error = 0, np.full(1, np.nan)
        within = None  # where a round is taken up again
        if resumed is not None:
            arrays = resumed[0]
            capacity, taken, given_up, failures, here, milliseconds = counters_of(resumed, 6)
            names = (*Unknowns._fields, "damping", "edges")
            if not set(names) <= arrays.keys() or len(arrays["b"]) != capacity:
                raise StoreError("the checkpoint is damaged: its elements are not all there.")
            running = milliseconds / 1e3
            start = Unknowns(*(jnp.asarray(arrays[name]) for name in Unknowns._fields))
            within = start, jnp.asarray(arrays["damping"]), here
            edges = arrays["edges"]
            unknowns = _cut(start, len(edges) - 1)
        while True:
            count, here = len(edges) - 1, 0
            undamped = jnp.zeros((), model.head.dtype)
            if count > capacity:
                capacity = max(4 * capacity, count, _ROOM // unknowns.y.shape[1])
                compiling += newton(*_padded(edges, unknowns, capacity), undamped, 0)[1]
            padded, start = _padded(edges, unknowns, capacity)
            damping = undamped
            if within is not None:
                (start, damping, here), within = within, None
            elif given_up:  # the elements of the next round are worth saving too
                watch(taken, share, float(error[worst]), to_go_on)
            while True:
                found, seconds = newton(padded, start, damping, min(_LOOK_EVERY, steps - taken))
                start, damping, running = found.unknowns, found.damping, running + seconds
                taken, here = taken + int(found.steps), here + int(found.steps)
                error, noise = (np.asarray(part)[:count] for part in (found.error, found.noise))
                worst = int(np.argmax(np.where(np.isfinite(error), error, np.inf)))
                ended = not found.unfinished or taken >= steps or here >= _MOST_STEPS
                stopped = watch(taken, share, float(error[worst]), None if ended else to_go_on)
                if ended or stopped:
                    break
            unknowns = _cut(found.unknowns, count)
            failures = 0 if found.solved else failures + 1
            parts = _parts(error, noise, tolerance, self.width)
            share = float(np.mean(parts == 1))
            ending = _ending(found, parts, edges, worst, error, taken >= steps, failures)
            # There is no verdict on a round that was not finished.
            if stopped and (ending is None or not ended):
                ending = "interrupted", f"with {count} elements"
            if ending is not None:
                break
            given_up += 1
            edges, unknowns = _divided(edges, unknowns, parts, self.width)
        solved = stack_pieces(
            edges,
            unknowns.y[:-1, None],
            heads(unknowns),
            unravel=model.unravel,
            parameters=unknowns.p,
        )
        history = PieceHistory(edges, error, np.full(count, here), given_up)
        return SchemeResult(solved, *ending, taken, history, compiling, running)

    def least(self, guess: Pieces) -> Float[np.ndarray, " d"]:
        """Sizes of components that are rounding to the guess, and need not be resolved."""
        eps = float(jnp.finfo(guess.head.dtype).eps)
        return eps * np.abs(_unknowns(guess).y).max(axis=0)

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


def heads(unknowns: OnHost) -> np.ndarray:
    """Heads with their first row, which the edge values fix; see `_elements`."""
    first = np.diff(unknowns.y, axis=0)[:, None] / math.sqrt(2)
    return np.concatenate([first, unknowns.b], axis=1)


def unchanged(y: Array) -> Array:
    return y


def _unknowns(model: Pieces) -> OnHost:
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


def _cut(unknowns: Unknowns, count: int) -> OnHost:
    y, b, p = (np.asarray(array) for array in unknowns)
    return OnHost(y[: count + 1], b[:count], p)


def _parts(error: np.ndarray, noise: np.ndarray, tolerance: float, width: int) -> np.ndarray:
    """Into how many parts each element is divided; one where its residual is small enough."""
    limit = np.maximum(tolerance, 2 * noise)
    # An unresolved layer spoils its neighbours too; they come right once it is resolved.
    limit = np.maximum(limit, _SPOILT * np.max(error, initial=0, where=np.isfinite(error)))
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = np.ceil(1.1 * (error / tolerance) ** (1 / width))
    wanted = np.where(np.isfinite(wanted), np.clip(wanted, 2, _MOST_PARTS), _MOST_PARTS)
    return np.where(error <= limit, 1, wanted).astype(int)


def _ending(
    found: Newton,
    parts: np.ndarray,
    edges: np.ndarray,
    worst: int,
    error: np.ndarray,
    spent: bool,
    failures: int,
) -> tuple[str, str] | None:
    """Why to end here, or None to divide and go on."""
    count = len(edges) - 1
    where = f"between {edges[worst]:.6g} and {edges[worst + 1]:.6g}"
    if float(found.condition) < float(np.finfo(error.dtype).eps) ** 0.7:
        return "stalled", (
            "the linearised problem is singular to rounding: the conditions do not determine the "
            "solution, or it has several close to each other. Check bc, or try another guess"
        )
    if (parts == 1).all() and bool(found.solved):
        return (
            "converged",
            f"the monitor residual is below the tolerance on all of {count} elements",
        )
    if spent:
        return "max_steps", f"with {count} elements; the largest residual is {where}"
    if failures >= _FAILURES:
        return "stalled", (
            f"Newton's method does not converge on {count} elements, and more would not help. Does "
            "a solution exist? Another guess may be nearer to it"
        )
    if parts.sum() > _MOST_ELEMENTS or np.diff(edges)[worst] < 1e-13 * (edges[-1] - edges[0]):
        return "stalled", (
            f"{count} elements are not enough: the residual {where} is still {error[worst]:.3g} of "
            "the solution. Is the problem well-posed? Another guess may help"
        )
    if (parts == 1).all():
        return "stalled", "Newton's method does not converge; another guess may help"
    return None


def _divided(
    edges: np.ndarray, unknowns: OnHost, parts: np.ndarray, width: int
) -> tuple[np.ndarray, OnHost]:
    """Divide elements; the function stays the same."""
    nodes, weights = training_nodes(width)
    P = integrals(nodes, width, 0)[0]
    head, y = heads(unknowns), unknowns.y
    new_edges, new_y, new_b = [edges[:1]], [y[:1]], []
    for j, count in enumerate(parts):
        cuts = np.linspace(-1.0, 1.0, count + 1)
        if count == _MOST_PARTS and j in (0, len(parts) - 1):
            graded = 2 * np.append(0.0, 4.0 ** np.arange(-_MOST_PARTS, 1)) - 1
            cuts = graded if j == 0 else -graded[::-1]
        new_edges.append((edges[j] + (edges[j + 1] - edges[j]) * (cuts + 1) / 2)[1:])
        values = y[j] + integrals(cuts, width, 1)[1] @ head[j]
        values[-1] = y[j + 1]
        new_y.append(values[1:])
        for low, high in itertools.pairwise(cuts):
            # Exact: a polynomial of degree K - 1 against orthonormal ones of the same degree.
            slope = integrals(low + (high - low) * (nodes + 1) / 2, width, 0)[0] @ head[j]
            new_b.append(((weights[:, None] * P).T @ slope)[1:] * (high - low) / 2)
    whole = np.concatenate(new_edges)
    whole[-1] = edges[-1]
    return whole, OnHost(np.concatenate(new_y), np.stack(new_b), unknowns.p)
