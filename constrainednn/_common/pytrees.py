"""Trees of arrays as named arrays, for files, and back."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn.errors import StoreError


def tree_to_arrays(tree: PyTree, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths, such as `.layers[0].weight`; random keys as words."""
    paths, _ = jax.tree.flatten_with_path(tree)
    return {
        prefix + jax.tree_util.keystr(path): np.asarray(_words(leaf))
        for path, leaf in paths
        if eqx.is_array(leaf)
    }


def arrays_to_tree(
    blank: PyTree,
    arrays: dict[str, np.ndarray],
    where: str,
    prefix: str = "",
    *,
    older: bool = False,
) -> PyTree:
    """Put arrays into a tree of the same structure.

    Args:
        blank: The tree to fill; what is no array in it is kept.
        arrays: Arrays by name; those with another prefix are left alone.
        where: The file they come from, for messages.
        prefix: As in `tree_to_arrays`.
        older: Keep what is in `blank` where the file has nothing, as one of an older version may.

    Raises:
        StoreError: Naming the first leaf that differs.
    """
    remaining = {name: array for name, array in arrays.items() if name.startswith(prefix)}

    def fill(path: Any, leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        name = prefix + jax.tree_util.keystr(path)
        if name not in remaining and older:
            return leaf
        if name not in remaining:
            raise StoreError(f"{where}: the problem's model has a leaf {name} that was not saved.")
        array, words = remaining.pop(name), _words(leaf)
        if array.shape != words.shape or array.dtype != words.dtype:
            raise StoreError(
                f"{where}: leaf {name} is {array.dtype}{list(array.shape)} in the file and "
                f"{words.dtype}{list(words.shape)} in the problem's model. "
                "Load it with the problem and settings it was saved with."
            )
        if words is not leaf:
            return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
        if getattr(leaf, "weak_type", False) and not leaf.shape:
            return jnp.asarray(array.item())  # as weak as it was: it must not widen the others
        return jnp.asarray(array)

    filled = jax.tree_util.tree_map_with_path(fill, blank)
    if remaining:
        raise StoreError(
            f"{where}: the file has a leaf {next(iter(remaining))} that the problem's model lacks."
        )
    return filled


def _words(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
