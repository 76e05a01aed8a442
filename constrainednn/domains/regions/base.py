"""Shapes with a signed distance, and regions made of them by union, difference, intersection.

    A | B   min(a, b)        A & B   max(a, b)        A - B   max(a, -b)

of the signed distances a and b, which are negative inside. The sign is exact; the size is a lower
bound of the distance outside of a union and inside of the others.
"""

import abc
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain, end_slack
from constrainednn.domains.regions.boundary import RegionBoundary, turned
from constrainednn.domains.regions.faces import AbstractFace, Numbers, namespace, numbered
from constrainednn.errors import BadTypeError, BadValueError

# Points of the bounding box that are tried for whether anything is left of a region.
_TRIED = 16_384
# Directions in which it is asked whether a point lies inside of a shape.
_AROUND = 64

Ends = tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]
Operation = Literal["union", "difference", "intersection"]
_SIGNS = {"union": "|", "difference": "-", "intersection": "&"}


class AbstractShape(eqx.Module):
    """A set with a signed distance; shapes are combined by `|`, `-` and `&`."""

    @property
    @abc.abstractmethod
    def bounds(self) -> Ends:
        """Lower and upper corner of a box around it, infinite where it has no end."""

    @abc.abstractmethod
    def distance(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """Signed distance to the boundary, negative inside; or a function of the same sign."""

    @abc.abstractmethod
    def faces(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> "Faces":
        """Parts of its boundary; of one without an end, what can lie in a box."""

    def holds(self, x: Float[np.ndarray, "*n d"]) -> Bool[np.ndarray, "*n"]:
        """Whether points lie in it; a few units in the last place beyond its boundary are on it."""
        ends = np.abs(self.bounds)
        size = float(ends[np.isfinite(ends)].max(initial=0.0))
        # A single point as one of several: NumPy's sums over it are no arrays.
        return _holds(self, x.reshape(-1, x.shape[-1]), size).reshape(x.shape[:-1])

    def __or__(self, other: "AbstractShape") -> "AbstractShape":
        """All points of either; those of both count once."""
        return Region("union", self, other)

    def __sub__(self, other: "AbstractShape") -> "AbstractShape":
        """What is left without the other."""
        return Region("difference", self, other)

    def __and__(self, other: "AbstractShape") -> "AbstractShape":
        """Points of both."""
        return Region("intersection", self, other)


Faces = tuple[AbstractFace, ...]


class AbstractRegion(AbstractShape, AbstractDomain):
    """A shape whose points are drawn by rejection from a box around it, uniform. Points (d,)."""

    @property
    def unit_dim(self) -> int:
        """The dimension of the space."""
        return len(self.bounds[0])

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    @property
    def by_rejection(self) -> bool:
        """True."""
        return True

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Scale `z` affinely to the box around it.

        Raises:
            ValueError: If it has no end.
        """
        low, high = ends_of(self)
        return jnp.asarray(low, z.dtype) + jnp.asarray(high - low, z.dtype) * z

    def accepts(self, z: Float[Array, " d"]) -> Bool[Array, ""]:
        """Whether the point lies in it."""
        return jnp.asarray(self.distance(self.place(z)) < 0)

    @property
    def boundary(self) -> RegionBoundary:
        """Its boundary, uniform in length, with names of its parts and normals."""
        return boundary_of(self)


class Region(AbstractRegion):
    """Two shapes combined; made by `|`, `-` and `&`. Points have shape (d,), uniform.

    `Box([0, 0], [1, 1]) - Ball(2, 0.25, center=[0.5, 0.5])` is a square with a round hole.

    Attributes:
        operation: How.
        first: The one shape.
        second: The other one.
    """

    operation: Operation
    first: AbstractShape
    second: AbstractShape

    def __init__(self, operation: Operation, first: AbstractShape, second: AbstractShape):
        self.operation, self.first, self.second = operation, first, second
        for item in (first, second):
            if not isinstance(item, AbstractShape):
                raise BadTypeError(
                    f"{_SIGNS[operation]} combines shapes of cx.domains, such as Box, Ball, "
                    f"Polygon and HalfSpace, got {shown(item)}."
                )
        dims = [len(item.bounds[0]) for item in (first, second)]
        if dims[0] != dims[1]:
            raise BadValueError(
                f"a {operation} takes shapes of one dimension, got {dims[0]} and {dims[1]}."
            )
        low, high = self.bounds
        if not (high > low).all() or (np.isfinite([low, high]).all() and self._is_empty(low, high)):
            raise BadValueError(
                f"the {operation} of {first!r} and {second!r} is empty: none of {_TRIED:,} points "
                "of the box around it lies in it."
            )

    def _is_empty(self, low: np.ndarray, high: np.ndarray) -> bool:
        z = np.random.default_rng(1).uniform(size=(_TRIED, len(low)))
        return not bool((self.distance(low + (high - low) * z) < 0).any())

    def __repr__(self) -> str:
        sign = _SIGNS[self.operation]
        parts = [
            f"({item!r})"
            if isinstance(item, Region) and not (first and item.operation == "union")
            else repr(item)
            for first, item in ((True, self.first), (False, self.second))
        ]
        return f" {sign} ".join(parts)

    @property
    def bounds(self) -> Ends:
        """The box around both, around the first, or what is in both boxes."""
        (low, high), (lower, upper) = self.first.bounds, self.second.bounds
        if self.operation == "union":
            return np.minimum(low, lower), np.maximum(high, upper)
        if self.operation == "intersection":
            return np.maximum(low, lower), np.minimum(high, upper)
        return low, high

    def distance(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """The smaller or the larger one, see above."""
        one, other = self.first.distance(x), self.second.distance(x)
        xp = namespace(x)
        if self.operation == "union":
            return xp.minimum(one, other)
        return xp.maximum(one, other if self.operation == "intersection" else -other)

    def faces(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> Faces:
        """Those of both."""
        others = self.second.faces(low, high)
        if self.operation == "difference":
            others = tuple(map(turned, others))
        return *self.first.faces(low, high), *others


def _holds(shape: AbstractShape, x: Float[np.ndarray, "*n d"], size: float) -> np.ndarray:
    """Whether points lie in a shape or on its boundary."""
    if not isinstance(shape, Region):
        return np.asarray(shape.distance(x) <= end_slack(size, x.dtype))
    first, second = _holds(shape.first, x, size), shape.second
    if shape.operation == "difference":
        return first & ~_has_inside(second, x, size)
    other = _holds(second, x, size)
    return first | other if shape.operation == "union" else first & other


def _has_inside(shape: AbstractShape, x: Float[np.ndarray, "*n d"], size: float) -> np.ndarray:
    """Whether points lie in a shape, but not on its boundary.

    Where two parts of it meet the distance is zero, too: there it is asked around the point.
    """
    slack = end_slack(size, x.dtype)
    distance = np.asarray(shape.distance(x))
    found = distance < -slack
    near = (np.abs(distance) <= slack) & _holds(shape, x, size)
    if near.any():
        step = 4 * float(np.sqrt(np.finfo(x.dtype).eps)) * size
        around = x[near][:, None] + (step * _directions(x.shape[-1])).astype(x.dtype)
        found[near] = _holds(shape, around, size).all(axis=1)
    return found


def _directions(dim: int) -> Float[np.ndarray, "k d"]:
    if dim == 2:
        angles = 2 * np.pi * (np.arange(_AROUND) + 0.5) / _AROUND
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = np.random.default_rng(6).normal(size=(_AROUND, dim))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def distance_to_box(
    x: Float[Numbers, "*n d"], low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]
) -> Float[Numbers, "*n"]:
    """Signed distance to the faces of a box."""
    xp = namespace(x)
    middle, half = (xp.asarray(item / 2, x.dtype) for item in (low + high, high - low))
    beyond = xp.abs(x - middle) - half
    squares = (xp.maximum(beyond, 0) ** 2).sum(axis=-1)
    return root_of(squares) + xp.minimum(beyond.max(axis=-1), 0)


def root_of(squares: Float[Numbers, "*n"]) -> Float[Numbers, "*n"]:
    """The root, with derivative zero at zero, where it has none."""
    xp = namespace(squares)
    return xp.where(squares > 0, xp.sqrt(xp.where(squares > 0, squares, 1.0)), 0.0)


def ends_of(shape: AbstractShape) -> Ends:
    """Corners of the box around a shape.

    Raises:
        ValueError: If it has no end.
    """
    low, high = shape.bounds
    if not np.isfinite([low, high]).all():
        raise BadValueError(
            f"{shape!r} has no end, so that no points can be drawn from it. Intersect it with a "
            "box: shape & cx.Box([-1, -1], [1, 1])."
        )
    return low, high


def boundary_of(shape: AbstractShape) -> RegionBoundary:
    """The boundary of a shape."""
    low, high = ends_of(shape)
    extent = float((high - low).max())
    return RegionBoundary(shape.distance, numbered(shape.faces(low, high)), extent)
