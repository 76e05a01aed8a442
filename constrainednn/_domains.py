"""Domains: probability measures, each a map from the unit cube that preserves the measure.

D domains and S samplers make D + S pieces of code: a domain says where a cube point goes, a
sampler says which cube points there are. `Points` and `Data` are finite sets, not measures.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from constrainednn._errors import BadTypeError, BadValueError
from constrainednn._missing import missing_values
from constrainednn._validate import (
    as_arrays,
    as_count,
    as_function,
    as_positive,
    as_real,
    as_reals,
    as_seed,
    leaves_of,
    shown,
)

GaussRule = Literal["legendre", "hermite"]
Corner = Sequence[float] | np.ndarray

# Sums such as 0.1 + 0.2, or the places of numpy.arange, miss an end by so many units.
_LAST_PLACES = 4


def end_slack(size: Any, dtype: Any) -> Any:
    """What a point may lie beyond an end of an interval of numbers of that size, and be the end."""
    return _LAST_PLACES * float(jnp.finfo(dtype).eps) * size


class AbstractDomain(eqx.Module):
    """A probability measure given by a measure-preserving map from the unit cube.

    A subclass of your own needs `unit_dim` and `place`; `constrainednn.testing.check_domain` says
    whether it keeps the contract.
    """

    @property
    @abc.abstractmethod
    def unit_dim(self) -> int:
        """Dimension of the unit cube that `place` maps from."""

    @abc.abstractmethod
    def place(self, z: Float[Array, " unit_dim"]) -> PyTree[Array]:
        """Map one point `z` of the open unit cube to a point of the domain."""

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """The Gauss rule that suits each cube coordinate, None where there is none."""
        return (None,) * self.unit_dim

    @property
    def unbounded(self) -> bool:
        """True if points run to infinity at the faces of the cube."""
        return True

    def map(self, fn: Callable[[Any], PyTree[Array]]) -> "Mapped":
        """Push the measure forward through `fn`, which takes and returns one point."""
        return Mapped(self, fn)

    def __mul__(self, other: "AbstractDomain") -> "Product":
        """Form the product measure; points are concatenated."""
        return Product(self, other)


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


class Normal(AbstractDomain):
    """Independent standard normal coordinates, N(0, I). Points have shape (dim,)."""

    dim: int

    def __init__(self, dim: int):
        self.dim = as_count(dim, "dim of Normal")

    @property
    def unit_dim(self) -> int:
        """The dimension of the space."""
        return self.dim

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Hermite in each coordinate."""
        return ("hermite",) * self.dim

    def place(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Apply the normal quantile function."""
        return jax.scipy.special.ndtri(z)


class Sphere(AbstractDomain):
    """The surface of a ball around the origin, uniform in area. Points have shape (dim,).

    `dim` is the dimension of the space: `Sphere(2)` is the unit circle. Two and three dimensions
    use the angle and Archimedes' cylinder map, which keep a cube of dimension dim - 1; higher
    ones normalise a normal vector.
    """

    dim: int
    radius: float

    def __init__(self, dim: int, radius: float = 1.0):
        self.dim = as_count(dim, "dim of Sphere", least=2)
        self.radius = as_positive(radius, "radius of Sphere")

    @property
    def unit_dim(self) -> int:
        """One less than the space up to three dimensions, else as many."""
        return self.dim - 1 if self.dim <= 3 else self.dim

    @property
    def unbounded(self) -> bool:
        """False up to three dimensions; above, the faces of the cube have no image."""
        return self.dim > 3

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Map a cube point to the sphere."""
        if self.dim > 3:
            normal = jax.scipy.special.ndtri(z)
            return self.radius * normal / jnp.linalg.norm(normal)
        angle = 2 * jnp.pi * z[0]
        circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        if self.dim == 2:
            return self.radius * circle
        height = 2 * z[1] - 1
        # 1 - height^2 as a product keeps its digits at the poles.
        waist = 2 * jnp.sqrt(z[1] * (1 - z[1]))
        return self.radius * jnp.concatenate([waist * circle, height[None]])


class Ball(AbstractDomain):
    """A ball around the origin with its inside, uniform in volume. Points have shape (dim,)."""

    dim: int
    radius: float

    def __init__(self, dim: int, radius: float = 1.0):
        self.dim = as_count(dim, "dim of Ball", least=2)
        self.radius = as_positive(radius, "radius of Ball")

    @property
    def unit_dim(self) -> int:
        """One for the radius and those of the sphere."""
        return 1 + Sphere(self.dim).unit_dim

    @property
    def unbounded(self) -> bool:
        """As for the sphere."""
        return Sphere(self.dim).unbounded

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Map a cube point to the ball: radius by its quantile, direction on the sphere."""
        return self.radius * z[0] ** (1 / self.dim) * Sphere(self.dim).place(z[1:])


class Product(AbstractDomain):
    """Independent factors side by side: points are concatenated to shape (d1 + d2 + ...,).

    Also written `Interval(0, 1) * Normal(2)`. Scalar points count as one coordinate.
    """

    factors: tuple[AbstractDomain, ...]

    def __init__(self, *factors: AbstractDomain):
        flat: list[AbstractDomain] = []
        for factor in factors:
            if not isinstance(factor, AbstractDomain):
                raise BadTypeError(
                    f"Product takes domains, got {shown(factor)}. "
                    "Finite sets (Points, Data) are no measures and cannot be a factor."
                )
            point = _placed(factor)
            if not (hasattr(point, "ndim") and point.ndim <= 1):
                raise BadTypeError(
                    f"Product concatenates points of shape () or (d,), but {factor!r} has "
                    f"{jax.tree.map(lambda leaf: leaf.shape, point)}."
                )
            flat.extend(factor.factors if isinstance(factor, Product) else [factor])
        if not flat:
            raise BadValueError("Product needs at least one factor, got none.")
        self.factors = tuple(flat)

    @property
    def unit_dim(self) -> int:
        """The sum over the factors."""
        return sum(factor.unit_dim for factor in self.factors)

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Those of the factors."""
        return tuple(rule for factor in self.factors for rule in factor.gauss_rules)

    @property
    def unbounded(self) -> bool:
        """True if a factor is."""
        return any(factor.unbounded for factor in self.factors)

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Place each factor on its own cube coordinates."""
        parts, start = [], 0
        for factor in self.factors:
            stop = start + factor.unit_dim
            parts.append(jnp.atleast_1d(factor.place(z[start:stop])))
            start = stop
        return jnp.concatenate(parts)


class Mapped(AbstractDomain):
    """The measure of `base` pushed forward through `fn`; made by `domain.map(fn)`.

    `Normal(2).map(lambda z: (z[0], 10 * z[0] + 4 + z[1]))` is noisy regression with fresh draws:
    a point is then the pair (x, y).
    """

    base: AbstractDomain
    fn: Callable[[Any], PyTree[Array]]

    def __init__(self, base: AbstractDomain, fn: Callable[[Any], PyTree[Array]]):
        if not isinstance(base, AbstractDomain):
            raise BadTypeError(f"base of Mapped must be a domain, got {shown(base)}.")
        self.base, self.fn = base, as_function(fn, "fn of domain.map(fn)", "lambda x: 2 * x")

    @property
    def unit_dim(self) -> int:
        """That of the base."""
        return self.base.unit_dim

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Those of the base: a rule for the base integrates functions of mapped points too."""
        return self.base.gauss_rules

    @property
    def unbounded(self) -> bool:
        """That of the base."""
        return self.base.unbounded

    def place(self, z: Float[Array, " unit_dim"]) -> PyTree[Array]:
        """Place in the base, then map."""
        return as_arrays(self.fn(self.base.place(z)), f"what {_name_of(self.fn)} returns in map")

    def __repr__(self) -> str:
        return f"{self.base!r}.map({_name_of(self.fn)})"


class Points(eqx.Module):
    """A finite set of points used whole, such as the place of an initial value.

    It contributes to the loss, has no population behind it and therefore no gap.

    Args:
        points: An array, or a pytree of arrays, with the points along the first axis.
    """

    points: PyTree[np.ndarray]

    def __init__(self, points: PyTree):
        self.points = _rows("Points", "points", points)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.points)[0])

    def __repr__(self) -> str:
        return f"Points({len(self)} given)"


