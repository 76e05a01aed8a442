"""What the figures of a study share."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from constrainednn._figures.style import COMPONENTS, on_log_axis
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.rows import ends_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A figure and the numbers in it.
Drawn = tuple["Figure", dict[str, Any]]
# Combinations in one figure.
MOST = len(COMPONENTS)


def is_numeric(axis: str, rows: Iterable[Row]) -> bool:
    """True for an axis of several numbers."""
    values = {row["given"][axis] for row in rows}
    return len(values) > 1 and all(type(value) in (int, float) for value in values)


def ylabel(what: str, groups: list[tuple[dict[str, Any], list[Row]]]) -> str:
    """What a band shows: the middle and the ends, of the group with the fewest seeds."""
    fewest = min((len({row["seed"] for row in rows}) for _, rows in groups), default=0)
    return f"{what}: median, {ends_shown(fewest)}"


def say_how_many(figure: "Figure", drawn: int, groups: int) -> None:
    """Say that not all combinations are drawn."""
    if drawn < groups:
        figure.suptitle(f"first {drawn} of {groups} combinations", fontsize=9)


def title_of(labels: dict[str, Any]) -> str:
    """The settings of a combination."""
    return ", ".join(f"{name} {value}" for name, value in labels.items()) or "all runs"


def around(x: Float[np.ndarray, " n"], logarithmic: bool) -> tuple[float, float]:
    """The ends of an axis a little outside of its values."""
    ends = np.log(x[[0, -1]]) if logarithmic else x[[0, -1]]
    ends = ends + 0.06 * (ends[1] - ends[0]) * np.array([-1, 1])
    low, high = np.exp(ends) if logarithmic else ends
    return float(low), float(high)


def band(
    axes: "Axes", x: np.ndarray, bands: Float[np.ndarray, "n 3"], colour: str, label: str
) -> None:
    """Draw medians as a line, and the quantiles around them as a band."""
    low, middle, high = (on_log_axis(column) for column in bands.T)
    # An infinite upper end is drawn as far as the axis goes.
    top = np.where(np.isinf(bands[:, 2]), 1e200, high)
    if np.isinf(bands[:, 2]).any():
        axes.set_autoscaley_on(False)
    style = "o--" if label == "gap" else "o-"  # it may lie on the held-out loss
    axes.plot(x, middle, style, color=colour, markersize=3, linewidth=1, label=label)
    axes.fill_between(x, low, top, color=colour, alpha=0.15, linewidth=0)
    axes.set_autoscaley_on(True)
