"""The error of a solution of a stationary `pde` on elements, and its residual on fresh points."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from constrainednn._common.batched import in_blocks
from constrainednn._common.random_keys import stream
from constrainednn._figures.space import draw_sizes, place_points
from constrainednn._figures.style import new_figure
from constrainednn._fitting.scheme import with_found
from constrainednn._gap.residuals import residuals_at
from constrainednn._pde.conditions import LocalEquation
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.constants import centred
from constrainednn._pde.stationary.curved.cells import Outline
from constrainednn._pde.stationary.curved.watching import root_mean_squares
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.region import SIDES
from constrainednn._pde.stationary.scheme import StationaryScheme, coefficients
from constrainednn._pde.stationary.system import System
from constrainednn._problem.problem import Problem
from constrainednn.domains.boundaries import Segment, Segments
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.results.error_estimate.field import FieldErrorEstimate, Fresh
from constrainednn.results.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Polynomials more in each coordinate.
_MORE = 2
# A residual on fresh points above this share of the terms of its equation is no solution.
_MISSED, _TINY = 0.1, float(np.finfo(float).tiny)
# A second step that changes the error by more than this share says that it is far from linear.
_NONLINEAR = 0.3
# Round-off in last digits of u, at least.
_DIGITS = 30


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpaceErrorEstimate(FieldErrorEstimate):
    """True minus computed in space, from a solve with more polynomials on the same elements.

    Attributes:
        problem: What was solved, for figures.
    """

    problem: Problem

    def plot(self) -> "Figure":
        """Draw the size of the estimate."""
        figure = new_figure(6, 4.5)
        axes, points = figure.subplots(), place_points(self.solution)
        sizes = np.linalg.norm(self(points), axis=1)
        draw_sizes(axes, self.solution, self.problem, sizes, "|true - computed|")
        axes.set_title("estimated error")
        return figure


def _scheme_of(facts: Facts) -> StationaryScheme:
    scheme = with_found(facts.problem.scheme, facts.model)
    assert isinstance(scheme, StationaryScheme)
    return scheme


def space_error(facts: Facts) -> SpaceErrorEstimate:
    """Solve once more on the elements of a solution, with more polynomials and other weights."""
    u, scheme = facts.model, _scheme_of(facts)
    width, mesh = u.width + _MORE, scheme.mesh_of(u)
    key = stream(jax.random.key(facts.settings.seed), "monitor/error")
    disc = scheme.discretisation(width, key).weighed_otherwise()
    system = System(disc, mesh, {} if scheme.linear else None)
    own = padded(coefficients(u), u.width, width, scheme.dim)
    nothing = np.full_like(own, np.nan)
    try:
        c = own + _step(system, own)
        second = np.zeros_like(own) if scheme.linear else _step(system, c)
        changed = system.sensitivity(c)
    except np.linalg.LinAlgError:
        c, second, changed = nothing, nothing, nothing
    # Another constant is no error.
    fixed = functools.partial(centred, scheme.equations, mesh, width)
    c, second, changed = fixed(c + second), fixed(second), fixed(changed)
    norms = functools.partial(root_mean_squares, mesh, width)
    sizes, errors = norms(own), norms(c - own)
    size, error, last, moved = (
        float(np.linalg.norm(norms(item))) for item in (own, c - own, second, changed)
    )
    unit = float(jnp.finfo(jnp.result_type(float)).eps)
    rounding = unit * max(_DIGITS, moved / size) if size else unit * moved
    if last > max(_NONLINEAR * error, rounding * size):
        error = np.nan
    # Of a component that is nothing but rounding beside the others no error can be told.
    clear = errors > rounding * size
    components = np.where(clear, errors / np.where(sizes > 0, sizes, 1.0), 0.0)
    richer = scheme.stacked(mesh, c, width)
    relative = error / (size or 1.0)
    return SpaceErrorEstimate(richer, u, relative, components, rounding, facts.problem)


def _step(system: System, c: np.ndarray) -> np.ndarray:
    return np.asarray(system.propose(jnp.asarray(c), jnp.zeros(()), None).change, float)


def padded(c: np.ndarray, K: int, width: int, dim: int) -> np.ndarray:
    """The same polynomials among more."""
    grid = c.reshape(len(c), *[K] * dim, -1)
    grid = np.pad(grid, [(0, 0), *[(0, width - K)] * dim, (0, 0)])
    return grid.reshape(len(c), -1, c.shape[2])


def on_fresh_points(facts: Facts) -> list[Fresh]:
    """Residuals on held-out points in units of u: what was compared with the tolerance."""
    u, scheme = facts.model, _scheme_of(facts)
    mesh = scheme.mesh_of(u)
    relative = (mesh.lengths.min(axis=1) / mesh.extent) ** (-scheme.equations.order / 2)
    size, found = (
        float(np.linalg.norm(root_mean_squares(mesh, u.width, coefficients(u)))) or 1.0,
        [],
    )
    missed = 0.0
    for constraint, points in zip(facts.problem.constraints, facts.streams, strict=True):
        if isinstance(constraint.over, Data):  # what unknowns are estimated from
            continue
        drawn = points.train if points.heldout is None else points.heldout
        r = residuals_at(constraint.residual, u, drawn.points)
        if isinstance(constraint.residual, LocalEquation):
            p = np.asarray(drawn.points, float).reshape(len(r), -1)
            element = element_of(mesh, p)
            unit, terms = units_of(constraint.residual.local, u, p, r, element, mesh)
            if not found:
                missed = float(np.max(np.sqrt((r**2).mean(axis=0)) / (terms + _TINY)))
            r = r * unit[element] * relative[element, None]
            if isinstance(constraint.over, (Segment, Segments)):
                # As in the solve a side counts with the elements along it, not for itself.
                axis, end = divmod(SIDES.index(constraint.name), 2)
                along = mesh.along(axis, end)
                content = mesh.area[along] / mesh.lengths[along, axis]
                depth = mesh.lengths[element, axis] * content.sum() / mesh.area.sum()
                r = r * np.sqrt(depth)[:, None]
            elif isinstance(constraint.over, RegionBoundary):
                assert isinstance(mesh.region, Outline)
                depth = mesh.region.length_of(constraint.name) / mesh.lengths[element].min(axis=1)
                share = mesh.area[element] / mesh.area.sum()
                r = r * np.sqrt(depth * share)[:, None]
            elif isinstance(constraint.over, Points):
                r = r * np.sqrt(mesh.area[element] / mesh.area.sum())[:, None]
        found.append(Fresh(constraint.name, float(np.sqrt((r**2).sum(axis=1).mean())) / size))
    # Elements that shrink make any residual small in units of u, that of a contradiction too.
    if missed > _MISSED:
        found[0] = found[0]._replace(size=max(found[0].size, missed))
    return found


def units_of(
    local: LocalResidual,
    u: SpacePieces | PlaneTimePieces,
    p: Float[np.ndarray, "n dim"],
    r: Float[np.ndarray, "n e"],
    element: Int[np.ndarray, " n"],
    mesh: Mesh,
) -> tuple[Float[np.ndarray, "N e"], Float[np.ndarray, " e"]]:
    """What residuals on each element are multiplied by, from those of the points that lie there.

    And the size of the terms of each equation, at least that of u over the extent of the domain.
    """
    local = local.given(u.parameters)
    v = np.asarray(in_blocks(eqx.Partial(_seen, u, local.orders), p), float)
    G = local.linearised(v, p)[1]
    half = mesh.lengths[element] / 2
    scales = np.stack([(half ** -np.array(a)).prod(axis=1) for a in local.orders], axis=1)
    squares = ((G * scales[:, None, :, None]) ** 2).sum(axis=(2, 3))
    total, count = np.zeros((len(mesh.low), squares.shape[1])), np.bincount(element)
    np.add.at(total, element, squares)
    total[: len(count)] /= np.maximum(count, 1)[:, None]
    parts = np.einsum("nead,nad->nea", G, v)
    terms = np.abs(parts).sum(axis=2) + np.abs(r - parts.sum(axis=2))
    powers = np.array([mesh.extent ** -sum(a) for a in local.orders])
    least = np.sqrt((G**2).mean(axis=0).sum(axis=2)) @ powers * np.sqrt((v[:, 0] ** 2).mean())
    terms = np.maximum(np.sqrt((terms**2).mean(axis=0)), least)
    return 1 / np.sqrt(np.where(total > 0, total, 1.0)), terms


def element_of(mesh: Mesh, p: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
    """The element that each point lies in, or the one that it lies beside."""
    middle, half = (mesh.low + mesh.high) / 2, mesh.lengths / 2
    found = [np.argmin((np.abs(x - middle) / half).max(axis=1)) for x in p]
    return np.array(found, int)


def _seen(u: SpacePieces | PlaneTimePieces, orders: tuple, p: Array) -> Array:
    return u.derivatives(p, orders)
