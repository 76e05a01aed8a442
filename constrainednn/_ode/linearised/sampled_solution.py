"""A model in pieces evaluated on the host in double precision, to estimate its error.

Symbols as in `defect.py`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._ode.linearised.error_equation import interpolation, radau
from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import Pieces

# Nodes times components above which pieces are cut.
_LARGE = 250


class Path(NamedTuple):
    """A model at the start and at the Radau nodes of each piece, or of each part of it.

    Attributes:
        s: Scaled places of the nodes.
        ends: Edges of the parts.
        Y: States.
        top: Highest derivative at the nodes.
        jumps: Jumps of the state from each part to the next.
        gained: Change of the state over each part, whose rounding is the error of the jump.
        p: Unknown parameters.
        size: Size of each component of the state.
        eps: Unit round-off of the model's arithmetic.
    """

    s: Float[np.ndarray, " n"]
    ends: Float[np.ndarray, " N_1"]
    Y: Float[np.ndarray, "N n_1 p d"]
    top: Float[np.ndarray, "N n d"]
    jumps: Float[np.ndarray, "N_less_1 D"]
    gained: Float[np.ndarray, "N_less_1 D"]
    p: Float[np.ndarray, " q"]
    size: Float[np.ndarray, " D"]
    eps: float

    @property
    def half(self) -> Float[np.ndarray, " N"]:
        """Half the length of each part."""
        return np.diff(self.ends) / 2

    @property
    def t(self) -> Float[np.ndarray, "N n"]:
        """Times of the nodes."""
        t = self.ends[:-1, None] + self.half[:, None] * (self.s + 1)
        return within(self.ends, t, np.arange(len(t))[:, None])

    @property
    def between(self) -> Float[np.ndarray, " N_n_1"]:
        """Both ends of each part and the middles between its nodes."""
        s = np.concatenate([[-1.0], (np.append(-1.0, self.s[:-1]) + self.s) / 2])
        t = (self.ends[:-1, None] + self.half[:, None] * (s + 1)).ravel()
        return within(self.ends, t, np.repeat(np.arange(len(self.half)), len(s)))


def within(ends: np.ndarray, t: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Keep times inside their pieces by a few rounding errors: a field may jump at an edge."""
    low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
    digits = 4 * np.finfo(jnp.result_type(float)).eps * np.maximum(abs(low), abs(high))
    digits = np.minimum(digits, (high - low) / 8)
    return np.clip(t, (low + digits)[index], (high - digits)[index])


def sample(model: Pieces, *, least: Float[np.ndarray, " D"] | float = 0.0) -> Path:
    """Evaluate the model at its nodes on the host, in double precision.

    Args:
        model: The model.
        least: Sizes below which the solver resolved nothing.
    """
    N, (K, d), order = model.count, model.head.shape[1:], model.states.shape[1]
    # Enough nodes for a residual of higher degree than the features. The cost is cubic in nodes
    # times components, so in large systems each piece is cut into parts.
    n, parts = 2 * K + 8, 1
    if n * order * d > _LARGE:
        n, parts = n // 4 + 4, 4
    nodes = radau(n).nodes
    cuts = np.linspace(-1.0, 1.0, parts + 1)
    s = cuts[:-1, None] + (np.append(-1.0, nodes) + 1) / parts
    s[:, -1] = np.where(nodes[-1] == 1, cuts[1:], s[:, -1])
    edges = model.ends.astype(float)
    half = np.diff(edges)[:, None, None] / 2
    head, start = (np.asarray(a, float)[:N] for a in (model.head, model.states))
    tables = integrals(s.ravel(), K, order)
    Q = [np.tensordot(head, table, axes=(1, 1)).swapaxes(1, 2) for table in tables]
    dt = half * (s.reshape(-1, 1) + 1)
    rows = []
    for j in range(order):
        rows.append(Q[order - j] / half**j)
        for i in range(j + 1, order):
            rows[j] += start[:, None, i] * dt ** (i - j) / math.factorial(i - j)
    gained = np.stack(rows, axis=2)
    Y = (start[:, None] + gained).reshape(N * parts, n + 1, order, d)
    size, eps = np.abs(Y).max(axis=(0, 1)).ravel(), float(jnp.finfo(model.head.dtype).eps)
    # A component that is zero throughout has no size of its own. One that the solver did not
    # resolve, or whose square would underflow relative to the others, is treated alike.
    zero = size <= np.maximum(least, 1e-100 * size.max())
    starts = np.append(edges[:-1, None] + half[:, 0] * (cuts[:-1] + 1), edges[-1])
    # Subtracting in this order, the error of a jump is less than the last digit of the state.
    jumps, changes = np.zeros((2, N * parts - 1, order * d))
    shape = (N - 1, order * d)
    jumps[parts - 1 :: parts] = ((start[1:] - start[:-1]) - gained[:-1, -1]).reshape(shape)
    changes[parts - 1 :: parts] = np.abs(gained[:-1, -1]).reshape(shape)
    return Path(
        nodes,
        starts,
        Y,
        (Q[0] / half**order).reshape(N * parts, n + 1, d)[:, 1:],
        jumps,
        changes,
        np.asarray(model.parameters, float),
        np.where(zero, size[~zero].max() if not zero.all() else np.max(least) / eps or 1.0, size),
        eps,
    )


def states_at(
    model: Pieces, t: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "m p d"], Float[np.ndarray, "m d"]]:
    """State and highest derivative at times, on the host in double precision."""
    K, d = model.head.shape[1:]
    order, edges = model.states.shape[1], model.ends.astype(float)
    head, start = (np.asarray(a, float)[: model.count] for a in (model.head, model.states))
    index, s = locate(edges, t)
    half = np.diff(edges)[:, None] / 2
    Y, top = np.empty((len(t), order, d)), np.empty((len(t), d))
    tables = integrals(s, K, order)
    for i, mine in groups(index):
        Q = [table[mine] @ head[i] for table in tables]
        dt = half[i] * (s[mine, None] + 1)
        top[mine] = Q[0] / half[i] ** order
        for j in range(order):
            Y[mine, j] = Q[order - j] / half[i] ** j
            for k in range(j, order):
                Y[mine, j] += start[i, k] * dt ** (k - j) / math.factorial(k - j)
    return Y, top


def locate(ends: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The piece of each time and the scaled time within it, as in the model."""
    way = np.sign(ends[1] - ends[0])
    index = np.clip(np.searchsorted(way * ends, way * t, side="right") - 1, 0, len(ends) - 2)
    return index, 2 * (t - ends[index]) / (ends[index + 1] - ends[index]) - 1


def groups(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each piece with the indices of the points in it."""
    order = np.argsort(index, kind="stable")
    found, first = np.unique(index[order], return_index=True)
    yield from zip(found, np.split(order, first[1:]), strict=True)


class Interpolation:
    """Interpolation from the start and the nodes of the pieces to points in them."""

    def __init__(self, index: np.ndarray, s: np.ndarray, n: int):
        self.size, self.by_piece = len(s), list(groups(index))
        self.matrix = interpolation(s, n)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Interpolate values of shape (N, n + 1, ...)."""
        found = np.empty((self.size, *values.shape[2:]))
        for j, mine in self.by_piece:  # avoids a copy of all nodes for each point
            found[mine] = np.tensordot(self.matrix[mine], values[j], axes=1)
        return found
