"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._domains import Data
from constrainednn._drawing import (
    COMPONENTS,
    HELDOUT,
    KNOWN,
    MONITOR,
    TRAIN,
    draw_cloud,
    draw_curves,
    hues,
    new_figure,
    on_log_axis,
    say,
    values_at,
    widen,
    window,
)
from constrainednn._gap import ConstraintGap, Streams, mean_square, residuals_at
from constrainednn._image import model_inputs
from constrainednn._report import number
from constrainednn._samplers import Draw
from constrainednn._scheme import PieceHistory
from constrainednn._targets import AbstractTarget

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from constrainednn._problem import Constraint
    from constrainednn._solution import Solution


# Points in one small picture of `moments`; places of a curve.
_SHOWN = 400
# Experiments on one page.
_EXPERIMENTS = 6


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
        _draw_pieces(grid[0, 0], pieces, solution.settings.tolerance or 1e-12)
    shown = _shown(solution)
    if shown is None:
        for axes in grid.flat[1:]:
            say(axes, "no constraint with a population")
        return figure
    constraint, points, gap = shown
    _draw_residuals(grid[0, 1], constraint, points, gap, solution.model)
    _draw_distance(grid[1, 0], gap)
    if pieces is None:
        _draw_map(grid[1, 1], solution, constraint, points)
    else:
        _draw_solution(grid[1, 1], solution, pieces)
    figure.suptitle(
        f"{_which(solution, constraint)}: train RMS {number(gap.train_rms)} on {gap.points} "
        f"points, held-out RMS {number(gap.heldout_rms.value)} on {gap.heldout.n}",
        parse_math=False,
    )
    return figure


def moments(solution: "Solution") -> "Figure":
    """The map at several moments of training: small multiples, train above monitor.

    For maps of the plane x and then u(x), coloured by the direction of x; for functions of one
    variable u(x) as a curve. For a problem that is solved in pieces the solution and its residual,
    below each other; for several experiments side by side.
    """
    if isinstance(solution.history.pieces, tuple):
        parts = _first_experiments(solution)
        figure = new_figure(max(6, 3.2 * len(parts)), 6)
        grid = figure.subplots(2, len(parts), squeeze=False, sharex="col")
        for (name, part), above, below in zip(parts.items(), *grid, strict=True):
            shown = _shown(part)
            assert shown is not None and isinstance(part.history.pieces, PieceHistory)
            constraint, points, _ = shown
            _draw_in_pieces((above, below), part, constraint, _trained(points))
            above.set_title(name, fontsize=9, parse_math=False)
        _say_more(figure, solution)
        return figure
    shown = _shown(solution)
    snapshots = solution.history.snapshots
    if shown is None or not snapshots:
        figure = new_figure(6, 3)
        say(figure.subplots(), "no snapshots of a constraint with a population")
        return figure
    constraint, points, _ = shown
    streams = _trained(points)
    if solution.history.pieces is not None:
        figure = new_figure(8, 6)
        _draw_in_pieces(figure.subplots(2, 1, sharex=True), solution, constraint, streams)
        figure.suptitle(_which(solution, constraint), parse_math=False)
        return figure
    some = [_some(stream, _SHOWN) for _, stream, _ in streams]
    inputs = [model_inputs(stream.points) for stream in some]
    first = values_at(snapshots[0][1], inputs[0])
    entries = 0 if first is None else first.shape[1]
    clouds = _width(inputs[0]) > 1 and entries > 1
    planar = clouds and _width(inputs[0]) == 2
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
                _draw_values(axes, x, alike, values, constraint.target)
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
        more = f"{_SHOWN} of " if len(stream) > _SHOWN else ""
        axes.set_ylabel(f"{name}\n{more}{len(stream)} points", fontsize=8)
    if not clouds and 1 < entries <= len(COMPONENTS):
        grid[0, 0].legend([f"u[{k}]" for k in range(entries)], frameon=False, fontsize=7)
    notes = [_which(solution, constraint)] if len(solution.problem.constraints) > 1 else []
    if clouds and entries > 2:
        notes.append("first two entries of u(x)")
    if notes:
        figure.suptitle("\n".join(notes), fontsize=9, parse_math=False)
    return figure


def _trained(points: Streams) -> list[tuple[str, Draw, str]]:
    """The streams that are shown of a training: name, points and colour."""
    streams = [("train", points.train, TRAIN)]
    if points.monitor is not None:
        streams.append(("monitor", points.monitor, MONITOR))
    return streams


