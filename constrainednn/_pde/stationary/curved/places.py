"""Where the equation and the conditions are asked in elements that a boundary cuts.

Of a cut element the places of a Gauss rule on the box around what is left of it, those that lie in
the region. They need not integrate exactly: they only have to lie as close as its polynomials vary.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._pde.stationary.curved.cells import Arc, Outline
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

    def __init__(self, outline: Outline, mesh: Mesh, width: int):
        self.outline, self.mesh, self.width = outline, mesh, width

    def __getitem__(self, number: int) -> Cut:
        """Of one element."""
        low, high, known = self.mesh.low[number], self.mesh.high[number], self.outline.cuts
        key = (low.tobytes(), high.tobytes(), self.width)
        if key not in known:
            known[key] = self._of(self.mesh.arcs[number], low, high)
        return known[key]

    def _of(
        self, within: list[Arc], low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]
    ) -> Cut:
        half, middle, outline = (high - low) / 2, (low + high) / 2, self.outline
        t, shares = gauss_cube(_PER_POLYNOMIAL * self.width, 1)
        arcs, seen = [], [np.zeros((0, 2))]
        for part in sorted({arc.part for arc in within}):
            own = [arc for arc in within if arc.part == part]
            x, lengths = outline.at_rule(own, t[:, 0], shares)
            arcs.append((part, (x - middle) / half, lengths / (2 * half.min())))
            seen.append(x)
        s, weights = _dense(self.width)
        inside = outline.holds(middle + half * s)
        if inside.all():
            return Cut(*_even(self.width), True, arcs)
        # The box around what is left.
        left = np.concatenate([*seen, (middle + half * s)[inside]])
        least, most = np.maximum(left.min(axis=0), low), np.minimum(left.max(axis=0), high)
        x = least + (most - least) * (s + 1) / 2
        kept = outline.holds(x)
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
        kept = moved[self.outline.holds(low + (high - low) * (moved + 1) / 2)]
        return kept if len(kept) else own.s


@functools.cache
def _even(width: int) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
    return gauss_cube(width + width // 4, 2)


@functools.cache
def _dense(width: int) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
    return gauss_cube(_PER_POLYNOMIAL * width, 2)
