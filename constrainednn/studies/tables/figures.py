"""The figures of a study, drawn from its table alone, and the numbers in them.

Medians over seeds with the quantiles of 10 and 90 %, below ten seeds with the smallest and the
largest: a run that failed counts as infinite, and is drawn at the upper end of the axis. Where some
runs were stopped on their way, the mark is hollow.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.style import HELDOUT, TRAIN, new_figure, on_log_axis, widen
from constrainednn._storage.files import write_atomically
from constrainednn.results.saving import plain, rendered
from constrainednn.studies.tables.curves import against, distance, time
from constrainednn.studies.tables.panels import MOST, Drawn, is_numeric, say_how_many, title_of
from constrainednn.studies.tables.rows import endings, quantiles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from constrainednn.studies.tables.table import Study


def figures(study: "Study") -> "dict[str, Figure]":
    """All figures that the axes of a study allow."""
    return {name: draw()[0] for name, draw in _available(study)}


def write_figures(study: "Study", folder: Path) -> Iterator[str]:
    """Write all figures as PNG and their numbers as `figures.json`; say what there is."""
    numbers = {}
    for name, draw in _available(study):
        figure, numbers[name] = draw()
        write_atomically(folder / f"{name}.png", rendered(figure))
        yield from [*numbers[name].get("laws", []), *numbers[name].get("pairs", [])]
        yield f"drawn: {folder / name}.png"
    write_atomically(folder / "figures.json", json.dumps(plain(numbers), indent=1).encode())
    yield f"their numbers: {folder / 'figures.json'}"


def _available(study: "Study") -> Iterator[tuple[str, Callable[[], Drawn]]]:
    if not study.rows:
        return
    plain_numbers = [axis for axis in study.axes if is_numeric(study, axis)]
    for axis in plain_numbers:
        yield f"against-{axis}", lambda axis=axis: against(study, axis)
    for axis in study.axes:
        if axis not in plain_numbers:
            yield f"paired-{axis}", lambda axis=axis: _paired(study, axis)
    for one, other in itertools.combinations(plain_numbers, 2):
        yield f"map-{one}-{other}", lambda one=one, other=other: _map(study, one, other)
    yield "seeds", lambda: _seeds(study)
    yield "time", lambda: time(study)
    yield "distance", lambda: distance(study)


def _paired(study: "Study", axis: str) -> Drawn:
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
        f"{title_of({axis: item.second, **item.where})}\n{item.pairs} pairs"
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


def _map(study: "Study", one: str, other: str) -> Drawn:
    """The median held-out loss over two axes of numbers, a panel for each other combination."""
    from matplotlib.colors import LogNorm

    every = list(study.groups(*(name for name in study.axes if name not in (one, other))))
    groups = every[:MOST]
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
        title = "median held-out loss" + (f"\n{title_of(where)}" if where else "")
        axes.set_title(title, fontsize=9, parse_math=False)
        if axes is panels[-1] and norm is not None:
            figure.colorbar(image, ax=[*panels])
    panels[0].set_ylabel(other, parse_math=False)
    say_how_many(figure, len(groups), len(every))
    numbers = {one: x, other: y}
    if len(groups) == 1:
        return figure, numbers | {"heldout": found[0]}
    named = {title_of(where): values for (where, _), values in zip(groups, found, strict=True)}
    return figure, numbers | {"heldout": named}


def _seeds(study: "Study") -> Drawn:
    """Every run: train and held-out loss of each combination of settings."""
    groups = list(study.groups(*study.axes))
    figure = new_figure(7, 1.2 + 0.4 * len(groups))
    axes = figure.subplots()
    numbers, names = {}, []
    for place, (labels, rows) in enumerate(groups):
        marked = endings(rows)
        names.append(title_of(labels) + (f"\nof {len(rows)}: {marked}" if marked else ""))
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
        numbers[title_of(labels)] = entry
    axes.set_yticks(range(len(groups)), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xscale("log")
    widen(axes)
    axes.set_xlabel("loss of each run; dots are medians")
    axes.legend(fontsize=7, frameon=False, loc="best")
    return figure, numbers
