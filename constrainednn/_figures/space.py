"""Figures of a solution in space: a curve, or a map with its elements."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from constrainednn._figures.curves import draw_curves, values_at
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import (
    KNOWN,
    draw_map_of_sizes,
    draw_map_of_values,
    new_figure,
    on_log_axis,
)
from constrainednn._gap.residuals import residuals_at
from constrainednn._problem.problem import Problem
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boundaries import BoxBoundary, Segment, Segments
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.models.space import SpacePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Places along each coordinate of a map, of a curve, and of a side of an element.
_MAP, _CURVE, _EDGE = 201, 801, 33


def place_grid(u: SpacePieces) -> tuple[np.ndarray, ...]:
    """Equally spaced places along each coordinate of a box around all elements."""
    low, high = (item.astype(np.asarray(u.low).dtype) for item in u.corners)
    ends = zip(low.min(axis=0), high.max(axis=0), strict=True)
    return tuple(np.linspace(a, b, _CURVE if u.scalar else _MAP) for a, b in ends)


def place_points(u: SpacePieces) -> np.ndarray:
    """All points of that grid: numbers, or rows of coordinates."""
    grid = place_grid(u)
    if u.scalar:
        return grid[0]
    return np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, len(grid))


def held_in(problem: Problem, places: np.ndarray) -> np.ndarray:
    """Which places lie in the regions that constraints hold over, if all are such."""
    over = [item.over for item in problem.constraints]
    regions = [item for item in over if isinstance(item, AbstractShape)]
    lines = AbstractShape, BoxBoundary, RegionBoundary, Segment, Segments
    known = all(isinstance(item, lines) for item in over if isinstance(item, AbstractDomain))
    if not regions or not known or any(len(item.bounds[0]) != places.shape[1] for item in regions):
        return np.ones(len(places), bool)
    return np.any([item.holds(places) for item in regions], axis=0)


def draw_boxes(axes: "Axes", u: SpacePieces, problem: Problem) -> None:
    """The edges of all elements, thin, as far as they lie in the region."""
    low, high = u.corners
    corners = np.stack([low, [1, 0] * high + [0, 1] * low, high, [1, 0] * low + [0, 1] * high], 1)
    share = np.linspace(0, 1, _EDGE)[:, None]
    sides = np.roll(corners, -1, axis=1) - corners
    lines = corners[:, :, None] + share * sides[:, :, None]
    inside = held_in(problem, lines.reshape(-1, 2)).reshape(lines.shape[:3])
    for line in np.where(inside[..., None], lines, np.nan).reshape(len(low), -1, 2):
        axes.plot(*line.T, color=KNOWN, lw=0.3, alpha=0.6)


def draw_sizes(
    axes: "Axes", u: SpacePieces, problem: Problem, sizes: Float[np.ndarray, " n"], name: str
) -> None:
    """Draw sizes at the points of the grid, on a logarithmic scale."""
    grid = place_grid(u)
    if u.scalar:
        axes.semilogy(grid[0], on_log_axis(sizes), color=KNOWN, lw=1)
        axes.set(xlabel="x", ylabel=name)
        return
    sizes = np.where(held_in(problem, place_points(u)), sizes, np.nan)
    draw_map_of_sizes(axes, grid, sizes.reshape([len(part) for part in grid]), name)
    draw_boxes(axes, u, problem)
    axes.set(xlabel="x", ylabel="y", aspect="equal")


def solution_beside_residual(shown: Shown) -> "Figure":
    """The first component and the size of the residual."""
    u, constraint, points = shown.model, shown.problem.constraints[0], place_points(shown.model)
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    values, r = values_at(u, points), residuals_at(constraint.residual, u, points)
    assert values is not None
    if u.scalar:
        names = [f"u[{k}]" for k in range(values.shape[1])] if values.shape[1] > 1 else ["u"]
        reference = shown.problem.reference
        known = None if reference is None else values_at(reference, points)
        draw_curves(left, points, values, known, names)
        left.set(xlabel="x", title="u(x)")
    else:
        grid = place_grid(u)
        inside = held_in(shown.problem, points)
        values = np.where(inside[:, None], values, np.nan)
        name = "u[0]" if values.shape[1] > 1 else "u"
        draw_map_of_values(left, grid, values[:, 0].reshape([len(part) for part in grid]), name)
        draw_boxes(left, u, shown.problem)
        left.set(xlabel="x", ylabel="y", aspect="equal", title=f"{name}(x, y), with elements")
    draw_sizes(right, u, shown.problem, np.linalg.norm(r, axis=1), "|r|")
    right.set_title(f"residual on {u.count} elements")
    figure.suptitle(shown.title_of(constraint), parse_math=False)
    return figure
