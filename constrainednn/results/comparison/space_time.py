"""Equations in space and time by the method of lines: SciPy's Radau on spectral nodes in space.

Symbols (others in `_pde`)::

    symbol  shape      meaning
    N       int        nodes: Chebyshev's, or equally spaced ones of a periodic interval
    D_b     (N, N)     b-th derivative by x of what has these values at the nodes
    y       (o, n, d)  the state at the nodes whose values no condition at an end determines
"""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from constrainednn._pde.elements.discretisation import Equations
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn.errors import BadValueError
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.results.comparison.classical_run import ClassicalRun

# Nodes, and those of a coarser solve that tells how exact the first one is.
_NODES = 192, 128
_TOLERANCE = 1e-10
_TIMES = 21
# Newton steps for the values at the ends: one where conditions are linear.
_STEPS = 3


def by_lines(model: SpaceTimePieces, scheme: SpaceTimeScheme) -> ClassicalRun:
    """Solve by the method of lines and compare at 21 times, at the nodes.

    Raises:
        ValueError: If the values at the ends cannot be told node by node from the conditions there.
    """
    equations = scheme.equations
    d = len(equations.interior.highest)
    given = [0 if item is None else item.equations for item in equations.ends]
    mixed = [a for a in equations.interior.orders if a[0] == equations.order and a[1]]
    if mixed or any(count % d for count in given):
        raise BadValueError(
            "compare needs an equation whose highest derivative by time is not differentiated by "
            "x, and at each end as many conditions as u has components, or none."
        )
    times = np.linspace(model.ends[0], model.ends[-1], _TIMES)
    runs = [_solved(scheme, nodes, times) for nodes in _NODES]
    (fine, seconds, found), (coarse, _, other) = runs
    reached = min(len(found.t), len(other.t), _TIMES)
    t = times[:reached]
    values = jax.jit(jax.vmap(jax.vmap(lambda p: model.derivatives(p, [(0, 0)])[0])))
    points = lambda x: jnp.asarray(np.stack(np.meshgrid(t, x, indexing="ij"), axis=-1))  # noqa: E731
    known = [np.asarray(values(points(run.x))) for run in (fine, coarse)]
    ours, theirs = known[0], fine.values(t, found.y[:, :reached])
    difference = _relative(ours - theirs, ours)
    own = _relative(known[1] - coarse.values(t, other.y[:, :reached]), known[1])
    kind = "Fourier" if equations.periodic else "Chebyshev"
    return ClassicalRun(
        difference,
        f"Radau(rtol={_TOLERANCE:g}) on {_NODES[0]} {kind} nodes (on {_NODES[1]}: {own:.1e})",
        found.message,
        int(found.nfev),
        "compiled by jax",
        seconds,
        float(t[-1]) if reached else math.nan,
    )


def _relative(difference: np.ndarray, values: np.ndarray) -> float:
    return float(np.linalg.norm(difference) / (np.linalg.norm(values) or 1.0))


def _solved(scheme: SpaceTimeScheme, nodes: int, times: np.ndarray):
    """The lines, seconds of a call that compiles nothing, and what SciPy found."""
    from scipy.integrate import solve_ivp

    lines = _Lines(scheme, nodes)
    slope, jacobian = jax.jit(lines.slope), jax.jit(jax.jacfwd(lines.slope, argnums=1))
    y0 = lines.start()
    jax.block_until_ready((slope(times[0], y0), jacobian(times[0], y0)))  # compiled
    began = time.perf_counter()
    with np.errstate(all="ignore"):
        found = solve_ivp(
            lambda t, y: np.asarray(slope(t, y)),
            (times[0], times[-1]),
            y0,
            method="Radau",
            t_eval=times,
            rtol=_TOLERANCE,
            atol=_TOLERANCE * float(np.abs(y0).max() or 1.0),
            jac=lambda t, y: np.asarray(jacobian(t, y)),
        )
    return lines, time.perf_counter() - began, found


