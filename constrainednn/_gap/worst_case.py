"""The search for the point where a constraint is violated most."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import BLOCK, in_blocks
from constrainednn._common.compilation.closures import compiled
from constrainednn._common.random_keys import numpy_generator
from constrainednn._gap.report import Worst
from constrainednn._gap.residuals import residuals_at, squares
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.samplers.base import Draw

# The search for the worst point: without gradients in at most so many dimensions, and until so many
# scales in a row find nothing higher.
_FEW, _SCALES = 3, 4
# It ends after so many rounds of 1,024 points, or calls of the gradient in each climb (ten times as
# many in a simplex): a narrow ridge goes on for ever. Counted and not timed, so that a report can
# be computed again.
_ROUNDS, _CALLS = 200, 60


def worst_point(
    constraint: Constraint,
    over: AbstractDomain | Data | Points,
    model: PyTree,
    held: Draw,
    length: Float[np.ndarray, " n"],
) -> Worst:
    """Climb from the worst held-out points; the result is at least the sampled maximum."""
    finite = np.where(np.isfinite(length), length, np.inf)
    order = np.argsort(finite)[::-1]
    sampled = Worst(
        float(length[order[0]]), jax.tree.map(lambda leaf: np.asarray(leaf[order[0]]), held.points)
    )
    if held.cube is None or not isinstance(over, AbstractDomain) or not np.isfinite(length).all():
        return sampled
    eps = float(np.finfo(held.cube.dtype).eps)
    if over.unbounded:
        # The hull of the draw: an unbounded domain has no worst point.
        low, high = held.cube.min(axis=0), held.cube.max(axis=0)
    else:
        low = np.full(held.cube.shape[1], eps)
        high = 1 - low
    few = held.cube.shape[1] <= _FEW
    search = _walk if few else _ascent
    cube, ended = search(constraint.residual, over, model, held.cube, length, (low, high))
    points = in_blocks(over.place, cube)
    r = residuals_at(constraint.residual, model, points)
    found = np.where(_accepted(over, cube), np.sqrt((r**2).sum(axis=1)), -np.inf)
    best = int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))
    if not found[best] > sampled.residual:
        return dataclasses.replace(sampled, ended=ended)
    point = jax.tree.map(lambda leaf: np.asarray(leaf[best]), points)
    return Worst(float(found[best]), point, ended)


Bounds = tuple[Float[np.ndarray, " unit_dim"], Float[np.ndarray, " unit_dim"]]


def _walk(
    residual: Callable,
    over: AbstractDomain,
    model: PyTree,
    cube: Float[np.ndarray, "n unit_dim"],
    length: Float[np.ndarray, " n"],
    bounds: Bounds,
) -> tuple[Float[np.ndarray, "k unit_dim"], bool]:
    """In few dimensions: the best of some trial points around each start, on smaller scales.

    Without gradients, since a residual such as |u| - 1 has a cusp where u = 0, and with all trial
    points in one evaluation. In probits: in the tails of the cube no step fits two points.
    """
    from scipy.special import ndtr, ndtri

    n, dim = cube.shape
    trials = numpy_generator(jax.random.key(0))

    def squares_at(w: Float[np.ndarray, "k unit_dim"]) -> Float[np.ndarray, " k"]:
        tried = np.clip(ndtr(w), *bounds).astype(cube.dtype)
        found = squares(residuals_at(residual, model, in_blocks(over.place, tried)))
        return np.where(np.isfinite(found) & _accepted(over, tried), found, -np.inf)

    # From the worst held-out points, and from where few of them are: edges, corners, tails.
    thin = trials.uniform(ndtri(bounds[0]), ndtri(bounds[1]), (BLOCK, dim))
    thin = thin[_starts(squares_at(thin))]
    best = np.concatenate([ndtri(cube[_starts(length)].astype(float)), thin])
    scale = np.minimum(2 * n ** (-1 / dim) * math.sqrt(2 * math.pi) * np.exp(best**2 / 2), 1.0)
    height, each = np.full(len(best), -np.inf), np.arange(len(best))
    count = BLOCK // len(best)
    # A scale goes down where the best trial point lies well inside of it, to twice the distance
    # between trial points.
    finer = min(2 * count ** (-1 / dim), 0.5)
    same, top = 0, -np.inf
    for _ in range(_ROUNDS):
        moves = trials.uniform(-1, 1, (len(best), count, dim))
        moves[:, 0] = 0
        around = best[:, None] + scale[:, None] * moves
        found = squares_at(around.reshape(-1, dim)).reshape(moves.shape[:2])
        at = np.argmax(found, axis=1)
        higher = found[each, at] > height
        inside = np.abs(moves[each, at]).max(axis=1) < 0.5
        best = np.where(higher[:, None], around[each, at], best)
        height = np.maximum(height, found[each, at])
        scale = scale * np.where(inside | ~higher, finer, 1.5)[:, None]
        same = 0 if height.max() > top * (1 + 1e-9) else same + 1
        top = max(top, float(height.max()))
        if same == _SCALES:
            break
    return np.clip(ndtr(best), *bounds).astype(cube.dtype), same < _SCALES


def _starts(length: Float[np.ndarray, " n"]) -> np.ndarray:
    """Places of large values, far apart in rank: the largest few usually share one hill."""
    order = np.argsort(length)[::-1]
    return order[np.unique(np.geomspace(1, max(len(order) // 20, 1), 8).astype(int) - 1)]


def _ascent(
    residual: Callable,
    over: AbstractDomain,
    model: PyTree,
    cube: Float[np.ndarray, "n unit_dim"],
    length: Float[np.ndarray, " n"],
    bounds: Bounds,
) -> tuple[Float[np.ndarray, "k unit_dim"], bool]:
    """In many dimensions: gradients first, then a simplex from the two best ends."""
    from scipy.optimize import minimize
    from scipy.special import ndtr, ndtri

    low, high = bounds
    scale = max(float(length.max()), np.finfo(float).tiny) ** 2
    climb = eqx.Partial(_climb, residual, over, model)

    def descent(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = map(np.asarray, _value_and_slope(climb, z.astype(cube.dtype)))
        inside = _accepted(over, z[None].astype(cube.dtype)).all()
        if not (inside and np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(z)
        return -float(value) / scale, -slope.astype(float) / scale

    climbs = [
        minimize(
            descent,
            cube[i].astype(float),
            jac=True,
            bounds=np.stack([low, high], axis=1),
            method="L-BFGS-B",
            options={"maxfun": _CALLS},
        )
        for i in _starts(length)
    ]
    # Gradients stop short of a cusp; a simplex does not.
    depth = lambda w: descent(np.clip(ndtr(w), low, high))[0]  # noqa: E731
    tops = sorted(climbs, key=lambda climb: climb.fun)[:2]
    limit = {"maxfev": 10 * _CALLS}
    around = [
        minimize(depth, ndtri(climb.x), method="Nelder-Mead", options=limit) for climb in tops
    ]
    ends = [climb.x for climb in climbs] + [ndtr(found.x) for found in around]
    # A status of 1 is the limit, for both; the highest climb counts.
    return np.clip(np.stack(ends), low, high).astype(cube.dtype), tops[0].status == 1


def _accepted(over: AbstractDomain, cube: Float[np.ndarray, "k unit_dim"]) -> np.ndarray:
    """Which cube points a domain takes: all, unless it is drawn by rejection."""
    return in_blocks(over.accepts, cube) if over.by_rejection else np.ones(len(cube), bool)


def _climb(residual: Callable, over: AbstractDomain, model: PyTree, z: Array) -> Array:
    return jnp.sum(residual(model, over.place(z)) ** 2)


@compiled
def _value_and_slope(fn: Callable, z: Array | np.ndarray) -> tuple[Array, Array]:
    return jax.value_and_grad(fn)(z)
