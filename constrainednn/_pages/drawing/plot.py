"""A plot: a drawing with its title, legend and numbers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from constrainednn._pages.drawing.svg import Drawing


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawing with what is said below it.

    Attributes:
        title: What it shows, above it.
        svg: The drawing.
        keys: The legend: pairs of a style and a text.
        text: A sentence below it; may be empty.
        data: The numbers behind it, as plain data.
    """

    title: str
    svg: str
    keys: tuple[tuple[str, str], ...]
    text: str
    data: dict[str, Any]


def has_both_signs(low: float, high: float) -> bool:
    """True for values of both signs, but for a little beyond zero, such as rounding."""
    return low < 0 < high and min(-low, high) >= 0.02 * max(-low, high)


def is_plane(axes: Sequence[str], first: float, second: float) -> bool:
    """True for coordinates of a plane of similar lengths, which are drawn to one scale."""
    return "t" not in axes and 0.4 <= first / second <= 2.5


def early(x: np.ndarray) -> bool:
    """True for places most of which lie in the first hundredth of their range."""
    return len(x) > 2 and bool(x[0] >= 0 and np.median(x) <= 0.02 * x[-1])


def label(name: str, k: int, count: int) -> str:
    """The name of a component; of the only one, that of the whole."""
    return name if count == 1 else f"{name}[{k}]"


def curve_data(
    drawing: Drawing, axis: str, x: np.ndarray, series: list[tuple[str, np.ndarray]]
) -> dict[str, Any]:
    """What a page needs to say the values under a pointer."""
    scale, up = drawing.x, drawing.y
    return {
        "kind": "curve",
        "names": [axis, *(name for name, _ in series)],
        "frame": [scale.start, scale.end, scale.low, scale.high],
        "upright": [up.start, up.end, up.low, up.high],
        "log": scale.log,
        "uplog": up.log,
        "x": plain_numbers(x),
        "y": [plain_numbers(values) for _, values in series],
    }


def plain_numbers(values: Any, digits: int = 6) -> list[float | None]:
    """Numbers in a few digits; null for what is not finite."""
    return [
        float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in np.asarray(values, float)
    ]