def _draw_in_pieces(
    pair: "Iterable[Axes]",
    solution: "Solution",
    constraint: "Constraint",
    streams: list[tuple[str, Draw, str]],
) -> None:
    """The solution above its residual."""
    above, below = pair
    assert isinstance(solution.history.pieces, PieceHistory)
    _draw_solution(above, solution, solution.history.pieces)
    above.set_xlabel("")
    for name, stream, colour in streams:
        r = residuals_at(constraint.residual, solution.model, stream.points)
        size = on_log_axis(np.linalg.norm(r, axis=1))
        below.plot(stream.points, size, ".", color=colour, ms=3, label=f"{name}, {len(stream)}")
    below.set(yscale="log", xlabel="t", ylabel="|r|", title="residual at train and monitor points")
    below.title.set_fontsize(9)
    widen(below)
    below.legend(frameon=False, fontsize=8)


def _first_experiments(solution: "Solution") -> "dict[str, Solution]":
    """As many experiments as a page holds, by name."""
    return {name: solution[name] for name in solution.model.names[:_EXPERIMENTS]}


def _say_more(figure: "Figure", solution: "Solution") -> None:
    names = solution.model.names
    if len(names) > _EXPERIMENTS:
        figure.suptitle(
            f"first {_EXPERIMENTS} of {len(names)} experiments; solution[name].plot() draws one",
            fontsize=9,
        )


def _experiments(solution: "Solution") -> "Figure":
    """A row for each experiment: its solution with data, its pieces, and its residual."""
    parts = _first_experiments(solution)
    figure = new_figure(11, 3.3 * len(parts))
    grid = figure.subplots(len(parts), 3, squeeze=False)
    for (name, part), (first, second, third) in zip(parts.items(), grid, strict=True):
        pieces, shown = part.history.pieces, _shown(part)
        assert isinstance(pieces, PieceHistory) and shown is not None
        _draw_solution(first, part, pieces)
        first.set_title(name, fontsize=9, parse_math=False)
        _draw_pieces(second, pieces, solution.settings.tolerance or 1e-12)
        _draw_residuals(third, *shown, part.model)
        third.set_title(shown[0].name, fontsize=9, parse_math=False)
    _say_more(figure, solution)
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


def _draw_pieces(axes: "Axes", pieces: PieceHistory, tolerance: float) -> None:
    """Length of each piece and, on an axis at the right, what was compared with the tolerance."""
    edges, order = np.asarray(pieces.edges, float), 1
    if len(edges) < 2:
        say(axes, f"no piece was accepted, {pieces.rejected} rejected attempts")
        return
    if edges[1] < edges[0]:
        edges, order = edges[::-1], -1
    places = _on_time_axis(axes, edges)
    axes.stairs(np.diff(edges), places, color=TRAIN, lw=1.4, baseline=None)
    axes.set(yscale="log", xlabel="t")
    axes.set_ylabel("length of the piece", color=TRAIN)
    beside = axes.twinx()
    residual = on_log_axis(np.asarray(pieces.monitor, float))[::order]
    beside.stairs(residual, places, color=MONITOR, lw=1.4, baseline=None)
    beside.axhline(tolerance, color=MONITOR, lw=0.9, ls="--")
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


def _draw_solution(axes: "Axes", solution: "Solution", pieces: PieceHistory) -> None:
    edges = np.sort(np.asarray(pieces.edges, float))
    if len(edges) < 2:
        say(axes, "no piece was accepted")
        return
    places = _on_time_axis(axes, edges)
    spaced = np.geomspace if axes.get_xscale() == "log" else np.linspace
    t = np.union1d(spaced(places[0], places[-1], _SHOWN), places).clip(edges[0], edges[-1])
    t = t.astype(solution.streams[0].train.points.dtype)
    reference = solution.problem.reference
    values = values_at(solution.model, t)
    assert values is not None
    draw_curves(axes, t, values, None if reference is None else values_at(reference, t))
    for item, points in zip(solution.problem.constraints, solution.streams, strict=True):
        if isinstance(item.over, Data):
            if points.heldout is not None:
                _draw_rows(axes, points.heldout, HELDOUT, f"{item.name}, held-out")
            _draw_rows(axes, points.train, TRAIN, item.name)
            axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="t", title="u(t)")
    widen(axes)


