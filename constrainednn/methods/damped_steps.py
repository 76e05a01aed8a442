"""Damped least-squares steps by orthogonal factors, for every damping from one factorisation.

Symbols::

    symbol  shape   meaning
    r       (m,)    residual
    A       (m, P)  its derivative by scaled parameters, U diag(s) W^T
    W       (P, q)  right singular vectors, q = min(m, P)
    s       (q,)    singular values
    g       (q,)    U^T r
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Factored(NamedTuple):
    """Factors of A and the residual in them."""

    W: Float[Array, "P q"]
    s: Float[Array, " q"]
    g: Float[Array, " q"]

    def steps(self, dampings: Float[Array, " k"]) -> Float[Array, "k P"]:
        """Minimisers of |A step + r|^2 + damping |step|^2."""
        return -(self._filters(dampings) * self.g[None]) @ self.W.T

    def promised(self, dampings: Float[Array, " k"]) -> Float[Array, " k"]:
        """Decrease of |r|^2 by those steps if r were linear."""
        filters = self._filters(dampings)
        return jnp.sum((self.g**2 * self.s)[None] * filters * (2 - self.s[None] * filters), axis=1)

    def _filters(self, dampings: Float[Array, " k"]) -> Float[Array, "k q"]:
        tiny = jnp.finfo(self.s.dtype).tiny
        return self.s[None] / (self.s[None] ** 2 + dampings[:, None] + tiny)


def factored(A: Float[Array, "m P"], r: Float[Array, " m"]) -> Factored:
    """Factor A by QR, and the small triangle by SVD: A^T A would square the condition number."""
    m, P = A.shape
    if m >= P:
        # qr([A r]) carries Q^T r in its last column, so Q itself is never formed.
        R = jnp.linalg.qr(jnp.column_stack([A, r]), mode="r")
        U, s, Wt = jnp.linalg.svd(R[:P, :P])
        return Factored(Wt.T, s, U.T @ R[:P, P])
    # A^T = Q R, R = U s V^T: A = V s (Q U)^T. Keeping Q avoids A V / s, which loses the small s.
    Q, R = jnp.linalg.qr(A.T)
    U, s, Vt = jnp.linalg.svd(R)
    return Factored(Q @ U, s, Vt @ r)


def column_norms(J: Float[Array, "m P"]) -> Float[Array, " P"]:
    """Norms of columns, whose squares may leave the range of the numbers."""
    # By powers of two, which change no digit.
    _, power = jnp.frexp(jnp.max(jnp.abs(J), axis=0))
    return jnp.ldexp(jnp.linalg.norm(jnp.ldexp(J, -power[None]), axis=0), power)
