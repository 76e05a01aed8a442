"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.residual_panels import draw_distance, draw_residuals
from constrainednn._figures.solution_panels import draw_map, draw_pieces, draw_solution
from constrainednn._figures.style import (
    KNOWN,
    MONITOR,
    TRAIN,
    first_experiments,
    new_figure,
    on_log_axis,
    say,
    say_more,
    shown_constraint,
    which,
    widen,
)
from constrainednn._problem.scheme import PieceHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from constrainednn.results.solution import Solution


def overview(solution: "Solution") -> "Figure":
    """Loss or pieces, residual on train and held-out points, residual against distance, map.

    For several experiments a row for each: its solution, pieces and residual.
    """
    if isinstance(solution.history.pieces, tuple):
        return _experiments(solution)
    figure = new_figure(11, 7.5)
    grid = figure.subplots(2, 2)
    pieces = solution.history.pieces
    if pieces is None:
        _draw_history(grid[0, 0], solution)
    else:
        draw_pieces(grid[0, 0], pieces, solution.settings.tolerance or 1e-12)
    shown = shown_constraint(solution)
    if shown is None:
        for axes in grid.flat[1:]:
            say(axes, "no constraint with a population")
        return figure
    constraint, points, gap = shown
    draw_residuals(grid[0, 1], constraint, points, gap, solution.model)
    draw_distance(grid[1, 0], gap)
    if pieces is None:
        draw_map(grid[1, 1], solution, constraint, points)
    else:
        draw_solution(grid[1, 1], solution, pieces)
    figure.suptitle(
        f"{which(solution, constraint)}: train RMS {number(gap.train_rms)} on {gap.points} "
        f"points, held-out RMS {number(gap.heldout_rms.value)} on {gap.heldout.n}",
        parse_math=False,
    )
    return figure


def _experiments(solution: "Solution") -> "Figure":
    """A row for each experiment: its solution with data, its pieces, and its residual."""
    parts = first_experiments(solution)
    figure = new_figure(11, 3.3 * len(parts))
    grid = figure.subplots(len(parts), 3, squeeze=False)
    for (name, part), (first, second, third) in zip(parts.items(), grid, strict=True):
        pieces, shown = part.history.pieces, shown_constraint(part)
        assert isinstance(pieces, PieceHistory) and shown is not None
        draw_solution(first, part, pieces)
        first.set_title(name, fontsize=9, parse_math=False)
        draw_pieces(second, pieces, solution.settings.tolerance or 1e-12)
        draw_residuals(third, *shown, part.model)
        third.set_title(shown[0].name, fontsize=9, parse_math=False)
    say_more(figure, solution)
    return figure


def _draw_history(axes: "Axes", solution: "Solution") -> None:
    history = solution.history
    loss = on_log_axis(history.loss)
    # Log axes have no zero: step k is drawn at k + 1.
    steps = np.arange(len(loss)) + 1
    if len(loss) > 2000:
        keep = np.unique(np.geomspace(1, len(loss), 2000).astype(int)) - 1
        steps, loss = steps[keep], loss[keep]
    if not np.isfinite(loss).any():
        say(axes, "loss is zero or not finite at every step")
        return
    axes.plot(
        steps, loss, color=TRAIN, lw=1.2, marker="." if len(loss) < 60 else None, label="train"
    )
    monitor = on_log_axis(history.monitor)
    if np.isfinite(monitor).any():
        axes.plot(
            history.monitor_steps + 1, monitor, color=MONITOR, lw=1.2, marker=".", label="monitor"
        )
    for step in history.redraws[:50]:
        axes.axvline(step + 1, color=KNOWN, lw=0.3)
    title = "total loss" if len(solution.problem.constraints) > 1 else "loss"
    axes.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="loss", title=title)
    axes.set_xlim(0.9, max(11, 1.2 * len(history.loss)))
    widen(axes)
    axes.legend(frameon=False)
