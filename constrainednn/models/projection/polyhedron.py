"""The nearest point where affine equations and inequalities hold: interior steps on multipliers.

y0      (n,)    what is projected
A       m x n   Jacobian of the equations;  T = I - Q^T Q the projector on what A maps to zero
K       p x n   Jacobian of the inequalities, rows divided by their lengths
y1      (n,)    nearest point where the equations hold
d       (p,)    what the inequalities leave there:  h(y1) = -d
v, s    (p,)    multipliers and slacks, y = y1 - T K^T v and s = d + M v >= 0, v >= 0, s v = 0
M       p x p   K T K^T: of a batch one and the same, where K and A do not depend on the point

A step costs a factor of p x p, whatever n is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from constrainednn.models.projection.factors import inverse_factor
from constrainednn.models.projection.rows import RowSpace, jacobian, row_space

# Slacks and multipliers keep this share of themselves in a step.
_KEEP = 0.005
# An inequality gives way by this share of its multiplier: where they contradict each other, the end
# is then the least sum of squared violations. What it changes elsewhere the last steps put right.
_GIVES = 1e-9


class Faces(NamedTuple):
    """Equations, and the inequalities that hold a point, as a space of rows: see `RowSpace`.

    Attributes:
        equations: Those of A.
        R: K T, with zeros where an inequality does not hold the point.
        K: K, likewise.
        factor: Inverse of the Cholesky factor of R R^T, with ones and a shift on its diagonal.
    """

    equations: RowSpace
    R: Float[Array, "p n"]
    K: Float[Array, "p n"]
    factor: Float[Array, "p p"]

    def step(self, c: Float[Array, " k"]) -> Float[Array, " n"]:
        """The shortest v for which C v = c, for entries of equations and inequalities."""
        m = self.equations.C.shape[0]
        first = self.equations.step(c[:m])
        rest = c[m:] - self.K @ first
        return first + self.R.T @ (self.factor.T @ (self.factor @ rest))

    def multipliers(self, v: Float[Array, " n"]) -> Float[Array, " k"]:
        """The w for which |C^T w - v| is least."""
        held = self.factor.T @ (self.factor @ (self.R @ v))
        return jnp.concatenate([self.equations.multipliers(v - self.K.T @ held), held])

    def tangent(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """The part of v that C maps to zero."""
        v = self.equations.tangent(v)
        return v - self.R.T @ self.factor.T @ (self.factor @ (self.R @ v))


def faces(C: Float[Array, "k n"], m: int, active: Float[Array, " p"]) -> Faces:
    """Factorise the rows of m equations and of the inequalities that are active: one or zero.

    Only factors of the latter are for each point, where C is the same for all of a batch.
    """
    equations, K = row_space(C[:m]), C[m:]
    R = jax.vmap(equations.tangent)(K)
    gram = active[:, None] * (R @ R.T) * active[None]
    # As in `row_space`, dependent rows are made harmless; the ones are of those that are not there.
    shift = 4 * active.size * jnp.finfo(C.dtype).eps * jnp.trace(gram)
    factor = inverse_factor(gram + jnp.diag(shift + (1 - active)))
    return Faces(equations, active[:, None] * R, active[:, None] * K, factor)


def nearest_in_polyhedron(
    g: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    h: Callable[[Float[Array, " n"]], Float[Array, " p"]],
    y0: Float[Array, " n"],
    *,
    iterations: int,
) -> tuple[Float[Array, " n"], Float[Array, " p"]]:
    """Move a point to the nearest one with g = 0 and h <= 0, both affine.

    Args:
        g: The equations; they may depend on each other.
        h: The inequalities.
        y0: The point; one that is in the set stays where it is.
        iterations: Steps at most.

    Returns:
        The point, and which inequalities hold it there: one or zero for each.

    Source:
        Cottle, Pang and Stone, The Linear Complementarity Problem (1992), section 5.9, with the
        predictor and corrector of Mehrotra, SIAM J. Optim. 2 (1992) 575. At the end the active
        inequalities are taken as equations, for the last digits.
    """
    (g0, A), (h0, K) = jacobian(g, y0), jacobian(h, y0)
    lengths = jnp.linalg.norm(K, axis=1)
    lengths = jnp.where(lengths > 0, lengths, 1.0)
    equations, K = row_space(A), K / lengths[:, None]
    y1 = y0 - equations.step(g0)
    y1 = y1 - equations.step(g(y1))  # the shift of the factor costs digits
    d, R = -h(y1) / lengths, jax.vmap(equations.tangent)(K)
    M = R @ R.T + _GIVES * jnp.eye(d.size, dtype=d.dtype)
    v, s = _complementary(M, d, iterations)
    active = (v > s).astype(y0.dtype)
    held = faces(jnp.concatenate([A, K]), g0.size, active)
    off = lambda y: jnp.concatenate([g(y), active * h(y) / lengths])  # noqa: E731
    y = y1 - R.T @ v
    for _ in range(2):
        after = y - held.step(off(y))
        y = jnp.where(_violation(g, h, after) < _violation(g, h, y), after, y)
    inside = (jnp.max(h0, initial=-jnp.inf) <= 0) & jnp.all(g0 == 0)
    # Where the equations alone lead into the set, no inequality holds the point.
    free = jnp.all(d >= 0)
    y = jnp.where(inside, y0, jnp.where(free, y1, y))
    return y, jnp.where(inside | free, 0.0, active)


def _complementary(M: Array, d: Array, iterations: int) -> tuple[Array, Array]:
    """Multipliers and slacks with s = d + M v, both at least zero, and s v = 0."""
    size = jnp.maximum(1.0, jnp.max(jnp.abs(d), initial=0.0))
    end = 100 * jnp.finfo(d.dtype).eps * size

    def body(state: tuple) -> tuple:
        k, v, s, _ = state
        off, gap = d + M @ v - s, jnp.mean(s * v)
        factor = inverse_factor(M + jnp.diag(s / v))

        def move(products: Array) -> tuple[Array, Array]:
            dv = factor.T @ (factor @ (products / v - off))
            return dv, off + M @ dv

        dv, ds = move(-s * v)
        part = _longest(v, dv, s, ds)
        predicted = jnp.mean((v + part * dv) * (s + part * ds))
        centre = (predicted / gap) ** 3
        dv, ds = move(centre * gap - s * v - dv * ds)
        part = (1 - _KEEP) * _longest(v, dv, s, ds)
        after = v + part * dv, s + part * ds
        sound = jnp.isfinite(after[0]).all() & jnp.isfinite(after[1]).all()
        v, s = jnp.where(sound, after[0], v), jnp.where(sound, after[1], s)
        left = jnp.maximum(jnp.max(jnp.abs(d + M @ v - s)), jnp.max(s * v))
        return k + 1, v, s, sound & (left > end)

    start = jnp.full_like(d, size)
    state = 0, start, start, jnp.any(d < 0)
    _, v, s, _ = jax.lax.while_loop(lambda c: c[3] & (c[0] < iterations), body, state)
    return v, s


def _longest(v: Array, dv: Array, s: Array, ds: Array) -> Array:
    """The part of a step, at most one, up to which all entries stay above zero."""
    values, moves = jnp.concatenate([v, s]), jnp.concatenate([dv, ds])
    ratios = jnp.where(moves < 0, -values / jnp.where(moves < 0, moves, 1.0), jnp.inf)
    return jnp.minimum(1.0, jnp.min(ratios))


def _violation(g: Callable, h: Callable, y: Array) -> Float[Array, ""]:
    return jnp.max(jnp.concatenate([jnp.abs(g(y)), jnp.maximum(h(y), 0.0)]), initial=0.0)
