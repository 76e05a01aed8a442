"""Straight lines and the faces of boxes, with their lengths and areas as measures."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.arguments import as_reals
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain, Corner, GaussRule, picked
from constrainednn.domains.regions.faces import Flat, box_faces, name_of
from constrainednn.errors import BadValueError


class Segment(AbstractDomain):
    """Points on the straight line from `start` to `end`, uniform. Points have shape (d,)."""

    start: tuple[float, ...]
    end: tuple[float, ...]

    def __init__(self, start: Corner, end: Corner):
        starts, ends = as_reals(start, "start of Segment"), as_reals(end, "end of Segment")
        if starts.ndim != 1 or starts.shape != ends.shape or not (starts != ends).any():
            raise BadValueError(
                "Segment needs two different points of equal length, got "
                f"{shown(start)} and {shown(end)}. Write Segment([0, 0], [0, 1])."
            )
        self.start, self.end = (tuple(map(float, item)) for item in (starts, ends))

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

    def place(self, z: Float[Array, "1"]) -> Float[Array, " d"]:
        """Scale `z` affinely; a coordinate that both ends share is met exactly."""
        start, end = jnp.asarray(self.start, z.dtype), jnp.asarray(self.end, z.dtype)
        return start + (end - start) * z


class Segments(AbstractDomain):
    """Points on several straight lines, uniform in length. Points have shape (d,)."""

    parts: tuple[Segment, ...]

    def __repr__(self) -> str:
        return f"Segments({len(self.parts)} from {self.parts[0].start} to {self.parts[-1].end})"

    @property
    def unit_dim(self) -> int:
        """One."""
        return 1

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, "1"]) -> Float[Array, " d"]:
        """Pick a line with probability proportional to its length, then a point on it."""
        start, end = (np.array([getattr(s, name) for s in self.parts]) for name in ("start", "end"))
        part, rest = picked(z[0], np.linalg.norm(end - start, axis=1))
        start, end = jnp.asarray(start, z.dtype)[part], jnp.asarray(end, z.dtype)[part]
        return start + (end - start) * rest


class BoxBoundary(AbstractDomain):
    """The faces of a box, uniform in surface area. Points have shape (d,).

    In one dimension the two end points have probability one half each. `box.boundary["left"]` is
    one face, `box.boundary.names` lists them: in the plane "left", "right", "bottom" and "top",
    else "low 0", "high 0", "low 1" and so on, by axis.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Corner, high: Corner):
        self.low, self.high = as_corners("BoxBoundary", low, high)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the faces, the lower and the upper one of each axis in turn."""
        return tuple(map(name_of, box_faces(np.array(self.low), np.array(self.high))))

    def __getitem__(self, name: str) -> Flat:
        """The face of a name, uniform, with its `normal`.

        Raises:
            ValueError: If there is none, with the names that there are.
        """
        for face in box_faces(np.array(self.low), np.array(self.high)):
            if name_of(face) == name:
                return dataclasses.replace(face, name=name)
        known = ", ".join(map(repr, self.names))
        raise BadValueError(f"the boundary has no part {name!r}: there are {known}.")

    @property
    def unit_dim(self) -> int:
        """The dimension of the box: one coordinate picks the face, the others the place on it."""
        return len(self.low)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Pick a face with probability proportional to its area, then a point on it."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        dim = len(low)
        sides = high - low
        areas = np.prod(sides) / sides
        edges = np.cumsum(np.repeat(areas, 2) / (2 * areas.sum()))[:-1]
        # Counting edges below z[0] stays inside 0 .. 2 dim - 1, where a search could step out.
        face = jnp.sum(z[0] >= jnp.asarray(edges, z.dtype))
        axis, upper = face // 2, face % 2
        # The remaining cube coordinates fill the other axes in order.
        index = jnp.arange(dim)
        source = jnp.where(index < axis, index + 1, index)
        inside = jnp.where(index == axis, upper.astype(z.dtype), z[jnp.clip(source, 0, dim - 1)])
        return jnp.asarray(low, z.dtype) + jnp.asarray(sides, z.dtype) * inside

    def normal(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The outward unit normal of the nearest face, at a point of the boundary."""
        low, high = jnp.asarray(self.low, x.dtype), jnp.asarray(self.high, x.dtype)
        scaled = (2 * x - low - high) / (high - low)
        face = jnp.arange(len(x)) == jnp.argmax(jnp.abs(scaled))
        return jnp.where(face, jnp.sign(scaled), 0)


def as_corners(name: str, low: Corner, high: Corner) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two corners of a box as numbers.

    Raises:
        ValueError: Unless the second lies beyond the first in every coordinate.
    """
    lows, highs = as_reals(low, f"low of {name}"), as_reals(high, f"high of {name}")
    if lows.ndim != 1 or lows.shape != highs.shape or lows.size == 0:
        raise BadValueError(
            f"{name} needs two corners low and high of equal length, got shapes {lows.shape} and "
            f"{highs.shape}. Write {name}([0, 0], [1, 2]); use Interval for scalar points."
        )
    lows, highs = lows.astype(float), highs.astype(float)
    with np.errstate(invalid="ignore", over="ignore"):
        sides = highs - lows
    wrong = np.flatnonzero(~((sides > 0) & np.isfinite(sides)))
    if wrong.size:
        i = wrong[0]
        raise BadValueError(
            f"{name} needs finite low < high in every coordinate, "
            f"got low[{i}]={lows[i]:g} and high[{i}]={highs[i]:g}."
        )
    return tuple(lows.tolist()), tuple(highs.tolist())
