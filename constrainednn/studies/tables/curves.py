"""Figures of a study against one of its axes, the steps, or the distance to training points."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from constrainednn._figures.panels.history import FEW
from constrainednn._figures.style import (
    COMPONENTS,
    DASHES,
    HELDOUT,
    LEGEND,
    MONITOR,
    TRAIN,
    new_figure,
    on_log_axis,
    say,
    widen,
)
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.law import Law, law_along
from constrainednn.studies.tables.panels import (
    MOST,
    Drawn,
    around,
    band,
    columns_of,
    grid_of,
    hold,
    say_how_many,
    title_of,
    ylabel,
)
from constrainednn.studies.tables.rows import (
    UNFINISHED,
    endings,
    groups,
    has_failed,
    quantiles_of,
    values_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def against(axis: str, rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """Train, held-out and gap over an axis of numbers, a panel for each other combination."""
    every = groups(rows, [name for name in varied if name != axis])
    drawn = every[:MOST]
    figure = new_figure(*_size(len(drawn), 4.2, 3.4))
    panels = grid_of(figure, len(drawn))
    numbers: dict[str, Any] = {"laws": [], "groups": {}}
    for axes, (where, group) in zip(panels, drawn, strict=True):
        title, sizes = title_of(where), _sizes(axis, group)
        x = np.array(sorted({row["given"][axis] for row in group}), float)
        entry: dict[str, Any] = {axis: x, **_draw_losses(axes, axis, x, group)}
        numbers["groups"][title] = entry
        law, said = _law(axis, group, [residuals for _, residuals in sizes.values()])
        if said:
            numbers["laws"].append(f"{title}: {said}")
        if law is not None:
            _draw_law(axes, x, law)
        crossing = _interpolation(sizes)
        if crossing is not None:
            entry["interpolation"] = crossing
            axes.axvline(crossing, color="grey", linestyle=":", label="parameters = residuals")
        axes.set_title(title, fontsize=9, parse_math=False)
        _set_axis(axes, axis, x)
    panels[0].set_ylabel(ylabel("loss", groups(rows, varied)))
    say_how_many(figure, len(drawn), len(every))
    return figure, numbers


def _size(panels: int, width: float, height: float) -> tuple[float, float]:
    """Inches of a figure of so many panels, with room for what stands above."""
    columns = columns_of(panels)
    return width * columns, 0.5 + height * -(-panels // columns)


def _draw_losses(
    axes: "Axes", axis: str, x: Float[np.ndarray, " n"], rows: list[Row]
) -> dict[str, np.ndarray]:
    """Bands of train, held-out and gap; where some runs did not converge the mark is hollow."""
    levels = [[row for row in rows if row["given"][axis] == at] for at in x]
    entry = {}
    for name, colour in (("train_loss", TRAIN), ("heldout_loss", HELDOUT), ("gap", "#444444")):
        label = name.partition("_")[0]
        entry[label] = np.stack([quantiles_of(values_of(level, name)) for level in levels])
        band(axes, x, entry[label], colour, {"heldout": "held-out"}.get(label, label))
    stopped = [any(row["status"] in UNFINISHED for row in level) for level in levels]
    if any(stopped):
        middle = on_log_axis(entry["heldout"][:, 1])[stopped]
        label = "some runs ended before convergence"
        axes.plot(x[stopped], middle, "o", mfc="white", mec=HELDOUT, ms=6, label=label)
    return entry


def _law(axis: str, rows: list[Row], residuals: list[int]) -> tuple[Law | None, str]:
    """The law over a number of training points, and what to say of it; none along other axes."""
    if sorted(set(residuals)) != residuals:
        return None, ""
    try:
        law = law_along(axis, rows, "heldout_loss")
    except ValueError as error:
        return None, f"no law, {error}"
    return law, f"held-out loss: {law!r}"


def _draw_law(axes: "Axes", x: Float[np.ndarray, " n"], law: Law) -> None:
    if not law.has_trend:
        axes.plot([], [], " ", label="no trend")
    elif (x > 0).all():
        fine = np.geomspace(x.min(), x.max(), 100)
        b = law.exponent
        text = f"law, exponent {b.value:.2f} [{b.low:.2f}, {b.high:.2f}]"
        if law.lack_of_fit < 0.05:
            text += f"\nlack of fit p = {law.lack_of_fit:.1g}"
        axes.plot(fine, law(fine), "k--", linewidth=1, label=text)


def _set_axis(axes: "Axes", axis: str, x: Float[np.ndarray, " n"]) -> None:
    """Scales, ticks at the values of an axis where there are few, and the legend."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log" if (x > 0).all() and x.max() >= 4 * x.min() else "linear")
    axes.set_yscale("log")
    axes.set_xlabel(axis)
    axes.legend(**LEGEND | {"fontsize": 7})
    widen(axes)
    hold(axes)
    if len(x) <= MOST:
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(*around(x, axes.get_xscale() == "log"))


