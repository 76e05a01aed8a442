"""What the figures of a study share."""

import textwrap
from collections.abc import Iterable, Sequence
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
# Panels in a row, letters that an inch of a figure holds, powers of ten that a scale of losses has.
COLUMNS, _LETTERS, _DECADES = 3, 13, 18


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


def name_all(figure: "Figure", problem: str, rows: Sequence[Row], varied: Sequence[str]) -> None:
    """Write the problem, the seeds and what all runs have in common above a figure."""
    seeds = len({row["seed"] for row in rows})
    kept = {key: value for key, value in rows[0]["given"].items() if key not in varied}
    # What is not set, or switched off, says nothing.
    set_ = {key: value for key, value in kept.items() if value is not None and value is not False}
    shown = [f"{key} {value}" for key, value in set_.items()]
    text = ", ".join([problem, f"{seeds} seed{'s' * (seeds > 1)}", *shown])
    columns = int(figure.get_figwidth() * _LETTERS)
    lines = [*textwrap.wrap(text, columns, break_on_hyphens=False), figure.get_suptitle()]
    figure.suptitle("\n".join(filter(None, lines)), fontsize=9, parse_math=False)


def columns_of(panels: int) -> int:
    """Panels in a row, so that few places stay empty."""
    return 2 if panels == 4 else min(COLUMNS, panels)


def grid_of(figure: "Figure", panels: int) -> "list[Axes]":
    """So many panels in rows, on one scale of losses."""
    columns = columns_of(panels)
    rows = -(-panels // columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[panels:]:
        axes.remove()
    return list(grid[:panels])


def hold(axes: "Axes") -> None:
    """Let a scale of losses end where the rounding of one number would hide all others."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and low < high * 10.0**-_DECADES:
        axes.set_ylim(bottom=high * 10.0**-_DECADES)


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
    # A gap may lie on the held-out loss, and the monitor loss on that of training.
    style = "o--" if label in ("gap", "monitor") else "o-"
    axes.plot(x, middle, style, color=colour, markersize=3, linewidth=1, label=label)
    axes.fill_between(x, low, top, color=colour, alpha=0.15, linewidth=0)
    axes.set_autoscaley_on(True)
