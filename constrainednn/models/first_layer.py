"""The first layer of a network: its features spread over the domain."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.random_keys import numpy_generator, stream
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import SOBOL_DIMENSIONS, Independent, Sobol
from constrainednn.errors import BadTypeError, BadValueError


def spread(
    over: AbstractDomain, width: int, *, key: Key[Array, ""], trained: bool = False
) -> tuple[Float[Array, "width d"], Float[Array, " width"]]:
    """Draw weight and bias of a first layer whose hyperplanes pass through points of a domain.

    Slopes are per standard deviation of the points. Measured: in one dimension on decay,
    oscillator and Lotka-Volterra equations (frozen); in two on a Poisson problem (frozen, error
    1e-10 with 200 features) and on the unit circle (trained; a third of the steps of a default
    initialisation).
    """
    sampler = Sobol() if over.unit_dim <= SOBOL_DIMENSIONS else Independent()
    points = draw(over, 1024, sampler, key=stream(key, "spread")).points
    if not isinstance(points, np.ndarray) or points.ndim > 2:
        raise BadTypeError(
            f"A model needs input points of shape () or (d,), but {over!r} has others."
        )
    points = points.reshape(len(points), -1)
    dim = points.shape[1]
    middle, deviation = points.mean(axis=0), points.std(axis=0)
    if not (deviation > 0).all():
        raise BadValueError(f"{over!r} does not vary in coordinate {int(np.argmin(deviation))}.")
    generator = numpy_generator(stream(key, "slopes"))
    size = generator.random((width, 1))
    turns = generator.normal(size=(width, dim))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    if dim == 1:
        # Random centres would leave holes; a little outside, too, so that the ends are resolved.
        low, high = points.min(), points.max()
        centres = np.linspace(low, high, width) * 1.1 - 0.1 * middle
        centres = centres[:, None]
        size = size * width * 0.144
    else:
        centres = np.resize(points, (width, dim))
        size = size * 0.06 * width ** (1 / dim)
    if trained:
        size = 2.5
    weight = size * turns / deviation
    bias = -np.sum(weight * centres, axis=1)
    return jnp.asarray(weight, points.dtype), jnp.asarray(bias, points.dtype)


def initialised(shape: PyTree, *, key: Key[Array, ""]) -> PyTree:
    """Fill a stack of linear layers, uniform in +-1 / sqrt(inputs) as Equinox does."""
    generator = numpy_generator(stream(key, "layers"))

    def fill(node):
        if not isinstance(node, eqx.nn.Linear):
            return node
        bound = 1 / math.sqrt(node.weight.shape[1])
        dtype = node.weight.dtype
        weight = jnp.asarray(generator.uniform(-bound, bound, node.weight.shape), dtype)
        node = eqx.tree_at(lambda layer: layer.weight, node, weight)
        if node.bias is None:
            return node
        bias = jnp.asarray(generator.uniform(-bound, bound, node.bias.shape), dtype)
        return eqx.tree_at(lambda layer: layer.bias, node, bias)

    return jax.tree.map(fill, shape, is_leaf=lambda node: isinstance(node, eqx.nn.Linear))
