"""The image of a model: does it fill its target, or did it collapse?

A constant map satisfies many constraints with zero loss and zero gap, so a small loss is no proof
that the map is the one that was hoped for.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn.targets.sets import AbstractTarget, Circle

# Relative to the target's spread: smaller singular values do not count for the rank.
_RELEVANT = 1e-2
# A map that reaches less than this share of the target is no proof that it fills it, and one that
# reaches more none that it collapsed.
_PART = 0.25
# What calling a model raises that is used some other way than u(x).
OTHER_USE = (TypeError, ValueError, AttributeError, IndexError, KeyError)


@dataclasses.dataclass(frozen=True)
class Image:
    """Rank and spread of the values of a model on held-out points.

    Attributes:
        spread: Square roots of the eigenvalues of the values' covariance, largest first.
        slopes: Median over the points of the singular values of du/dx, largest first. The median,
            since a map that jumps between two values is flat at almost every point.
        rank: Number of slopes that, times the RMS deviation of the points, exceed 1 % of the
            target's spread; None without target.
        coverage: Share of the target that is reached, where it can say so.
        degree: For a map of the plane with a circle as target, the winding number of its values
            along a circle around all points. A continuous map that satisfies the constraint on the
            whole plane has degree zero, so a nonzero degree proves a hole inside.
        collapsed: True if the values hardly vary, or their rank is below what the target allows
            and they cover little of it; False if they have its rank and cover a part; None where
            rank and coverage disagree, and without target.
    """

    spread: tuple[float, ...]
    slopes: tuple[float, ...]
    rank: int | None
    coverage: float | None
    degree: int | None
    collapsed: bool | None


def model_inputs(points: PyTree) -> PyTree:
    """The model's inputs among points: all of them, or the first of a pair (x, y)."""
    return points[0] if isinstance(points, tuple) else points


def image_of(model: PyTree, target: AbstractTarget | None, points: PyTree) -> Image | None:
    """Describe the image, or return None where the model is no function of one point array."""
    x = jax.tree.map(lambda leaf: leaf[:1024], model_inputs(points))
    if not (callable(model) and isinstance(x, np.ndarray) and x.dtype.kind == "f" and len(x) > 1):
        return None
    try:
        values = in_blocks(model, x)
    except OTHER_USE:
        return None
    if not (isinstance(values, np.ndarray) and values.dtype.kind == "f"):
        return None
    values = values.reshape(len(x), -1)
    slopes = in_blocks(eqx.Partial(_singular_values, model), x)
    if not (np.isfinite(values).all() and np.isfinite(slopes).all()):
        return None
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    spread = np.sqrt(np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None))
    slope = np.median(slopes, axis=0)
    flat = x.reshape(len(x), -1)
    rank, collapsed, coverage, degree = None, None, None, None
    if target is not None:
        least = _RELEVANT * target.spread
        rank = int((slope * math.sqrt(flat.var(axis=0).mean()) > least).sum())
        possible = min(target.dimension, flat.shape[1])
        flat_map = rank < possible or math.sqrt(float((spread**2).sum())) <= least
        coverage = target.coverage(values)
        if coverage is None or flat_map == (coverage < _PART):
            collapsed = flat_map
        if isinstance(target, Circle) and x.shape[1:] == (2,) and values.shape[1] == 2:
            degree = _degree(model, float(np.linalg.norm(x, axis=1).max()), x.dtype)
    return Image(tuple(spread.tolist()), tuple(slope.tolist()), rank, coverage, degree, collapsed)


def _singular_values(model: PyTree, x: Array) -> Float[Array, " q"]:
    J = jax.jacfwd(lambda x: jnp.ravel(model(x)))(x).reshape(-1, x.size)
    return jnp.linalg.svd(J, compute_uv=False)


def _degree(model: PyTree, radius: float, dtype: np.dtype) -> int:
    """Winding number of u along the circle of given radius, from 4,096 steps of its angle."""
    t = np.linspace(0, 2 * np.pi, 4097)[:-1]
    loop = (radius * np.stack([np.cos(t), np.sin(t)], axis=1)).astype(dtype)
    values = in_blocks(eqx.Partial(flat_value, model), loop)
    angles = np.arctan2(values[:, 1], values[:, 0])
    steps = np.roll(angles, -1) - angles
    turns = np.mod(steps + np.pi, 2 * np.pi) - np.pi
    return round(float(turns.sum()) / (2 * np.pi))
