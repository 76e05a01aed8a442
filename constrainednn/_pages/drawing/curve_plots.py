"""Plots over one coordinate: solution, error, residual, and how the residual spreads."""

import numpy as np

from constrainednn._common.tables import number
from constrainednn._pages.drawing.plot import Plot, curve_data, early, label, plain_numbers
from constrainednn._pages.drawing.scales import Scale
from constrainednn._pages.drawing.svg import Drawing
from constrainednn._pages.evaluated import Evaluated, ResidualSeen

# Components that have a colour of their own.
MOST = 6


def curves(seen: Evaluated) -> Plot | None:
    """The solution over one coordinate, with the reference and rows of data."""
    x, values = seen.grid[0], seen.values
    factors = _magnified(values)
    rows = [item for item in seen.residuals if item.train_rows.size or item.heldout_rows.size]
    # Measured values belong to the picture where they are those of the solution itself.
    rows = [item for item in rows if item.train_rows.shape[1] == values.shape[1]]
    shown = [
        values * factors,
        *(seen.reference * factors for _ in range(bool(seen.reference.size))),
    ]
    shown += [part * factors for item in rows for part in (item.train_rows, item.heldout_rows)]
    across = Scale.of([x], Drawing.horizontal(), log=early(x), tight=True)
    up = Scale.of(shown, Drawing.vertical())
    if across is None or up is None:
        return None
    count = values.shape[1]
    drawing = Drawing(f"solution over {seen.axes[0]}", across, up, seen.axes[0], "u")
    keys, series = [], []
    for k in range(count):
        style = f"c{k % MOST}"
        drawing.curve(x, factors[k] * values[:, k], style)
        name = label("u", k, count) + (f" × {factors[k]:g}" if factors[k] > 1 else "")
        keys.append((style, name))
        series.append((label("u", k, count), values[:, k]))
    if seen.reference.size:
        for k in range(count):
            drawing.curve(x, factors[k] * seen.reference[:, k], "known")
            series.append((label("reference", k, count), seen.reference[:, k]))
        keys.append(("known", "reference"))
    for item in rows:
        parts = (item.heldout, item.heldout_rows, "heldout"), (item.train, item.train_rows, "train")
        for points, measured, style in parts:
            for k in range(measured.shape[1] if measured.size else 0):
                drawing.dots(points[:, 0], factors[k] * measured[:, k], style)
        keys += [("dot train", f"{item.name}, train"), ("dot heldout", f"{item.name}, held-out")]
    many = count > MOST
    text = f"{count} components; colours repeat after {MOST}" if many else ""
    kept = tuple(keys) if not many else tuple(keys[:MOST])
    return Plot(
        "Solution", drawing.text(), kept, text, curve_data(drawing, seen.axes[0], x, series)
    )


def error_curve(seen: Evaluated) -> Plot | None:
    """The difference from the reference over one coordinate."""
    if not seen.reference.size or seen.error_at_rounding:
        return None
    x, error = seen.grid[0], seen.error
    across = Scale.of([x], Drawing.horizontal(), log=early(x), tight=True)
    up = Scale.of([error], Drawing.vertical(), log=True)
    if across is None or up is None:
        return None
    name = "|u - reference|"
    drawing = Drawing(f"error over {seen.axes[0]}", across, up, seen.axes[0], name)
    drawing.curve(x, error, "c1")
    several = seen.values.shape[1] > 1
    text = "the largest over components" if several else ""
    data = curve_data(drawing, seen.axes[0], x, [(name, error)])
    return Plot("Error against the reference", drawing.text(), (), text, data)


def phase(seen: Evaluated) -> Plot | None:
    """The path of the first two components over time."""
    if seen.axes != ("t",) or seen.values.shape[1] < 2:
        return None
    u = seen.values
    across = Scale.of([u[:, 0]], Drawing.horizontal())
    up = Scale.of([u[:, 1]], Drawing.vertical())
    if across is None or up is None:
        return None
    drawing = Drawing("path of the first two components", across, up, "u[0]", "u[1]")
    drawing.curve(u[:, 0], u[:, 1], "c2")
    drawing.dots(u[:1, 0], u[:1, 1], "known", size=4)
    text = f"from t = {number(float(seen.grid[0][0]))}, the dot"
    data = {"kind": "points", "x": plain_numbers(u[:, 0]), "y": plain_numbers(u[:, 1])}
    return Plot("Path of the first two components", drawing.text(), (), text, data)


