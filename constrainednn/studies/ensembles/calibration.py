"""Calibration: the spread of an ensemble against its error."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.style import HELDOUT, new_figure, on_log_axis, widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Classes of held-out points, by their spread.
CLASSES = 8


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Does the spread of an ensemble predict the error of its mean?

    Attributes:
        spread: RMS spread in eight classes of held-out points, by their spread, smallest first.
        error: RMS error of the mean in each class.
        within_two: Share of the values whose error is at most twice their spread.
        expected: What that share would be if the truth were one more, normal, member: 0.83 for four
            members, 0.95 for very many.
        correlation: Spearman's rank correlation of spread and error over the points.
    """

    spread: tuple[float, ...]
    error: tuple[float, ...]
    within_two: float
    expected: float
    correlation: float

    def plot(self) -> "Figure":
        """Draw error against spread; on the dashed line they are equal."""
        figure = new_figure(4.2, 3.8)
        axes = figure.subplots()
        spread, error = (on_log_axis(np.array(values)) for values in (self.spread, self.error))
        axes.plot(spread, error, "o-", color=HELDOUT, label="classes of held-out points")
        ends = np.nanmin(np.stack([spread, error])), np.nanmax(np.stack([spread, error]))
        axes.plot(ends, ends, "k--", linewidth=1, label="error = spread")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("RMS spread over the members")
        axes.set_ylabel("RMS error of the mean")
        shares = f"within two spreads {self.within_two:.0%}, a further member {self.expected:.0%}"
        axes.set_title(f"{shares}\nrank correlation {self.correlation:.2f}", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        widen(axes)
        return figure
