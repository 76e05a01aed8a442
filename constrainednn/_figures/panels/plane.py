"""Panels over two coordinates besides the map of a component: cuts through it, and arrows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.panels.solution import component_names, scale_alike
from constrainednn._figures.style import DASHES, KNOWN, LEGEND, draw_map_of_values
from constrainednn._pages.evaluated import Evaluated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Curves of a panel of slices, and arrows along each coordinate.
_SLICES, _ARROWS = 5, 17


def draw_slices(axes: "Axes", seen: Evaluated, names: Sequence[str] = ()) -> None:
    """The first component against the second coordinate at some values of the first."""
    from matplotlib import colormaps

    first, second = seen.grid
    name = component_names(seen.values.shape[-1], names)[0]
    places = np.linspace(0, len(first) - 1, _SLICES).round().astype(int)
    # Of a region that ends in a point the outermost slices are empty.
    places = [k for k in places if np.isfinite(seen.values[k, :, 0]).sum() > 1]
    colours = colormaps["cividis"](np.linspace(0, 0.85, len(places)))
    for k, colour, dash in zip(places, colours, DASHES, strict=False):
        at = first[k] if abs(first[k]) > 1e-3 * np.ptp(first) else 0.0
        style = {"color": colour, "ls": dash, "lw": 1.6, "label": f"{at:.3g}"}
        axes.plot(second, seen.values[k, :, 0], **style)
    there = np.isfinite(seen.values[..., 0])
    for k in places if seen.reference.size else ():
        label = "reference" if k == places[-1] else None
        known = np.where(there[k], seen.reference[k, :, 0], np.nan)  # in the region alone
        axes.plot(second, known, ":", color=KNOWN, lw=1.2, label=label)
    axes.set_xlabel(seen.axes[1])
    axes.set_ylabel(name, parse_math=False)
    axes.set_title(f"slices at values of {seen.axes[0]}", parse_math=False)
    axes.legend(**LEGEND)


def draws_vectors(seen: Evaluated) -> bool:
    """Whether the first two components are a vector of the plane that they are drawn over."""
    return len(seen.grid) == 2 and "t" not in seen.axes and seen.values.shape[-1] > 1


def draw_vectors(axes: "Axes", seen: Evaluated, names: Sequence[str] = ()) -> None:
    """The first two components as arrows on a map of their length."""
    u, (first, second) = seen.values[..., :2], component_names(seen.values.shape[-1], names)[:2]
    length = np.linalg.norm(u, axis=-1)
    draw_map_of_values(axes, seen.grid, length, f"|({first}, {second})|")
    rows, columns = (
        np.unique(np.linspace(0, len(part) - 1, _ARROWS + 2).round().astype(int))[1:-1]
        for part in seen.grid
    )
    x, y = (part[kept] for part, kept in zip(seen.grid, (rows, columns), strict=True))
    some = u[np.ix_(rows, columns)]
    arrows = np.where(np.isfinite(some), some, 0.0)
    # The longest arrow ends beyond the start of the next.
    scale = np.linalg.norm(arrows, axis=-1).max() / (1.4 * min(x[1] - x[0], y[1] - y[0])) or 1.0
    style = {"color": "white", "edgecolor": "black", "linewidth": 0.5, "width": 0.008}
    style |= {"angles": "xy", "scale_units": "xy", "scale": scale}
    axes.quiver(x, y, arrows[..., 0].T, arrows[..., 1].T, **style)
    axes.set(xlabel=seen.axes[0], ylabel=seen.axes[1])
    axes.set_title(f"({first}, {second})", parse_math=False)
    scale_alike(axes, seen)
