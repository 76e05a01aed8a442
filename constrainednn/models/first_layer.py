"""Where the units of a network's first layer are: spread over the domain of its inputs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.batched import in_blocks
from constrainednn._common.random_keys import numpy_generator, stream
from constrainednn.domains.base import AbstractDomain, placed
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.samplers.draws import draw, whole
from constrainednn.domains.samplers.random import SOBOL_DIMENSIONS, Independent, Sobol
from constrainednn.errors import BadTypeError, BadValueError, UsageError
from constrainednn.models.recipes import Place, Size

_DRAWN = 1024


def spread(
    over: AbstractDomain, width: int, *, key: Key[Array, ""], trained: bool = False
) -> tuple[Float[Array, "width d"], Float[Array, " width"]]:
    """Draw weight and bias of a first layer whose hyperplanes pass through points of a domain.

    Slopes are per standard deviation of the points. Measured: in one dimension on decay,
    oscillator and Lotka-Volterra equations (frozen); in two on a Poisson problem (frozen, error
    1e-10 with 200 features) and on the unit circle (trained; a third of the steps of a default
    initialisation).
    """
    points = sampled(over, key=stream(key, "spread"))
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


def sampled(over: AbstractDomain, *, key: Key[Array, ""]) -> PyTree[np.ndarray]:
    """Points that fill a domain evenly."""
    even = over.unit_dim <= SOBOL_DIMENSIONS and not over.by_rejection
    sampler = Sobol() if even else Independent()
    return draw(over, _DRAWN, sampler, key=key).points


def mapped(places: Sequence[Place], fn: Callable[[Any], Any]) -> list[Place]:
    """Places moved by a function of one point; those that it does not take are left out."""
    moved: list[Place] = []
    for place in map(_inputs, places):
        point = _point(place)
        try:
            jax.eval_shape(fn, point)
        except Exception:  # noqa: BLE001 the function is for other points than these
            continue
        if isinstance(place, AbstractDomain):
            moved.append(place.map(fn))
        else:
            moved.append(Points(in_blocks(fn, whole(place.points).points)))
    return moved


def around(places: Sequence[Place], size: Size) -> AbstractDomain | None:
    """The smallest box around all places whose points have a size; a single domain is itself.

    A domain that runs to infinity counts with the standard deviation of its points. None where no
    place has such points, or they do not vary.
    """
    shape = () if size == "scalar" else (size,)
    fitting: list[AbstractDomain | Points] = []
    # Rows that are held out must not be seen, and which these are is not known here.
    seen = [place for place in places if not (isinstance(place, Data) and place.judging_rows)]
    for place in map(_inputs, seen):
        fits = getattr(_point(place), "shape", None) == shape
        if fits and not any(eqx.tree_equal(place, other) for other in fitting):
            fitting.append(place)
    if not fitting:
        return None
    try:
        ends = [_ends(place) for place in fitting]
    except UsageError:  # that a constraint cannot be drawn is said where it is drawn
        return None
    if len(fitting) == 1 and isinstance(fitting[0], AbstractDomain):
        return fitting[0]
    low = np.min([low for low, _ in ends], axis=0)
    high = np.max([high for _, high in ends], axis=0)
    if not np.all(low < high):
        return None
    if size == "scalar":
        return Interval(float(low[0]), float(high[0]))
    return Box(low, high)


def _inputs(place: Place) -> AbstractDomain | Points:
    """Where the model is asked: of pairs (x, y) the x."""
    if isinstance(place, AbstractDomain):
        return place.map(_first) if isinstance(placed(place), tuple) else place
    points = place.rows if isinstance(place, Data) else place.points
    return Points(_first(points) if isinstance(points, tuple) else points)


def _first(pair: tuple) -> Any:
    return pair[0]


def _point(place: AbstractDomain | Points) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of one point."""
    if isinstance(place, AbstractDomain):
        return placed(place)
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], dtype), place.points)


def _ends(
    place: AbstractDomain | Points,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """The corners of a box around a place."""
    if isinstance(place, (Interval, Box)):
        return np.atleast_1d(place.low), np.atleast_1d(place.high)
    if isinstance(place, Points):
        points = whole(place.points).points
    else:
        points = sampled(place, key=stream(jax.random.key(0), "spread"))
    points = points.reshape(len(points), -1)
    if isinstance(place, AbstractDomain) and place.unbounded:
        # Of a uniform distribution with the same deviation.
        middle, half = points.mean(axis=0), np.sqrt(3) * points.std(axis=0)
        return middle - half, middle + half
    return points.min(axis=0), points.max(axis=0)
