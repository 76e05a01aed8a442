"""The error of a solution of a stationary `pde` on elements, and its residual on fresh points."""

import dataclasses
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
from constrainednn._gap.residuals import residuals_at
from constrainednn._pde.conditions import LocalEquation
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.region import SIDES
from constrainednn._pde.stationary.scheme import StationaryScheme, coefficients
from constrainednn._pde.stationary.system import System
from constrainednn.domains.boundaries import Segment, Segments
from constrainednn.models.space import SpacePieces
from constrainednn.results.error_estimate.field import FieldErrorEstimate, Fresh
from constrainednn.results.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Polynomials more in each coordinate, and Newton steps from the solution at most.
_MORE, _STEPS = 2, 2
# A second step that changes the error by more than this share says that it is far from linear.
_NONLINEAR = 0.3
# Round-off in last digits of u, at least.
_DIGITS = 30


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpaceErrorEstimate(FieldErrorEstimate):
    """True minus computed in space, from a solve with more polynomials on the same elements."""

    def plot(self) -> "Figure":
        """Draw the size of the estimate."""
        figure = new_figure(6, 4.5)
        axes, points = figure.subplots(), place_points(self.solution)
        sizes = np.linalg.norm(self(points), axis=1)
        draw_sizes(axes, self.solution, sizes, "|true - computed|")
        axes.set_title("estimated error")
        return figure


def space_error(facts: Facts) -> SpaceErrorEstimate:
    """Solve once more with more polynomials on the elements of a solution."""
    u, scheme = facts.model, facts.problem.scheme
    assert isinstance(scheme, StationaryScheme)
    width, mesh = u.width + _MORE, Mesh(*u.corners)
    key = stream(jax.random.key(facts.settings.seed), "monitor/error")
    system = System(scheme.discretisation(width, key), mesh, {} if scheme.linear else None)
    own = _padded(coefficients(u), u.width, width, scheme.dim)
    try:
        c, last = _solved(system, own)
    except np.linalg.LinAlgError:
        c = last = np.full_like(own, np.nan)
    sizes, errors, seconds = (_norms(mesh, item) for item in (own, c - own, last))
    size, error, second = (float(np.linalg.norm(item)) for item in (sizes, errors, seconds))
    rounding = _DIGITS * float(jnp.finfo(jnp.result_type(float)).eps)
    if scheme.linear:  # what a second step changes is the rounding of the first
        rounding = max(rounding, second / (size or 1.0))
    elif second > max(_NONLINEAR * error, rounding * size):
        error = np.nan
    components = errors / np.where(sizes > 0, sizes, 1.0)
    richer = scheme.stacked(mesh, c, width)
    return SpaceErrorEstimate(richer, u, error / (size or 1.0), components, rounding)


def _solved(system: System, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps from a solution, and what the last one changed."""
    last = c
    for _ in range(_STEPS):
        step = np.asarray(system.propose(jnp.asarray(c), jnp.zeros(()), None).change)
        c, last = c + step, step
    return c, last


def _padded(c: np.ndarray, K: int, width: int, dim: int) -> np.ndarray:
    """The same polynomials among more."""
    grid = c.reshape(len(c), *[K] * dim, -1)
    grid = np.pad(grid, [(0, 0), *[(0, width - K)] * dim, (0, 0)])
    return grid.reshape(len(c), -1, c.shape[2])


def _norms(mesh: Mesh, c: Float[np.ndarray, "N n d"]) -> Float[np.ndarray, " d"]:
    """Root mean squares of the components of what has these coefficients."""
    squares = (c**2).sum(axis=1) / 2 ** mesh.low.shape[1]
    return np.sqrt(mesh.area @ squares / mesh.area.sum())


def on_fresh_points(facts: Facts) -> list[Fresh]:
    """Residuals on held-out points in units of u: what was compared with the tolerance."""
    u, scheme = facts.model, facts.problem.scheme
    assert isinstance(scheme, StationaryScheme)
    mesh = Mesh(*u.corners)
    relative = (mesh.lengths.min(axis=1) / mesh.extent) ** (-scheme.equations.order / 2)
    size, found = float(np.linalg.norm(_norms(mesh, coefficients(u)))) or 1.0, []
    for constraint, points in zip(facts.problem.constraints, facts.streams, strict=True):
        drawn = points.train if points.heldout is None else points.heldout
        r = residuals_at(constraint.residual, u, drawn.points)
        if isinstance(constraint.residual, LocalEquation):
            p = np.asarray(drawn.points, float).reshape(len(r), -1)
            element = _element_of(mesh, p)
            unit = _units(constraint.residual.local, u, p, element, mesh)
            r = r * unit[element] * relative[element, None]
            if isinstance(constraint.over, (Segment, Segments)):
                # As in the solve a side counts with the elements along it, not for itself.
                axis, end = divmod(SIDES.index(constraint.name), 2)
                along = [f.element for f in mesh.faces if (f.axis, f.end) == (axis, end)]
                content = mesh.area[along] / mesh.lengths[along, axis]
                depth = mesh.lengths[element, axis] * content.sum() / mesh.area.sum()
                r = r * np.sqrt(depth)[:, None]
        found.append(Fresh(constraint.name, float(np.sqrt((r**2).sum(axis=1).mean())) / size))
    return found


def _units(
    local: LocalResidual,
    u: SpacePieces,
    p: Float[np.ndarray, "n dim"],
    element: Int[np.ndarray, " n"],
    mesh: Mesh,
) -> Float[np.ndarray, "N e"]:
    """What residuals on each element are multiplied by, from those of the points that lie there."""
    v = np.asarray(in_blocks(eqx.Partial(_seen, u, local.orders), p), float)
    G = local.linearised(v, p)[1]
    half = mesh.lengths[element] / 2
    scales = np.stack([(half ** -np.array(a)).prod(axis=1) for a in local.orders], axis=1)
    squares = ((G * scales[:, None, :, None]) ** 2).sum(axis=(2, 3))
    total, count = np.zeros((len(mesh.low), squares.shape[1])), np.bincount(element)
    np.add.at(total, element, squares)
    total[: len(count)] /= np.maximum(count, 1)[:, None]
    return 1 / np.sqrt(np.where(total > 0, total, 1.0))


def _element_of(mesh: Mesh, p: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
    """The element that each point lies in, or the one that it lies beside."""
    middle, half = (mesh.low + mesh.high) / 2, mesh.lengths / 2
    found = [np.argmin((np.abs(x - middle) / half).max(axis=1)) for x in p]
    return np.array(found, int)


def _seen(u: SpacePieces, orders: tuple, p: Array) -> Array:
    return u.derivatives(p, orders)
