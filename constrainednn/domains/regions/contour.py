"""Curves on which a function of the plane is zero: traced on the host, then exact to rounding.

A curve is cut into panels. Over the chord of a panel it is the graph of a polynomial, whose length
is integrated; then panels are of one length, and places polynomials of the length.

Symbols::

    symbol  shape       meaning
    f, g    (n,)        the function and its gradient (n, 2) at points x (n, 2)
    N, m    int         panels; Chebyshev polynomials of one
    c       (N, m, 2)   coefficients of places by the length on a panel, from -1 to 1
    t       (m,)        Chebyshev points, from -1 to 1
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.batched import in_blocks
from constrainednn.domains.regions.faces import AbstractFace, Numbers, namespace
from constrainednn.errors import BadValueError

# Cells along each coordinate of the box in which a curve is looked for.
_GRID = 256
# Polynomials of a panel; panels of a curve at first and at most. They are doubled until the last
# polynomials matter no more than so many units in the last place.
_WIDTH, _FIRST, _MOST, _UNITS = 16, 32, 1024, 512
# Newton steps from a point nearby to the curve; each doubles the number of digits.
_NEWTON = 6
# Within one of the smallest panels the normal of a smooth curve turns by less than this.
_TURN = 0.3


class Contour(AbstractFace):
    """A curve on which a function is zero, uniform in length. Points have shape (2,).

    Attributes:
        fn: The function of a point; its gradient points out of the shape.
        c: Coefficients of its places, see above.
        length: Its length.
        name: Its name; None for one by its kind.
        kind: As for other faces.
        outward: 1, or -1 where the shape has been taken away.
    """

    fn: Callable[[Any], Any]
    c: tuple[tuple[tuple[float, float], ...], ...] = eqx.field(static=True)
    length: float
    name: str | None
    kind: str = "curve"
    outward: float = 1.0

    def __repr__(self) -> str:
        return f"Contour(length {self.length:g})"

    @property
    def unit_dim(self) -> int:
        """One."""
        return 1

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    @property
    def content(self) -> float:
        """Its length."""
        return self.length

    def place(self, z: Float[Array, "1"]) -> Float[Array, " 2"]:
        """By the share of its length."""
        return jnp.asarray(self._at(z)[0])

    def along(self, z: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """By the share of its length."""
        return np.asarray(self._at(z))

    def _at(self, z: Float[Numbers, " k"]) -> Float[Numbers, "k 2"]:
        xp, count = namespace(z), len(self.c)
        panel = xp.clip(xp.floor(z * count), 0, count - 1).astype(int)
        own = xp.asarray(self.c, z.dtype)[panel]
        return projected(self.fn, _chebyshev(own, 2 * (z * count - panel) - 1))

    def nearness(self, x: Float[Numbers, "*n 2"]) -> Float[Numbers, "*n"]:
        """Close to the distance near the curve; elsewhere at most the distance."""
        xp, c = namespace(x), np.asarray(self.c)
        f, g = value_and_slope(self.fn, x)
        middles = xp.asarray(_chebyshev(c, np.zeros(len(c))), x.dtype)
        # Other curves on which the function is zero are not this one.
        squares = ((x[..., None, :] - middles) ** 2).sum(axis=-1).min(axis=-1)
        return xp.maximum(xp.abs(f) / length_of(g), xp.sqrt(squares) - self.length / len(c))

    def normal(self, x: Float[Numbers, "*n 2"]) -> Float[Numbers, "*n 2"]:
        """Along the gradient."""
        g = value_and_slope(self.fn, x)[1]
        return self.outward * g / length_of(g)[..., None]


def contours(
    fn: Callable[[Any], Any],
    low: Float[np.ndarray, " 2"],
    high: Float[np.ndarray, " 2"],
    name: str | None,
) -> tuple[Contour, ...]:
    """Curves on which a function is zero in a box, and a little beyond it.

    Raises:
        ValueError: If one of them has a corner, or the gradient vanishes on it.
    """
    from contourpy import contour_generator

    beyond = 2 / _GRID * (high - low)
    x, y = (np.linspace(*ends, _GRID + 1) for ends in zip(low - beyond, high + beyond, strict=True))
    f = value_and_slope(fn, np.stack(np.meshgrid(x, y), axis=-1))[0]
    found = []
    for line in contour_generator(x, y, f).lines(0.0):
        points = np.asarray(line, float)
        # What lies within one cell is a point that was touched.
        if len(points) > 4:
            c, length = _by_length(fn, np.asarray(projected(fn, points)))
            own = tuple(tuple((float(u), float(v)) for u, v in panel) for panel in c)
            found.append(Contour(fn=fn, c=own, length=length, name=name))
    return tuple(found)


def _by_length(
    fn: Callable[[Any], Any], points: Float[np.ndarray, "k 2"]
) -> tuple[Float[np.ndarray, "N m 2"], float]:
    """Coefficients of a curve through points in order, and its length."""
    t = np.cos(np.pi * np.arange(_WIDTH) / (_WIDTH - 1))[::-1]
    to_c = np.linalg.inv(np.polynomial.chebyshev.chebvander(t, _WIDTH - 1))
    eps, N = float(jnp.finfo(jnp.result_type(float)).eps), _FIRST
    while True:
        ends = _spread(fn, points, N)
        chord = ends[1:] - ends[:-1]
        x = _over_chords(fn, ends, t)
        c = np.einsum("jm,Nmk->Njk", to_c, x)
        slope = np.polynomial.chebyshev.chebder(c, axis=1)
        speed = np.linalg.norm(np.polynomial.chebyshev.chebval(t, np.moveaxis(slope, 1, 0)), axis=1)
        speed_c = speed @ to_c.T
        tail = np.abs(speed_c[:, -2:]).max(axis=1) / np.linalg.norm(chord, axis=1)
        if tail.max() <= _UNITS * eps:
            break
        if 2 * N > _MOST:
            _check_smooth(fn, ends)
            break
        N *= 2
    within = np.polynomial.chebyshev.chebint(speed_c, lbnd=-1, axis=1)
    lengths = within.sum(axis=1)
    known = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = (np.arange(N)[:, None] + (t + 1) / 2) / N * known[-1]
    panel = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, N - 1)
    rest = wanted - known[panel]
    s = 2 * rest / lengths[panel] - 1
    for _ in range(_NEWTON):
        s -= (_chebyshev(within[panel], s) - rest) / _chebyshev(speed_c[panel], s)
    even = projected(fn, _chebyshev(c[panel], s))
    return np.einsum("jm,Nmk->Njk", to_c, even), float(known[-1])


def _spread(
    fn: Callable[[Any], Any], points: Float[np.ndarray, "k 2"], N: int
) -> Float[np.ndarray, "ends 2"]:
    """Ends of panels, nearly even in length."""
    known = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    s = np.linspace(0.0, known[-1], N + 1)
    near = np.stack([np.interp(s, known, column) for column in points.T], axis=1)
    ends = np.asarray(projected(fn, near))
    # A closed curve ends where it begins, and one with ends keeps them.
    ends[[0, -1]] = points[[0, -1]]
    return ends


def _over_chords(
    fn: Callable[[Any], Any], ends: Float[np.ndarray, "ends 2"], t: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "N m 2"]:
    """Places of the curve over those of chords, at right angles to them."""
    chord = (ends[1:] - ends[:-1])[:, None]
    across = np.stack([-chord[..., 1], chord[..., 0]], axis=-1)
    x = ends[:-1, None] + (t[:, None] + 1) / 2 * chord
    for _ in range(_NEWTON):
        f, g = value_and_slope(fn, x)
        slope = (g * across).sum(axis=-1)
        safe = np.where(np.abs(slope) > 0, slope, np.inf)
        x = x + np.clip(-f / safe, -1, 1)[..., None] * across
    return x


def _check_smooth(fn: Callable[[Any], Any], ends: Float[np.ndarray, "ends 2"]) -> None:
    """Refuse a curve whose normal turns within one of the smallest panels.

    Raises:
        ValueError: If so, with the place.
    """
    g = value_and_slope(fn, ends)[1]
    n = g / length_of(g)[:, None]
    turn = np.linalg.norm(n[1:] - n[:-1], axis=1)
    if turn.max() > _TURN:
        x, y = ends[int(np.argmax(turn))]
        raise BadValueError(
            f"a level set is not smooth near ({x:.6g}, {y:.6g}): it has a corner there, is bent "
            "too sharply, or its gradient vanishes. Make corners from smooth ones by |, - and &."
        )


def _chebyshev(c: Numbers, s: Numbers) -> Numbers:
    """Sums at places s (*k) by coefficients c (*k, m, *d), by Clenshaw's recurrence."""
    axis = s.ndim
    s = s.reshape(*s.shape, *[1] * (c.ndim - axis - 1))
    last = before = 0.0 * c[(slice(None),) * axis + (0,)]
    for j in range(c.shape[axis] - 1, 0, -1):
        last, before = 2 * s * last - before + c[(slice(None),) * axis + (j,)], last
    return s * last - before + c[(slice(None),) * axis + (0,)]


