"""What the operators take: a function of one point, and the point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_arrays
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError

Function = Callable[[Any], Any]

# A pass of forward mode for each: their unit vectors are a square matrix of as many columns.
_MOST_COORDINATES = 10_000


def check_callable(u: Any, what: str) -> None:
    """Raise where a value was given instead of a function."""
    if not callable(u):
        raise BadTypeError(
            f"{what} takes a function or a model, got {type(u).__name__}. "
            f"Pass u itself, not its value: {what}(u), not {what}(u(x))."
        )


def as_point(x: Any, ndim: int, what: str, advice: str) -> Array:
    """One point with so many axes, or raise saying how to write it."""
    if not is_array(x) or np.ndim(x) != ndim:
        expected = "(d,)" if ndim else "()"
        raise BadValueError(
            f"{what} takes one point of shape {expected}, got {shapes(x)}. {advice} "
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


def reals(x: PyTree, what: str) -> PyTree[Array]:
    """As `_numbers`, without complex ones: the matrix of their derivatives has no one meaning."""
    x = _numbers(x, what)
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(x)):
        raise BadTypeError(f"{what} takes a real point. Write real and imaginary part as two.")
    return x


def is_array(tree: PyTree) -> bool:
    """True for a single leaf, False for a tree of several."""
    return jax.tree_util.all_leaves([tree])


def shapes(tree: PyTree) -> str:
    """The shapes of the leaves, for a message."""
    try:
        return shown(jax.tree.map(np.shape, tree))
    except (TypeError, ValueError):  # no pytree of arrays
        return shown(tree)
