"""The elements of a domain, what they share, and where they meet its boundary."""

import dataclasses
import functools
import itertools
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from constrainednn._pieces.mesh import Side, divided, shared_sides

# Elements at most: the matrices of the elements of this many fit in some gigabytes.
MOST_ELEMENTS = 2048


@runtime_checkable
class Cutter(Protocol):
    """What a mesh asks of a region that cuts its elements."""

    def reaches(
        self, low: Float[np.ndarray, "N dim"], high: Float[np.ndarray, "N dim"]
    ) -> Bool[np.ndarray, " N"]:
        """Whether it has points in each of some boxes."""
        ...

    def reaches_sides(
        self, low: Float[np.ndarray, "N dim"], high: Float[np.ndarray, "N dim"]
    ) -> Bool[np.ndarray, " N"]:
        """Whether it has points on each of some lines between two corners."""
        ...

    def arcs(self, low: Float[np.ndarray, "N dim"], high: Float[np.ndarray, "N dim"]) -> list:
        """Of each of some boxes, the arcs of the boundary in it."""
        ...


class Face(NamedTuple):
    """A side of an element that lies on the boundary, all of it.

    Attributes:
        element: Its number.
        axis: Direction of the normal.
        end: 0 at the lower end of the element, where the normal is negative; 1 at the upper one.
    """

    element: int
    axis: int
    end: int


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Boxes without gaps, none of which reaches beyond a corner of the domain.

    Attributes:
        low: Lower corners.
        high: Upper corners.
        region: What cuts them, if anything does; all of its boundary then belongs to it.
    """

    low: Float[np.ndarray, "N dim"]
    high: Float[np.ndarray, "N dim"]
    region: Cutter | None = None

    @property
    def lengths(self) -> Float[np.ndarray, "N dim"]:
        """Lengths of the sides."""
        return self.high - self.low

    @property
    def area(self) -> Float[np.ndarray, " N"]:
        """Content of each element; a length or an area."""
        return self.lengths.prod(axis=1)

    @property
    def extent(self) -> float:
        """The longest side of a box around all of them."""
        return float((self.high.max(axis=0) - self.low.min(axis=0)).max())

    @functools.cached_property
    def sides(self) -> list[Side]:
        """What neighbours share, as far as it lies in the region."""
        found = shared_sides(self.low, self.high)
        if self.region is None or not found:
            return found
        ends = (np.stack([getattr(side, end) for side in found]) for end in ("low", "high"))
        return list(itertools.compress(found, self.region.reaches_sides(*ends)))

    @functools.cached_property
    def arcs(self) -> list:
        """For each element, the arcs of the boundary of the region in it."""
        return (
            [[] for _ in self.low] if self.region is None else self.region.arcs(self.low, self.high)
        )

    @functools.cached_property
    def touching(self) -> list[list[int]]:
        """For each element, the numbers of its sides that are shared."""
        found: list[list[int]] = [[] for _ in self.low]
        for number, side in enumerate(self.sides):
            found[side.below].append(number)
            found[side.above].append(number)
        return found

    @functools.cached_property
    def faces(self) -> list[Face]:
        """What lies on the boundary: what is not shared; none where a region cuts elements."""
        if self.region is not None:
            return []
        shared = {(side.below, side.axis, 1) for side in self.sides}
        shared |= {(side.above, side.axis, 0) for side in self.sides}
        count, dim = self.low.shape
        every = ((i, axis, end) for i in range(count) for axis in range(dim) for end in (0, 1))
        return [Face(*item) for item in every if item not in shared]

    def along(self, axis: int, end: int) -> list[int]:
        """Elements with a face on the boundary whose normal points down or up an axis."""
        return [face.element for face in self.faces if (face.axis, face.end) == (axis, end)]

    def divided(self, across: Bool[np.ndarray, "N dim"]) -> tuple["Mesh", Int[np.ndarray, " M"]]:
        """Elements halved across some axes, and the number of the one that each was part of.

        What lies outside of the region is left out.
        """
        low, high, parent = divided(self.low, self.high, across)
        if self.region is not None:
            kept = self.region.reaches(low, high)
            low, high, parent = low[kept], high[kept], parent[kept]
        return Mesh(low, high, self.region), parent
