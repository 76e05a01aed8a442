"""Figures of a solution in space and time."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from constrainednn._figures.curves import draw_curves, values_at
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import KNOWN, draw_map_of_sizes, new_figure
from constrainednn._gap.residuals import residuals_at
from constrainednn.models.space_time import SpaceTimePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Times and places of a map.
MAP = 161, 321
# Moments that are drawn as curves.
_MOMENTS = 4


def draw_elements(axes: "Axes", u: SpaceTimePieces) -> None:
    """The edges of all windows and of their elements, thin."""
    style = {"color": KNOWN, "lw": 0.3, "alpha": 0.6}
    for window in range(u.count):
        edges = u.elements(window)
        axes.vlines(u.ends[window + 1], edges[0], edges[-1], **style)
        axes.hlines(edges[1:-1], u.ends[window], u.ends[window + 1], **style)


def profiles(shown: Shown) -> "Figure":
    """The solution against x at a few moments above a map of its residual."""
    u, constraint = shown.model, shown.problem.constraints[0]
    figure = new_figure(11, 6.5)
    rows = figure.subplots(2, _MOMENTS, squeeze=False, sharey="row")
    times, places = map_grid(u, _MOMENTS, 801)
    reference = shown.problem.reference
    for axes, t in zip(rows[0], times, strict=True):
        p = map_points(np.array([t]), places)
        values = values_at(u, p)
        assert values is not None
        known = None if reference is None else values_at(reference, p)
        names = [f"u[{k}]" for k in range(values.shape[1])] if values.shape[1] > 1 else ["u"]
        draw_curves(axes, places, values, known, names)
        if axes is not rows[0, 0] and (legend := axes.get_legend()):
            legend.remove()  # it says the same, and lies on the curves
        axes.set(title=f"t = {t:.4g}", xlabel="x")
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=8)
    grid = rows[1, 0].get_gridspec()
    for axes in rows[1]:
        axes.remove()
    _draw_residual(figure.add_subplot(grid[1, :]), shown)
    figure.suptitle(shown.title_of(constraint), parse_math=False)
    return figure


def _draw_residual(axes: "Axes", shown: Shown) -> None:
    points = map_points(*map_grid(shown.model, *MAP))
    r = residuals_at(shown.problem.constraints[0].residual, shown.model, points)
    draw_sizes(axes, shown.model, np.linalg.norm(r, axis=1), "|r|")
    axes.set_title("residual")


def draw_sizes(axes: "Axes", u: SpaceTimePieces, sizes: Float[np.ndarray, " n"], name: str) -> None:
    """Draw sizes at the points of a map, on a logarithmic scale."""
    grid = map_grid(u, *MAP)
    draw_map_of_sizes(axes, grid, sizes.reshape([len(part) for part in grid]), name)
    axes.set(xlabel="t", ylabel="x")


def map_grid(u: SpaceTimePieces, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced times and places."""
    dtype, edges = np.asarray(u.times).dtype, u.elements(0)
    times = np.linspace(u.ends[0], u.ends[-1], n, dtype=dtype)
    return times, np.linspace(edges[0], edges[-1], m, dtype=dtype)


def map_points(times: np.ndarray, places: np.ndarray) -> Float[np.ndarray, "n 2"]:
    """All pairs (t, x)."""
    return np.stack(np.meshgrid(times, places, indexing="ij"), axis=-1).reshape(-1, 2)
