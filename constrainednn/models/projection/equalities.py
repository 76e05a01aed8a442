"""The nearest point where equations hold: damped Gauss-Newton steps, and Newton's along the set.

y0      (n,)    what is projected
c, C            the equations at y, and their Jacobian there
w       (m,)    multipliers: y0 - y = C^T w at the nearest point
normal  (n,)    Gauss-Newton step towards c = 0
tangent (n,)    Newton step of the distance along the set
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn.models.projection.rows import RowSpace, jacobian, row_space, tangent_solve

# Parts of a step that are tried; the best one is taken.
_PARTS = (1.0, 0.5, 0.125, 1 / 64)
# Steps of the inner iteration at most, and starts from elsewhere.
_INNER, _RESTARTS = 8, 8


def nearest(
    fn: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    y0: Float[Array, " n"],
    *,
    iterations: int,
    affine: bool,
) -> Float[Array, " n"]:
    """Move a point to the nearest one where fn is zero.

    Of a set with several nearest points, or none, it finds one that is stationary, or the point
    where no step helps.

    Args:
        fn: The equations; they may depend on each other.
        y0: The point.
        iterations: Jacobians at most.
        affine: True if the Jacobian is the same everywhere: one factorisation is exact then.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), sections 10.3 and 18.3, with a
        second-order correction (18.3) for each part of a step that is tried.
    """
    if affine:
        c, C = jacobian(fn, y0)
        rows = row_space(C)
        y = y0 - rows.step(c)
        for _ in range(2):  # the shift of the factor costs digits where rows are nearly dependent
            y = y - rows.step(fn(y))
        return y
    eps, size = jnp.finfo(y0.dtype).eps, 1 + jnp.linalg.norm(y0)

    def body(state: tuple) -> tuple:
        k, y, _ = state
        c, C = jacobian(fn, y)
        rows = row_space(C)
        step, weight = _step(fn, rows, c, y, y0)
        after, better = _best_part(fn, rows, c, (y, y0), step, weight)
        after = jnp.where(better, after, y)
        going = better & (jnp.linalg.norm(step) > jnp.sqrt(eps) * size)
        return k + 1, after, going

    start = 0, y0, jnp.asarray(True)
    _, y, _ = jax.lax.while_loop(lambda s: s[-1] & (s[0] < iterations), body, start)
    return _restored(fn, y, y0, iterations)


def _restored(fn: Callable, y: Array, y0: Array, iterations: int) -> Float[Array, " n"]:
    """Gauss-Newton steps towards the equations alone, for a point that is not on the set yet.

    Where no step lowers the violation, as between two parts of a set, they start from elsewhere.
    """
    eps, size = jnp.finfo(y0.dtype).eps, 1 + jnp.linalg.norm(y0)
    others = jnp.asarray(_directions(y0.size), y0.dtype) * size
    parts = jnp.asarray(_PARTS, y0.dtype)

    def body(state: tuple) -> tuple:
        k, restarts, y, least, (best, fewest) = state
        c, C = jacobian(fn, y)
        step = row_space(C).step(c)
        ends = jax.vmap(lambda part: y - part * step)(parts)
        sizes = jax.vmap(lambda y: jnp.linalg.norm(fn(y)))(ends)
        sizes = jnp.where(jnp.isfinite(sizes), sizes, jnp.inf)
        at = jnp.argmin(sizes)
        found, end = sizes[at], ends[at]
        stuck = found > 0.99 * least
        best = jnp.where(found < fewest, end, best)
        fewest = jnp.minimum(found, fewest)
        again = stuck & (fewest > jnp.sqrt(eps) * size) & (restarts < _RESTARTS)
        elsewhere = y0 + others[jnp.minimum(restarts, _RESTARTS - 1)]
        k = jnp.where(stuck & ~again, iterations, k + 1)
        y, least = jnp.where(again, elsewhere, end), jnp.where(again, jnp.inf, found)
        return k, restarts + again, y, least, (best, fewest)

    size0 = jnp.linalg.norm(fn(y))
    k = jnp.where(size0 > 100 * eps * size, 0, iterations)
    start = k, 0, y, size0, (y, size0)
    return jax.lax.while_loop(lambda s: s[0] < iterations, body, start)[-1][0]


def _directions(n: int) -> np.ndarray:
    """Where to start again: steps of one half in directions that are the same in every run."""
    drawn = np.random.default_rng(0).normal(size=(_RESTARTS, n))
    return 0.5 * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _step(
    fn: Callable, rows: RowSpace, c: Array, y: Array, y0: Array
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """The full step, and a weight of |c| for which it lowers distance and violation together."""
    w = rows.multipliers(y0 - y)
    slope = jax.grad(lambda y: w @ fn(y))
    apply = lambda v: v + jax.jvp(slope, (y,), (v,))[1]  # noqa: E731
    normal = -rows.step(c)
    b = rows.tangent(y0 - y - apply(normal))
    step = normal + tangent_solve(rows, apply, b, min(y.size, _INNER))
    return step, 1e-3 + 2 * jnp.linalg.norm(rows.multipliers(y0 - y - normal))


def _best_part(
    fn: Callable, rows: RowSpace, c: Array, points: tuple[Any, Any], step: Array, weight: Array
) -> tuple[Float[Array, " n"], Any]:
    """The end of the best part of a step, and whether it is better than where it starts."""
    y, y0 = points

    def merit(y: Array, c: Array) -> Array:
        value = 0.5 * jnp.sum((y - y0) ** 2) + weight * jnp.linalg.norm(c)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def end(part: Array) -> tuple[Array, Array]:
        first = y + part * step
        c = fn(first)
        second = first - rows.step(c)  # with the same factor: right near the set, wild far away
        values = jnp.stack([merit(first, c), merit(second, fn(second))])
        best = jnp.argmin(values)
        return jnp.where(best, second, first), values[best]

    ends, values = jax.vmap(end)(jnp.asarray(_PARTS, y.dtype))
    # Near the end merits differ by rounding: the longest of parts as good as the best is taken.
    slack = 100 * jnp.finfo(y.dtype).eps * (1 + jnp.sum((y - y0) ** 2))
    best = jnp.argmax(values <= jnp.min(values) + slack)
    return ends[best], values[best] <= merit(y, c) + slack
