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
    end: Callable[[PyTree], PyTree],
    *,
    size: int,
    done: Callable[..., Array] = lambda *arguments: jnp.asarray(False),
) -> Callable[..., PyTree]:
    """A function that iterates, and evaluates a batch with few points under way at a time.

    Args:
        start: From pytrees, of which arrays may have an axis of points, to the first state.
        step: From a state and the same pytrees to the next state, and whether there are more.
        end: From a state to the result. None of the three is differentiated.
        size: Points under way.
        done: From the same pytrees to whether the first state is the last one.
    """
    size = max(_LEAST, size)

    def grouped(*arguments: Any) -> PyTree:
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        whole = lambda leaves: eqx.combine(jax.tree.unflatten(structure, leaves), rest)  # noqa: E731
        # As programs of their own both are traced once, and not again for a batch.
        first = jax.jit(lambda *leaves: (start(*whole(leaves)), ~done(*whole(leaves))))
        advanced = jax.jit(lambda state, *leaves: step(state, *whole(leaves)))

        def plain(*leaves: ArrayLike) -> PyTree:
            body = lambda carry: advanced(carry[0], *leaves)  # noqa: E731
            return end(jax.lax.while_loop(lambda carry: carry[1], body, first(*leaves))[0])

        @jax.custom_batching.custom_vmap
        def one(*leaves: ArrayLike) -> PyTree:
            return plain(*leaves)

        @one.def_vmap
        def _many(n: int, batched: list[bool], *leaves: ArrayLike) -> tuple[PyTree, PyTree]:
            axes = tuple(0 if along else None for along in batched)
            if n <= size:
                found = jax.vmap(plain, axes)(*leaves)
            else:
                rows_of = lambda rows: [  # noqa: E731
                    jnp.asarray(leaf)[rows] if along else leaf
                    for along, leaf in zip(batched, leaves, strict=True)
                ]
                starts, steps = jax.vmap(first, axes), jax.vmap(advanced, (0, *axes))
                found = _streamed(n, size, rows_of, (starts, steps, jax.vmap(end)))
            return found, jax.tree.map(lambda leaf: True, found)

        return one(*leaves)

    return grouped


def _streamed(n: int, size: int, rows_of: Callable, parts: tuple) -> PyTree:
    """The results at n points, of which `size` are under way.

    Args:
        n: Points in all.
        size: Points under way.
        rows_of: What belongs to the points of some numbers.
        parts: The first states, with whether to go on, the next ones, and the results.
    """
    starts, steps, ends = parts
    states, going = starts(*rows_of(jnp.arange(n)))
    # Those that have ended before the first step take no place.
    order, last = jnp.argsort(~going), jnp.sum(going)
    point = lambda place: order[jnp.minimum(place, n - 1)]  # noqa: E731

    def body(carry: tuple) -> tuple:
        place, following, state, found = carry
        state, going = steps(state, *rows_of(point(place)))
        # Results are overwritten until the last; places from `last` on are of no point.
        number = jnp.where(place < last, point(place), n)
        write = lambda all, some: all.at[number].set(some, mode="drop")  # noqa: E731
        found = jax.tree.map(write, found, ends(state))
        free = (place < last) & ~going
        place = jnp.where(free, following + jnp.cumsum(free) - 1, place)
        new, _ = starts(*rows_of(point(place)))
        state = jax.tree.map(lambda a, b: _where(free, a, b), new, state)
        return place, following + jnp.sum(free), state, found

    place = jnp.arange(size)
    carry = place, jnp.asarray(size), starts(*rows_of(point(place)))[0], ends(states)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0] < last), body, carry)[-1]


def _where(which: Array, a: Array, b: Array) -> Array:
    """Entries of points that are marked from a, others from b."""
    return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
