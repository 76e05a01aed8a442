"""Terms of residuals: integrals, gradients of a residual, inequalities."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from constrainednn._common.arguments import as_arrays, as_count, as_positive
from constrainednn.errors import BadTypeError
from constrainednn.models.legendre import gauss
from constrainednn.operators.points import as_point, check_callable, is_array

# The rule is made on the host at a cost that grows with the cube.
_MOST_NODES = 500


def integral(
    integrand: Callable[[Array], Array],
    low: Float[ArrayLike, ""],
    high: Float[ArrayLike, ""],
    *,
    nodes: int = 32,
) -> Array:
    """Integrate a function of one number by the Gauss-Legendre rule, for use in a residual.

    The ends may depend on the point, as in a Volterra equation; the rule is exact for polynomials
    of degree 2 nodes - 1. An integrand with a kink or a singularity wants its integral split there.

    Args:
        integrand: From a scalar of shape () to a number or an array.
        low: Lower end.
        high: Upper end; below `low` it changes the sign.
        nodes: Number of places where `integrand` is evaluated.

    Raises:
        TypeError, ValueError: If `integrand` is no function or an end is no scalar.
    """
    check_callable(integrand, "integrand of integral")
    count = as_count(nodes, "nodes of integral", most=_MOST_NODES)
    low, high = (
        as_point(end, 0, f"{name} of integral", "Integrate one interval at a time.")
        for end, name in ((low, "low"), (high, "high"))
    )
    s, weights = gauss(count)
    half = (high - low) / 2

    def at(s: Array) -> Array:
        value = as_arrays(integrand(s), "what integrand of integral returns")
        if not is_array(value):
            raise BadTypeError("integrand of integral must return one array, not several.")
        return value

    values = jax.vmap(at)(low + half * (jnp.asarray(s, half.dtype) + 1))
    return half * jnp.tensordot(jnp.asarray(weights, half.dtype), values, axes=1)


def gradient_enhanced(residual: Callable[[Any, Any], Array], weight: float = 0.1) -> Callable:
    """A residual together with its derivatives by the point, times the root of a weight.

    Where the residual is zero on a set with inside, so are its derivatives: they are more rows for
    the same points, at the price of one more derivative. For points that are one array.

    Args:
        residual: A residual function `residual(u, x)`.
        weight: Factor of the squared derivatives in the loss, above zero; in units of x squared.

    Source:
        Yu, Lu, Meng and Karniadakis, Comput. Methods Appl. Mech. Engrg. 393 (2022) 114823.
    """
    check_callable(residual, "residual of gradient_enhanced")
    factor = as_positive(weight, "weight of gradient_enhanced") ** 0.5

    @functools.wraps(residual)
    def enhanced(u: Any, x: Any) -> Array:
        if not is_array(x):
            raise BadTypeError(
                "gradient_enhanced needs points that are one array; write the derivatives of the "
                "residual out for others."
            )
        at = lambda x: jnp.ravel(residual(u, x))  # noqa: E731
        return jnp.concatenate([at(x), factor * jnp.ravel(jax.jacfwd(at)(x))])

    return enhanced


def at_most(value: Array, bound: ArrayLike) -> Array:
    """Residual of `value <= bound`: zero where it holds, else how far it is off."""
    return violation(jnp.asarray(value) - bound)


def at_least(value: Array, bound: ArrayLike) -> Array:
    """Residual of `value >= bound`: zero where it holds, else how far it is off."""
    return violation(bound - jnp.asarray(value))


@jax.jit
def violation(excess: Array) -> Array:
    """What is above zero: a function of its own, which is found by its name in traced programs."""
    return jnp.maximum(excess, 0.0)
