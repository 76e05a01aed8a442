"""Whether every characteristic of one equation of order one carries a condition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import Region
from constrainednn.domains.regions.faces import name_of
from constrainednn.errors import ProblemError

# Characteristics that are followed, and how many of them without a condition are refused: of
# fewer the end may be taken for one on another side, beside a corner.
_FOLLOWED, _LOST = 256, 3
# A step, in extents of the region, and the most of them: one that goes round never ends.
_STEP, _STEPS = 1 / 32, 128
# Halvings of the last step, which crosses the boundary, and what is near a side then.
_HALVINGS, _NEAR = 40, 1e-6
# What is slower than this share of the fastest stands still.
_STILL = 1e-6
# Slopes that differ by less than this share are those of an equation that is linear in them.
_ALIKE = 1e-9


class Ends(NamedTuple):
    """Where characteristics leave the region.

    Attributes:
        points: The places on the boundary; meaningless of those that stay.
        left: Whether they leave.
    """

    points: Float[np.ndarray, "n dim"]
    left: Bool[np.ndarray, " n"]


def check_characteristics(equations: Equations, region: Region, name: str) -> None:
    """Refuse one equation of order one with a characteristic that carries no condition.

    With a . grad u the terms of order one, u is an ordinary differential equation along each
    curve that runs along a. Either end may bear its condition; where neither does, u is not
    determined, and polynomials would go on as they do beside it. Nothing is said where a depends
    on u, nor of curves that end within, where a is zero, or nowhere; nor of systems.

    Raises:
        ProblemError: Naming one, with both ends.

    Source:
        Courant and Hilbert, Methods of Mathematical Physics II (1962), chapter II.
    """
    interior = equations.interior
    if len(interior.highest) > 1 or max(map(sum, interior.orders)) > 1:
        return
    # At points within an interval conditions serve as well; in the plane they hold one curve.
    if region.dim == 1 and equations.at_points:
        return
    through = region.some_points(_FOLLOWED)
    if not _is_linear(interior, through):
        return
    first, last = _followed(interior, region, through)
    lost = first.left & last.left
    for end in first, last:
        lost[lost] = ~_conditioned(equations, region, end.points[lost])
    if lost.sum() < _LOST:
        return
    index = int(np.argmax(lost))
    points = [end.points[index] for end in (first, last)]
    sides = [_side_at(region, point) for point in points]
    x, y = (f"{_shown(point)} at {side!r}" for point, side in zip(points, sides, strict=True))
    raise ProblemError(
        f"{name} carries u along its characteristics, and each needs a condition at one of its "
        f"ends. The one through {_shown(through[index])} runs from {x} to {y}, and boundary "
        f"states none at either: add one at {sides[0]!r}."
    )


def _shown(point: Float[np.ndarray, " dim"]) -> str:
    # Where a curve crosses a side is known up to rounding: zero is not 1e-15.
    numbers = ", ".join(f"{x:.3g}" for x in point.round(9) + 0.0)
    return numbers if len(point) == 1 else f"({numbers})"


def _slopes(residual: LocalResidual, points: Float[np.ndarray, "n dim"], seed: int) -> np.ndarray:
    """Derivatives of the residual by the slopes of u, of shape (n, dim), for some u."""
    v = np.random.default_rng(seed).normal(size=(len(points), len(residual.orders), 1))
    G = residual.linearised(v, points)[1][:, 0, :, 0]
    found = np.zeros(points.shape)
    for axis, a in enumerate(np.eye(points.shape[1], dtype=int).tolist()):
        if tuple(a) in residual.orders:
            found[:, axis] = G[:, residual.orders.index(tuple(a))]
    return found


def _is_linear(residual: LocalResidual, points: Float[np.ndarray, "n dim"]) -> bool:
    """Whether the direction of characteristics is the same for any u."""
    one, other = (_slopes(residual, points, seed) for seed in (1, 2))
    return np.allclose(one, other, rtol=_ALIKE, atol=_ALIKE * np.abs(one).max(), equal_nan=True)


def _followed(
    residual: LocalResidual, region: Region, points: Float[np.ndarray, "n dim"]
) -> tuple[Ends, Ends]:
    """Follow characteristics through points back and on, by the midpoint rule, until they leave."""
    n, signs = len(points), np.repeat([-1.0, 1.0], len(points))[:, None]
    size = region.parts.high.max(axis=0) - region.parts.low.min(axis=0)
    speed = lambda p: np.linalg.norm(_slopes(residual, p, 1) / size, axis=1)  # noqa: E731

    def along(p: np.ndarray, sign: np.ndarray) -> np.ndarray:
        a = _slopes(residual, p, 1) / size
        with np.errstate(invalid="ignore", divide="ignore"):
            return sign * size * _STEP * a / np.linalg.norm(a, axis=1, keepdims=True)

    ends, left, going = np.tile(points, (2, 1)), np.zeros(2 * n, bool), np.arange(2 * n)
    for _ in range(_STEPS):
        here, sign = ends[going], signs[going]
        step = along(here, sign)
        middle = along(here + step / 2, sign)
        # Beyond the boundary the equation need not be defined.
        step = np.where(np.isfinite(middle), middle, step)
        sound = np.isfinite(step).all(axis=1)
        going, here, step = going[sound], here[sound], step[sound]
        out = ~_inside(region, here + step)
        ends[going] = here + step
        ends[going[out]] = _crossing(region, here[out], step[out])
        left[going[out]] = True
        going = going[~out]
        if not len(going):
            break
    # Where a is zero on the boundary no curve gets there: a regular u needs no condition.
    left &= speed(ends) > _STILL * np.nanmax(speed(points))
    return Ends(ends[:n], left[:n]), Ends(ends[n:], left[n:])


def _crossing(
    region: Region, inside: Float[np.ndarray, "n dim"], step: Float[np.ndarray, "n dim"]
) -> Float[np.ndarray, "n dim"]:
    """Where steps from within to beyond cross the boundary."""
    share = np.zeros((len(inside), 1))
    for k in range(1, _HALVINGS + 1):
        further = share + 0.5**k
        held = _inside(region, inside + further * step)
        share = np.where(held[:, None], further, share)
    return inside + share * step


def _inside(region: Region, p: Float[np.ndarray, "n dim"]) -> Bool[np.ndarray, " n"]:
    if region.curved is not None:
        return np.asarray(region.curved.shape.holds(p), bool)
    low, high = region.parts.low, region.parts.high
    held = np.all((p[:, None] >= low) & (p[:, None] <= high), axis=2)
    return np.asarray(np.any(held, axis=1))


def _distance(region: Region, side: str, p: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
    """How far points are from a side, as a share of the size of the region."""
    size = (region.parts.high.max(axis=0) - region.parts.low.min(axis=0)).max()
    if region.curved is not None:
        faces = [face for face in region.curved.boundary.faces if name_of(face) == side]
        return np.min([np.abs(face.nearness(p)) for face in faces], axis=0) / size
    ends = np.array(region.along(side))
    nearest = np.clip(p[:, None], ends.min(axis=1), ends.max(axis=1))
    return np.linalg.norm(p[:, None] - nearest, axis=2).min(axis=1) / size


def _side_at(region: Region, point: Float[np.ndarray, " dim"]) -> str:
    return min(region.sides, key=lambda side: float(_distance(region, side, point[None])[0]))


def _conditioned(
    equations: Equations, region: Region, p: Float[np.ndarray, "n dim"]
) -> Bool[np.ndarray, " n"]:
    """Whether a condition on a side sees u at points of the boundary."""
    found = np.zeros(len(p), bool)
    for side, item in zip(region.sides, equations.faces, strict=True):
        near = np.flatnonzero(_distance(region, side, p) < _NEAR) if len(p) else []
        if item is not None and len(near):
            v = np.random.default_rng(5).normal(size=(len(near), len(item.orders), 1))
            G = item.linearised(v, p[near])[1]
            found[near] |= ~(G == 0).all(axis=(1, 2, 3))
    return found
