"""Which boxes a region reaches into, and the arcs of its boundary in each.

Symbols::

    symbol  shape      meaning
    N       int        boxes
    z       (k,)       places of a face of the boundary, from 0 to 1, uniform in length
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from constrainednn._pieces.mesh import places
from constrainednn.domains.regions.base import AbstractShape, boundary_of, ends_of
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.regions.faces import Flat, name_of
from constrainednn.errors import BadValueError

# Places of a face at which it is asked for the box it lies in; then the interval between two that
# differ is halved so often.
_PLACES, _HALVINGS = 2048, 40
# An end of a face is asked for so far from it, as a share of its length.
_END = 1e-6
# Places along each coordinate of a box at which it is asked whether any of it lies in the region.
_GRID = 24
# Places of a side at which that is asked.
_ON_SIDE = 512
# A place of the boundary lies in the box that holds the point so far inside, as a share of all, or
# of the smallest box if that is less.
_INSIDE, _OF_BOX = 1e-7, 1e-2


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


class _Run(NamedTuple):
    """A part of a face that bounds the region: some places on it, its ends among them."""

    part: int
    face: int
    z: Float[np.ndarray, " k"]


class Outline:
    """What meshes ask of a region, with what was found for meshes before."""

    def __init__(self, curved: Curved):
        self.curved = curved
        self.cuts: dict[tuple[bytes, bytes, int], Any] = {}

    def holds(self, x: Float[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
        """Whether points lie within the region."""
        return np.asarray(self.curved.shape.distance(x)) < 0

    def reaches(
        self, low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
    ) -> Bool[np.ndarray, " N"]:
        """Whether it has points in a box: of those of a grid within, or beside its boundary."""
        s = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
        grid = np.stack(np.meshgrid(s, s, indexing="ij"), axis=-1).reshape(-1, 2)
        beside = np.array([bool(arcs) for arcs in self.arcs(low, high)], bool)
        found = self.holds(places(low, high, grid)).any(axis=1) | beside
        if not found.any():
            raise BadValueError("the region is thinner than elements can resolve.")
        return found

    def reaches_sides(
        self, low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
    ) -> Bool[np.ndarray, " N"]:
        """Whether it has points on both sides of lines along an axis, given by their ends.

        On the lines themselves a signed distance may be zero where two parts of a region meet.
        """
        share = (np.arange(_ON_SIDE) + 0.5) / _ON_SIDE
        points = low[:, None] + (high - low)[:, None] * share[None, :, None]
        beside = self.beside((high - low).max(axis=1))[:, None, None] * (high == low)[:, None]
        both = self.holds(points - beside) & self.holds(points + beside)
        return np.any(both, axis=1)

    def length_of(self, part: str) -> float:
        """Length of a part of the boundary."""
        number, faces = self.curved.boundary.names.index(part), self.curved.boundary.faces
        own = [run for run in self._runs if run.part == number]
        return sum(faces[run.face].content * float(run.z[-1] - run.z[0]) for run in own)

    def arcs(
        self, low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
    ) -> list[list[Arc]]:
        """Of each box, the arcs in it."""
        found: list[list[Arc]] = [[] for _ in low]
        beside = self.beside((high - low).min(keepdims=True))
        for run in self._runs:

            def inner(z: Float[np.ndarray, " k"], face: int = run.face) -> np.ndarray:
                x, normal = self.on(face, z)
                return x - beside * normal

            straight = isinstance(self.curved.boundary.faces[run.face], Flat)
            stretches = _stretches_of_line if straight else _stretches
            for number, a, b in stretches(run.z, inner, low, high):
                if number >= 0 and b > a:
                    found[number].append(Arc(run.part, run.face, a, b))
        return found

    @functools.cached_property
    def _runs(self) -> list[_Run]:
        boundary, found = self.curved.boundary, []
        for face in boundary.chosen:
            part = boundary.names.index(name_of(boundary.faces[face]))
            bounds = lambda z, face=face: self._is_boundary(face, z)  # noqa: E731
            z = np.arange(_PLACES + 1) / _PLACES
            # The ends of a line are corners, where two faces meet.
            asked = np.clip(z, _END, 1 - _END)
            kept = bounds(asked)
            last = np.flatnonzero(kept[1:] != kept[:-1])
            alike = lambda z, kept=kept[last], bounds=bounds: bounds(z) == kept  # noqa: E731
            turns = _last(alike, asked[last], asked[last + 1])
            edges = np.concatenate([[0.0], turns, [1.0]])
            for a, b in itertools.pairwise(edges):
                if b > a and bounds(np.array([(a + b) / 2]))[0]:
                    own = np.concatenate([[a], z[(z > a) & (z < b)], [b]])
                    found.append(_Run(part, face, own))
        return found

    def beside(self, size: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """How far beside a line it is asked what lies there, next to boxes of a size."""
        return np.minimum(_INSIDE * self.curved.boundary.extent, _OF_BOX * size)

    def _is_boundary(self, face: int, z: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
        return np.asarray(self.curved.boundary.bounds_at(self.on(face, z)[0], face))

    def on(
        self, face: int, z: Float[np.ndarray, " k"]
    ) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
        """Places of a face as points, and outward normals there."""
        item = self.curved.boundary.faces[face]
        x = item.along(z)
        return x, np.asarray(item.normal(x))

    def at_rule(
        self, arcs: list[Arc], s: Float[np.ndarray, " k"], weights: Float[np.ndarray, " k"]
    ) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
        """Places of a rule on [-1, 1], whose weights sum to one, on arcs; weights with lengths."""
        points, lengths = [np.zeros((0, 2))], [np.zeros(0)]
        for arc in arcs:
            z = arc.first + (arc.last - arc.first) * (s + 1) / 2
            points.append(self.on(arc.face, z)[0])
            content = self.curved.boundary.faces[arc.face].content * (arc.last - arc.first)
            lengths.append(weights * content)
        return np.concatenate(points), np.concatenate(lengths)


def outline_of(curved: Curved | None) -> Outline | None:
    """What a mesh asks of a region, if there is one."""
    return None if curved is None else Outline(curved)


def _stretches_of_line(
    z: Float[np.ndarray, " k"],
    inner: Callable[[np.ndarray], np.ndarray],
    low: Float[np.ndarray, "N 2"],
    high: Float[np.ndarray, "N 2"],
) -> list[tuple[int, float, float]]:
    """As `_stretches`, of a line: where it enters each box and leaves it."""
    begin, end = inner(z[[0, -1]])
    along = np.where(end == begin, np.finfo(float).tiny, end - begin)
    with np.errstate(over="ignore"):
        ends = np.stack([(low - begin) / along, (high - begin) / along])
    first = np.clip(ends.min(axis=0).max(axis=1), 0, 1)
    last = np.clip(ends.max(axis=0).min(axis=1), 0, 1)
    a, b = (z[0] + (z[-1] - z[0]) * share for share in (first, last))
    return [(int(k), float(a[k]), float(b[k])) for k in np.flatnonzero(b > a)]


def _stretches(
    z: Float[np.ndarray, " k"],
    inner: Callable[[np.ndarray], np.ndarray],
    low: Float[np.ndarray, "N 2"],
    high: Float[np.ndarray, "N 2"],
) -> list[tuple[int, float, float]]:
    """The boxes that a part of a face goes through, with the first and last place in each.

    `inner` says which points lie a little inside of places.
    """

    def still_in(box: Int[np.ndarray, " k"]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda z: _is_in(inner(z), box, low, high)

    box = _box_of(inner(z), low, high)
    while True:
        last = np.flatnonzero(box[1:] != box[:-1])  # of each stretch but the final one
        before, after = z[last], z[last + 1]
        ends = _last(still_in(box[last]), before, after)
        begins = _last(still_in(box[last + 1]), after, before)
        # Boxes that lie between two places and hold neither.
        missed = begins - ends > 4 * (after - before) / 2**_HALVINGS
        more = ((ends + begins) / 2)[missed]
        more = more[(more > ends[missed]) & (more < begins[missed])]
        if not more.size:
            break
        order = np.argsort(both := np.concatenate([z, more]), kind="stable")
        z, box = both[order], np.concatenate([box, _box_of(inner(more), low, high)])[order]
    ends, begins = np.append(ends, z[-1]), np.append(z[0], begins)
    boxes = box[np.append(last, -1)]
    return [(int(k), float(a), float(b)) for k, a, b in zip(boxes, begins, ends, strict=True)]


def _box_of(
    x: Float[np.ndarray, "k 2"], low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"]
) -> Int[np.ndarray, " k"]:
    """The box that points lie in; -1 for none."""
    within = np.asarray(((x[:, None] >= low) & (x[:, None] <= high)).all(axis=2))
    return np.where(within.any(axis=1), within.argmax(axis=1), -1)


def _is_in(
    x: Float[np.ndarray, "k 2"],
    box: Int[np.ndarray, " k"],
    low: Float[np.ndarray, "N 2"],
    high: Float[np.ndarray, "N 2"],
) -> Bool[np.ndarray, " k"]:
    """Whether each point lies in the box of its number, or in none where that is -1."""
    found = np.asarray(((x >= low[box]) & (x <= high[box])).all(axis=1))
    none = box < 0
    found[none] = _box_of(x[none], low, high) < 0
    return found


def _last(
    holds: Callable[[np.ndarray], np.ndarray],
    within: Float[np.ndarray, " k"],
    beyond: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " k"]:
    """The last places at which something holds, between one where it does and one beyond."""
    if not len(within):
        return within
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        still = holds(middle)
        within, beyond = np.where(still, middle, within), np.where(still, beyond, middle)
    return within
