"""One Gauss-Newton step for all elements: condense interiors, then solve the chain of edges."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from constrainednn._pieces.chain import solve_chain
from constrainednn._pieces.condensation import condense, recover
from constrainednn._pieces.mesh import places
from constrainednn._pieces.rows import by_coefficients
from constrainednn.models.pieces import Features


class Unknowns(NamedTuple):
    """Unknowns of the solve; symbols as in `elements.py`."""

    y: Float[Array, "N_1 d"]
    b: Float[Array, "N K_1 d"]
    p: Float[Array, " q"]


class BoundaryProblem(eqx.Module):
    """A two-point problem on flat arrays.

    Attributes:
        field: `field(x, y, p)` of shape (d,).
        conditions: `conditions(y_left, y_right, p)` of shape (d + q,).
    """

    field: Callable[[Array, Array, Array], Array]
    conditions: Callable[[Array, Array, Array], Array]


def heads(unknowns: Unknowns) -> Float[Array, "N K d"]:
    """Heads with their first row, which follows from the edge values."""
    first = jnp.diff(unknowns.y, axis=0)[:, None] / jnp.sqrt(2.0)
    return jnp.concatenate([first, unknowns.b], axis=1)


def _times_half(
    edges: Float[Array, " N_1"], values: Float[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """Multiply by half the length of each element; zero for padding even where values are NaN."""
    half = jnp.diff(edges).reshape(-1, *[1] * (values.ndim - 1)) / 2
    return jnp.where(half == 0, 0.0, half * values)


def _places(features: Features, edges: Float[Array, " N_1"]) -> Float[Array, "N m"]:
    return places(edges[:-1], edges[1:], features.places)


def states_at(features: Features, unknowns: Unknowns) -> Float[Array, "N m d"]:
    return unknowns.y[:-1, None] + jnp.einsum("mk,nkd->nmd", features.integrals[1], heads(unknowns))


def _tops(features: Features, unknowns: Unknowns) -> Float[Array, "N m d"]:
    return jnp.einsum("mk,nkd->nmd", features.integrals[0], heads(unknowns))


def fields_at(
    statement: BoundaryProblem,
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
    statement: BoundaryProblem,
    features: Features,
    edges: Float[Array, " N_1"],
    unknowns: Unknowns,
) -> Float[Array, "N m d"]:
    states = states_at(features, unknowns)
    return _tops(features, unknowns) - fields_at(statement, features, edges, states, unknowns.p)


def linearised_rows(
    statement: BoundaryProblem,
    features: Features,
    edges: Float[Array, " N_1"],
    unknowns: Unknowns,
) -> tuple[Float[Array, "N m d"], Float[Array, "N m d d"], Float[Array, "N m d q"]]:
    """Residual, and Jacobians of the scaled field for the state and the parameters."""

    def field_twice(x, y, p):
        value = statement.field(x, y, p)
        return value, value

    # Value and slopes in one pass: each further copy of the user's field costs compilation.
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
    """Largest value of each component, and sizes of the parameters; one in place of zero."""
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
    """Solve [J; sqrt(damping) I] step = [-r; 0] in scaled unknowns, after condensation."""
    (A, B), (r, g), (of_state, of_condition), (y_size, p_size) = slopes, residuals, scale, size
    count, m, d, q = *A.shape[:3], B.shape[3]
    inner = (nodes.width - 1) * d
    outer = 2 * d + q + 1
    eye = jnp.eye(d, dtype=A.dtype)
    along = (nodes.places + 1)[:, None] / 2
    # The basis functions of the edges are linear: from one to zero, and from zero to one.
    tops = jnp.concatenate([nodes.integrals[0][:, 1:], jnp.full_like(along, -0.5)], axis=1)
    tops = jnp.concatenate([tops, jnp.full_like(along, 0.5)], axis=1)
    states = jnp.concatenate([nodes.integrals[1][:, 1:], 1 - along, along], axis=1)

    def condensed(A, B, r, of_state):
        """Rows of one element in (b, y_left, y_right, p | r), with b eliminated."""
        weight = (root / of_state[None])[:, :, None]
        by_values = by_coefficients((eye[None], -A), (tops, states))
        by_values = by_values * weight[..., None] * y_size[None, None, None]
        by_p = -B * weight * p_size[None, None]
        table = [by_values.reshape(m * d, -1), by_p.reshape(m * d, -1), r.reshape(-1, 1)]
        table = jnp.concatenate(table, axis=1)
        damped = jnp.eye(inner, table.shape[1], dtype=A.dtype) * jnp.sqrt(damping)
        return condense(jnp.concatenate([table, damped]), inner)

    def with_element(j, stored):
        found = condensed(A[j], B[j], r[j], of_state[j])
        return jax.tree.map(lambda all_, new: all_.at[j].set(new), stored, found)

    none = tuple(
        jnp.zeros((count, *shape), A.dtype) for shape in ((inner, inner + outer), (outer, outer))
    )
    inside, outside = lax.fori_loop(0, elements, with_element, none)
    by_left, by_right, by_p = G
    columns: Array = jnp.concatenate([y_size, y_size, p_size])[None] / of_condition[:, None]
    conditions = jnp.concatenate(
        [jnp.concatenate([by_right, by_left, by_p], axis=1) * columns, g[:, None]], axis=1
    )
    y, p, condition = solve_chain(outside, conditions, d, damping, elements)
    others = jnp.concatenate([y[:-1], y[1:], jnp.tile(p, (count, 1))], axis=1)[..., None]
    padded = (jnp.arange(count) >= elements)[:, None, None]
    b = jnp.where(padded, 0.0, jax.vmap(recover)(inside, others))
    b = b.reshape(count, nodes.width - 1, d)
    step = Unknowns(y * y_size[None], b * y_size[None, None], p * p_size)
    return step, condition


def monitor_residual(
    statement: BoundaryProblem,
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
