"""What the figures are made of: colours, axes, curves and clouds of points."""

import functools
import io
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import PyTree

from constrainednn._gap.streams import Streams
from constrainednn._pages.drawing.plot import has_both_signs
from constrainednn.domains.samplers.base import Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Colour-blind safe (Okabe and Ito), one meaning each.
TRAIN, MONITOR, HELDOUT, KNOWN = "#0072B2", "#E69F00", "#D55E00", "#444444"
# The same set for the components of a value.
COMPONENTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Dashes that tell them apart where there are no colours.
DASHES = ("-", (0, (7, 1.5)), "-.", (0, (3, 1)), (0, (9, 1.5, 2, 1.5)), (0, (5, 1, 1, 1, 1, 1)))
# A legend that may lie on points.
LEGEND = {"framealpha": 0.85, "edgecolor": "none", "fontsize": 8}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, made without pyplot and its global state."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Axes of equal scales move within their place; with less room their labels were cut off.
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    return _figure_class()(figsize=(width, height), layout=layout)


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


def mark(axes: "Axes", x: float, y: float, label: str) -> None:
    """A ring around one point with its label, readable on any colour."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]
    style = {"mfc": "none", "mec": "black", "ms": 9, "mew": 1.4, "zorder": 6}
    axes.plot([x], [y], "o", path_effects=halo, clip_on=False, **style)
    low, high = axes.get_xlim()
    middle = np.sqrt(low * high) if axes.get_xscale() == "log" else (low + high) / 2
    side, shift = ("right", -8) if x > middle else ("left", 8)
    height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]
    down = -9 if height > 0.9 else 9 if height < 0.1 else 0  # the frame would cut it
    axes.annotate(
        label,
        (x, y),
        (shift, down),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=8,
        path_effects=halo,
        zorder=6,
    )


# Powers of ten below the largest that a map of sizes shows.
_DECADES = 8


def draw_map_of_values(
    axes: "Axes", grid: tuple[np.ndarray, ...], values: np.ndarray, name: str
) -> None:
    """Values over two coordinates as colours; blue and red where both signs occur."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    signed = has_both_signs(float(low), float(high))
    top = max(-low, high)
    image = axes.pcolormesh(
        grid[0],
        grid[1],
        values.T,
        cmap="RdBu_r" if signed else "cividis",
        vmin=-top if signed else low,
        vmax=top if signed else high,
        rasterized=True,
    )
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(name, parse_math=False)


def draw_map_of_sizes(
    axes: "Axes",
    grid: tuple[np.ndarray, ...],
    sizes: np.ndarray,
    name: str,
    least: float = 0.0,
) -> None:
    """Sizes over two coordinates as colours on a logarithmic scale, from `least` upwards."""
    from matplotlib.colors import LogNorm

    shade = on_log_axis(sizes)
    # One place, as a corner where derivatives are infinite, would leave no colour to all others.
    top = max(float(np.nanquantile(shade, 0.999)), 1e-200) if np.isfinite(shade).any() else 1e-200
    low = max(float(np.nanmin(shade, initial=top)), top * 10.0**-_DECADES, least)
    # Equal sizes are one colour, whatever their last digits do.
    low = low if low < top else top / 10
    norm = LogNorm(low, top)
    shade = np.where(np.isfinite(sizes) & ~np.isfinite(shade), low, shade)
    image = axes.pcolormesh(*grid, shade.T, cmap="cividis", norm=norm, rasterized=True)
    axes.figure.colorbar(image, ax=axes, label=name)
