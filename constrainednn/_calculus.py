"""Calculus of callables: derivatives of a model by its point, in forward mode.

A jet is a tuple that holds a value along with some of its derivatives:

    Taylor jet of order k   (y_0, ..., y_k), where y(t + e) = sum_j y_j e^j
    Laplace jet in R^d      (value, the d partial derivatives stacked, Laplacian)

`_push` sends a jet through the package's own models layer by layer: affine layers act on each
entry, activations have recurrences. A function without a rule is differentiated by nested forward
mode, exponential in the order, but for that function alone and not for the network around it.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from constrainednn._errors import BadTypeError, BadValueError
from constrainednn._legendre import gauss
from constrainednn._models import (
    FeatureNetwork,
    PeriodicInput,
    _InputTransformed,
    _OutputTransformed,
)
from constrainednn._validate import as_arrays, as_count, as_positive, shown

Function = Callable[[Any], Any]
Jet = tuple[PyTree, ...]
Series = list[Array]

# A pass of forward mode for each: their unit vectors are a square matrix of as many columns.
_MOST_COORDINATES = 10_000
# Factorials of higher orders are no floats.
_HIGHEST = 170
# Nested derivatives double their cost with each order: five seconds to compile x**2 for ten.
_HIGHEST_NESTED = 16
# The rule is made on the host at a cost that grows with the cube.
_MOST_NODES = 500


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
    _check_callable(u, "taylor")
    order = as_count(order, "order of taylor", least=0, most=_HIGHEST)
    t = _point(t, 0, "taylor", "Along a line in space, give lambda t: u(x + t * direction).")
    if order == 0:
        return (u(t),)
    line = (t, jnp.ones_like(t), *[jnp.zeros_like(t)] * (order - 1))
    return tuple(
        jax.tree.map(lambda leaf, j=j: float(math.factorial(j)) * leaf, coefficient)
        for j, coefficient in enumerate(_push(u, line, _TAYLOR))
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
    _check_callable(u, "derivative")
    order = as_count(order, "order of derivative", most=_HIGHEST)

    def at(t):
        t = _point(t, 0, "derivative", "Use partial(u, i) or jacobian(u).")
        if order == 1:
            return jax.jvp(u, (t,), (jnp.ones_like(t),))[1]
        return taylor(u, t, order)[order]

    return at


def partial(u: Function, i: int) -> Function:
    """The derivative of a function of points of shape (d,) by coordinate `i`.

    Args:
        u: A model or function; its value is an array or a pytree of arrays.
        i: Index of the coordinate, from 0. Mixed derivatives: `partial(partial(u, 0), 1)`.

    Returns:
        A function of x with values like those of u.

    Raises:
        ValueError: If `i` is negative, or, at the call, if the point has no coordinate `i`.
        TypeError: If `u` cannot be called.
    """
    _check_callable(u, "partial")
    i = as_count(i, "coordinate i of partial", least=0)

    def at(x):
        x = _point(x, 1, "partial", "Use derivative(u) for points of shape ().")
        if i >= x.size:  # JAX would clamp the index or drop the update, without a word
            raise BadValueError(
                f"partial(u, {i}) got a point of shape {x.shape}: its coordinates are "
                f"0 to {x.size - 1}."
            )
        return jax.jvp(u, (x,), (jnp.zeros_like(x).at[i].set(1),))[1]

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
    _check_callable(u, "jacobian")

    def at(x):
        return jax.jacfwd(u)(_reals(x, "jacobian"))

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
    _check_callable(u, "laplacian")

    def at(x):
        if _is_array(x) and np.ndim(x) == 0:
            return taylor(u, x, 2)[2]
        x = _point(x, 1, "laplacian", "Vary part of it: laplacian(lambda x: u((x, y)))(x).")
        return _push(u, (x, jnp.eye(x.size, dtype=x.dtype), jnp.zeros_like(x)), _LAPLACE)[2]

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
    _check_callable(u, "divergence")

    def at(x):
        x = _point(x, 1, "divergence", "Use derivative(u) for points of shape ().")
        x = _reals(x, "divergence")
        value = jax.eval_shape(lambda x: u(x), x)
        if not _is_array(value) or value.shape != x.shape:
            raise BadValueError(
                f"divergence needs a value shaped like the point, got a point of shape {x.shape} "
                f"and a value of shape {_shapes(value)}. Pick the components of the field first."
            )
        return jnp.trace(jax.jacfwd(u)(x))

    return at


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
    _check_callable(integrand, "integrand of integral")
    count = as_count(nodes, "nodes of integral", most=_MOST_NODES)
    low, high = (
        _point(end, 0, f"{name} of integral", "Integrate one interval at a time.")
        for end, name in ((low, "low"), (high, "high"))
    )
    s, weights = gauss(count)
    half = (high - low) / 2

    def at(s: Array) -> Array:
        value = as_arrays(integrand(s), "what integrand of integral returns")
        if not _is_array(value):
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
    _check_callable(residual, "residual of gradient_enhanced")
    factor = as_positive(weight, "weight of gradient_enhanced") ** 0.5

    @functools.wraps(residual)
    def enhanced(u: Any, x: Any) -> Array:
        if not _is_array(x):
            raise BadTypeError(
                "gradient_enhanced needs points that are one array; write the derivatives of the "
                "residual out for others."
            )
        at = lambda x: jnp.ravel(residual(u, x))  # noqa: E731
        return jnp.concatenate([at(x), factor * jnp.ravel(jax.jacfwd(at)(x))])

    return enhanced


def at_most(value: Array, bound: ArrayLike) -> Array:
    """Residual of `value <= bound`: zero where it holds, else how far it is off."""
    return jnp.maximum(jnp.asarray(value) - bound, 0.0)


def at_least(value: Array, bound: ArrayLike) -> Array:
    """Residual of `value >= bound`: zero where it holds, else how far it is off."""
    return jnp.maximum(bound - jnp.asarray(value), 0.0)


def _check_callable(u: Any, what: str) -> None:
    if not callable(u):
        raise BadTypeError(
            f"{what} takes a function or a model, got {type(u).__name__}. "
            f"Pass u itself, not its value: {what}(u), not {what}(u(x))."
        )


def _point(x: Any, ndim: int, what: str, advice: str) -> Array:
    if not _is_array(x) or np.ndim(x) != ndim:
        expected = "(d,)" if ndim else "()"
        raise BadValueError(
            f"{what} takes one point of shape {expected}, got {_shapes(x)}. {advice} "
            "Add a batch axis with jax.vmap."
        )
    return _numbers(x, what)


def _numbers(x: PyTree, what: str) -> PyTree[Array]:
    """A point, or several in a pytree, as arrays that are no whole numbers."""
    point = as_arrays(x, f"the point of {what}")
    size = sum(leaf.size for leaf in jax.tree.leaves(point))
    if not 0 < size <= _MOST_COORDINATES:
        raise BadValueError(
            f"{what} takes a point of 1 to {_MOST_COORDINATES} coordinates, got {size}."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, float)), point)


def _reals(x: PyTree, what: str) -> PyTree[Array]:
    """As `_numbers`, without complex ones: the matrix of their derivatives has no one meaning."""
    x = _numbers(x, what)
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(x)):
        raise BadTypeError(f"{what} takes a real point. Write real and imaginary part as two.")
    return x


def _is_array(tree: PyTree) -> bool:
    return jax.tree_util.all_leaves([tree])


def _shapes(tree: PyTree) -> str:
    try:
        return shown(jax.tree.map(np.shape, tree))
    except (TypeError, ValueError):  # no pytree of arrays
        return shown(tree)


class _Algebra(NamedTuple):
    """How a kind of jet passes through a function: affine, known by its series, or any."""

    affine: Callable[[Function, Jet], Jet]
    elementwise: Callable[[Callable[[Series], Series], Jet], Jet]
    generic: Callable[[Function, Jet], Jet]


def _taylor_affine(fn: Function, jet: Jet) -> Jet:
    first, *others = jet
    return (fn(first), *[jax.jvp(fn, (first,), (row,))[1] for row in others])


def _taylor_elementwise(series: Callable[[Series], Series], jet: Jet) -> Jet:
    return tuple(series(list(jet)))


def _taylor_generic(fn: Function, jet: Jet) -> Jet:
    """Nested forward mode: one more derivative along the curve for each coefficient.

    F_k depends on y_0 .. y_k, and k F_k is the derivative of F_(k-1) in the direction of
    y_1, 2 y_2, ..., k y_k. Cheaper by a factor of two to three than to differentiate
    e -> fn(y_0 + y_1 e + ...), where every level evaluates the polynomial again.
    """
    if len(jet) == 1:
        return (fn(jet[0]),)
    if len(jet) > _HIGHEST_NESTED + 1:
        raise BadValueError(
            f"order {len(jet) - 1} is too high for {shown(fn)}: the cost of a function that is no "
            f"model of this package doubles with each order. At most {_HIGHEST_NESTED}, please."
        )
    speed = tuple(
        jax.tree.map(lambda leaf, j=j: j * leaf, row) for j, row in enumerate(jet[1:], start=1)
    )
    below = lambda jet: _taylor_generic(fn, jet)  # noqa: E731
    coefficients, slopes = jax.jvp(below, (jet[:-1],), (speed,))
    return (*coefficients, jax.tree.map(lambda leaf: leaf / len(speed), slopes[-1]))


def _laplace_affine(fn: Function, jet: Jet) -> Jet:
    y, gradient, laplacian = jet
    along = lambda direction: jax.jvp(fn, (y,), (direction,))[1]  # noqa: E731
    return fn(y), jax.vmap(along)(gradient), along(laplacian)


def _laplace_elementwise(series: Callable[[Series], Series], jet: Jet) -> Jet:
    y, gradient, laplacian = jet
    value, slope, half_curvature = series([y, jnp.ones_like(y), jnp.zeros_like(y)])
    laplacian = slope * laplacian + 2 * half_curvature * jnp.sum(gradient**2, axis=0)
    return value, slope[None] * gradient, laplacian


def _laplace_generic(fn: Function, jet: Jet) -> Jet:
    """Chain rule: Laplacian of fn(y) = fn'[Laplacian of y] + sum_i fn''[d_i y, d_i y]."""
    y, gradient, laplacian = jet

    def along(direction):
        slope = lambda y: jax.jvp(fn, (y,), (direction,))[1]  # noqa: E731
        return jax.jvp(slope, (y,), (direction,))

    value, drift = jax.jvp(fn, (y,), (laplacian,))
    slopes, curvatures = jax.vmap(along)(gradient)
    total = jax.tree.map(lambda a, b: a + jnp.sum(b, axis=0), drift, curvatures)
    return value, slopes, total


