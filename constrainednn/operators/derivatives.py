"""Calculus of callables: derivatives of a model by its point, in forward mode.

A jet is a tuple that holds a value along with some of its derivatives:

    Taylor jet of order k   (y_0, ..., y_k), where y(t + e) = sum_j y_j e^j
    Laplace jet in R^d      (value, the d partial derivatives stacked, Laplacian)

`_push` sends a jet through the package's own models layer by layer: affine layers act on each
entry, activations have recurrences. A function without a rule is differentiated by nested forward
mode, exponential in the order, but for that function alone and not for the network around it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from constrainednn._common.arguments import as_count
from constrainednn.errors import BadValueError
from constrainednn.operators.jets import LAPLACE, TAYLOR, push
from constrainednn.operators.points import (
    Function,
    as_point,
    check_callable,
    is_array,
    reals,
    shapes,
)

# Factorials of higher orders are no floats.
_HIGHEST = 170


def taylor(u: Function, t: Float[ArrayLike, ""], order: int) -> tuple[PyTree[Array], ...]:
    """Evaluate u and its first derivatives at `t`, in one pass.

    For the models of this package the cost grows no faster than order^2, as Taylor coefficients
    pass through layer by layer; for other callables it doubles with every order.

    Args:
        u: A model or function of points of shape (); its value is an array or a pytree of arrays.
        t: The point.
        order: The highest derivative, at least 0.

    Returns:
        The derivatives (not divided by factorials) u(t), u'(t), ..., each shaped like u(t).

    Raises:
        ValueError: If `t` is no scalar or `order` is negative.
        TypeError: If `u` cannot be called.

    Source:
        Griewank and Walther, Evaluating Derivatives, 2nd ed. (2008), chapter 13, table 13.2.
    """
    check_callable(u, "taylor")
    order = as_count(order, "order of taylor", least=0, most=_HIGHEST)
    t = as_point(t, 0, "taylor", "Along a line in space, give lambda t: u(x + t * direction).")
    if order == 0:
        return (u(t),)
    line = (t, jnp.ones_like(t), *[jnp.zeros_like(t)] * (order - 1))
    return tuple(
        jax.tree.map(lambda leaf, j=j: float(math.factorial(j)) * leaf, coefficient)
        for j, coefficient in enumerate(push(u, line, TAYLOR))
    )


def derivative(u: Function, order: int = 1) -> Function:
    """The derivative of a function of points of shape ().

    Args:
        u: A model or function; its value is an array or a pytree of arrays.
        order: How often to differentiate. One pass for any order, see `taylor`: prefer
            `derivative(u, order=2)` to `derivative(derivative(u))`.

    Returns:
        A function of t with values like those of u.

    Raises:
        ValueError: If `order` is below 1, or, at the call, if the point is no scalar.
        TypeError: If `u` cannot be called.
    """
    check_callable(u, "derivative")
    order = as_count(order, "order of derivative", most=_HIGHEST)

    def at(t):
        t = as_point(t, 0, "derivative", "Use partial(u, i) or jacobian(u).")
        if order == 1:
            return jax.jvp(u, (t,), (jnp.ones_like(t),))[1]
        return taylor(u, t, order)[order]

    return at


def partial(u: Function, i: int, order: int = 1) -> Function:
    """The derivative of a function of points of shape (d,) by coordinate `i`.

    Args:
        u: A model or function; its value is an array or a pytree of arrays.
        i: Index of the coordinate, from 0. Mixed derivatives: `partial(partial(u, 0), 1)`.
        order: How often to differentiate; one pass for any order, see `taylor`.

    Returns:
        A function of x with values like those of u.

    Raises:
        ValueError: If `i` is negative, `order` below 1, or, at the call, if the point has no
            coordinate `i`.
        TypeError: If `u` cannot be called.
    """
    check_callable(u, "partial")
    i = as_count(i, "coordinate i of partial", least=0)
    order = as_count(order, "order of partial", most=_HIGHEST)

    def at(x):
        x = as_point(x, 1, "partial", "Use derivative(u) for points of shape ().")
        if i >= x.size:  # JAX would clamp the index or drop the update, without a word
            raise BadValueError(
                f"partial(u, {i}) got a point of shape {x.shape}: its coordinates are "
                f"0 to {x.size - 1}."
            )
        along = jnp.zeros_like(x).at[i].set(1)
        if order == 1:
            return jax.jvp(u, (x,), (along,))[1]
        line = (x, along, *[jnp.zeros_like(x)] * (order - 1))
        factor = float(math.factorial(order))
        return jax.tree.map(lambda leaf: factor * leaf, push(u, line, TAYLOR)[order])

    return at


def jacobian(u: Function) -> Function:
    """The matrix of first derivatives, in forward mode.

    Args:
        u: A model or function of points of shape (d,) or (); its value is an array or a pytree.

    Returns:
        A function of x. Each array of shape s in the value of u becomes one of shape s + (d,).

    Raises:
        TypeError: If `u` cannot be called.
    """
    check_callable(u, "jacobian")

    def at(x):
        return jax.jacfwd(u)(reals(x, "jacobian"))

    return at


def laplacian(u: Function) -> Function:
    """The sum of the second derivatives by each coordinate.

    For the models of this package one pass carries value, gradient and Laplacian together: d + 2
    numbers for each neuron instead of a Hessian.

    Args:
        u: A model or function of points of shape (d,), or (), where it is the second derivative;
            its value is an array or a pytree of arrays.

    Returns:
        A function of x with values like those of u.

    Raises:
        ValueError: At the call, if the point has another shape.
        TypeError: If `u` cannot be called.

    Source:
        Li et al., Nature Machine Intelligence 6 (2024) 209 (forward Laplacian).
    """
    check_callable(u, "laplacian")

    def at(x):
        if is_array(x) and np.ndim(x) == 0:
            return taylor(u, x, 2)[2]
        x = as_point(x, 1, "laplacian", "Vary part of it: laplacian(lambda x: u((x, y)))(x).")
        return push(u, (x, jnp.eye(x.size, dtype=x.dtype), jnp.zeros_like(x)), LAPLACE)[2]

    return at


def divergence(u: Function) -> Function:
    """The trace of the Jacobian of a vector field.

    Args:
        u: A model or function of points of shape (d,) with values of shape (d,).

    Returns:
        A function of x with values of shape ().

    Raises:
        ValueError: At the call, if point and value have other shapes.
        TypeError: If `u` cannot be called.
    """
    check_callable(u, "divergence")

    def at(x):
        x = as_point(x, 1, "divergence", "Use derivative(u) for points of shape ().")
        x = reals(x, "divergence")
        value = jax.eval_shape(lambda x: u(x), x)
        if not is_array(value) or value.shape != x.shape:
            raise BadValueError(
                f"divergence needs a value shaped like the point, got a point of shape {x.shape} "
                f"and a value of shape {shapes(value)}. Pick the components of the field first."
            )
        return jnp.trace(jax.jacfwd(u)(x))

    return at


def normal_derivative(
    u: Function, normal: Float[ArrayLike, "..."] | Callable[[Array], Array]
) -> Function:
    """The derivative along a normal, as a flux through a boundary needs it.

    Args:
        u: A model or function of points of shape (d,) or (); its value is an array or a pytree.
        normal: A unit vector shaped like the point, or a function of the point that returns one,
            such as `region.boundary.normal`.

    Returns:
        A function of x with values like those of u.

    Raises:
        ValueError: At the call, if normal and point differ in shape.
        TypeError: If `u` cannot be called.
    """
    check_callable(u, "normal_derivative")

    def at(x):
        x = reals(x, "normal_derivative")
        n = jnp.asarray(normal(x) if callable(normal) else normal, x.dtype)
        if n.shape != x.shape:
            raise BadValueError(
                f"normal_derivative got a normal of shape {n.shape} at a point of shape {x.shape}."
            )
        return jax.jvp(u, (x,), (n,))[1]

    return at
