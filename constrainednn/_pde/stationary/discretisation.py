"""What must hold in space, by which polynomials, and where it is looked at.

Symbols (others in `models/space.py`)::

    symbol  shape      meaning
    N, n    int        elements; coefficients of one, K^dim
    m       int        places of an element, scaled, the same in all
    e       int        equations
    k       int        right-hand sides: one, or as many as there are unknowns
    T_a     (m, n)     derivatives of order a of the basis there, in scaled coordinates
    h       (N, dim)   half the lengths of the elements
"""

import dataclasses
import functools

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from constrainednn._pde.elements.basis import at_places
from constrainednn._pde.elements.germ import LocalResidual, Orders
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pieces.mesh import Side, places
from constrainednn._pieces.rows import by_coefficients
from constrainednn.models.legendre import gauss

# Rows of an element in its coefficients, the right-hand sides there, which are the residual or its
# slopes by the unknowns, and its slopes by the number that is added to an equation.
Rows = tuple[Float[np.ndarray, "rows nd"], Float[np.ndarray, "rows k"], Float[np.ndarray, " rows"]]

# A residual of so many times its estimated round-off is round-off.
_NOISE = 3.0
# Weight of conditions and of traces: from 1 to 10 the error changes by a factor of three at most.
_STRESS = 10.0


class Equations(eqx.Module):
    """What must hold.

    Attributes:
        interior: The equation.
        faces: The condition where the normal points down and up, for one axis after the other;
            None where there is none.
        at_points: Conditions at single points.
        free: Components that these leave open by a constant. Their mean is zero.
        balance: The equation to which a number is added that data which balance leave zero; None
            where they need not. See `constants.py`.
    """

    interior: LocalResidual
    faces: tuple[LocalResidual | None, ...]
    at_points: tuple[tuple[tuple[float, ...], LocalResidual], ...]
    free: tuple[int, ...] = eqx.field(static=True, default=())
    balance: int | None = eqx.field(static=True, default=None)

    @property
    def smooth(self) -> tuple[int, ...]:
        """For each component, the number of derivatives that elements share at a side."""
        return tuple(max(orders) for orders in self.interior.highest)

    @property
    def order(self) -> int:
        """The highest derivative."""
        return max(self.smooth)

    def given(self, unknowns: Float[Array, " q"]) -> "Equations":
        """The same for other values of the unknowns."""
        faces = tuple(item and item.given(unknowns) for item in self.faces)
        at_points = tuple((point, item.given(unknowns)) for point, item in self.at_points)
        interior = self.interior.given(unknowns)
        return dataclasses.replace(self, interior=interior, faces=faces, at_points=at_points)


def tables(s: Float[np.ndarray, "m dim"], K: int, orders: Orders) -> list[Float[np.ndarray, "m n"]]:
    """T_a for some orders."""
    along = [
        {a: at_places(s[:, axis], K, a) for a in {order[axis] for order in orders}}
        for axis in range(s.shape[1])
    ]
    found = []
    for order in orders:
        table = np.ones((len(s), 1))
        for row in map(dict.__getitem__, along, order):
            table = (table[:, :, None] * row[:, None]).reshape(len(s), -1)
        found.append(table)
    return found


