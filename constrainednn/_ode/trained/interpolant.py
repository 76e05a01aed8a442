"""A trained function of one scalar as a model in pieces: what error estimates are made for."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import in_blocks
from constrainednn.models.legendre import gauss, integrals
from constrainednn.models.pieces import Pieces, stack_pieces
from constrainednn.operators.derivatives import taylor

_WIDTH = 20
# Pieces whose last coefficients are larger, relative to the largest of all, are halved.
_TAIL = 1e-13
_MOST = 256


def interpolant(
    u: Callable[[Array], PyTree],
    edges: Float[np.ndarray, " N_1"],
    order: int,
    *,
    unravel: Callable[[Array], PyTree],
    parameters: Float[np.ndarray, " q"] | None = None,
) -> Pieces:
    """Expand the highest derivative in Legendre polynomials, on pieces halved until it is resolved.

    Args:
        u: The function.
        edges: Places where it may have kinks, its ends included.
        order: The highest derivative.
        unravel: From a vector of shape (d,) to the structure of its value.
        parameters: Unknown numbers of the equation.
    """
    nodes, weights = gauss(2 * _WIDTH)
    table = integrals(nodes, _WIDTH, 0)[0] * weights[:, None]
    at = eqx.Partial(derivatives, u, order)
    while True:
        half = np.diff(edges) / 2
        t = edges[:-1, None] + half[:, None] * (nodes + 1)
        top = _evaluated(at, t.ravel())[:, order].reshape(len(half), len(nodes), -1)
        head = np.einsum("nk,pnd->pkd", table, top) * half[:, None, None] ** order
        sizes = np.abs(head).max(axis=(0, 1)) + np.finfo(float).tiny
        tail = np.abs(head[:, -2:]).max(axis=1) > _TAIL * sizes
        rough = tail.any(axis=1)
        if not rough.any() or len(edges) > _MOST:
            break
        edges = np.sort(np.concatenate([edges, (edges[:-1] + half)[rough]]))[:: _way(edges)]
    states = _evaluated(at, edges[:-1])[:, :order]
    return stack_pieces(edges, states, head, unravel=unravel, parameters=parameters)


def derivatives(u: Callable[[Array], PyTree], order: int, t: Array) -> Float[Array, "order_1 d"]:
    """Value and derivatives at one place."""
    return jnp.stack(taylor(lambda t: ravel_pytree(u(t))[0], t, order=order))


def _evaluated(at: Callable[[Array], Array], t: Float[np.ndarray, " n"]) -> np.ndarray:
    return np.asarray(in_blocks(at, t.astype(jnp.result_type(float))), float)


def _way(edges: Float[np.ndarray, " N_1"]) -> int:
    return 1 if edges[-1] > edges[0] else -1
