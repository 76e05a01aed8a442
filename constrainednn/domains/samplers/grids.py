"""Grids and Gauss quadrature."""

import math

import numpy as np
from jaxtyping import Array, Key

from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import AbstractSampler, Cube, Shares, equal
from constrainednn.errors import BadValueError


class Grid(AbstractSampler):
    """A uniform grid of cell midpoints, equal weights; up to three dimensions.

    Midpoints rather than end points: they have an image in every domain, unbounded ones too.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Return the midpoints of n^(1/d) cells along each coordinate."""
        del key
        per_axis = _points_per_axis(self, domain, n)
        nodes = (np.arange(per_axis) + 0.5) / per_axis
        return _tensor([nodes] * domain.unit_dim), equal(n)

    @property
    def random(self) -> bool:
        """False."""
        return False


class GaussQuadrature(AbstractSampler):
    """Gauss nodes and weights as tensor products; up to three dimensions.

    Gauss-Legendre on `Interval` and `Box`, Gauss-Hermite on `Normal`, products of both on
    products of those; other domains are refused. With n nodes along a coordinate the training
    loss is the exact integral of |r|^2 wherever that is a polynomial of degree 2n - 1.

    Source:
        Golub and Welsch, Math. Comp. 23 (1969) 221; nodes from `numpy.polynomial`.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Return n^(1/d) Gauss nodes along each coordinate with their weights."""
        del key
        per_axis = _points_per_axis(self, domain, n)
        nodes, weights = [], []
        for rule in domain.gauss_rules:
            if rule is None:
                raise BadValueError(
                    f"GaussQuadrature has no rule for {shown(domain)}: it knows Interval, Box, "
                    "Normal and their products. Use Sobol() or Independent()."
                )
            node, weight = _gauss(rule, per_axis)
            nodes.append(node)
            weights.append(weight)
        return _tensor(nodes), _tensor(weights).prod(axis=1)

    @property
    def random(self) -> bool:
        """False."""
        return False


def _points_per_axis(sampler: AbstractSampler, domain: AbstractDomain, n: int) -> int:
    dim = domain.unit_dim
    name = type(sampler).__name__
    if dim > 3:
        raise BadValueError(
            f"{name} fills up to three dimensions, but {shown(domain)} has {dim}: a grid there "
            "needs too many points. Use Sobol()."
        )
    per_axis = round(n ** (1 / dim))
    if per_axis**dim != n:
        below = math.floor(n ** (1 / dim))
        raise BadValueError(
            f"{name} in {dim} dimensions needs the same count along each coordinate: "
            f"points={n} is no power {dim}. Write {max(below, 1) ** dim} or {(below + 1) ** dim}."
        )
    return per_axis


def _tensor(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)


def _gauss(rule: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    if rule == "legendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return (nodes + 1) / 2, weights / 2
    from scipy.special import ndtr

    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return ndtr(nodes), weights / weights.sum()
