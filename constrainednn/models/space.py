"""A model made of elements in space: on each box of a mesh a polynomial in all coordinates.

Symbols::

    symbol  shape        meaning
    dim     int          coordinates of a point
    s       (dim,)       scaled place in an element, each coordinate from -1 to 1
    p_k     ()           orthonormal Legendre polynomials, sqrt(k + 1/2) P_k
    K       int          polynomials in each coordinate
    c       (K^dim, d)   coefficients: u = sum c_ij p_i(s_0) p_j(s_1), the last index runs fastest
"""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn.domains.base import end_slack
from constrainednn.errors import BadTypeError
from constrainednn.models.legendre import differentiation, orthonormal

# How far beyond a side of an element its neighbour is looked for, in lengths of the element.
_BESIDE = 1e-6


class SpacePieces(eqx.Module):
    """A function of place, a polynomial on each box of a mesh; what a stationary `pde` trains.

    Outside of all elements, by more than rounding, its value is NaN.

    Attributes:
        low: Lower corners of the elements, padded with infinities.
        high: Upper corners.
        coefficients: Those of all elements.
        width: Polynomials in each coordinate.
        smooth: For each component the number of derivatives across a side, the value among them,
            that elements share.
        scalar: True if points are numbers of shape (), as those of an interval.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        parameters: Unknown numbers of the equation that are solved for, if there are any.
        arguments: From `parameters` to the arguments of the equation.
    """

    low: Float[Array, "N dim"]
    high: Float[Array, "N dim"]
    coefficients: Float[Array, "N K_dim d"]
    width: int = eqx.field(static=True)
    smooth: tuple[int, ...] = eqx.field(static=True)
    scalar: bool = eqx.field(static=True)
    unravel: Callable[[Array], PyTree]
    parameters: Float[Array, " q"]
    arguments: Callable[[Array], PyTree]

    @property
    def args(self) -> PyTree:
        """The arguments of the equation."""
        return self.arguments(self.parameters)

    def __call__(self, p: Float[Array, "..."]) -> PyTree[Array]:
        """Evaluate at one point."""
        wanted = () if self.scalar else (self.low.shape[1],)
        if jnp.shape(p) != wanted:
            raise BadTypeError(f"u of pde takes a point of shape {wanted}, got {jnp.shape(p)}.")
        return self.unravel(self.derivatives(p, [(0,) * self.low.shape[1]])[0])

    def derivatives(
        self, p: Float[Array, "..."], orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives of the given orders by the coordinates at one point."""
        p = jnp.atleast_1d(p)
        element, found = self._element_of(p)
        return jnp.where(found, self._on(element, p, orders), jnp.nan)

    def jumps(
        self,
        p: Float[Array, "..."],
        within: Callable[[Array], Array] | None = None,
        most: Sequence[int | None] | None = None,
    ) -> Float[Array, " n"]:
        """Jumps across the lower sides of the element that a point lies in, beside the point.

        In units of u: derivatives are multiplied by powers of the length of the element. There are
        none at the boundary, nor where `within`, a function of a point, is false beside a side.
        `most` are numbers of derivatives across each axis that are shared, if fewer than `smooth`.
        """
        p = jnp.atleast_1d(p)
        element, _ = self._element_of(p)
        low, lengths = self.low[element], self.high[element] - self.low[element]
        kept = np.arange(max(self.smooth))[:, None] < np.array(self.smooth)
        found = []
        for axis, unit in enumerate(np.eye(len(p), dtype=int)):
            foot = p.at[axis].set(low[axis])
            other, inside = self._element_of(foot.at[axis].add(-_BESIDE * lengths[axis]))
            if within is not None:
                step = _BESIDE * lengths[axis] * unit
                inside &= within(foot - step) & within(foot + step)
            orders = [tuple((k * unit).tolist()) for k in range(max(self.smooth))]
            here, there = (self._on(number, foot, orders) for number in (element, other))
            scale = lengths[axis] ** jnp.arange(max(self.smooth))[:, None]
            limit = None if most is None else most[axis]
            shared = kept if limit is None else kept & (np.arange(len(kept)) < limit)[:, None]
            found.append(jnp.where(inside & shared, scale * (here - there), 0).ravel())
        return jnp.concatenate(found)

    def _element_of(self, p: Float[Array, " dim"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        """The first element that holds a point, and whether there is one."""
        size = jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))
        slack = end_slack(jnp.max(jnp.where(jnp.isfinite(size), size, 0), axis=0), p.dtype)
        within = lambda low, high: jnp.all((p >= low - slack) & (p <= high + slack))  # noqa: E731
        holds = jax.vmap(within)(self.low, self.high)
        return jnp.argmax(holds), jnp.any(holds)

    def _on(
        self, element: Int[Array, ""], p: Float[Array, " dim"], orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives of the polynomial of one element, wherever the point lies."""
        low, dim = self.low[element], len(p)
        half = (self.high[element] - low) / 2
        c = self.coefficients[element].reshape(*[self.width] * dim, -1)
        D, most = differentiation(self.width), np.max(orders, axis=0)
        for axis in range(dim):  # each turn puts the derivatives by one coordinate last
            row = orthonormal((p[axis] - low[axis]) / half[axis] - 1, self.width)
            by = [np.linalg.matrix_power(D, a) for a in range(most[axis] + 1)]
            table = jnp.stack([row @ jnp.asarray(D, c.dtype) for D in by])
            scale = jnp.stack([half[axis] ** -a for a in range(most[axis] + 1)])
            c = jnp.moveaxis(jnp.tensordot(table * scale[:, None], c, axes=1), 0, -1)
        return jnp.stack([c[(slice(None), *order)] for order in orders])

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(np.isfinite(np.asarray(self.low)[:, 0]).sum())

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        return self.count * math.prod(self.coefficients.shape[1:]) + self.parameters.size

    def ordinary(self, further: float) -> "SpacePieces":
        """With values between one and two, and elements wider by so many times all of them."""
        d, dim = self.coefficients.shape[2], self.low.shape[1]
        low, high = self.corners
        more = further * (high.max(axis=0) - low.min(axis=0))[None]
        # The first polynomial is constant: the root of a half in each coordinate.
        values = 2 ** (dim / 2) * jnp.linspace(1.0, 2.0, d)[None]
        c = jnp.zeros_like(self.coefficients).at[:, 0].set(values)
        parts = c, self.low - more, self.high + more
        return eqx.tree_at(lambda u: (u.coefficients, u.low, u.high), self, parts)

    @property
    def corners(self) -> tuple[Float[np.ndarray, "N dim"], Float[np.ndarray, "N dim"]]:
        """Lower and upper corners of the elements, without padding."""
        low, high = (np.asarray(item)[: self.count] for item in (self.low, self.high))
        return low, high

    @property
    def extent(self) -> str:
        """Where it is defined, for messages."""
        low, high = self.corners
        ends = zip(low.min(axis=0), high.max(axis=0), strict=True)
        return "the elements in " + " x ".join(f"[{a:g}, {b:g}]" for a, b in ends)


class PlaneTimePieces(eqx.Module):
    """A function of (t, x, y), a polynomial on each element of each window; what `pde` trains.

    Outside of all elements, by more than rounding, its value is NaN.

    Attributes:
        boxes: The elements as boxes of (t, x, y), window after window.
        order: Number of derivatives by t, the value among them, that windows share.
    """

    boxes: SpacePieces
    order: int = eqx.field(static=True)

    @property
    def args(self) -> PyTree:
        """The arguments of the equation."""
        return self.boxes.args

    @property
    def parameters(self) -> Float[Array, " q"]:
        """Unknown numbers of the equation that are solved for: none."""
        return self.boxes.parameters

    @property
    def coefficients(self) -> Float[Array, "N K_dim d"]:
        """Those of all elements."""
        return self.boxes.coefficients

    @property
    def width(self) -> int:
        """Polynomials in each coordinate."""
        return self.boxes.width

    @property
    def count(self) -> int:
        """Number of elements of all windows."""
        return self.boxes.count

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        return self.boxes.numbers

    @property
    def ends(self) -> Float[np.ndarray, " W_1"]:
        """Ends of the windows."""
        low, high = self.boxes.corners
        return np.unique(np.concatenate([low[:, 0], high[:, 0]]))

    @property
    def extent(self) -> str:
        """Where it is defined, for messages."""
        return self.boxes.extent

    def __call__(self, p: Float[Array, "3"]) -> PyTree[Array]:
        """Evaluate at one point (t, x, y)."""
        if jnp.shape(p) != (3,):
            raise BadTypeError(
                f"u of pde takes a point (t, x, y) of shape (3,), got {jnp.shape(p)}."
            )
        return self.boxes(p)

    def derivatives(
        self, p: Float[Array, "3"], orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives by t, x and y of the given orders at one point."""
        return self.boxes.derivatives(p, orders)

    def jumps(self, p: Float[Array, "3"]) -> Float[Array, " n"]:
        """Jumps at the start of the window and the lower sides of the element of a point.

        In units of u: derivatives are multiplied by powers of the lengths. There are none at the
        start of the first window and at the boundary.
        """
        return self.boxes.jumps(p, most=(self.order, None, None))


def stack_elements(
    low: Float[np.ndarray, "N dim"],
    high: Float[np.ndarray, "N dim"],
    coefficients: Float[np.ndarray, "N K_dim d"],
    *,
    width: int,
    smooth: tuple[int, ...],
    scalar: bool,
    unravel: Callable[[Array], PyTree],
    parameters: Float[Array, " q"],
    arguments: Callable[[Array], PyTree],
) -> SpacePieces:
    """Put elements into a model whose capacity is a power of two, and not small.

    Models of nearly as many elements then share what is compiled for them, and most solutions share
    it with the guess that they begin with.
    """
    dtype = jnp.result_type(float)
    spare = (1 << max(6, (len(low) - 1).bit_length())) - len(low)
    padded = lambda item, value: np.pad(  # noqa: E731
        item, [(0, spare), *[(0, 0)] * (item.ndim - 1)], constant_values=value
    )
    return SpacePieces(
        jnp.asarray(padded(low, np.inf), dtype),
        jnp.asarray(padded(high, np.inf), dtype),
        jnp.asarray(padded(coefficients, 0.0), dtype),
        width,
        smooth,
        scalar,
        unravel,
        parameters,
        arguments,
    )
