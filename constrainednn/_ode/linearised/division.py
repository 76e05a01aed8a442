"""Unknowns of elements between solves: from a model, padded, and divided."""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from constrainednn._ode.linearised.element_step import Unknowns
from constrainednn._pieces.refinement import MOST_ELEMENTS, MOST_PARTS
from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import Pieces, training_nodes

# Elements shorter than this many rounding errors of x are not divided.
DIGITS = 16


class HostUnknowns(NamedTuple):
    """`Unknowns` between solves, in NumPy: every new shape on the device is a compilation."""

    y: Float[np.ndarray, "N_1 d"]
    b: Float[np.ndarray, "N K_1 d"]
    p: Float[np.ndarray, " q"]


def heads(unknowns: HostUnknowns) -> Float[np.ndarray, "N K d"]:
    """Heads with their first row, which follows from the edge values; see `elements.py`."""
    first = np.diff(unknowns.y, axis=0)[:, None] / math.sqrt(2)
    return np.concatenate([first, unknowns.b], axis=1)


def unknowns_of(model: Pieces) -> HostUnknowns:
    """The unknowns behind a model."""
    count = model.count
    y, head = np.asarray(model.states)[:count, 0], np.asarray(model.head)[:count]
    last = y[-1] + math.sqrt(2) * head[-1, 0]
    return HostUnknowns(np.concatenate([y, last[None]]), head[:, 1:], np.asarray(model.parameters))


def padded(edges: np.ndarray, unknowns: HostUnknowns, capacity: int) -> tuple[Array, Unknowns]:
    """Pad with elements of length zero to one of a few capacities, which saves compilations."""
    spare = capacity - (len(edges) - 1)
    repeat = lambda a: np.concatenate([a, np.repeat(a[-1:], spare, axis=0)])  # noqa: E731
    b = np.concatenate([unknowns.b, np.zeros((spare, *unknowns.b.shape[1:]))])
    filled = repeat(edges), repeat(unknowns.y), b, unknowns.p
    dtype = jnp.result_type(float)
    padded, y, b, p = (jnp.asarray(array, dtype) for array in filled)
    return padded, Unknowns(y, b, p)


def unpadded(unknowns: Unknowns, count: int) -> HostUnknowns:
    y, b, p = (np.asarray(array) for array in unknowns)
    return HostUnknowns(y[: count + 1], b[:count], p)


def with_waves(
    parts: Int[np.ndarray, " N"], slopes: Float[np.ndarray, "N d d"], width: int
) -> Int[np.ndarray, " N"]:
    """More parts where the equation oscillates faster than an element can resolve.

    There the best approximation is zero, whose residual is zero too, so that the element would
    never be divided. Each wave needs four features. Modes that decay faster than they oscillate
    are layers and do not count.
    """
    modes = np.linalg.eigvals(np.nan_to_num(slopes))
    waves = np.where(np.abs(modes.imag) > np.abs(modes.real), np.abs(modes.imag), 0).max(axis=1)
    more = np.maximum(parts, np.ceil(np.minimum(4 * waves / width, MOST_ELEMENTS)).astype(int))
    return more if more.sum() <= MOST_ELEMENTS else parts


def divided(
    edges: np.ndarray, unknowns: HostUnknowns, parts: np.ndarray, width: int
) -> tuple[np.ndarray, HostUnknowns]:
    """Divide elements without changing the function."""
    nodes, weights = training_nodes(width)
    P = integrals(nodes, width, 0)[0]
    head, y = heads(unknowns), unknowns.y
    new_edges, new_y, new_b = [edges[:1]], [y[:1]], []
    for j, count in enumerate(parts):
        cuts = np.linspace(-1.0, 1.0, count + 1)
        room = (edges[j + 1] - edges[j]) / last_digit(edges, y.dtype)
        # Layers lie at the ends of the interval: grade the parts towards them.
        if count == MOST_PARTS and j in (0, len(parts) - 1) and room > DIGITS * 4**MOST_PARTS:
            graded = 2 * np.append(0.0, 4.0 ** np.arange(-MOST_PARTS, 1)) - 1
            cuts = graded if j == 0 else -graded[::-1]
        new_edges.append((edges[j] + (edges[j + 1] - edges[j]) * (cuts + 1) / 2)[1:])
        values = y[j] + integrals(cuts, width, 1)[1] @ head[j]
        values[-1] = y[j + 1]
        new_y.append(values[1:])
        for low, high in itertools.pairwise(cuts):
            # Exact: a polynomial of degree K - 1 against orthonormal ones of the same degree.
            slope = integrals(low + (high - low) * (nodes + 1) / 2, width, 0)[0] @ head[j]
            new_b.append(((weights[:, None] * P).T @ slope)[1:] * (high - low) / 2)
    whole = np.concatenate(new_edges)
    whole[-1] = edges[-1]
    return whole, HostUnknowns(np.concatenate(new_y), np.stack(new_b), unknowns.p)


def last_digit(edges: np.ndarray, dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps * np.abs(edges).max())
