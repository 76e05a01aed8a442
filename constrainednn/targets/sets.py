"""Targets: sets that a model's values should fill, so that a collapsed map can be told."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float

from constrainednn._common.arguments import as_count, as_positive


class AbstractTarget(eqx.Module):
    """A set in the space of the model's values.

    A constant map can satisfy a constraint with zero loss and zero gap. For a constraint that
    declares its target the gap report compares the image with these numbers.
    """

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """Dimension of the set, the rank of a map onto it if its domain has as many."""

    @property
    @abc.abstractmethod
    def spread(self) -> float:
        """Root mean square distance from the centre of mass, under the uniform measure."""

    def coverage(self, values: Float[np.ndarray, "n ..."]) -> float | None:
        """Share of the set that `values` come near, or None where no such measure is defined."""
        del values
        return None


class Circle(AbstractTarget):
    """A circle around the origin of the plane."""

    radius: float

    def __init__(self, radius: float = 1.0):
        self.radius = as_positive(radius, "radius of Circle")

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    @property
    def spread(self) -> float:
        """The radius."""
        return self.radius

    def coverage(self, values: Float[np.ndarray, "n 2"]) -> float:
        """Share of 72 equal sectors that hold a value within half a radius of the circle."""
        near = values[np.abs(np.linalg.norm(values, axis=1) - self.radius) < self.radius / 2]
        angles = np.arctan2(near[:, 1], near[:, 0])
        counts, _ = np.histogram(angles, bins=72, range=(-np.pi, np.pi))
        return float((counts > 0).mean())


class RotationGroup(AbstractTarget):
    """The rotation matrices of n dimensions, SO(n)."""

    n: int

    def __init__(self, n: int):
        self.n = as_count(n, "n of RotationGroup", least=2)

    @property
    def dimension(self) -> int:
        """The number of planes, n (n - 1) / 2."""
        return self.n * (self.n - 1) // 2

    @property
    def spread(self) -> float:
        """The Frobenius norm of a rotation, sqrt(n)."""
        return float(np.sqrt(self.n))
