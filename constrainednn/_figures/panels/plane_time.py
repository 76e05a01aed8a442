"""Figures of a solution in time and the plane: maps at some times."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._figures.curves import values_at
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import (
    KNOWN,
    draw_map_of_sizes,
    draw_map_of_values,
    new_figure,
)
from constrainednn.models.space import PlaneTimePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Maps, and places along each coordinate of one.
_TIMES, _MAP = 4, 101


class AtTime(eqx.Module):
    """A function of (t, x, y) at one time, as a function of (x, y)."""

    u: Callable[[Array], PyTree]
    t: float

    def __call__(self, x: Float[Array, "2"]) -> PyTree[Array]:
        """The value at a place."""
        return self.u(jnp.concatenate([jnp.full(1, self.t, x.dtype), x]))


def plane_grid(u: PlaneTimePieces, count: int = _MAP) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced places along x and y."""
    low, high = u.boxes.corners
    dtype = np.asarray(u.boxes.low).dtype
    ends = zip(low.min(axis=0)[1:], high.max(axis=0)[1:], strict=True)
    x, y = (np.linspace(a, b, count, dtype=dtype) for a, b in ends)
    return x, y


def draw_last_boxes(axes: "Axes", u: PlaneTimePieces) -> None:
    """The edges of the elements of the last window, thin."""
    low, high = u.boxes.corners
    own = high[:, 0] == high[:, 0].max()
    for (_, a, b), (_, c, d) in zip(low[own], high[own], strict=True):
        axes.plot([a, c, c, a, a], [b, b, d, d, b], color=KNOWN, lw=0.3, alpha=0.6)


def snapshots(shown: Shown) -> "Figure":
    """The first component at four times."""

    def first(p: np.ndarray) -> np.ndarray:
        values = values_at(shown.model, p)
        assert values is not None
        return values[:, 0]

    figure = draw_snapshots(shown.model, first, "u", sized=False)
    figure.suptitle(shown.title_of(shown.problem.constraints[0]), parse_math=False)
    return figure


def draw_snapshots(
    u: PlaneTimePieces,
    of: Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]],
    name: str,
    *,
    sized: bool,
) -> "Figure":
    """Maps of a number at four times, from the first to the last; sizes on a logarithmic scale."""
    figure, grid = new_figure(3.3 * _TIMES, 3.4), plane_grid(u)
    places = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 2)
    row = figure.subplots(1, _TIMES)
    for axes, t in zip(row, np.linspace(u.ends[0], u.ends[-1], _TIMES), strict=True):
        points = np.concatenate([np.full((len(places), 1), t, places.dtype), places], axis=1)
        values = of(points).reshape([len(part) for part in grid])
        if sized:
            draw_map_of_sizes(axes, grid, values, name)
        else:
            draw_map_of_values(axes, grid, values, name)
        axes.set(xlabel="x", ylabel="y", aspect="equal", title=f"{name} at t = {t:.4g}")
    return figure
