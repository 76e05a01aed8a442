"""Regions where a function is negative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._common.arguments import as_function, as_reals, check_takes
from constrainednn._common.messages import shown
from constrainednn.domains.base import Corner
from constrainednn.domains.regions.base import AbstractRegion, Ends, Faces
from constrainednn.domains.regions.contour import contours, length_of, value_and_slope
from constrainednn.domains.regions.faces import Numbers
from constrainednn.domains.regions.simple import as_name
from constrainednn.errors import BadValueError

# Points of the box, and of each of its faces, at which it is asked for the sign.
_TRIED = 4096
# A set that touches its box may lie beyond it by so much of its size.
_TOUCHING = 1e-6


class LevelSet(AbstractRegion):
    """Points x where a function is negative, uniform. Points have shape (dim,).

    `LevelSet(lambda x: x[0] ** 2 / 4 + x[1] ** 2 - 1, [-2, -1], [2, 1])` is an ellipse. Its
    boundary is where the function is zero, in the plane: traced on a grid of 256 x 256 places in
    the box, so that what is narrower may be missed, and then exact to rounding. A shape with
    corners is made from smooth ones by `|`, `-` and `&`.

    Args:
        fn: From a point of shape (dim,) to a number, negative inside. It need be no distance, but
            smooth where it is zero, with a gradient that does not vanish there.
        low: Lower corner of a box that holds all of it, of shape (dim,); the closer, the fewer
            draws are rejected. Minus infinity where it has no end, as what lies under a curve:
            `LevelSet(under, [-inf, -inf], [inf, inf]) & Box([0, 0], [1, 2])`.
        high: Upper corner.
        name: What its boundary is called, by default "curve", with a number where there are
            several.

    Source:
        Osher and Fedkiw, J. Comput. Phys. 169 (2001) 463. Curves are found by marching squares
        (contourpy), moved to the level set by Newton's method, and parametrised by their length.
    """

    fn: Callable[[Any], Any]
    low: tuple[float, ...]
    high: tuple[float, ...]
    name: str | None

    def __init__(
        self, fn: Callable[[Any], Any], low: Corner, high: Corner, *, name: str | None = None
    ):
        self.fn = as_function(fn, "fn of LevelSet", "lambda x: x @ x - 1")
        check_takes(fn, (None,), "fn of LevelSet must take one point, such as lambda x: x @ x - 1")
        corners = [as_reals(low, "low of LevelSet"), as_reals(high, "high of LevelSet")]
        lower, upper = (item.astype(float) for item in corners)
        if lower.ndim != 1 or lower.shape != upper.shape or not (lower < upper).all():
            raise BadValueError(
                "LevelSet needs corners low < high of one shape (dim,), got "
                f"low={shown(low)} and high={shown(high)}."
            )
        self.low, self.high = tuple(lower.tolist()), tuple(upper.tolist())
        self.name = as_name(name, "LevelSet")
        value = jax.eval_shape(self.fn, jax.ShapeDtypeStruct(lower.shape, jnp.result_type(float)))
        if getattr(value, "shape", None) != ():
            raise BadValueError(
                f"fn of LevelSet must return one number at a point of shape {lower.shape}, got "
                f"{value}."
            )
        self._check_box()

    def _check_box(self) -> None:
        """Refuse a box in which nothing lies, or that does not hold all of it.

        Raises:
            ValueError: If so.
        """
        low, high = self.bounds
        if not np.isfinite([low, high]).all():
            return
        rng = np.random.default_rng(1)
        x = low + (high - low) * rng.uniform(size=(_TRIED, len(low)))
        if not (self.distance(x) < 0).any():
            raise BadValueError(
                f"{self!r} is empty: its function is negative at none of {_TRIED:,} points of the "
                "box. Negative is inside."
            )
        for axis in range(len(low)):
            for end in (low, high):
                on = x.copy()
                on[:, axis] = end[axis]
                found = self.distance(on)
                if (found < -_TOUCHING * (high - low).max()).any():
                    inside = ", ".join(f"{item:.6g}" for item in on[int(np.argmin(found))])
                    raise BadValueError(
                        f"{self!r} reaches beyond its box: its function is negative at ({inside}). "
                        "If that is outside, turn its sign. Give a larger box, or "
                        "where it has no end write infinite corners and intersect it: "
                        "LevelSet(fn, [-inf, -inf], [inf, inf]) & Box(low, high)."
                    )

    def __repr__(self) -> str:
        return f"LevelSet({getattr(self.fn, '__name__', type(self.fn).__name__)})"

    @property
    def bounds(self) -> Ends:
        """The box."""
        return np.array(self.low), np.array(self.high)

    def distance(self, x: Float[Numbers, "*n d"]) -> Float[Numbers, "*n"]:
        """The function, divided by the length of its gradient: near the boundary the distance."""
        f, g = value_and_slope(self.fn, x)
        return f / length_of(g)

    def faces(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"]) -> Faces:
        """The curves on which the function is zero.

        Raises:
            ValueError: If it is not in the plane, or a curve is not smooth.
        """
        if len(low) != 2:
            raise BadValueError(
                "the boundary of LevelSet is traced in the plane alone; in space state conditions "
                "over a domain of your own, such as a Sphere with map."
            )
        own_low, own_high = self.bounds
        return contours(self.fn, np.maximum(low, own_low), np.minimum(high, own_high), self.name)
