"""Parts of boundaries: flat ones and round ones, each with its uniform measure and its normal."""

import abc
import collections
import dataclasses
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.spheres import Sphere

# Names of the sides of a box by their outward normal: the lower and the upper one of each axis.
SIDES = "left", "right", "bottom", "top"


# Distances and normals are found at many points on the host, and at one within what is compiled.
Numbers = Array | np.ndarray


def namespace(x: Numbers) -> Any:
    """NumPy for its own arrays, which takes no compilation, else JAX."""
    return np if isinstance(x, np.ndarray) else jnp


class AbstractFace(AbstractDomain):
    """A part of the boundary of a shape, uniform in length or area. Points have shape (d,)."""

    name: eqx.AbstractVar[str | None]
    kind: eqx.AbstractVar[str]
    outward: eqx.AbstractVar[float]

    @property
    @abc.abstractmethod
    def content(self) -> float:
        """Its length or area."""

    @abc.abstractmethod
    def along(self, z: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """In the plane: places of it, from 0 to 1 uniform in length, on the host."""

    @abc.abstractmethod
    def nearness(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """How far a point is from it, zero on it; the distance, or near the face close to it."""

    @abc.abstractmethod
    def normal(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n d"]:
        """The unit normal at a point of it, out of the region it bounds."""


class Flat(AbstractFace):
    """A line segment, or in d dimensions a flat box of d - 1.

    Attributes:
        corner: One corner.
        edges: Edges from there, at right angles to each other; the rows of an array (d - 1, d).
        across: The unit normal out of the shape that it bounds.
        name: Its name; None for a name by its kind, or else by the direction of the normal, which
            is then along an axis.
        kind: What it is called with a number where it has no name, see `numbered`.
        outward: 1, or -1 where the shape has been taken away.
    """

    corner: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...]
    across: tuple[float, ...]
    name: str | None
    kind: str = ""
    outward: float = 1.0

    def __repr__(self) -> str:
        far = np.sum([self.corner, *self.edges], axis=0).tolist()
        first, last = ("(" + ", ".join(f"{x:g}" for x in end) + ")" for end in (self.corner, far))
        return f"Flat(from {first} to {last})"

    @property
    def unit_dim(self) -> int:
        """One less than the space."""
        return len(self.edges)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    @property
    def content(self) -> float:
        """The product of the lengths of its edges."""
        return math.prod(math.hypot(*edge) for edge in self.edges)

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " d"]:
        """Scale `z` affinely."""
        return jnp.asarray(self.corner, z.dtype) + z @ jnp.asarray(self.edges, z.dtype)

    def along(self, z: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """Scale affinely."""
        return np.asarray(self.corner) + z[:, None] * np.asarray(self.edges[0])

    def nearness(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """The distance."""
        xp = namespace(x)
        corner, edges = xp.asarray(self.corner, x.dtype), xp.asarray(self.edges, x.dtype)
        share = xp.clip((x - corner) @ edges.T / (edges**2).sum(axis=1), 0, 1)
        return xp.linalg.norm(x - corner - share @ edges, axis=-1)

    def normal(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n d"]:
        """The same at every point."""
        xp = namespace(x)
        return xp.broadcast_to(xp.asarray(self.outward * np.asarray(self.across), x.dtype), x.shape)


class Round(AbstractFace):
    """A circle or a sphere.

    Attributes:
        center: Its middle.
        radius: Its radius.
        name: Its name; None for one by its kind.
        kind: As for flat ones.
        outward: 1, or -1 where the ball has been taken away.
    """

    center: tuple[float, ...]
    radius: float
    name: str | None
    kind: str = ""
    outward: float = 1.0

    @property
    def _sphere(self) -> Sphere:
        return Sphere(len(self.center), self.radius)

    @property
    def unit_dim(self) -> int:
        """That of the sphere."""
        return self._sphere.unit_dim

    @property
    def unbounded(self) -> bool:
        """As for the sphere."""
        return self._sphere.unbounded

    @property
    def content(self) -> float:
        """The surface of a ball of this radius."""
        dim = len(self.center)
        return 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * self.radius ** (dim - 1)

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " d"]:
        """Place on the sphere."""
        return jnp.asarray(self.center, z.dtype) + self._sphere.place(z)

    def along(self, z: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """By the angle, from zero to a full turn."""
        circle = np.stack([np.cos(2 * np.pi * z), np.sin(2 * np.pi * z)], axis=1)
        return np.asarray(self.center) + self.radius * circle

    def nearness(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """The distance."""
        xp = namespace(x)
        radial = xp.linalg.norm(x - xp.asarray(self.center, x.dtype), axis=-1)
        return xp.abs(radial - self.radius)

    def normal(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n d"]:
        """Along the radius; zero at the center, which another face may go through."""
        xp = namespace(x)
        radial = x - xp.asarray(self.center, x.dtype)
        length = xp.linalg.norm(radial, axis=-1, keepdims=True)
        return self.outward * radial / xp.maximum(length, xp.finfo(x.dtype).tiny)


def name_of(face: AbstractFace) -> str:
    """The name of a face; one along an axis is named by its normal."""
    if face.name is not None:
        return face.name
    assert isinstance(face, Flat)
    normal = face.outward * np.asarray(face.across)
    axis = int(np.argmax(np.abs(normal)))
    number = 2 * axis + int(normal[axis] > 0)
    return SIDES[number] if len(normal) == 2 else f"{('low', 'high')[number % 2]} {axis}"


def numbered(faces: tuple[AbstractFace, ...]) -> tuple[AbstractFace, ...]:
    """Faces with names: of a kind of which there are several, numbers in their order.

    Two holes then are two parts of a boundary, unless they have been given one name.
    """
    counts = collections.Counter(face.kind for face in faces if face.name is None)
    found, met = [], collections.Counter()
    for face in faces:
        if face.name is None and face.kind:
            met[face.kind] += 1
            number = f" {met[face.kind]}" if counts[face.kind] > 1 else ""
            face = dataclasses.replace(face, name=face.kind + number)
        found.append(face)
    return tuple(found)


def box_faces(low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> tuple[Flat, ...]:
    """The sides of a box, the lower and the upper one of each axis in turn."""
    sides, found = np.diag(high - low), []
    for axis, unit in enumerate(np.eye(len(low))):
        edges = tuple(map(tuple, np.delete(sides, axis, axis=0).tolist()))
        for end, corner in enumerate((low, low + sides[axis])):
            across = tuple(((2.0 * end - 1) * unit).tolist())
            found.append(Flat(corner=tuple(corner.tolist()), edges=edges, across=across, name=None))
    return tuple(found)
