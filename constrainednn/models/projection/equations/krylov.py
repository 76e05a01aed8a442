"""The nearest point by products with Jacobians alone, for many equations in many numbers.

A Jacobian and its factor cost more than a hundred products with it. Where the point enters the
equations as a term of its own, Jacobians at a few fixed values are the same for all points, and one
factor M of their mean Gram matrix serves as preconditioner for all.

y0      (n,)    what is projected
c, C            the equations at y, and their Jacobian there, of which only products are formed
w       (m,)    multipliers: y0 - y = C^T w at the nearest point
M       m x m   inverse of the Cholesky factor of the mean of C C^T

A step linearises at y and solves C (y0 - C^T w - y) + c = 0 for w by a few conjugate gradients:
y0 - C^T w is the next y, but for the curvature of c. Anderson's mixing of the last steps makes up
for both what the gradients leave and the curvature.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from constrainednn.models.projection.factors import inverse_factor
from constrainednn.models.projection.rows import gram_factor, jacobian

# Steps that are mixed, conjugate gradients in each, and steps at most.
_MIXED, _INNER, STEPS = 4, 2, 40
# Values at which Jacobians are taken for the preconditioner.
_SAMPLES = 8
# Conjugate gradients in each of the last corrections, and their number.
_LAST, _ROUNDS = 8, 2
# A value of the merit may be that much less than the one at the end, as a share of it.
_PASSED = 1e-3
# Of the length of y0: what is left of the conditions of a nearest point.
_LEFT = 1e-9


class Guess(NamedTuple):
    """A point with multipliers, and what the last steps made of theirs.

    Attributes:
        y: The point.
        w: Its multipliers.
        moves: By how much the last steps moved their point, the last one first.
        ends: Points and multipliers that they ended at.
        least: Of distance and violation together, the least that a step started from.
        k: Steps taken.
        arrived: Did both conditions of a nearest point hold where the last one started?
    """

    y: Array
    w: Array
    moves: Array
    ends: Array
    least: Array
    k: Any
    arrived: Any


def preconditioner(fn: Callable, y: Float[Array, " n"]) -> Float[Array, "m m"]:
    """The factor M; it depends on a point as much as the Jacobian of fn does."""
    drawn = np.random.default_rng(0).normal(size=(_SAMPLES, y.size))
    Cs = jax.lax.map(lambda y: jacobian(fn, y)[1], jnp.asarray(drawn, y.dtype))
    return gram_factor(jnp.mean(Cs @ Cs.mT, axis=0))


def guessed(y0: Float[Array, " n"], m: int) -> Guess:
    """The state before the first step."""
    zeros = lambda *shape: jnp.zeros(shape, y0.dtype)  # noqa: E731
    n, least = y0.size, jnp.asarray(jnp.inf, y0.dtype)
    ring = zeros(_MIXED, n), zeros(_MIXED, n + m)
    return Guess(y0, zeros(m), *ring, least, jnp.asarray(0), jnp.asarray(False))


def improved(fn: Callable, y0: Float[Array, " n"], M: Float[Array, "m m"], old: Guess) -> Guess:
    """The state after a step.

    Source:
        Walker and Ni, SIAM J. Numer. Anal. 49 (2011) 1715: Anderson's mixing.
    """
    y, w, n = old.y, old.w, y0.size
    c, push = jax.linearize(fn, y)
    pull = jax.linear_transpose(push, y)
    rest = y0 - y - pull(w)[0]
    left = _LEFT * (1 + jnp.linalg.norm(y0))
    arrived = (jnp.linalg.norm(rest) <= left) & (jnp.linalg.norm(M @ c) <= left)
    v, moved = _solved(push, lambda w: pull(w)[0], M, c + push(rest), _INNER)
    end = jnp.concatenate([y + rest - moved, w + v])
    moves = jnp.concatenate([(rest - moved)[None], old.moves[:-1]])
    ends = jnp.concatenate([end[None], old.ends[:-1]])
    mixed = _mixed(moves, ends, old.k + 1)
    # A stationary point that is further off than what was passed on the way is not the nearest.
    distance = 0.5 * jnp.sum((y - y0) ** 2)
    value = distance + 2 * jnp.linalg.norm(w) * jnp.linalg.norm(c)
    least = jnp.where(old.k > 0, jnp.minimum(old.least, value), jnp.inf)
    near = distance <= (1 + _PASSED) * least
    return Guess(mixed[:n], mixed[n:], moves, ends, least, old.k + 1, arrived & near)


def _mixed(moves: Array, ends: Array, k: Any) -> Array:
    """The mixture of the ends of steps, the last one first, whose mixed move is least."""
    gram = moves @ moves.T
    # Of differences from the last one, scaled to length one; steps not yet taken have share zero.
    gram = gram - gram[:1] - gram[:, :1] + gram[0, 0]
    taken = jnp.arange(_MIXED) < k
    D = jnp.where(taken, jax.lax.rsqrt(jnp.diag(gram) + jnp.finfo(gram.dtype).tiny), 0.0)[1:]
    scaled = D[:, None] * gram[1:, 1:] * D[None]
    factor = inverse_factor(scaled + jnp.diag(1e-12 + ~taken[1:])) * D[None]
    share = -factor.T @ (factor @ (moves[1:] @ moves[0] - moves[0] @ moves[0]))
    share = jnp.where(jnp.isfinite(share).all(), share, 0.0)
    return jnp.concatenate([1 - jnp.sum(share, keepdims=True), share]) @ ends


def _solved(
    push: Callable, pull: Callable, M: Array, r: Float[Array, " m"], steps: int
) -> tuple[Float[Array, " m"], Float[Array, " n"]]:
    """A v with C C^T v = r, nearly, and C^T v: conjugate gradients with M^T M in front."""
    z = M.T @ (M @ r)

    def body(_, state: tuple) -> tuple:
        v, moved, r, p, square = state
        along = pull(p)
        length = square / jnp.maximum(along @ along, jnp.finfo(r.dtype).tiny)
        r = r - length * push(along)
        z = M.T @ (M @ r)
        after = r @ z
        share = after / jnp.maximum(square, jnp.finfo(r.dtype).tiny)
        return v + length * p, moved + length * along, r, z + share * p, after

    zero = jnp.zeros_like(pull(r))
    v, moved, *_ = jax.lax.fori_loop(0, steps, body, (jnp.zeros_like(r), zero, r, z, r @ z))
    return v, moved


def corrected(
    fn: Callable, y0: Float[Array, " n"], M: Float[Array, "m m"], y: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """A point close by with equations at rounding; y0, and False, if there is none."""

    def closer(_, y: Array) -> Array:
        c, push = jax.linearize(fn, y)
        pull = jax.linear_transpose(push, y)
        return y - _solved(push, lambda w: pull(w)[0], M, c, _LAST)[1]

    y = jax.lax.fori_loop(0, _ROUNDS, closer, y)
    eps = jnp.finfo(y.dtype).eps
    there = jnp.linalg.norm(M @ fn(y)) <= 100 * eps * (1 + jnp.linalg.norm(y0))
    return jnp.where(there, y, y0), there
