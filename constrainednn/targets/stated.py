"""Targets that a user states: by a parametrisation, by points, as a product of others."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from constrainednn._common.arguments import as_count, as_function, as_reals
from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.targets.sets import AbstractTarget

# Points that a parametrisation is evaluated at, and of which a sample by measure is taken.
_CANDIDATES = 8192


class Manifold(AbstractTarget):
    """A curve, a surface, or what has more dimensions, given by a parametrisation.

    `Manifold(lambda t: jnp.stack([2 * jnp.cos(t), jnp.sin(t)]), over=cx.Interval(0, 6.2832))` is an
    ellipse. Its measure is length, area or volume, not that of the parameters.

    Args:
        fn: From one point of `over` to a point of the set, an array of any shape.
        over: The domain of the parameters; it has as many dimensions as the set.

    Raises:
        TypeError: If one of them is something else.
    """

    fn: Callable[[Any], Array]
    over: AbstractDomain

    def __init__(self, fn: Callable[[Any], Array], *, over: AbstractDomain):
        self.fn = as_function(fn, "fn of Manifold", "lambda t: jnp.stack([jnp.cos(t), jnp.sin(t)])")
        if isinstance(over, type) or not isinstance(over, AbstractDomain):
            raise BadTypeError(
                f"over of Manifold must be a domain of parameters, such as cx.Interval(0, 1), got "
                f"{shown(over)}."
            )
        self.over = over

    @property
    def dimension(self) -> int:
        """That of the parameters."""
        return self.over.unit_dim

    @property
    def spread(self) -> float:
        """By a sample."""
        return _spread(self.sample(_CANDIDATES))

    def sample(self, n: int) -> Float[np.ndarray, "n dim"]:
        """Points at parameters that are drawn, each as often as its surroundings are large."""
        generator = np.random.default_rng(0)
        z = generator.uniform(size=(_CANDIDATES, self.dimension))
        points, sizes = in_blocks(eqx.Partial(_point_and_size, self), z)
        # One start and equal steps through the sum of sizes: more even than independent draws.
        places = (np.arange(n) + generator.uniform()) / n * sizes.sum()
        at = np.searchsorted(np.cumsum(sizes), places)
        return points[np.minimum(at, _CANDIDATES - 1)]


def _point_and_size(target: Manifold, z: Array) -> tuple[Array, Array]:
    """A point of the set, and how large what surrounds it is, relative to the unit cube."""
    fn = lambda z: flat_value(target.fn, target.over.place(z))  # noqa: E731
    J = jax.jacfwd(fn)(z)
    return fn(z), jnp.sqrt(jnp.maximum(jnp.linalg.det(J.T @ J), 0.0))


class Cloud(AbstractTarget):
    """Points, spread evenly over a set that has no formula.

    Args:
        points: Of shape (n, ...), at least five.
        dimension: That of the set, as far as known; a map of lower rank has collapsed.

    Raises:
        TypeError, ValueError: If one of them cannot be right, naming it.
    """

    points: Float[np.ndarray, "n dim"]
    known: int

    def __init__(self, points: Float[ArrayLike, "n ..."], *, dimension: int):
        array = as_reals(points, "points of Cloud").astype(float)
        if array.ndim < 2 or len(array) < 5 or not np.isfinite(array).all():
            raise BadValueError(
                "points of Cloud must be finite numbers of shape (n, ...) with n at least 5, got "
                f"{shown(points)}."
            )
        self.points = array.reshape(len(array), -1)
        self.known = as_count(dimension, "dimension of Cloud", most=self.points.shape[1])

    @property
    def dimension(self) -> int:
        """As given."""
        return self.known

    @property
    def spread(self) -> float:
        """That of the points."""
        return _spread(self.points)

    def sample(self, n: int) -> Float[np.ndarray, "n dim"]:
        """The points, or `n` of them."""
        chosen = np.random.default_rng(0).permutation(len(self.points))[:n]
        return self.points[chosen]


class Product(AbstractTarget):
    """All pairs of values of two or more targets, one after the other: a torus is two circles.

    Args:
        factors: The targets.

    Raises:
        TypeError, ValueError: If there are fewer than two, or one of them has no sample.
    """

    factors: tuple[AbstractTarget, ...]

    def __init__(self, *factors: AbstractTarget):
        if len(factors) < 2 or not all(isinstance(part, AbstractTarget) for part in factors):
            raise BadTypeError(
                "Product takes two or more targets, such as Product(cx.Circle(), cx.Circle()), got "
                f"{shown(factors)}."
            )
        if any(part.sample(1) is None for part in factors):
            raise BadValueError("Product needs targets with a sample, which one of these has not.")
        self.factors = factors

    @property
    def dimension(self) -> int:
        """The sum of theirs."""
        return sum(part.dimension for part in self.factors)

    @property
    def spread(self) -> float:
        """The root of the sum of their squares."""
        return float(np.sqrt(sum(part.spread**2 for part in self.factors)))

    def sample(self, n: int) -> Float[np.ndarray, "n dim"]:
        """Points of each factor, in an order of its own."""
        columns = []
        for place, part in enumerate(self.factors):
            points = np.asarray(part.sample(n))
            order = np.random.default_rng(place).integers(len(points), size=n)
            if len(points) == n:
                order = np.random.default_rng(place).permutation(n)
            columns.append(points[order])
        return np.concatenate(columns, axis=1)


def _spread(points: np.ndarray) -> float:
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
