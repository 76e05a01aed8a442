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
from constrainednn.targets.degree import (
    circle_points,
    sphere_triangles,
    times_covered,
    winding_number,
)
from constrainednn.targets.sets import AbstractTarget, Circle, Sphere

# Relative to the target's spread: smaller singular values do not count for the rank.
_RELEVANT = 1e-2
# Of a set that is measured by balls or sectors: below, it may be less than 5 % of the target.
_LITTLE = 0.1
# A map that reaches more of the target has not collapsed, unless its image has too few dimensions.
_PART = 0.25
# Such an image has too low a rank at this share of the points.
_NEARLY_ALL = 0.95
# Fewer points cover little of anything.
_FEWEST = 100
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
            along a circle around all points; for a map of space with a sphere as target, how often
            they cover it along a sphere around all points. A continuous map that satisfies the
            constraint everywhere has degree zero, so a nonzero degree proves a hole inside. None
            where the points do not surround the origin.
        collapsed: True if the values hardly vary, if they cover less than 10 % of the target, or if
            at 95 % of the points their rank is below what the target allows; False if they cover
            more than 25 % and have its rank; None where neither is so, and without target.
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
        kind = jax.eval_shape(model, x[0])
        if not isinstance(kind, jax.ShapeDtypeStruct) or kind.dtype.kind != "f":
            return None
        values, slopes = in_blocks(eqx.Partial(_value_and_slopes, model), x)
    except OTHER_USE:
        return None
    if not (np.isfinite(values).all() and np.isfinite(slopes).all()):
        return None
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    spread = np.sqrt(np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None))
    slope = np.median(slopes, axis=0)
    flat = x.reshape(len(x), -1)
    rank, collapsed, coverage, degree = None, None, None, None
    if target is not None:
        least = _RELEVANT * target.spread
        size = math.sqrt(flat.var(axis=0).mean())
        rank, possible = int((slope * size > least).sum()), min(target.dimension, flat.shape[1])
        low = float(((slopes * size > least).sum(axis=1) < possible).mean())
        if len(x) >= _FEWEST:
            coverage = target.coverage(values)
        collapsed = _verdict(low, rank >= possible, coverage, few=len(x) < _FEWEST)
        if math.sqrt(float((spread**2).sum())) <= least:
            collapsed = True
        degree = _degree(model, target, x, values.shape[1])
    return Image(tuple(spread.tolist()), tuple(slope.tolist()), rank, coverage, degree, collapsed)


def _value_and_slopes(model: PyTree, x: Array) -> tuple[Float[Array, " k"], Float[Array, " q"]]:
    """The value and the singular values of its derivative, of which one program does both."""
    flat = lambda x: (jnp.ravel(model(x)),) * 2  # noqa: E731
    J, value = jax.jacfwd(flat, has_aux=True)(x)
    return value, jnp.linalg.svd(J.reshape(-1, x.size), compute_uv=False)


def _verdict(low: float, full: bool, coverage: float | None, *, few: bool) -> bool | None:
    """Did it collapse? From the share of points of too low a rank, the usual rank, and coverage."""
    if coverage is None:
        return None if full and few else not full
    if low >= _NEARLY_ALL or coverage < _LITTLE:
        return True
    return False if full and coverage > _PART else None


def _degree(model: PyTree, target: AbstractTarget, x: np.ndarray, entries: int) -> int | None:
    """How often u covers its target along a circle or sphere around all points."""
    flat = x.reshape(len(x), -1)
    # Around points that do not surround the origin the circle would lie where nobody trained.
    if not ((flat.min(axis=0) < 0).all() and (flat.max(axis=0) > 0).all()):
        return None
    radius = float(np.linalg.norm(flat, axis=1).max())
    along = lambda unit: in_blocks(  # noqa: E731
        eqx.Partial(flat_value, model), (radius * unit).astype(x.dtype)
    )
    if isinstance(target, Circle) and x.shape[1:] == (2,) and entries == 2:
        return winding_number(along(circle_points()))
    if isinstance(target, Sphere) and x.shape[1:] == (3,) and entries == 3:
        corners, triangles = sphere_triangles()
        return times_covered(along(corners), triangles)
    return None
