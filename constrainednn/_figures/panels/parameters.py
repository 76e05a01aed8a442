"""The panel of estimated unknowns."""

from typing import TYPE_CHECKING

import numpy as np

from constrainednn._figures.style import HELDOUT, KNOWN
from constrainednn._gap.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_parameters(axes: "Axes", found: dict[str, Estimate]) -> None:
    """The interval of each unknown around its estimate, in per cent of that."""
    for place, item in enumerate(found.values()):
        unit = abs(item.value) / 100 or 1.0
        ends = (item.low - item.value) / unit, (item.high - item.value) / unit
        if np.isfinite(ends).all():
            axes.plot(ends, [place, place], color=HELDOUT, lw=2.2, solid_capstyle="butt")
        axes.plot([0], [place], "o", color=HELDOUT, ms=6)
    axes.axvline(0, color=KNOWN, lw=0.6)
    names = [f"{name}\n{item.value:.5g}" for name, item in found.items()]
    axes.set_yticks(range(len(found)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("interval of 95 % around the estimate, in % of it")
    axes.set_title("unknowns")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.2g}")
