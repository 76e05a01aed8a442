"""Figures of a solution in space: a curve, or a map with its elements."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from constrainednn._figures.curves import draw_curves, values_at
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import KNOWN, new_figure, on_log_axis
from constrainednn._gap.residuals import residuals_at
from constrainednn.models.space import SpacePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Places along each coordinate of a map, and of a curve.
_MAP, _CURVE = 201, 801
# Powers of ten below the largest that a map of sizes shows.
_DECADES = 8


def map_points(u: SpacePieces) -> np.ndarray:
    """Equally spaced points of all of the domain: numbers, or rows of coordinates."""
    low, high = (item.astype(np.asarray(u.low).dtype) for item in u.corners)
    low, high = low.min(axis=0), high.max(axis=0)
    if u.scalar:
        return np.linspace(low[0], high[0], _CURVE)
    axes = [np.linspace(a, b, _MAP) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))


def draw_field(axes: "Axes", shown: Shown) -> None:
    """The first component in space, with the elements; in one dimension all of them as curves."""
    u, points = shown.model, map_points(shown.model)
    values = values_at(u, points)
    assert values is not None
    if u.scalar:
        reference = shown.problem.reference
        known = None if reference is None else values_at(reference, points)
        draw_curves(axes, points, values, known)
        axes.set(xlabel="x", title="u(x)")
        return
    top = np.nanmax(np.abs(values[:, 0]))
    signed = np.nanmin(values[:, 0]) < -1e-6 * top
    colours = {"cmap": "RdBu_r", "vmin": -top, "vmax": top} if signed else {"cmap": "viridis"}
    _draw_map(axes, u, points, values[:, 0], colours)
    axes.set_title(f"{'u[0]' if values.shape[1] > 1 else 'u'}(x, y), with elements")


def draw_sizes(
    axes: "Axes", u: SpacePieces, points: np.ndarray, sizes: Float[np.ndarray, " n"], name: str
) -> None:
    """Draw sizes at the points of a map, on a logarithmic scale."""
    if u.scalar:
        axes.semilogy(points, on_log_axis(sizes))
        axes.set(xlabel="x", ylabel=name)
        return
    shade = np.log10(on_log_axis(sizes))
    top = np.nanquantile(shade, 0.999)  # one place of a corner would hide all others
    colours = {"cmap": "viridis", "vmin": top - _DECADES, "vmax": top}
    _draw_map(axes, u, points, shade, colours, f"log10 {name}")


def draw_residual(axes: "Axes", shown: Shown) -> None:
    """The size of the residual of the equation."""
    points = map_points(shown.model)
    r = residuals_at(shown.problem.constraints[0].residual, shown.model, points)
    draw_sizes(axes, shown.model, points, np.linalg.norm(r, axis=1), "|r|")
    axes.set_title(f"residual on {shown.model.count} elements")


def solution_beside_residual(shown: Shown) -> "Figure":
    """The solution and the size of its residual."""
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    draw_field(left, shown)
    draw_residual(right, shown)
    figure.suptitle(shown.title_of(shown.problem.constraints[0]), parse_math=False)
    return figure


def _draw_map(
    axes: "Axes",
    u: SpacePieces,
    points: np.ndarray,
    values: np.ndarray,
    colours: dict,
    name: str = "",
) -> None:
    x, y = (np.unique(points[:, i]) for i in (0, 1))
    shade = values.reshape(len(x), len(y)).T
    image = axes.pcolormesh(x, y, shade, rasterized=True, **colours)
    axes.figure.colorbar(image, ax=axes, label=name)
    for low, high in zip(*u.corners, strict=True):
        a, b = (
            [low[0], high[0], high[0], low[0], low[0]],
            [low[1], low[1], high[1], high[1], low[1]],
        )
        axes.plot(a, b, color=KNOWN, lw=0.3, alpha=0.6)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
