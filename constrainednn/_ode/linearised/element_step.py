"""One Gauss-Newton step for all elements: interiors eliminated, edges coupled along the chain."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from constrainednn.models.pieces import Features

# Random vectors that the condition of the edge values is estimated with.
_PROBES = 3


class Unknowns(NamedTuple):
    """What is solved for; shapes under Symbols above."""

    y: Float[Array, "N_1 d"]
    b: Float[Array, "N K_1 d"]
    p: Float[Array, " q"]


class Statement(eqx.Module):
    """A two-point problem on flat arrays.

    Attributes:
        field: `field(x, y, p)` of shape (d,).
        conditions: `conditions(y_left, y_right, p)` of shape (d + q,).
    """

    field: Callable[[Array, Array, Array], Array]
    conditions: Callable[[Array, Array, Array], Array]


def heads(unknowns: Unknowns) -> Float[Array, "N K d"]:
    """Heads with their first row, which the edge values fix."""
    first = jnp.diff(unknowns.y, axis=0)[:, None] / jnp.sqrt(2.0)
    return jnp.concatenate([first, unknowns.b], axis=1)


def _times_half(
    edges: Float[Array, " N_1"], values: Float[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """Times half the length of each element; zero for padding, whatever the field is at the end."""
    half = jnp.diff(edges).reshape(-1, *[1] * (values.ndim - 1)) / 2
    return jnp.where(half == 0, 0.0, half * values)


def _places(features: Features, edges: Float[Array, " N_1"]) -> Float[Array, "N m"]:
    return edges[:-1, None] + jnp.diff(edges)[:, None] * (features.places[None] + 1) / 2


def states_at(features: Features, unknowns: Unknowns) -> Float[Array, "N m d"]:
    return unknowns.y[:-1, None] + jnp.einsum("mk,nkd->nmd", features.integrals[1], heads(unknowns))


def _tops(features: Features, unknowns: Unknowns) -> Float[Array, "N m d"]:
    return jnp.einsum("mk,nkd->nmd", features.integrals[0], heads(unknowns))


def fields_at(
    statement: Statement,
    features: Features,
    edges: Float[Array, " N_1"],
    states: Float[Array, "N m d"],
    p: Float[Array, " q"],
) -> Float[Array, "N m d"]:
    """The field in scaled time."""
    on_element = jax.vmap(statement.field, (0, 0, None))
    values = jax.vmap(on_element, (0, 0, None))(_places(features, edges), states, p)
    return _times_half(edges, values)


def residual_rows(
    statement: Statement, features: Features, edges: Float[Array, " N_1"], unknowns: Unknowns
) -> Float[Array, "N m d"]:
    states = states_at(features, unknowns)
    return _tops(features, unknowns) - fields_at(statement, features, edges, states, unknowns.p)


def linearised_rows(
    statement: Statement, features: Features, edges: Float[Array, " N_1"], unknowns: Unknowns
) -> tuple[Float[Array, "N m d"], Float[Array, "N m d d"], Float[Array, "N m d q"]]:
    """Residual, and derivatives of the scaled field by the state and the parameters."""

    def field_twice(x, y, p):
        value = statement.field(x, y, p)
        return value, value

    # One pass for value and slopes: each further copy of the user's field is compiled.
    slope = jax.jacfwd(field_twice, argnums=(1, 2), has_aux=True)
    on_element = jax.vmap(slope, (0, 0, None))
    (A, B), F = jax.vmap(on_element, (0, 0, None))(
        _places(features, edges), states_at(features, unknowns), unknowns.p
    )
    r = _tops(features, unknowns) - _times_half(edges, F)
    return r, _times_half(edges, A), _times_half(edges, B)


def largest_sizes(
    unknowns: Unknowns, nodes: Features
) -> tuple[Float[Array, " d"], Float[Array, " q"]]:
    """Largest value of each component anywhere and size of the parameters; one for zero."""
    largest = jnp.max(jnp.abs(states_at(nodes, unknowns)), axis=(0, 1))
    largest = jnp.maximum(largest, jnp.max(jnp.abs(unknowns.y), axis=0))
    one = lambda size: jnp.where(size > 0, size, 1.0)  # noqa: E731
    return one(largest), one(jnp.abs(unknowns.p))


def stiffness(A: Float[Array, "N m d d"]) -> Float[Array, "N d"]:
    """max(1, length |df_c/dy_c|) of each element and component."""
    own = jnp.abs(jnp.diagonal(A, axis1=2, axis2=3))
    return jnp.maximum(1.0, 2 * jnp.max(own, axis=1))


def newton_step(
    nodes: Features,
    root: Float[Array, "m 1"],
    slopes: tuple[Float[Array, "N m d d"], Float[Array, "N m d q"]],
    residuals: tuple[Float[Array, "N m d"], Float[Array, " g"]],
    G: tuple[Float[Array, "g d"], Float[Array, "g d"], Float[Array, "g q"]],
    scale: tuple[Float[Array, "N d"], Float[Array, " g"]],
    size: tuple[Float[Array, " d"], Float[Array, " q"]],
    damping: Float[Array, ""],
    elements: Int[Array, ""],
) -> tuple[Unknowns, Float[Array, ""]]:
    """Solve [J; sqrt(damping) I] step = [-r; 0] in scaled unknowns, elements first."""
    (A, B), (r, g), (of_state, of_condition), (y_size, p_size) = slopes, residuals, scale, size
    count, m, d, q = *A.shape[:3], B.shape[3]
    inner = (nodes.width - 1) * d
    width = inner + 2 * d + q + 1
    P, Q = nodes.integrals[0][:, 1:], nodes.integrals[1][:, 1:]
    eye = jnp.eye(d, dtype=A.dtype)
    along = (nodes.places + 1) / 2

    def eliminated(A, B, r, of_state):
        """Rows of one element in (b, y_left, y_right, p | r), triangular."""
        of_y = y_size[None, None]
        weight = (root / of_state[None])[:, :, None]
        by_b = P[:, None, :, None] * eye[None, :, None, :] - A[:, :, None, :] * Q[:, None, :, None]
        by_b = (by_b * weight[..., None] * y_size[None, None, None]).reshape(m * d, inner)
        by_left = (-eye[None] / 2 - A * (1 - along)[:, None, None]) * weight * of_y
        by_right = (eye[None] / 2 - A * along[:, None, None]) * weight * of_y
        by_p = -B * weight * p_size[None, None]
        table = jnp.concatenate([by_left, by_right, by_p, r[:, :, None]], axis=2)
        table = jnp.concatenate([by_b, table.reshape(m * d, -1)], axis=1)
        damped = jnp.eye(inner, table.shape[1], dtype=A.dtype) * jnp.sqrt(damping)
        return jnp.linalg.qr(jnp.concatenate([table, damped]), mode="r")

    R = lax.fori_loop(
        0,
        elements,
        lambda j, R: R.at[j].set(eliminated(A[j], B[j], r[j], of_state[j])),
        jnp.zeros((count, width, width), A.dtype),
    )

    # What is left of each element: 2 d + q + 1 rows in its two edge values and the parameters.
    left = R[:, inner:, inner:]
    by_left, by_right, by_p = G
    columns: Array = jnp.concatenate([y_size, y_size, p_size])[None] / of_condition[:, None]
    conditions = jnp.concatenate(
        [jnp.concatenate([by_right, by_left, by_p], axis=1) * columns, g[:, None]], axis=1
    )
    y, p, condition = _edge_values(left, conditions, d, damping, elements)

    def head(R, y_left, y_right):
        known = R[:inner, inner:] @ jnp.concatenate([y_left, y_right, p, jnp.ones(1, A.dtype)])
        return -jax.scipy.linalg.solve_triangular(R[:inner, :inner], known)

    padded = (jnp.arange(count) >= elements)[:, None]
    b = jnp.where(padded, 0.0, jax.vmap(head)(R, y[:-1], y[1:]))
    b = b.reshape(count, nodes.width - 1, d)
    step = Unknowns(y * y_size[None], b * y_size[None, None], p * p_size)
    return step, condition


def _edge_values(
    elements: Float[Array, "N w w"],
    conditions: Float[Array, "g w"],
    d: int,
    damping: Float[Array, ""],
    real: Int[Array, ""],
) -> tuple[Float[Array, "N_1 d"], Float[Array, " q"], Float[Array, ""]]:
    """Minimise over the edge values and the parameters, edge after edge by QR.

    Args:
        elements: Rows of each element in (y_left, y_right, p | r), with w = 2 d + q + 1.
        conditions: Rows of the boundary conditions in (y_N, y_0, p | r).
        d: Number of components.
        damping: Squared weight of the unknowns themselves.
        real: Number of elements that are no padding; behind them a value is that before it.

    Returns:
        Edge values, parameters, and an estimate of the smallest over the largest singular value:
        1 / (|R| |R^-1|) in Frobenius norms, the second from its effect on random vectors (Kenney
        and Laub, SIAM J. Sci. Comput. 15 (1994) 36). The diagonal of R would not show it.
    """
    count, width = len(elements), elements.shape[1]
    dtype = elements.dtype
    root = jnp.sqrt(damping)
    by_left, by_right, rest = jnp.split(elements, [d, 2 * d], axis=2)
    unit = root * jnp.eye(d, d + width, dtype=dtype)

    def eliminated(rows, by_left, by_right, rest):
        none = jnp.zeros_like(by_left)
        table = jnp.concatenate(
            [
                jnp.concatenate([rows[:, :d], none, rows[:, d:]], axis=1),
                jnp.concatenate([by_left, by_right, none, rest], axis=1),
                unit,
            ]
        )
        R = jnp.linalg.qr(table, mode="r")
        return R[d:, d:], R[:d]

    def forward(rows, element):
        """From rows in (y_j, y_0, p | r) to the same in y_(j+1), and what determines y_j."""
        padded, *parts = element
        none = jnp.zeros((d, d + width), dtype)
        return lax.cond(padded, lambda rows, *_: (rows, none), eliminated, rows, *parts)

    padded = jnp.arange(1, count) >= real
    first = jnp.concatenate([by_right[0], by_left[0], rest[0]], axis=1)
    rows, edges = lax.scan(forward, first, (padded, by_left[1:], by_right[1:], rest[1:]))
    total = width - 1
    last = jnp.concatenate([rows, conditions, root * jnp.eye(total, width, dtype=dtype)])
    last = jnp.linalg.qr(last, mode="r")[:total]
    normal = np.random.default_rng(0).normal
    probes = lambda *shape: jnp.asarray(normal(size=(*shape, _PROBES)), dtype)  # noqa: E731
    right = jnp.concatenate([-last[:, total:], probes(total)], axis=1)
    outer = jax.scipy.linalg.solve_triangular(last[:, :total], right)

    def solved(after, R, probe):
        known = R[:, d:-1] @ jnp.concatenate([after, outer[d:]])
        right = jnp.concatenate([-R[:, -1:], probe], axis=1)
        return jax.scipy.linalg.solve_triangular(R[:, :d], right - known)

    def backward(after, edge):
        padded, *parts = edge
        y = lax.cond(padded, lambda after, *_: after, solved, after, *parts)
        return y, y

    _, inside = lax.scan(backward, outer[:d], (padded, edges, probes(count - 1, d)), reverse=True)
    y = jnp.concatenate([outer[None, d : 2 * d], inside, outer[None, :d]])
    p = outer[2 * d :]
    once = jnp.arange(count + 1)[:, None, None] <= real
    inverse = jnp.max(
        jnp.sum(jnp.where(once, y[..., 1:], 0) ** 2, axis=(0, 1)) + jnp.sum(p[:, 1:] ** 2, axis=0)
    )
    size = jnp.sum(edges[..., :-1] ** 2) + jnp.sum(last[:, :total] ** 2)
    # A pivot of zero makes the inverse infinite or NaN.
    condition = jnp.nan_to_num(1 / jnp.sqrt(inverse * size))
    return y[..., 0], p[:, 0], condition


def monitor_residual(
    statement: Statement,
    monitor: Features,
    edges: Float[Array, " N_1"],
    unknowns: Unknowns,
    scale: Float[Array, "N d"],
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Size of the residual at monitor points relative to the solution, and of its rounding."""
    states = states_at(monitor, unknowns)
    relative = lambda r: jnp.max(  # noqa: E731
        2 * jnp.sqrt(jnp.mean((r / scale[:, None]) ** 2, axis=1)), axis=1
    )
    signs = (-1.0) ** jnp.sum(jnp.indices(states.shape), axis=0)
    moved = states * (1 + 2 * jnp.finfo(states.dtype).eps * signs)
    fields = lambda states: fields_at(statement, monitor, edges, states, unknowns.p)  # noqa: E731
    F = fields(states)
    return relative(_tops(monitor, unknowns) - F), relative(fields(moved) - F)
