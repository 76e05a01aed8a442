"""Residuals of elements that a boundary cuts between their places, and the places themselves."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.curved.cells import Outline
from constrainednn._pde.stationary.curved.places import Cuts
from constrainednn._pde.stationary.curved.rows import seen_at
from constrainednn._pde.stationary.discretisation import Discretisation, clear_of_rounding, tables
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.samplers.base import Draw

# Training points that a report measures at most.
_MOST_POINTS = 40_000


def watched_within(
    disc: Discretisation, mesh: Mesh, c: Float[np.ndarray, "N n d"]
) -> Float[np.ndarray, " N"]:
    """As `watched`, at places within the region and on its boundary."""
    assert isinstance(mesh.region, Outline)
    cuts, squares = Cuts(mesh.region, mesh, disc.width), np.zeros(len(c))
    for residual, places in _watched_places(disc, cuts, len(c)):
        seen = seen_at(residual, disc, mesh, c, places)
        for place, (number, _) in enumerate(places):
            squares[number] += clear_of_rounding(
                *(seen.T[place], seen.r[place][None], seen.G[place][None]),
                *(seen.unit[place][None], c[number][None]),
            )[0]
    return np.sqrt(squares) * disc.weights(mesh)


def root_mean_squares(
    mesh: Mesh, width: int, c: Float[np.ndarray, "N n d"]
) -> Float[np.ndarray, " d"]:
    """Root mean squares of components, of elements that are cut by the weights of the places.

    Beyond the boundary a polynomial is what rounding makes of it.
    """
    if not isinstance(mesh.region, Outline):
        squares = (c**2).sum(axis=1) / 2 ** mesh.low.shape[1]
        return np.sqrt(mesh.area @ squares / mesh.area.sum())
    cuts, total = Cuts(mesh.region, mesh, width), np.zeros(c.shape[2])
    for number, area in enumerate(mesh.area):
        own = cuts[number]
        values = tables(own.s, width, ((0, 0),))[0] @ c[number]
        total += area * (own.weights @ values**2)
    return np.sqrt(total / mesh.area.sum())


def _watched_places(
    disc: Discretisation, cuts: Cuts, count: int
) -> list[tuple[LocalResidual, list[tuple[int, np.ndarray]]]]:
    within = [(n, cuts.among(n, disc.monitor)) for n in range(count)]
    groups = [(disc.equations.interior, [item for item in within if len(item[1])])]
    s, even = disc.on_faces[:, 0], np.full(len(disc.on_faces), 1 / len(disc.on_faces))
    for part, condition in enumerate(disc.equations.faces):
        along = []
        for n, arcs in enumerate(cuts.mesh.arcs):
            own = [arc for arc in arcs if arc.part == part]
            if own:
                x = cuts.outline.at_rule(own, s, even)[0]
                low, high = cuts.mesh.low[n], cuts.mesh.high[n]
                along.append((n, (x - low) / (high - low) * 2 - 1))
        if condition is not None and along:
            groups.append((condition, along))
    return groups


def training_draw(disc: Discretisation, mesh: Mesh, constraint: Constraint) -> Draw | None:
    """The rows of the solve for one constraint: places within, or on a part of the boundary."""
    assert isinstance(mesh.region, Outline)
    cuts, curved = Cuts(mesh.region, mesh, disc.width), mesh.region.curved
    names = curved.boundary.names
    points, weights = [], []
    for number, area in enumerate(mesh.area):
        low, high = mesh.low[number], mesh.high[number]
        own = cuts[number]
        if isinstance(constraint.over, RegionBoundary):
            short = float((high - low).min())
            found = [(s, w * short) for part, s, w in own.arcs if names[part] == constraint.name]
        elif isinstance(constraint.over, AbstractShape):
            found = [(own.s, own.weights * area)]
        else:
            return None
        points.extend(low + (high - low) * (s + 1) / 2 for s, _ in found)
        weights.extend(w for _, w in found)
    every = max(1, sum(map(len, points)) // _MOST_POINTS)
    x, share = np.concatenate(points)[::every], np.concatenate(weights)[::every]
    low, high = curved.ends
    cube, dtype = (x - low) / (high - low), jnp.result_type(float)
    if isinstance(constraint.over, RegionBoundary):
        cube = cube[:, :1]
    return Draw(x.astype(dtype), (share / share.sum()).astype(dtype), cube.astype(dtype))
