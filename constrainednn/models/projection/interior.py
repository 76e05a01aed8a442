"""The nearest point where equations and inequalities hold: primal-dual interior steps.

y       (n,)    the point;  y0 what is projected
g, G            equations and their Jacobian
h, K            inequalities h <= 0 and their Jacobian
s, v    (p,)    slacks, h + s = 0, and multipliers of the inequalities, both above zero
w       (m,)    multipliers of the equations
W       n x n   I + curvature + K^T diag(v / s) K
M       n x n   inverse of its Cholesky factor
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from constrainednn.models.projection.factors import inverse_factor
from constrainednn.models.projection.rows import jacobian, row_space

_PARTS = (1.0, 0.5, 0.125, 1 / 64)
# A slack or multiplier keeps this share of itself in a step.
_KEEP = 0.01
# The duality gap aimed at in a step, as a share of the present one.
_CENTRE = 0.1


class _State(NamedTuple):
    y: Array
    s: Array
    w: Array
    v: Array


def nearest_within(
    g: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    h: Callable[[Float[Array, " n"]], Float[Array, " p"]],
    y0: Float[Array, " n"],
    *,
    iterations: int,
) -> tuple[Float[Array, " n"], Float[Array, " p"]]:
    """Move a point to the nearest one with g = 0 and h <= 0.

    Args:
        g: The equations.
        h: The inequalities.
        y0: The point; one that is in the set stays where it is.
        iterations: Steps at most.

    Returns:
        The point, and which inequalities hold it there: one or zero for each.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), chapter 19: the primal-dual system, with
        slacks, a step to 0.99 of the boundary, and parts of it tried by the norm of the residual.
        At the end the active inequalities are taken as equations, for the last digits.
    """
    unscaled, h0 = (g, h), h(y0)
    g, h = _scaled(g, y0), _scaled(h, y0)
    at_y0, m = h(y0), jax.eval_shape(g, y0).size
    size = jnp.maximum(1.0, jnp.max(jnp.abs(at_y0)))
    start = _State(y0, jnp.maximum(-at_y0, 0.1 * size), jnp.zeros(m, y0.dtype), 0.1 * size + 0 * h0)
    end = 100 * jnp.finfo(y0.dtype).eps

    def body(carry: tuple) -> tuple:
        k, state, _ = carry
        state, left = _advanced(g, h, y0, state)
        return k + 1, state, left > end * (1 + jnp.linalg.norm(state.y))

    carry = 0, start, jnp.asarray(True)
    _, found, _ = jax.lax.while_loop(lambda c: c[2] & (c[0] < iterations), body, carry)
    active = (found.v > found.s).astype(y0.dtype)
    y = _polished(*unscaled, found.y, active)
    inside = (jnp.max(h0, initial=-jnp.inf) <= 0) & jnp.all(g(y0) == 0)
    return jnp.where(inside, y0, y), jnp.where(inside, 0.0, active)


def _scaled(fn: Callable, y0: Array) -> Callable:
    """The constraints in units of y, by their slopes at y0: the distance to where they hold."""
    C = jacobian(fn, y0)[1]
    slopes = jnp.linalg.norm(C, axis=1)
    scale = jnp.where(slopes > 0, slopes, 1.0)
    return lambda y: fn(y) / scale


def _residual(g: Callable, h: Callable, y0: Array, state: _State, aim: Array) -> Array:
    """What should vanish: stationarity, equations, slacks, and products minus their aim."""
    y, s, w, v = state
    stationary = jax.grad(lambda y: 0.5 * jnp.sum((y - y0) ** 2) + w @ g(y) + v @ h(y))(y)
    return jnp.concatenate([stationary, g(y), h(y) + s, s * v - aim])


def _advanced(g: Callable, h: Callable, y0: Array, state: _State) -> tuple[_State, Array]:
    """The state after a step, and how far from a solution it was: the largest residual."""
    y, s, w, v = state
    (g_y, G), (h_y, K) = jacobian(g, y), jacobian(h, y)
    # Slacks must not vanish before the inequalities hold: no step could be long then.
    aim = _CENTRE * jnp.maximum(jnp.mean(s * v), jnp.mean(v) * jnp.max(jnp.abs(h_y + s)))
    slope = y - y0 + G.T @ w + K.T @ v
    eye = jnp.eye(y.size, dtype=y.dtype)
    convex = eye + K.T @ ((v / s)[:, None] * K)
    curved = convex + jax.hessian(lambda y: w @ g(y) + v @ h(y))(y)
    # Without the curvature where that leaves no positive definite matrix.
    both = jax.vmap(inverse_factor)(jnp.stack([curved, convex]))
    M = jnp.where(jnp.isfinite(both[0]).all(), both[0], both[1])
    product, gap = s * v - aim, h_y + s
    b = -slope - K.T @ ((v * gap - product) / s)
    along = M @ b
    dy, dw = M.T @ along, jnp.zeros_like(w)
    if w.size:
        # (G W^-1 G^T) dw = G W^-1 b + g, by the rows of G W^-1/2: they may be dependent.
        rows = row_space(G @ M.T)
        dz = rows.tangent(along) - rows.step(g_y)
        dy = M.T @ dz
        dw = rows.multipliers(along - dz)
    ds = -gap - K @ dy
    dv = (-product - v * ds) / s
    move = _State(dy, ds, dw, dv)
    longest = jnp.minimum(_to_boundary(s, ds), _to_boundary(v, dv))

    weight = 1e-3 + 2 * jnp.maximum(jnp.linalg.norm(w + dw), jnp.linalg.norm(v + dv))

    def end(part: Array) -> tuple[_State, Array]:
        after = jax.tree.map(lambda a, d: a + part * longest * d, state, move)
        off = jnp.linalg.norm(jnp.concatenate([g(after.y), h(after.y) + after.s]))
        value = 0.5 * jnp.sum((after.y - y0) ** 2) - aim * jnp.sum(jnp.log(after.s)) + weight * off
        return after, jnp.where(jnp.isfinite(value), value, jnp.inf)

    ends, values = jax.vmap(end)(jnp.asarray(_PARTS, y.dtype))
    slack = 100 * jnp.finfo(y.dtype).eps * (1 + jnp.sum((y - y0) ** 2))
    best = jnp.argmax(values <= jnp.min(values) + slack)
    after = jax.tree.map(
        lambda e, before: jnp.where(jnp.isfinite(values[best]), e[best], before), ends, state
    )
    left = jnp.max(jnp.abs(_residual(g, h, y0, after, jnp.zeros_like(aim))))
    return after, left


def _to_boundary(s: Array, ds: Array) -> Array:
    """The part of a step that leaves each entry a share of itself; at most one."""
    ratio = jnp.where(ds < 0, -(1 - _KEEP) * s / jnp.where(ds < 0, ds, 1.0), jnp.inf)
    return jnp.minimum(1.0, jnp.min(ratio, initial=jnp.inf))


def _polished(g: Callable, h: Callable, y: Array, active: Array) -> Array:
    """The point with equations and active inequalities at rounding, if that violates less."""
    fn = lambda y: jnp.concatenate([g(y), active * h(y)])  # noqa: E731
    size = lambda y: jnp.max(  # noqa: E731
        jnp.concatenate([jnp.abs(g(y)), jnp.maximum(h(y), 0.0)]), initial=0.0
    )

    def closer(_, y: Array) -> Array:
        c, C = jacobian(fn, y)
        after = y - row_space(C).step(c)
        return jnp.where(size(after) < size(y), after, y)

    return jax.lax.fori_loop(0, 2, closer, y)
