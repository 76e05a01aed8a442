"""Evaluate a function of one point at many points, in blocks of fixed size.

One of the two compiled entry points (the other advances a chunk of steps). A fixed block means one
compilation for any number of points, bounded memory, and the same bits for a point whatever its
neighbours are.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.compilation.closures import bind_numbers, lift_numbers, with_retrace
from constrainednn._common.compilation.effort import Programs
from constrainednn._common.messages import refuse_traced

BLOCK = 1024


def flat_value(fn: Callable[[Any], Any], x: PyTree) -> Float[Array, " k"]:
    """The value at one point as a vector, whatever its structure."""
    return ravel_pytree(fn(x))[0]


Structure = tuple[Any, tuple]


def take_apart(tree: PyTree) -> tuple[list, Structure]:
    """The arrays of a tree, and the rest of it, which can be hashed.

    `equinox.filter_jit` does the same in each call; this serves many calls at once.
    """
    leaves, structure = jax.tree.flatten(lift_numbers(tree))
    traced = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]
    arrays = [leaf if kept else None for leaf, kept in zip(leaves, traced, strict=True)]
    rest = tuple(None if kept else leaf for leaf, kept in zip(leaves, traced, strict=True))
    return arrays, (structure, rest)


def put_together(arrays: list, statement: Structure) -> PyTree:
    """The tree that was taken apart, or one with other arrays."""
    structure, rest = statement
    leaves = [other if leaf is None else leaf for leaf, other in zip(arrays, rest, strict=True)]
    return bind_numbers(jax.tree.unflatten(structure, leaves))


def _block_values(statement: Structure, arrays: list, points: PyTree) -> PyTree:
    return jax.vmap(put_together(arrays, statement))(points)


_jit = functools.partial(jax.jit, _block_values, static_argnums=0)
_block, _block_once = Programs(_jit), Programs(_jit, once=True)


@with_retrace
def in_blocks(
    fn: Callable[[Any], Any], points: PyTree, *, once: bool = False, size: int = BLOCK
) -> PyTree[np.ndarray]:
    """Apply `fn` to each point along the first axis.

    Args:
        fn: A function of one point; bind a model with `equinox.Partial` so that its arrays are
            arguments of the compiled function instead of constants in it.
        points: A pytree of arrays with n points along the first axis.
        once: This function is called so rarely that no optimisation pays.
        size: Points of a block; fewer where one of them takes much memory.

    Returns:
        The stacked results as NumPy arrays.
    """
    arrays, statement = take_apart(fn)
    leaves, structure = jax.tree.flatten(points)
    leaves = [np.asarray(leaf) for leaf in leaves]
    n = len(leaves[0])
    if n == 0:
        one = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        value = jax.eval_shape(fn, jax.tree.unflatten(structure, one))
        return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype), value)
    found, block = [], _block_once if once else _block
    for start in range(0, n, size):
        piece = [_padded(leaf[start : start + size], size) for leaf in leaves]
        # Not waited for: the next block is cut while this one is computed.
        args = statement, arrays, jax.tree.unflatten(structure, piece)
        found.append(block(args, fn, points))
        # The points are concrete, so a traced result means a tracer in a closure.
        refuse_traced(found[-1], "what a function closes over")
    columns = zip(*map(jax.tree.leaves, found), strict=True)
    results = [np.concatenate([np.asarray(part) for part in column])[:n] for column in columns]
    return jax.tree.unflatten(jax.tree.structure(found[0]), results)


def _padded(leaf: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(leaf)
    return np.concatenate([leaf, np.repeat(leaf[:1], missing, axis=0)]) if missing else leaf
