"""The projection of one value with its derivative: the system of the nearest point, differentiated.

    y       (n,)    nearest point;  y0 what was projected
    c, C            the equations, and the inequalities that hold it there, and their Jacobian
    w       (m,)    multipliers: y0 - y = C^T w
    H       n x n   sum of w times the second derivatives of c
    P       n x n   projector on what is tangent

A dot marks a change of what is projected, or of the point or a parameter p that c depends on:

    (I + H) y. + C^T w. = y0. - d(C^T w)/dp p.        C y. = -dc/dp p.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from constrainednn.models.projection.affine import is_affine
from constrainednn.models.projection.equalities import nearest_affine
from constrainednn.models.projection.equations.nearest import nearest_of_equations
from constrainednn.models.projection.factors import inverse_factor
from constrainednn.models.projection.interior import nearest_within
from constrainednn.models.projection.polyhedron import faces, nearest_in_polyhedron
from constrainednn.models.projection.rows import RowSpace, jacobian, row_space


@eqx.filter_custom_jvp
def projected(
    functions: tuple[Callable, Callable], x: PyTree, y0: Float[Array, " n"], *, iterations: int
) -> tuple[Float[Array, " n"], Float[Array, " p"]]:
    """Move y0 onto {y : g(x, y) = 0, h(x, y) <= 0}.

    Args:
        functions: g and h, closed over no traced value.
        x: The point.
        y0: The value there.
        iterations: Steps at most.

    Returns:
        The nearest point, and one or zero for each inequality: does it hold it there?
    """
    g, h = functions
    if jax.eval_shape(h, x, y0).size:
        if is_affine(g, x, y0) and is_affine(h, x, y0):
            fns = (lambda y: g(x, y)), (lambda y: h(x, y))
            return nearest_in_polyhedron(*fns, y0, iterations=iterations)
        return nearest_within(lambda y: g(x, y), lambda y: h(x, y), y0, iterations=iterations)
    none = jnp.zeros(0, y0.dtype)
    if is_affine(g, x, y0):  # the factor of affine equations is one for all points
        return nearest_affine(lambda y: g(x, y), y0), none
    return nearest_of_equations(g, x, y0, iterations), none


@projected.def_jvp
def _projected_jvp(primals: tuple, tangents: tuple, *, iterations: int) -> tuple:
    functions, x, y0 = primals
    y, active = projected(functions, x, y0, iterations=iterations)

    def held(functions: Any, x: Any, y: Array) -> Array:
        g, h = functions
        return jnp.concatenate([g(x, y), active * h(x, y)])

    rows = _rows(functions, x, y, active)
    w = rows.multipliers(y0 - y)
    pull = lambda functions, x: jax.grad(lambda y: w @ held(functions, x, y))(y)  # noqa: E731
    b, normal = tangents[2], None
    if b is None:
        b = jnp.zeros_like(y0)
    flat = all(is_affine(fn, x, y0) for fn in functions)
    slope = jax.grad(lambda y: w @ held(functions, x, y))
    bent = lambda v: jnp.zeros_like(v) if flat else jax.jvp(slope, (y,), (v,))[1]  # noqa: E731
    if any(leaf is not None for leaf in jax.tree.leaves(tangents[:2])):
        change_of = lambda fn: _or_zeros(*eqx.filter_jvp(fn, (functions, x), tangents[:2]))  # noqa: E731
        b, d = b - change_of(pull), -change_of(lambda functions, x: held(functions, x, y))
        normal = rows.step(d)
        # The shift of the factor costs digits.
        moved = jax.jvp(lambda y: held(functions, x, y), (y,), (normal,))[1]
        normal = normal + rows.step(d - moved)
        b = b - normal - bent(normal)
    change = rows.tangent(b) if flat else _along(rows, jax.jacfwd(slope)(y), b)
    if normal is not None:
        change = change + normal
    return (y, active), (change, jnp.zeros_like(active))


def _rows(functions: tuple[Callable, Callable], x: PyTree, y: Array, active: Array) -> Any:
    """The equations, and the inequalities that hold y, as a space of rows."""
    (g, G), (h, K) = (jacobian(lambda y, fn=fn: fn(x, y), y) for fn in functions)
    if not h.size:
        return row_space(G)
    if all(is_affine(fn, x, y) for fn in functions):
        return faces(jnp.concatenate([G, K]), g.size, active)
    return row_space(jnp.concatenate([G, active[:, None] * K]))


def _along(rows: RowSpace, curvature: Array, b: Array) -> Float[Array, " n"]:
    """The change along the set, by the curvature of what holds the point."""
    eye = jnp.eye(b.size, dtype=b.dtype)
    P = jax.vmap(rows.tangent, in_axes=1, out_axes=1)(eye)
    # Positive definite at a nearest point. Elsewhere, where no derivative exists or the point is
    # another stationary one, the set is taken as flat.
    curved = P @ (eye + curvature) @ P + (eye - P)
    M = inverse_factor((curved + curved.T) / 2)
    M = jnp.where(jnp.isfinite(M).all(), M, eye)
    return P @ (M.T @ (M @ (P @ b)))


def _or_zeros(value: Array, change: Array | None) -> Array:
    """A change that may be None where a value does not depend on what changes."""
    return jnp.zeros_like(value) if change is None else change
