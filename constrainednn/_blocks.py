"""Evaluate a function of one point at many points, in blocks of fixed size.

One of the two compiled entry points (the other advances a chunk of steps). A fixed block means one
compilation for any number of points, bounded memory, and the same bits for a point whatever its
neighbours are.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

BLOCK = 1024


def flat_value(fn: Callable[[Any], Any], x: PyTree) -> Float[Array, " k"]:
    """The value at one point as a vector, whatever its structure."""
    return ravel_pytree(fn(x))[0]


@eqx.filter_jit
def _block(fn: Callable[[Any], Any], points: PyTree) -> PyTree:
    return jax.vmap(fn)(points)


def in_blocks(fn: Callable[[Any], Any], points: PyTree) -> PyTree[np.ndarray]:
    """Apply `fn` to each point along the first axis.

    Args:
        fn: A function of one point; bind a model with `equinox.Partial` so that its arrays are
            arguments of the compiled function instead of constants in it.
        points: A pytree of arrays with n points along the first axis.

    Returns:
        The stacked results as NumPy arrays.
    """
    n = len(jax.tree.leaves(points)[0])
    results = []
    for start in range(0, n, BLOCK):
        piece = jax.tree.map(lambda leaf: np.asarray(leaf)[start : start + BLOCK], points)  # noqa: B023
        count = len(jax.tree.leaves(piece)[0])
        padded = jax.tree.map(
            lambda leaf: np.concatenate([leaf, np.repeat(leaf[:1], BLOCK - len(leaf), axis=0)]),
            piece,
        )
        result = jax.tree.map(np.asarray, _block(fn, padded))
        results.append(jax.tree.map(lambda leaf: leaf[:count], result))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)
