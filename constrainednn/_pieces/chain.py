"""Elements coupled along a chain of nodes, in one compiled scan.

The rows of an element involve the nodes at its two ends and unknowns that all elements share. The
first node is bordered, so that conditions may involve both ends of the chain, or close it.

Symbols::

    symbol  shape     meaning
    N       int       elements, some at the end padded
    d       int       unknowns of a node: a state, or a whole trace
    y       (N+1, d)  nodes
    p       (q,)      unknowns that all elements share
    w       int       2 d + q + 1, columns of the rows of an element in (y_left, y_right, p | r)
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from constrainednn._pieces.condensation import condense, recover

# Random vectors that the condition is estimated with.
_PROBES = 3


class _Eliminated(NamedTuple):
    """What determines one node from those that stay.

    Attributes:
        inner: Rows for y_j in (y_j, y_(j+1), y_0, p | r), j from 1 to N - 1.
        outer: Rows for the last node, the first and what is shared, in (y_N, y_0, p | r).
    """

    inner: Float[Array, "N_less_1 d w_d"]
    outer: Float[Array, "w_less_1 w"]


def solve_chain(
    elements: Float[Array, "N w w"],
    conditions: Float[Array, "g w"],
    d: int,
    damping: Float[Array, ""],
    real: Int[Array, ""],
) -> tuple[Float[Array, "N_1 d"], Float[Array, " q"], Float[Array, ""]]:
    """Minimise over nodes and shared unknowns, node after node by QR.

    Args:
        elements: Rows of each element in (y_left, y_right, p | r).
        conditions: Further rows in (y_N, y_0, p | r).
        d: Numbers of a node.
        damping: Squared weight of the unknowns themselves.
        real: Number of elements that are no padding; behind them a node is that before it.

    Returns:
        Nodes, shared unknowns, and an estimate of the smallest over the largest singular value.
    """
    count = len(elements)
    padded = jnp.arange(1, count) >= real
    rows = _eliminate(elements, conditions, d, damping, padded)
    normal = np.random.default_rng(0).normal
    probes = lambda *shape: jnp.asarray(normal(size=(*shape, _PROBES)), elements.dtype)  # noqa: E731
    # A probe is a right-hand side of the triangular rows, beside that of the problem.
    probed = lambda rows, probe: jnp.concatenate([rows, -probe], axis=-1)  # noqa: E731
    outer = probed(rows.outer, probes(len(rows.outer)))
    outer = recover(outer, jnp.zeros((0, 1 + _PROBES), outer.dtype))

    def solved(after: Array, inner: Array) -> Array:
        return recover(inner, jnp.concatenate([after, outer[d:]]))

    def backward(after: Array, edge: tuple[Array, Array]) -> tuple[Array, Array]:
        padded, inner = edge
        y = lax.cond(padded, lambda after, _: after, solved, after, inner)
        return y, y

    inner = probed(rows.inner, probes(count - 1, d))
    _, inside = lax.scan(backward, outer[:d], (padded, inner), reverse=True)
    y = jnp.concatenate([outer[None, d : 2 * d], inside, outer[None, :d]])
    p = outer[2 * d :]
    once = jnp.where(jnp.arange(count + 1)[:, None, None] <= real, y, 0)
    return y[..., 0], p[:, 0], _condition(rows, once[..., 1:], p[:, 1:])


def _eliminate(
    elements: Float[Array, "N w w"],
    conditions: Float[Array, "g w"],
    d: int,
    damping: Float[Array, ""],
    padded: Array,
) -> _Eliminated:
    """Eliminate the inner nodes from left to right, then those that are left."""
    width, dtype = elements.shape[1], elements.dtype
    by_left, by_right, rest = jnp.split(elements, [d, 2 * d], axis=2)
    unit = lambda count, width: jnp.sqrt(damping) * jnp.eye(count, width, dtype=dtype)  # noqa: E731

    def eliminated(rows, by_left, by_right, rest):
        none = jnp.zeros_like(by_left)
        before = jnp.concatenate([rows[:, :d], none, rows[:, d:]], axis=1)
        after = jnp.concatenate([by_left, by_right, none, rest], axis=1)
        return condense(jnp.concatenate([before, after, unit(d, d + width)]), d)[::-1]

    def forward(rows, element):
        """From rows in (y_j, y_0, p | r) to the same in y_(j+1), and what determines y_j."""
        padded, *parts = element
        none = jnp.zeros((d, d + width), dtype)
        return lax.cond(padded, lambda rows, *_: (rows, none), eliminated, rows, *parts)

    first = jnp.concatenate([by_right[0], by_left[0], rest[0]], axis=1)
    rows, inner = lax.scan(forward, first, (padded, by_left[1:], by_right[1:], rest[1:]))
    outer, _ = condense(jnp.concatenate([rows, conditions, unit(width - 1, width)]), width - 1)
    return _Eliminated(inner, outer)


def _condition(
    rows: _Eliminated, y: Float[Array, "N_1 d probes"], p: Float[Array, "q probes"]
) -> Float[Array, ""]:
    """1 / (|R| |R^-1|) in Frobenius norms, the second from its effect on random vectors.

    The diagonal of R would not show it. A pivot of zero makes the inverse infinite or NaN.

    Source:
        Kenney and Laub, SIAM J. Sci. Comput. 15 (1994) 36.
    """
    inverse = jnp.max(jnp.sum(y**2, axis=(0, 1)) + jnp.sum(p**2, axis=0))
    size = jnp.sum(rows.inner[..., :-1] ** 2) + jnp.sum(rows.outer[:, :-1] ** 2)
    return jnp.nan_to_num(1 / jnp.sqrt(inverse * size))
