"""Germs: polynomials around a point in place of the model, to learn what a residual sees of it.

A residual that looks at u near its point only is a function of some derivatives of u there. Called
with a polynomial in place of u and differentiated by its coefficients, it tells which, and in what
combination; so the derivative of the residual by the coefficients of any local basis is a small
matrix at each point times the tables of that basis.

Symbols::

    symbol  shape       meaning
    dim     int         dimension of a point
    D       (a, dim)    orders of the derivatives that are seen, by each coordinate
    v       (n, a, d)   values of these derivatives at n points
    r       (n, e)      residuals there
    G       (n, e, a, d) derivative of r by v
    z       (q,)        unknown numbers of the equation
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._common.compilation.indices import refuse_indices
from constrainednn._common.devices import device_count, shared_out
from constrainednn._problem.equation_arguments import TracedArguments
from constrainednn.errors import ProblemError

Orders = tuple[tuple[int, ...], ...]

# Points in one call of the compiled residual: whatever the mesh, it is compiled once.
_CHUNK = 4096


class Germ(eqx.Module):
    """A polynomial around a point, called like the model.

    Attributes:
        v: Its derivatives at the point.
        at: The point.
        orders: Their orders.
        unravel: From a vector of shape (d,) to the structure of the model's value.
        args: The arguments of the equation.
    """

    v: Float[Array, "a d"]
    at: Float[Array, " dim"]
    orders: Orders = eqx.field(static=True)
    unravel: Callable[[Array], PyTree]
    args: PyTree

    def __call__(self, p: Float[Array, " dim"]) -> PyTree[Array]:
        """Evaluate at a point."""
        orders = np.array(self.orders)
        basis = jnp.ones(len(orders), self.v.dtype)
        for i, dp in enumerate(p - self.at):
            powers = [jnp.ones_like(dp)]
            for k in range(1, orders[:, i].max() + 1):
                powers.append(powers[-1] * dp / k)
            basis = basis * jnp.stack(powers)[orders[:, i]]
        return self.unravel(basis @ self.v)


class LocalResidual(eqx.Module):
    """A residual as a function of the derivatives that it sees.

    Attributes:
        fn: The residual of the model and a point.
        unravel: From a vector of shape (d,) to the structure of the model's value.
        orders: Orders of the derivatives that it sees.
        highest: For each component the highest derivative by each coordinate.
        equations: Its number of entries.
        arguments: From the unknowns of the equation to its arguments, `args` of the model.
        unknowns: Their values.
    """

    fn: Callable[[Any, Any], Any]
    unravel: Callable[[Array], PyTree]
    orders: Orders = eqx.field(static=True)
    highest: Orders = eqx.field(static=True)
    equations: int = eqx.field(static=True)
    arguments: TracedArguments
    unknowns: Float[Array, " q"]

    def order(self, i: int) -> int:
        """The highest derivative by coordinate `i`."""
        return max(orders[i] for orders in self.highest)

    def at(self, v: Float[Array, "a d"], p: Float[Array, " dim"]) -> Float[Array, " e"]:
        """The residual at one point."""
        germ = Germ(v, p, self.orders, self.unravel, self.arguments(self.unknowns))
        return ravel_pytree(self.fn(germ, p))[0]

    def given(self, unknowns: Float[Array, " q"]) -> "LocalResidual":
        """The same for other values of the unknowns."""
        return dataclasses.replace(self, unknowns=unknowns)

    def values(
        self, v: Float[np.ndarray, "n a d"], p: Float[np.ndarray, "n dim"]
    ) -> Float[np.ndarray, "n e"]:
        """Residuals at many points."""
        return _in_chunks(lambda *chunk: (_values(self, *chunk),), v, p)[0]

    def linearised(
        self, v: Float[np.ndarray, "n a d"], p: Float[np.ndarray, "n dim"]
    ) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "n e a d"]]:
        """Residuals at many points, and G."""
        r, slopes = _in_chunks(lambda *chunk: _linearised(self, *chunk), v, p)
        return r, slopes

    def by_unknowns(
        self, v: Float[np.ndarray, "n a d"], p: Float[np.ndarray, "n dim"]
    ) -> Float[np.ndarray, "n e q"]:
        """Derivatives of the residuals by the unknowns."""
        return _in_chunks(lambda *chunk: (_by_unknowns(self, *chunk),), v, p)[0]


@compiled
def _values(residual: LocalResidual, v: Array, p: Array) -> Array:
    return jax.vmap(residual.at)(v, p)


@compiled
def _linearised(residual: LocalResidual, v: Array, p: Array) -> tuple[Array, Array]:
    return _with_slopes(residual.at, v, p)


@functools.partial(compiled, once=True)
def _tried(residual: LocalResidual, v: Array, p: Array, z: Array) -> tuple[Array, Array]:
    at = lambda v, p, z: residual.given(z).at(v, p)  # noqa: E731
    return _with_slopes(at, v, p, z)


def _with_slopes(at: Callable[..., Array], *where: Array) -> tuple[Array, Array]:
    """Values at many points and derivatives by the first argument, traced once for both."""

    def twice(*one: Array) -> tuple[Array, Array]:
        value = at(*one)
        return value, value

    slopes, values = jax.vmap(jax.jacfwd(twice, has_aux=True))(*where)
    return values, slopes


@compiled
def _by_unknowns(residual: LocalResidual, v: Array, p: Array) -> Array:
    by = jax.jacfwd(lambda z, v, p: residual.given(z).at(v, p))
    return jax.vmap(by, in_axes=(None, 0, 0))(residual.unknowns, v, p)


def _in_chunks(
    fn: Callable[[Array, Array], tuple[Array, ...]], v: np.ndarray, p: np.ndarray
) -> list[np.ndarray]:
    parts = []
    for first in range(0, len(p), _CHUNK):
        count = min(_CHUNK, len(p) - first)
        # The last chunk is filled with its last point.
        index = first + np.minimum(np.arange(_CHUNK), count - 1)
        given = (_placed(v[index]), _placed(p[index]))
        parts.append([np.asarray(out)[:count] for out in fn(*given)])
    return [np.concatenate(items) for items in zip(*parts, strict=True)]


def _placed(x: np.ndarray) -> Array:
    """On one device as ever; on several a share of the points on each, if they can be shared."""
    several = device_count() > 1 and len(x) % device_count() == 0
    return shared_out(x.astype(jnp.result_type(float))) if several else jnp.asarray(x)


def unabridged(residual: LocalResidual, highest: tuple[int, ...]) -> LocalResidual:
    """The same, seen through all derivatives that there may be: what it is measured by.

    A term that no germ has shown would be missing from the other, and from all that judges it.
    """
    return dataclasses.replace(residual, orders=_up_to(highest, max(highest)))


def _up_to(highest: tuple[int, ...], total: int) -> Orders:
    ranges = (range(order + 1) for order in highest)
    return tuple(a for a in itertools.product(*ranges) if sum(a) <= total)


def local_residual(
    fn: Callable[[Any, Any], Any],
    unravel: Callable[[Array], PyTree],
    points: Float[np.ndarray, "n dim"],
    values: Float[np.ndarray, "n d"],
    highest: tuple[int, ...],
    name: str,
    arguments: TracedArguments,
    unknowns: Float[Array, " q"],
) -> LocalResidual:
    """Find which derivatives a residual sees, by its derivative at many germs.

    Args:
        fn: The residual.
        unravel: From a vector of shape (d,) to the structure of the model's value.
        points: Where it is tried: a term that vanishes at one of them is seen at another.
        values: Values of u that are likely there. A third of the germs is near them, a third of
            their size, and a third of any.
        highest: Largest order by each coordinate that there may be.
        name: Of the residual, for messages.
        arguments: From the unknowns of the equation to its arguments.
        unknowns: Their first values; others are tried, too.

    Raises:
        ProblemError: If it sees derivatives of higher order, looks away from its point, does not
            depend on u, or is NaN wherever it was tried.
    """
    orders = _up_to(tuple(order + 1 for order in highest), max(highest) + 1)
    whole = LocalResidual(fn, unravel, orders, (), 0, arguments, unknowns)
    rng, n = np.random.default_rng(0), len(points)
    # An unknown that is zero hides its term: half of the germs are tried with others.
    shift = rng.normal(size=(n, unknowns.size)) * (np.arange(n) % 2)[:, None]
    first = np.asarray(unknowns)[None]
    z = jnp.asarray(first + shift * np.maximum(1, np.abs(first)), unknowns.dtype)
    scales = np.array([1.0, 1e-3, 1e3])[rng.integers(3, size=n)]
    v = rng.normal(size=(n, len(orders), values.shape[1])) * scales[:, None, None]
    size, kind = np.abs(values).max(initial=0.0) or 1.0, np.arange(n) % 3
    zeroth = orders.index((0,) * points.shape[1])
    near = np.where(kind == 0, 1e-3, 1.0)[:, None] * size * rng.normal(size=values.shape)
    v[:, zeroth] = np.where(kind[:, None] < 2, values + near, v[:, zeroth])
    p = jnp.asarray(points, float)
    refuse_indices(jax.make_jaxpr(whole.at)(jnp.asarray(v[0]), p[0]).jaxpr, name)
    r, slopes = map(np.asarray, _tried(whole, jnp.asarray(v), p, z))
    if not r.size:
        raise ProblemError(f"{name} returns nothing: it must return a number for each equation.")
    # Roots and logarithms are defined at some germs only.
    sound = np.isfinite(r).all(axis=1) & np.isfinite(slopes).all(axis=(1, 2, 3))
    if not sound.any():
        raise ProblemError(
            f"{name} or its derivative by u is NaN or infinite wherever it was tried, at the "
            "values of the start among others."
        )
    seen = np.abs(slopes[sound]).max(axis=(0, 1)) > 0
    for index in zip(*np.nonzero(~seen), strict=True):  # a condition on it has no slope
        without = v.copy()
        without[:, *index] = 0
        other = np.asarray(_tried(whole, jnp.asarray(without), p, z)[0])
        seen[index] = (other[sound] != r[sound]).any()
    found = tuple(a for a, is_seen in zip(orders, seen.any(axis=1), strict=True) if is_seen)
    if not found:
        raise ProblemError(f"{name} does not depend on u.")
    beyond = [a for a in found if any(k > most for k, most in zip(a, highest, strict=True))]
    if beyond or max(map(sum, found)) > max(highest):
        raise ProblemError(
            f"{name} sees derivatives of order {beyond[0] if beyond else found[-1]} by the "
            f"coordinates of its point; elements have at most {highest}. Does it evaluate u away "
            "from its point, as an integral over space does? What it may use is u and its "
            "derivatives at that point."
        )
    table = np.array(found)
    by_component = tuple(
        tuple(np.where(column[:, None], table, 0).max(axis=0).tolist())
        for column in seen[seen.any(axis=1)].T
    )
    return dataclasses.replace(whole, orders=found, highest=by_component, equations=slopes.shape[1])
