"""A batch of large iterations in small groups, one after the other.

What an iteration of a group holds stays in the processor's cache, and a point that takes many steps
lets its group wait for it, not the whole batch.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

# Points of a group at least: with fewer the loops themselves cost more than what they do.
_LEAST = 16


def in_groups(fn: Callable[..., Array], *, size: int) -> Callable[..., Array]:
    """The same function, evaluated for a batch in groups.

    Args:
        fn: From pytrees, of which arrays may have an axis of points, to an array. It is not
            differentiated.
        size: Points of a group.
    """
    size = max(_LEAST, size)

    def grouped(*arguments: Any) -> Array:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)

        def plain(*leaves: Array) -> Array:
            return fn(*eqx.combine(jax.tree.unflatten(structure, leaves), rest))

        @jax.custom_batching.custom_vmap
        def one(*leaves: Array) -> Array:
            return plain(*leaves)

        @one.def_vmap
        def _many(n: int, batched: list[bool], *leaves: Array) -> tuple[Array, bool]:
            axes = tuple(0 if along else None for along in batched)
            if n <= size:
                return jax.vmap(plain, axes)(*leaves), True

            def of_group(group: list[Array]) -> Array:
                parts = iter(group)
                filled = [next(parts) if along else leaf for along, leaf in whole]
                return jax.vmap(plain, axes)(*filled)

            whole = list(zip(batched, leaves, strict=True))
            groups = [_cut(leaf, n, size) for along, leaf in whole if along]
            found = jax.lax.map(of_group, groups)
            return found.reshape(-1, *found.shape[2:])[:n], True

        return one(*leaves)

    return grouped


def _cut(leaf: Array, n: int, size: int) -> Array:
    """The points in groups; the last one is filled up with the first point."""
    missing = -n % size
    filled = jnp.concatenate([leaf, jnp.broadcast_to(leaf[:1], (missing, *leaf.shape[1:]))])
    return filled.reshape(-1, size, *leaf.shape[1:])
