"""The figures of a study, drawn from its table alone, and the numbers in them.

Medians over seeds with the quantiles of 10 and 90 %, below ten seeds with the smallest and the
largest: a run that failed counts as infinite, and is drawn at the upper end of the axis. Where some
runs were stopped on their way, the mark is hollow.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from constrainednn._drawing import (
    COMPONENTS,
    HELDOUT,
    MONITOR,
    TRAIN,
    new_figure,
    on_log_axis,
    say,
    widen,
)
from constrainednn._files import write_atomically
from constrainednn._law import Law
from constrainednn._report import number
from constrainednn._store import plain, rendered
from constrainednn._study_table import (
    UNFINISHED,
    Study,
    endings,
    ends_shown,
    has_failed,
    quantiles_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from constrainednn._ensemble import Calibration


Drawn = tuple["Figure", dict[str, Any]]
_MOST = len(COMPONENTS)


def figures(study: Study) -> "dict[str, Figure]":
    """All figures that the axes of a study allow."""
    return {name: draw()[0] for name, draw in _available(study)}


def write_figures(study: Study, folder: Path) -> Iterator[str]:
    """Write all figures as PNG and their numbers as `figures.json`; say what there is."""
    numbers = {}
    for name, draw in _available(study):
        figure, numbers[name] = draw()
        write_atomically(folder / f"{name}.png", rendered(figure))
        yield from [*numbers[name].get("laws", []), *numbers[name].get("pairs", [])]
        yield f"drawn: {folder / name}.png"
    write_atomically(folder / "figures.json", json.dumps(plain(numbers), indent=1).encode())
    yield f"their numbers: {folder / 'figures.json'}"


def _available(study: Study) -> Iterator[tuple[str, Callable[[], Drawn]]]:
    if not study.rows:
        return
    plain_numbers = [axis for axis in study.axes if _is_numeric(study, axis)]
    for axis in plain_numbers:
        yield f"against-{axis}", lambda axis=axis: _against(study, axis)
    for axis in study.axes:
        if axis not in plain_numbers:
            yield f"paired-{axis}", lambda axis=axis: _paired(study, axis)
    for one, other in itertools.combinations(plain_numbers, 2):
        yield f"map-{one}-{other}", lambda one=one, other=other: _map(study, one, other)
    yield "seeds", lambda: _seeds(study)
    yield "time", lambda: _time(study)
    yield "distance", lambda: _distance(study)


def _is_numeric(study: Study, axis: str) -> bool:
    values = {row["given"][axis] for row in study.rows}
    return len(values) > 1 and all(type(value) in (int, float) for value in values)


def _ylabel(what: str, groups: list) -> str:
    """What a band shows: the middle and the ends, of the group with the fewest seeds."""
    fewest = min((len({row["seed"] for row in rows}) for _, rows in groups), default=0)
    return f"{what}: median, {ends_shown(fewest)}"


def _first(figure: "Figure", drawn: int, groups: int) -> None:
    """Say that not all combinations are drawn."""
    if drawn < groups:
        figure.suptitle(f"first {drawn} of {groups} combinations", fontsize=9)


def _title(labels: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items()) or "all runs"


def _against(study: Study, axis: str) -> Drawn:
    """Train, held-out and gap over an axis of numbers, a panel for each other combination."""
    from matplotlib.ticker import NullLocator

    every = list(study.groups(*(name for name in study.axes if name != axis)))
    groups = every[:_MOST]
    laws: list[Law | None] = [None] * len(groups)
    said: list[str] = []
    for place, (where, rows) in enumerate(groups):
        some = Study(_rows_of(study, rows), study.axes)
        residuals = [count for _, count in _sizes(some, axis).values()]
        if sorted(set(residuals)) != residuals:
            continue  # a law is over the number of training points
        try:
            laws[place] = some.laws(axis)[0][1]
            said.append(f"{_title(where)}: held-out loss: {laws[place]!r}")
        except ValueError as error:
            said.append(f"{_title(where)}: no law, {error}")
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
            _band(axes, x, bands, colour, {"heldout": "held-out"}.get(label, label))
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
        crossing = _interpolation(_sizes(Study(_rows_of(study, rows), study.axes), axis))
        if crossing is not None:
            entry["interpolation"] = crossing
            axes.axvline(crossing, color="grey", linestyle=":", label="parameters = residuals")
        axes.set_xscale("log" if (x > 0).all() and x.max() >= 4 * x.min() else "linear")
        axes.set_yscale("log")
        axes.set_xlabel(axis)
        axes.set_title(_title(where), fontsize=9, parse_math=False)
        axes.legend(fontsize=7, frameon=False)
        widen(axes)
        if len(x) <= _MOST:
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(*_around(x, axes.get_xscale() == "log"))
        numbers["groups"][_title(where)] = entry
    panels[0].set_ylabel(_ylabel("loss", [(at, r) for at, r in study.groups(*study.axes)]))
    _first(figure, len(groups), len(every))
    return figure, numbers


def _around(x: Float[np.ndarray, " n"], logarithmic: bool) -> tuple[float, float]:
    """The ends of an axis a little outside of its values."""
    ends = np.log(x[[0, -1]]) if logarithmic else x[[0, -1]]
    ends = ends + 0.06 * (ends[1] - ends[0]) * np.array([-1, 1])
    low, high = np.exp(ends) if logarithmic else ends
    return float(low), float(high)


def _rows_of(study: Study, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    names = list(study.rows[0]["given"])
    wanted = {json.dumps([[row[name] for name in names], row["seed"]]) for row in rows}
    return tuple(
        row
        for row in study.rows
        if json.dumps([[row["given"][name] for name in names], row["seed"]]) in wanted
    )


def _band(
    axes: "Axes", x: np.ndarray, bands: Float[np.ndarray, "n 3"], colour: str, label: str
) -> None:
    low, middle, high = (on_log_axis(column) for column in bands.T)
    # An infinite upper end is drawn as far as the axis goes.
    top = np.where(np.isinf(bands[:, 2]), 1e200, high)
    if np.isinf(bands[:, 2]).any():
        axes.set_autoscaley_on(False)
    style = "o--" if label == "gap" else "o-"  # it may lie on the held-out loss
    axes.plot(x, middle, style, color=colour, markersize=3, linewidth=1, label=label)
    axes.fill_between(x, low, top, color=colour, alpha=0.15, linewidth=0)
    axes.set_autoscaley_on(True)


def _sizes(study: Study, axis: str) -> dict[float, tuple[int, int]]:
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


def _paired(study: Study, axis: str) -> Drawn:
    """Each setting against the first, seed by seed."""
    pairs = study.compare(axis)
    figure = new_figure(6.4, 1.4 + 0.35 * len(pairs))
    axes = figure.subplots()
    for place, item in enumerate(pairs):
        r = item.ratio
        if r is None or not item.pairs:
            axes.text(1, place, "no pair finished", fontsize=7, va="center")
        else:
            ends = [[r.value - r.low], [r.high - r.value]]
            whole = None if np.isnan(r.low) else ends
            axes.errorbar([r.value], [place], xerr=whole, fmt="o", color=HELDOUT, capsize=3)
    names = [
        f"{_title({axis: item.second, **item.where})}\n{item.pairs} pairs"
        + (f", {item.others} failed" if item.others else "")
        for item in pairs
    ]
    axes.set_yticks(range(len(pairs)), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.axvline(1, color="grey", linestyle=":")
    axes.set_xscale("log")
    widen(axes)
    first = pairs[0].first if pairs else ""
    axes.set_xlabel(f"held-out loss / that of {axis} {first}, same seed", parse_math=False)
    return figure, {"pairs": [repr(item) for item in pairs]}


def _map(study: Study, one: str, other: str) -> Drawn:
    """The median held-out loss over two axes of numbers, a panel for each other combination."""
    from matplotlib.colors import LogNorm

    every = list(study.groups(*(name for name in study.axes if name not in (one, other))))
    groups = every[:_MOST]
    x, y = (sorted({row[name] for row in study.table()}) for name in (one, other))
    found = np.full((len(groups), len(y), len(x)), np.nan)
    for place, (_, rows) in enumerate(groups):
        for j, i in itertools.product(range(len(y)), range(len(x))):
            values = [r["heldout_loss"] for r in rows if (r[one], r[other]) == (x[i], y[j])]
            if values:
                found[place, j, i] = quantiles_of(np.array(values, float))[1]
    width, height = 0.4 + 0.9 * len(x), 1.6 + 0.6 * len(y)
    figure = new_figure(1.2 + max(width, 2.4) * len(groups), height)
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    seen = on_log_axis(found)
    norm = None
    if np.isfinite(seen).any():
        low, high = np.nanmin(seen), np.nanmax(seen)
        norm = LogNorm(low, high if high > low else 10 * low)
    box = {"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 1}
    for axes, (where, _), values, drawn in zip(panels, groups, found, seen, strict=True):
        image = axes.imshow(drawn, norm=norm, origin="lower", aspect="auto")
        for (j, i), value in np.ndenumerate(values):
            text = number(float(value))
            axes.text(i, j, text, ha="center", va="center", fontsize=7, bbox=box)
        axes.set_xticks(range(len(x)), map(str, x))
        axes.set_yticks(range(len(y)), map(str, y))
        axes.set_xlabel(one, parse_math=False)
        title = "median held-out loss" + (f"\n{_title(where)}" if where else "")
        axes.set_title(title, fontsize=9, parse_math=False)
        if axes is panels[-1] and norm is not None:
            figure.colorbar(image, ax=[*panels])
    panels[0].set_ylabel(other, parse_math=False)
    _first(figure, len(groups), len(every))
    numbers = {one: x, other: y}
    if len(groups) == 1:
        return figure, numbers | {"heldout": found[0]}
    named = {_title(where): values for (where, _), values in zip(groups, found, strict=True)}
    return figure, numbers | {"heldout": named}


def _seeds(study: Study) -> Drawn:
    """Every run: train and held-out loss of each combination of settings."""
    groups = list(study.groups(*study.axes))
    figure = new_figure(7, 1.2 + 0.4 * len(groups))
    axes = figure.subplots()
    numbers, names = {}, []
    for place, (labels, rows) in enumerate(groups):
        marked = endings(rows)
        names.append(_title(labels) + (f"\nof {len(rows)}: {marked}" if marked else ""))
        entry = {}
        for name, colour, shift in (("train_loss", TRAIN, -0.15), ("heldout_loss", HELDOUT, 0.15)):
            values = np.array([row[name] for row in rows], float)
            entry[name] = values
            at = np.full(len(values), place + shift)
            label = {"train_loss": "train", "heldout_loss": "held-out"}[name]
            axes.plot(
                on_log_axis(values), at, "|", color=colour, label=label if place == 0 else None
            )
            middle = on_log_axis(quantiles_of(values)[1:2])
            axes.plot(middle, at[:1], "o", color=colour, markersize=4)
        numbers[_title(labels)] = entry
    axes.set_yticks(range(len(groups)), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xscale("log")
    widen(axes)
    axes.set_xlabel("loss of each run; dots are medians")
    axes.legend(fontsize=7, frameon=False, loc="best")
    return figure, numbers


def _time(study: Study) -> Drawn:
    """Train and monitor loss over the steps."""
    every = list(study.groups(*study.axes))
    groups = every[: 2 * _MOST]
    columns = min(3, len(groups))
    rows_needed = -(-len(groups) // columns)
    figure = new_figure(3.6 * columns, 0.4 + 2.6 * rows_needed)
    panels = figure.subplots(rows_needed, columns, squeeze=False, sharey=True).ravel()
    numbers = {}
    for axes, (labels, rows) in zip(panels, groups, strict=False):
        found = _rows_of(study, rows)
        histories = [None if has_failed(row) else row.get("history") for row in found]
        steps = np.array(sorted({s for h in histories if h for s in h["steps"]}), float)
        entry: dict[str, Any] = {"steps": steps}
        for name, colour in (("train", TRAIN), ("monitor", MONITOR)):
            curves = [_carried(history, name, steps) for history in histories]
            known = [curve for curve in curves if not np.isnan(curve).all()]
            if known and len(steps):
                bands = np.stack([quantiles_of(column) for column in np.stack(known).T])
                entry[name] = bands
                _band(axes, np.maximum(steps, 0.5), bands, colour, name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        marked = f"\nof {len(rows)}: {endings(rows)}" if endings(rows) else ""
        axes.set_title(_title(labels) + marked, fontsize=8, parse_math=False)
        axes.set_xlabel("step")
        widen(axes)
        numbers[_title(labels)] = entry
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    for axes in panels:
        if axes.lines:  # the first one may be of runs that all failed
            axes.legend(fontsize=7, frameon=False)
            break
    panels[0].set_ylabel(_ylabel("loss", groups))
    _first(figure, len(groups), len(every))
    return figure, numbers


def _carried(history: dict[str, Any] | None, name: str, steps: np.ndarray) -> np.ndarray:
    """A curve at all steps: a run that ended keeps its last value, one that failed is infinite."""
    if not history:
        return np.full(len(steps), np.inf)
    values = np.array([np.nan if v is None else v for v in history[name]], float)
    at = np.searchsorted(history["steps"], steps, side="right") - 1
    return values[np.clip(at, 0, len(values) - 1)]


def _distance(study: Study) -> Drawn:
    """RMS residual against the distance to the nearest training point, constraint by constraint."""
    every = list(study.groups(*study.axes))
    groups = every[:_MOST]
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    numbers = {}
    for (labels, rows), colour in zip(groups, COMPONENTS, strict=False):
        by_name: dict[str, list[tuple[list[float], list[float]]]] = {}
        for row in _rows_of(study, rows):
            for part in (row.get("gap") or {}).get("constraints", []):
                if part["distance"] and not has_failed(row):
                    seen = part["distance"]
                    by_name.setdefault(part["name"], []).append((seen["edges"], seen["rms"]))
        for (name, seen), style in zip(by_name.items(), ("-", "--", ":", "-."), strict=False):
            edges = np.median([edge for edge, _ in seen], axis=0)
            classes = np.array([rms for _, rms in seen], float).T
            bands = np.stack([quantiles_of(values) for values in classes])
            middle = (edges[:-1] + edges[1:]) / 2
            label = _title(labels) + (f": {name}" if len(by_name) > 1 else "")
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
    axes.set_ylabel(_ylabel("held-out RMS residual", groups), fontsize=8)
    _first(figure, len(groups), len(every))
    if not numbers:
        say(axes, "too few held-out points to show the residual by distance")
        return figure, numbers
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    widen(axes)
    return figure, numbers


def calibration_figure(found: "Calibration") -> "Figure":
    """Error of an ensemble's mean against its spread."""
    figure = new_figure(4.2, 3.8)
    axes = figure.subplots()
    spread, error = (on_log_axis(np.array(values)) for values in (found.spread, found.error))
    axes.plot(spread, error, "o-", color=HELDOUT, label="classes of held-out points")
    ends = np.nanmin(np.stack([spread, error])), np.nanmax(np.stack([spread, error]))
    axes.plot(ends, ends, "k--", linewidth=1, label="error = spread")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("RMS spread over the members")
    axes.set_ylabel("RMS error of the mean")
    shares = f"within two spreads {found.within_two:.0%}, a further member {found.expected:.0%}"
    axes.set_title(f"{shares}\nrank correlation {found.correlation:.2f}", fontsize=9)
    axes.legend(fontsize=7, frameon=False)
    widen(axes)
    return figure
