"""Functions written with jax.numpy as NumPy runs them, which serves a classical solver best."""

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from constrainednn.errors import BadTypeError

# What NumPy may say to a function that needs more of jax.
_REFUSALS = (AttributeError, IndexError, TypeError, ValueError)


def numpy_twin(fn: Callable) -> Callable | None:
    """The same function with `numpy` wherever it names `jax.numpy`; None if it is not a function.

    Whether its values are the same is for the caller to see: `agrees`.
    """
    if not isinstance(fn, types.FunctionType):
        return None
    swap = lambda value: np if value is jnp else value  # noqa: E731
    named = {name: swap(value) for name, value in fn.__globals__.items()}
    cells = tuple(types.CellType(swap(cell.cell_contents)) for cell in fn.__closure__ or ())
    twin = types.FunctionType(fn.__code__, named, fn.__name__, fn.__defaults__, cells or None)
    twin.__kwdefaults__ = fn.__kwdefaults__
    return twin


def on_numpy(tree: Any) -> Any:
    """Arguments with NumPy arrays for those of jax, and plain numbers for single ones."""
    plain = lambda leaf: leaf.item() if leaf.ndim == 0 else leaf  # noqa: E731
    return jax.tree.map(
        lambda leaf: plain(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf, tree
    )


def unraveled(example: Any) -> Callable[[np.ndarray], Any]:
    """From a flat vector to the structure of `example`, in NumPy."""
    leaves, structure = jax.tree.flatten(example)
    shapes = [np.shape(leaf) for leaf in leaves]
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    if leaves[0] is example and len(shapes[0]) < 2:
        return (lambda y: y) if shapes[0] else (lambda y: y[0])

    def unravel(y: np.ndarray) -> Any:
        parts = zip(np.split(y, cuts), shapes, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in parts])

    return unravel


def raveled(value: Any) -> np.ndarray:
    """A value as one vector, in the order of `ravel_pytree`.

    Raises:
        TypeError: If part of it is not of NumPy.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return np.ravel(value)
    leaves = jax.tree.leaves(value)
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        raise BadTypeError("a value of jax")
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def agrees(twin: Callable, fn: Callable, points: list[tuple]) -> bool:
    """Whether a function runs in NumPy and has the values of `fn` at points."""
    for point in points:
        known = np.asarray(fn(*point))
        try:
            with np.errstate(all="ignore"):
                found = np.asarray(twin(*point))
        except _REFUSALS:
            return False
        if found.shape != known.shape or not np.allclose(
            found, known, rtol=1e-9, atol=1e-12 * np.abs(known).max(initial=0), equal_nan=True
        ):
            return False
    return True