_TAYLOR = _Algebra(_taylor_affine, _taylor_elementwise, _taylor_generic)
_LAPLACE = _Algebra(_laplace_affine, _laplace_elementwise, _laplace_generic)


def _push(u: Function, jet: Jet, algebra: _Algebra) -> Jet:
    """Send a jet of points through `u`, by the best rule there is."""
    # By exact type: a subclass may compute something else.
    rule = _RULES.get(type(u))
    if rule is not None:
        return rule(u, jet, algebra)
    series = _series_of(u)
    if series is not None:
        return algebra.elementwise(series, jet)
    return algebra.generic(u, jet)


def _linear(u: eqx.nn.Linear, jet: Jet, algebra: _Algebra) -> Jet:
    jax.eval_shape(lambda x: u(x), jet[0])  # refuses points of a wrong shape
    through = lambda x: _matrix_times(u.weight, u.bias, x)  # noqa: E731
    return algebra.affine(
        lambda x: through(x)[0] if u.out_features == "scalar" else through(x), jet
    )


def _matrix_times(weight: Array, bias: Array | None, x: Array) -> Array:
    # Not weight @ x: that puts the batch axes of vmap last, and the transposes to bring values and
    # gradients together again take as long as the products.
    y = jnp.atleast_1d(x) @ weight.T
    return y if bias is None else y + bias


