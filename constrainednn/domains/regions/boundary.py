"""The boundary of a region: named parts, outward normals, and a measure uniform in length."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from constrainednn._common.batched import in_blocks
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boundaries import picked
from constrainednn.domains.regions.faces import AbstractFace, Numbers, name_of, namespace
from constrainednn.errors import BadValueError

# Points of each face that are tried for whether any of it is left.
_TRIED = 512
# A face is on the boundary where the region ends across it, by so many roots of the rounding unit.
_ACROSS = 4.0


class RegionBoundary(AbstractDomain):
    """The boundary of a region, uniform in length or area; drawn by rejection. Points (d,).

    `region.boundary["circle"]` is the part of that name, `region.boundary.names` lists them.

    Attributes:
        distance: The signed distance of the region.
        faces: Parts of the boundaries of its shapes; what lies in other shapes is not drawn.
        extent: The size of the region.
    """

    distance: Callable[[Any], Array]
    faces: tuple[AbstractFace, ...]
    extent: float
    chosen: tuple[int, ...]

    def __init__(
        self,
        distance: Callable[[Any], Array],
        faces: tuple[AbstractFace, ...],
        extent: float,
        chosen: tuple[int, ...] | None = None,
    ):
        self.distance, self.faces, self.extent = distance, faces, extent
        if chosen is None:
            chosen = tuple(k for k in range(len(faces)) if self._is_left(k))
        self.chosen = chosen

    def _is_left(self, number: int) -> bool:
        face = self.faces[number]
        z = np.random.default_rng(1).uniform(size=(_TRIED, face.unit_dim))
        x = in_blocks(face.place, z.astype(jnp.result_type(float)))
        return bool(self.bounds_at(x, number).any())

    def __repr__(self) -> str:
        return f"boundary({', '.join(map(repr, self.names))})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parts. Faces of one name are one part."""
        return tuple(dict.fromkeys(name_of(self.faces[k]) for k in self.chosen))

    def __getitem__(self, name: str) -> "RegionBoundary":
        """The part of a name, with its own uniform measure.

        Raises:
            ValueError: If there is none, with the names that there are.
        """
        chosen = tuple(k for k in self.chosen if name_of(self.faces[k]) == name)
        if not chosen:
            known = ", ".join(map(repr, self.names))
            raise BadValueError(f"the boundary has no part {name!r}: there are {known}.")
        return RegionBoundary(self.distance, self.faces, self.extent, chosen)

    @property
    def _parts(self) -> list[AbstractFace]:
        return [self.faces[k] for k in self.chosen]

    @property
    def unit_dim(self) -> int:
        """The largest of its faces."""
        return max(face.unit_dim for face in self._parts)

    @property
    def unbounded(self) -> bool:
        """True if a face is."""
        return any(face.unbounded for face in self._parts)

    @property
    def by_rejection(self) -> bool:
        """True."""
        return True

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " d"]:
        """Pick a face with probability proportional to its content, then a point on it."""
        return self._placed(z)[0]

    def accepts(self, z: Float[Array, " unit_dim"]) -> Bool[Array, ""]:
        """Whether the face bounds the region where the point is placed."""
        return self.bounds_at(*self._placed(z))

    def _placed(self, z: Float[Array, " unit_dim"]) -> tuple[Float[Array, " d"], Int[Array, ""]]:
        """A point and the number of the face it lies on."""
        part, rest = picked(z[0], np.array([face.content for face in self._parts]))
        z = z.at[0].set(rest)
        points = jnp.stack([face.place(z[: face.unit_dim]) for face in self._parts])
        return points[part], jnp.asarray(self.chosen)[part]

    def bounds_at(self, x: Float[Numbers, "*n d"], number: int | Array) -> Bool[Numbers, "*n"]:
        """Whether the region ends at points of a face, which no face before it holds too."""
        xp = namespace(x)
        step = _ACROSS * math.sqrt(float(jnp.finfo(x.dtype).eps)) * self.extent
        n = xp.stack([face.normal(x) for face in self.faces])[number]
        ends = (self.distance(x + step * n) > 0) & (self.distance(x - step * n) < 0)
        near = xp.stack([face.nearness(x) for face in self.faces], axis=-1) < step / 2
        return ends & ~xp.any(near & (np.arange(len(self.faces)) < number), axis=-1)

    def normal(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n d"]:
        """The outward unit normal of the nearest face, at a point of the boundary."""
        xp = namespace(x)
        near = xp.stack([face.nearness(x) for face in self._parts], axis=-1)
        normals = xp.stack([face.normal(x) for face in self._parts], axis=-2)
        nearest = xp.argmin(near, axis=-1)[..., None, None]
        return xp.take_along_axis(normals, nearest, axis=-2)[..., 0, :]


def turned(face: AbstractFace) -> AbstractFace:
    """The face of a shape that has been taken away."""
    return eqx.tree_at(lambda item: item.outward, face, -face.outward)
