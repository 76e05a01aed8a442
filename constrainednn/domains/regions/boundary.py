"""The boundary of a region: named parts, outward normals, and a measure uniform in length."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from constrainednn._common.batched import in_blocks
from constrainednn.domains.base import AbstractDomain, picked
from constrainednn.domains.regions.faces import AbstractFace, Numbers, name_of, namespace
from constrainednn.errors import BadValueError

# Points of each face that are tried for whether any of it is left: even ones in the plane, so that
# no piece of a larger share is missed, else random ones.
_TRIED = 4096
# Length of a face, in sizes of the region, beyond which too little of it may be on the boundary.
_LONGEST = 200.0
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

    distance: Callable[[Any], Any]
    faces: tuple[AbstractFace, ...]
    extent: float
    chosen: tuple[int, ...]

    def __init__(
        self,
        distance: Callable[[Any], Any],
        faces: tuple[AbstractFace, ...],
        extent: float,
        chosen: tuple[int, ...] | None = None,
    ):
        self.distance, self.faces, self.extent = distance, faces, extent
        if chosen is None:
            chosen = tuple(k for k in range(len(faces)) if self._is_left(k))
        if not chosen:
            raise BadValueError("the region has no boundary: it is thinner than can be resolved.")
        self.chosen = chosen

    def _is_left(self, number: int) -> bool:
        face = self.faces[number]
        if face.unit_dim > 1:
            z = np.random.default_rng(1).uniform(size=(_TRIED, face.unit_dim))
            x = in_blocks(face.place, z.astype(jnp.result_type(float)))
            return bool(np.any(self.bounds_at(x, number)))
        if face.content > _LONGEST * self.extent:
            raise BadValueError(
                f"{name_of(face)!r} of length {face.content:.3g} is all but straight in a region "
                f"of size {self.extent:.3g}. Write cx.domains.HalfSpace(normal, offset) instead."
            )
        x = face.along((np.arange(_TRIED) + 0.5) / _TRIED)
        return bool(np.any(self.bounds_at(x, number)))

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
        return jnp.asarray(self.bounds_at(*self._placed(z)))

    def _placed(self, z: Float[Array, " unit_dim"]) -> tuple[Float[Array, " d"], Int[Array, ""]]:
        """A point and the number of the face it lies on."""
        part, rest = picked(z[0], np.array([face.content for face in self._parts]))
        z = z.at[0].set(rest)
        points = jnp.stack([face.place(z[: face.unit_dim]) for face in self._parts])
        return points[part], jnp.asarray(self.chosen)[part]

    def bounds_at(self, x: Float[Numbers, "*n d"], number: int | Array) -> Bool[Numbers, "*n"]:
        """Whether the region ends at points of a face, which no face before it holds too."""
        xp, step = namespace(x), self._step(x)
        normals = xp.stack([face.normal(x) for face in self.faces])
        n = normals[number]
        ends = (self.distance(x + step * n) > 0) & (self.distance(x - step * n) < 0)
        near = xp.stack([face.nearness(x) for face in self.faces]) < step / 2
        # One with the opposite normal has the region on its other side: it is another boundary.
        alike = (normals * n[None]).sum(axis=-1) > 0
        before = (np.arange(len(self.faces)) < number).reshape(-1, *[1] * (x.ndim - 1))
        return ends & ~(near & alike & before).any(axis=0)

    def _step(self, x: Numbers) -> float:
        """How far beside a face it is asked whether the region ends there."""
        return _ACROSS * math.sqrt(float(jnp.finfo(x.dtype).eps)) * self.extent

    def normal(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n d"]:
        """The outward unit normal of the nearest face, at a point of the boundary."""
        xp = namespace(x)
        near = xp.stack([face.nearness(x) for face in self._parts], axis=-1)
        normals = xp.stack([face.normal(x) for face in self._parts], axis=-2)
        nearest = xp.argmin(near, axis=-1)[..., None, None]
        n = xp.take_along_axis(normals, nearest, axis=-2)[..., 0, :]
        # Of two faces at one place, with the region on either side of them, it may be the other.
        step = self._step(x)
        outwards = self.distance(x + step * n) >= self.distance(x - step * n)
        return xp.where(outwards[..., None], n, -n)


def turned(face: AbstractFace) -> AbstractFace:
    """The face of a shape that has been taken away."""
    return eqx.tree_at(lambda item: item.outward, face, -face.outward)
