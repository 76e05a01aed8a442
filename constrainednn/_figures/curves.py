"""Curves, clouds of points and windows of an axis."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._figures.style import COMPONENTS, DASHES, KNOWN, TRAIN
from constrainednn.targets.image import OTHER_USE
from constrainednn.targets.sets import AbstractTarget, Circle

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Points that show a target.
_OUTLINE = 800
# Fewer points of the plane are dots, not a field.
_FIELD = 30


def values_at(model: Callable[[Any], Any], x: PyTree) -> Float[np.ndarray, "n k"] | None:
    """Values of a model as vectors, or None if it is not a function of one point array."""
    if not (callable(model) and isinstance(x, np.ndarray)):
        return None
    try:
        return in_blocks(eqx.Partial(flat_value, model), x)
    except OTHER_USE:
        return None


def draw_curves(
    axes: "Axes",
    x: Float[np.ndarray, " n"],
    values: np.ndarray,
    known: np.ndarray | None,
    names: Sequence[str],
) -> None:
    """Draw each component against x, and a known solution above it.

    Components that would look like zero beside the largest are magnified, as the legend then says.
    """
    from matplotlib import colormaps

    count = values.shape[1]
    few = count <= len(COMPONENTS)
    colours = COMPONENTS if few else colormaps["viridis"](np.linspace(0, 0.9, count))
    dashes = DASHES if few else ("-",) * count
    styles = zip(_magnified(values), colours, dashes, strict=False)
    for k, (factor, colour, dash) in enumerate(styles):
        label = names[k] + (f" × {factor:g}" if factor > 1 else "")
        style = {"color": colour, "ls": dash, "lw": 1.6, "label": label if few else None}
        axes.plot(x, factor * values[:, k], **style)
        if known is not None:
            label = "reference" if k == count - 1 else None
            axes.plot(x, factor * known[:, k], ":", color=KNOWN, lw=1.4, label=label, zorder=4)
    if few and (count > 1 or known is not None):
        for text in axes.legend(frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)


def _magnified(values: np.ndarray) -> np.ndarray:
    """Powers of ten that bring components below 1 % of the largest to its size."""
    size = np.nan_to_num(np.abs(values), posinf=0.0).max(axis=0)
    ratio = size.max(initial=0) / np.where(size > 0, size, np.inf)
    return np.where(ratio > 100, 10 ** np.floor(np.log10(np.maximum(ratio, 1))), 1.0)


def window(clouds: list[np.ndarray], target: AbstractTarget | None) -> tuple[float, float, float]:
    """A square that shows all clouds: its middle and half its side.

    A few values far out would shrink a circle to a dot: then they stay outside.
    """
    known = outline(target, clouds[0].shape[1])
    points = np.concatenate([cloud[:, :2] for cloud in (*clouds, known)])
    points = points[np.isfinite(points).all(axis=1)]
    if isinstance(target, Circle):
        reach = np.abs(points).max(axis=1, initial=0)
        far = float(np.quantile(reach, 0.9)) if len(reach) else 0.0
        return 0.0, 0.0, max(1.6 * target.radius, far)
    if not len(points):
        return 0.0, 0.0, 1.0
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2
    return float(middle[0]), float(middle[1]), 1.05 * half or 1.0


def outline(target: AbstractTarget | None, width: int) -> Float[np.ndarray, "n _"]:
    """Points that show a target in a space of so many numbers; none where there are none."""
    known = None if target is None or isinstance(target, Circle) else target.sample(_OUTLINE)
    if known is None or known.reshape(len(known), -1).shape[1] != width:
        return np.zeros((0, 2))
    return known.reshape(len(known), -1)[:, :2]


def draw_cloud(
    axes: "Axes",
    cloud: Float[np.ndarray, "n k"],
    colour: Any,
    square: tuple[float, float, float],
    target: AbstractTarget | None = None,
) -> None:
    """Draw points of the plane in a square window, with the target that they should fill."""
    x, y, half = square
    if isinstance(target, Circle):
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(target.radius * np.cos(angle), target.radius * np.sin(angle), color=KNOWN, lw=0.6)
    else:
        known = outline(target, cloud.shape[1])
        axes.plot(known[:, 0], known[:, 1], ".", color=KNOWN, ms=1.5, mew=0, alpha=0.6, zorder=1)
    axes.scatter(cloud[:, 0], cloud[:, 1], s=7, c=colour, alpha=0.8, lw=0, zorder=2)
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
    outside = int((~(np.abs(cloud[:, :2] - (x, y)).max(axis=1) <= half)).sum())
    if outside:
        axes.text(
            0.98,
            0.02,
            f"{outside} outside",
            ha="right",
            transform=axes.transAxes,
            fontsize=7,
            color=KNOWN,
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1},
            zorder=2.2,  # above the points, below the frame
        )


def hues(x: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    """Colours of equal lightness by the direction of points from their mean.

    Source:
        B. Ottosson, "A perceptual color space for image processing" (2020): from Oklab to
        linear sRGB; then the sRGB transfer curve of IEC 61966-2-1.
    """
    lightness, chroma = 0.62, 0.125
    centred = x - x.mean(axis=0)
    angle = np.arctan2(centred[:, 1], centred[:, 0])
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    to_cones = np.array(
        [
            [0.3963377774, 0.2158037573],
            [-0.1055613458, -0.0638541728],
            [-0.0894841775, -1.291485548],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    cones = (lightness + np.stack([a, b], axis=1) @ to_cones.T) ** 3
    linear = (cones @ to_rgb.T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _draw_field(
    axes: "Axes", x: Float[np.ndarray, "n 2"], values: np.ndarray, every: np.ndarray
) -> None:
    """A field between points of the plane, with the points; dots where it is no field."""
    from matplotlib.tri import Triangulation

    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    flat = np.linalg.matrix_rank(x - x.mean(axis=0), tol=1e-9 * np.ptp(x)) < 2
    if len(x) < _FIELD or flat or not (low < high and np.isfinite(values).all()):
        drawn = axes.scatter(*x.T, c=values, s=6, vmin=low, vmax=high, cmap="cividis")
    else:
        levels = np.linspace(low, high, 25)
        cells = Triangulation(x[:, 0], x[:, 1])
        drawn = axes.tricontourf(cells, values, levels=levels, cmap="cividis")
        axes.plot(*x.T, ".", color="white", ms=1.5, alpha=0.6)
    bar = axes.figure.colorbar(drawn, ax=axes, format="%.2g", ticks=[low, (low + high) / 2, high])
    bar.ax.tick_params(labelsize=6)


def draw_values(
    axes: "Axes",
    x: np.ndarray,
    alike: list[np.ndarray],
    values: np.ndarray,
    target: AbstractTarget | None,
) -> None:
    """Draw values against their points; `alike` are those that share limits and colours."""
    x = x.reshape(len(x), -1)
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        axes.set_prop_cycle(color=COMPONENTS)
        axes.plot(x[order, 0], values[order], lw=1.4)
        axes.set_xlabel("x", fontsize=8)
        axes.label_outer()
    elif values.shape[1] == 1:
        _draw_field(axes, x[:, :2], values[:, 0], np.concatenate(alike))
    else:
        draw_cloud(axes, values, TRAIN, window(alike, target), target)