def _mlp(u: eqx.nn.MLP, jet: Jet, algebra: _Algebra) -> Jet:
    if u.scan:
        return algebra.generic(u, jet)
    for i, layer in enumerate(u.layers[:-1]):
        jet = _push(layer, jet, algebra)
        # A learnt activation has its own parameters for each layer and neuron.
        activation = jax.tree.map(lambda a, i=i: a[i] if eqx.is_array(a) else a, u.activation)
        jet = _push(_on_each(activation), jet, algebra)
    jet = _push(u.layers[-1], jet, algebra)
    if u.depth == 0:
        return jet
    last = u.final_activation
    return _push(last if u.out_size == "scalar" else _on_each(last), jet, algebra)


def _on_each(activation: Callable) -> Function:
    """The activation as a function of all neurons."""
    if _series_of(activation) is not None:
        return activation
    return lambda y: eqx.filter_vmap(lambda fn, value: fn(value))(activation, y)


def _features(u: FeatureNetwork, jet: Jet, algebra: _Algebra) -> Jet:
    weight, bias = u.inner.value
    head = lambda y: _matrix_times(u.head_weight, u.head_bias, y)  # noqa: E731
    jet = algebra.affine(lambda x: _matrix_times(weight, bias, x), jet)
    jet = _push(u.activation, jet, algebra)
    return algebra.affine(lambda y: head(y)[0] if u.scalar else head(y), jet)


def _periodic(u: PeriodicInput, jet: Jet, algebra: _Algebra) -> Jet:
    jax.eval_shape(u, jet[0])  # refuses points of a wrong shape
    periods = u.period if isinstance(u.period, tuple) else (u.period,)
    parts = []
    for i, period in enumerate(periods):
        if period is None:
            parts.append(algebra.affine(lambda x, i=i: x[i : i + 1], jet))
            continue
        turns = 2 * math.pi / period * np.arange(1, u.harmonics + 1)
        angle = lambda x, i=i, turns=turns: jnp.asarray(turns, x.dtype) * jnp.atleast_1d(x)[i]  # noqa: E731
        angles = algebra.affine(angle, jet)
        parts += [_push(fn, angles, algebra) for fn in (jnp.cos, jnp.sin)]
    return algebra.affine(jnp.concatenate, tuple(zip(*parts, strict=True)))


