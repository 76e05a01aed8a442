"""Propagation of derivatives through the layers of a network."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.messages import shown
from constrainednn.errors import BadValueError
from constrainednn.models.random_features import FeatureNetwork
from constrainednn.models.transforms import PeriodicInput, _InputTransformed, _OutputTransformed
from constrainednn.operators.points import Function
from constrainednn.operators.taylor_series import Series, series_of

Jet = tuple[PyTree, ...]
# Nested derivatives double their cost with each order: five seconds to compile x**2 for ten.
_HIGHEST_NESTED = 16


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


TAYLOR = _Algebra(_taylor_affine, _taylor_elementwise, _taylor_generic)
LAPLACE = _Algebra(_laplace_affine, _laplace_elementwise, _laplace_generic)


def push(u: Function, jet: Jet, algebra: _Algebra) -> Jet:
    """Send a jet of points through `u`, by the best rule there is."""
    # By exact type: a subclass may compute something else.
    rule = _RULES.get(type(u))
    if rule is not None:
        return rule(u, jet, algebra)
    series = series_of(u)
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
        jet = push(layer, jet, algebra)
        # A learnt activation has its own parameters for each layer and neuron.
        activation = jax.tree.map(lambda a, i=i: a[i] if eqx.is_array(a) else a, u.activation)
        jet = push(_on_each(activation), jet, algebra)
    jet = push(u.layers[-1], jet, algebra)
    if u.depth == 0:
        return jet
    last = u.final_activation
    return push(last if u.out_size == "scalar" else _on_each(last), jet, algebra)


def _on_each(activation: Callable) -> Function:
    """The activation as a function of all neurons."""
    if series_of(activation) is not None:
        return activation
    return lambda y: eqx.filter_vmap(lambda fn, value: fn(value))(activation, y)


def _features(u: FeatureNetwork, jet: Jet, algebra: _Algebra) -> Jet:
    weight, bias = u.inner.value
    head = lambda y: _matrix_times(u.head_weight, u.head_bias, y)  # noqa: E731
    jet = algebra.affine(lambda x: _matrix_times(weight, bias, x), jet)
    jet = push(u.activation, jet, algebra)
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
        parts += [push(fn, angles, algebra) for fn in (jnp.cos, jnp.sin)]
    return algebra.affine(jnp.concatenate, tuple(zip(*parts, strict=True)))


def _input_transformed(u: _InputTransformed, jet: Jet, algebra: _Algebra) -> Jet:
    return push(u.model, push(u.fn, jet, algebra), algebra)


def _output_transformed(u: _OutputTransformed, jet: Jet, algebra: _Algebra) -> Jet:
    pairs = tuple(zip(jet, push(u.model, jet, algebra), strict=True))
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
