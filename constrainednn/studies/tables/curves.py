"""Figures of a study against one of its axes or against time."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from constrainednn._figures.style import (
    COMPONENTS,
    HELDOUT,
    MONITOR,
    TRAIN,
    new_figure,
    on_log_axis,
    say,
    widen,
)
from constrainednn.studies.tables.law import Law
from constrainednn.studies.tables.panels import (
    MOST,
    Drawn,
    around,
    band,
    rows_of,
    say_how_many,
    title_of,
    ylabel,
)
from constrainednn.studies.tables.rows import UNFINISHED, endings, has_failed, quantiles_of

if TYPE_CHECKING:
    from constrainednn.studies.tables.table import Study


def against(study: "Study", axis: str) -> Drawn:
    """Train, held-out and gap over an axis of numbers, a panel for each other combination."""
    from matplotlib.ticker import NullLocator

    every = list(study.groups(*(name for name in study.axes if name != axis)))
    groups = every[:MOST]
    laws: list[Law | None] = [None] * len(groups)
    said: list[str] = []
    for place, (where, rows) in enumerate(groups):
        some = Study(rows_of(study, rows), study.axes)
        residuals = [count for _, count in _sizes(some, axis).values()]
        if sorted(set(residuals)) != residuals:
            continue  # a law is over the number of training points
        try:
            laws[place] = some.laws(axis)[0][1]
            said.append(f"{title_of(where)}: held-out loss: {laws[place]!r}")
        except ValueError as error:
            said.append(f"{title_of(where)}: no law, {error}")
    figure = new_figure(4.2 * len(groups), 3.6)
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    numbers: dict[str, Any] = {"laws": said, "groups": {}}
    for axes, (where, rows), law in zip(panels, groups, laws, strict=True):
        x = np.array(sorted({row[axis] for row in rows}), float)
        entry: dict[str, Any] = {axis: x}
        for name, colour in (("train_loss", TRAIN), ("heldout_loss", HELDOUT), ("gap", "#444444")):
            values = [[row[name] for row in rows if row[axis] == at] for at in x]
            bands = np.stack([quantiles_of(np.array(each, float)) for each in values])
            label = name.partition("_")[0]
            entry[label] = bands
            band(axes, x, bands, colour, {"heldout": "held-out"}.get(label, label))
        stopped = [any(r["status"] in UNFINISHED for r in rows if r[axis] == at) for at in x]
        if any(stopped):
            middle = on_log_axis(entry["heldout"][:, 1])[stopped]
            label = "some runs stopped on their way"
            axes.plot(x[stopped], middle, "o", mfc="white", mec=HELDOUT, ms=6, label=label)
        if law is not None and not law.has_trend:
            axes.plot([], [], " ", label="no trend")
        elif law is not None and (x > 0).all():
            fine = np.geomspace(x.min(), x.max(), 100)
            b = law.exponent
            text = f"law, exponent {b.value:.2f} [{b.low:.2f}, {b.high:.2f}]"
            if law.lack_of_fit < 0.05:
                text += f"\nlack of fit p = {law.lack_of_fit:.1g}"
            axes.plot(fine, law(fine), "k--", linewidth=1, label=text)
        crossing = _interpolation(_sizes(Study(rows_of(study, rows), study.axes), axis))
        if crossing is not None:
            entry["interpolation"] = crossing
            axes.axvline(crossing, color="grey", linestyle=":", label="parameters = residuals")
        axes.set_xscale("log" if (x > 0).all() and x.max() >= 4 * x.min() else "linear")
        axes.set_yscale("log")
        axes.set_xlabel(axis)
        axes.set_title(title_of(where), fontsize=9, parse_math=False)
        axes.legend(fontsize=7, frameon=False)
        widen(axes)
        if len(x) <= MOST:
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(*around(x, axes.get_xscale() == "log"))
        numbers["groups"][title_of(where)] = entry
    panels[0].set_ylabel(ylabel("loss", [(at, r) for at, r in study.groups(*study.axes)]))
    say_how_many(figure, len(groups), len(every))
    return figure, numbers


def _sizes(study: "Study", axis: str) -> dict[float, tuple[int, int]]:
    """Trained parameters, and residuals that they fit, along an axis."""
    seen: dict[float, tuple[int, int]] = {}
    for row in study.rows:
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


def time(study: "Study") -> Drawn:
    """Train and monitor loss over the steps."""
    every = list(study.groups(*study.axes))
    groups = every[: 2 * MOST]
    columns = min(3, len(groups))
    rows_needed = -(-len(groups) // columns)
    figure = new_figure(3.6 * columns, 0.4 + 2.6 * rows_needed)
    panels = figure.subplots(rows_needed, columns, squeeze=False, sharey=True).ravel()
    numbers = {}
    for axes, (labels, rows) in zip(panels, groups, strict=False):
        found = rows_of(study, rows)
        histories = [None if has_failed(row) else row.get("history") for row in found]
        steps = np.array(sorted({s for h in histories if h for s in h["steps"]}), float)
        entry: dict[str, Any] = {"steps": steps}
        for name, colour in (("train", TRAIN), ("monitor", MONITOR)):
            curves = [_carried(history, name, steps) for history in histories]
            known = [curve for curve in curves if not np.isnan(curve).all()]
            if known and len(steps):
                bands = np.stack([quantiles_of(column) for column in np.stack(known).T])
                entry[name] = bands
                band(axes, np.maximum(steps, 0.5), bands, colour, name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        marked = f"\nof {len(rows)}: {endings(rows)}" if endings(rows) else ""
        axes.set_title(title_of(labels) + marked, fontsize=8, parse_math=False)
        axes.set_xlabel("step")
        widen(axes)
        numbers[title_of(labels)] = entry
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    for axes in panels:
        if axes.lines:  # the first one may be of runs that all failed
            axes.legend(fontsize=7, frameon=False)
            break
    panels[0].set_ylabel(ylabel("loss", groups))
    say_how_many(figure, len(groups), len(every))
    return figure, numbers


def _carried(history: dict[str, Any] | None, name: str, steps: np.ndarray) -> np.ndarray:
    """A curve at all steps: a run that ended keeps its last value, one that failed is infinite."""
    if not history:
        return np.full(len(steps), np.inf)
    values = np.array([np.nan if v is None else v for v in history[name]], float)
    at = np.searchsorted(history["steps"], steps, side="right") - 1
    return values[np.clip(at, 0, len(values) - 1)]


def distance(study: "Study") -> Drawn:
    """RMS residual against the distance to the nearest training point, constraint by constraint."""
    every = list(study.groups(*study.axes))
    groups = every[:MOST]
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    numbers = {}
    for (labels, rows), colour in zip(groups, COMPONENTS, strict=False):
        by_name: dict[str, list[tuple[list[float], list[float]]]] = {}
        for row in rows_of(study, rows):
            for part in (row.get("gap") or {}).get("constraints", []):
                if part["distance"] and not has_failed(row):
                    seen = part["distance"]
                    by_name.setdefault(part["name"], []).append((seen["edges"], seen["rms"]))
        for (name, seen), style in zip(by_name.items(), ("-", "--", ":", "-."), strict=False):
            edges = np.median([edge for edge, _ in seen], axis=0)
            classes = np.array([rms for _, rms in seen], float).T
            bands = np.stack([quantiles_of(values) for values in classes])
            middle = (edges[:-1] + edges[1:]) / 2
            label = title_of(labels) + (f": {name}" if len(by_name) > 1 else "")
            numbers[label] = {"distance": edges, "rms": bands}
            axes.plot(
                middle,
                on_log_axis(bands[:, 1]),
                style,
                color=colour,
                marker="o",
                markersize=3,
                label=label,
            )
            low, high = on_log_axis(bands[:, 0]), on_log_axis(bands[:, 2])
            axes.fill_between(middle, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("distance to the nearest training point")
    axes.set_ylabel(ylabel("held-out RMS residual", groups), fontsize=8)
    say_how_many(figure, len(groups), len(every))
    if not numbers:
        say(axes, "too few held-out points to show the residual by distance")
        return figure, numbers
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    widen(axes)
    return figure, numbers
