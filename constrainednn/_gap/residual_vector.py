"""The one residual vector of a problem: every constraint's rows, scaled and stacked."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._problem.constraint import Constraint
from constrainednn.domains.samplers.base import Draw
from constrainednn.methods.base import AbstractResidual


class Rows(eqx.Module):
    """Training points of one constraint and the scale of their rows.

    Attributes:
        points: The points, stacked along the first axis.
        scale: sqrt(weight * quadrature weight), divided by the common unit, shape (n,).
    """

    points: PyTree[Array]
    scale: Float[Array, " n"]


def common_unit(sizes: Sequence[float]) -> float:
    """A power of two that all rows are divided by: no digit changes.

    One, as long as the largest size lies between 1e-9 and 1e9. Squares of squares stay in the range
    of single precision then, and what a first-order method compares with fixed numbers makes sense.
    """
    top = max((size for size in sizes if math.isfinite(size)), default=0.0)
    return 1.0 if top == 0 or 1e-9 < top < 1e9 else 2.0 ** math.frexp(top)[1]


def rows(
    constraints: Sequence[Constraint], draws: Sequence[Draw], unit: float = 1.0
) -> tuple[Rows, ...]:
    """Put draws and weights together, one `Rows` a constraint, all divided by a common unit."""
    return tuple(
        Rows(
            jax.tree.map(jnp.asarray, draw.points),
            jnp.asarray(np.sqrt(constraint.weight * draw.weights) / unit),
        )
        for constraint, draw in zip(constraints, draws, strict=True)
    )


class ResidualVector(AbstractResidual):
    """Scaled residual rows as a function of the trained parameters.

    Its squared norm is the loss: sum over constraints of weight * sum_i w_i |r(u, x_i)|^2.

    Attributes:
        functions: One residual function `r(u, x)` a constraint.
        static: The model with the trained leaves taken out.
        rows: Points and scales, one a constraint.
    """

    functions: tuple[Callable[[Any, Any], Any], ...]
    static: PyTree
    rows: tuple[Rows, ...]

    def __call__(self, params: PyTree) -> Float[Array, " m"]:
        """Evaluate all rows."""
        u = eqx.combine(params, self.static)
        parts = []
        for function, block in zip(self.functions, self.rows, strict=True):
            r = jax.vmap(lambda x, function=function: jnp.ravel(function(u, x)))(block.points)
            parts.append((block.scale[:, None] * r).ravel())
        return jnp.concatenate(parts)

    def jacobian(self, params: PyTree) -> tuple[Float[Array, " m"], Float[Array, "m P"]]:
        """Evaluate all rows and their derivatives by the raveled parameters.

        Point by point: a row depends on the parameters through one point only, so its gradient
        costs one backward pass over that point. Differentiating the stacked vector would pay for
        all points in every row.
        """
        theta, unravel = ravel_pytree(params)
        values, slopes = [], []
        for function, block in zip(self.functions, self.rows, strict=True):

            def at_point(theta, x, function=function):
                r = jnp.ravel(function(eqx.combine(unravel(theta), self.static), x))
                return r, r

            def row_jacobian(x, at_point=at_point):
                entries = jax.eval_shape(at_point, theta, x)[0].size
                mode = jax.jacrev if entries <= theta.size else jax.jacfwd
                return mode(at_point, has_aux=True)(theta, x)

            J, r = jax.vmap(row_jacobian)(block.points)
            values.append((block.scale[:, None] * r).ravel())
            slopes.append((block.scale[:, None, None] * J).reshape(-1, theta.size))
        return jnp.concatenate(values), jnp.concatenate(slopes)

    def beside(self, rest: PyTree) -> "ResidualVector":
        """With some of the trained leaves put back into the model."""
        return ResidualVector(self.functions, eqx.combine(rest, self.static), self.rows)


def residual_vector(
    constraints: Sequence[Constraint], static: PyTree, blocks: tuple[Rows, ...]
) -> ResidualVector:
    """Build the residual vector of a problem on given rows."""
    return ResidualVector(tuple(item.residual for item in constraints), static, blocks)
