"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from constrainednn._blocks import flat_value, in_blocks
from constrainednn._gap import ConstraintGap, Streams, mean_square, residuals_at
from constrainednn._image import OTHER_USE, model_inputs
from constrainednn._report import number
from constrainednn._targets import Circle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from constrainednn._problem import Constraint
    from constrainednn._solution import Solution

# Colour-blind safe (Okabe and Ito), one meaning each.
TRAIN, MONITOR, HELDOUT, KNOWN = "#0072B2", "#E69F00", "#D55E00", "#666666"

# Points in one small picture of `moments`.
_SHOWN = 400


def overview(solution: "Solution") -> "Figure":
    """Loss against step, residual on train and held-out points, residual against distance, map."""
    figure = _figure(11, 7.5)
    grid = figure.subplots(2, 2)
    _draw_history(grid[0, 0], solution)
    shown = _shown(solution)
    if shown is None:
        for axes in grid.flat[1:]:
            _say(axes, "no constraint with a population")
        return figure
    constraint, points, gap = shown
    _draw_residuals(grid[0, 1], constraint, points, solution.model)
    _draw_distance(grid[1, 0], gap)
    _draw_map(grid[1, 1], solution, constraint, points)
    figure.suptitle(
        f"{gap.name}: train RMS {number(gap.train_rms)} on {gap.points} points, held-out RMS "
        f"{number(gap.heldout_rms.value)} on {gap.heldout.n}",
        parse_math=False,
    )
    return figure


def moments(solution: "Solution") -> "Figure":
    """The map at several moments of training: small multiples, train above monitor.

    For maps of the plane x and then u(x), coloured by the direction of x; for functions of one
    variable u(x) as a curve.
    """
    shown = _shown(solution)
    snapshots = solution.history.snapshots
    if len(snapshots) > 5:
        chosen = np.unique(np.linspace(0, len(snapshots) - 1, 5).round().astype(int))
        snapshots = tuple(snapshots[i] for i in chosen)
    if shown is None or not snapshots:
        figure = _figure(6, 3)
        _say(figure.subplots(), "no snapshots of a constraint with a population")
        return figure
    constraint, points, _ = shown
    streams = [("train", points.train)]
    if points.monitor is not None:
        streams.append(("monitor", points.monitor))
    inputs = [model_inputs(stream.points) for _, stream in streams]
    planar = isinstance(inputs[0], np.ndarray) and inputs[0].shape[1:] == (2,)
    columns = len(snapshots) + planar
    figure = _figure(2.1 * columns + 0.4, 2.3 * len(streams) + 0.3)
    grid = figure.subplots(len(streams), columns, squeeze=False, sharey=not planar)
    for row, (name, stream) in enumerate(streams):
        some = jax.tree.map(lambda leaf: leaf[:_SHOWN], stream)
        x = model_inputs(some.points)
        if planar:
            _draw_values(grid[row, 0], x, x, None, None)
            grid[row, 0].set_title("x", fontsize=8)
        for axes, (step, model) in zip(grid[row, int(planar) :], snapshots, strict=True):
            values = _values(model, x)
            if values is None:
                _say(axes, "no map of points")
                continue
            r = residuals_at(constraint.residual, model, some.points)
            rms = float(np.sqrt(mean_square(r, some) / some.share.sum() / r.shape[1]))
            colour = (TRAIN, MONITOR)[row]
            _draw_values(axes, np.asarray(x), values, constraint, None if planar else colour)
            axes.set_title(f"u(x), step {step}\nRMS {number(rms)}", fontsize=8)
        first = f"first {_SHOWN} of " if len(stream) > _SHOWN else ""
        grid[row, 0].set_ylabel(f"{name}, {first}{len(stream)} points", fontsize=8)
        for axes in grid[row]:
            axes.tick_params(labelsize=7)
    return figure


def _draw_history(axes: "Axes", solution: "Solution") -> None:
    history = solution.history
    loss = _on_log_axis(history.loss)
    # Log axes have no zero: step k is drawn at k + 1.
    steps = np.arange(len(loss)) + 1
    if len(loss) > 2000:
        keep = np.unique(np.geomspace(1, len(loss), 2000).astype(int)) - 1
        steps, loss = steps[keep], loss[keep]
    if not np.isfinite(loss).any():
        _say(axes, "loss is zero or not finite at every step")
        return
    axes.plot(
        steps, loss, color=TRAIN, lw=1.2, marker="." if len(loss) < 60 else None, label="train"
    )
    monitor = _on_log_axis(history.monitor)
    if np.isfinite(monitor).any():
        axes.plot(
            history.monitor_steps + 1, monitor, color=MONITOR, lw=1.2, marker=".", label="monitor"
        )
    for step in history.redraws[:50]:
        axes.axvline(step + 1, color=KNOWN, lw=0.3)
    axes.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="loss", title="loss")
    axes.legend(frameon=False)


