"""Where the equation and the conditions are asked in elements that a boundary cuts.

Of a cut element the places of a Gauss rule on the box around what is left of it, those that lie in
the region. They need not integrate exactly: they only have to lie as close as its polynomials vary.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._pde.stationary.curved.cells import Arc, Curved
from constrainednn._pde.stationary.discretisation import gauss_cube
from constrainednn._pde.stationary.mesh import Mesh

# Places along each coordinate of a cut element, and of an arc, for each polynomial.
_PER_POLYNOMIAL = 2


class Cut(NamedTuple):
    """Places of one element, scaled, with weights.

    Attributes:
        s: Within; those of a rule that suits all of it where nothing is cut.
        weights: Shares of the area of the element.
        whole: True if nothing is cut.
        arcs: For each part of the boundary in it, its number, places and weights: lengths as shares
            of the shortest side.
    """

    s: Float[np.ndarray, "m 2"]
    weights: Float[np.ndarray, " m"]
    whole: bool
    arcs: list[tuple[int, Float[np.ndarray, "k 2"], Float[np.ndarray, " k"]]]


class Cuts:
    """The places of all elements of a mesh, found when they are asked for."""

    def __init__(self, curved: Curved, mesh: Mesh, width: int):
        self.curved, self.mesh, self.width = curved, mesh, width
        self._found: dict[int, Cut] = {}

    @functools.cached_property
    def arcs(self) -> list[list[Arc]]:
        """Of each element."""
        return self.curved.arcs(self.mesh.low, self.mesh.high)

    @functools.cached_property
    def _even(self) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
        return gauss_cube(self.width + self.width // 4, 2)

    @functools.cached_property
    def _dense(self) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
        return gauss_cube(_PER_POLYNOMIAL * self.width, 2)

    def __getitem__(self, number: int) -> Cut:
        """Of one element."""
        if number not in self._found:
            self._found[number] = self._of(number)
        return self._found[number]

    def _of(self, number: int) -> Cut:
        low, high = self.mesh.low[number], self.mesh.high[number]
        half, middle = (high - low) / 2, (low + high) / 2
        curved, (t, shares) = self.curved, gauss_cube(_PER_POLYNOMIAL * self.width, 1)
        arcs, seen = [], [np.zeros((0, 2))]
        for part in sorted({arc.part for arc in self.arcs[number]}):
            own = [arc for arc in self.arcs[number] if arc.part == part]
            x, lengths = curved.at_rule(own, t[:, 0], shares)
            arcs.append((part, (x - middle) / half, lengths / (2 * half.min())))
            seen.append(x)
        s, weights = self._dense
        inside = curved.holds(middle + half * s)
        if inside.all():
            return Cut(*self._even, True, arcs)
        # The box around what is left.
        left = np.concatenate([*seen, (middle + half * s)[inside]])
        least, most = np.maximum(left.min(axis=0), low), np.minimum(left.max(axis=0), high)
        x = least + (most - least) * (s + 1) / 2
        kept = curved.holds(x)
        share = float(((most - least) / (high - low)).prod())
        return Cut(((x - middle) / half)[kept], (weights * share)[kept], False, arcs)

    def among(self, number: int, s: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "k 2"]:
        """Those of some scaled places, moved into the box around what is left, that lie within."""
        own = self[number]
        if own.whole or not len(own.s):
            return s if own.whole else own.s
        low, high = self.mesh.low[number], self.mesh.high[number]
        least, most = own.s.min(axis=0), own.s.max(axis=0)
        moved = least + (most - least) * (s + 1) / 2
        kept = moved[self.curved.holds(low + (high - low) * (moved + 1) / 2)]
        return kept if len(kept) else own.s
