"""Plots of many runs: a dot for each, in a column for each setting."""

from collections.abc import Sequence

import numpy as np

from constrainednn._pages.drawing.plot import Plot, plain_numbers
from constrainednn._pages.drawing.scales import Scale
from constrainednn._pages.drawing.svg import Drawing

# Runs of one column that are drawn.
_MOST = 400


def strips(
    title: str,
    names: Sequence[str],
    axis: str,
    value: str,
    series: Sequence[tuple[str, str, Sequence[np.ndarray]]],
    text: str,
) -> Plot | None:
    """Values of runs in columns, with the median of each.

    Args:
        title: What is shown.
        names: Names of the columns.
        axis: What tells them apart.
        value: What the values are.
        series: Style, name and values in each column, of one or two kinds; runs that are not
            finite are drawn at the top, as far up as the frame goes.
        text: A sentence below.
    """
    finite = [part[np.isfinite(part)] for _, _, parts in series for part in parts]
    up = Scale.of(finite, Drawing.vertical(), log=True)
    if up is None:
        return None
    across = Scale(-0.6, len(names) - 0.4, *Drawing.horizontal(), names=tuple(names))
    drawing = Drawing(title, across, up, axis, value)
    keys = []
    for number, (style, name, parts) in enumerate(series):
        middle = 0.36 * (number - (len(series) - 1) / 2)
        for k, part in enumerate(parts):
            shown = np.where(np.isnan(part), up.high, np.minimum(part, up.high))[:_MOST]
            # Beside each other in the order of their seeds, so that the same runs look the same.
            places = k + middle + 0.26 * (np.linspace(0, 1, max(len(shown), 2))[: len(shown)] - 0.5)
            drawing.dots(places, shown, style, size=2.2)
            if len(part):
                height = np.full(2, min(float(np.median(np.nan_to_num(part, nan=np.inf))), up.high))
                drawing.curve(k + middle + np.array([-0.17, 0.17]), height, "median")
        keys.append((f"dot {style}", name))
    keys.append(("median", "median"))
    data = {
        "kind": "runs",
        "columns": list(names),
        "values": {name: [plain_numbers(part) for part in parts] for _, name, parts in series},
    }
    return Plot(title, drawing.text(), tuple(keys), text, data)