def _on_log_axis(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show; its ticks overflow where a run diverged beyond this."""
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    return np.clip(shown, 1e-200, 1e200)


def _draw_residuals(axes: "Axes", constraint: "Constraint", points: Streams, model: PyTree) -> None:
    """Share of points with a residual above a size, on log axes."""
    assert points.heldout is not None
    drawn = False
    for name, stream, colour in (
        ("train", points.train, TRAIN),
        ("held-out", points.heldout, HELDOUT),
    ):
        r = np.linalg.norm(residuals_at(constraint.residual, model, stream.points), axis=1)
        r = _on_log_axis(r)
        r = np.sort(r[np.isfinite(r)])[::-1]
        if r.size:
            axes.plot(
                r,
                np.arange(1, r.size + 1) / r.size,
                color=colour,
                lw=1.4,
                label=f"{name} (n = {len(stream)})",
            )
            drawn = True
    if not drawn:
        _say(axes, "residual exactly zero everywhere")
        return
    axes.set(
        xscale="log", yscale="log", xlabel="|r|", ylabel="share of points above", title="residual"
    )
    axes.legend(frameon=False)


def _draw_distance(axes: "Axes", gap: ConstraintGap) -> None:
    distance = gap.distance
    if distance is None or not np.isfinite(distance.rms).all() or not max(distance.rms) > 0:
        _say(axes, "too few points to show the residual by distance")
        return
    rms = _on_log_axis(np.asarray(distance.rms))
    axes.stairs(rms, distance.edges, color=HELDOUT, lw=1.4, baseline=None)
    axes.set(
        yscale="log",
        xlabel="distance to the nearest training point",
        ylabel="held-out RMS |r|",
        title="between the points or outside the cloud?",
    )
    axes.locator_params(axis="x", nbins=6)


def _draw_map(
    axes: "Axes", solution: "Solution", constraint: "Constraint", points: Streams
) -> None:
    assert points.heldout is not None
    some = jax.tree.map(lambda leaf: leaf[:1000], points.heldout.points)
    x = model_inputs(some)
    values = _values(solution.model, x)
    if values is None:
        _say(axes, "the model is no function of one point array")
        return
    _draw_values(axes, np.asarray(x), values, constraint, HELDOUT)
    if x.reshape(len(x), -1).shape[1] == 1:
        reference = solution.problem.reference
        order = np.argsort(x.ravel())
        if reference is not None:
            known = np.asarray(_values(reference, x))
            axes.plot(x.ravel()[order], known[order], "--", color=KNOWN, lw=1, label="reference")
            axes.legend(frameon=False)
        elif isinstance(some, tuple):
            y = np.asarray(some[1]).reshape(len(x), -1)
            axes.plot(x.ravel(), y, ".", color=KNOWN, ms=2)
    more = ", first two entries" if values.shape[1] > 2 else ""
    axes.set_title(f"u(x) on held-out points{more}")


def _draw_values(
    axes: "Axes",
    x: np.ndarray,
    values: np.ndarray,
    constraint: "Constraint | None",
    colour: str | None,
) -> None:
    """Draw values at points; without a colour, by the direction of x in the plane."""
    x = x.reshape(len(x), -1)
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        axes.plot(x[order], values[order], color=colour, lw=1.4)
        axes.set_xlabel("x", fontsize=8)
        return
    if values.shape[1] == 1:
        drawn = axes.scatter(x[:, 0], x[:, 1], c=values[:, 0], s=6, cmap="viridis")
        axes.figure.colorbar(drawn, ax=axes)
        return
    target = constraint.target if constraint is not None else None
    if isinstance(target, Circle):
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(target.radius * np.cos(angle), target.radius * np.sin(angle), color=KNOWN, lw=0.6)
        # A few values far out would shrink the circle to a dot: say how many are not shown.
        reach = np.abs(values[:, :2]).max(axis=1)
        limit = max(1.6 * target.radius, float(np.quantile(reach, 0.9)))
        outside = int((reach > limit).sum())
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
        if outside:
            axes.text(
                0.98,
                0.02,
                f"{outside} outside",
                ha="right",
                transform=axes.transAxes,
                fontsize=7,
                color=KNOWN,
            )
    axes.set_aspect("equal")
    if colour is None:
        axes.scatter(
            values[:, 0],
            values[:, 1],
            s=6,
            lw=0,
            c=np.arctan2(x[:, 1], x[:, 0]),
            cmap="twilight_shifted",
            vmin=-np.pi,
            vmax=np.pi,
        )
    else:
        axes.scatter(values[:, 0], values[:, 1], s=5, color=colour, alpha=0.6, lw=0)


def _values(model: Callable[[Any], Any], x: PyTree) -> np.ndarray | None:
    if not (callable(model) and isinstance(x, np.ndarray)):
        return None
    try:
        values = in_blocks(eqx.Partial(flat_value, model), x)
    except OTHER_USE:
        return None
    return values


def _shown(solution: "Solution") -> "tuple[Constraint, Streams, ConstraintGap] | None":
    """The first constraint with a population: what one page can show."""
    for constraint, points in zip(solution.problem.constraints, solution.streams, strict=True):
        if points.heldout is not None:
            return constraint, points, solution.gap[constraint.name]
    return None


def _say(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, parse_math=False)
    axes.set_axis_off()


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
