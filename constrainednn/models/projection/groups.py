"""A batch of large iterations a few points at a time; one that has ended makes room for the next.

What an iteration of the points under way holds stays in the processor's cache, and a point that
takes many steps makes no other one wait.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

# Points under way at least: with fewer the loop itself costs more than what it does.
_LEAST = 16


def in_groups(
    start: Callable[..., PyTree],
    step: Callable[..., tuple[PyTree, Array]],
    end: Callable[[PyTree], Array],
    *,
    size: int,
) -> Callable[..., Array]:
    """A function that iterates, and evaluates a batch with few points under way at a time.

    Args:
        start: From pytrees, of which arrays may have an axis of points, to the first state.
        step: From a state and the same pytrees to the next state, and whether there are more.
        end: From a state to the result, an array. None of the three is differentiated.
        size: Points under way.
    """
    size = max(_LEAST, size)

    def grouped(*arguments: Any) -> Array:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        whole = lambda leaves: eqx.combine(jax.tree.unflatten(structure, leaves), rest)  # noqa: E731
        # As programs of their own both are traced once, and not again for a batch.
        first = jax.jit(lambda *leaves: start(*whole(leaves)))
        advanced = jax.jit(lambda state, *leaves: step(state, *whole(leaves)))

        def plain(*leaves: ArrayLike) -> Array:
            body = lambda carry: advanced(carry[0], *leaves)  # noqa: E731
            going = jnp.asarray(True)
            return end(jax.lax.while_loop(lambda carry: carry[1], body, (first(*leaves), going))[0])

        @jax.custom_batching.custom_vmap
        def one(*leaves: ArrayLike) -> Array:
            return plain(*leaves)

        @one.def_vmap
        def _many(n: int, batched: list[bool], *leaves: ArrayLike) -> tuple[Array, bool]:
            axes = tuple(0 if along else None for along in batched)
            if n <= size:
                return jax.vmap(plain, axes)(*leaves), True
            rows_of = lambda rows: [  # noqa: E731
                jnp.asarray(leaf)[rows] if along else leaf
                for along, leaf in zip(batched, leaves, strict=True)
            ]
            starts, steps = jax.vmap(first, axes), jax.vmap(advanced, (0, *axes))
            return _streamed(n, size, rows_of, (starts, steps, jax.vmap(end))), True

        return one(*leaves)

    return grouped


def _streamed(n: int, size: int, rows_of: Callable, parts: tuple) -> Array:
    """The results at n points, of which `size` are under way.

    Args:
        n: Points in all.
        size: Points under way.
        rows_of: What belongs to the points of some numbers.
        parts: The first states, the next ones, and the results.
    """
    starts, steps, ends = parts

    def body(carry: tuple) -> tuple:
        number, following, state, found = carry
        state, going = steps(state, *rows_of(jnp.minimum(number, n - 1)))
        # Results are overwritten until the last; numbers from n on are of no point.
        found = found.at[number].set(ends(state), mode="drop")
        free = (number < n) & ~going
        number = jnp.where(free, following + jnp.cumsum(free) - 1, number)
        new = starts(*rows_of(jnp.minimum(number, n - 1)))
        state = jax.tree.map(lambda a, b: _where(free, a, b), new, state)
        return number, following + jnp.sum(free), state, found

    number = jnp.arange(size)
    state = starts(*rows_of(number))
    one = jax.eval_shape(ends, state)
    carry = number, jnp.asarray(size), state, jnp.zeros((n, *one.shape[1:]), one.dtype)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0] < n), body, carry)[-1]


def _where(which: Array, a: Array, b: Array) -> Array:
    """Entries of points that are marked from a, others from b."""
    return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
