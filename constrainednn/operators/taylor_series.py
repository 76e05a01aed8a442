"""Taylor series of activation functions."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from constrainednn.operators.points import Function

Series = list[Array]


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


def series_of(fn: Any) -> Callable[[Series], Series] | None:
    """The rule for a function that is known, else None."""
    for known, series in _SERIES:
        if any(fn is item for item in known):
            return series
    return None
