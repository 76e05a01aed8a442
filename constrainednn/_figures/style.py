"""What the figures are made of: colours, axes, curves and clouds of points."""

import functools
import io
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import PyTree

from constrainednn._gap.streams import Streams
from constrainednn.domains.samplers.base import Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Colour-blind safe (Okabe and Ito), one meaning each.
TRAIN, MONITOR, HELDOUT, KNOWN = "#0072B2", "#E69F00", "#D55E00", "#444444"
# The same set for the components of a value.
COMPONENTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, made without pyplot and its global state."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> "type[Figure]":
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that a notebook shows, whether pyplot was imported or not."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return NotebookFigure


def say(axes: "Axes", text: str) -> None:
    """Write why there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, parse_math=False)
    axes.set_axis_off()


def on_log_axis(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show; its ticks overflow where a run diverged beyond this."""
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    return np.clip(shown, 1e-200, 1e200)


def widen(axes: "Axes") -> None:
    """Let log axes show two powers of ten, and label nothing between them: labels would overlap."""
    from matplotlib.ticker import NullFormatter

    for axis, limits, widened in (
        (axes.xaxis, axes.get_xlim(), axes.set_xlim),
        (axes.yaxis, axes.get_ylim(), axes.set_ylim),
    ):
        if axis.get_scale() == "log":
            axis.set_minor_formatter(NullFormatter())
            low, high = np.log10(limits)
            if np.floor(high) - np.ceil(low) < 1:
                widened(10 ** np.floor(low), 10 ** np.ceil(high))


# Points of a small panel, and places of a curve.
MOST_POINTS = 400


def trained(points: Streams) -> list[tuple[str, Draw, str]]:
    """The streams that are shown of a training: name, points and colour."""
    streams = [("train", points.train, TRAIN)]
    if points.monitor is not None:
        streams.append(("monitor", points.monitor, MONITOR))
    return streams


def say_how_many_experiments(figure: "Figure", drawn: int, experiments: int) -> None:
    """Say that not all experiments are drawn, and how to see the others."""
    if drawn < experiments:
        text = f"first {drawn} of {experiments} experiments; solution[name].plot() draws one"
        figure.suptitle(text, fontsize=9)


def some_points(stream: PyTree, count: int) -> PyTree:
    """At most so many points, at random: the first of a grid or of sorted rows lie on one side."""
    n = len(jax.tree.leaves(stream)[0])
    kept = np.sort(np.random.default_rng(0).permutation(n)[:count])
    return jax.tree.map(lambda leaf: leaf[kept], stream)


def panel_width(x: PyTree) -> int:
    """Numbers in one input of a model, 0 if it is no single array."""
    return int(np.prod(x.shape[1:])) if isinstance(x, np.ndarray) else 0