def projected(fn: Callable[[Any], Any], x: Float[Numbers, "*n 2"]) -> Float[Numbers, "*n 2"]:
    """The points of a curve that Newton's method finds along the gradient."""
    for _ in range(_NEWTON):
        f, g = value_and_slope(fn, x)
        x = x - (f / length_of(g) ** 2)[..., None] * g
    return x


def length_of(g: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
    """Lengths of gradients; that of none is the smallest number, so that one may divide by it."""
    xp = namespace(g)
    tiny = float(jnp.finfo(g.dtype).tiny) ** 0.25
    return xp.sqrt(xp.maximum((g**2).sum(axis=-1), tiny**2))


class _WithSlope(eqx.Module):
    """A function of one point with its gradient; equal ones are compiled once."""

    fn: Callable[[Any], Any]

    def __call__(self, x: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, " d"]]:
        return jax.value_and_grad(lambda p: jnp.asarray(self.fn(p), p.dtype))(x)


def value_and_slope(
    fn: Callable[[Any], Any], x: Float[Numbers, "*n d"]
) -> tuple[Float[Numbers, "*n"], Float[Numbers, "*n d"]]:
    """A function of one point and its gradient at many; of NumPy's arrays as such arrays."""
    if not x.size:
        return x[..., 0], x  # without asking for the shape of what is not computed
    flat, both = x.reshape(-1, x.shape[-1]), _WithSlope(fn)
    f, g = in_blocks(both, flat) if isinstance(x, np.ndarray) else jax.vmap(both)(jnp.asarray(flat))
    return f.astype(x.dtype).reshape(x.shape[:-1]), g.astype(x.dtype).reshape(x.shape)
