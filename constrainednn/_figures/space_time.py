"""Figures of a solution in space and time."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from constrainednn._figures.curves import draw_curves, values_at
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import KNOWN, new_figure, on_log_axis
from constrainednn._gap.residuals import residuals_at
from constrainednn.models.space_time import SpaceTimePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Times and places of a map.
MAP = 161, 321
# Moments that are drawn as curves.
_MOMENTS = 4
# Powers of ten below the largest that a map of sizes shows.
_DECADES = 8


def draw_field(axes: "Axes", shown: Shown) -> None:
    """The first component over time and space, with the elements of each window."""
    u = shown.model
    times, places = map_grid(u, *MAP)
    values = values_at(u, map_points(times, places))
    assert values is not None
    top = np.nanmax(np.abs(values[:, 0]))
    signed = np.nanmin(values[:, 0]) < 0
    image = axes.pcolormesh(
        times,
        places,
        values[:, 0].reshape(len(times), -1).T,
        cmap="RdBu_r" if signed else "viridis",
        vmin=-top if signed else None,
        vmax=top if signed else None,
        rasterized=True,
    )
    axes.figure.colorbar(image, ax=axes)
    draw_elements(axes, u)
    which = "u[0]" if values.shape[1] > 1 else "u"
    axes.set(xlabel="t", ylabel="x", title=f"{which}(t, x), with windows and elements")


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
    rows = figure.subplots(2, _MOMENTS, squeeze=False)
    times, places = map_grid(u, _MOMENTS, 801)
    reference = shown.problem.reference
    for axes, t in zip(rows[0], times, strict=True):
        p = map_points(np.array([t]), places)
        values = values_at(u, p)
        assert values is not None
        draw_curves(axes, places, values, None if reference is None else values_at(reference, p))
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
    times, places = map_grid(u, *MAP)
    shade = np.log10(on_log_axis(sizes)).reshape(len(times), -1).T
    top = np.nanmax(shade, initial=-300.0)
    image = axes.pcolormesh(
        times, places, shade, vmin=top - _DECADES, vmax=top, cmap="viridis", rasterized=True
    )
    axes.figure.colorbar(image, ax=axes, label=f"log10 {name}")
    axes.set(xlabel="t", ylabel="x")


def map_grid(u: SpaceTimePieces, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced times and places."""
    dtype, edges = np.asarray(u.times).dtype, u.elements(0)
    times = np.linspace(u.ends[0], u.ends[-1], n, dtype=dtype)
    return times, np.linspace(edges[0], edges[-1], m, dtype=dtype)


def map_points(times: np.ndarray, places: np.ndarray) -> Float[np.ndarray, "n 2"]:
    """All pairs (t, x)."""
    return np.stack(np.meshgrid(times, places, indexing="ij"), axis=-1).reshape(-1, 2)
