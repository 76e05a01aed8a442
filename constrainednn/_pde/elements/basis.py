"""Legendre polynomials in time and space on one element, and the functions that nodes share.

Symbols (others in `models/space_time.py`)::

    symbol  shape      meaning
    k       int        derivatives by x, the value among them, that elements share at a node
    Z       (Kx, Kx - 2 k)  bubbles: combinations of p_j with no trace at either end
    H       (Kx, 2 k)  the smallest functions with one trace of one at either end, the others zero
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float


@functools.cache
def derivatives(places: tuple[float, ...], K: int, most: int) -> list[Float[np.ndarray, "n K"]]:
    """Values of p_0, ..., p_(K-1) at scaled places, and of their first, ... derivatives."""
    return [at_places(np.asarray(places), K, order) for order in range(most + 1)]


@functools.cache
def _traces(Kx: int, k: int) -> Float[np.ndarray, "k2 Kx"]:
    """The first k derivatives of p_j at the left end, then at the right one."""
    at_ends = derivatives((-1.0, 1.0), Kx, k - 1)
    return np.concatenate([[table[end] for table in at_ends] for end in (0, 1)])


@functools.cache
def bubbles(Kx: int, k: int) -> Float[np.ndarray, "Kx Kx_less_k2"]:
    """Z."""
    return np.linalg.svd(_traces(Kx, k))[2][2 * k :].T


@functools.cache
def hermite(Kx: int, k: int) -> Float[np.ndarray, "Kx k2"]:
    """H."""
    return np.linalg.pinv(_traces(Kx, k))


def conforming(
    c: Float[np.ndarray, "E o Kx d"], edges: Float[np.ndarray, " E_1"], k: int, periodic: bool
) -> Float[np.ndarray, "E o Kx d"]:
    """Elements changed as little as makes k traces agree at each node, to the mean of both."""
    traces = np.einsum("mk,eokd->eomd", _traces(c.shape[2], k), c)
    powers = np.tile(np.arange(k), 2)
    scale = (np.diff(edges)[:, None] / 2) ** powers
    shared = traces / scale[:, None, :, None]
    if len(c) > 1:
        mean = (shared[:-1, :, k:] + shared[1:, :, :k]) / 2
        shared[:-1, :, k:] = shared[1:, :, :k] = mean
    if periodic:
        mean = (shared[-1, :, k:] + shared[0, :, :k]) / 2
        shared[-1, :, k:] = shared[0, :, :k] = mean
    change = shared * scale[:, None, :, None] - traces
    return c + np.einsum("km,eomd->eokd", hermite(c.shape[2], k), change)


def at_places(s: Float[np.ndarray, "..."], K: int, order: int = 0) -> Float[np.ndarray, "... K"]:
    """Values of p_0, ..., p_(K-1) at any scaled places, or derivatives of an order."""
    by_order = _by_order(K, order)
    return np.polynomial.legendre.legvander(s, len(by_order) - 1) @ by_order


@functools.cache
def _by_order(K: int, order: int) -> Float[np.ndarray, "left K"]:
    """Legendre series of a derivative of p_0, ..., p_(K-1), one in each column."""
    return np.polynomial.legendre.legder(np.diag(np.sqrt(np.arange(K) + 0.5)), order, axis=0)


@dataclasses.dataclass(frozen=True)
class Table:
    """Places in the square of a scaled element with the values of the basis there.

    Attributes:
        t: Scaled times.
        x: Scaled places.
        along_t: Values and derivatives of the polynomials in time.
        along_x: The same in space.
    """

    t: Float[np.ndarray, " mt"]
    x: Float[np.ndarray, " mx"]
    along_t: list[Float[np.ndarray, "mt Kt"]]
    along_x: list[Float[np.ndarray, "mx Kx"]]

    @classmethod
    def of(
        cls, t: np.ndarray, x: np.ndarray, shape: tuple[int, int], orders: tuple[int, int]
    ) -> "Table":
        """Tables of polynomials of `shape` (Kt, Kx), up to these derivatives."""
        tables = [
            derivatives(tuple(map(float, places)), K, order)
            for places, K, order in zip((t, x), shape, orders, strict=True)
        ]
        return cls(t, x, *tables)
