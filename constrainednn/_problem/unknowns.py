"""Unknown numbers of an inverse problem, and the arguments of an equation that hold some."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_real, as_reals
from constrainednn._common.messages import shown
from constrainednn.errors import BadValueError

_TENFOLD = math.log(10.0)
# Next to a bound: e-folds below one whose square is a normal number; at the top of a logit, where
# the difference to one still has digits.
_NEXT, _NEXT_ABOVE = 230.0, 30.0


class Unknown(eqx.Module):
    """A number, or an array of numbers, that is estimated from data.

    Write it in the place of the number: in `args` of `ivp`, or as a leaf of a model, where a
    residual reads `value`. What is trained is `raw`, which no bound stops::

        bounds        value                              raw
        none          raw                                the value
        low           low + exp(raw)                     the logarithm of the distance
        high          high - exp(raw)                    the same
        both          low + (high - low) / (1 + e^-raw)  the logit

    so that `low=0` is a logarithmic scale.

    Args:
        start: First value, inside of the bounds.
        low: Lower bound.
        high: Upper bound.

    Raises:
        TypeError, ValueError: If a bound excludes the start, or a number is not finite.
    """

    raw: Float[Array, "..."]
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, start: Any, *, low: float = -math.inf, high: float = math.inf):
        value = as_reals(start, "start of Unknown").astype(float)
        self.low, self.high = as_real(low, "low of Unknown"), as_real(high, "high of Unknown")
        if not self.low < self.high:
            raise BadValueError(
                f"low of Unknown must be below high, got low={self.low:g} and high={self.high:g}."
            )
        if not np.isfinite(value).all():
            raise BadValueError(f"start of Unknown must be finite, got {shown(value.tolist())}.")
        if not (self.low < value).all() or not (value < self.high).all():
            raise BadValueError(
                f"start of Unknown must lie between low={self.low:g} and high={self.high:g}, got "
                f"{shown(value.tolist())}. On a bound there is no way in."
            )
        below, above = math.isfinite(self.low), math.isfinite(self.high)
        if below and above:
            raw = np.log(value - self.low) - np.log(self.high - value)
        elif below:
            raw = np.log(value - self.low)
        elif above:
            raw = np.log(self.high - value)
        else:
            raw = value
        self.raw = jnp.asarray(raw, jnp.result_type(float))

    @property
    def value(self) -> Float[Array, "..."]:
        """The number itself."""
        return self.at(self.raw)

    def at(self, raw: Float[Array, "..."]) -> Float[Array, "..."]:
        """The number for other trained values."""
        below, above = math.isfinite(self.low), math.isfinite(self.high)
        if below and above:
            return self.low + (self.high - self.low) * jax.nn.sigmoid(raw)
        if below:
            return self.low + jnp.exp(raw)
        if above:
            return self.high - jnp.exp(raw)
        return raw

    @property
    def bounded(self) -> bool:
        """True if there is a bound."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def unit(self, raw: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """A change of `raw` that is as large as the number: one where it is a logarithm."""
        return np.ones_like(raw) if self.bounded else np.abs(raw)

    def reach(
        self, raw: Float[np.ndarray, "..."], sign: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """How far the bound is in the direction `sign` of `raw`, divided by the number's slope.

        The change of `raw` that would lead to the bound if the number were linear in it; infinite
        where there is no bound.
        """
        if math.isfinite(self.low) and math.isfinite(self.high):
            return 1 + np.exp(-sign * raw)
        return np.where((sign < 0) & self.bounded, 1.0, np.inf)

    def off_the_bounds(self, raw: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The nearest trained values at which the number changes with them in its last digits."""
        if not self.bounded:
            return raw
        both = math.isfinite(self.low) and math.isfinite(self.high)
        return np.clip(raw, -_NEXT, _NEXT_ABOVE if both else np.inf)


def is_unknown(node: Any) -> bool:
    """True for an `Unknown`."""
    return isinstance(node, Unknown)


def unknowns_of(tree: PyTree) -> dict[str, Unknown]:
    """The unknowns in a tree, by the names of their places."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_unknown)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".") or "args": node
        for path, node in found
        if is_unknown(node)
    }


def entry_names(unknowns: dict[str, Unknown]) -> list[str]:
    """A name for every number: "rate", or "rate[0, 1]" for an entry of an array."""
    names = []
    for name, item in unknowns.items():
        for index in np.ndindex(item.raw.shape):
            names.append(f"{name}[{', '.join(map(str, index))}]" if index else name)
    return names


def each(
    z: Float[np.ndarray, " q"], unknowns: dict[str, Unknown]
) -> list[tuple[Unknown, Float[np.ndarray, " k"]]]:
    """Each unknown with its part of the trained values."""
    ends = np.cumsum([item.raw.size for item in unknowns.values()])
    return list(zip(unknowns.values(), np.split(z, ends[:-1]), strict=True))


def units(raw: Float[np.ndarray, " q"], unknowns: dict[str, Unknown]) -> Float[np.ndarray, " q"]:
    """Changes of all trained values that are as large as the numbers."""
    return np.concatenate([item.unit(at) for item, at in each(raw, unknowns)])


def limits(unknowns: dict[str, Unknown]) -> Float[np.ndarray, " q"]:
    """Largest change of each trained value in one step: tenfold where it is a logarithm."""
    return np.concatenate(
        [np.full(item.raw.size, _TENFOLD if item.bounded else np.inf) for item in unknowns.values()]
    )


def reaches(
    raw: Float[np.ndarray, " q"], sign: Float[np.ndarray, " q"], unknowns: dict[str, Unknown]
) -> Float[np.ndarray, " q"]:
    """`Unknown.reach` of all trained values."""
    parts = zip(each(raw, unknowns), each(sign, unknowns), strict=True)
    with np.errstate(over="ignore"):
        return np.concatenate([item.reach(at, to) for (item, at), (_, to) in parts])
