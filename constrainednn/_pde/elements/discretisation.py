"""What must hold in a window, by which polynomials, and where it is looked at.

Symbols (others in `models/space_time.py`)::

    symbol  shape    meaning
    m       int      places of an element, mt in time times mx in space
    v       (E, mt, mx, a, d)  derivatives of u that a residual sees
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from constrainednn._pde.elements.basis import Table, derivatives
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn.models.legendre import gauss


class Equations(eqx.Module):
    """What must hold.

    Attributes:
        interior: The equation.
        ends: Conditions at the left and the right end, None where there is none.
        periodic: True if both ends are one.
        k: Derivatives by x, the value among them, that elements share at a node.
    """

    interior: LocalResidual
    ends: tuple[LocalResidual | None, LocalResidual | None]
    periodic: bool = eqx.field(static=True)
    k: int = eqx.field(static=True)

    @property
    def order(self) -> int:
        """Order in time."""
        return self.interior.order(0)

    def given(self, unknowns: Float[Array, " q"]) -> "Equations":
        """The same for other values of the unknowns."""
        left, right = (None if item is None else item.given(unknowns) for item in self.ends)
        return dataclasses.replace(self, interior=self.interior.given(unknowns), ends=(left, right))


@dataclasses.dataclass(frozen=True)
class Discretisation:
    """Polynomials, and the places at which they are trained and watched.

    Attributes:
        equations: What must hold.
        shape: Kt and Kx.
        train: Places of the rows, a Gauss rule.
        weights: Roots of its weights, a mean over time and over an element.
        monitor: Places that steer, random in space and time; the last time is the end.
        slopes: Size of the derivative of each equation by the highest derivative by time, at the
            start of a window; zero where it has none. See `at_start`.
    """

    equations: Equations
    shape: tuple[int, int]
    train: Table
    weights: Float[np.ndarray, "mt mx"]
    monitor: Table
    slopes: Float[np.ndarray, " e"]

    @classmethod
    def of(
        cls,
        equations: Equations,
        shape: tuple[int, int],
        watched: tuple[np.ndarray, np.ndarray],
    ) -> "Discretisation":
        """With rows, monitor places and no units yet."""
        orders = equations.order, max(equations.interior.order(1), equations.k - 1)
        (t, of_t), (x, of_x) = training_rules(shape)
        return cls(
            equations,
            shape,
            Table.of(t, x, shape, orders),
            np.sqrt(np.outer(of_t, of_x)) / 2,
            Table.of(*watched, shape, orders),
            np.zeros(equations.interior.equations),
        )

    def in_units_of_u(self, h: float) -> Float[np.ndarray, " e"]:
        """What residuals are multiplied by, in a window of length `h`."""
        timely = self.slopes > 0
        return np.where(timely, h**self.equations.order / np.where(timely, self.slopes, 1), 1.0)


def training_rules(shape: tuple[int, int]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Scaled Gauss nodes and weights in time and in space: about 1.4 for each polynomial."""
    Kt, Kx = shape
    return gauss(Kt + 4), gauss(Kx + Kx // 2)


class Span(NamedTuple):
    """Start and length of a window."""

    t: float
    h: float


def derivatives_of_u(
    c: Float[np.ndarray, "E Kt Kx d"],
    table: Table,
    residual: LocalResidual,
    h: float,
    lengths: Float[np.ndarray, " E"],
) -> Float[np.ndarray, "E mt mx a d"]:
    """What a residual sees at all places of a table."""
    seen = []
    for a, b in residual.orders:
        v = np.einsum("ti,eijd->etjd", table.along_t[a], c, optimize=True)
        v = np.einsum("xj,etjd->etxd", table.along_x[b], v, optimize=True)
        seen.append(v / (h / 2) ** a / (lengths[:, None, None, None] / 2) ** b)
    return np.stack(seen, axis=-2)


def points_of(
    table: Table, span: Span, edges: Float[np.ndarray, " E_1"]
) -> Float[np.ndarray, "E mt mx 2"]:
    """Points (t, x) at all places of a table."""
    t = span.t + span.h * (table.t + 1) / 2
    x = edges[:-1, None] + np.diff(edges)[:, None] * (table.x + 1) / 2
    shape = len(x), len(t), x.shape[1]
    return np.stack(
        [np.broadcast_to(t[None, :, None], shape), np.broadcast_to(x[:, None], shape)], axis=-1
    )


def at_time(place: float, disc: Discretisation, most: int) -> list[Float[np.ndarray, " Kt"]]:
    """Values and derivatives of the polynomials in time at one scaled time."""
    return [table[0] for table in derivatives((place,), disc.shape[0], most)]


def at_start(
    disc: Discretisation, span: Span, edges: Float[np.ndarray, " E_1"], c: np.ndarray
) -> Discretisation:
    """With the units that equations have at the start of a window, from their time derivatives."""
    interior, order = disc.equations.interior, disc.equations.order
    first = [row[None] for row in at_time(-1.0, disc, interior.order(0))]
    table = Table(np.array([-1.0]), disc.monitor.x, first, disc.monitor.along_x)
    v = derivatives_of_u(c, table, interior, span.h, np.diff(edges))
    p = points_of(table, span, edges)
    G = interior.linearised(v.reshape(-1, *v.shape[3:]), p.reshape(-1, 2))[1]
    last = [a[0] == order for a in interior.orders]
    slopes = np.sqrt((G[:, :, last] ** 2).sum(axis=(2, 3)).mean(axis=0))
    return dataclasses.replace(disc, slopes=slopes)


def unit_of_condition(
    condition: LocalResidual, G: Float[np.ndarray, "n e a d"], h: float, length: float
) -> Float[np.ndarray, " e"]:
    """What a condition at an end is multiplied by, to be in units of u.

    Args:
        condition: The condition.
        G: Its derivative by what it sees, at some times.
        h: Length of the window.
        length: That of space, for derivatives by x.
    """
    scales = np.array([h**-a * (2 / length) ** b for a, b in condition.orders])
    size = np.sqrt((G**2).sum(axis=3).mean(axis=0)) * scales
    top = size.max(axis=1)
    return np.where(top > 0, 1 / np.where(top > 0, top, 1.0), 1.0)


class AtBoundary(NamedTuple):
    """A condition at one end, at some times.

    Attributes:
        condition: The condition.
        v: What it sees there.
        p: The points.
        unit: What it is multiplied by, to be in units of u.
        r: Its residual, in these units.
        G: Derivative of the residual by v.
    """

    condition: LocalResidual
    v: Float[np.ndarray, "mt a d"]
    p: Float[np.ndarray, "mt 2"]
    unit: Float[np.ndarray, " e"]
    r: Float[np.ndarray, "mt e"]
    G: Float[np.ndarray, "mt e a d"]


def at_boundary(
    disc: Discretisation,
    span: Span,
    edges: Float[np.ndarray, " E_1"],
    c: np.ndarray,
    side: int,
    times: Table,
) -> AtBoundary | None:
    """The condition at one end, None where there is none."""
    condition = disc.equations.ends[side]
    if condition is None:
        return None
    ends = derivatives((2.0 * side - 1,), disc.shape[1], condition.order(1))
    one = Table(times.t, np.zeros(1), times.along_t, ends)
    element = slice(-1, None) if side else slice(0, 1)
    lengths = np.diff(edges)[element]
    v = derivatives_of_u(c[element], one, condition, span.h, lengths)[0, :, 0]
    t = span.t + span.h * (times.t + 1) / 2
    p = np.stack([t, np.full_like(t, edges[-side])], axis=1)
    r, G = condition.linearised(v, p)
    unit = unit_of_condition(condition, G, span.h, edges[-1] - edges[0])
    return AtBoundary(condition, v, p, unit, r * unit, G * unit[:, None, None])