def _input_transformed(u: _InputTransformed, jet: Jet, algebra: _Algebra) -> Jet:
    return _push(u.model, _push(u.fn, jet, algebra), algebra)


def _output_transformed(u: _OutputTransformed, jet: Jet, algebra: _Algebra) -> Jet:
    pairs = tuple(zip(jet, _push(u.model, jet, algebra), strict=True))
    return algebra.generic(lambda pair: u.fn(*pair), pairs)


_RULES: dict[type, Callable[[Any, Any, _Algebra], PyTree]] = {
    eqx.nn.Linear: _linear,
    eqx.nn.Identity: lambda u, jet, algebra: jet,
    eqx.nn.MLP: _mlp,
    FeatureNetwork: _features,
    PeriodicInput: _periodic,
    _InputTransformed: _input_transformed,
    _OutputTransformed: _output_transformed,
}


# Recurrences for the Taylor coefficients of fn(x(t)). If y' = g x', then
# k y_k = sum_{j=1..k} j x_j g_{k-j}; where g depends on y, it is extended along with y.
def _step(x: Series, g: Series, k: int) -> Array:
    return sum((j * x[j] * g[k - j] for j in range(2, k + 1)), x[1] * g[k - 1]) / k


def _cauchy(a: Series, b: Series, k: int) -> Array:
    """Coefficient k of the product."""
    return sum((a[i] * b[k - i] for i in range(1, k + 1)), a[0] * b[k])


def _product(a: Series, b: Series) -> Series:
    return [_cauchy(a, b, k) for k in range(len(a))]


def _tanh(x: Series) -> Series:
    y = [jnp.tanh(x[0])]
    slope = [1 - y[0] * y[0]]
    for k in range(1, len(x)):
        y.append(_step(x, slope, k))
        slope.append(-_cauchy(y, y, k))
    return y


def _sigmoid(x: Series) -> Series:
    y = [jax.nn.sigmoid(x[0])]
    slope = [y[0] * (1 - y[0])]
    for k in range(1, len(x)):
        y.append(_step(x, slope, k))
        slope.append(y[k] - _cauchy(y, y, k))
    return y


def _exp(x: Series) -> Series:
    y = [jnp.exp(x[0])]
    for k in range(1, len(x)):
        y.append(_step(x, y, k))
    return y


def _sin_cos(x: Series) -> tuple[Series, Series]:
    sine, cosine = [jnp.sin(x[0])], [jnp.cos(x[0])]
    for k in range(1, len(x)):
        sine.append(_step(x, cosine, k))
        cosine.append(-_step(x, sine, k))
    return sine, cosine


def _softplus(x: Series) -> Series:
    slope = _sigmoid(x)
    return [jax.nn.softplus(x[0])] + [_step(x, slope, k) for k in range(1, len(x))]


def _relu(x: Series) -> Series:
    return [jnp.where(x[0] > 0, coefficient, 0) for coefficient in x]


def _gelu(x: Series) -> Series:
    cube = _product(x, _product(x, x))
    scale = math.sqrt(2 / math.pi)
    y = _tanh([scale * (a + 0.044715 * b) for a, b in zip(x, cube, strict=True)])
    return [0.5 * row for row in _product(x, [1 + y[0], *y[1:]])]


_MLP_IDENTITY = inspect.signature(eqx.nn.MLP).parameters["final_activation"].default

# By identity: most of these are compiled or custom-derivative wrappers of a function of that name.
_SERIES: tuple[tuple[tuple[Function, ...], Callable[[Series], Series]], ...] = (
    ((jnp.tanh, jax.nn.tanh, jax.lax.tanh), _tanh),
    ((jax.nn.sigmoid, jax.lax.logistic, jax.scipy.special.expit), _sigmoid),
    ((jnp.exp, jax.lax.exp), _exp),
    ((jnp.sin, jax.lax.sin), lambda x: _sin_cos(x)[0]),
    ((jnp.cos, jax.lax.cos), lambda x: _sin_cos(x)[1]),
    ((jax.nn.softplus,), _softplus),
    ((jax.nn.silu, jax.nn.swish), lambda x: _product(x, _sigmoid(x))),
    ((jax.nn.gelu,), _gelu),
    ((jax.nn.relu,), _relu),
    ((jax.nn.identity, _MLP_IDENTITY), lambda x: x),
)


def _series_of(fn: Any) -> Callable[[Series], Series] | None:
    for known, series in _SERIES:
        if any(fn is item for item in known):
            return series
    return None