@dataclasses.dataclass(frozen=True)
class Discretisation:
    """Polynomials, and the places at which they are trained and watched.

    Attributes:
        equations: What must hold.
        width: K.
        dim: Coordinates of a point.
        monitor: Places that steer, random in a scaled element.
        on_faces: The same on a scaled face.
        exponent: Power of the size of an element by which residuals weigh less than in units of u.
        stress: Weight of conditions and of traces beside the equation, in units of u.
    """

    equations: Equations
    width: int
    dim: int
    monitor: Float[np.ndarray, "m dim"]
    on_faces: Float[np.ndarray, "k across"]
    exponent: float
    stress: float

    @functools.cached_property
    def rule(self) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, " m"]]:
        """A Gauss rule on an element, whose weights sum to one."""
        return gauss_cube(self.width + self.width // 4, self.dim)

    @functools.cached_property
    def face_rule(self) -> tuple[Float[np.ndarray, "m across"], Float[np.ndarray, " m"]]:
        """A Gauss rule on a face, whose weights sum to one."""
        return gauss_cube(self.width + self.width // 4, self.dim - 1)

    @classmethod
    def of(
        cls, equations: Equations, width: int, dim: int, watched: tuple[np.ndarray, np.ndarray]
    ) -> "Discretisation":
        """Weighed as in the dual of the space of the solution: by h^(order / 2).

        In units of u alone the error beside a corner grows as elements there shrink.
        """
        return cls(equations, width, dim, *watched, equations.order / 2, _STRESS)

    def weighed_otherwise(self) -> "Discretisation":
        """The same in units of u, and with conditions that weigh as much as the equation.

        Where equation and conditions agree the solution is the same; where they contradict each
        other it is a compromise, which moves with the weights.
        """
        return dataclasses.replace(self, exponent=0.0, stress=1.0)

    def weights(self, mesh: Mesh) -> Float[np.ndarray, " N"]:
        """What residuals in units of u are multiplied by, with the root of the share of area."""
        relative = mesh.lengths.min(axis=1) / mesh.extent
        return relative**-self.exponent * np.sqrt(mesh.area / mesh.area.sum())

    @functools.cached_property
    def interior_tables(self) -> list[Float[np.ndarray, "m n"]]:
        """T_a at the places of the rule."""
        return tables(self.rule[0], self.width, self.equations.interior.orders)

    @functools.cached_property
    def monitor_tables(self) -> list[Float[np.ndarray, "m n"]]:
        """T_a at the places that steer."""
        return tables(self.monitor, self.width, self.equations.interior.orders)

    @functools.cached_property
    def to_modes(self) -> Float[np.ndarray, "modes m"]:
        """From values at the places of the rule on a side to Legendre coefficients."""
        s, weights = self.face_rule
        return tables(s, self.width, ((0,) * s.shape[1],))[0].T * weights


def gauss_cube(
    m: int, dim: int
) -> tuple[Float[np.ndarray, "places dim"], Float[np.ndarray, " places"]]:
    """A Gauss rule on a cube of side two; the weights sum to one. A point in no dimensions."""
    s, weights = gauss(m)
    grid = np.stack(np.meshgrid(*[s] * dim, indexing="ij"), axis=-1) if dim else np.zeros((1, 0))
    total = np.ones(1)
    for _ in range(dim):
        total = np.outer(total, weights / 2).ravel()
    return grid.reshape(len(total), dim), total


class Seen:
    """A residual at the same scaled places of some elements.

    Attributes:
        r: Residuals (N, m, e).
        right: The same as one right-hand side, or their derivatives by the unknowns (N, m, e, k).
        G: Their derivatives (N, m, e, a, d) by what they see, in scaled coordinates.
        unit: What they are multiplied by (N, e) to be in units of u.
    """

    def __init__(
        self,
        residual: LocalResidual,
        T: list[Float[np.ndarray, "m n"]],
        c: Float[np.ndarray, "N n d"],
        low: Float[np.ndarray, "N dim"],
        high: Float[np.ndarray, "N dim"],
        s: Float[np.ndarray, "m dim"],
        *,
        unknowns: bool = False,
    ):
        half = (high - low) / 2
        self.scales = np.stack([(half ** -np.array(a)).prod(axis=1) for a in residual.orders], 1)
        v = derivatives_of_u(T, c, self.scales)
        p = places(low, high, s)
        r, right, G = with_right(
            residual, v.reshape(-1, *v.shape[2:]), p.reshape(-1, p.shape[2]), unknowns=unknowns
        )
        self.r = r.reshape(*p.shape[:2], -1)
        self.right = right.reshape(*self.r.shape, -1)
        self.G = G.reshape(*p.shape[:2], *G.shape[1:]) * self.scales[:, None, None, :, None]
        self.unit = in_units_of_u(self.G)

    def rows(
        self,
        number: int,
        T: list[Float[np.ndarray, "m n"]],
        root: Float[np.ndarray, " m"],
        balance: int | None = None,
    ) -> Rows:
        """Rows of one element in its coefficients, in units of u, and what is right of them."""
        own = self.G[number], self.right[number], self.unit[number]
        return weighted_rows(*own, T, root, balance)


def with_right(
    residual: LocalResidual,
    v: Float[np.ndarray, "n a d"],
    p: Float[np.ndarray, "n dim"],
    *,
    unknowns: bool,
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "n e k"], Float[np.ndarray, "n e a d"]]:
    """Residuals at many points, right-hand sides there, and G."""
    r, G = residual.linearised(v, p)
    return r, residual.by_unknowns(v, p) if unknowns else r[..., None], G


def weighted_rows(
    G: Float[np.ndarray, "m e a d"],
    right: Float[np.ndarray, "m e k"],
    unit: Float[np.ndarray, " e"],
    T: list[Float[np.ndarray, "m n"]],
    root: Float[np.ndarray, " m"],
    balance: int | None,
) -> Rows:
    """Rows of one element times `root` and `unit`; a number may be added to one equation."""
    weights = root[:, None] * unit
    slopes = np.moveaxis(G * weights[:, :, None, None], 2, 0)
    J, b = by_coefficients(list(slopes), T), np.zeros_like(weights)
    if balance is not None:
        b[:, balance] = weights[:, balance]
    right = (right * weights[..., None]).reshape(weights.size, -1)
    return J.reshape(weights.size, -1), right, b.ravel()


def in_units_of_u(G: Float[np.ndarray, "N m e a d"]) -> Float[np.ndarray, "N e"]:
    """Factors of the equations of some elements, from their slopes in scaled coordinates."""
    size = np.sqrt((G**2).sum(axis=(3, 4)).mean(axis=1))
    # An equation may see nothing of u here.
    return np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 1.0)


