"""Where a stationary equation holds, its sides, and the elements to begin with."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from constrainednn._common.arguments import as_function, as_reals
from constrainednn._common.messages import shown
from constrainednn._pde.stationary.curved.cells import Curved, outline_of
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boundaries import Segment, Segments
from constrainednn.domains.boxes import Box, Boxes, Interval, parts_of
from constrainednn.domains.finite import Points
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import BadTypeError, BadValueError

# Names of the sides by their normal: the lower and the upper one of each axis in turn.
SIDES = "left", "right", "bottom", "top"
# Elements along a coordinate to begin with, at most, unless mesh= says more.
_MOST_FIRST = 16


class Region(NamedTuple):
    """An interval, a rectangle, what is put together from rectangles, or a region of the plane.

    Attributes:
        parts: Its parts; of a region with a curved boundary the box around it.
        scalar: True if points are numbers.
        curved: The region with its boundary, if elements are cut.
    """

    parts: Mesh
    scalar: bool
    curved: Curved | None = None

    @property
    def dim(self) -> int:
        """Coordinates of a point."""
        return self.parts.low.shape[1]

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides by their normal, the lower and the upper one of each axis in turn.

        Of a region, of the parts of its boundary.
        """
        return SIDES[: 2 * self.dim] if self.curved is None else self.curved.boundary.names

    def holds(self, point: Float[np.ndarray, " dim"]) -> bool:
        """Whether a point lies in it."""
        if self.curved is not None:
            return bool(self.curved.shape.holds(point))
        inside = (point >= self.parts.low) & (point <= self.parts.high)
        return bool(inside.all(axis=1).any())

    def some_points(self, count: int) -> Float[np.ndarray, "count dim"]:
        """Points of all parts, the same ones each time."""
        if self.curved is not None:
            shape = self.curved.shape
            assert isinstance(shape, AbstractDomain)
            return _drawn(shape, count)
        rng, parts = np.random.default_rng(1), self.parts
        part = np.arange(count) % len(parts.low)
        return rng.uniform(parts.low[part], parts.high[part])

    def some_points_along(self, side: str, count: int) -> Float[np.ndarray, "count dim"]:
        """Points of all parts of a side, the same ones each time."""
        if self.curved is not None:
            return _drawn(self.curved.boundary[side], count)
        ends = np.array(self.along(side))
        shares = np.random.default_rng(1).uniform(size=(count, 1))
        part = np.arange(count) % len(ends)
        return ends[part, 0] + shares * (ends[part, 1] - ends[part, 0])

    def along(self, side: str) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Both ends of each straight part of a side; in one dimension a point twice."""
        axis, end = divmod(self.sides.index(side), 2)
        found = []
        for face in self.parts.faces:
            if (face.axis, face.end) == (axis, end):
                first, last = self.parts.low[face.element].copy(), self.parts.high[face.element]
                last = last.copy()
                first[axis] = last[axis] = (first, last)[end][axis]
                found.append((tuple(first.tolist()), tuple(last.tolist())))
        return found


def as_region(value: Any, most: int = 2) -> Region:
    """What a stationary equation holds in; for elements in two dimensions at most."""
    if isinstance(value, Interval):
        return Region(Mesh(np.array([[value.low]]), np.array([[value.high]])), True)
    if isinstance(value, (Box, Boxes)) and value.unit_dim == 2:
        return Region(Mesh(*parts_of(value)), False)
    if isinstance(value, AbstractShape) and 2 <= len(value.bounds[0]) <= most:
        curved = Curved.of(value)
        low, high = curved.ends
        return Region(Mesh(low[None], high[None]), False, curved)
    raise BadTypeError(
        "over of pde without time= must be an interval, a rectangle, or a region of the plane, "
        "such as cx.Box([0, 0], [1, 1]) - cx.domains.Ball(2, 0.25, center=[0.5, 0.5]), got "
        f"{shown(value)}. In one dimension write cx.Interval; in more than two give model=."
    )


def _drawn(domain: AbstractDomain, count: int) -> Float[np.ndarray, "count dim"]:
    return np.asarray(draw(domain, count, Independent(), key=jax.random.key(1)).points, float)


def as_conditions(value: Any, region: Region) -> dict[str | tuple[float, ...], Callable]:
    """The condition on each side, and at points, that have one."""
    if callable(value):
        return dict.fromkeys(region.sides, value)
    if not isinstance(value, Mapping):
        raise BadValueError(
            "boundary must be a condition(u, x) for all sides or one for each, "
            f"{{{', '.join(map(repr, region.sides))}}}, got {shown(value)}."
        )
    found = {}
    for side, condition in value.items():
        as_function(condition, f"boundary at {side!r}", "lambda u, x: u(x)")
        if isinstance(side, str):
            if side not in region.sides:
                names = ", ".join(map(repr, region.sides))
                raise BadValueError(f"boundary names {side!r}: there are {names}, and points.")
            found[side] = condition
            continue
        point = as_reals(side, "a point of boundary").astype(float).ravel()
        if point.shape != (region.dim,) or not region.holds(point):
            raise BadValueError(f"boundary names the point {side}, which does not lie in over=.")
        found[tuple(point.tolist())] = condition
    return found


def as_first_mesh(value: Any, region: Region) -> Mesh:
    """The elements to begin with, as square as they can be; of one box two along its short side."""
    low, high = region.parts.low, region.parts.high
    if value is None:
        shortest = region.parts.lengths.min() / (2 if len(low) == 1 else 1)
        counts = np.clip(np.round(region.parts.lengths / shortest), 1, _MOST_FIRST).astype(int)
        ends = [
            [np.linspace(*item) for item in zip(*part, strict=True)]
            for part in zip(low, high, counts + 1, strict=True)
        ]
    else:
        given = [value] if region.scalar else value
        if len(low) > 1 or not isinstance(given, Sequence) or len(given) != region.dim:
            raise BadValueError(
                "mesh must be the ends of the elements of an interval, or of one rectangle along "
                f"each coordinate, such as ([0, 0.5, 1], [0, 0.1, 1]), got {shown(value)}."
            )
        ends = [[as_reals(item, "mesh").astype(float) for item in given]]
        for item, a, b in zip(ends[0], low[0], high[0], strict=True):
            good = item.ndim == 1 and len(item) > 1 and (np.diff(item) > 0).all()
            if not good or (item[0], item[-1]) != (a, b):
                raise BadValueError(
                    f"mesh must ascend from {a:g} to {b:g}, where over= begins and ends, got "
                    f"{shown(item.tolist())}."
                )
    grid = lambda part, cut: list(itertools.product(*[item[cut] for item in part]))  # noqa: E731
    lower, upper = (
        np.array([corner for part in ends for corner in grid(part, cut)], float)
        for cut in (slice(None, -1), slice(1, None))
    )
    outline = outline_of(region.curved)
    if outline is not None:
        kept = outline.reaches(lower, upper)
        lower, upper = lower[kept], upper[kept]
    return Mesh(lower, upper, outline)


def over_at(
    side: str | tuple[float, ...], region: Region
) -> tuple[str, Segment | Segments | RegionBoundary | Points]:
    """The name of a condition on a side or at a point, and where it holds."""
    if not isinstance(side, str):
        place = ", ".join(f"{x:.9g}" for x in side)
        return f"at {place if region.scalar else f'({place})'}", _single(side, region)
    if region.curved is not None:
        return side, region.curved.boundary[side]
    ends = region.along(side)
    if region.scalar:
        return side, _single(ends[0][0], region)
    lines = tuple(Segment(*item) for item in ends)
    return side, lines[0] if len(lines) == 1 else Segments(lines)


def _single(point: tuple[float, ...], region: Region) -> Points:
    return Points(np.array(point if region.scalar else [point], float))
