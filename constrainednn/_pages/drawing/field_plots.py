"""Plots over two coordinates: fields as colours, and the values of maps."""

import math

import numpy as np

from constrainednn._common.tables import number
from constrainednn._pages.drawing.images import SIGNED, SIZES
from constrainednn._pages.drawing.plot import Plot, has_both_signs, is_plane, label, plain_numbers
from constrainednn._pages.drawing.scales import Scale
from constrainednn._pages.drawing.svg import Drawing
from constrainednn._pages.evaluated import Evaluated, ResidualSeen

# Powers of ten below the largest that colours of sizes tell apart.
_DECADES = 8
# Room for a colour bar.
_BAR = 70.0
# Components that are drawn.
MOST_FIELDS = 2
# Places along each axis that the data of a page hold.
_COARSE = 31


def images(seen: Evaluated) -> Plot | None:
    """The first two entries of a map's values, by the direction of the points they come from."""
    u = seen.images[:, :2]
    far = np.abs(u[np.isfinite(u).all(axis=1)]).max(axis=1, initial=0)
    # Few values far out would shrink a circle to a dot.
    share = 0.9 if math.isfinite(seen.radius) else 1.0
    half = float(np.quantile(far, share)) if len(far) else 1.0
    half = max(1.1 * half, 1.6 * seen.radius if math.isfinite(seen.radius) else 0.0) or 1.0
    left, right = Drawing.horizontal()
    bottom, top = Drawing.vertical()
    wide = half * (right - left) / (bottom - top)
    across, up = Scale(-wide, wide, left, right), Scale(-half, half, bottom, top)
    drawing = Drawing("values of the map", across, up, "u[0]", "u[1]")
    if math.isfinite(seen.radius):
        drawing.circle(seen.radius)
    centred = seen.inputs[:, :2] - seen.inputs[:, :2].mean(axis=0)
    sector = np.floor((np.arctan2(*centred.T[::-1]) / (2 * np.pi) + 0.5) * 12).astype(int) % 12
    for k in range(12):
        chosen = u[sector == k]
        drawing.dots(chosen[:, 0], chosen[:, 1], f"h{k}", size=1.7)
    outside = int((~((np.abs(u[:, 0]) <= wide) & (np.abs(u[:, 1]) <= half))).sum())
    text = f"u(x) at {len(u)} held-out points, coloured by the direction of x"
    text += f"; {outside} outside of the frame" if outside else ""
    text += "; the first two entries" if seen.images.shape[1] > 2 else ""
    keys = (("target", "target"),) if math.isfinite(seen.radius) else ()
    data = {"kind": "points", "x": plain_numbers(u[:, 0]), "y": plain_numbers(u[:, 1])}
    return Plot("Values of the map", drawing.text(), keys, text, data)


def component(seen: Evaluated, k: int) -> Plot | None:
    """One component of the solution over two coordinates."""
    values, count = seen.values[..., k], seen.values.shape[-1]
    name = label("u", k, count)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    signed = has_both_signs(low, high)
    if signed:
        low, high = -max(-low, high), max(-low, high)
    if high == low:
        low, high = low - 0.5, high + 0.5
    scale = Scale(low, high, *Drawing.vertical())
    more = f"; {count} components in all" if count > MOST_FIELDS and k == 0 else ""
    return _field_plot(
        seen, values, scale, (values - low) / (high - low), name, ("Solution", more), signed=signed
    )


def field(
    seen: Evaluated, size: np.ndarray, title: str, name: str, residual: ResidualSeen | None = None
) -> Plot | None:
    """Sizes over two coordinates, on a logarithmic scale."""
    scale = Scale.of([size], Drawing.vertical(), log=True)
    if scale is None:
        return None
    top = math.log10(scale.high)
    low = max(math.log10(scale.low), top - _DECADES)
    scale = Scale(10.0**low, scale.high, *Drawing.vertical(), log=True)
    log = np.log10(np.where(size > 0, size, 10.0**low))
    shade = (np.where(np.isfinite(size), log, np.nan) - low) / (top - low)
    return _field_plot(seen, size, scale, shade, name, (title, ""), residual=residual)


def _field_plot(
    seen: Evaluated,
    values: np.ndarray,
    scale: Scale,
    shade: np.ndarray,
    name: str,
    said: tuple[str, str],
    *,
    signed: bool = False,
    residual: ResidualSeen | None = None,
) -> Plot:
    right, (bottom, top) = _BAR, Drawing.vertical()
    lengths = [float(part[-1] - part[0]) for part in seen.grid]
    if is_plane(seen.axes, *lengths):
        left, end = Drawing.horizontal(_BAR)
        right += max(0.0, end - left - (bottom - top) * lengths[0] / lengths[1])
    ends = Drawing.horizontal(right), (bottom, top)
    across, up = (
        Scale(float(part[0]), float(part[-1]), *pair)
        for part, pair in zip(seen.grid, ends, strict=True)
    )
    title, text = said
    label = f"{title}: {name} over {seen.axes[0]} and {seen.axes[1]}"
    drawing = Drawing(label, across, up, *seen.axes, right=right)
    colours = SIGNED if signed else SIZES
    drawing.field(shade, colours)
    drawing.colour_bar(scale, colours, name)
    if residual is not None:
        if residual.train.shape[1] == 2:  # those of more coordinates lie beside the plane
            drawing.dots(residual.train[:, 0], residual.train[:, 1], "train onfield", size=1.0)
            few = len(residual.train) < residual.train_count
            of = f"{len(residual.train)} of " if few else ""
            text = f"dots: {of}{residual.train_count} training points"
        if len(residual.worst) == 2:
            x, y = map(float, residual.worst)
            drawing.ring(x, y, f"worst {number(residual.worst_size)}")
    coarse = [np.unique(np.linspace(0, n - 1, min(n, _COARSE)).astype(int)) for n in values.shape]
    x, y = (part[kept] for part, kept in zip(seen.grid, coarse, strict=True))
    data = {
        "kind": "field",
        "names": [*seen.axes, name],
        "frame": [across.start, across.end, across.low, across.high],
        "upright": [up.start, up.end, up.low, up.high],
        "x": plain_numbers(x),
        "y": plain_numbers(y),
        "z": [plain_numbers(row, 4) for row in values[np.ix_(*coarse)]],
    }
    return Plot(title, drawing.text(), (), text.removeprefix("; "), data)