class Data(eqx.Module):
    """Observed rows, split at random into training, monitor and held-out rows.

    Constraints over the same rows share one split, so that no row is both: rows with the same x of
    a pair (x, y), or equally many rows.

    Args:
        rows: A pytree of arrays with the rows along the first axis, usually `(x, y)`; a point is
            then the pair `(x_i, y_i)`. NaN among the values, the members of a tuple after the
            first, means "missing": it is left out of sums and standard errors, and counted.
        holdout: Share of the rows that is kept from training, in [0, 1). With 0 all rows are
            trained on, and there is no gap.
        monitor: Share of the rows that are not trained on either, and may steer: early stopping
            goes by them. The held-out rows are the same for every share.
        fold: A pair (i, k): hold out the i-th of k parts instead, i from 0 to k - 1. The parts are
            the same for all i under one seed, and each row is in one of them.
        seed: Seed of the split. Default: that of the run, so that runs under several seeds differ
            in their rows, too.
    """

    rows: PyTree[np.ndarray]
    holdout: float
    monitor: float
    fold: tuple[int, int] | None
    seed: int | None

    def __init__(
        self,
        rows: PyTree,
        *,
        holdout: float = 0.2,
        monitor: float = 0.0,
        fold: tuple[int, int] | None = None,
        seed: int | None = None,
    ):
        self.rows = _rows("Data", "rows", rows, values=True)
        if missing_values(self.rows)[1].all():
            raise BadValueError("Data has no value: all are NaN, which means missing.")
        self.seed = None if seed is None else as_seed(seed)
        self.holdout = as_real(holdout, "holdout of Data")
        self.monitor = as_real(monitor, "monitor of Data")
        n = len(self)
        self.fold = None if fold is None else _fold(fold, n)
        for name, share in (("holdout", self.holdout), ("monitor", self.monitor)):
            if not 0 <= share < 1:
                raise BadValueError(
                    f"{name} of Data must be in [0, 1), got {share:g}. Write e.g. 0.2."
                )
        held, watched = self.heldout_rows, self.monitor_rows
        asked = (held, self.fold is not None or self.holdout), (watched, self.monitor)
        if n - held - watched < 1 or any(share and not count for count, share in asked):
            raise BadValueError(
                f"{self} leaves {max(n - held - watched, 0)} rows for training, {watched} to "
                f"monitor and {held} held out. Each that is asked for needs at least one: give "
                "more rows, change the shares, or write holdout=0 to train without a gap."
            )

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.rows)[0])

    @property
    def heldout_rows(self) -> int:
        """Number of rows kept from training."""
        if self.fold is not None:
            i, k = self.fold
            return (len(self) - i + k - 1) // k
        return round(len(self) * self.holdout)

    @property
    def monitor_rows(self) -> int:
        """Number of rows that may steer, and are not trained on."""
        return round(len(self) * self.monitor)

    def __repr__(self) -> str:
        judging = f"holdout={self.holdout:g}" if self.fold is None else f"fold={self.fold}"
        steering = f", monitor={self.monitor:g}" if self.monitor else ""
        return f"Data({len(self)} rows, {judging}{steering})"


