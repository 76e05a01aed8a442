"""Orthonormal Legendre features on [-1, 1], their repeated integrals and Gauss rules.

Integrals start at -1, so a function built on them keeps its start values whatever its head is.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def integrals(
    s: Float[np.ndarray, " n"], width: int, times: int
) -> list[Float[np.ndarray, "n width"]]:
    """Values of the first `width` features at `s` and of their integrals.

    Args:
        s: Places in [-1, 1].
        width: Number of features.
        times: How often to integrate.

    Returns:
        `times + 1` matrices: the features p_k = sqrt(k + 1/2) P_k, then their first, second, ...
        integral from -1.

    Source:
        The integral of P_k is (P_{k+1} - P_{k-1}) / (2k + 1), DLMF 18.9.7; repeated here.
    """
    total = width + times
    P = [np.ones_like(s), s]
    for k in range(1, total - 1):
        P.append(((2 * k + 1) * s * P[k] - k * P[k - 1]) / (k + 1))
    level = P[:total]  # level j holds the j-fold integrals of P_0, P_1, ..., as many as are known
    found = [level]
    for _ in range(times):
        # From -1: the integral of P_0 is P_1 + P_0, of any other (P_{k+1} - P_{k-1}) / (2k + 1),
        # which vanishes at -1; integrating it again keeps that form.
        level = [level[1] + level[0]] + [
            (level[k + 1] - level[k - 1]) / (2 * k + 1) for k in range(1, len(level) - 1)
        ]
        found.append(level)
    norms = np.sqrt(np.arange(width) + 0.5)
    return [np.stack(level[:width], axis=-1) * norms for level in found]


def integrated(head: Float[Array, "K d"], times: int) -> Float[Array, "n d"]:
    """Legendre coefficients of the `times`-fold integral of a linear head on the features."""
    width = head.shape[0]
    change = np.diag(np.sqrt(np.arange(width) + 0.5))
    for _ in range(times):
        n = len(change)
        step = np.zeros((n + 1, n))  # the rule of `integrals`, as a matrix
        k = np.arange(n)
        step[k + 1, k] = 1 / (2 * k + 1)
        step[k[1:] - 1, k[1:]] -= 1 / (2 * k[1:] + 1)
        step[0, 0] = 1.0
        change = step @ change
    return jnp.asarray(change, head.dtype) @ head


def legendre_sum(coefficients: Float[Array, "n d"], s: Float[Array, ""]) -> Float[Array, " d"]:
    """Evaluate sum_k a_k P_k(s) by Clenshaw's recurrence.

    A scan rather than an unrolled loop: the same digits for a tenth of the compile time.
    """
    n = coefficients.shape[0]
    k = np.arange(n)[::-1]
    up = jnp.asarray((2 * k + 1) / (k + 1), s.dtype)
    down = jnp.asarray((k + 1) / (k + 2), s.dtype)

    def recurrence(carry, term):
        near, far = carry
        a, up, down = term
        return (a + up * s * near - down * far, near), None

    zero = jnp.zeros_like(coefficients[0])
    (value, _), _ = lax.scan(recurrence, (zero, zero), (coefficients[::-1], up, down))
    return value


def gauss(n: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nodes and weights of the Gauss-Legendre rule on [-1, 1]; the weights sum to two."""
    return np.polynomial.legendre.leggauss(n)


def orthonormal(s: Float[Array, ""], K: int) -> Float[Array, " K"]:
    """Values of the first K features at one place."""
    k = np.arange(K)
    up, down = (2 * k + 1) / (k + 1), k / (k + 1)

    def recurrence(carry, factors):
        last, now = carry
        up, down = factors
        return (now, up * s * now - down * last), now

    factors = jnp.asarray(up, s.dtype), jnp.asarray(down, s.dtype)
    _, values = lax.scan(recurrence, (jnp.zeros_like(s), jnp.ones_like(s)), factors)
    return values * jnp.asarray(np.sqrt(k + 0.5), s.dtype)


def differentiation(K: int) -> Float[np.ndarray, "K K"]:
    """The matrix D of the first K features with p_j' = sum_i p_i D_ij."""
    norm = np.sqrt(np.arange(K) + 0.5)
    # P_j' = sum over i = j - 1, j - 3, ... of (2 i + 1) P_i
    i, j = np.indices((K, K))
    return np.where((j > i) & ((j - i) % 2 == 1), (2 * i + 1) / norm[:, None] * norm[None], 0.0)
