"""How a solution came about: its moments side by side."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.curves import draw_cloud, draw_values, hues, values_at, window
from constrainednn._figures.evaluate import evaluate
from constrainednn._figures.panels.plane_time import snapshots
from constrainednn._figures.panels.solution import draw_solution
from constrainednn._figures.shown import Shown
from constrainednn._figures.space import solution_beside_residual
from constrainednn._figures.space_time import profiles
from constrainednn._figures.style import (
    COMPONENTS,
    MOST_POINTS,
    new_figure,
    on_log_axis,
    panel_width,
    say,
    say_how_many_experiments,
    some_points,
    trained,
    widen,
)
from constrainednn._gap.residuals import mean_square, residuals_at
from constrainednn._pages.evaluated import Evaluated
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.targets.image import model_inputs
from constrainednn.targets.sets import AbstractTarget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def moments(shown: Shown) -> "Figure":
    """The map at several moments of training: small multiples, train above monitor.

    For maps of the plane x and then u(x), coloured by the direction of x; for functions of one
    variable u(x) as a curve. For a problem that is solved in pieces the solution and its residual,
    below each other, in space and time at four moments; for several experiments side by side.
    """
    if shown.experiments:
        return _experiments(shown)
    found = shown.first_with_heldout()
    if found is None or not (shown.history.snapshots or shown.history.pieces):
        figure = new_figure(6, 3)
        say(figure.subplots(), "no snapshots, or no constraint with held-out points")
        return figure
    constraint, points, _ = found
    if shown.history.pieces is None:
        return _snapshots(shown, constraint, trained(points))
    if isinstance(shown.model, SpaceTimePieces):
        return profiles(shown)
    if isinstance(shown.model, PlaneTimePieces):
        return snapshots(shown)
    if isinstance(shown.model, SpacePieces):
        return solution_beside_residual(shown)
    figure = new_figure(8, 6)
    pair = figure.subplots(2, 1, sharex=True)
    _draw_above_residual(pair, shown, evaluate(shown)[0], constraint, trained(points))
    figure.suptitle(shown.title_of(constraint), parse_math=False)
    return figure


def _experiments(shown: Shown) -> "Figure":
    parts = shown.experiments
    figure = new_figure(max(6, 3.2 * len(parts)), 6)
    grid = figure.subplots(2, len(parts), squeeze=False, sharex="col")
    for seen, pair in zip(evaluate(shown), grid.T, strict=True):
        part = parts[seen.name]
        found = part.first_with_heldout()
        assert found is not None
        _draw_above_residual(pair, part, seen, found[0], trained(found[1]))
        pair[0].set_title(seen.name, fontsize=9, parse_math=False)
    say_how_many_experiments(figure, len(parts), len(shown.model.names))
    return figure


def _draw_above_residual(
    pair: "Iterable[Axes]",
    shown: Shown,
    seen: Evaluated,
    constraint: Constraint,
    streams: list[tuple[str, Draw, str]],
) -> None:
    """The solution above its residual."""
    above, below = pair
    draw_solution(above, shown, seen)
    above.set_xlabel("")
    for name, stream, colour in streams:
        r = residuals_at(constraint.residual, shown.model, stream.points)
        size = on_log_axis(np.linalg.norm(r, axis=1))
        below.plot(stream.points, size, ".", color=colour, ms=3, label=f"{name}, {len(stream)}")
    below.set(yscale="log", xlabel="t", ylabel="|r|", title="residual at train and monitor points")
    below.title.set_fontsize(9)
    widen(below)
    below.legend(frameon=False, fontsize=8)


def _snapshots(
    shown: Shown, constraint: Constraint, streams: list[tuple[str, Draw, str]]
) -> "Figure":
    """A column for each of some steps, a row for each stream of points."""
    snapshots = shown.history.snapshots
    inputs = [model_inputs(some_points(stream.points, MOST_POINTS)) for _, stream, _ in streams]
    first = values_at(snapshots[0][1], inputs[0])
    entries = 0 if first is None else first.shape[1]
    clouds = panel_width(inputs[0]) > 1 and entries > 1
    planar = clouds and panel_width(inputs[0]) == 2
    # Five columns: with more the labels are too small to read on a page.
    chosen = np.linspace(0, len(snapshots) - 1, 5 - planar).round().astype(int)
    snapshots = [snapshots[i] for i in np.unique(chosen)]
    width = len(snapshots) + planar
    figure = new_figure(1.8 * width + 0.4, 2.0 * len(streams) + 0.3)
    # Each column of clouds has a square window of its own; curves compare along a row.
    shared = "none" if clouds else "col"
    grid = figure.subplots(len(streams), width, squeeze=False, sharex=shared, sharey=not clouds)
    columns = list(grid.T)
    if planar:  # the points themselves come first
        points, *columns = columns
        _draw_column(points, inputs, [x.reshape(len(x), 2) for x in inputs], None, planar=True)
        for axes in points:
            axes.set_title("x", fontsize=8)
    for column, (step, model) in zip(columns, snapshots, strict=True):
        values = [values_at(model, x) for x in inputs]
        _draw_column(column, inputs, values, constraint.target, planar=planar)
        for axes, (_, stream, _) in zip(column, streams, strict=True):
            r = residuals_at(constraint.residual, model, stream.points)
            rms = float(np.sqrt(mean_square(r, stream) / stream.weights.sum() / r.shape[1]))
            axes.set_title(f"u(x), step {step}\nRMS {number(rms)}", fontsize=8)
    for axes, (name, stream, _) in zip(grid[:, 0], streams, strict=True):
        more = f"{MOST_POINTS} of " if len(stream) > MOST_POINTS else ""
        axes.set_ylabel(f"{name}\n{more}{len(stream)} points", fontsize=8)
    if not clouds and 1 < entries <= len(COMPONENTS):
        grid[0, 0].legend([f"u[{k}]" for k in range(entries)], frameon=False, fontsize=7)
    notes = [shown.title_of(constraint)] if len(shown.problem.constraints) > 1 else []
    if clouds and entries > 2:
        notes.append("first two entries of u(x)")
    if notes:
        figure.suptitle("\n".join(notes), fontsize=9, parse_math=False)
    return figure


def _draw_column(
    column: "Iterable[Axes]",
    inputs: list,
    images: list[np.ndarray | None],
    target: AbstractTarget | None,
    *,
    planar: bool,
) -> None:
    """The values of one model on each stream, in the same limits."""
    alike = [values for values in images if values is not None]
    for axes, x, values in zip(column, inputs, images, strict=True):
        axes.tick_params(labelsize=7)
        if values is None:
            say(axes, "not a map of points")
        elif planar:
            draw_cloud(axes, values, hues(x.reshape(len(x), 2)), window(alike, target), target)
        else:
            draw_values(axes, x, alike, values, target)
