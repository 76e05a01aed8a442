"""Panels of the overview that show residuals and distances."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._figures.style import HELDOUT, TRAIN, on_log_axis, say, widen
from constrainednn._gap.report import ConstraintGap
from constrainednn._gap.residuals import residuals_at
from constrainednn._gap.streams import Streams
from constrainednn._problem.constraint import Constraint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_residuals(
    axes: "Axes", constraint: Constraint, points: Streams, gap: ConstraintGap, model: PyTree
) -> None:
    """Share of points with a residual above a size, on log axes."""
    assert points.heldout is not None
    drawn = False
    for name, stream, colour in (
        ("train", points.train, TRAIN),
        ("held-out", points.heldout, HELDOUT),
    ):
        r = np.linalg.norm(residuals_at(constraint.residual, model, stream.points), axis=1)
        size, share = share_above(r)
        if size.size and not gap.at_rounding:
            axes.plot(size, share, color=colour, lw=1.4, label=f"{name} (n = {len(stream)})")
            drawn = True
    if not drawn:
        say(axes, "residual at rounding: the differences between points are noise")
        return
    axes.set(
        xscale="log", yscale="log", xlabel="|r|", ylabel="share of points above", title="residual"
    )
    widen(axes)
    axes.legend(frameon=False)


def share_above(
    r: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Sizes of the residual that a log axis can show, ascending, and the share of all points there.

    Points where the residual is zero lie below every size, those where it is not finite above.
    """
    size = np.sort(r[np.isfinite(r) & (r > 0)])
    beyond = int((~np.isfinite(r)).sum())
    return on_log_axis(size), (np.arange(size.size, 0, -1) + beyond) / len(r)


def draw_distance(axes: "Axes", gap: ConstraintGap) -> None:
    """Bars of the held-out residual by the distance to the nearest training point."""
    distance = gap.distance
    if distance is None or not np.isfinite(distance.rms).all() or not max(distance.rms) > 0:
        say(axes, "too few points to show the residual by distance")
        return
    if gap.at_rounding:
        say(axes, "residual at rounding: the differences between points are noise")
        return
    rms = on_log_axis(np.asarray(distance.rms))
    ranges = [
        f"{low:.2g} to\n{high:.2g}"
        for low, high in zip(distance.edges, distance.edges[1:], strict=False)
    ]
    low, high = np.log10(np.nanmin(rms)), np.log10(np.nanmax(rms))
    axes.bar(range(len(rms)), rms, color=HELDOUT, width=0.8)
    axes.set_xticks(range(len(rms)), ranges, fontsize=8)
    axes.set(
        yscale="log",
        ylim=(10 ** np.floor(low - 0.1), 10 ** np.ceil(high + 0.1)),
        xlabel="distance to the nearest training point; each bar a fifth of the held-out points",
        ylabel="held-out RMS |r|",
        title="between the points or outside the cloud?",
    )
    widen(axes)
