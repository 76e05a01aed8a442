"""Factors of symmetric matrices without LAPACK, inverted: all that follows is a product.

On CPU jaxlib hands a batch of factorisations to its pool of threads and waits for it there. Two
that run at once, as those of two constraints on one projected model, may wait for each other for
ever, where there are as few threads as factorisations. So a loop over columns takes their place,
for halves of halves of larger matrices, which products put together.

The inverse of the factor, and not the factor: each solve by substitution would be a loop of its
own, slow to compile and to run.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows that one loop is for.
_SMALL = 16


def inverse_factor(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower triangular M with M A M^T = I, of a symmetric positive definite A.

    M is the inverse of the Cholesky factor: A v = b has the solution M^T M b. Of a matrix that is
    not positive definite some entries are not finite.
    """
    n = A.shape[0]
    if n > _SMALL:
        k = n // 2
        first = inverse_factor(A[:k, :k])
        below = A[k:, :k] @ first.T
        second = inverse_factor(A[k:, k:] - below @ below.T)
        corner = -second @ (below @ first)
        return jnp.block([[first, jnp.zeros((k, n - k), A.dtype)], [corner, second]])
    if n < 2:
        return 1 / jnp.sqrt(A)
    i, j = jnp.arange(n)[:, None], jnp.arange(n)[None]

    def eliminated(k, R):
        # Right of column k what is left of A; left of it rows of the inverse, not yet scaled.
        part = jnp.where(i > k, R[:, k][:, None] / R[k, k], 0.0)
        return jnp.where((i > k) & (j == k), -part, R - part * R[k][None])

    R = jax.lax.fori_loop(0, n - 1, eliminated, A)
    return jnp.where(i > j, R, jnp.eye(n, dtype=A.dtype)) / jnp.sqrt(jnp.diag(R))[:, None]
