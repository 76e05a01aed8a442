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
from constrainednn.models.projection.equalities import nearest
from constrainednn.models.projection.factors import backward, cholesky, forward
from constrainednn.models.projection.interior import nearest_within
from constrainednn.models.projection.rows import jacobian, row_space


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
        return nearest_within(lambda y: g(x, y), lambda y: h(x, y), y0, iterations=iterations)
    affine = is_affine(g, x, y0)
    y = nearest(lambda y: g(x, y), y0, iterations=iterations, affine=affine)
    return y, jnp.zeros(0, y0.dtype)


@projected.def_jvp
def _projected_jvp(primals: tuple, tangents: tuple, *, iterations: int) -> tuple:
    functions, x, y0 = primals
    y, active = projected(functions, x, y0, iterations=iterations)

    def held(functions: Any, x: Any, y: Array) -> Array:
        g, h = functions
        return jnp.concatenate([g(x, y), active * h(x, y)])

    C = jacobian(lambda y: held(functions, x, y), y)[1]
    rows = row_space(C)
    w = rows.multipliers(y0 - y)
    pull = lambda functions, x: jax.grad(lambda y: w @ held(functions, x, y))(y)  # noqa: E731
    curvature = jax.hessian(lambda y: w @ held(functions, x, y))(y)
    b, normal = tangents[2], None
    if b is None:
        b = jnp.zeros_like(y0)
    if any(leaf is not None for leaf in jax.tree.leaves(tangents[:2])):
        change_of = lambda fn: _or_zeros(*eqx.filter_jvp(fn, (functions, x), tangents[:2]))  # noqa: E731
        b, d = b - change_of(pull), -change_of(lambda functions, x: held(functions, x, y))
        normal = rows.step(d)
        normal = normal + rows.step(d - C @ normal)  # the shift of the factor costs digits
        b = b - normal - curvature @ normal
    eye = jnp.eye(y.size, dtype=y.dtype)
    P = jax.vmap(rows.tangent, in_axes=1, out_axes=1)(eye)
    # Positive definite at a nearest point. Elsewhere, where no derivative exists or the point is
    # another stationary one, the set is taken as flat.
    curved = P @ (eye + curvature) @ P + (eye - P)
    factor = cholesky((curved + curved.T) / 2)
    factor = jnp.where(jnp.isfinite(factor).all(), factor, eye)
    inner = backward(factor, forward(factor, P))
    change = P @ (inner @ b)
    if normal is not None:
        change = change + normal
    return (y, active), (change, jnp.zeros_like(active))


def _or_zeros(value: Array, change: Array | None) -> Array:
    """A change that may be None where a value does not depend on what changes."""
    return jnp.zeros_like(value) if change is None else change
