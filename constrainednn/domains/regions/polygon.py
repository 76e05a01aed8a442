"""Polygons in the plane."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from constrainednn._common.arguments import as_reals
from constrainednn._common.messages import shown
from constrainednn.domains.base import Corner
from constrainednn.domains.regions.base import AbstractRegion, Ends, Faces, root_of
from constrainednn.domains.regions.faces import Flat, Numbers, namespace
from constrainednn.domains.regions.simple import as_name
from constrainednn.errors import BadValueError


class Polygon(AbstractRegion):
    """The inside of a closed line of straight edges that do not cross. Points (2,), uniform.

    Holes are taken away: `Polygon(outer) - Polygon(inner)`.

    Args:
        vertices: Its corners in order, either way round, of shape (n, 2).
        name: Its edges are called `name` with their number: the first goes from the first corner to
            the second. By default "edge"; those of a second such polygon in a region go on from
            there.
    """

    vertices: tuple[tuple[float, float], ...]
    name: str | None

    def __init__(self, vertices: Sequence[Corner] | np.ndarray, *, name: str | None = None):
        corners = as_reals(vertices, "vertices of Polygon").astype(float)
        if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3:
            raise BadValueError(
                "vertices of Polygon must be three or more points of the plane, of shape (n, 2), "
                f"got {shown(vertices)}. Write Polygon([[0, 0], [1, 0], [0, 1]])."
            )
        crossed = _crossed(corners)
        if not np.isfinite(corners).all() or crossed is not None:
            raise BadValueError(
                "edges of Polygon must have a length and meet at their ends alone, but those that "
                f"begin at corners {crossed[0] + 1} and {crossed[1] + 1}, counted from 1, do not."
                if crossed
                else "vertices of Polygon must be finite."
            )
        self.vertices = tuple((float(x), float(y)) for x, y in corners)
        self.name = as_name(name, "Polygon")

    def __repr__(self) -> str:
        return f"Polygon({len(self.vertices)} corners)"

    @property
    def bounds(self) -> Ends:
        """The box around it."""
        corners = np.asarray(self.vertices)
        return corners.min(axis=0), corners.max(axis=0)

    def distance(self, x: Float[Numbers, "*n 2"]) -> Float[Numbers, "*n"]:
        """Signed distance: that to the nearest edge, with the sign of the parity of crossings."""
        xp = namespace(x)
        corners = np.asarray(self.vertices)
        a, b = (xp.asarray(item, x.dtype) for item in (corners, np.roll(corners, -1, axis=0)))
        edge, from_a = b - a, x[..., None, :] - a
        share = xp.clip((from_a * edge).sum(axis=-1) / (edge**2).sum(axis=-1), 0, 1)
        squares = ((from_a - share[..., None] * edge) ** 2).sum(axis=-1).min(axis=-1)
        y, before, after = x[..., None, 1], a[:, 1], b[:, 1]
        spans = (before > y) != (after > y)
        rise = xp.where(after == before, 1.0, after - before)
        crossing = a[:, 0] + (y - before) / rise * edge[:, 0]
        inside = (spans & (x[..., None, 0] < crossing)).sum(axis=-1) % 2 == 1
        size = root_of(squares)
        return xp.where(inside, -size, size)

    def faces(self, low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]) -> Faces:
        """Its edges."""
        del low, high
        corners = np.asarray(self.vertices)
        edges = np.roll(corners, -1, axis=0) - corners
        # To the right of an edge lies the outside where corners go round against the clock.
        turn = np.sign(area_of(corners))
        normals = turn * np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.linalg.norm(edges, axis=1, keepdims=True)
        return tuple(
            Flat(
                corner=tuple(corner),
                edges=(tuple(edge),),
                across=tuple(normal),
                name=None if self.name is None else f"{self.name} {number + 1}",
                kind="edge",
            )
            for number, (corner, edge, normal) in enumerate(
                zip(corners.tolist(), edges.tolist(), normals.tolist(), strict=True)
            )
        )


def area_of(corners: Float[np.ndarray, "n 2"]) -> float:
    """Area of a polygon, negative if its corners go round with the clock."""
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _crossed(corners: Float[np.ndarray, "n 2"]) -> tuple[int, int] | None:
    """Two edges that meet elsewhere than at a shared end, by the numbers of their first corners."""
    n = len(corners)
    a, b = corners, np.roll(corners, -1, axis=0)
    edge = b - a
    turn = lambda u, v: u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]  # noqa: E731
    for i in range(n):
        if not edge[i].any():
            return i, i
        others = np.array([j for j in range(n) if j != i])
        beside = np.isin(others, [(i + 1) % n, (i - 1) % n])
        p, q = a[others] - a[i], b[others] - a[i]
        first, last = turn(edge[i], p), turn(edge[i], q)
        across = turn(edge[others], -p), turn(edge[others], b[i] - a[others])
        crosses = (first * last <= 0) & (across[0] * across[1] <= 0)
        # Of parallel ones those that overlap; neighbours only where they turn back.
        flat = (first == 0) & (last == 0)
        s, t = p @ edge[i] / (edge[i] @ edge[i]), q @ edge[i] / (edge[i] @ edge[i])
        overlap = flat & (np.minimum(s, t) < 1) & (np.maximum(s, t) > 0)
        wrong = np.where(flat | beside, overlap, crosses)
        if wrong.any():
            return i, int(others[np.argmax(wrong)])
    return None
