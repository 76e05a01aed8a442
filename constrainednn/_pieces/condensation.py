"""Elimination by QR: some unknowns as functions of the others, and the rows that remain.

The interior of an element couples to no other element, so it is eliminated locally; a node is
eliminated from all rows that involve it; a plain least-squares problem has no other unknowns.

Symbols::

    symbol  shape          meaning
    x       (n, k)         unknowns that are eliminated, a column for each right-hand side
    others  (w, k)         the unknowns that remain
    rows    (m, n + w + k) |rows [x; others; I]|^2 is minimised
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

# NumPy's stay on the host, in double precision whatever JAX is set to.
Numbers = TypeVar("Numbers", Array, np.ndarray)


def condense(
    rows: Float[Numbers, "m all"], n: int
) -> tuple[Float[Numbers, "n all"], Float[Numbers, "left rest"]]:
    """Eliminate the first `n` unknowns.

    Returns:
        Triangular rows that determine the eliminated unknowns, for `recover`, and what is left in
        the others.
    """
    if isinstance(rows, np.ndarray):
        R = np.asarray(np.linalg.qr(rows, mode="r"))
    else:
        R = jnp.linalg.qr(rows, mode="r")
    return R[:n], R[n:, n:]


def recover(
    inside: Float[Numbers, "n all"], others: Float[Numbers, "w k"]
) -> Float[Numbers, "n k"]:
    """The eliminated unknowns, from the others.

    Raises:
        numpy.linalg.LinAlgError: On the host, if the rows do not determine them at all.
    """
    n, k = len(inside), others.shape[1]
    known = inside[:, -k:]
    if len(others):
        known = inside[:, n:-k] @ others + known
    if isinstance(inside, np.ndarray):
        return -scipy.linalg.solve_triangular(inside[:, :n], known, check_finite=False)
    return -jax.scipy.linalg.solve_triangular(inside[:, :n], known)


def least_squares(J: Float[Array, "m n"], r: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """Minimise |J x + r| column by column; J has full rank."""
    inside, _ = condense(jnp.concatenate([J, r], axis=1), J.shape[1])
    return recover(inside, jnp.zeros((0, r.shape[1]), r.dtype))
