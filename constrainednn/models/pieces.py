"""A model made of pieces: on each, a linear head on frozen Legendre features in scaled time.

Symbols::

    symbol  shape     meaning
    s       ()        scaled time of a piece, -1 at its start, 1 at its end
    p       int       order of the equation: the highest derivative that the head describes
    y       (p, d)    state: value and first p - 1 derivatives, in the user's time
    c       (K, d)    head: the p-th derivative by s is sum_k c_k p_k(s)
    Q_j     (n, K)    j-fold integrals of the features from s = -1
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_count
from constrainednn.domains.base import end_slack
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.legendre import gauss, integrals, integrated, legendre_sum

# Gauss nodes for each feature in a piece. With one the residual could be interpolated away at the
# nodes, and training points would say nothing.
_OVERSAMPLED = 2


class Pieces(eqx.Module):
    """A function of one scalar, put together from pieces; what `ivp` and `bvp` train.

    On each piece it is a polynomial of degree K + p - 1: a linear head of K frozen Legendre
    features for the p-th derivative, integrated p times from the state at the start, which
    therefore holds exactly. Outside of all pieces, by more than rounding, its value is NaN.

    Attributes:
        edges: Ends of the pieces, in order of solution, padded with infinities.
        states: Value and first p - 1 derivatives at the start of each piece.
        head: Output weights of each piece.
        parameters: Unknown numbers of the equation that are solved for, if there are any.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        arguments: From `parameters` to the arguments of the equation.
    """

    edges: Float[Array, " capacity_1"]
    states: Float[Array, "capacity p d"]
    head: Float[Array, "capacity K d"]
    parameters: Float[Array, " q"]
    unravel: Callable[[Array], PyTree]
    arguments: Callable[[Array], PyTree]

    def __call__(self, t: Float[Array, ""]) -> PyTree[Array]:
        """Evaluate at one time."""
        orientation = jnp.sign(self.edges[1] - self.edges[0])
        # Infinite edges sort last either way.
        index = jnp.searchsorted(orientation * self.edges, orientation * t, side="right") - 1
        index = jnp.clip(index, 0, jnp.sum(jnp.isfinite(self.edges)) - 2)
        start, stop = self.edges[index], self.edges[index + 1]
        half = (stop - start) / 2
        s = (t - start) / half - 1
        p = self.states.shape[1]
        value = legendre_sum(integrated(self.head[index], p), s)
        value += start_polynomial(self.states[index], t - start, 0)
        # An end is met to its last digits; between pieces both sides count.
        size = jnp.max(jnp.where(jnp.isfinite(self.edges), jnp.abs(self.edges), 0))
        coarser = max(jnp.result_type(t), self.edges.dtype, key=lambda item: jnp.finfo(item).eps)
        slack = end_slack(size, coarser)
        inside = jnp.minimum(orientation * (t - start), orientation * (stop - t)) >= -slack
        return self.unravel(jnp.where(inside, value, jnp.nan))

    @property
    def args(self) -> PyTree:
        """The arguments of the equation with what was found for the unknown ones."""
        return self.arguments(self.parameters)

    @property
    def count(self) -> int:
        """Number of pieces."""
        return int(np.isfinite(np.asarray(self.edges)).sum()) - 1

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        return self.count * math.prod(self.head.shape[1:]) + self.parameters.size

    @property
    def ends(self) -> Float[np.ndarray, " count_1"]:
        """Edges without the padding."""
        return np.asarray(self.edges)[: self.count + 1]

    @property
    def extent(self) -> str:
        """Where it is defined, for messages."""
        low, high = sorted(self.ends[[0, -1]].tolist())
        return f"the interval [{low:g}, {high:g}]"

    def ordinary(self, further: float) -> "Pieces":
        """With values between one and two, reaching further by so many times its length."""
        values = jnp.linspace(1.0, 2.0, self.states.size).reshape(self.states.shape)
        head = 1e-3 * jnp.linspace(0.0, 1.0, self.head.size).reshape(self.head.shape)
        head = jnp.zeros_like(head) if further else head
        edges = widened(self.edges, self.count, further)
        return eqx.tree_at(lambda u: (u.states, u.head, u.edges), self, (values, head, edges))


def widened(ends: Float[Array, " n"], count: int, by: float) -> Float[Array, " n"]:
    """The first of `count` pieces and the last longer by so many times the length of all."""
    more = by * (ends[count] - ends[0])
    return ends.at[0].add(-more).at[count].add(more)


class Features(eqx.Module):
    """The features of a piece and their integrals at given places, evaluated once.

    Attributes:
        places: Scaled times in [-1, 1].
        integrals: The features and their first, second, ... integral.
    """

    places: Float[Array, " n"]
    integrals: tuple[Float[Array, "n K"], ...]

    def __init__(self, places: Float[np.ndarray, " n"], width: int, order: int):
        self.places = jnp.asarray(places)
        # On the host, in double precision whatever the solve uses.
        tables = integrals(np.asarray(places, float), width, order)
        self.integrals = tuple(jnp.asarray(table, self.places.dtype) for table in tables)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.integrals[0].shape[1]


def start_polynomial(
    state: Float[Array, "p d"], dt: Float[Array, "..."], derivative: int
) -> Float[Array, "... d"]:
    """What the start state fixes: sum_i y_i dt^(i-j) / (i-j)! with j = `derivative`."""
    powers = range(state.shape[0] - derivative)
    basis = jnp.stack([dt**k / math.factorial(k) for k in powers], axis=-1)
    return basis @ state[derivative:]


def stack_pieces(
    edges: Float[np.ndarray, " count_1"],
    states: Float[np.ndarray, "count p d"],
    head: Float[np.ndarray, "count K d"],
    *,
    unravel: Callable[[Array], PyTree],
    parameters: Float[np.ndarray, " q"] | None = None,
    arguments: Callable[[Array], PyTree] | None = None,
    capacity: int = 16,
) -> Pieces:
    """Put pieces into a model whose capacity is a power of two, and at least `capacity`.

    Models of nearly as many pieces then share what is compiled for them.
    """
    spare = max(capacity, 1 << (len(head) - 1).bit_length()) - len(head)
    dtype = jnp.result_type(float)
    beyond = np.full(spare, np.sign(edges[1] - edges[0]) * np.inf)
    pad = lambda array: np.concatenate([array, np.zeros((spare, *array.shape[1:]))])  # noqa: E731
    return Pieces(
        jnp.asarray(np.concatenate([edges, beyond]), dtype),
        jnp.asarray(pad(states), dtype),
        jnp.asarray(pad(head), dtype),
        jnp.asarray(np.zeros(0) if parameters is None else parameters, dtype),
        unravel,
        arguments or _unchanged,
    )


def _unchanged(parameters: Array) -> Array:
    return parameters


def as_width(value: int) -> int:
    """Return the number of features in a piece, or raise; tables of all its integrals are kept."""
    return as_count(value, "width", least=2, most=200)


def training_points(ends: Float[np.ndarray, " count_1"], width: int) -> Draw:
    """Gauss nodes of all pieces; each weighs as much as it is long.

    The cube coordinates are those of the interval from the least end to the greatest.
    """
    nodes, weights = gauss(_OVERSAMPLED * width)
    lengths = np.abs(np.diff(ends))
    t = ends[:-1, None] + np.diff(ends)[:, None] * (nodes + 1) / 2
    total = abs(ends[-1] - ends[0])
    share = lengths[:, None] / total * weights / 2
    cube = (t - min(ends[0], ends[-1])) / total
    dtype = jnp.result_type(float)
    return Draw(
        t.ravel().astype(dtype), share.ravel().astype(dtype), cube.reshape(-1, 1).astype(dtype)
    )


def training_nodes(width: int) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Scaled Gauss nodes of one piece and their weights."""
    return gauss(_OVERSAMPLED * width)
