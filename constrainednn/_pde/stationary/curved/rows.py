"""Rows of elements that a boundary cuts, and their residuals where they are watched.

A polynomial on a box of which the region fills a part is not determined by what it is in that part,
within rounding. Of all that satisfy the rows the smallest is taken: each coefficient is held by a
row of some rounding units of its column.

Source:
    Adcock and Huybrechs, SIAM Review 61 (2019) 443 (least squares with frames).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.curved.places import Cuts
from constrainednn._pde.stationary.discretisation import (
    Discretisation,
    Rows,
    derivatives_of_u,
    in_units_of_u,
    tables,
    weighted_rows,
    with_right,
)
from constrainednn._pde.stationary.mesh import Mesh

# Rows that hold coefficients weigh as much as so many rounding units of all others.
_HOLD = 16 * float(np.finfo(float).eps)


class SeenApart:
    """A residual at scaled places of some elements, which differ from one to the next.

    Attributes:
        T: Tables of each.
        r: Residuals of each (m, e).
        right: The same as one right-hand side, or their derivatives by the unknowns (m, e, k).
        G: Their derivatives by what they see, in scaled coordinates (m, e, a, d).
        unit: What they are multiplied by (e,) to be in units of u.
        scales: From derivatives in scaled coordinates to those of u (a,).
    """

    def __init__(
        self,
        residual: LocalResidual,
        width: int,
        c: Sequence[Float[np.ndarray, "n d"]],
        corners: Sequence[tuple[np.ndarray, np.ndarray]],
        s: Sequence[Float[np.ndarray, "m 2"]],
        *,
        unknowns: bool = False,
    ):
        half = np.array([(high - low) / 2 for low, high in corners])
        self.scales = np.stack([(half ** -np.array(a)).prod(axis=1) for a in residual.orders], 1)
        self.T = [tables(own, width, residual.orders) for own in s]
        v = [
            derivatives_of_u(T, own[None], scale[None])[0]
            for T, own, scale in zip(self.T, c, self.scales, strict=True)
        ]
        p = [
            low + (own + 1) / 2 * (high - low) for own, (low, high) in zip(s, corners, strict=True)
        ]
        found = with_right(residual, np.concatenate(v), np.concatenate(p), unknowns=unknowns)
        ends = np.cumsum([len(own) for own in s])[:-1]
        self.r, self.right, G = (np.split(item, ends) for item in found)
        self.G = [own * scale[:, None] for own, scale in zip(G, self.scales, strict=True)]
        self.unit = [in_units_of_u(own[None])[0] for own in self.G]

    def rows(self, place: int, root: Float[np.ndarray, " m"], balance: int | None) -> Rows:
        """Rows of one element in its coefficients, in units of u, and what is right of them."""
        own = self.G[place], self.right[place], self.unit[place], self.T[place]
        return weighted_rows(*own, root, balance)


def rows_of_cut(
    disc: Discretisation,
    mesh: Mesh,
    cuts: Cuts,
    weight: Float[np.ndarray, " N"],
    c: Float[np.ndarray, "N n d"],
    wanted: Sequence[int],
    *,
    unknowns: bool,
) -> list[Rows]:
    """Rows of some elements: the equation within, and the conditions on the arcs in them."""
    found: dict[int, list[Rows]] = {number: [] for number in wanted}
    for residual, places in groups_of(disc, cuts, wanted):
        own = [number for number, _, _ in places]
        where = [(number, s) for number, s, _ in places]
        seen = seen_at(residual, disc, mesh, c, where, unknowns=unknowns)
        within = residual is disc.equations.interior
        stress, balance = (1.0, disc.equations.balance) if within else (disc.stress, None)
        for place, (number, (_, _, weights)) in enumerate(zip(own, places, strict=True)):
            root = stress * weight[number] * np.sqrt(weights)
            found[number].append(seen.rows(place, root, balance))
    return [stacked(found[n]) for n in wanted]


# The numbers of rows differ: of such arguments shapes are not annotated.
def stacked(parts: Sequence[tuple]) -> Rows:
    """Rows below each other."""
    J, right, b = zip(*parts, strict=True)
    return np.vstack(J), np.concatenate(right), np.concatenate(b)


def groups_of(
    disc: Discretisation, cuts: Cuts, wanted: Sequence[int]
) -> list[tuple[LocalResidual, list[tuple[int, np.ndarray, np.ndarray]]]]:
    """Each residual with the elements it is asked in, the places there and their weights."""
    within = [(n, cuts[n].s, cuts[n].weights) for n in wanted if len(cuts[n].s)]
    groups = [(disc.equations.interior, within)] if within else []
    for part, condition in enumerate(disc.equations.faces):
        along = [(n, s, w) for n in wanted for k, s, w in cuts[n].arcs if k == part]
        if condition is not None and along:
            groups.append((condition, along))
    return groups


def seen_at(
    residual: LocalResidual,
    disc: Discretisation,
    mesh: Mesh,
    c: Float[np.ndarray, "N n d"],
    places: Sequence[tuple[int, np.ndarray]],
    *,
    unknowns: bool = False,
) -> SeenApart:
    """A residual at places of some elements."""
    numbers = [number for number, _ in places]
    corners = [(mesh.low[n], mesh.high[n]) for n in numbers]
    own, s = [c[n] for n in numbers], [s for _, s in places]
    return SeenApart(residual, disc.width, own, corners, s, unknowns=unknowns)


def held(own: tuple, T: Float[np.ndarray, "traces nd"], c: Float[np.ndarray, "nd k"]) -> Rows:
    """Rows of an element with those that hold its coefficients, which come last."""
    size = _HOLD * np.sqrt((own[0] ** 2).sum(axis=0) + (T**2).sum(axis=0))
    return stacked([own, (np.diag(size), size[:, None] * c, np.zeros_like(size))])
