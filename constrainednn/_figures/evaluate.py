"""Values of a solution, its reference and its residuals at the points that figures show."""

import math

import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._figures.curves import values_at
from constrainednn._figures.panels.plane_time import AtTime, plane_grid
from constrainednn._figures.panels.residual import share_above
from constrainednn._figures.shown import Shown
from constrainednn._figures.space import held_in, place_grid
from constrainednn._figures.space_time import map_grid
from constrainednn._figures.style import panel_width, some_points
from constrainednn._gap.residuals import residuals_at
from constrainednn._gap.streams import Streams
from constrainednn._pages.evaluated import Evaluated, ResidualSeen
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.scheme import PieceHistory
from constrainednn.domains.boundaries import BoxBoundary, Segment, Segments
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.targets.image import OTHER_USE, model_inputs
from constrainednn.targets.sets import Circle

# Places of a curve, of each coordinate of a field, and of the two of a map in time and space.
CURVE, FIELD, MAP = 501, 121, (121, 201)
# Points of each stream that are shown, and of a cloud.
_DOTS, _CLOUD = 400, 1000
# Sizes that stand for all in a curve of shares.
_SHARES = 160
# Where points lie far out, the middle is looked at: all but this share of them at each end.
_TAIL, _FAR = 0.005, 2.5


def evaluate(shown: Shown) -> tuple[Evaluated, ...]:
    """What is to be seen of a solution: one for each experiment, else one."""
    parts = shown.experiments or {"": shown}
    return tuple(_evaluated(name, part) for name, part in parts.items())


def _evaluated(name: str, shown: Shown) -> Evaluated:
    axes, grid = _grid(shown)
    places = places_of(shown, grid) if grid else None
    model, known = shown.model, shown.problem.reference
    if isinstance(model, PlaneTimePieces):  # it is drawn at its end
        last = float(model.ends[-1])
        model, known = AtTime(model, last), None if known is None else AtTime(known, last)
    values = None if places is None else values_at(model, places)
    # A cut shows one number; of more entries the image is drawn.
    if values is None or (_cut(shown) is not None and values.shape[1] > 1):
        axes, grid, values = (), (), np.zeros((0, 0))
    if places is not None and len(grid) == 2:
        values = np.where(held_in(shown.problem, places)[:, None], values, np.nan)
    shape = [len(part) for part in grid]
    reference = np.zeros((0, 0))
    if places is not None and known is not None:
        known = values_at(known, places)
        if known is not None and known.shape == values.shape:
            reference = known.reshape(*shape, -1)
    inputs, images, radius = _cloud(shown)
    residuals = [
        seen
        for item, points in zip(shown.problem.constraints, shown.streams, strict=True)
        if (seen := _residual(shown, item, points, axes, grid)) is not None
    ]
    values = values.reshape(*shape, -1) if grid else values
    return Evaluated(name, axes, grid, values, reference, inputs, images, radius, tuple(residuals))


def places_of(shown: Shown, grid: tuple[np.ndarray, ...]) -> np.ndarray:
    """The points of a grid, with all their coordinates where it is a plane through a space."""
    places, through = on_grid(grid), _cut(shown)
    if through is None:
        return places
    every = np.tile(through, (len(places), 1))
    every[:, :2] = places
    return every


def _cut(shown: Shown) -> np.ndarray | None:
    """What a plane through points of three coordinates or more goes through: their middle.

    Rounded to about a tenth of the range. The worst point often lies on the boundary, and a plane
    through it would show nothing of what is inside.
    """
    inputs = None if shown.history.pieces is not None else _inputs(shown)
    if inputs is None or inputs.ndim != 2 or inputs.shape[1] < 3 or inputs.dtype.kind != "f":
        return None
    low, high = np.transpose([_ends(column) for column in inputs.T])
    digits = 1 - np.ceil(np.log10(np.maximum(high - low, np.finfo(float).tiny))).astype(int)
    middle = [round(float(x), int(k)) for x, k in zip((low + high) / 2, digits, strict=True)]
    return np.clip(middle, low, high).astype(inputs.dtype)


def on_grid(grid: tuple[np.ndarray, ...]) -> np.ndarray:
    """All points of a grid: numbers for one axis, rows of two for two."""
    if len(grid) == 1:
        return grid[0]
    return np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, len(grid))


