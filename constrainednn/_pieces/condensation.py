"""Elimination by QR: some unknowns as functions of the others, and the rows that remain.

The interior of an element couples to no other element, so it is eliminated locally; a node is
eliminated from all rows that involve it; a plain least-squares problem has no other unknowns.

Symbols::

    symbol  shape          meaning
    x       (n, k)         unknowns that are eliminated, a column for each right-hand side
    others  (w, k)         the unknowns that remain
    rows    (m, n + w + k) |rows [x; others; I]|^2 is minimised
"""

import functools
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from constrainednn._common.devices import device_count, on_each_device, shared_out

# NumPy's stay on the host, in double precision whatever JAX is set to.
Numbers = TypeVar("Numbers", Array, np.ndarray)
# Tables of a batch for each device, and what their sizes are made a multiple of: few programs then
# serve elements with more or fewer neighbours.
_PER_DEVICE, _MULTIPLE = 4, 128


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


def condense_all(
    tables: Iterable[Float[np.ndarray, "_ _"]], n: int
) -> list[tuple[Float[np.ndarray, "n _"], Float[np.ndarray, "_ _"]]]:
    """Eliminate the first `n` unknowns of each of many tables, which need not be alike.

    Where there are several local devices tables are a batch, and every device has its share; with
    one NumPy does them in turn, which compiles nothing.
    """
    if device_count() < 2 or jnp.result_type(float) != np.float64:
        return [condense(table, n) for table in tables]
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    most = _PER_DEVICE * device_count()
    for number, table in enumerate(tables):
        # Rows and columns of zeros, at the end, change nothing of what is left.
        shape = tuple(-(-size // _MULTIPLE) * _MULTIPLE for size in table.shape)
        waiting.setdefault(shape, []).append((number, table))
        if len(waiting[shape]) == most:
            found |= _condensed_batch(waiting.pop(shape), shape, n)
    for shape, batch in waiting.items():
        found |= _condensed_batch(batch, shape, n)
    return [found[number] for number in range(len(found))]


def _condensed_batch(
    batch: list[tuple[int, np.ndarray]], shape: tuple[int, ...], n: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Tables by their numbers, eliminated together."""
    padded = np.zeros((_PER_DEVICE * device_count(), *shape))
    for place, (_, table) in enumerate(batch):
        padded[place, : table.shape[0], : table.shape[1]] = table
    triangles = np.asarray(_triangles()(shared_out(padded)))
    found = {}
    for (number, table), triangle in zip(batch, triangles, strict=False):
        R = triangle[: min(table.shape), : table.shape[1]].copy()
        found[number] = R[:n], R[n:, n:]
    return found


@functools.cache
def _triangles() -> Callable[[Array], Array]:
    # One table after the other. A batched QR waits for threads of a pool that all devices of a host
    # share: with two devices on two cores it waited for ever, in every other run.
    one = lambda table: jnp.linalg.qr(table, mode="r")  # noqa: E731
    return on_each_device(lambda tables: jax.lax.map(one, tables))


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
