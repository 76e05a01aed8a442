"""Drawings as SVG: axes with ticks, curves, dots, and fields as small images.

Colours are classes, so that a page can be light or dark; coordinates have one decimal, so that the
same numbers give the same bytes everywhere.
"""

import html
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from constrainednn._pages.drawing.images import as_uri
from constrainednn._pages.drawing.scales import Scale

# Size of a drawing in units of SVG, and the margins around its frame: left, right, top, bottom.
WIDTH, HEIGHT = 420.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 26.0, 40.0


class Drawing:
    """A drawing with a frame, to which marks are added in turn; `text()` is the whole."""

    def __init__(
        self, title: str, x: Scale, y: Scale, x_name: str, y_name: str, *, right: float = _RIGHT
    ):
        self.x, self.y, self._title = x, y, title
        self._marks: list[str] = []
        self._above: list[str] = []
        self._names = x_name, y_name
        self._right = right

    @staticmethod
    def horizontal(right: float = _RIGHT) -> tuple[float, float]:
        """Ends of the frame from left to right."""
        return _LEFT, WIDTH - right

    @staticmethod
    def vertical() -> tuple[float, float]:
        """Ends of the frame from the bottom up."""
        return HEIGHT - _BOTTOM, _TOP

    def curve(self, x: np.ndarray, y: np.ndarray, style: str) -> None:
        """A line through points, broken where one has no place."""
        places, broken, parts = self._places(x, y), True, []
        for px, py in places.tolist():
            there = math.isfinite(px) and math.isfinite(py)
            if there:
                parts.append(f"{'M' if broken else 'L'}{px:.1f} {py:.2f}")
            broken = not there
        if parts:
            self._marks.append(f'<path class="line {style}" d="{"".join(parts)}"/>')

    def dots(self, x: np.ndarray, y: np.ndarray, style: str, size: float = 2.0) -> None:
        """Dots at points; those without a place, or outside of the frame, are left out."""
        places = self._places(x, y)
        places = places[np.isfinite(places).all(axis=1)]
        parts = [f"M{px:.1f} {py:.1f}h0" for px, py in places.tolist() if self._inside(px, py)]
        if parts:  # a line of length zero with round ends is a dot
            width = f"{2 * size:g}"
            self._marks.append(
                f'<path class="dot {style}" stroke-width="{width}" d="{"".join(parts)}"/>'
            )

    def ring(self, x: float, y: float, label: str) -> None:
        """A ring around one point, with its label beside it."""
        px, py = float(self.x.at(x)), float(self.y.at(y))
        if not (math.isfinite(px) and math.isfinite(py) and self._inside(px, py)):
            return
        left = px > (_LEFT + WIDTH - self._right) / 2
        anchor, shift = ("end", -9) if left else ("start", 9)
        text_y = min(max(py + 4, _TOP + 12), HEIGHT - _BOTTOM - 6)
        self._above.append(
            f'<circle class="halo" cx="{px:.1f}" cy="{py:.1f}" r="6"/>'
            f'<circle class="worst" cx="{px:.1f}" cy="{py:.1f}" r="6"/>'
            f'<text class="note" x="{px + shift:.1f}" y="{text_y:.1f}" '
            f'text-anchor="{anchor}">{html.escape(label)}</text>'
        )

    def level(self, y: float, label: str) -> None:
        """A dashed line across at one height, with its label above it."""
        py = float(self.y.at(y))
        if math.isfinite(py) and self._inside(_LEFT, py):
            end = WIDTH - self._right
            self._marks.append(
                f'<path class="line level" d="M{_LEFT:.1f} {py:.1f}H{end:.1f}"/>'
                f'<text class="note" x="{end - 4:.1f}" y="{py - 4:.1f}" text-anchor="end">'
                f"{html.escape(label)}</text>"
            )

    def upright(self, x: float, style: str) -> None:
        """A line from the bottom to the top at one place."""
        px = float(self.x.at(x))
        if math.isfinite(px) and self._inside(px, _TOP):
            self._marks.append(
                f'<path class="line {style}" d="M{px:.1f} {_TOP:.1f}V{HEIGHT - _BOTTOM:.1f}"/>'
            )

    def circle(self, radius: float) -> None:
        """A circle around the origin."""
        angle = np.linspace(0, 2 * np.pi, 121)
        self.curve(radius * np.cos(angle), radius * np.sin(angle), "target")

    def field(self, shade: Float[np.ndarray, "n m"], colours: Sequence[str]) -> None:
        """Values between 0 and 1 as colours over the whole frame, the first axis to the right."""
        uri = as_uri(shade.T[::-1], colours)
        width, height = WIDTH - self._right - _LEFT, HEIGHT - _TOP - _BOTTOM
        self._marks.append(
            f'<image href="{uri}" x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}" '
            'preserveAspectRatio="none"/>'
        )

    def colour_bar(self, scale: Scale, colours: Sequence[str], name: str) -> None:
        """What the colours mean, at the right of the frame."""
        x, y, height = WIDTH - self._right + 12, _TOP, HEIGHT - _TOP - _BOTTOM
        uri = as_uri(np.linspace(1, 0, 64).reshape(64, 1), colours)
        self._above.append(
            f'<image href="{uri}" x="{x}" y="{y}" width="12" height="{height}" '
            'preserveAspectRatio="none"/>'
            f'<text class="tick" x="{WIDTH - 2}" y="{y - 10}" text-anchor="end">'
            f"{html.escape(name)}</text>"
        )
        for value, label in scale.ticks():
            place = float(scale.at(value))
            self._above.append(
                f'<text class="tick" x="{x + 16}" y="{place + 4:.1f}">{html.escape(label)}</text>'
            )

    def text(self) -> str:
        """The drawing as an element of a page."""
        left, right, bottom = _LEFT, WIDTH - self._right, HEIGHT - _BOTTOM
        # A drawing of its own, so that the script can enlarge a part of it.
        size = f"{left:g} {_TOP:g} {right - left:g} {bottom - _TOP:g}"
        x, y, width, height = size.split()
        marks = (
            f'<svg class="marks" x="{x}" y="{y}" width="{width}" height="{height}" '
            f'viewBox="{size}" preserveAspectRatio="none">{"".join(self._marks)}</svg>'
        )
        lines = [f'<path class="grid" d="{self._grid()}"/>', marks]
        frame = f"M{left} {_TOP}H{right}V{bottom}H{left}Z"
        lines.append(f'<path class="frame" d="{frame}"/>')
        for value, label in self.x.ticks():
            px = float(self.x.at(value))
            lines.append(
                f'<text class="tick" x="{px:.1f}" y="{bottom + 16}" text-anchor="middle">'
                f"{html.escape(label)}</text>"
            )
        for value, label in self.y.ticks():
            py = float(self.y.at(value))
            lines.append(
                f'<text class="tick" x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">'
                f"{label}</text>"
            )
        x_name, y_name = map(html.escape, self._names)
        middle = (left + right) / 2
        lines.append(
            f'<text class="name" x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{x_name}</text>"
        )
        lines.append(f'<text class="name" x="4" y="{_TOP - 10}">{y_name}</text>')
        lines.append(f'<path class="cursor" d="M0 {_TOP}V{bottom}" visibility="hidden"/>')
        title = html.escape(self._title, quote=True)
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{title}">'
            + "".join([*lines, *self._above])
            + "</svg>"
        )

    def _grid(self) -> str:
        left, right, bottom = _LEFT, WIDTH - self._right, HEIGHT - _BOTTOM
        parts = [f"M{float(self.x.at(v)):.1f} {_TOP}V{bottom}" for v, _ in self.x.ticks()]
        parts += [f"M{left} {float(self.y.at(v)):.1f}H{right}" for v, _ in self.y.ticks()]
        return "".join(parts)

    def _places(self, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "n 2"]:
        return np.stack([self.x.at(x), self.y.at(y)], axis=1)

    def _inside(self, px: float, py: float) -> bool:
        right, bottom = WIDTH - self._right, HEIGHT - _BOTTOM
        return _LEFT - 0.5 <= px <= right + 0.5 and _TOP - 0.5 <= py <= bottom + 0.5
