"""The figures of a study, drawn from its rows alone, and the numbers in them.

Medians over seeds with the quantiles of 10 and 90 %, or with the smallest and the largest below ten
seeds. A run that failed counts as infinite and is drawn at the upper end of the axis. Where some
runs ended before convergence, the mark is hollow.
"""

import base64
import html
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._common.tables import number
from constrainednn._figures.style import HELDOUT, TRAIN, new_figure, on_log_axis, widen
from constrainednn._storage.files import write_atomically
from constrainednn.results.saving import plain, rendered
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.curves import against, distance, time
from constrainednn.studies.tables.paired import pairs_along
from constrainednn.studies.tables.panels import (
    MOST,
    Drawn,
    is_numeric,
    name_all,
    say_how_many,
    title_of,
)
from constrainednn.studies.tables.rows import endings, groups, quantiles_of, values_of

if TYPE_CHECKING:
    pass


class Figures(dict):
    """Figures by name, of which a notebook shows all."""

    def _repr_html_(self) -> str:
        parts = []
        for name, figure in self.items():
            image = base64.b64encode(rendered(figure)).decode()
            source = f'src="data:image/png;base64,{image}" style="max-width: 100%"'
            parts.append(f"<p>{html.escape(name)}</p><img {source}>")
        return "\n".join(parts)


def figures(rows: Sequence[Row], varied: Sequence[str], problem: str) -> Figures:
    """All figures that what was varied allows, by name; each says what was run."""
    drawn = Figures({name: draw()[0] for name, draw in _available(rows, varied)})
    for figure in drawn.values():
        name_all(figure, problem, rows, varied)
    return drawn


def write_figures(
    rows: Sequence[Row], varied: Sequence[str], problem: str, folder: Path
) -> Iterator[str]:
    """Write all figures as PNG and their numbers as `figures.json`; say what there is."""
    numbers = {}
    for name, draw in _available(rows, varied):
        figure, numbers[name] = draw()
        name_all(figure, problem, rows, varied)
        write_atomically(folder / f"{name}.png", rendered(figure))
        yield from [*numbers[name].get("laws", []), *numbers[name].get("pairs", [])]
        yield f"drawn: {folder / name}.png"
    write_atomically(folder / "figures.json", json.dumps(plain(numbers), indent=1).encode())
    yield f"their numbers: {folder / 'figures.json'}"


def _available(
    rows: Sequence[Row], varied: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Drawn]]]:
    if not rows:
        return
    numeric = [axis for axis in varied if is_numeric(axis, rows)]
    for axis in numeric:
        yield f"against-{axis}", lambda axis=axis: against(axis, rows, varied)
    for axis in varied:
        if axis not in numeric:
            yield f"paired-{axis}", lambda axis=axis: _paired(axis, rows, varied)
    for pair in itertools.combinations(numeric, 2):
        yield "map-{}-{}".format(*pair), lambda pair=pair: _map(*pair, rows, varied)
    yield "seeds", lambda: _seeds(rows, varied)
    yield "time", lambda: time(rows, varied)
    yield "distance", lambda: distance(rows, varied)


def _paired(axis: str, rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """Each setting against the first, seed by seed."""
    others = [name for name in varied if name != axis]
    pairs = pairs_along(axis, rows, others, "heldout_loss")
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


def _map(one: str, other: str, rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """The median held-out loss over two axes of numbers, a panel for each other combination."""
    from matplotlib.colors import LogNorm

    every = groups(rows, [name for name in varied if name not in (one, other)])
    drawn = every[:MOST]
    x, y = (sorted({row["given"][name] for row in rows}) for name in (one, other))
    found = np.full((len(drawn), len(y), len(x)), np.nan)
    for place, (_, group) in enumerate(drawn):
        for labels, some in groups(group, (one, other)):
            at = place, y.index(labels[other]), x.index(labels[one])
            found[at] = quantiles_of(values_of(some, "heldout_loss"))[1]
    width, height = 0.4 + 0.9 * len(x), 1.6 + 0.6 * len(y)
    figure = new_figure(1.2 + max(width, 2.4) * len(drawn), height)
    panels = figure.subplots(1, len(drawn), squeeze=False, sharey=True)[0]
    seen = on_log_axis(found)
    norm = None
    if np.isfinite(seen).any():
        low, high = np.nanmin(seen), np.nanmax(seen)
        norm = LogNorm(low, high if high > low else 10 * low)
    box = {"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 1}
    for axes, (where, _), values, colours in zip(panels, drawn, found, seen, strict=True):
        image = axes.imshow(colours, norm=norm, origin="lower", aspect="auto", cmap="cividis")
        for (j, i), value in np.ndenumerate(values):
            text = number(float(value))
            axes.text(i, j, text, ha="center", va="center", fontsize=7, bbox=box)
        axes.set_xticks(range(len(x)), map(str, x))
        axes.set_yticks(range(len(y)), map(str, y))
        axes.set_xlabel(one, parse_math=False)
        axes.set_title(title_of(where) if where else "", fontsize=9, parse_math=False)
        if axes is panels[-1] and norm is not None:
            figure.colorbar(image, ax=[*panels], label="median held-out loss")
    panels[0].set_ylabel(other, parse_math=False)
    say_how_many(figure, len(drawn), len(every))
    numbers = {one: x, other: y}
    if len(drawn) == 1:
        return figure, numbers | {"heldout": found[0]}
    named = {title_of(where): values for (where, _), values in zip(drawn, found, strict=True)}
    return figure, numbers | {"heldout": named}


def _seeds(rows: Sequence[Row], varied: Sequence[str]) -> Drawn:
    """Every run: train and held-out loss of each combination of settings."""
    every = groups(rows, varied)
    figure = new_figure(7, 1.2 + 0.4 * len(every))
    axes = figure.subplots()
    numbers, names = {}, []
    for place, (labels, group) in enumerate(every):
        ended = endings(group)
        names.append(title_of(labels) + (f"\nof {len(group)}: {ended}" if ended else ""))
        entry = {}
        for name, colour, shift in (("train_loss", TRAIN, -0.15), ("heldout_loss", HELDOUT, 0.15)):
            entry[name] = values = values_of(group, name)
            at = np.full(len(values), place + shift)
            label = {"train_loss": "train", "heldout_loss": "held-out"}[name]
            axes.plot(
                on_log_axis(values), at, "|", color=colour, label=label if place == 0 else None
            )
            middle = on_log_axis(quantiles_of(values)[1:2])
            axes.plot(middle, at[:1], "o", color=colour, markersize=4)
        numbers[title_of(labels)] = entry
    axes.set_yticks(range(len(every)), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(every) - 0.5, -0.5)
    axes.set_xscale("log")
    widen(axes)
    axes.set_xlabel("loss of each run; dots are medians")
    axes.legend(fontsize=7, frameon=False, loc="best")
    return figure, numbers
