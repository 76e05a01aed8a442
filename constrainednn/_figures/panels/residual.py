"""Panels that show residuals: where they are, how they spread, and how far from training points."""

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from constrainednn._common.tables import number
from constrainednn._figures.panels.solution import scale_alike
from constrainednn._figures.style import (
    HELDOUT,
    KNOWN,
    LEGEND,
    TRAIN,
    draw_map_of_sizes,
    mark,
    on_log_axis,
    widen,
)
from constrainednn._gap.report import ConstraintGap
from constrainednn._pages.drawing.plot import early
from constrainednn._pages.evaluated import Evaluated, ResidualSeen

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draws_residual(item: ResidualSeen) -> bool:
    """Whether there is a picture of a residual: over the plane, or along one coordinate."""
    if item.at_rounding:
        return False
    if item.field.ndim == 2:
        return bool((item.field > 0).any())
    return _varying(item) is not None


def _varying(item: ResidualSeen) -> int | None:
    """The one coordinate in which the points of a constraint vary; None if there are more."""
    points = [part for part in (item.train, item.heldout) if part.size]
    if not points:
        return None
    spread = np.ptp(np.concatenate(points), axis=0)
    varying = np.flatnonzero(spread > 1e-9 * spread.max(initial=0))
    return int(varying[0]) if len(varying) == 1 else None


def draw_residual(axes: "Axes", seen: Evaluated, item: ResidualSeen) -> None:
    """|r| where it was looked at, with the training points and the worst point."""
    axes.set_title(f"residual of {item.name}", parse_math=False)
    if item.field.ndim == 2:
        draw_map_of_sizes(axes, seen.grid, item.field, "|r|")
        style = {"ms": 2.5, "alpha": 0.8, "mew": 0}
        if item.train.shape[1] == 2:  # those of more coordinates lie beside the plane
            axes.plot(item.train[:, 0], item.train[:, 1], ".", color="white", **style)
        axes.set(xlabel=seen.axes[0], ylabel=seen.axes[1])
        scale_alike(axes, seen)
        if len(item.worst) == 2:
            mark(axes, float(item.worst[0]), float(item.worst[1]), _worst(item))
        return
    k = _varying(item)
    assert k is not None
    # Where time is on a log axis, all before the first place lies there: zero has no logarithm.
    is_early = len(seen.grid) == 1 and early(seen.grid[0])
    first = float(seen.grid[0][1]) / 3 if is_early else -math.inf
    if item.field.ndim == 1 and item.field.size:
        axes.plot(
            np.maximum(seen.grid[0], first), on_log_axis(item.field), color=KNOWN, lw=0.5, alpha=0.5
        )
    for name, points, size, count, colour, mark_ in (
        ("held-out", item.heldout, item.heldout_size, item.heldout_count, HELDOUT, "."),
        ("train", item.train, item.train_size, item.train_count, TRAIN, "+"),
    ):
        if points.size:
            of = f"{len(points)} of " if len(points) < count else ""
            label = f"{name}, {of}{count}"
            axes.plot(
                np.maximum(points[:, k], first),
                on_log_axis(size),
                mark_,
                color=colour,
                ms=4,
                label=label,
            )
    axes.set(yscale="log", xlabel=item.axes[k], ylabel="|r|")
    if is_early:
        axes.set_xscale("log")
    widen(axes)
    if len(item.worst) > k and item.worst_size > 0:
        mark(axes, max(float(item.worst[k]), first), item.worst_size, _worst(item))
    axes.legend(**LEGEND, loc="lower right")


def _worst(item: ResidualSeen) -> str:
    return f"worst {number(item.worst_size)}"


def draw_spread(axes: "Axes", item: ResidualSeen) -> None:
    """Share of points with a residual above a size, on log axes."""
    for name, part, count, colour, dash in (
        ("train", item.train_shares, item.train_count, TRAIN, "-"),
        ("held-out", item.heldout_shares, item.heldout_count, HELDOUT, "--"),
    ):
        if part.shape[1]:
            style = {"color": colour, "ls": dash, "lw": 1.6, "label": f"{name}, {count}"}
            axes.plot(part[0], part[1], **style)
    axes.set(xscale="log", yscale="log", xlabel="|r|", ylabel="share of points above")
    axes.set_title(f"spread of the residual of {item.name}", parse_math=False)
    widen(axes)
    axes.legend(frameon=False, fontsize=8)


def share_above(
    r: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Sizes of the residual that a log axis can show, ascending, and the share of all points there.

    Points where the residual is zero lie below every size, those where it is not finite above.
    """
    size = np.sort(r[np.isfinite(r) & (r > 0)])
    beyond = int((~np.isfinite(r)).sum())
    return on_log_axis(size), (np.arange(size.size, 0, -1) + beyond) / len(r)


def draws_distance(gap: ConstraintGap) -> bool:
    """Whether the residual by distance says something: there are classes, and no rounding."""
    distance = gap.distance
    if distance is None or gap.at_rounding:
        return False
    return bool(np.isfinite(distance.rms).all()) and max(distance.rms) > 0 < distance.edges[-1]


def draw_distance(axes: "Axes", gap: ConstraintGap) -> None:
    """The held-out residual by the distance to the nearest training point, a fifth each."""
    distance = gap.distance
    assert distance is not None
    edges = np.asarray(distance.edges, float)
    # The first class begins near zero, which a log axis has no place for.
    least = edges[edges > 0].min()
    edges[0] = max(edges[0], edges[1] / 10 if edges[1] > 0 else least / 10)
    edges = np.maximum.accumulate(np.maximum(edges, math.ulp(0.0)))
    axes.stairs(on_log_axis(np.asarray(distance.rms)), edges, color=HELDOUT, lw=1.8, baseline=None)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="distance to the nearest training point\n(a fifth of the points in each step)",
        ylabel="held-out RMS |r|",
        title="residual by distance",
    )
    axes.xaxis.label.set_fontsize(8)
    widen(axes)
    low, high = np.nanmin(distance.rms), np.nanmax(distance.rms)
    if high < 10 * low:  # about the same at all distances: a line in the middle
        middle = np.sqrt(low * high)
        axes.set_ylim(middle / 10, 10 * middle)
