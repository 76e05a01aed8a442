"""Targets: sets that a model's values should fill, so that a collapsed map can be told."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float

from constrainednn._common.arguments import as_count, as_positive
from constrainednn.targets.share import MOST_DIMENSIONS, SAMPLE, share_reached


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

    def sample(self, n: int) -> Float[np.ndarray, "n dim"] | None:
        """The same `n` points of the set each time, even by its measure; None if it has no such.

        Values of several axes are flattened.
        """
        del n
        return None

    def coverage(self, values: Float[np.ndarray, "n ..."]) -> float | None:
        """Share of the set that `values` come near, or None where no such measure is defined.

        By balls around the values, as wide as these are apart; up to three dimensions.
        """
        flat = values.reshape(len(values), -1)
        sample = self.sample(SAMPLE) if self.dimension <= MOST_DIMENSIONS else None
        if sample is None or sample.shape[1:] != flat.shape[1:]:
            return None
        return share_reached(sample, flat)


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

    def sample(self, n: int) -> Float[np.ndarray, "n 2"]:
        """Points at equal angles."""
        angles = 2 * np.pi * np.arange(n) / n
        return self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def coverage(self, values: Float[np.ndarray, "n 2"]) -> float:
        """Share of 72 equal sectors that hold a value within half a radius of the circle."""
        near = values[np.abs(np.linalg.norm(values, axis=1) - self.radius) < self.radius / 2]
        angles = np.arctan2(near[:, 1], near[:, 0])
        counts, _ = np.histogram(angles, bins=72, range=(-np.pi, np.pi))
        return float((counts > 0).mean())


class Sphere(AbstractTarget):
    """A sphere around the origin of space."""

    radius: float

    def __init__(self, radius: float = 1.0):
        self.radius = as_positive(radius, "radius of Sphere")

    @property
    def dimension(self) -> int:
        """Two."""
        return 2

    @property
    def spread(self) -> float:
        """The radius."""
        return self.radius

    def sample(self, n: int) -> Float[np.ndarray, "n 3"]:
        """Points along a spiral, at equal steps of height: Fibonacci's lattice."""
        height = 1 - (2 * np.arange(n) + 1) / n
        angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)
        width = np.sqrt(1 - height**2)
        return self.radius * np.stack(
            [width * np.cos(angle), width * np.sin(angle), height], axis=1
        )


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

    def sample(self, n: int) -> Float[np.ndarray, "n entries"]:
        """Rotations by Haar's measure, flattened: orthogonal factors of normal matrices.

        Source:
            F. Mezzadri, Notices Amer. Math. Soc. 54 (2007) 592, with a column turned where the
            determinant is -1.
        """
        Q, R = np.linalg.qr(np.random.default_rng(0).normal(size=(n, self.n, self.n)))
        Q = Q * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None]
        Q[:, :, 0] *= np.sign(np.linalg.det(Q))[:, None]
        return Q.reshape(n, -1)