def derivatives_of_u(
    T: list[Float[np.ndarray, "m n"]],
    c: Float[np.ndarray, "N n d"],
    scales: Float[np.ndarray, "N a"],
) -> Float[np.ndarray, "N m a d"]:
    """What a residual sees at the places of a table."""
    seen = [
        np.einsum("mk,nkd->nmd", table, c, optimize=True) * scale[:, None, None]
        for table, scale in zip(T, scales.T, strict=True)
    ]
    return np.stack(seen, axis=2)


def on_face(s: Float[np.ndarray, "m across"], axis: int, end: float) -> Float[np.ndarray, "m dim"]:
    """Scaled places of an element on one of its faces."""
    return np.insert(s, axis, end, axis=1)


def on_side(mesh: Mesh, side: Side, element: int, s: np.ndarray) -> Float[np.ndarray, "m dim"]:
    """Scaled places of an element on a side that it shares, which may be a part of its own."""
    whole = on_face(s, side.axis, 0.0)
    p = places(side.low[None], side.high[None], whole)[0]
    low, high = mesh.low[element], mesh.high[element]
    scaled = (p - low) / ((high - low) / 2) - 1
    scaled[:, side.axis] = 1.0 if element == side.below else -1.0
    return scaled


def watched(
    disc: Discretisation, mesh: Mesh, c: Float[np.ndarray, "N n d"]
) -> Float[np.ndarray, " N"]:
    """Residual of each element in units of u, root mean square over it, without round-off.

    That of the conditions on its faces is added; times `weights`, so that the root of the sum of
    squares is that of all.
    """
    eqs, squares = disc.equations, np.zeros(len(c))
    groups = [(eqs.interior, disc.monitor, disc.monitor_tables, list(range(len(c))))]
    for number, condition in enumerate(eqs.faces):
        axis, end = divmod(number, 2)
        owners = mesh.along(axis, end)
        if condition is not None and owners:
            s = on_face(disc.on_faces, axis, 2.0 * end - 1)
            groups.append((condition, s, tables(s, disc.width, condition.orders), owners))
    for residual, s, T, owners in groups:
        own, low, high = c[owners], mesh.low[owners], mesh.high[owners]
        seen = Seen(residual, T, own, low, high, s)
        np.add.at(squares, owners, clear_of_rounding(T, seen.r, seen.G, seen.unit, own))
    return np.sqrt(squares) * disc.weights(mesh)


def clear_of_rounding(
    T: list[Float[np.ndarray, "m n"]],
    r: Float[np.ndarray, "N m e"],
    G: Float[np.ndarray, "N m e a d"],
    unit: Float[np.ndarray, "N e"],
    c: Float[np.ndarray, "N n d"],
) -> Float[np.ndarray, " N"]:
    """Mean square of residuals in units of u, without what rounding of coefficients makes.

    Slopes `G` are in scaled coordinates.
    """
    # What two units in the last place of the coefficients change.
    dv = derivatives_of_u(T, c * (_rounded(c.shape) - 1), np.ones((len(c), len(T))))
    noise = np.einsum("nmead,nmad->nme", G, dv) * unit[:, None]
    rms = lambda r: np.sqrt((r**2).sum(axis=2).mean(axis=1))  # noqa: E731
    return np.maximum(0.0, rms(r * unit[:, None]) - _NOISE * rms(noise)) ** 2


def _rounded(shape: tuple[int, ...]) -> np.ndarray:
    """Factors that change coefficients by two units in the last place, up and down in turn."""
    signs = 1 - 2 * (np.indices(shape).sum(axis=0) % 2)
    return 1 + 2 * np.finfo(float).eps * signs


def tails(c: Float[np.ndarray, "N n d"], K: int, dim: int) -> Float[np.ndarray, "N dim"]:
    """Share of the last two polynomials along each axis."""
    squares = (c**2).sum(axis=2).reshape(len(c), *[K] * dim)
    whole = squares.reshape(len(c), -1).sum(axis=1) + np.finfo(float).tiny
    found = []
    for axis in range(1, dim + 1):
        last = np.take(squares, [K - 2, K - 1], axis=axis).reshape(len(c), -1).sum(axis=1)
        found.append(np.sqrt(last / whole))
    return np.stack(found, axis=1)