def _draw_residuals(
    axes: "Axes", constraint: "Constraint", points: Streams, gap: ConstraintGap, model: PyTree
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


def _draw_distance(axes: "Axes", gap: ConstraintGap) -> None:
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
        xlabel="distance to the nearest training point, a fifth of the held-out points each",
        ylabel="held-out RMS |r|",
        title="between the points or outside the cloud?",
    )
    widen(axes)


def _draw_map(
    axes: "Axes", solution: "Solution", constraint: "Constraint", points: Streams
) -> None:
    assert points.heldout is not None
    held = _some(points.heldout.points, 1000)
    x, where = model_inputs(held), "on held-out points"
    rows = isinstance(held, tuple) or isinstance(constraint.over, Data)
    if rows and _width(x) == 1 and x.dtype.kind == "f":
        # Between rows as well: there it shows whether a model wiggles.
        seen = np.concatenate([x, model_inputs(points.train.points)])
        x = np.linspace(seen.min(), seen.max(), _SHOWN, dtype=x.dtype).reshape(-1, *x.shape[1:])
        where = "and rows"
    values = values_at(solution.model, x)
    if values is None:
        say(axes, "the model is no function of one point array")
        return
    if _width(x) == 1:
        x = x[np.argsort(x.ravel())]
        values, reference = values_at(solution.model, x), solution.problem.reference
        assert values is not None
        draw_curves(axes, x.ravel(), values, None if reference is None else values_at(reference, x))
        axes.set_xlabel("x")
        if where == "and rows":
            _draw_rows(axes, points.heldout, HELDOUT, "held-out")
            _draw_rows(axes, points.train, TRAIN, "train")  # above: they are fewer
            axes.legend(frameon=False, fontsize=8)
    elif values.shape[1] == 1:
        _draw_values(axes, x, [values], values, None)
    else:
        draw_cloud(axes, values, HELDOUT, window([values], constraint.target), constraint.target)
    more = ", first two entries" if values.shape[1] > 2 and _width(x) > 1 else ""
    axes.set_title(f"u(x) {where}{more}")


def _draw_rows(axes: "Axes", stream: Draw, colour: str, label: str) -> None:
    points = stream.points
    if not len(stream):
        return
    if not (isinstance(points, tuple) and len(points) == 2 and isinstance(points[1], np.ndarray)):
        return
    x, y = (np.asarray(part).reshape(len(part), -1) for part in _some(points, 1000))
    for column in y.T:
        axes.plot(x[:, 0], column, ".", color=colour, ms=4, alpha=0.7, label=label, zorder=1)
        label = "_"  # one entry of the legend for all columns


def _draw_values(
    axes: "Axes",
    x: np.ndarray,
    alike: list[np.ndarray],
    values: np.ndarray,
    target: AbstractTarget | None,
) -> None:
    """Draw values against their points; `alike` are those that share limits and colours."""
    x = x.reshape(len(x), -1)
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        axes.set_prop_cycle(color=COMPONENTS)
        axes.plot(x[order, 0], values[order], lw=1.4)
        axes.set_xlabel("x", fontsize=8)
        axes.label_outer()
    elif values.shape[1] == 1:
        every = np.concatenate(alike)
        drawn = axes.scatter(
            x[:, 0], x[:, 1], c=values[:, 0], s=6, vmin=np.nanmin(every), vmax=np.nanmax(every)
        )
        axes.figure.colorbar(drawn, ax=axes)
    else:
        draw_cloud(axes, values, TRAIN, window(alike, target), target)


def _some(stream: PyTree, count: int) -> PyTree:
    """At most so many points, at random: the first of a grid or of sorted rows lie on one side."""
    n = len(jax.tree.leaves(stream)[0])
    kept = np.sort(np.random.default_rng(0).permutation(n)[:count])
    return jax.tree.map(lambda leaf: leaf[kept], stream)


def _width(x: PyTree) -> int:
    """Numbers in one input of a model, 0 if it is no single array."""
    return int(np.prod(x.shape[1:])) if isinstance(x, np.ndarray) else 0


def _which(solution: "Solution", constraint: "Constraint") -> str:
    constraints = solution.problem.constraints
    if len(constraints) == 1:
        return constraint.name
    names = [item.name for item in constraints]
    return f"constraint {names.index(constraint.name) + 1} of {len(constraints)}: {constraint.name}"


def _shown(solution: "Solution") -> "tuple[Constraint, Streams, ConstraintGap] | None":
    """The first constraint with a population: what one page can show."""
    for constraint, points in zip(solution.problem.constraints, solution.streams, strict=True):
        if points.heldout is not None:
            return constraint, points, solution.gap[constraint.name]
    return None
