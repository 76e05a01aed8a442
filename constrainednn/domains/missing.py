"""Missing values: NaN among the values of `Data`, which count nowhere."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree


def missing_values(rows: PyTree[np.ndarray]) -> tuple[int, Bool[np.ndarray, " n"]]:
    """How many values are missing, and the rows of which all are."""
    values = jax.tree.leaves(rows[1:]) if isinstance(rows, tuple) else []
    n = len(jax.tree.leaves(rows)[0])
    gone = [np.isnan(leaf.reshape(n, -1)) for leaf in values]
    if not gone:
        return 0, np.zeros(n, bool)
    every = np.concatenate(gone, axis=1)
    return int(every.sum()), np.asarray(every.all(axis=1))


class Present(eqx.Module):
    """A residual whose entries are zero, with zero derivative, where a missing value enters.

    An entry is missing where NaN among the values makes it NaN and an ordinary value does not. Each
    is evaluated with the ordinary value, so that no derivative meets NaN.

    Attributes:
        residual: The user's residual.
        usual: A row of ordinary values: means of what was observed.
    """

    residual: Callable[[Any, Any], Any]
    usual: PyTree[np.ndarray]

    def __init__(self, residual: Callable[[Any, Any], Any], rows: PyTree[np.ndarray]):
        self.residual = residual
        self.usual = jax.tree.map(_mean, rows)

    def __call__(self, u: Any, row: Any) -> Array:
        """Evaluate at one row."""
        filled, missing = self._filled(u, row)
        return jnp.where(missing, jnp.zeros_like(filled), filled)

    def observed(self, u: Any, row: Any) -> Array:
        """One for each entry at one row that is there, zero for a missing one."""
        filled, missing = self._filled(u, row)
        return jnp.where(missing, jnp.zeros_like(filled), jnp.ones_like(filled))

    def _filled(self, u: Any, row: Any) -> tuple[Array, Array]:
        fill = lambda value, usual: jnp.where(  # noqa: E731
            jnp.isnan(value), jnp.asarray(usual, jnp.result_type(value)), value
        )
        filled = jnp.asarray(self.residual(u, jax.tree.map(fill, row, self.usual)))
        given = jnp.asarray(self.residual(u, row))
        return filled, jnp.isnan(given) & ~jnp.isnan(filled)


def _mean(leaf: np.ndarray) -> np.ndarray:
    """Mean over the rows of each value, over all values where one was never observed, or one."""
    seen = np.isfinite(leaf)
    every = float(leaf[seen].mean()) if seen.any() else 1.0
    count = seen.sum(axis=0)
    total = np.where(seen, leaf, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), every))
