"""Intervals, boxes and their boundaries."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from constrainednn._common.arguments import as_real, as_reals
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain, Corner, GaussRule, end_slack
from constrainednn.errors import BadValueError


class Interval(AbstractDomain):
    """Points between `low` and `high`, uniform. Points are scalars of shape ()."""

    low: float
    high: float

    def __init__(self, low: float, high: float):
        self.low, self.high = as_real(low, "low of Interval"), as_real(high, "high of Interval")
        if not 0 < self.high - self.low < math.inf:
            raise BadValueError(
                f"Interval needs finite low < high, got low={shown(low)} and high={shown(high)}. "
                "Swap them, or use Points for a single value."
            )

    @property
    def unit_dim(self) -> int:
        """One."""
        return 1

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Legendre."""
        return ("legendre",)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, "1"]) -> Float[Array, ""]:
        """Scale `z` affinely."""
        return self.low + (self.high - self.low) * z[0]

    def holds(self, x: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in it; a few units in the last place beyond an end are that end."""
        slack = end_slack(max(abs(self.low), abs(self.high)), x.dtype)
        return np.asarray((x >= self.low - slack) & (x <= self.high + slack))


class Box(AbstractDomain):
    """Points of an axis-parallel box, uniform. Points have shape (d,)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Corner, high: Corner):
        self.low, self.high = _corners("Box", low, high)

    @property
    def unit_dim(self) -> int:
        """The dimension of the box."""
        return len(self.low)

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Legendre in each coordinate."""
        return ("legendre",) * self.unit_dim

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    @property
    def boundary(self) -> "BoxBoundary":
        """The faces of this box with their uniform surface measure."""
        return BoxBoundary(self.low, self.high)

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Scale `z` affinely."""
        low, high = jnp.asarray(self.low, z.dtype), jnp.asarray(self.high, z.dtype)
        return low + (high - low) * z

    def holds(self, x: Float[np.ndarray, "... d"]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in it; a few units in the last place beyond a face are on it."""
        sides = [Interval(*ends) for ends in zip(self.low, self.high, strict=True)]
        held = [side.holds(x[..., i]) for i, side in enumerate(sides)]
        return np.asarray(np.all(held, axis=0))


class Segment(AbstractDomain):
    """Points on the straight line from `start` to `end`, uniform. Points have shape (d,)."""

    start: tuple[float, ...]
    end: tuple[float, ...]

    def __init__(self, start: Corner, end: Corner):
        starts, ends = as_reals(start, "start of Segment"), as_reals(end, "end of Segment")
        if starts.ndim != 1 or starts.shape != ends.shape or not (starts != ends).any():
            raise BadValueError(
                "Segment needs two different points of equal length, got "
                f"{shown(start)} and {shown(end)}. Write Segment([0, 0], [0, 1])."
            )
        self.start, self.end = (tuple(map(float, item)) for item in (starts, ends))

    @property
    def unit_dim(self) -> int:
        """One."""
        return 1

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Legendre."""
        return ("legendre",)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, "1"]) -> Float[Array, " d"]:
        """Scale `z` affinely; a coordinate that both ends share is met exactly."""
        start, end = jnp.asarray(self.start, z.dtype), jnp.asarray(self.end, z.dtype)
        return start + (end - start) * z


class BoxBoundary(AbstractDomain):
    """The faces of a box, uniform in surface area. Points have shape (d,).

    In one dimension the two end points have probability one half each.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Corner, high: Corner):
        self.low, self.high = _corners("BoxBoundary", low, high)

    @property
    def unit_dim(self) -> int:
        """The dimension of the box: one coordinate picks the face, the others the place on it."""
        return len(self.low)

    @property
    def unbounded(self) -> bool:
        """False."""
        return False

    def place(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """Pick a face with probability proportional to its area, then a point on it."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        dim = len(low)
        sides = high - low
        areas = np.prod(sides) / sides
        edges = np.cumsum(np.repeat(areas, 2) / (2 * areas.sum()))[:-1]
        # Counting edges below z[0] stays inside 0 .. 2 dim - 1, where a search could step out.
        face = jnp.sum(z[0] >= jnp.asarray(edges, z.dtype))
        axis, upper = face // 2, face % 2
        # The remaining cube coordinates fill the other axes in order.
        index = jnp.arange(dim)
        source = jnp.where(index < axis, index + 1, index)
        inside = jnp.where(index == axis, upper.astype(z.dtype), z[jnp.clip(source, 0, dim - 1)])
        return jnp.asarray(low, z.dtype) + jnp.asarray(sides, z.dtype) * inside


def _corners(name: str, low: Corner, high: Corner) -> tuple[tuple[float, ...], tuple[float, ...]]:
    lows, highs = as_reals(low, f"low of {name}"), as_reals(high, f"high of {name}")
    if lows.ndim != 1 or lows.shape != highs.shape or lows.size == 0:
        raise BadValueError(
            f"{name} needs two corners low and high of equal length, got shapes {lows.shape} and "
            f"{highs.shape}. Write {name}([0, 0], [1, 2]); use Interval for scalar points."
        )
    lows, highs = lows.astype(float), highs.astype(float)
    with np.errstate(invalid="ignore", over="ignore"):
        sides = highs - lows
    wrong = np.flatnonzero(~((sides > 0) & np.isfinite(sides)))
    if wrong.size:
        i = wrong[0]
        raise BadValueError(
            f"{name} needs finite low < high in every coordinate, "
            f"got low[{i}]={lows[i]:g} and high[{i}]={highs[i]:g}."
        )
    return tuple(lows.tolist()), tuple(highs.tolist())