def _magnified(values: np.ndarray) -> np.ndarray:
    """Powers of ten that bring components below 1 % of the largest to its size."""
    size = np.abs(np.where(np.isfinite(values), values, 0)).max(axis=0)
    ratio = size.max(initial=0) / np.where(size > 0, size, np.inf)
    return np.where(ratio > 100, 10 ** np.floor(np.log10(np.maximum(ratio, 1))), 1.0)


def residual_points(seen: Evaluated, item: ResidualSeen) -> Plot | None:
    """The residual at points of both streams, against the one coordinate in which they vary."""
    points = [part for part in (item.train, item.heldout) if part.size]
    if not points:
        return None
    spread = np.ptp(np.concatenate(points), axis=0)
    varying = np.flatnonzero(spread > 1e-9 * spread.max(initial=0))
    if len(varying) != 1:
        return None  # no picture in the plane; its shares say what there is to see
    k = int(varying[0])
    field = item.field if item.field.ndim == 1 else np.zeros(0)
    across = Scale.of(
        [part[:, k] for part in points],
        Drawing.horizontal(),
        log=bool(seen.grid) and len(seen.grid) == 1 and early(seen.grid[0]),
        tight=True,
    )
    up = Scale.of([item.train_size, item.heldout_size, field], Drawing.vertical(), log=True)
    if across is None or up is None:
        return None
    drawing = Drawing(f"residual of {item.name}", across, up, item.axes[k], "|r|")
    series: list[tuple[str, np.ndarray]] = []
    if field.size:
        drawing.curve(seen.grid[0], field, "thin")
        series.append(("|r|", field))
    keys = []
    for style, name, part, size, count in (
        ("heldout", "held-out", item.heldout, item.heldout_size, item.heldout_count),
        ("train", "train", item.train, item.train_size, item.train_count),
    ):
        if part.size:
            drawing.dots(part[:, k], size, style)
            of = f"{len(part)} of " if len(part) < count else ""
            keys.append((f"dot {style}", f"{name}, {of}{count}"))
    if len(item.worst) > k:
        drawing.ring(float(item.worst[k]), item.worst_size, f"worst {number(item.worst_size)}")
    data = {
        "kind": "points",
        "points": plain_numbers(item.heldout[:, k] if item.heldout.size else []),
    }
    if series:
        data = curve_data(drawing, item.axes[k], seen.grid[0], series)
    return Plot(f"Residual of {item.name}", drawing.text(), tuple(keys[::-1]), "", data)


def shares(item: ResidualSeen) -> Plot | None:
    """Share of points with a residual above a size: the quantiles of train against held-out."""
    curves = [part for part in (item.train_shares, item.heldout_shares) if part.shape[1]]
    if len(curves) < 2:
        return None
    across = Scale.of([part[0] for part in curves], Drawing.horizontal(), log=True)
    up = Scale.of([part[1] for part in curves], Drawing.vertical(), log=True)
    if across is None or up is None:
        return None
    drawing = Drawing(
        f"share of points by residual of {item.name}", across, up, "|r|", "share above"
    )
    keys = []
    for style, name, part in (
        ("train", f"train, {item.train_count}", item.train_shares),
        ("heldout", f"held-out, {item.heldout_count}", item.heldout_shares),
    ):
        drawing.curve(part[0], part[1], style)
        keys.append((style, name))
    text = "how many points have a residual above each size"
    data = {
        "kind": "shares",
        "train": [plain_numbers(row) for row in item.train_shares],
        "heldout": [plain_numbers(row) for row in item.heldout_shares],
    }
    return Plot(f"Spread of the residual of {item.name}", drawing.text(), tuple(keys), text, data)
