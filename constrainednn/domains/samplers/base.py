"""What a sampler is, and the points that it draws."""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn.domains.base import AbstractDomain

Cube = Float[np.ndarray, "n unit_dim"]
Shares = Float[np.ndarray, " n"]


class AbstractSampler(eqx.Module):
    """A way to fill the unit cube of a domain with weighted points."""

    @abc.abstractmethod
    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Return `n` cube points of shape (n, domain.unit_dim) and weights that sum to one."""

    @property
    def random(self) -> bool:
        """True if another key gives other points, so that a redraw makes sense."""
        return True

    @property
    def fills_cube(self) -> bool:
        """True if its points are placed with regard to each other, so that it needs all the cube.

        Such a sampler is refused for a domain whose points are drawn by rejection.
        """
        return True


class Draw(eqx.Module):
    """Points of one constraint with their cube coordinates and weights.

    Attributes:
        points: The points, stacked along the first axis.
        weights: Quadrature weights, which sum to one.
        cube: Cube coordinates, or None for a finite set.
    """

    points: PyTree[np.ndarray]
    weights: Float[np.ndarray, " n"]
    cube: Float[np.ndarray, "n unit_dim"] | None

    def __len__(self) -> int:
        return len(self.weights)


def equal(n: int) -> np.ndarray:
    """Equal weights of n points."""
    return np.full(n, 1 / max(n, 1), jnp.result_type(float))
