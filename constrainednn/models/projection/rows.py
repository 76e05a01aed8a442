"""The rows of a Jacobian as a space: least-squares steps, multipliers, and what is tangent to it.

    C       m x n   Jacobian of the constraints that hold as equalities
    D       m x m   diagonal: rows of D C have length one, since units of constraints may differ
    M       m x m   M = L D, with L the inverse of the Cholesky factor of D C C^T D + shift I
    Q       m x n   M C: orthonormal rows, but for those of dependent constraints, which vanish

The shift makes dependent rows harmless: what lies in directions whose singular value is below the
root of it is left alone. It is about the rounding error of the Gram matrix, so directions that
matter are changed in the last digits only, and those a further step corrects. Never C^T C, even
where that is smaller: rounding errors in its null space would be divided by the shift, while those
of C C^T vanish when C^T is applied.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from constrainednn.models.projection.factors import inverse_factor

# A curvature below this share of that of the distance is none: the step is then the gradient's.
_CURVED = 1e-3
# A row whose length is this share of the longest one's is none.
_NONE = 1e-12
# Of a Newton step, what is left undone: the next one does it.
_INEXACT = 1e-3
# Rows of a Jacobian at a time.
_ROWS = 25


class RowSpace(NamedTuple):
    """The Jacobian of some constraints at a point, and a factor of its Gram matrix."""

    C: Float[Array, "m n"]
    M: Float[Array, "m m"]
    Q: Float[Array, "m n"]

    def step(self, c: Float[Array, " m"]) -> Float[Array, " n"]:
        """The shortest v for which |D (C v - c)| is least."""
        return self.Q.T @ (self.M @ c)

    def multipliers(self, v: Float[Array, " n"]) -> Float[Array, " m"]:
        """The shortest w for which |C^T w - v| is least."""
        return self.M.T @ (self.Q @ v)

    def tangent(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """The part of v that C maps to zero."""
        return v - self.Q.T @ (self.Q @ v)


def row_space(C: Float[Array, "m n"]) -> RowSpace:
    """Factorise the Gram matrix; where C does not depend on the point, once for a whole batch."""
    M = gram_factor(C @ C.T)
    return RowSpace(C, M, M @ C)


def gram_factor(gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """M of a Gram matrix."""
    kind, size = jnp.finfo(gram.dtype), gram.shape[0]
    squares = jnp.diag(gram)
    # A row that is nothing but rounding beside the longest one stays so.
    least = _NONE**2 * jnp.max(squares, initial=0.0) + kind.tiny
    D = jax.lax.rsqrt(jnp.maximum(squares, least))
    scaled = D[:, None] * gram * D[None]
    shift = 4 * size * kind.eps * jnp.trace(scaled) + kind.tiny
    return inverse_factor(scaled + shift * jnp.eye(size, dtype=gram.dtype)) * D[None]


def jacobian(fn: Callable, y: Float[Array, " n"]) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """Value and Jacobian, by the mode that needs fewer passes.

    Rows of many are found a few at a time: that is a loop, so that what they share is computed
    before it, and not once a row by a fused operation.
    """
    m = jax.eval_shape(fn, y).size
    if m > y.size:
        C, c = jax.jacfwd(lambda y: (fn(y),) * 2, has_aux=True)(y)
        return c, C
    c, pull = jax.vjp(fn, y)
    parts = -(-m // _ROWS)
    rows = jnp.eye(m, dtype=c.dtype)
    one = lambda row: pull(row)[0]  # noqa: E731
    if parts < 2:
        return c, jax.vmap(one)(rows)
    few = -(-m // parts)
    rows = jnp.concatenate([rows, jnp.zeros((parts * few - m, m), c.dtype)])
    C = jax.lax.map(jax.vmap(one), rows.reshape(parts, few, m))
    return c, C.reshape(-1, y.size)[:m]


def tangent_solve(
    rows: RowSpace,
    apply: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    b: Float[Array, " n"],
    steps: int,
) -> Float[Array, " n"]:
    """Solve P A P t = b among tangent vectors by a few conjugate gradient steps.

    A is the identity and the curvature of the constraints, so few steps do. They end where A is not
    positive along a direction; if it is not along the first one, b itself is returned.

    Args:
        rows: P projects onto what is tangent to these.
        apply: A times a vector.
        b: A tangent vector.
        steps: Their number at most.
    """
    end = _INEXACT**2 * (b @ b)

    def body(_, state: tuple) -> tuple:
        t, r, p = state
        q = rows.tangent(apply(p))
        curvature, square = p @ q, r @ r
        active = (curvature > _CURVED * (p @ p)) & (square > end)
        length = jnp.where(active, square / jnp.where(active, curvature, 1.0), 0.0)
        # A residual of zero ends it: the steps that are left change nothing.
        r = jnp.where(active, r - length * q, 0.0)
        return t + length * p, r, r + (r @ r) / jnp.where(active, square, 1.0) * p

    # A fixed number of steps: of a batch some point takes them all.
    t, *_ = jax.lax.fori_loop(0, steps, body, (jnp.zeros_like(b), b, b))
    return jnp.where(jnp.any(t != 0), t, b)
