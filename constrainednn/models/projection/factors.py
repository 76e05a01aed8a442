"""Factors of symmetric matrices without LAPACK.

On CPU jaxlib hands a batch of factorisations to its pool of threads and waits for it there. Two
that run at once, as those of two constraints on one projected model, may wait for each other for
ever, where there are as few threads as factorisations. So loops over columns take their place, for
halves of halves of larger matrices, which products put together.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows that one loop is for.
_SMALL = 32


def cholesky(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower factor of a symmetric positive definite matrix; NaN of another one."""
    n = A.shape[0]
    if n > _SMALL:
        k = n // 2
        first = cholesky(A[:k, :k])
        below = forward(first, A[:k, k:]).T
        second = cholesky(A[k:, k:] - below @ below.T)
        return jnp.block([[first, jnp.zeros((k, n - k), A.dtype)], [below, second]])
    rows = jnp.arange(n)
    if not n:
        return A

    def column(k, state):
        rest, L = state
        one = jnp.where(rows >= k, rest[:, k] / jnp.sqrt(rest[k, k]), 0.0)
        return rest - jnp.outer(one, one), L.at[:, k].set(one)

    return jax.lax.fori_loop(0, n, column, (A, jnp.zeros_like(A)))[1]


def forward(L: Float[Array, "n n"], b: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Solve L y = b."""
    n = L.shape[0]
    if n > _SMALL:
        k = n // 2
        first = forward(L[:k, :k], b[:k])
        return jnp.concatenate([first, forward(L[k:, k:], b[k:] - L[k:, :k] @ first)])
    if not n:
        return b
    return jax.lax.fori_loop(
        0, n, lambda k, y: y.at[k].set((b[k] - L[k] @ y) / L[k, k]), jnp.zeros_like(b)
    )


def backward(L: Float[Array, "n n"], b: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Solve L^T y = b."""
    n = L.shape[0]
    if n > _SMALL:
        k = n // 2
        last = backward(L[k:, k:], b[k:])
        return jnp.concatenate([backward(L[:k, :k], b[:k] - L[k:, :k].T @ last), last])

    if not n:
        return b

    def row(i, y):
        k = n - 1 - i
        return y.at[k].set((b[k] - L[:, k] @ y) / L[k, k])

    return jax.lax.fori_loop(0, n, row, jnp.zeros_like(b))
