"""A model made of pieces in space and time: windows in time, each with elements of its own.

Symbols::

    symbol  shape        meaning
    s       ()           scaled place in an element, from -1 to 1; tau the same in a window
    p_k     ()           orthonormal Legendre polynomials, sqrt(k + 1/2) P_k
    c       (Kt, Kx, d)  coefficients: u = sum_ij c_ij p_i(tau) p_j(s)
    W, E    int          windows; elements of one of them
"""

import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from constrainednn.domains.base import end_slack
from constrainednn.errors import BadTypeError
from constrainednn.models.legendre import differentiation, orthonormal
from constrainednn.models.pieces import widened


class SpaceTimePieces(eqx.Module):
    """A function of (t, x), a polynomial on each element of each window; what `pde` trains.

    Outside of all pieces, by more than rounding, its value is NaN.

    Attributes:
        times: Ends of the windows, padded with infinities.
        nodes: Ends of the elements of each window, padded with infinities.
        first: Where the coefficients of each window begin.
        coefficients: Those of all elements, window after window.
        order: Number of derivatives by t, the value among them, that windows share.
        smooth: The same by x, that elements share at a node.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        parameters: Unknown numbers of the equation that are solved for, if there are any.
        arguments: From `parameters` to the arguments of the equation.
    """

    times: Float[Array, " W_1"]
    nodes: Float[Array, "W E_1"]
    first: Int[Array, " W"]
    coefficients: Float[Array, "N Kt Kx d"]
    order: int = eqx.field(static=True)
    smooth: int = eqx.field(static=True)
    unravel: Callable[[Array], PyTree]
    parameters: Float[Array, " q"]
    arguments: Callable[[Array], PyTree]

    @property
    def args(self) -> PyTree:
        """The arguments of the equation with what was found for the unknown ones."""
        return self.arguments(self.parameters)

    def __call__(self, p: Float[Array, "..."]) -> PyTree[Array]:
        """Evaluate at one point (t, x)."""
        if jnp.shape(p) != (2,):
            raise BadTypeError(f"u of pde takes a point (t, x) of shape (2,), got {jnp.shape(p)}.")
        return self.unravel(self.derivatives(p, [(0, 0)])[0])

    def derivatives(
        self, p: Float[Array, "2"], orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives by t and x of the given orders at one point."""
        t, x = p[0], p[1]
        window = _place_of(self.times, t)
        element = _place_of(self.nodes[window], x)
        value = self._on(window, element, t, x, orders)
        low, high = self.times[0], _last(self.times)
        left, right = self.nodes[0, 0], _last(self.nodes[0])
        inside = _within(t, low, high) & _within(x, left, right)
        return jnp.where(inside, value, jnp.nan)

    def jumps(self, p: Float[Array, "2"]) -> Float[Array, " n"]:
        """Jumps at the start of the window that a point lies in, and at the left of its element.

        In units of u: derivatives are multiplied by powers of the lengths of window and element.
        There are none at the start of the first window and at the left end of space.
        """
        t, x = p[0], p[1]
        window = _place_of(self.times, t)
        before = jnp.maximum(window - 1, 0)
        start = self.times[window]
        element = _place_of(self.nodes[window], x)
        old = _place_of(self.nodes[before], x)
        node = self.nodes[window, element]
        left = jnp.maximum(element - 1, 0)
        # All at once, since this is most of a program: those beyond the smoothness are not used.
        orders = [(k, 0) for k in range(self.order)] + [(0, k) for k in range(self.smooth)]
        now, then, here, there = jax.vmap(functools.partial(self._on, orders=orders))(
            jnp.stack([window, before, window, window]),
            jnp.stack([element, old, element, left]),
            jnp.stack([start, start, t, t]),
            jnp.stack([x, x, node, node]),
        )
        scale = (self.times[window + 1] - start) ** jnp.arange(self.order)[:, None]
        in_time = jnp.where(window > 0, scale * (now - then)[: self.order], 0)
        size = self.nodes[window, element + 1] - node
        scale = size ** jnp.arange(self.smooth)[:, None]
        in_space = jnp.where(element > 0, scale * (here - there)[self.order :], 0)
        return jnp.concatenate([in_time.ravel(), in_space.ravel()])

    def over_space(
        self, t: Float[Array, ""], places: Float[np.ndarray, " m"], orders: Sequence[tuple]
    ) -> tuple[Float[Array, "E m"], Float[Array, " E"], Float[Array, "E m a d"]]:
        """At one time, on all elements: places there, lengths, and derivatives of u.

        Padding is the first element again, with no length.
        """
        window = _place_of(self.times, t)
        ends = self.nodes[window]
        element = jnp.arange(len(ends) - 1)
        real = jnp.isfinite(ends[1:])
        element = jnp.where(real, element, 0)
        halves = (ends[element + 1] - ends[element]) / 2
        half_t = (self.times[window + 1] - self.times[window]) / 2
        c = self.coefficients[self.first[window] + element]
        along_t = orthonormal((t - self.times[window]) / half_t - 1, c.shape[1])
        in_t, in_x = (differentiation(K) for K in c.shape[1:3])
        table = np.polynomial.legendre.legvander(places, c.shape[2] - 1)
        table = table * np.sqrt(np.arange(c.shape[2]) + 0.5)
        values = []
        for a, b in orders:
            row = along_t @ jnp.asarray(np.linalg.matrix_power(in_t, a), c.dtype)
            columns = jnp.asarray(table @ np.linalg.matrix_power(in_x, b), c.dtype)
            size = halves[:, None, None] ** b
            values.append(jnp.einsum("i,mj,eijd->emd", row, columns, c) / half_t**a / size)
        x = ends[element][:, None] + halves[:, None] * (places[None] + 1)
        return x, jnp.where(real, 2 * halves, 0), jnp.stack(values, axis=-2)

    def seam(self, t: Float[Array, ""]) -> Float[Array, " n"]:
        """Differences between the right and the left end of space, in units of u as in `jumps`."""
        window = _place_of(self.times, t)
        nodes = self.nodes[window]
        last = jnp.sum(jnp.isfinite(nodes)) - 2
        orders = [(0, k) for k in range(self.smooth)]
        left = self._on(window, jnp.zeros_like(last), t, nodes[0], orders)
        right = self._on(window, last, t, nodes[last + 1], orders)
        size = jnp.minimum(nodes[1] - nodes[0], nodes[last + 1] - nodes[last])
        return jnp.ravel(size ** jnp.arange(self.smooth)[:, None] * (right - left))

    def _on(
        self, window: Array, element: Array, t: Array, x: Array, orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives of the polynomial of one element, wherever the point lies."""
        c = self.coefficients[self.first[window] + element]
        half_t = (self.times[window + 1] - self.times[window]) / 2
        half_x = (self.nodes[window, element + 1] - self.nodes[window, element]) / 2
        along_t = orthonormal((t - self.times[window]) / half_t - 1, c.shape[0])
        along_x = orthonormal((x - self.nodes[window, element]) / half_x - 1, c.shape[1])
        in_t, in_x = (differentiation(K) for K in c.shape[:2])
        values = []
        for a, b in orders:
            row = along_t @ jnp.asarray(np.linalg.matrix_power(in_t, a), c.dtype)
            column = along_x @ jnp.asarray(np.linalg.matrix_power(in_x, b), c.dtype)
            values.append(jnp.einsum("i,j,ijd->d", row, column, c) / half_t**a / half_x**b)
        return jnp.stack(values)

    @property
    def count(self) -> int:
        """Number of windows."""
        return int(np.isfinite(np.asarray(self.times)).sum()) - 1

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        elements = int(np.isfinite(np.asarray(self.nodes)[: self.count]).sum()) - self.count
        return elements * math.prod(self.coefficients.shape[1:]) + self.parameters.size

    @property
    def ends(self) -> Float[np.ndarray, " W_1"]:
        """Times without the padding."""
        return np.asarray(self.times)[: self.count + 1]

    def elements(self, window: int) -> Float[np.ndarray, " E_1"]:
        """Ends of the elements of a window."""
        nodes = np.asarray(self.nodes)[window]
        return nodes[np.isfinite(nodes)]

    @property
    def extent(self) -> str:
        """Where it is defined, for messages."""
        (t0, t1), (x0, x1) = self.ends[[0, -1]], self.elements(0)[[0, -1]]
        return f"the box of t in [{t0:g}, {t1:g}] and x in [{x0:g}, {x1:g}]"

    def ordinary(self, further: float) -> "SpaceTimePieces":
        """Before training, one window: with values between one and two, and wider by so much."""
        d = self.coefficients.shape[3]
        # p_0 in both directions is the root of a half.
        c = jnp.zeros_like(self.coefficients).at[:, 0, 0].set(2 * jnp.linspace(1.0, 2.0, d))
        times = widened(self.times, self.count, further)
        nodes = jax.vmap(lambda ends: widened(ends, len(self.elements(0)) - 1, further))(self.nodes)
        return eqx.tree_at(lambda u: (u.coefficients, u.times, u.nodes), self, (c, times, nodes))

    def pieces(self) -> tuple[list[Float[np.ndarray, " _"]], list[Float[np.ndarray, "_ Kt Kx d"]]]:
        """Ends of the elements of each window, and their coefficients."""
        first, c = np.asarray(self.first), np.asarray(self.coefficients)
        edges = [self.elements(w) for w in range(self.count)]
        counts = [len(ends) - 1 for ends in edges]
        return edges, [c[i : i + n] for i, n in zip(first, counts, strict=False)]


def stack_windows(
    times: Sequence[float],
    nodes: Sequence[Float[np.ndarray, " _"]],
    coefficients: Sequence[Float[np.ndarray, "_ Kt Kx d"]],
    *,
    order: int,
    smooth: int,
    unravel: Callable[[Array], PyTree],
    parameters: Float[Array, " q"],
    arguments: Callable[[Array], PyTree],
) -> SpaceTimePieces:
    """Put windows into a model whose capacities are powers of two, and not small.

    Models of nearly as many pieces then share what is compiled for them, and most solutions share
    it with the guess that they begin with.
    """
    dtype = jnp.result_type(float)
    counts = np.array([len(c) for c in coefficients])
    windows, wide = _power(max(32, len(counts))), _power(max(32, int(counts.max())))
    table = np.full((windows, wide + 1), np.inf)
    for row, ends in zip(table, nodes, strict=False):
        row[: len(ends)] = ends
    joined = np.concatenate(list(coefficients))
    spare = np.zeros((_power(max(256, len(joined))) - len(joined), *joined.shape[1:]))
    first = np.zeros(windows, int)
    first[: len(counts)] = np.cumsum(counts) - counts
    return SpaceTimePieces(
        jnp.asarray(np.concatenate([times, np.full(windows + 1 - len(times), np.inf)]), dtype),
        jnp.asarray(table, dtype),
        jnp.asarray(first),
        jnp.asarray(np.concatenate([joined, spare]), dtype),
        order,
        smooth,
        unravel,
        parameters,
        arguments,
    )


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _place_of(ends: Float[Array, " n_1"], x: Float[Array, ""]) -> Int[Array, ""]:
    """Number of the piece that a place lies in, the nearest if in none."""
    index = jnp.searchsorted(ends, x, side="right") - 1
    return jnp.clip(index, 0, jnp.sum(jnp.isfinite(ends)) - 2)


def _last(ends: Float[Array, " n_1"]) -> Float[Array, ""]:
    return jnp.max(jnp.where(jnp.isfinite(ends), ends, -jnp.inf))


def _within(x: Array, low: Array, high: Array) -> Array:
    slack = end_slack(jnp.maximum(jnp.abs(low), jnp.abs(high)), x.dtype)
    return (x >= low - slack) & (x <= high + slack)
