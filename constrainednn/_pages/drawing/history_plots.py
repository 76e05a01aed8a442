"""Plots of how a solution came about: losses by step, or the lengths of pieces."""

from collections.abc import Iterator

import numpy as np

from constrainednn._pages.drawing.plot import Plot, curve_data
from constrainednn._pages.drawing.scales import Scale
from constrainednn._pages.drawing.svg import Drawing


def history_plots(history: dict[str, np.ndarray]) -> Iterator[Plot]:
    """Plots of the training, or of the pieces."""
    made = [_losses(history)] if "loss" in history else []
    made += [_pieces(history)] if "edges" in history else []
    yield from (plot for plot in made if plot is not None)


def _losses(history: dict[str, np.ndarray]) -> Plot | None:
    """Training and monitor loss against the step, which is drawn one to the right: log has no 0."""
    steps, loss = history["steps"] + 1.0, history["loss"]
    watched, monitor = history["monitor_steps"] + 1.0, history["monitor"]
    if len(loss) < 2:
        return None
    across = Scale.of([steps, watched], Drawing.horizontal(), log=True, tight=True)
    # Squares are drawn by their powers; an objective may be below zero.
    up = Scale.of([loss, monitor], Drawing.vertical(), log=not (loss < 0).any())
    if across is None or up is None:
        return None
    drawing = Drawing("loss against steps", across, up, "step + 1", "loss")
    for step in history["redraws"][:50]:
        drawing.upright(step + 1.0, "level")
    drawing.curve(steps, loss, "train")
    keys = [("train", "train")]
    series = [("train", loss)]
    if np.isfinite(monitor).any():
        drawing.curve(watched, monitor, "monitor")
        keys.append(("monitor", "monitor"))
        series.append(("monitor", np.interp(steps, watched, monitor)))
    data = curve_data(drawing, "step + 1", steps, series)
    text = "dashed: new training points" if len(history["redraws"]) else ""
    return Plot("Loss", drawing.text(), tuple(keys), text, data)


def _pieces(history: dict[str, np.ndarray]) -> Plot | None:
    """The length of each piece."""
    edges = np.sort(history["edges"])
    if len(edges) < 3:
        return None
    log = bool(edges[0] >= 0 and np.median(edges) <= 0.02 * edges[-1])
    places = np.maximum(edges, edges[1] / 3) if log else edges
    across = Scale.of([places], Drawing.horizontal(), log=log, tight=True)
    lengths = np.diff(edges)
    up = Scale.of([lengths], Drawing.vertical(), log=True)
    if across is None or up is None:
        return None
    drawing = Drawing("lengths of pieces", across, up, "t", "length")
    x, y = np.repeat(places, 2)[1:-1], np.repeat(lengths, 2)
    drawing.curve(x, y, "train")
    data = curve_data(drawing, "t", x, [("length", y)])
    return Plot("Length of each piece", drawing.text(), (), f"{len(lengths)} pieces", data)
