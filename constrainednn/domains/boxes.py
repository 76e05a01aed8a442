"""Intervals, boxes, and what is put together from boxes."""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from constrainednn._common.arguments import as_real
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain, Corner, GaussRule, end_slack, picked
from constrainednn.domains.boundaries import BoxBoundary, as_corners
from constrainednn.domains.regions.base import (
    AbstractShape,
    Ends,
    Faces,
    Operation,
    Region,
    boundary_of,
    distance_to_box,
)
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.regions.faces import Numbers, box_faces, namespace
from constrainednn.errors import BadValueError

Corners = tuple[tuple[float, ...], ...]


class Interval(AbstractDomain):
    """Points between `low` and `high`, uniform. Points are scalars of shape ()."""

    low: float
    high: float

    def __init__(self, low: float, high: float):
        self.low, self.high = as_real(low, "low of Interval"), as_real(high, "high of Interval")
        if not 0 < self.high - self.low < math.inf:
            raise BadValueError(
                f"Interval needs finite low < high, got low={shown(low)} and high={shown(high)}. "
                "Swap them, or use Points for a single value."
            )

    @property
    def unit_dim(self) -> int:
        """One."""
        return 1

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Legendre."""
        return ("legendre",)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, "1"]) -> Float[Array, ""]:
        """Scale `z` affinely."""
        return self.low + (self.high - self.low) * z[0]

    def holds(self, x: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in it; a few units in the last place beyond an end are that end."""
        slack = end_slack(max(abs(self.low), abs(self.high)), x.dtype)
        return np.asarray((x >= self.low - slack) & (x <= self.high + slack))


