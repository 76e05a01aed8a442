"""The nearest point where equations hold: damped Gauss-Newton steps, and Newton's along the set.

y0      (n,)    what is projected
c, C            the equations at y, and their Jacobian there
w       (m,)    multipliers: y0 - y = C^T w at the nearest point
normal  (n,)    Gauss-Newton step towards c = 0
tangent (n,)    Newton step of the distance along the set
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from constrainednn.models.projection.rows import RowSpace, jacobian, row_space, tangent_solve

# Parts of a step that are tried; the best one is taken.
_PARTS = (1.0, 0.5, 0.125, 1 / 64)
# Steps of the inner iteration at most, and starts from elsewhere.
_INNER, _RESTARTS = 8, 8


def nearest_affine(
    fn: Callable[[Float[Array, " n"]], Float[Array, " m"]], y0: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The nearest point where affine equations hold, which may depend on each other.

    Their Jacobian is the same everywhere, so one factorisation is exact.
    """
    c, C = jacobian(fn, y0)
    rows = row_space(C)
    y = y0 - rows.step(c)
    for _ in range(2):  # the shift of the factor costs digits where rows are nearly dependent
        y = y - rows.step(fn(y))
    return y


class State(NamedTuple):
    """How far the iteration is. It seeks where it takes steps towards the equations alone.

    As few as may be, since what becomes of each is a piece of the program.

    Attributes:
        y: The point.
        best, fewest: The last point, or the best one since it seeks, and the norm there.
        restarts: How often it started from elsewhere.
        k: Steps: from `iterations` on it seeks, from twice as many on it has ended.
    """

    y: Array
    best: Array
    fewest: Array
    restarts: Any
    k: Any


def started(y0: Float[Array, " n"]) -> State:
    """The state before the first step from a point."""
    return State(y0, y0, jnp.full((), jnp.inf, y0.dtype), jnp.asarray(0), jnp.asarray(0))


def advanced(
    fn: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    y0: Float[Array, " n"],
    old: State,
    iterations: int,
) -> tuple[State, Bool[Array, ""]]:
    """A step to the nearest point where fn is zero; from where steps end off the set, to any of it.

    Of a set with several nearest points, or none, it finds one that is stationary, or the point
    where no step helps.

    Args:
        fn: The equations; they may depend on each other.
        y0: The point that is moved.
        old: The state.
        iterations: Steps at most, and as many again where those end off the set.

    Returns:
        The state after the step, and whether there are more.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), sections 10.3 and 18.3, with a
        second-order correction (18.3) for each part of a step that is tried.
    """
    eps, scale = jnp.finfo(y0.dtype).eps, 1 + jnp.linalg.norm(y0)
    others = jnp.asarray(_directions(y0.size), y0.dtype)
    y, seeking = old.y, old.k >= iterations
    c, C = jacobian(fn, y)
    rows = row_space(C)
    normal, along, weight = _step(fn, rows, c, y, y0)
    step = jnp.where(seeking, normal, normal + along)
    near = jnp.where(seeking, 0.0, 1.0)
    weight = jnp.where(seeking, 1.0, weight)
    after, size, better = _best_part(fn, rows, c, (y, y0), step, (near, weight))
    moving = better & (jnp.linalg.norm(step) > jnp.sqrt(eps) * scale)
    # In units of y, since the equations may have any: |c| may be large by rounding alone.
    short = jnp.linalg.norm(normal) <= jnp.sqrt(eps) * scale
    there = short & (jnp.linalg.norm(c + C @ normal) < 0.5 * jnp.linalg.norm(c))

    # Where no step lowers the norm, as between two parts of a set, from elsewhere again.
    stuck = seeking & (size > 0.99 * jnp.linalg.norm(c))
    closer = ~seeking | (size < old.fewest)
    fewest = jnp.where(closer, size, old.fewest)
    again = stuck & ~there & (fewest > jnp.sqrt(eps) * scale) & (old.restarts < _RESTARTS)
    elsewhere = y0 + scale * others[jnp.minimum(old.restarts, _RESTARTS - 1)]

    more = ((old.k + 1) % iterations > 0) & jnp.where(seeking, ~stuck | again, moving)
    # The last one of too few steps may have led off the set.
    off = ~seeking & (~there | moving) & (size > 100 * eps * scale)
    new = State(
        jnp.where(again, elsewhere, after),
        jnp.where(closer, after, old.best),
        fewest,
        old.restarts + again,
        jnp.where(more, old.k + 1, jnp.where(off, iterations, 2 * iterations)),
    )
    return new, new.k < 2 * iterations


def _directions(n: int) -> np.ndarray:
    """Where to start again: steps of one half in directions that are the same in every run."""
    drawn = np.random.default_rng(0).normal(size=(_RESTARTS, n))
    return 0.5 * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _step(
    fn: Callable, rows: RowSpace, c: Array, y: Array, y0: Array
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, ""]]:
    """The full step, to the set and along it, and a weight of |c|.

    With that weight the step lowers distance and violation together.
    """
    w = rows.multipliers(y0 - y)
    curvature = jax.linearize(jax.grad(lambda y: w @ fn(y)), y)[1]
    apply = lambda v: v + curvature(v)  # noqa: E731
    normal = -rows.step(c)
    b = rows.tangent(y0 - y - apply(normal))
    along = tangent_solve(rows, apply, b, min(y.size, _INNER))
    return normal, along, 1e-3 + 2 * jnp.linalg.norm(rows.multipliers(y0 - y - normal))


def _best_part(
    fn: Callable, rows: RowSpace, c: Array, points: tuple[Any, Any], step: Array, weights: Any
) -> tuple[Float[Array, " n"], Float[Array, ""], Any]:
    """The end of the best part of a step, the norm there, and whether it is a better point.

    Where it is none, the point at which the step starts. The weights are those of distance and
    violation.
    """
    y, y0 = points
    near, weight = weights

    def merit(y: Array, size: Array) -> Array:
        value = near * 0.5 * jnp.sum((y - y0) ** 2) + weight * size
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    # Near the end merits differ by rounding: the longest of parts as good as the best is taken.
    slack = near * 100 * jnp.finfo(y.dtype).eps * (1 + jnp.sum((y - y0) ** 2))
    parts = jnp.asarray(_PARTS, y.dtype)

    def shorter(i: Any, best: tuple) -> tuple:
        first = y + parts[i] * step
        c = fn(first)
        second = first - rows.step(c)  # with the same factor: right near the set, wild far away
        size, other = jnp.linalg.norm(c), jnp.linalg.norm(fn(second))
        value, corrected = merit(first, size), merit(second, other)
        takes = lambda a, b: jnp.where(corrected < value, a, b)  # noqa: E731
        after, size, value = takes(second, first), takes(other, size), takes(corrected, value)
        better = value < best[2]
        new = jnp.where(better, after, best[0]), jnp.where(better, size, best[1])
        return *new, jnp.where(better, value - slack, best[2])

    size = jnp.linalg.norm(c)
    start = merit(y, size) + slack
    after, size, value = jax.lax.fori_loop(0, len(_PARTS), shorter, (y, size, start))
    return after, size, value < start
