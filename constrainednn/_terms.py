"""How large the terms of a residual are, beside which its own size can be read."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._blocks import flat_value, in_blocks
from constrainednn._errors import BadTypeError
from constrainednn._image import OTHER_USE, model_inputs
from constrainednn._keys import numpy_generator

_POINTS = 256


def term_size(residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree) -> float:
    r"""RMS over points and entries of the terms that a residual is the sum of.

    About a point x0 the model u is replaced by (1 + e s_0) u(x0 + (1 + e s) (x - x0)), which
    changes its value there by the factor 1 + e s_0, and each derivative by one more for each time
    that it is along coordinate k, 1 + e s_k. What the residual changes by, over e, is the sum over
    the terms with these signs; with random signs its mean square is the sum of their squares. A
    residual that is far below has terms that cancel. One that is not is no solution, however
    small it is.

    Args:
        residual: The residual at one point.
        model: The model; NaN is returned if no part of it is called with a point of reals.
        points: Where to look; the first 256 of them.
    """
    some = jax.tree.map(lambda leaf: leaf[:_POINTS], points)
    x = model_inputs(some)
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "f"):
        return math.nan
    generator = numpy_generator(jax.random.key(0))
    signs = [generator.choice([-1.0, 1.0], shape).astype(x.dtype) for shape in (len(x), x.shape)]
    step = float(jnp.finfo(x.dtype).eps) ** (1 / 3)
    change = eqx.Partial(_change, residual, model, step)
    try:
        with np.errstate(all="ignore"):
            found = in_blocks(change, (some, *signs))
    except OTHER_USE:
        return math.nan
    found = found[np.isfinite(found).all(axis=1)]
    return float(np.sqrt(np.mean(found**2))) if len(found) else math.nan


def _change(
    residual: Callable, model: PyTree, step: float, at: tuple[PyTree, Array, Array]
) -> Array:
    point, sign, signs = at
    here = model_inputs(point)

    def stretched(u: Any) -> Any:
        if not callable(u):
            return u

        def around(x: Array) -> PyTree[Array]:
            if jnp.shape(x) != here.shape:
                raise BadTypeError("called at a place that is not the point")
            value = u(here + (1 + step * signs) * (x - here))
            return jax.tree.map(lambda leaf: (1 + step * sign) * leaf, value)

        return around

    moved = jax.tree.map(stretched, model, is_leaf=callable)
    changed, plain = (flat_value(eqx.Partial(residual, u), point) for u in (moved, model))
    return (changed - plain) / step
