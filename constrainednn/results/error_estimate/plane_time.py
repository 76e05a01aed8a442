"""The error of a solution of `pde` in time and the plane, and its residual on fresh points."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._common.random_keys import stream
from constrainednn._figures.panels.plane_time import draw_snapshots
from constrainednn._gap.residuals import residuals_at
from constrainednn._pde.conditions import LocalEquation
from constrainednn._pde.evolving.march import window
from constrainednn._pde.evolving.scheme import PlaneTimeScheme
from constrainednn._pde.evolving.start import GivenState, LastState
from constrainednn._pde.stationary.curved.watching import root_mean_squares
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn.models.space import PlaneTimePieces
from constrainednn.results.error_estimate.field import Fresh, MarchErrorEstimate
from constrainednn.results.error_estimate.space import element_of, padded, units_of
from constrainednn.results.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Polynomials more in each coordinate.
_MORE = 1
# Newton steps of a window that is solved again.
_STEPS = 8
# Round-off of the solve of a window, in last digits of u.
_DIGITS = 30


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PlaneTimeErrorEstimate(MarchErrorEstimate):
    """True minus computed over time and the plane, from a march with more polynomials."""

    def plot(self) -> "Figure":
        """Draw the size of the estimate at four times."""
        sizes = lambda p: np.linalg.norm(self(p), axis=1)  # noqa: E731
        return draw_snapshots(self.solution, sizes, "|true - computed|", sized=True)


def plane_time_error(facts: Facts) -> PlaneTimeErrorEstimate:
    """March again over the windows of a solution, with more polynomials."""
    u, scheme = facts.model, facts.problem.scheme
    assert isinstance(scheme, PlaneTimeScheme)
    width, found, until = u.width + _MORE, [], np.inf
    key = stream(jax.random.key(facts.settings.seed), "monitor/error")
    disc, state = scheme.discretisation(width, key).weighed_otherwise(), GivenState(scheme.start)
    windows = scheme.windows_of(u)
    for mesh, _ in windows:
        begin, stop = float(mesh.low[0, 0]), float(mesh.high[0, 0])
        corners = mesh.low[:, 1:], mesh.high[:, 1:]
        again = window(disc, scheme.linear, scheme.order, *corners, state, begin, stop)
        if again.solve_once(_STEPS) or again.unsolved:
            until = begin
            break
        found.append(again.c)
        state = LastState(scheme.stacked(mesh, again.c, width).boxes, scheme.order)
    own = [padded(c, u.width, width, 3) for _, c in windows]
    found += [np.full_like(c, np.nan) for c in own[len(found) :]]
    whole, c, old = Mesh(*u.boxes.corners), np.concatenate(found), np.concatenate(own)
    sizes, errors = (root_mean_squares(whole, width, item) for item in (old, c - old))
    size, error = (float(np.linalg.norm(item)) for item in (sizes, errors))
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    rounding = _DIGITS * eps * np.sqrt(len(windows))
    # Of a component that is nothing but rounding beside the others no error can be told.
    clear = errors > rounding * size
    components = np.where(clear, errors / np.where(sizes > 0, sizes, 1.0), 0.0)
    richer = scheme.stacked(whole, c, width)
    return PlaneTimeErrorEstimate(richer, u, error / (size or 1.0), components, rounding, until)


def on_fresh_points(facts: Facts) -> list[Fresh]:
    """Residuals on held-out points in units of u: what was compared with the tolerance."""
    u, scheme = facts.model, facts.problem.scheme
    assert isinstance(u, PlaneTimePieces) and isinstance(scheme, PlaneTimeScheme)
    mesh, found = Mesh(*u.boxes.corners), []
    # The largest, as in the march: that of one window at a time.
    sizes = [root_mean_squares(part, u.width, c) for part, c in scheme.windows_of(u)]
    size = max(float(np.linalg.norm(item)) for item in sizes) or 1.0
    for constraint, points in zip(facts.problem.constraints, facts.streams, strict=True):
        drawn = points.train if points.heldout is None else points.heldout
        r = residuals_at(constraint.residual, u, drawn.points)
        if isinstance(constraint.residual, LocalEquation):
            p = np.asarray(drawn.points, float)
            element = element_of(mesh, p)
            unit, _ = units_of(constraint.residual.local, u, p, r, element, mesh)
            r = r * unit[element]
        found.append(Fresh(constraint.name, _rms(r) / size))
    return found


def _rms(r: Float[np.ndarray, "n e"]) -> float:
    return float(np.sqrt((r**2).sum(axis=1).mean()))
