"""One window of an initial value problem: its residual rows, solved in least squares."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.schemes.field import Field
from constrainednn._pieces.condensation import least_squares
from constrainednn._pieces.gauss_newton import Step, begun, minimise
from constrainednn._pieces.rows import by_coefficients
from constrainednn._pieces.window_control import AbstractEvolution, Window
from constrainednn.models.pieces import Features, start_polynomial, training_nodes

_NEWTON_STEPS = 12
# Times at which the forcing of a system at rest is sampled.
REST_TIMES = 257
# In windows shorter than this many rounding errors of t a jump cannot be located.
_UNRESOLVED = 1024
# A component below eps to this power times the terms of its slope is not resolved.
_CANCELLED = 0.2
# Centres of clusters of points where the noise of the vector field is measured, the spacing in a
# cluster, and the order of differences, in which the smooth part drops out.
_CLUSTERS, _APART, _DIFFERENCES = (-0.83, -0.39, 0.07, 0.41, 0.79), 1e-3, 5


@functools.lru_cache(maxsize=16)
def fixed_features(
    width: int, order: int, dtype: str
) -> tuple[Features, Float[Array, " m"], Features, Features]:
    """Features that all windows share: at Gauss nodes, their weights, at the end, in clusters."""
    del dtype  # only a key of the cache: arrays have jax's default dtype
    nodes, weights = training_nodes(width)
    clusters = np.add.outer(_CLUSTERS, _APART * np.arange(_DIFFERENCES + 1)).ravel()
    at_nodes, end, near = (Features(at, width, order) for at in (nodes, np.ones(1), clusters))
    return at_nodes, jnp.asarray(weights), end, near


@compiled
def along(field: Field, times: Float[Array, " n"], y: Float[Array, "p d"]) -> Float[Array, "n d"]:
    """The vector field at one state and many times."""
    return jax.vmap(lambda t: field(t, y))(times)


class Evolution(AbstractEvolution):
    """The windows of an initial value problem; its state is (y, largest |y| so far)."""

    field: Field
    nodes: Features
    weights: Float[Array, " m"]
    monitor: Features
    end: Features
    clusters: Features | None = None

    @property
    def convergence(self) -> int:
        """One more than the number of features."""
        return self.nodes.width + 1

    def window(self, state: PyTree[Array], t: Float[Array, ""], h: Float[Array, ""]) -> Window:
        """Gauss-Newton for the head, starting from a constant slope."""
        y, largest = state
        order, d = y.shape
        half, width = h / 2, self.nodes.width
        rows_at = lambda features: WindowRows(self.field, features, y, t, half, largest)  # noqa: E731
        training, monitor = rows_at(self.nodes), rows_at(self.monitor)
        root = jnp.sqrt(self.weights)[:, None]

        def newton(c, damping, notes):
            del damping  # a shorter window is better than a damped step
            r, A, scale, stiff = training.linearised(c)
            # A component that starts at zero has no size yet; its slope provides one.
            columns = jnp.maximum(scale, jnp.max(jnp.abs(training.at.integrals[0] @ c - r), axis=0))
            rows = root / (columns * stiff)[None]
            J = training.jacobian(A) * rows[:, :, None, None] * columns[None, None, None]
            J, r = J.reshape(-1, width * d), (r * rows).reshape(-1, 1)
            change = least_squares(J, r).reshape(width, d) * columns[None]
            return Step(change, jnp.max(jnp.abs(change) / scale[None]), None, notes)

        slope = math.sqrt(2) * half**order * self.field.slope(t, y)
        first = jnp.zeros((width, d), y.dtype).at[0].set(slope)
        found = minimise(newton, begun(first), _NEWTON_STEPS)
        c = found.unknowns

        r, _, scale, stiff = monitor.linearised(c)
        rounding = monitor.rounding(c)
        # Scaled before it is squared: a square may underflow where the number does not.
        relative = lambda r: 2 * jnp.sqrt(jnp.mean((r / (scale * stiff)[None]) ** 2, axis=0))  # noqa: E731
        error, noise = relative(r), relative(rounding)
        if self.clusters is not None:
            noise = jnp.maximum(noise, rows_at(self.clusters).noise(c) / (scale * stiff))
        return Window(
            piece=(y, c),
            end=(
                rows_at(self.end).states(c)[0],
                jnp.maximum(largest, jnp.max(jnp.abs(training.states(c)), axis=0)),
            ),
            error=error,
            noise=noise,
            scale=scale * stiff,
            steps=found.steps,
            solved=jnp.all(jnp.isfinite(error)) & found.solved,
        )


class WindowRows(eqx.Module):
    """The residual of one window at given points."""

    field: Field
    at: Features
    y: Float[Array, "p d"]
    t: Float[Array, ""]
    half: Float[Array, ""]
    largest: Float[Array, "p d"]

    def states(self, c: Float[Array, "K d"]) -> Float[Array, "m p d"]:
        """Value and derivatives, in the user's time."""
        order = self.y.shape[0]
        dt = self.half * (self.at.places + 1)
        rows = [
            start_polynomial(self.y, dt, j) + self.at.integrals[order - j] @ c / self.half**j
            for j in range(order)
        ]
        return jnp.stack(rows, axis=1)

    def fields(
        self, states: Float[Array, "m p d"], shift: float | Array = 0.0
    ) -> Float[Array, "m d"]:
        """The vector field in scaled time, evaluated at times (1 + shift) t."""
        t = (self.t + self.half * (self.at.places + 1)) * (1 + shift)
        return self.factor * jax.vmap(self.field)(t, states)

    @property
    def factor(self) -> Float[Array, "..."]:
        """Factor of each equation in scaled time."""
        factor = self.half ** self.y.shape[0]
        algebraic = self.field.algebraic
        return factor if algebraic is None else jnp.where(algebraic, 1.0, factor)[None]

    def residual(self, c: Float[Array, "K d"]) -> Float[Array, "m d"]:
        """The residual in scaled time."""
        top = self.at.integrals[0] @ c
        if self.field.mass is not None:
            top = top @ self.field.mass.T
        return top - self.fields(self.states(c))

    def linearised(
        self, c: Float[Array, "K d"]
    ) -> tuple[
        Float[Array, "m d"], Float[Array, "m d p d"], Float[Array, " d"], Float[Array, " d"]
    ]:
        """Residual, derivative of the scaled field, size of each component, stiffness of each.

        The size is that of the highest derivative in the state, in scaled time: the largest in
        the window, but at least a rounding error of the largest before it, since a component that
        has decayed need not be resolved.
        """
        order = self.y.shape[0]
        states = self.states(c)
        slope = lambda t, y: jax.jacfwd(self.field, argnums=1)(t, y)  # noqa: E731
        t = self.t + self.half * (self.at.places + 1)
        factor = self.factor
        A = jnp.reshape(factor, (1, -1, 1, 1)) * jax.vmap(slope)(t, states)
        length, limits = jnp.abs(self.half), jnp.finfo(c.dtype)
        size = jnp.maximum(jnp.max(jnp.abs(states), axis=0), limits.eps * self.largest)
        # A jump where a component passes zero is as large as the component however short the
        # window is. In the shortest windows, the largest size of the component counts instead.
        shortest = _UNRESOLVED * limits.eps * jnp.abs(self.t + self.half)
        size = jnp.where(length <= shortest, jnp.maximum(size, self.largest), size)
        scale = jnp.maximum(length ** (order - 1) * size[-1], limits.eps * size[0]) + limits.tiny
        own = jnp.abs(jnp.diagonal(A, axis1=1, axis2=3))  # (m, p, d)
        per_time = length ** -jnp.arange(order, dtype=c.dtype)
        stiff = jnp.maximum(1.0, 2 * jnp.max(own * per_time[None, :, None], axis=(0, 1)))
        # Where large terms cancel, rounding remains, and drives a component of that size.
        terms = jnp.max(jnp.einsum("mipj,pj->mi", jnp.abs(A), size), axis=0)
        scale = jnp.maximum(scale, limits.eps**_CANCELLED * terms / stiff)
        r = self.residual(c)
        algebraic = self.field.algebraic
        if algebraic is not None:  # relative to the largest term, however long the window is
            terms = jnp.max(jnp.sum(jnp.abs(A[:, :, 0]) * size[:1][None], axis=2), axis=0)
            stiff = jnp.where(algebraic, (terms + limits.tiny) / scale, stiff)
        return r, A, scale, stiff

    def jacobian(self, A: Float[Array, "m d p d"]) -> Float[Array, "m d K d"]:
        """Derivative of the residual with respect to the head, from that of the scaled field."""
        order, d = self.y.shape
        Q = self.at.integrals
        mass = jnp.eye(d, dtype=A.dtype) if self.field.mass is None else self.field.mass
        lower = [(-A[:, :, j], Q[order - j] / self.half**j) for j in range(order)]
        return by_coefficients(*zip((mass[None], Q[0]), *lower, strict=True))

    def rounding(self, c: Float[Array, "K d"]) -> Float[Array, "m d"]:
        """Change of the residual when state and time change in their last digits."""
        states = self.states(c)
        signs = (-1.0) ** np.indices(states.shape).sum(axis=0)
        eps = jnp.finfo(c.dtype).eps
        moved = states * (1 + 2 * eps * signs)
        return self.fields(moved, jnp.asarray(eps * signs[:, 0, 0], c.dtype)) - self.fields(states)

    def noise(self, c: Float[Array, "K d"]) -> Float[Array, " d"]:
        """Noise of the residual in clusters of points, as of a field in lower precision.

        The median over the clusters, so that a jump in one of them does not count.

        Source:
            Differences as in More and Wild, Estimating computational noise, SIAM J. Sci. Comput.
            33 (2011) 1292.
        """
        r = self.residual(c).reshape(len(_CLUSTERS), _DIFFERENCES + 1, -1)
        size = math.sqrt(math.comb(2 * _DIFFERENCES, _DIFFERENCES))
        return jnp.median(jnp.abs(jnp.diff(r, _DIFFERENCES, axis=1))[:, 0], axis=0) * 2 / size
