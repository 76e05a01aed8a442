"""The error of a solution of `pde` in pieces, and its residual on fresh points."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.batched import in_blocks
from constrainednn._common.random_keys import stream
from constrainednn._figures.space_time import MAP, draw_sizes, map_grid, map_points
from constrainednn._figures.style import new_figure
from constrainednn._fitting.scheme import with_found
from constrainednn._gap.residuals import residuals_at
from constrainednn._pde.conserved import Drift
from constrainednn._pde.elements.discretisation import Span, at_start, unit_of_condition
from constrainednn._pde.elements.error import MORE, solved_again
from constrainednn._pde.elements.monitor import size_of
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn.domains.finite import Data
from constrainednn.models.space_time import SpaceTimePieces, stack_windows
from constrainednn.results.error_estimate.field import Fresh, MarchErrorEstimate
from constrainednn.results.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Round-off of the solve of a window, in last digits of u: where exact solutions tell and errors do
# not grow, those of marches at round-off are 4 to 40 times the root of their number of windows.
_DIGITS = 30


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpaceTimeErrorEstimate(MarchErrorEstimate):
    """True minus computed over space and time, from a solve with more polynomials."""

    def plot(self) -> "Figure":
        """Draw the size of the estimate over time and space."""
        points = map_points(*map_grid(self.solution, *MAP))
        figure = new_figure(7, 4)
        axes = figure.subplots()
        sizes = np.linalg.norm(self(points), axis=1)
        draw_sizes(axes, self.solution, sizes, "|true - computed|")
        axes.set_title("estimated error")
        return figure


def _scheme_of(facts: Facts) -> SpaceTimeScheme:
    scheme = with_found(facts.problem.scheme, facts.model)
    assert isinstance(scheme, SpaceTimeScheme)
    return scheme


def space_time_error(facts: Facts) -> SpaceTimeErrorEstimate:
    """Solve the windows of a solution again with more polynomials."""
    u, scheme = facts.model, _scheme_of(facts)
    shape = scheme.shape[0] + MORE[0], scheme.shape[1] + MORE[1]
    # From the elements of the march: they have found what is narrow.
    allowed = scheme.goal(facts.settings.tolerance, u.coefficients.dtype)
    edges = u.elements(0)
    start = scheme.begun(shape[1], allowed, edges.tolist()).on(edges)
    key = stream(jax.random.key(facts.settings.seed), "monitor/error")
    disc = scheme.discretisation(shape, key)
    edges, own = u.pieces()
    with np.errstate(over="ignore", invalid="ignore"):
        found = solved_again(disc, start, u.ends, list(zip(edges, own, strict=True)))
    richer = stack_windows(
        *(u.ends.tolist(), edges, found.c),
        order=u.order,
        smooth=u.smooth,
        unravel=u.unravel,
        parameters=u.parameters,
        arguments=u.arguments,
    )
    until = np.inf if all(found.trusted) else float(u.ends[found.trusted.index(False)])
    padding = [(0, 0), (0, MORE[0]), (0, MORE[1]), (0, 0)]
    pairs = zip(found.c, own, strict=True)
    sizes = _norms(u, own, edges)
    errors = _norms(u, [new - np.pad(old, padding) for new, old in pairs], edges)
    grown = _norms(u, found.rounding, edges)
    size, error, grown = (float(np.linalg.norm(item)) for item in (sizes, errors, grown))
    rounding = _DIGITS * float(jnp.finfo(jnp.result_type(float)).eps) * np.sqrt(u.count)
    rounding = max(rounding, grown / (size or 1.0))
    # Of a component that is nothing but rounding beside the others no error can be told.
    clear = errors > rounding * size
    components = np.where(clear, errors / np.where(sizes > 0, sizes, 1.0), 0.0)
    return SpaceTimeErrorEstimate(richer, u, error / (size or 1.0), components, rounding, until)


def _norms(
    u: SpaceTimePieces, c: list[np.ndarray], edges: list[np.ndarray]
) -> Float[np.ndarray, " d"]:
    """Root mean squares over space and time of the components of what has these coefficients."""
    squares = [(item**2).sum(axis=(1, 2)) / 4 for item in c]
    total = sum(
        h * (np.diff(ends) @ part)
        for h, ends, part in zip(np.diff(u.ends), edges, squares, strict=True)
    )
    return np.sqrt(total / (u.ends[-1] - u.ends[0]) / (edges[0][-1] - edges[0][0]))


def on_fresh_points(facts: Facts) -> list[Fresh]:
    """Residuals on held-out points in units of u: what was compared with the tolerance."""
    u, held, scheme = facts.model, facts.streams[0].heldout, _scheme_of(facts)
    assert held is not None
    edges, own = u.pieces()
    # The largest so far, as in the march: that of one window at a time.
    size = max(size_of(c, np.diff(ends)) for ends, c in zip(edges, own, strict=True)) or 1.0
    times = np.asarray(held.points)[:, 0]
    window = np.clip(np.searchsorted(u.ends, times, side="right") - 1, 0, u.count - 1)
    key = stream(jax.random.key(facts.settings.seed), "monitor/pieces")
    disc = scheme.discretisation(scheme.shape, key)
    scales = []
    for number, h in enumerate(np.diff(u.ends)):
        here = at_start(disc, Span(u.ends[number], h), edges[number], own[number])
        scales.append(here.in_units_of_u(h))
    scales = np.stack(scales)[window]
    r = residuals_at(facts.problem.constraints[0].residual, u, held.points) * scales
    found = [Fresh(facts.gap.constraints[0].name, float(np.sqrt((r**2).sum(axis=1).mean())) / size)]
    pairs = zip(facts.problem.constraints[1:], facts.streams[1:], strict=True)
    for constraint, points in pairs:
        if isinstance(constraint.over, Data) or isinstance(constraint.residual, Drift):
            continue
        assert points.heldout is not None
        r = residuals_at(constraint.residual, u, points.heldout.points)
        side = {"left": 0, "right": 1}.get(constraint.name)
        if side is not None:
            r = r * _unit(scheme, side, u, points.heldout.points)
        found.append(Fresh(constraint.name, float(np.sqrt((r**2).sum(axis=1).mean())) / size))
    return found


def _unit(scheme: SpaceTimeScheme, side: int, u: SpaceTimePieces, points: np.ndarray) -> np.ndarray:
    """What a condition at an end is multiplied by, as in the march."""
    condition = scheme.equations.ends[side]
    assert condition is not None
    few = np.asarray(points)[:512]
    v = np.asarray(in_blocks(eqx.Partial(_seen, u, condition.orders), few), float)
    G = condition.linearised(v, few.astype(float))[1]
    h = float(np.diff(u.ends).mean())
    return unit_of_condition(condition, G, h, scheme.mesh[-1] - scheme.mesh[0])


def _seen(u: SpaceTimePieces, orders: tuple, p: Array) -> Array:
    return u.derivatives(p, orders)
