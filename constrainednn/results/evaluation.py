"""Calling a solution: what one point of it is, and values at one point or many."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_reals
from constrainednn._common.batched import in_blocks
from constrainednn._gap.streams import Streams
from constrainednn._problem.problem import Problem
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.targets.image import model_inputs

Shapes = PyTree[jax.ShapeDtypeStruct]


class _FirstCall(BaseException):
    """A model was called with one point of these shapes. No `except Exception` catches it."""

    def __init__(self, point: Shapes):
        self.point = point


class _StopsAtFirstCall(eqx.Module):
    """A model that raises what it is called with."""

    model: PyTree

    def __call__(self, *points: PyTree) -> PyTree:
        if len(points) != 1:
            raise BadTypeError("called with several points")
        raise _FirstCall(
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), float), points[0])
        )

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.model, name)


def point_of(problem: Problem, model: PyTree, streams: tuple[Streams, ...]) -> Shapes:
    """Shapes of one point of a model: those that the residuals call it with.

    The points of a constraint need not be those of the model: a residual may take pairs of them,
    or put a place on an edge into the plane. Where no residual calls the model, as one with parts
    that are called instead, the points of the first constraint are all that is known.
    """
    for item, stream in zip(problem.statements, streams, strict=True):
        one = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stream.train.points
        )
        try:
            eqx.filter_eval_shape(item.residual, _StopsAtFirstCall(model), one)
        except _FirstCall as call:
            return call.point
        except Exception:  # noqa: BLE001  (the user's residual, used as it was not meant to be)
            continue
    inputs = model_inputs(streams[0].train.points)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], float), inputs)


def evaluated(
    fn: Callable[[Any], PyTree], x: Any, point: Shapes, check: Callable[[np.ndarray], None]
) -> PyTree[Array]:
    """Apply a function of one point to one, or to an array of them.

    Args:
        fn: A function of one point; see `in_blocks`.
        x: The points, stacked along any number of leading axes; lists count as arrays.
        point: Shapes of one.
        check: Called with each array of numbers, to refuse what it should.

    Returns:
        The value at one point, or the values stacked along the same leading axes.

    Raises:
        TypeError: If `x` holds no numbers.
        ValueError: If its shapes are not those of points.
    """
    shapes, structure = jax.tree.flatten(point)
    given = [x] if structure == jax.tree.structure(0) else structure.flatten_up_to(x)
    leaves = [_array(leaf) for leaf in given]
    leading = _leading(leaves, [shape.shape for shape in shapes])
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    if not traced:
        for leaf in leaves:
            check(leaf)
    count = math.prod(leading)
    flat = [leaf.reshape(count, *shape.shape) for leaf, shape in zip(leaves, shapes, strict=True)]
    rows = jax.tree.unflatten(structure, flat)
    values = jax.vmap(fn)(rows) if traced else in_blocks(fn, rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(*leading, *leaf.shape[1:]), values)


def _array(value: Any) -> Any:
    """An array in floating point; in NumPy unless it is traced."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        array = jnp.asarray(value)
    else:
        array = as_reals(value, "a point")
    return array.astype(jnp.result_type(array.dtype, float))


def _leading(leaves: list[Any], shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The axes that stack points, alike for all arrays of a point."""
    found = set()
    for leaf, shape in zip(leaves, shapes, strict=True):
        axes = leaf.ndim - len(shape)
        found.add(leaf.shape[:axes] if axes >= 0 and leaf.shape[axes:] == shape else None)
    if len(found) > 1 or None in found:
        wanted = ", ".join(map(str, shapes))
        got = ", ".join(str(leaf.shape) for leaf in leaves)
        raise BadValueError(
            f"a point of this solution has shape {wanted}, and many are stacked along leading "
            f"axes; got shape {got}."
        )
    return found.pop()