def _fold(fold: Any, n: int) -> tuple[int, int]:
    if not (isinstance(fold, (tuple, list)) and len(fold) == 2):
        raise BadTypeError(f"fold of Data must be a pair (i, k), got {shown(fold)}.")
    i, k = as_count(fold[0], "fold of Data", least=0), as_count(fold[1], "folds of Data", least=2)
    if not i < k <= n:
        raise BadValueError(
            f"fold of Data must be (i, k) with i < k and at most as many parts as the {n} rows, "
            f"got ({i}, {k})."
        )
    return i, k


def _name_of(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _placed(domain: AbstractDomain) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of one point, found without computing it."""
    dtype = jnp.result_type(float)
    return jax.eval_shape(domain.place, jax.ShapeDtypeStruct((domain.unit_dim,), dtype))


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


def _rows(name: str, what: str, tree: PyTree, *, values: bool = False) -> PyTree[np.ndarray]:
    """Arrays with one row a point; NaN may stand in a tuple after its first member, if asked."""
    what = f"{what} of {name}"
    # A list is an array, not a pytree of numbers.
    nested = lambda node: isinstance(node, list)  # noqa: E731
    leaves_of(tree, what, is_leaf=nested)
    arrays = jax.tree.map(lambda leaf: as_reals(leaf, what), tree, is_leaf=nested)
    leaves = jax.tree.leaves(arrays)
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(leaf.ndim == 0 for leaf in leaves):
        raise BadValueError(
            f"{what} must be arrays with one row a point, got shapes {shown(shapes)}. "
            "A single point x is written x[None]."
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise BadValueError(f"{what} must be arrays of equal length, got shapes {shown(shapes)}.")
    if shapes[0][0] == 0:
        raise BadValueError(
            f"{name} is empty: {what} has shapes {shown(shapes)}. Give at least one."
        )
    places = len(jax.tree.leaves(arrays[0])) if values and isinstance(arrays, tuple) else None
    for k, leaf in enumerate(leaves):
        value = places is not None and k >= places
        wrong = np.isinf(leaf) if value else ~np.isfinite(leaf)
        bad = np.flatnonzero(wrong.reshape(len(leaf), -1).any(axis=1))
        if bad.size:
            also = " NaN means missing only among the values y of Data((x, y))." * (not value)
            raise BadValueError(
                f"{what} has {bad.size} rows with {'infinity' if value else 'NaN or infinity'}, "
                f"first at index {bad[:5].tolist()}. Drop or repair them.{also * values}"
            )
    return arrays