class Box(AbstractShape, AbstractDomain):
    """Points of an axis-parallel box, uniform. Points have shape (d,)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Corner, high: Corner):
        self.low, self.high = as_corners("Box", low, high)

    @property
    def unit_dim(self) -> int:
        """The dimension of the box."""
        return len(self.low)

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Legendre in each coordinate."""
        return ("legendre",) * self.unit_dim

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def __or__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """All points of either; those of both count once."""
        return combined("union", self, other)

    def __sub__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """What is left without the other."""
        return combined("difference", self, other)

    def __and__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """Points of both."""
        return combined("intersection", self, other)

    @property
    def boundary(self) -> BoxBoundary:
        """The faces of this box with their uniform surface measure."""
        return BoxBoundary(self.low, self.high)

    @property
    def bounds(self) -> Ends:
        """Its corners."""
        return np.array(self.low), np.array(self.high)

    def distance(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """Signed distance."""
        return distance_to_box(x, *self.bounds)

    def faces(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> Faces:
        """Its sides."""
        del low, high
        return box_faces(*self.bounds)

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Scale `z` affinely."""
        low, high = jnp.asarray(self.low, z.dtype), jnp.asarray(self.high, z.dtype)
        return low + (high - low) * z

    def holds(self, x: Float[np.ndarray, "... d"]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in it; a few units in the last place beyond a face are on it."""
        sides = [Interval(*ends) for ends in zip(self.low, self.high, strict=True)]
        held = [side.holds(x[..., i]) for i, side in enumerate(sides)]
        return np.asarray(np.all(held, axis=0))


class Boxes(AbstractShape, AbstractDomain):
    """Points of several boxes that do not overlap, uniform; made by `|`, `-` and `&` of boxes.

    `Box([-1, -1], [1, 1]) - Box([0, -1], [1, 0])` is an L. Points have shape (d,).

    Attributes:
        low: Lower corners of the parts: cells of a grid through all corners.
        high: Upper corners.
    """

    low: Corners
    high: Corners

    def __init__(self, low: Corners, high: Corners):
        self.low, self.high = low, high

    def __repr__(self) -> str:
        low, high = (np.array(corners) for corners in (self.low, self.high))
        ends = zip(low.min(axis=0), high.max(axis=0), strict=True)
        return f"Boxes({len(low)} in " + " x ".join(f"[{a:g}, {b:g}]" for a, b in ends) + ")"

    @property
    def unit_dim(self) -> int:
        """The dimension of the boxes."""
        return len(self.low[0])

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    @property
    def bounds(self) -> Ends:
        """The box around all parts."""
        low, high = parts_of(self)
        return low.min(axis=0), high.max(axis=0)

    def distance(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """The smallest of those of the parts: exact outside, zero where parts meet."""
        parts = zip(*parts_of(self), strict=True)
        return namespace(x).stack([distance_to_box(x, *item) for item in parts]).min(axis=0)

    def faces(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> Faces:
        """Those of all parts; where parts meet they are no boundary."""
        del low, high
        return tuple(f for item in zip(*parts_of(self), strict=True) for f in box_faces(*item))

    @property
    def boundary(self) -> RegionBoundary:
        """The sides of all parts that are not shared, with names and normals."""
        return boundary_of(self)

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Pick a part with probability proportional to its content, then a point in it.

        The first coordinate of the cube picks the part, and what is left of it the place there.
        """
        low, high = np.array(self.low), np.array(self.high)
        part, rest = picked(z[0], (high - low).prod(axis=1))
        z = z.at[0].set(rest)
        low, high = jnp.asarray(low, z.dtype)[part], jnp.asarray(high, z.dtype)[part]
        return low + (high - low) * z

    def holds(self, x: Float[np.ndarray, "... d"]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in it; a few units in the last place beyond a face are on it."""
        parts = [Box(*corners).holds(x) for corners in zip(self.low, self.high, strict=True)]
        return np.asarray(np.any(parts, axis=0))

    def __or__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """All points of either; those of both count once."""
        return combined("union", self, other)

    def __sub__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """What is left without the other."""
        return combined("difference", self, other)

    def __and__(self, other: AbstractShape) -> "Box | Boxes | Region":
        """Points of both."""
        return combined("intersection", self, other)


def combined(
    operation: Operation, first: AbstractShape, second: AbstractShape
) -> "Box | Boxes | Region":
    """Two shapes combined; of boxes boxes are made, which do without rejection."""
    if not (isinstance(first, (Box, Boxes)) and isinstance(second, (Box, Boxes))):
        return Region(operation, first, second)
    kept = {
        "union": np.logical_or,
        "difference": lambda one, other: one & ~other,
        "intersection": np.logical_and,
    }
    return _combined(first, second, kept[operation], operation)


def parts_of(domain: Box | Boxes) -> tuple[Float[np.ndarray, "N d"], Float[np.ndarray, "N d"]]:
    """Lower and upper corners of the boxes that a domain is made of."""
    low, high = domain.low, domain.high
    return np.atleast_2d(np.array(low, float)), np.atleast_2d(np.array(high, float))


def _combined(
    a: Box | Boxes, b: Box | Boxes, kept: Callable[..., np.ndarray], name: str
) -> Box | Boxes:
    """The cells of a grid through all corners that are kept."""
    if a.unit_dim != b.unit_dim:
        raise BadValueError(
            f"{name} takes boxes of one dimension, got {a.unit_dim} and {b.unit_dim}."
        )
    corners = np.concatenate([*parts_of(a), *parts_of(b)])
    ends = [_distinct(column) for column in corners.T]
    low, high = (
        np.array(list(itertools.product(*[item[part] for item in ends])), float)
        for part in (slice(None, -1), slice(1, None))
    )
    middle = (low + high) / 2
    inside = [
        np.any(np.all((middle[:, None] > lower) & (middle[:, None] < upper), axis=2), axis=1)
        for lower, upper in (parts_of(a), parts_of(b))
    ]
    chosen = kept(*inside)
    if not chosen.any():
        raise BadValueError(f"the {name} of {a!r} and {b!r} is empty.")
    whole = chosen.all()
    low, high = low[chosen], high[chosen]
    if whole or len(low) == 1:
        return Box(low.min(axis=0), high.max(axis=0))
    return Boxes(*(tuple(map(tuple, item.tolist())) for item in (low, high)))


def _distinct(column: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Coordinates in ascending order; those that differ by rounding, as 0.1 + 0.2 and 0.3, once."""
    ends = np.unique(column)
    apart = np.diff(ends) > end_slack(np.abs(ends).max(), ends.dtype)
    return ends[np.concatenate([[True], apart])]
