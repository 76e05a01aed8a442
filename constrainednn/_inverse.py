"""Unknowns of an initial value problem, estimated from data by Gauss-Newton over its windows.

For given unknowns the windows are solved as always, to the tolerance. In each the head is then
eliminated: its derivative by the state at the start and by the unknowns follows from the linearised
residual, by QR. Chained from window to window these make the derivative of the whole solution by
the unknowns, and the outer least-squares problem is only as wide as these are many.

Symbols (others in `_windows.py` and `_pieces.py`)::

    symbol  shape         meaning
    z       (q,)          the unknowns, in the scale in which they are trained
    r       (N,)          rows: residuals of the data times the root of their weights
    S       (N, q)        derivative of r by z along solutions of the equation
    Y       (n, p, d, q)  derivative of the states at the edges by z
    C       (n, K, d, q)  derivative of the heads by z

Source:
    Condensed Gauss-Newton for parameters of differential equations: Bock, in Modelling of Chemical
    Reaction Systems, Springer (1981) 102. Damping: More, LNM 630 (1977) 105; its control: Nielsen,
    IMM-REP-1999-05.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._blocks import flat_value
from constrainednn._domains import AbstractDomain
from constrainednn._files import StoreError
from constrainednn._pieces import Features, Pieces, least_squares, stack_pieces, training_nodes
from constrainednn._problem import Constraint
from constrainednn._samplers import Draw
from constrainednn._scheme import (
    AbstractScheme,
    Observed,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
)
from constrainednn._unknowns import Arguments, entry_names, units
from constrainednn._validate import ProblemError
from constrainednn._windows import Field, InitialValueScheme, WindowRows, with_args

# Data are fitted up to these shares of the interval, one after the other: far from the solution a
# long trajectory depends on the unknowns too wildly.
_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Until all data count, steps end once they lower the sum of squares by less than this share.
_ROUGH = 1e-2
# First damping and least one, of columns of length one.
_DAMPING, _LEAST_DAMPING = 1e-3, 1e-16
# An unknown that is zero is as good as one that makes up this share of the rows.
_SEEN = 1e-3
_MOST_TRIES = 200
_MOST_TRIES_ROUGH = 30


class FittedScheme(AbstractScheme):
    """Windows in time whose equation holds unknowns that are estimated from data.

    Attributes:
        field: The vector field; its arguments are those of the model.
        arguments: From the unknowns to the arguments.
        start: From the arguments to the state at the start, of shape (p, d).
        span: Start and end.
        width: Number of features in a window.
    """

    field: Field
    arguments: Arguments
    start: Callable[[PyTree], Float[Array, "p d"]]
    span: tuple[float, float]
    width: int

    def __repr__(self) -> str:
        return f"march of windows with {self.width} features, Gauss-Newton on the unknowns"

    def known(self, z: Float[Array, " q"], span: tuple[float, float]) -> InitialValueScheme:
        """The problem for given unknowns."""
        return InitialValueScheme(self._field(z), span, self.width)

    def _field(self, z: Float[Array, " q"]) -> Field:
        return with_args(self.field, self.arguments(z))

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
        """Estimate the unknowns, on more and more of the interval."""
        shooting = _Shooting(self, tuple(observed), tolerance, key, watch)
        z = np.asarray(model.parameters, float)
        r = rows_of(model, shooting.observed)
        if r.size < z.size:
            raise ProblemError(
                f"data: {r.size} observed numbers cannot determine {z.size} unknowns, "
                f"{', '.join(entry_names(self.arguments.unknowns))}. Give more data, or fix some."
            )
        shares, eps = shooting.shares(model), float(jnp.finfo(model.head.dtype).eps)
        damping, nu, scale = _DAMPING, 2.0, np.zeros(z.size)
        taken = tries = before = stage = 0
        if resumed is not None:
            arrays, _ = resumed
            taken, tries, before, stage = counters_of(resumed, 4)
            sizes = {"z": z.shape, "scale": z.shape, "damping": (2,)}
            if stage >= len(shares) or any(
                name not in arrays or arrays[name].shape != shape for name, shape in sizes.items()
            ):
                raise StoreError("the checkpoint is damaged: its unknowns are not all there.")
            z, scale, (damping, nu) = arrays["z"], arrays["scale"], arrays["damping"].tolist()

        def look(rms: float) -> bool:
            done = (stage + tries / (tries + 10)) / len(shares)
            return watch(taken, done, rms, to_go_on)

        def to_go_on() -> Resumable:
            arrays = {"z": z, "scale": scale, "damping": np.asarray([damping, nu])}
            return arrays, {"counters": [taken, tries, before, stage]}

        def ended(status: str, reason: str) -> SchemeResult:
            found = now.found
            share = "" if stage == len(shares) - 1 else f", on {shares[stage]:.0%} of the interval"
            return dataclasses.replace(
                found,
                status=status if found.status == "converged" else found.status,
                reason=f"{reason}{share}: {found.reason}",
                steps=taken,
                compile=shooting.compile,
                run=shooting.run,
            )

        def stopped() -> SchemeResult:
            look(np.nan)  # saves what a march began from: it is begun again
            return ended("interrupted", f"after {before + tries} steps on the unknowns")

        # Only marches that try something count; those that begin a stage a resume does again.
        now = shooting.at(z, shares[stage], steps)
        while True:
            seen, last = now.seen, stage == len(shares) - 1
            if now.found.status == "interrupted":
                return stopped()
            if not seen.any():
                return ended("stalled", "with the first unknowns no data are reached")
            if not np.isfinite(now.S[seen]).all():
                return ended("nonfinite", "a derivative of the data by the unknowns is NaN")
            top = np.abs(now.r[seen]).max() or 1.0  # squares of what is far off would overflow
            r, S = now.r[seen] / top, now.S[seen] / top
            rss, unit = float(r @ r), units(z, self.arguments.unknowns)
            scale = np.maximum(scale, top * np.linalg.norm(S, axis=0))
            # How much the rows vary by unknowns, and what of each of these would be seen in them.
            rows = float(np.linalg.norm(scale / top * unit))
            visible = max(rows, rss**0.5)
            # An unknown whose change is rounding to the rows stays where it is.
            blind = (scale == 0) | ((unit > 0) & (scale / top * unit <= 1e3 * eps * visible))
            columns = np.where(blind, np.inf, scale / top)
            sizes = np.maximum(unit, _SEEN * visible / columns)
            U, s, Vt = np.linalg.svd(S / columns, full_matrices=False)
            g = U.T @ r
            step = -Vt.T @ (s * g / (s**2 + damping)) / columns
            trial = shooting.at(z + step, shares[stage], steps - taken)
            if trial.found.status == "interrupted":
                return stopped()
            taken, tries = taken + trial.found.steps, tries + 1
            reached = np.isfinite(trial.r[seen]).all()
            trial_rss = float(np.sum((trial.r[seen] / top) ** 2)) if reached else np.inf
            predicted = float(np.sum(g**2 * s**2 * (s**2 + 2 * damping) / (s**2 + damping) ** 2))
            better, small = trial_rss < rss, bool(np.all(np.abs(step) <= eps**0.6 * sizes))
            # What the rows can still be lowered by, and whether there is anything left of them.
            offset = np.linalg.norm(g[s > eps**0.6 * s[0]]) / (rss**0.5 or 1.0)
            exact = rss**0.5 <= eps**0.6 * rows
            fitted = offset <= eps**0.5 or (small and (exact or damping <= _DAMPING))
            slow = better and rss - trial_rss <= _ROUGH * rss
            if better:
                gain = (rss - trial_rss) / predicted if predicted > 0 else 0.0
                damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), _LEAST_DAMPING)
                nu, z, now = 2.0, z + step, trial
            else:
                damping, nu = damping * nu, 2 * nu
            if not last and (slow or fitted or small or tries >= _MOST_TRIES_ROUGH):
                before, tries = before + tries, 0
                stage, damping, nu, scale = stage + 1, _DAMPING, 2.0, np.zeros(z.size)
                now = shooting.at(z, shares[stage], steps - taken)
            elif fitted:
                return ended("converged", f"the unknowns are fitted in {before + tries} steps")
            elif small or tries >= _MOST_TRIES:
                reason = f"no step lowers the sum of squares after {before + tries}"
                return ended("stalled", reason)
            if taken >= steps:
                return ended("max_steps", f"the limit of {steps} Newton steps")
            if look(top * rss**0.5):
                return stopped()

    def at(self, model: PyTree) -> InitialValueScheme:
        """The problem for the unknowns that were found."""
        return self.known(model.parameters, self.span)

    def known_at(self, model: PyTree) -> float:
        """The start."""
        return float(model.ends[0])

    def training_points(self, model: PyTree) -> Draw:
        """Gauss nodes of all windows."""
        return self.at(model).training_points(model)

    def covered(self, model: PyTree) -> AbstractDomain:
        """From the start to where the march got."""
        return self.at(model).covered(model)


class _Shot(NamedTuple):
    """A march for given unknowns; rows beyond its end are NaN."""

    found: SchemeResult
    r: Float[np.ndarray, " N"]
    S: Float[np.ndarray, "N q"]

    @property
    def seen(self) -> np.ndarray:
        """The rows that it covers."""
        return np.isfinite(self.r)


class _Shooting:
    """Marches for given unknowns, with what is the same for all of them."""

    def __init__(
        self,
        scheme: FittedScheme,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.observed, self.tolerance, self.key = scheme, observed, tolerance, key
        self.features = features_of(scheme)
        self.compile, self.run = 0.0, 0.0
        self.capacity, self.compiled_for = 16, 0
        # Signals and progress, but nothing to save: a march is short.
        self.watch: Watch = lambda taken, done, residual, state: watch(taken, done, residual, None)

    def at(self, z: Float[np.ndarray, " q"], share: float, steps: int) -> _Shot:
        """Solve for the unknowns up to a share of the interval."""
        begin, end = self.scheme.span
        span = begin, end if share == 1.0 else begin + share * (end - begin)
        at = jnp.asarray(z, jnp.result_type(float))
        known = self.scheme.known(at, span)
        states = np.asarray(self.scheme.start(known.field.args))
        head = np.zeros((1, known.width, states.shape[1]))
        blank = stack_pieces(np.asarray(span), states[None], head, unravel=known.field.unravel)
        found = known.solve(
            blank,
            tolerance=self.tolerance,
            steps=max(steps, 1),
            key=self.key,
            watch=self.watch,
        )
        self.compile, self.run = self.compile + found.compile, self.run + found.run
        return self.linearised(found, at)

    def linearised(self, found: SchemeResult, z: Float[Array, " q"]) -> _Shot:
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
        r, S = jax.block_until_ready(_linearised(self.scheme, *self.features, model, self.observed))
        elapsed = time.perf_counter() - began
        if self.compiled_for == self.capacity:
            self.run += elapsed
        else:
            self.compile, self.compiled_for = self.compile + elapsed, self.capacity
        return _Shot(
            dataclasses.replace(found, model=model), np.asarray(r, float), np.asarray(S, float)
        )

    def shares(self, model: Pieces) -> list[float]:
        """The shares of the interval on which there are twice as many rows as unknowns."""
        edges = np.asarray(self.scheme.span)
        useful = []
        for share in _SHARES:
            end = edges[0] + share * (edges[1] - edges[0])
            cut = eqx.tree_at(lambda u: u.edges, model, model.edges.at[1].set(end))
            r = np.asarray(rows_of(cut, self.observed))
            if share == 1.0 or np.isfinite(r).sum() >= 2 * model.parameters.size:
                useful.append(share)
        return useful


def sensitivities(
    scheme: FittedScheme, model: Pieces, data: Sequence[tuple[Constraint, Draw]]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
    """Rows of all data and their derivatives by the unknowns, for a solved model."""
    r, S = _linearised(scheme, *features_of(scheme), model, observations(data))
    return np.asarray(r, float), np.asarray(S, float)


def observations(data: Sequence[tuple[Constraint, Draw]]) -> tuple[Observed, ...]:
    """Data as a scheme takes them."""
    return tuple(Observed(item.residual, points.points, item.weight**0.5) for item, points in data)


def features_of(scheme: FittedScheme) -> tuple[Features, Float[Array, " m"], Features]:
    """Features at the Gauss nodes of a window, their weights, and features at its end."""
    nodes, weights = training_nodes(scheme.width)
    at = lambda s: Features(s, scheme.width, scheme.field.order)  # noqa: E731
    return at(nodes), jnp.asarray(weights), at(np.ones(1))


@eqx.filter_jit
def rows_of(model: Pieces, observed: tuple[Observed, ...]) -> Float[Array, " N"]:
    """The rows of all data, one below the other."""
    rows = []
    for residual, points, root in observed:
        at = lambda x, residual=residual: flat_value(eqx.Partial(residual, model), x)  # noqa: E731
        rows.append(root * jnp.ravel(jax.vmap(at)(points)))
    return jnp.concatenate(rows)


@eqx.filter_jit
def _linearised(
    scheme: FittedScheme,
    nodes: Features,
    weights: Float[Array, " m"],
    end: Features,
    model: Pieces,
    observed: tuple[Observed, ...],
) -> tuple[Float[Array, " N"], Float[Array, "N q"]]:
    """Rows, and their derivatives by the unknowns along solutions of the equation."""
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
    """Derivatives of states and heads by the unknowns."""
    z = model.parameters
    root = jnp.sqrt(weights)[:, None]
    p, d = model.states.shape[1:]
    largest = jnp.max(jnp.abs(model.states), axis=0)
    starts, stops = model.edges[:-1], model.edges[1:]
    real = jnp.isfinite(stops)
    starts = jnp.where(real, starts, model.edges[0])
    halves = jnp.where(real, stops - starts, 0) / 2

    def local(t: Array, half: Array, y: Array, c: Array) -> tuple[Array, Array, Array, Array]:
        """Derivatives of head and end state by start state and unknowns."""

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
    first = jax.jacfwd(lambda z: scheme.start(scheme.arguments(z)))(z)

    def chain(Y: Array, window: tuple[Array, Array]) -> tuple[Array, Array]:
        by_y, by_z = window
        return jnp.einsum("pdab,abq->pdq", by_y, Y) + by_z, Y

    _, Y = lax.scan(chain, first, (E_y, E_z))
    return Y, jnp.einsum("nkdab,nabq->nkdq", C_y, Y) + C_z


def raveled_rows(tree: PyTree, order: int) -> Float[Array, "p d"]:
    """A start as states, one row for each derivative."""
    parts = (tree,) if order == 1 else tuple(tree)
    return jnp.stack([ravel_pytree(part)[0] for part in parts])
