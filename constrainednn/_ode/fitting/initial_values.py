"""Unknowns of an initial value problem, estimated from data by Gauss-Newton over its windows.

For given unknowns the windows are solved as usual, to the tolerance. In each window the head is
then eliminated: its Jacobians for the initial state and for the unknowns follow from the linearised
residual, by QR. The chain rule from window to window gives the Jacobian of the whole solution for
the unknowns, and the outer least-squares problem has only as many columns as there are unknowns.

Symbols (others in `fit.py`, `windows.py` and `models/pieces.py`)::

    symbol  shape         meaning
    Y       (n, p, d, q)  derivative of the states at the edges with respect to z
    C       (n, K, d, q)  derivative of the heads with respect to z

Source:
    Condensed Gauss-Newton for parameters of differential equations: Bock, in Modelling of Chemical
    Reaction Systems, Springer (1981) 102.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._fitting.fit import AbstractShooting, Part, Trial, useful_parts
from constrainednn._fitting.observations import rows_of
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._ode.schemes.field import Field, with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.schemes.windows import WindowRows
from constrainednn._pieces.condensation import least_squares
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import Observed, PieceHistory, SchemeResult, Watch
from constrainednn.models.pieces import Features, Pieces, stack_pieces, training_nodes

# Later marches over the same part of the interval get this fraction of the usual scan.
_QUICK_SCAN = 1 / 8


class FittedScheme(AbstractFittedScheme):
    """Windows in time whose equation holds unknowns that are estimated from data.

    Attributes:
        field: The vector field; its arguments are those of the model.
        arguments: From the unknowns to the arguments and, if it holds some, the initial value.
        start: From both to the state at the start, of shape (p, d).
        span: Start and end.
        width: Number of features in a window.
        breaks: Times within the span, in order, at which windows end.
        longest: Largest length of a window.
    """

    field: Field
    arguments: Arguments | TracedArguments
    start: Callable[[PyTree, PyTree], Float[Array, "p d"]]
    span: tuple[float, float]
    width: int
    breaks: tuple[float, ...] = ()
    longest: float = math.inf

    def __repr__(self) -> str:
        return f"march of windows with {self.width} features, Gauss-Newton on the unknowns"

    def forward(self, z: Float[Array, " q"], span: tuple[float, float]) -> InitialValueScheme:
        """The forward problem for given unknowns."""
        return self._with(self.arguments(z), span)

    def _with(self, args: PyTree, span: tuple[float, float]) -> InitialValueScheme:
        field, breaks = with_args(self.field, args), within(self.breaks, span)
        return InitialValueScheme(field, span, self.width, breaks, self.longest)

    def _field(self, z: Float[Array, " q"]) -> Field:
        return with_args(self.field, self.arguments(z))

    def forward_and_start(
        self, z: Float[Array, " q"], span: tuple[float, float]
    ) -> tuple[InitialValueScheme, Float[Array, "p d"]]:
        """The forward problem for given unknowns, and its initial state."""
        args, y0 = self.arguments.both(z)
        return self._with(args, span), self.start(args, y0)

    def initial_state(self, z: Float[Array, " q"]) -> Float[Array, "p d"]:
        """The initial state for given unknowns."""
        return self.start(*self.arguments.both(z))

    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "Shooting":
        """Marches on increasing parts of the interval."""
        return Shooting(self, model, observed, tolerance, key, watch)

    def at(self, model: PyTree) -> InitialValueScheme:
        """The problem for the unknowns that were found."""
        return self.forward(model.parameters, self.span)

    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""
        r, S = _linearised(_timeless(self), *features_of(self), model, observed)
        return np.asarray(r, float), np.asarray(S, float)


class Shooting(AbstractShooting):
    """Marches for given unknowns, and what they share."""

    def __init__(
        self,
        scheme: FittedScheme,
        model: Pieces,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.observed, self.tolerance, self.key = scheme, observed, tolerance, key
        self.features = features_of(scheme)
        self.compile, self.run = 0.0, 0.0
        self.capacity, self.compiled_for = 16, 0
        self.found: set[float] = set()  # times at which the equation changes abruptly
        self.scanned: set[float] = set()  # fractions of the interval scanned in full
        self.model, self.rows = model, rows_of(model, observed).size
        allowed = scheme.goal(tolerance, model.parameters.dtype)
        self.stages = useful_parts(self.reached, model.parameters.size, allowed)
        # Signals and progress only: a march is too short to save its state.
        self.watch: Watch = lambda taken, done, residual, state: watch(taken, done, residual, None)

    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """Solve for given unknowns on a fraction of the interval."""
        (begin, end), share = self.scheme.span, stage.share
        span = begin, end if share == 1.0 else begin + share * (end - begin)
        at = jnp.asarray(z, jnp.result_type(float))
        forward, states = self.scheme.forward_and_start(at, span)
        # Times that an earlier march found need not be found again.
        breaks = within({*forward.breaks, *self.found}, span)
        forward = dataclasses.replace(
            forward, breaks=breaks, share=1.0 if share not in self.scanned else _QUICK_SCAN
        )
        states = np.asarray(states)
        head = np.zeros((1, forward.width, states.shape[1]))
        blank = stack_pieces(np.asarray(span), states[None], head, unravel=forward.field.unravel)
        found = forward.solve(
            blank,
            tolerance=self.tolerance,
            steps=max(steps, 1),
            key=self.key,
            watch=self.watch,
        )
        self.compile, self.run = self.compile + found.compile, self.run + found.run
        assert isinstance(found.pieces, PieceHistory)
        self.found.update(found.pieces.found)
        self.scanned.add(share)
        return self.linearised(found, at)

    def linearised(self, found: SchemeResult, z: Float[Array, " q"]) -> Trial:
        """Rows and their derivatives for a model that solves the equation."""
        count, model = found.model.count, found.model
        self.capacity = max(self.capacity, len(model.head))
        model = stack_pieces(
            model.ends,
            np.asarray(model.states)[:count],
            np.asarray(model.head)[:count],
            unravel=model.unravel,
            parameters=np.asarray(z),
            arguments=self.scheme.arguments,
            capacity=self.capacity,
        )
        began = time.perf_counter()
        r, S = jax.block_until_ready(
            _linearised(_timeless(self.scheme), *self.features, model, self.observed)
        )
        elapsed = time.perf_counter() - began
        if self.compiled_for == self.capacity:
            self.run += elapsed
        else:
            self.compile, self.compiled_for = self.compile + elapsed, self.capacity
        return Trial(
            dataclasses.replace(found, model=model), np.asarray(r, float), np.asarray(S, float)
        )

    def reached(self, share: float) -> int:
        """The number of rows on a fraction of the interval."""
        begin, end = self.scheme.span
        stop = begin + share * (end - begin)
        cut = eqx.tree_at(lambda u: u.edges, self.model, self.model.edges.at[1].set(stop))
        return int(np.isfinite(rows_of(cut, self.observed)).sum())


def _timeless(scheme: FittedScheme) -> FittedScheme:
    """The scheme without its times, which derivatives do not need: they would be constants."""
    return dataclasses.replace(scheme, span=(0.0, 1.0), breaks=(), longest=math.inf)


def within(times: Iterable[float], span: tuple[float, float]) -> tuple[float, ...]:
    """The times inside a span, in the order in which they are reached."""
    low, high = sorted(span)
    return tuple(sorted((t for t in times if low < t < high), reverse=span[1] < span[0]))


def features_of(scheme: FittedScheme) -> tuple[Features, Float[Array, " m"], Features]:
    """Features at the Gauss nodes of a window, their weights, and features at its end."""
    nodes, weights = training_nodes(scheme.width)
    at = lambda s: Features(s, scheme.width, scheme.field.order)  # noqa: E731
    return at(nodes), jnp.asarray(weights), at(np.ones(1))


@compiled
def _linearised(
    scheme: FittedScheme,
    nodes: Features,
    weights: Float[Array, " m"],
    end: Features,
    model: Pieces,
    observed: tuple[Observed, ...],
) -> tuple[Float[Array, " N"], Float[Array, "N q"]]:
    """Rows, and their derivatives with respect to the unknowns along solutions of the equation."""
    z = model.parameters
    Y, C = _derivatives(scheme, nodes, weights, end, model)

    def rows(states: Array, head: Array, z: Array) -> Array:
        parts = lambda u: (u.states, u.head, u.parameters)  # noqa: E731
        return rows_of(eqx.tree_at(parts, model, (states, head, z)), observed)

    at = model.states, model.head, z
    along = lambda *change: jax.jvp(rows, at, change)[1]  # noqa: E731
    S = jax.vmap(along, in_axes=-1, out_axes=-1)(Y, C, jnp.eye(z.size, dtype=z.dtype))
    return rows(*at), S


def _derivatives(
    scheme: FittedScheme,
    nodes: Features,
    weights: Float[Array, " m"],
    end: Features,
    model: Pieces,
) -> tuple[Float[Array, "n p d q"], Float[Array, "n K d q"]]:
    """Derivatives of states and heads with respect to the unknowns."""
    z = model.parameters
    root = jnp.sqrt(weights)[:, None]
    p, d = model.states.shape[1:]
    largest = jnp.max(jnp.abs(model.states), axis=0)
    starts, stops = model.edges[:-1], model.edges[1:]
    real = jnp.isfinite(stops)
    starts = jnp.where(real, starts, model.edges[0])
    halves = jnp.where(real, stops - starts, 0) / 2

    def local(t: Array, half: Array, y: Array, c: Array) -> tuple[Array, Array, Array, Array]:
        """Jacobians of the head and the end state for the initial state and the unknowns."""

        def residual(y: Array, z: Array) -> Array:
            return WindowRows(scheme._field(z), nodes, y, t, half, largest).residual(c)

        training = WindowRows(scheme._field(z), nodes, y, t, half, largest)
        _, A, scale, stiff = training.linearised(c)
        columns = jnp.maximum(scale, jnp.max(jnp.abs(nodes.integrals[0] @ c), axis=0))
        rows = root / (columns * stiff)[None]
        J = training.jacobian(A) * rows[:, :, None, None] * columns[None, None, None]
        by_y, by_z = jax.jacfwd(residual, argnums=(0, 1))(y, z)
        both = jnp.concatenate([by_y.reshape(*by_z.shape[:2], p * d), by_z], axis=2)
        both = (both * rows[:, :, None]).reshape(rows.size, -1)
        dc = least_squares(J.reshape(rows.size, -1), both).reshape(*c.shape, -1)
        dc = dc * columns[None, :, None]
        dy = jnp.eye(p * d, p * d + z.size, dtype=y.dtype).reshape(p, d, -1)

        def at_end(y: Array, c: Array) -> Array:
            return WindowRows(scheme.field, end, y, t, half, largest).states(c)[0]

        along = lambda dy, dc: jax.jvp(at_end, (y, c), (dy, dc))[1]  # noqa: E731
        de = jax.vmap(along, in_axes=-1, out_axes=-1)(dy, dc)
        cut = lambda a: (a[..., : p * d].reshape(*a.shape[:2], p, d), a[..., p * d :])  # noqa: E731
        return (*cut(dc), *cut(de))

    C_y, C_z, E_y, E_z = jax.vmap(local)(starts, halves, model.states, model.head)
    first = jax.jacfwd(scheme.initial_state)(z)

    def chain(Y: Array, window: tuple[Array, Array]) -> tuple[Array, Array]:
        by_y, by_z = window
        return jnp.einsum("pdab,abq->pdq", by_y, Y) + by_z, Y

    _, Y = lax.scan(chain, first, (E_y, E_z))
    return Y, jnp.einsum("nkdab,nabq->nkdq", C_y, Y) + C_z


def raveled_rows(tree: PyTree, order: int) -> Float[Array, "p d"]:
    """An initial value as states, one row for each derivative."""
    parts = (tree,) if order == 1 else tuple(tree)
    return jnp.stack([ravel_pytree(part)[0] for part in parts])
