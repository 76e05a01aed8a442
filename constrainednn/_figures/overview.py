"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.residual_panels import draw_distance, draw_residuals
from constrainednn._figures.shown import Shown
from constrainednn._figures.solution_panels import draw_map, draw_pieces, draw_solution
from constrainednn._figures.space import draw_field as draw_in_space
from constrainednn._figures.space import draw_residual
from constrainednn._figures.space_time import draw_field
from constrainednn._figures.style import (
    KNOWN,
    MONITOR,
    TRAIN,
    new_figure,
    on_log_axis,
    say,
    say_how_many_experiments,
    widen,
)
from constrainednn.models.space import SpacePieces
from constrainednn.models.space_time import SpaceTimePieces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def overview(shown: Shown) -> "Figure":
    """Loss or pieces, residual on train and held-out points, residual against distance, map.

    For several experiments a row for each: its solution, pieces and residual.
    """
    if shown.experiments:
        return _experiments(shown)
    figure = new_figure(11, 7.5)
    grid = figure.subplots(2, 2)
    if shown.history.pieces is None:
        _draw_history(grid[0, 0], shown)
    elif isinstance(shown.model, SpacePieces):
        draw_residual(grid[0, 0], shown)
    else:
        draw_pieces(grid[0, 0], shown)
    found = shown.first_with_heldout()
    if found is None:
        for axes in grid.flat[1:]:
            say(axes, "no constraint with held-out points")
        return figure
    constraint, points, gap = found
    draw_residuals(grid[0, 1], constraint, points, gap, shown.model)
    draw_distance(grid[1, 0], gap)
    if shown.history.pieces is None:
        draw_map(grid[1, 1], shown, constraint, points)
    elif isinstance(shown.model, SpaceTimePieces):
        draw_field(grid[1, 1], shown)
    elif isinstance(shown.model, SpacePieces):
        draw_in_space(grid[1, 1], shown)
    else:
        draw_solution(grid[1, 1], shown)
    figure.suptitle(
        f"{shown.title_of(constraint)}: train RMS {number(gap.train_rms)} on {gap.points} "
        f"points, held-out RMS {number(gap.heldout_rms.value)} on {gap.heldout.n}",
        parse_math=False,
    )
    return figure


def _experiments(shown: Shown) -> "Figure":
    """A row for each experiment: its solution with data, its pieces, and its residual."""
    parts = shown.experiments
    figure = new_figure(11, 3.3 * len(parts))
    grid = figure.subplots(len(parts), 3, squeeze=False)
    for (name, part), (first, second, third) in zip(parts.items(), grid, strict=True):
        found = part.first_with_heldout()
        assert found is not None
        draw_solution(first, part)
        first.set_title(name, fontsize=9, parse_math=False)
        draw_pieces(second, part)
        draw_residuals(third, *found, part.model)
        third.set_title(found[0].name, fontsize=9, parse_math=False)
    say_how_many_experiments(figure, len(parts), len(shown.model.names))
    return figure


def _draw_history(axes: "Axes", shown: Shown) -> None:
    history = shown.history
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
    title = "total loss" if len(shown.problem.constraints) > 1 else "loss"
    axes.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="loss", title=title)
    axes.set_xlim(0.9, max(11, 1.2 * len(history.loss)))
    widen(axes)
    axes.legend(frameon=False)