def _sizes(axis: str, rows: Sequence[Row]) -> dict[float, tuple[int, int]]:
    """Trained parameters, and residuals that they fit, along an axis."""
    seen: dict[float, tuple[int, int]] = {}
    for row in rows:
        if row.get("gap"):
            parts = [*row["gap"]["constraints"], *row["gap"]["finite"]]
            residuals = sum(part["points"] * part["entries"] for part in parts)
            seen[row["given"][axis]] = row["parameters"], residuals
    return dict(sorted(seen.items()))


def _interpolation(sizes: dict[float, tuple[int, int]]) -> float | None:
    """Where along an axis the trained parameters are as many as the residuals.

    Between two values as between powers, which is exact for a number of points.
    """
    x = np.array(list(sizes), float)
    positive = bool((x > 0).all())
    x = np.log(x) if positive else x
    excess = np.array([np.log(parameters / residuals) for parameters, residuals in sizes.values()])
    changes = np.flatnonzero(np.diff(np.sign(excess)))
    if not changes.size:
        return None
    i = int(changes[0])
    found = float(x[i] + (x[i + 1] - x[i]) * excess[i] / (excess[i] - excess[i + 1]))
    return math.exp(found) if positive else found


def time(rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """Train and monitor loss over the steps."""
    from matplotlib.ticker import MaxNLocator

    every = groups(rows, varied)
    drawn = every[: 2 * MOST]
    figure = new_figure(*_size(len(drawn), 3.6, 2.6))
    panels = grid_of(figure, len(drawn))
    numbers = {}
    for axes, (labels, group) in zip(panels, drawn, strict=True):
        histories = [None if has_failed(row) else row.get("history") for row in group]
        steps = np.array(sorted({s for h in histories if h for s in h["steps"]}), float)
        entry: dict[str, Any] = {"steps": steps}
        few = steps.max(initial=0) <= FEW
        for name, colour in (("train", TRAIN), ("monitor", MONITOR)):
            curves = [_carried(history, name, steps) for history in histories]
            known = [curve for curve in curves if not np.isnan(curve).all()]
            if known and len(steps):
                bands = np.stack([quantiles_of(column) for column in np.stack(known).T])
                entry[name] = bands
                band(axes, steps + (not few), bands, colour, name)
        axes.set_yscale("log")
        ended = endings(group)
        marked = f"\nof {len(group)}: {ended}" if ended else ""
        axes.set_title(title_of(labels) + marked, fontsize=8, parse_math=False)
        # Log axes have no zero: step k is drawn at k + 1.
        axes.set_xlabel("step" if few else "step + 1")
        if few:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.set_xscale("log")
        widen(axes)
        hold(axes)
        numbers[title_of(labels)] = entry
    for axes in panels:
        if axes.lines:  # the first one may be of runs that all failed
            axes.legend(fontsize=7, frameon=False)
            break
    panels[0].set_ylabel(ylabel("loss", drawn))
    say_how_many(figure, len(drawn), len(every))
    return figure, numbers


def _carried(history: dict[str, Any] | None, name: str, steps: np.ndarray) -> np.ndarray:
    """A curve at all steps: a run that ended keeps its last value, one that failed is infinite."""
    if not history:
        return np.full(len(steps), np.inf)
    values = np.array([np.nan if v is None else v for v in history[name]], float)
    at = np.searchsorted(history["steps"], steps, side="right") - 1
    return values[np.clip(at, 0, len(values) - 1)]


def distance(rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """RMS residual against the distance to the nearest training point, constraint by constraint."""
    every = groups(rows, varied)
    drawn = every[:MOST]
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    numbers = {}
    for (labels, group), colour, dash in zip(drawn, COMPONENTS, DASHES, strict=False):
        by_name: dict[str, list[tuple[list[float], list[float]]]] = {}
        for row in group:
            for part in (row.get("gap") or {}).get("constraints", []):
                if part["distance"] and not has_failed(row):
                    seen = part["distance"]
                    by_name.setdefault(part["name"], []).append((seen["edges"], seen["rms"]))
        # One dash for each setting; where constraints differ, they have the dashes.
        for (name, seen), style in zip(
            by_name.items(), DASHES if len(by_name) > 1 else [dash], strict=False
        ):
            edges = np.median([edge for edge, _ in seen], axis=0)
            classes = np.array([rms for _, rms in seen], float).T
            bands = np.stack([quantiles_of(values) for values in classes])
            label = title_of(labels) + (f": {name}" if len(by_name) > 1 else "")
            numbers[label] = {"distance": edges, "rms": bands}
            low, middle, high = (on_log_axis(column) for column in bands.T)
            x, how = (edges[:-1] + edges[1:]) / 2, {"marker": "o", "markersize": 3}
            axes.plot(x, middle, ls=style, color=colour, label=label, **how)
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("distance to the nearest training point")
    axes.set_ylabel(ylabel("held-out RMS residual", drawn), fontsize=8)
    say_how_many(figure, len(drawn), len(every))
    if not numbers:
        say(axes, "too few held-out points to show the residual by distance")
        return figure, numbers
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    widen(axes)
    return figure, numbers