def _grid(shown: Shown) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """Names and places of the coordinates that a solution is drawn over; none if there are more."""
    if isinstance(shown.model, SpaceTimePieces):
        return ("t", "x"), map_grid(shown.model, *MAP)
    if isinstance(shown.model, SpacePieces):
        names = ("x",) if shown.model.scalar else ("x", "y")
        return names, place_grid(shown.model)
    if isinstance(shown.model, PlaneTimePieces):
        return ("x", "y"), plane_grid(shown.model, FIELD)
    if shown.history.pieces is not None:
        return ("t",), _times(shown)
    inputs, through = _inputs(shown), _cut(shown)
    if inputs is not None and through is not None:
        names, inputs = _names_of_cut(through), inputs[:, :2]
    elif inputs is None or panel_width(inputs) not in (1, 2) or inputs.dtype.kind != "f":
        return (), ()
    else:
        names = ("x",) if panel_width(inputs) == 1 else ("x[0]", "x[1]")
    if inputs.ndim > 2 or (inputs.ndim == 2 and inputs.shape[1] == 1):
        return (), ()  # a single number in an array: drawn as a cloud would be
    columns = inputs.reshape(len(inputs), -1).T
    count = CURVE if len(columns) == 1 else FIELD
    ends = [_ends(column) for column in columns]
    return names, tuple(np.linspace(*pair, count, dtype=inputs.dtype) for pair in ends)


def _names_of_cut(through: np.ndarray) -> tuple[str, str]:
    """The two coordinates of a cut, with what the others are there."""
    others = ", ".join(f"x[{k}] = {x:.3g}" for k, x in enumerate(through) if k > 1)
    return "x[0]", f"x[1] at {others}" if len(through) < 5 else "x[1] in the middle of the others"


def _times(shown: Shown) -> tuple[np.ndarray, ...]:
    """Times between the edges of all pieces, and the edges; none where no piece was accepted."""
    pieces = shown.history.pieces
    assert isinstance(pieces, PieceHistory)
    edges = np.sort(np.asarray(pieces.edges, float))
    if len(edges) < 2:
        return ()
    # Where most pieces lie in the first hundredth, as of a stiff problem, so do most places.
    early = edges[0] >= 0 and np.median(edges) <= 0.01 * edges[-1]
    t = np.linspace(edges[0], edges[-1], CURVE)
    if early:
        t = np.geomspace(max(edges[0], edges[1] / 3), edges[-1], CURVE)
    t = np.union1d(t, edges).clip(edges[0], edges[-1])
    return (t.astype(shown.streams[0].train.points.dtype),)


def _inputs(shown: Shown) -> np.ndarray | None:
    """Inputs of the model among the points of the first constraint with held-out points."""
    found = shown.first_with_heldout()
    if found is None:
        return None
    _, points, gap = found
    assert points.heldout is not None
    both = [model_inputs(draw.points) for draw in (points.train, points.heldout)]
    worst = model_inputs(gap.worst.point)  # it may lie a little further out than all of them
    if isinstance(worst, np.ndarray):
        both.append(worst[None].astype(np.asarray(both[0]).dtype))
    if not all(isinstance(item, np.ndarray) for item in both):
        return None
    return np.concatenate(both)


