"""Which boxes a region reaches into, and the arcs of its boundary in each.

Symbols::

    symbol  shape      meaning
    N       int        boxes
    z       (k,)       places of a face of the boundary, from 0 to 1, uniform in length
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from constrainednn._common.batched import in_blocks
from constrainednn._pieces.mesh import places
from constrainednn.domains.regions.base import AbstractShape, boundary_of, ends_of
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.regions.faces import name_of

# Places of a face at which it is asked for the box it lies in; then the interval between two that
# differ is halved so often.
_PLACES, _HALVINGS = 4096, 24
# Places along each coordinate of a box at which it is asked whether any of it lies in the region.
_GRID = 24
# A place of the boundary lies in the box that holds the point so far inside, as a share of all.
_INSIDE = 1e-7


class Arc(NamedTuple):
    """A part of the boundary within one box.

    Attributes:
        part: Number of its name.
        face: Number of its face.
        first: Where it begins on that face.
        last: Where it ends.
    """

    part: int
    face: int
    first: float
    last: float


class Curved(eqx.Module):
    """A region of the plane with its boundary.

    Attributes:
        shape: The region.
        boundary: Its boundary.
    """

    shape: AbstractShape
    boundary: RegionBoundary

    @classmethod
    def of(cls, shape: AbstractShape) -> "Curved":
        """A region."""
        return cls(shape, boundary_of(shape))

    @property
    def ends(self) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
        """Corners of the box around it."""
        return ends_of(self.shape)

    def holds(self, x: Float[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
        """Whether points lie within it."""
        return np.asarray(self.shape.distance(x) < 0)

    def length_of(self, part: str) -> float:
        """Length of a part of the boundary."""
        low, high = self.ends
        arcs = self.arcs(low[None], high[None])[0]
        number, faces = self.boundary.names.index(part), self.boundary.faces
        own = [arc for arc in arcs if arc.part == number]
        return sum(faces[arc.face].content * (arc.last - arc.first) for arc in own)

    def reaches(
        self, low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
    ) -> Bool[np.ndarray, " N"]:
        """Whether it has points in a box, of those of a grid within."""
        s = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
        grid = np.stack(np.meshgrid(s, s, indexing="ij"), axis=-1).reshape(-1, 2)
        return self.holds(places(low, high, grid)).any(axis=1)

    def reaches_side(self, low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]) -> bool:
        """Whether it has points on a line between two corners."""
        share = (np.arange(_PLACES // 64) + 0.5) / (_PLACES // 64)
        return bool(self.holds(low + (high - low) * share[:, None]).any())

    def arcs(
        self, low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
    ) -> list[list[Arc]]:
        """Of each box, the arcs in it."""
        names, found = self.boundary.names, [[] for _ in low]
        for face in self.boundary.chosen:
            part = names.index(name_of(self.boundary.faces[face]))
            box_at = functools.partial(self._box_of, face, low, high)
            z = (np.arange(_PLACES) + 0.5) / _PLACES
            box = box_at(z)
            last = np.flatnonzero(box[1:] != box[:-1])  # of each run but the final one
            ends = np.append(_last(box_at, z[last], z[last + 1], box[last]), 1.0)
            begins = np.append(0.0, _last(box_at, z[last + 1], z[last], box[last + 1]))
            for number, a, b in zip(box[np.append(last, -1)], begins, ends, strict=True):
                if number >= 0 and b > a:
                    found[number].append(Arc(part, face, float(a), float(b)))
        return found

    def _box_of(
        self,
        face: int,
        low: Float[np.ndarray, "N 2"],
        high: Float[np.ndarray, "N 2"],
        z: Float[np.ndarray, " k"],
    ) -> Int[np.ndarray, " k"]:
        """The box that places of a face lie in; -1 where it is no boundary, or in none."""
        x, n = self.on(face, z)
        inner = (x - _INSIDE * self.boundary.extent * n)[:, None]
        within = ((inner >= low) & (inner <= high)).all(axis=2)
        kept = within.any(axis=1) & self.boundary.bounds_at(x, face)
        return np.where(kept, within.argmax(axis=1), -1)

    def on(
        self, face: int, z: Float[np.ndarray, " k"]
    ) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
        """Places of a face as points, and outward normals there."""
        item = self.boundary.faces[face]
        x = np.asarray(in_blocks(item.place, z[:, None]), float)
        return x, np.asarray(item.normal(x))

    def at_rule(
        self, arcs: list[Arc], s: Float[np.ndarray, " k"], weights: Float[np.ndarray, " k"]
    ) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
        """Places of a rule on [-1, 1], whose weights sum to one, on arcs; weights with lengths."""
        points, lengths = [np.zeros((0, 2))], [np.zeros(0)]
        for arc in arcs:
            z = arc.first + (arc.last - arc.first) * (s + 1) / 2
            points.append(self.on(arc.face, z)[0])
            content = self.boundary.faces[arc.face].content * (arc.last - arc.first)
            lengths.append(weights * content)
        return np.concatenate(points), np.concatenate(lengths)


def _last(
    box_at: Callable[[np.ndarray], np.ndarray],
    within: Float[np.ndarray, " k"],
    beyond: Float[np.ndarray, " k"],
    box: Int[np.ndarray, " k"],
) -> Float[np.ndarray, " k"]:
    """The last places in a box, between places in it and beyond it."""
    if not len(box):
        return within
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        inside = box_at(middle) == box
        within, beyond = np.where(inside, middle, within), np.where(inside, beyond, middle)
    return within
