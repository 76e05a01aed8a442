"""Balls and half-spaces."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.arguments import as_count, as_positive, as_real, as_reals
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain, Corner
from constrainednn.domains.regions.base import (
    AbstractShape,
    Ends,
    Faces,
    boundary_of,
    root_of,
)
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.regions.faces import Flat, Numbers, Round, namespace
from constrainednn.domains.spheres import Sphere
from constrainednn.errors import BadTypeError, BadValueError


class Ball(AbstractShape, AbstractDomain):
    """A ball with its inside, uniform in volume; a disk in the plane. Points have shape (dim,).

    Args:
        dim: Dimension of the space.
        radius: Its radius.
        center: Its middle, of shape (dim,). Default: the origin.
        name: What its boundary is called, by default "circle" in the plane and "sphere" elsewhere;
            "circle 1", "circle 2", ... in a region of several.
    """

    dim: int
    radius: float
    center: tuple[float, ...]
    name: str | None

    def __init__(
        self,
        dim: int,
        radius: float = 1.0,
        *,
        center: Corner | None = None,
        name: str | None = None,
    ):
        # Its middle has as many numbers.
        self.dim = as_count(dim, "dim of Ball", least=2, most=10**6)
        self.radius = as_positive(radius, "radius of Ball")
        middle = np.zeros(self.dim) if center is None else as_reals(center, "center of Ball")
        if middle.shape != (self.dim,) or not np.isfinite(middle).all():
            raise BadValueError(
                f"center of Ball must be a point of {self.dim} finite coordinates, got "
                f"{shown(center)}. Write Ball(2, 0.25, center=[0.5, 0.5])."
            )
        self.center = tuple(map(float, middle))
        self.name = as_name(name, "Ball")

    def __repr__(self) -> str:
        around = f", center={list(self.center)}" if any(self.center) else ""
        return f"Ball({self.dim}, {self.radius:g}{around})"

    @property
    def unit_dim(self) -> int:
        """One for the radius and those of the sphere."""
        return 1 + Sphere(self.dim).unit_dim

    @property
    def unbounded(self) -> bool:
        """As for the sphere."""
        return Sphere(self.dim).unbounded

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Map a cube point to the ball: radius by its quantile, direction on the sphere."""
        about = self.radius * z[0] ** (1 / self.dim) * Sphere(self.dim).place(z[1:])
        return jnp.asarray(self.center, z.dtype) + about

    @property
    def bounds(self) -> Ends:
        """The box around it."""
        return np.subtract(self.center, self.radius), np.add(self.center, self.radius)

    def distance(self, x: Float[Numbers, "*n dim"]) -> Float[Numbers, "*n"]:
        """Signed distance."""
        xp = namespace(x)
        return root_of(((x - xp.asarray(self.center, x.dtype)) ** 2).sum(axis=-1)) - self.radius

    def faces(self, low: Float[np.ndarray, " dim"], high: Float[np.ndarray, " dim"]) -> Faces:
        """Its sphere."""
        del low, high
        kind = "circle" if self.dim == 2 else "sphere"
        return (Round(center=self.center, radius=self.radius, name=self.name, kind=kind),)

    @property
    def boundary(self) -> RegionBoundary:
        """Its sphere, with normals."""
        return boundary_of(self)


class HalfSpace(AbstractShape):
    """Points x with normal . x <= offset; in the plane what lies on one side of a line.

    It has no end: intersect it with something, or take it away.

    Args:
        normal: Points out of it, of shape (dim,). Its length counts: `HalfSpace([1, 1], 1)` is
            x + y <= 1.
        offset: The number above.
        name: What its boundary is called, by default "line" in the plane and "plane" elsewhere,
            with a number in a region of several.
    """

    across: tuple[float, ...]
    offset: float
    name: str | None

    def __init__(self, normal: Corner, offset: float = 0.0, *, name: str | None = None):
        given = as_reals(normal, "normal of HalfSpace").astype(float)
        length = float(np.linalg.norm(given)) if given.ndim == 1 else 0.0
        if len(given.shape) != 1 or given.size < 2 or not 0 < length < math.inf:
            raise BadValueError(
                "normal of HalfSpace must be a vector of two or more finite numbers that are not "
                f"all zero, got {shown(normal)}. Write HalfSpace([0, 1], 2) for y <= 2."
            )
        self.across = tuple((given / length).tolist())
        self.offset = as_real(offset, "offset of HalfSpace") / length
        if not math.isfinite(self.offset):
            raise BadValueError(f"offset of HalfSpace must be finite, got {offset}.")
        self.name = as_name(name, "HalfSpace")

    def __repr__(self) -> str:
        return f"HalfSpace({list(self.across)}, {self.offset:g})"

    @property
    def bounds(self) -> Ends:
        """Infinite, but for a normal along an axis."""
        normal = np.asarray(self.across)
        low, high = np.full(len(normal), -np.inf), np.full(len(normal), np.inf)
        along = np.flatnonzero(np.abs(normal) == 1)
        if along.size and normal[along[0]] > 0:
            high[along[0]] = self.offset
        elif along.size:
            low[along[0]] = -self.offset
        return low, high

    def distance(self, x: Float[Numbers, "*n dim"]) -> Float[Numbers, "*n"]:
        """Signed distance."""
        return x @ namespace(x).asarray(self.across, x.dtype) - self.offset

    def faces(self, low: Float[np.ndarray, " dim"], high: Float[np.ndarray, " dim"]) -> Faces:
        """The plane as far as it can lie in a box."""
        normal, middle = np.asarray(self.across), (low + high) / 2
        reach = float(np.linalg.norm(high - low)) / 2
        foot = middle + (self.offset - normal @ middle) * normal
        along = np.linalg.svd(normal[None])[2][1:]
        corner = tuple((foot - reach * along.sum(axis=0)).tolist())
        edges = tuple(map(tuple, (2 * reach * along).tolist()))
        kind = "line" if len(self.across) == 2 else "plane"
        return (Flat(corner=corner, edges=edges, across=self.across, name=self.name, kind=kind),)


def as_name(value: str | None, what: str) -> str | None:
    """A name of a part of a boundary, if one is given.

    Raises:
        TypeError: If it is no text.
    """
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise BadTypeError(f"name of {what} must be text such as 'hole', got {shown(value)}.")
    return value
