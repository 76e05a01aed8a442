"""Panels that show a solution: its values, its error, and its path."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.curves import draw_cloud, draw_curves, hues, window
from constrainednn._figures.panels.plane_time import draw_last_boxes
from constrainednn._figures.shown import Shown
from constrainednn._figures.space import draw_boxes
from constrainednn._figures.space_time import draw_elements
from constrainednn._figures.style import (
    COMPONENTS,
    HELDOUT,
    KNOWN,
    LEGEND,
    TRAIN,
    draw_map_of_sizes,
    draw_map_of_values,
    on_log_axis,
    say,
    widen,
)
from constrainednn._pages.drawing.plot import early, is_plane
from constrainednn._pages.evaluated import Evaluated
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_solution(axes: "Axes", shown: Shown, seen: Evaluated, names: Sequence[str] = ()) -> None:
    """Draw a solution: a curve of each component, a field of the first, or the image of a map."""
    if len(seen.images):
        _draw_image(axes, shown, seen)
    elif len(seen.grid) == 1:
        _draw_curves(axes, seen, names)
    elif len(seen.grid) == 2:
        name = component_names(seen.values.shape[-1], names)[0]
        draw_map_of_values(axes, seen.grid, seen.values[..., 0], name)
        axes.set(xlabel=seen.axes[0], ylabel=seen.axes[1])
        axes.set_title(f"{name}({seen.axes[0]}, {seen.axes[1]})", parse_math=False)
        scale_alike(axes, seen)
        if isinstance(shown.model, PlaneTimePieces):
            axes.set_title(f"{name} at t = {shown.model.ends[-1]:.4g}", parse_math=False)
            draw_last_boxes(axes, shown.model)
        elif isinstance(shown.model, SpaceTimePieces):
            draw_elements(axes, shown.model)
        elif isinstance(shown.model, SpacePieces):
            draw_boxes(axes, shown.model, shown.problem)
    else:
        say(axes, "the solution is no function of one or two numbers")


def scale_alike(axes: "Axes", seen: Evaluated) -> None:
    """One scale for both coordinates of a plane."""
    if is_plane(seen.axes, *(float(part[-1] - part[0]) for part in seen.grid)):
        axes.set_aspect("equal")


def component_names(count: int, given: Sequence[str] = ()) -> list[str]:
    """Names of components."""
    return list(given) or (["u"] if count == 1 else [f"u[{k}]" for k in range(count)])


def _draw_curves(axes: "Axes", seen: Evaluated, names: Sequence[str]) -> None:
    x, known = seen.grid[0], seen.reference if seen.reference.size else None
    if early(x):
        axes.set_xscale("log")
        x = np.maximum(x, x[1] / 3)
    draw_curves(axes, x, seen.values, known, component_names(seen.values.shape[-1], names))
    for item in seen.residuals:
        parts = (
            (item.heldout, item.heldout_rows, HELDOUT, ".", "held-out"),
            (item.train, item.train_rows, TRAIN, "+", "train"),
        )
        for points, measured, colour, marked, which in parts:
            if not measured.size:
                continue
            label = f"{item.name}, {which}"
            for column in measured.T:
                axes.plot(points[:, 0], column, marked, color=colour, ms=5, alpha=0.7, label=label)
                label = "_"  # one entry of the legend for all columns
            axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel=seen.axes[0], title=f"u({seen.axes[0]})")
    widen(axes)


def _draw_image(axes: "Axes", shown: Shown, seen: Evaluated) -> None:
    found = shown.first_with_heldout()
    target = None if found is None else found[0].target
    colours = hues(seen.inputs[:, :2])
    draw_cloud(axes, seen.images, colours, window([seen.images], target), target)
    more = ", first two entries" if seen.images.shape[1] > 2 else ""
    axes.set(xlabel="u[0]", ylabel="u[1]")
    axes.set_title(f"u(x) at {len(seen.images)} held-out points{more}")


def draw_error(axes: "Axes", seen: Evaluated) -> None:
    """The largest difference from the reference over components."""
    axes.set_title("error against the reference")
    known = np.abs(seen.reference)
    # Below the distance of neighbouring numbers an error is noise, and zero has no logarithm.
    least = float(np.finfo(seen.values.dtype).eps * known.max(initial=0, where=np.isfinite(known)))
    if len(seen.grid) == 2:
        draw_map_of_sizes(axes, seen.grid, seen.error, "|u - reference|", least)
        axes.set(xlabel=seen.axes[0], ylabel=seen.axes[1])
        scale_alike(axes, seen)
        return
    axes.plot(seen.grid[0], on_log_axis(np.maximum(seen.error, least)), color=KNOWN, lw=1)
    if least and np.nanmin(seen.error) <= least:
        axes.axhline(least, color=HELDOUT, lw=0.9, ls=":", label="rounding of the reference")
        axes.legend(**LEGEND)
    axes.set(yscale="log", xlabel=seen.axes[0], ylabel="|u - reference|")
    if early(seen.grid[0]):
        axes.set_xscale("log")
    widen(axes)


def draw_phase(axes: "Axes", seen: Evaluated, names: Sequence[str] = ()) -> None:
    """The path of the first two components, with its start and its end."""
    u = seen.values[:, :2]
    first, second = component_names(seen.values.shape[1], names)[:2]
    axes.plot(u[:, 0], u[:, 1], color=COMPONENTS[2], lw=1.4)
    axes.plot(*u[0], "o", color=KNOWN, ms=5, label=f"{seen.axes[0]} = {seen.grid[0][0]:.3g}")
    axes.plot(*u[-1], "s", color=KNOWN, ms=5, label=f"{seen.axes[0]} = {seen.grid[0][-1]:.3g}")
    axes.set_xlabel(first, parse_math=False)
    axes.set_ylabel(second, parse_math=False)
    axes.set_title("path of the first two components")
    axes.legend(frameon=False, fontsize=8)
