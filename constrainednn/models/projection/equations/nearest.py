"""Which steps lead to the nearest point where equations hold, and how many points go together."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from constrainednn.models.projection.affine import slopes_are_shared
from constrainednn.models.projection.equalities import advanced, started
from constrainednn.models.projection.equations.groups import in_groups
from constrainednn.models.projection.equations.krylov import (
    STEPS,
    Guess,
    corrected,
    guessed,
    improved,
    preconditioner,
)

# Entries of Jacobians that stay in a processor's cache together.
_CACHED = 2**17
# Points under way where only products with Jacobians are formed; so large Jacobians are not.
_MANY = 64
# Steps by products with Jacobians for one with a factor of it, and how many of them are taken
# before a point that arrived makes room.
_CHEAPER, _TOGETHER = 4, 2


def nearest_of_equations(g: Callable, x: PyTree, y0: Float[Array, " n"], iterations: int) -> Array:
    """Move y0 to the nearest point where equations hold that are not affine, the fastest way.

    Args:
        g: The equations, of a point and a value.
        x: The point.
        y0: What is moved.
        iterations: Steps at most, of those that need a factor.
    """
    m = jax.eval_shape(g, x, y0).size
    size, first, arrived = _CACHED // (y0.size * m), y0, jnp.asarray(False)
    if size < _MANY and slopes_are_shared(g, x, y0):
        M, steps = preconditioner(lambda y: g(x, y), y0), min(STEPS, _CHEAPER * iterations)

        def few_steps(state: Guess, g: Callable, x: Any, y0: Array, M: Array) -> tuple:
            some = lambda _, state: improved(lambda y: g(x, y), y0, M, state)  # noqa: E731
            state = jax.lax.fori_loop(0, _TOGETHER, some, state)
            return state, ~state.arrived & (state.k < steps)

        guess = in_groups(
            lambda g, x, y0, M: guessed(y0, m),
            few_steps,
            lambda state: (state.y, state.arrived),
            size=_MANY,
        )
        close, arrived = guess(g, x, y0, M)
        first, there = corrected(lambda y: g(x, y), y0, M, close)
        arrived = arrived & there
    find = in_groups(
        lambda g, x, y0, first, arrived: started(first),
        lambda state, g, x, y0, *rest: advanced(lambda y: g(x, y), y0, state, iterations),
        lambda state: state.best,
        size=size,
        done=lambda g, x, y0, first, arrived: arrived,
    )
    return find(g, x, y0, first, arrived)
