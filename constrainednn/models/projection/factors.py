"""Factors of small matrices without LAPACK.

On CPU jaxlib hands a batch of factorisations to its pool of threads and waits for it there. Two
that run at once, as those of two constraints on one projected model, may wait for each other for
ever, where there are as few threads as factorisations. Up to `_SMALL` rows these loops take their
place.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALL = 32


def cholesky(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower factor of a symmetric positive definite matrix; NaN of another one."""
    n = A.shape[0]
    if n > _SMALL:
        return jnp.linalg.cholesky(A)
    rows = jnp.arange(n)

    def column(k, state):
        rest, L = state
        one = jnp.where(rows >= k, rest[:, k] / jnp.sqrt(rest[k, k]), 0.0)
        return rest - jnp.outer(one, one), L.at[:, k].set(one)

    return jax.lax.fori_loop(0, n, column, (A, jnp.zeros_like(A)))[1]


def forward(L: Float[Array, "n n"], b: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Solve L y = b."""
    n = L.shape[0]
    if n > _SMALL:
        return jax.scipy.linalg.solve_triangular(L, b, lower=True)
    return jax.lax.fori_loop(
        0, n, lambda k, y: y.at[k].set((b[k] - L[k] @ y) / L[k, k]), jnp.zeros_like(b)
    )


def backward(L: Float[Array, "n n"], b: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Solve L^T y = b."""
    n = L.shape[0]
    if n > _SMALL:
        return jax.scipy.linalg.solve_triangular(L, b, lower=True, trans=1)

    def row(i, y):
        k = n - 1 - i
        return y.at[k].set((b[k] - L[:, k] @ y) / L[k, k])

    return jax.lax.fori_loop(0, n, row, jnp.zeros_like(b))