class _Lines:
    """The equation at nodes of space.

    Attributes:
        x: The nodes.
        D: D_0, D_1, ...
        inner: The nodes whose values are unknown.
    """

    def __init__(self, scheme: SpaceTimeScheme, N: int):
        self.equations: Equations = scheme.equations
        self.start_of = scheme.start
        low, high = scheme.mesh[0], scheme.mesh[-1]
        orders = [self.equations.interior, *filter(None, self.equations.ends)]
        most = max(item.order(1) for item in orders)
        self.d = len(self.equations.interior.highest)
        if self.equations.periodic:
            self.x = low + (high - low) * np.arange(N) / N
            self.D = [_fourier(N, high - low, b) for b in range(most + 1)]
        else:
            s = -np.cos(np.pi * np.arange(N) / (N - 1))
            self.x = low + (high - low) * (s + 1) / 2
            first = chebyshev(s) * 2 / (high - low)
            self.D = [np.linalg.matrix_power(first, b) for b in range(most + 1)]
        given = [0 if end is None else end.equations // self.d for end in self.equations.ends]
        self.inner = slice(given[0], N - given[1])

    def start(self) -> Float[np.ndarray, " n"]:
        """The state at the start."""
        values = jax.vmap(self.start_of)(jnp.asarray(self.x[self.inner]))
        return np.asarray(values, float).transpose(1, 0, 2).ravel()

    def values(
        self, t: Float[np.ndarray, " m"], y: Float[np.ndarray, "n m"]
    ) -> Float[np.ndarray, "m N d"]:
        """U at all nodes, from states at some times."""
        first = y.reshape(self.equations.order, -1, self.d, y.shape[1])[0]
        filled = jax.vmap(self.filled)(jnp.asarray(t), jnp.asarray(np.moveaxis(first, -1, 0)))
        return np.asarray(filled)

    def filled(self, t: Array, inner: Float[Array, "n d"]) -> Float[Array, "N d"]:
        """U at all nodes, from those inside and the conditions at the ends."""
        below, above = self.inner.start, len(self.x) - self.inner.stop
        if not below + above:
            return inner

        def whole(ends: Array) -> Array:
            return jnp.concatenate([ends[:below], inner, ends[below:]])

        def missed(ends: Array) -> Array:
            u, found = whole(ends), []
            for node, condition in zip((0, -1), self.equations.ends, strict=True):
                if condition is not None:
                    found.append(self._at_end(condition, t, u, node))
            return jnp.concatenate(found).reshape(ends.shape)

        ends = jnp.concatenate([jnp.tile(inner[:1], (below, 1)), jnp.tile(inner[-1:], (above, 1))])
        for _ in range(_STEPS):
            J = jax.jacfwd(missed)(ends).reshape(ends.size, ends.size)
            ends = ends - jnp.linalg.solve(J, missed(ends).ravel()).reshape(ends.shape)
        return whole(ends)

    def _at_end(self, condition: LocalResidual, t: Array, u: Array, node: int) -> Array:
        v = jnp.stack([jnp.asarray(self.D[b][node]) @ u for _, b in condition.orders])
        return condition.at(v, jnp.stack([t, jnp.asarray(self.x[node])]))

    def slope(self, t: Array, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """The derivative of the state."""
        interior, order = self.equations.interior, self.equations.order
        t = jnp.asarray(t, float)
        inner = y.reshape(order, -1, self.d)
        state = [self.filled(t, inner[0])]
        if order == 2:  # at the ends the velocity follows from that inside
            along = (jnp.ones_like(t), inner[1])
            state.append(jax.jvp(self.filled, (t, inner[0]), along)[1])
        known = [
            None if a == order else jnp.asarray(self.D[b]) @ state[a] for a, b in interior.orders
        ]

        def residual(highest: Array, t: Array, x: Array, known: list) -> Array:
            v = jnp.stack([highest if item is None else item for item in known])
            return interior.at(v, jnp.stack([t, x]))

        def solved(x: Array, known: list) -> Array:
            fn = functools.partial(residual, t=t, x=x, known=known)
            zero = jnp.zeros(self.d)
            return -jnp.linalg.solve(jax.jacfwd(fn)(zero), fn(zero))

        at_nodes = [None if item is None else item[self.inner] for item in known]
        highest = jax.vmap(solved)(jnp.asarray(self.x[self.inner]), at_nodes)
        return jnp.concatenate([*(part.ravel() for part in inner[1:]), highest.ravel()])


def chebyshev(s: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N N"]:
    """The differentiation matrix at Chebyshev's extreme points.

    Source: Trefethen, Spectral Methods in MATLAB (2000), chapter 6.
    """
    N = len(s)
    c = np.ones(N)
    c[[0, -1]] = 2
    c *= (-1.0) ** np.arange(N)
    difference = s[:, None] - s + np.eye(N)
    D = np.outer(c, 1 / c) / difference
    return D - np.diag(D.sum(axis=1))


def _fourier(N: int, length: float, b: int) -> Float[np.ndarray, "N N"]:
    """The b-th derivative of the trigonometric interpolant at equally spaced nodes."""
    k = 2j * np.pi * np.fft.fftfreq(N, length / N)
    if b % 2:
        k[N // 2] = 0
    column = np.fft.ifft(k**b).real
    return scipy.linalg.circulant(column)
