"""Domains: probability measures, each a map from the unit cube that preserves the measure.

D domains and S samplers make D + S pieces of code: a domain says where a cube point goes, a
sampler says which cube points there are. `Points` and `Data` are finite sets, not measures.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from constrainednn._common.arguments import as_arrays, as_function
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError

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

    @property
    def by_rejection(self) -> bool:
        """True if some points of the cube are not placed in the domain, and are drawn anew."""
        return False

    def accepts(self, z: Float[Array, " unit_dim"]) -> Bool[Array, ""]:
        """Whether `place` sends a point of the cube into the domain."""
        del z
        return jnp.asarray(True)

    def map(self, fn: Callable[[Any], PyTree[Array]]) -> "Mapped":
        """Push the measure forward through `fn`, which takes and returns one point."""
        return Mapped(self, fn)

    def __mul__(self, other: "AbstractDomain") -> "Product":
        """Form the product measure; points are concatenated."""
        return Product(self, other)


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
            point = placed(factor)
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

    @property
    def by_rejection(self) -> bool:
        """True if a factor is."""
        return any(factor.by_rejection for factor in self.factors)

    def accepts(self, z: Float[Array, " unit_dim"]) -> Bool[Array, ""]:
        """Whether all factors do."""
        return jnp.stack([factor.accepts(own) for factor, own in self._shares(z)]).all()

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Place each factor on its own cube coordinates."""
        return jnp.concatenate(
            [jnp.atleast_1d(factor.place(own)) for factor, own in self._shares(z)]
        )

    def _shares(self, z: Float[Array, " unit_dim"]) -> list[tuple[AbstractDomain, Array]]:
        """Each factor with its cube coordinates."""
        ends = np.cumsum([factor.unit_dim for factor in self.factors])[:-1]
        return list(zip(self.factors, jnp.split(z, ends), strict=True))


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

    @property
    def by_rejection(self) -> bool:
        """That of the base."""
        return self.base.by_rejection

    def accepts(self, z: Float[Array, " unit_dim"]) -> Bool[Array, ""]:
        """Whether the base does."""
        return self.base.accepts(z)

    def place(self, z: Float[Array, " unit_dim"]) -> PyTree[Array]:
        """Place in the base, then map."""
        return as_arrays(self.fn(self.base.place(z)), f"what {_name_of(self.fn)} returns in map")

    def __repr__(self) -> str:
        return f"{self.base!r}.map({_name_of(self.fn)})"


def picked(z: Float[Array, ""], content: Float[np.ndarray, " n"]) -> tuple[Array, Float[Array, ""]]:
    """A part for a number between zero and one, and the number's place within its share."""
    ends = np.concatenate([[0.0], np.cumsum(content / content.sum())])
    # Counting ends below z stays inside 0 .. n - 1, where a search could step out.
    part = jnp.sum(z >= jnp.asarray(ends[1:-1], z.dtype))
    first, last = jnp.asarray(ends[:-1], z.dtype)[part], jnp.asarray(ends[1:], z.dtype)[part]
    return part, jnp.clip((z - first) / (last - first), 0, 1)


def _name_of(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def placed(domain: AbstractDomain) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of one point, found without computing it."""
    dtype = jnp.result_type(float)
    return jax.eval_shape(domain.place, jax.ShapeDtypeStruct((domain.unit_dim,), dtype))