def _ends(x: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Ends of what is shown of a coordinate: of the middle of its points where some lie far out."""
    low, high = np.quantile(x, [_TAIL, 1 - _TAIL])
    far = x.max() - x.min() > _FAR * (high - low)
    return (float(low), float(high)) if far else (float(x.min()), float(x.max()))


def _cloud(shown: Shown) -> tuple[np.ndarray, np.ndarray, float]:
    """Points and their images for a map between spaces of two dimensions or more."""
    found, nothing = shown.first_with_heldout(), np.zeros((0, 0))
    if found is None or shown.history.pieces is not None:
        return nothing, nothing, math.nan
    constraint, points, _ = found
    assert points.heldout is not None
    x = model_inputs(some_points(points.heldout.points, _CLOUD))
    values = values_at(shown.model, x) if panel_width(x) > 1 else None
    if values is None or values.shape[1] < 2:
        return nothing, nothing, math.nan
    radius = constraint.target.radius if isinstance(constraint.target, Circle) else math.nan
    return x.reshape(len(x), -1), values, radius


def _residual(
    shown: Shown,
    constraint: Constraint,
    points: Streams,
    axes: tuple[str, ...],
    grid: tuple[np.ndarray, ...],
) -> ResidualSeen | None:
    """The residual of one constraint; None where its points are no arrays."""
    train, heldout = _stream(points.train), _stream(points.heldout)
    if train is None or heldout is None:
        return None
    width = max(train[0].shape[1], heldout[0].shape[1])
    gap = next((item for item in shown.gap.constraints if item.name == constraint.name), None)
    worst = np.zeros(0) if gap is None else _flat(gap.worst.point)
    sizes = [_sizes(shown, constraint, item) for item in (points.train, points.heldout)]
    kept = [_kept(len(size)) for size in sizes]
    # A cut is a plane through points of more coordinates.
    alike = width == len(grid) or (len(grid) == 2 < width and _cut(shown) is not None)
    entries = max(train[1].shape[1], heldout[1].shape[1])
    field = np.zeros(0)
    on_boundary = isinstance(constraint.over, (BoxBoundary, RegionBoundary, Segment, Segments))
    if grid and alike and not entries and not on_boundary:
        known = np.concatenate([part[0] for part in (train, heldout) if part[0].size])
        field = _on_field(shown, constraint, known, grid)
    names = axes if len(axes) == width else tuple(f"x[{k}]" for k in range(width))
    return ResidualSeen(
        name=constraint.name,
        axes=names if width > 1 else (axes[0] if len(axes) == 1 else "x",),
        train=train[0][kept[0]],
        train_size=sizes[0][kept[0]],
        train_count=len(sizes[0]),
        heldout=heldout[0][kept[1]],
        heldout_size=sizes[1][kept[1]],
        heldout_count=len(sizes[1]),
        field=field,
        worst=worst[:width],
        worst_size=math.nan if gap is None else float(gap.worst.residual),
        at_rounding=gap is not None and bool(gap.at_rounding),
        train_shares=_shares(sizes[0]),
        heldout_shares=_shares(sizes[1]),
        train_rows=_rows(train[1], kept[0], entries),
        heldout_rows=_rows(heldout[1], kept[1], entries),
    )


def _stream(stream: Draw | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Points as rows of numbers, and measured values where they are rows of data."""
    if stream is None:
        return np.zeros((0, 0)), np.zeros((0, 0))
    x, y = stream.points, np.zeros((0, 0))
    if isinstance(x, tuple):
        if len(x) != 2 or not all(isinstance(part, np.ndarray) for part in x):
            return None
        x, y = x[0], _rows_of(x[1])
    if not isinstance(x, np.ndarray):
        return None
    return _rows_of(x), y


def _rows_of(x: np.ndarray) -> np.ndarray:
    """One row for each point; there may be none."""
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def _rows(measured: np.ndarray, kept: np.ndarray, entries: int) -> np.ndarray:
    """Measured values at the points that are shown; none where the stream has none."""
    return measured[kept] if measured.size else np.zeros((0, entries))


def _flat(point: PyTree) -> np.ndarray:
    x = model_inputs(point)
    return (
        np.ravel(np.asarray(x, float)) if isinstance(x, np.ndarray | float | int) else np.zeros(0)
    )


def _sizes(shown: Shown, constraint: Constraint, stream: Draw | None) -> Float[np.ndarray, " n"]:
    if stream is None or not len(stream):
        return np.zeros(0)
    r = residuals_at(constraint.residual, shown.model, stream.points)
    return np.linalg.norm(r, axis=1)


def _kept(count: int) -> np.ndarray:
    return some_points(np.arange(count), _DOTS) if count else np.zeros(0, int)


def _shares(size: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2 k"]:
    """The curve of shares in a few of its steps, the first and the last among them."""
    if not len(size):
        return np.zeros((2, 0))
    both = np.stack(share_above(size))
    kept = np.linspace(0, both.shape[1] - 1, min(_SHARES, both.shape[1])).round().astype(int)
    # The tail is what the curve is for: the largest sizes one by one.
    tail = np.arange(max(0, both.shape[1] - 20), both.shape[1])
    return both[:, np.union1d(kept, tail)]


def _on_field(
    shown: Shown, constraint: Constraint, points: np.ndarray, grid: tuple[np.ndarray, ...]
) -> np.ndarray:
    """|r| on the grid, NaN outside of the box around the points; empty if that box is flat."""
    low, high = points.min(axis=0), points.max(axis=0)
    if not (high > low).all():
        return np.zeros(0)
    places = places_of(shown, grid)
    try:
        r = residuals_at(constraint.residual, shown.model, places)
    except OTHER_USE:  # its points are pairs, or of a shape of their own
        return np.zeros(0)
    size = np.linalg.norm(r, axis=1)
    flat = places.reshape(len(places), -1)
    slack = 0.02 * (high - low)  # the outermost points lie a little inside of the ends
    outside = ~held_in(shown.problem, places)
    beyond = (flat < low - slack) | (flat > high + slack)
    outside |= beyond[:, : len(grid)].any(axis=1)  # a cut may lie at the end of the others
    if len(grid) > 1:
        size = np.where(outside, np.nan, size)
    return size.reshape([len(part) for part in grid])
