"""How a solution came about: its moments side by side."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.curves import draw_cloud, draw_values, hues, values_at, window
from constrainednn._figures.solution_panels import draw_in_pieces
from constrainednn._figures.style import (
    COMPONENTS,
    SHOWN,
    first_experiments,
    new_figure,
    panel_width,
    say,
    say_more,
    shown_constraint,
    some_points,
    trained,
    which,
)
from constrainednn._gap.residuals import mean_square, residuals_at
from constrainednn._problem.scheme import PieceHistory
from constrainednn.targets.image import model_inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from constrainednn.results.solution import Solution


def moments(solution: "Solution") -> "Figure":
    """The map at several moments of training: small multiples, train above monitor.

    For maps of the plane x and then u(x), coloured by the direction of x; for functions of one
    variable u(x) as a curve. For a problem that is solved in pieces the solution and its residual,
    below each other; for several experiments side by side.
    """
    if isinstance(solution.history.pieces, tuple):
        parts = first_experiments(solution)
        figure = new_figure(max(6, 3.2 * len(parts)), 6)
        grid = figure.subplots(2, len(parts), squeeze=False, sharex="col")
        for (name, part), above, below in zip(parts.items(), *grid, strict=True):
            shown = shown_constraint(part)
            assert shown is not None and isinstance(part.history.pieces, PieceHistory)
            constraint, points, _ = shown
            draw_in_pieces((above, below), part, constraint, trained(points))
            above.set_title(name, fontsize=9, parse_math=False)
        say_more(figure, solution)
        return figure
    shown = shown_constraint(solution)
    snapshots = solution.history.snapshots
    if shown is None or not snapshots:
        figure = new_figure(6, 3)
        say(figure.subplots(), "no snapshots of a constraint with a population")
        return figure
    constraint, points, _ = shown
    streams = trained(points)
    if solution.history.pieces is not None:
        figure = new_figure(8, 6)
        draw_in_pieces(figure.subplots(2, 1, sharex=True), solution, constraint, streams)
        figure.suptitle(which(solution, constraint), parse_math=False)
        return figure
    some = [some_points(stream, SHOWN) for _, stream, _ in streams]
    inputs = [model_inputs(stream.points) for stream in some]
    first = values_at(snapshots[0][1], inputs[0])
    entries = 0 if first is None else first.shape[1]
    clouds = panel_width(inputs[0]) > 1 and entries > 1
    planar = clouds and panel_width(inputs[0]) == 2
    # Five columns: with more the labels are too small to read on a page.
    chosen = np.linspace(0, len(snapshots) - 1, 5 - planar).round().astype(int)
    snapshots = [snapshots[i] for i in np.unique(chosen)]
    images = [[values_at(model, x) for _, model in snapshots] for x in inputs]
    if planar:  # the points themselves come first
        images = [[x.reshape(len(x), 2), *row] for x, row in zip(inputs, images, strict=True)]
    columns = len(images[0])
    figure = new_figure(1.8 * columns + 0.4, 2.0 * len(streams) + 0.3)
    # Each column of clouds has a square window of its own; curves compare along a row.
    shared = "none" if clouds else "col"
    grid = figure.subplots(len(streams), columns, squeeze=False, sharex=shared, sharey=not clouds)
    for column in range(columns):
        alike = [values for row in images if (values := row[column]) is not None]
        for axes, x, row in zip(grid[:, column], inputs, images, strict=True):
            values = row[column]
            axes.tick_params(labelsize=7)
            if values is None:
                say(axes, "no map of points")
            elif planar:
                target = constraint.target if column else None
                draw_cloud(axes, values, hues(x.reshape(len(x), 2)), window(alike, target), target)
            else:
                draw_values(axes, x, alike, values, constraint.target)
        if planar and column == 0:
            for axes in grid[:, 0]:
                axes.set_title("x", fontsize=8)
            continue
        step, model = snapshots[column - planar]
        for axes, (_, stream, _) in zip(grid[:, column], streams, strict=True):
            r = residuals_at(constraint.residual, model, stream.points)
            rms = float(np.sqrt(mean_square(r, stream) / stream.share.sum() / r.shape[1]))
            axes.set_title(f"u(x), step {step}\nRMS {number(rms)}", fontsize=8)
    for axes, (name, stream, _) in zip(grid[:, 0], streams, strict=True):
        more = f"{SHOWN} of " if len(stream) > SHOWN else ""
        axes.set_ylabel(f"{name}\n{more}{len(stream)} points", fontsize=8)
    if not clouds and 1 < entries <= len(COMPONENTS):
        grid[0, 0].legend([f"u[{k}]" for k in range(entries)], frameon=False, fontsize=7)
    notes = [which(solution, constraint)] if len(solution.problem.constraints) > 1 else []
    if clouds and entries > 2:
        notes.append("first two entries of u(x)")
    if notes:
        figure.suptitle("\n".join(notes), fontsize=9, parse_math=False)
    return figure
