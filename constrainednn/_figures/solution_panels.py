"""Panels of the overview that show the solution."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.curves import (
    draw_cloud,
    draw_curves,
    draw_rows,
    draw_values,
    values_at,
    window,
)
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import (
    HELDOUT,
    MONITOR,
    MOST_POINTS,
    TRAIN,
    on_log_axis,
    panel_width,
    say,
    some_points,
    widen,
)
from constrainednn._gap.residuals import residuals_at
from constrainednn._gap.streams import Streams
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.scheme import AbstractPieceScheme, PieceHistory
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.base import Draw
from constrainednn.targets.image import model_inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_above_residual(
    pair: "Iterable[Axes]",
    shown: Shown,
    constraint: Constraint,
    streams: list[tuple[str, Draw, str]],
) -> None:
    """The solution above its residual."""
    above, below = pair
    draw_solution(above, shown)
    above.set_xlabel("")
    for name, stream, colour in streams:
        r = residuals_at(constraint.residual, shown.model, stream.points)
        size = on_log_axis(np.linalg.norm(r, axis=1))
        below.plot(stream.points, size, ".", color=colour, ms=3, label=f"{name}, {len(stream)}")
    below.set(yscale="log", xlabel="t", ylabel="|r|", title="residual at train and monitor points")
    below.title.set_fontsize(9)
    widen(below)
    below.legend(frameon=False, fontsize=8)


def draw_pieces(axes: "Axes", shown: Shown) -> None:
    """Length of each piece and, on an axis at the right, what was compared with the tolerance."""
    pieces = shown.history.pieces
    assert isinstance(pieces, PieceHistory)
    edges, order = np.asarray(pieces.edges, float), 1
    if len(edges) < 2:
        say(axes, f"no piece was accepted, {pieces.rejected} rejected attempts")
        return
    if edges[1] < edges[0]:
        edges, order = edges[::-1], -1
    places = _on_time_axis(axes, edges)
    scheme = shown.problem.scheme
    assert isinstance(scheme, AbstractPieceScheme)
    axes.stairs(np.diff(edges), places, color=TRAIN, lw=1.4, baseline=None)
    axes.set(yscale="log", xlabel="t")
    axes.set_ylabel("length of the piece", color=TRAIN)
    beside = axes.twinx()
    residual = on_log_axis(np.asarray(pieces.monitor, float))[::order]
    beside.stairs(residual, places, color=MONITOR, lw=1.4, baseline=None)
    beside.axhline(shown.tolerance or scheme.default_tolerance, color=MONITOR, lw=0.9, ls="--")
    beside.set_yscale("log")
    beside.set_ylabel("monitor residual / solution (dashed: tolerance)", color=MONITOR, fontsize=8)
    axes.set_title(f"{len(edges) - 1} pieces, {pieces.rejected} rejected attempts")
    widen(axes)
    widen(beside)


def _on_time_axis(axes: "Axes", edges: np.ndarray) -> np.ndarray:
    """The edges where they are drawn: on a log axis if most pieces lie in the first hundredth."""
    if edges[0] < 0 or edges[-1] < 1e4 * edges[1] or np.median(edges) > 0.01 * edges[-1]:
        return edges
    axes.set_xscale("log")
    return np.maximum(edges, edges[1] / 3)


def draw_solution(axes: "Axes", shown: Shown) -> None:
    """Draw a solution in pieces over time, with the reference and the data, if there are any."""
    pieces = shown.history.pieces
    assert isinstance(pieces, PieceHistory)
    edges = np.sort(np.asarray(pieces.edges, float))
    if len(edges) < 2:
        say(axes, "no piece was accepted")
        return
    places = _on_time_axis(axes, edges)
    spaced = np.geomspace if axes.get_xscale() == "log" else np.linspace
    t = np.union1d(spaced(places[0], places[-1], MOST_POINTS), places).clip(edges[0], edges[-1])
    t = t.astype(shown.streams[0].train.points.dtype)
    reference = shown.problem.reference
    values = values_at(shown.model, t)
    assert values is not None
    draw_curves(axes, t, values, None if reference is None else values_at(reference, t))
    for item, points in zip(shown.problem.constraints, shown.streams, strict=True):
        if isinstance(item.over, Data):
            if points.heldout is not None:
                draw_rows(axes, points.heldout, HELDOUT, f"{item.name}, held-out")
            draw_rows(axes, points.train, TRAIN, item.name)
            axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="t", title="u(t)")
    widen(axes)


def draw_map(axes: "Axes", shown: Shown, constraint: Constraint, points: Streams) -> None:
    """Draw the values of a model: a curve, colours of points, or their images."""
    assert points.heldout is not None
    held = some_points(points.heldout.points, 1000)
    x, where = model_inputs(held), "on held-out points"
    rows = isinstance(held, tuple) or isinstance(constraint.over, Data)
    if rows and panel_width(x) == 1 and x.dtype.kind == "f":
        # Between rows as well: there it shows whether a model wiggles.
        seen = np.concatenate([x, model_inputs(points.train.points)])
        x = np.linspace(seen.min(), seen.max(), MOST_POINTS, dtype=x.dtype).reshape(
            -1, *x.shape[1:]
        )
        where = "and rows"
    values = values_at(shown.model, x)
    if values is None:
        say(axes, "the model is not a function of one point array")
        return
    if panel_width(x) == 1:
        x = x[np.argsort(x.ravel())]
        values, reference = values_at(shown.model, x), shown.problem.reference
        assert values is not None
        draw_curves(axes, x.ravel(), values, None if reference is None else values_at(reference, x))
        axes.set_xlabel("x")
        if where == "and rows":
            draw_rows(axes, points.heldout, HELDOUT, "held-out")
            draw_rows(axes, points.train, TRAIN, "train")  # above: they are fewer
            axes.legend(frameon=False, fontsize=8)
    elif values.shape[1] == 1:
        draw_values(axes, x, [values], values, None)
    else:
        draw_cloud(axes, values, HELDOUT, window([values], constraint.target), constraint.target)
    more = ", first two entries" if values.shape[1] > 2 and panel_width(x) > 1 else ""
    axes.set_title(f"u(x) {where}{more}")
