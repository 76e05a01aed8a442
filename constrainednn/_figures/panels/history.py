"""Panels that show how a solution came about: losses by step, or the pieces."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.shown import Shown
from constrainednn._figures.style import KNOWN, LEGEND, MONITOR, TRAIN, on_log_axis, say, widen
from constrainednn._problem.scheme import AbstractPieceScheme, PieceHistory
from constrainednn.models.space import SpacePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With so few steps an axis of whole numbers shows more than a logarithmic one.
FEW = 20


def draw_history(axes: "Axes", shown: Shown) -> None:
    """Training and monitor loss by step, or the lengths of pieces."""
    if isinstance(shown.model, SpacePieces):
        _draw_sorted(axes, shown)
        return
    if shown.history.pieces is not None:
        draw_pieces(axes, shown)
        return
    history = shown.history
    # An objective may be below zero.
    shape = (lambda values: values) if shown.problem.objective is not None else on_log_axis
    loss = shape(history.loss)
    few = len(loss) <= FEW
    # Log axes have no zero: step k is drawn at k + 1.
    first = 0 if few else 1
    steps = np.arange(len(loss)) + first
    if len(loss) > 2000:
        keep = np.unique(np.geomspace(1, len(loss), 2000).astype(int)) - 1
        steps, loss = steps[keep], loss[keep]
    if not np.isfinite(loss).any():
        say(axes, "loss is zero or not finite at every step")
        return
    dot = "." if len(loss) < 60 else None
    axes.plot(steps, loss, color=TRAIN, lw=1.2, marker=dot, label="train")
    monitor = shape(history.monitor)
    if np.isfinite(monitor).any():
        taken = history.monitor_steps + first
        axes.plot(taken, monitor, color=MONITOR, lw=1.4, ls="--", marker=".", label="monitor")
    for step in history.redraws[:50]:
        axes.axvline(step + first, color=KNOWN, lw=0.3)
    title = "total loss" if len(shown.problem.statements) > 1 else "loss"
    axes.set(ylabel="loss", title=title, xlabel="step" if few else "step + 1")
    if shape is on_log_axis:
        axes.set_yscale("log")
    if few:
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xscale("log")
        axes.set_xlim(0.9, 1.2 * len(history.loss))
    widen(axes)
    axes.legend(frameon=False, fontsize=8)


def draw_pieces(axes: "Axes", shown: Shown) -> None:
    """What was compared with the tolerance on each piece; a step is as wide as its piece."""
    pieces = shown.history.pieces
    assert isinstance(pieces, PieceHistory)
    edges, order = np.asarray(pieces.edges, float), 1
    if len(edges) < 2:
        say(axes, f"no piece was accepted, {pieces.rejected} rejected attempts")
        return
    if edges[1] < edges[0]:
        edges, order = edges[::-1], -1
    places = on_time_axis(axes, edges)
    residual = on_log_axis(np.asarray(pieces.monitor, float))[::order]
    axes.stairs(residual, places, color=MONITOR, lw=1.6, baseline=None)
    axes.set_xlabel("t")
    _draw_tolerance(axes, shown)
    lengths = np.diff(edges)
    low, high = f"{lengths.min():.2g}", f"{lengths.max():.2g}"
    long = low if low == high else f"{low} to {high}"
    rejected = f", {pieces.rejected} rejected" if pieces.rejected else ""
    axes.set_title(f"{_count(len(lengths), 'piece')}, {long} long{rejected}")
    widen(axes)


def _draw_tolerance(axes: "Axes", shown: Shown) -> None:
    """The line that residuals of pieces are to be below, and the axis they are on."""
    scheme = shown.problem.scheme
    assert isinstance(scheme, AbstractPieceScheme)
    tolerance = shown.tolerance or scheme.default_tolerance
    axes.axhline(tolerance, color=KNOWN, lw=0.9, ls="--", label=f"tolerance {tolerance:.2g}")
    axes.set(yscale="log", ylabel="monitor residual / solution")
    axes.legend(**LEGEND)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _draw_sorted(axes: "Axes", shown: Shown) -> None:
    """What was compared with the tolerance on each element, the largest first."""
    from matplotlib.ticker import MaxNLocator

    pieces = shown.history.pieces
    assert isinstance(pieces, PieceHistory)
    sizes = np.sort(on_log_axis(np.asarray(pieces.monitor, float)))[::-1]
    axes.stairs(sizes, np.arange(len(sizes) + 1), color=MONITOR, lw=1.4, baseline=None)
    axes.set_xlabel("elements, the largest residual first")
    _draw_tolerance(axes, shown)
    rounds = _count(pieces.rejected + 1, "round")
    axes.set_title(f"{_count(len(sizes), 'element')} after {rounds}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    widen(axes)


def on_time_axis(axes: "Axes", edges: np.ndarray) -> np.ndarray:
    """The edges where they are drawn: on a log axis if most pieces lie in the first hundredth."""
    if edges[0] < 0 or edges[-1] < 1e4 * edges[1] or np.median(edges) > 0.01 * edges[-1]:
        return edges
    axes.set_xscale("log")
    return np.maximum(edges, edges[1] / 3)
