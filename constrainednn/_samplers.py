"""Samplers: which points of the unit cube there are, with what weights."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from constrainednn._blocks import in_blocks
from constrainednn._domains import AbstractDomain, Data, Points
from constrainednn._errors import BadValueError
from constrainednn._keys import numpy_generator
from constrainednn._memory import refuse_too_large
from constrainednn._missing import missing_values
from constrainednn._validate import as_real, as_reals, shown

Cube = Float[np.ndarray, "n unit_dim"]
Shares = Float[np.ndarray, " n"]

# Points that `Adaptive` chooses one of.
CANDIDATES = 16

# For so many there are direction numbers: `MAXDIM` of `scipy.stats.qmc.Sobol`.
SOBOL_DIMENSIONS = 21201


class AbstractSampler(eqx.Module):
    """A way to fill the unit cube of a domain with weighted points."""

    @abc.abstractmethod
    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Return `n` cube points of shape (n, domain.unit_dim) and weights that sum to one."""

    @property
    def random(self) -> bool:
        """True if another key gives other points, so that a redraw makes sense."""
        return True


class Independent(AbstractSampler):
    """Independent uniform draws: the measure itself."""

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` independent cube points of equal weight."""
        return numpy_generator(key).random((n, domain.unit_dim)), _equal(n)


class Adaptive(AbstractSampler):
    """Independent draws; after a redraw more of them where the residual is large.

    With `redraw=k` in `solve` the new points are chosen among 16 times as many candidates, with a
    density, relative to the measure, of (1 - share) + share |r|^2 / mean |r|^2 at the parameters of
    that moment. Their weights are the inverse of it, so that the training loss still estimates the
    mean under the measure.

    Args:
        share: Share of the density that follows the residual, in (0, 1).

    Source:
        Wu, Zhu, Tan, Kartha and Lu, Comput. Methods Appl. Mech. Engrg. 403 (2023) 115671 (RAD, with
        k = 2); the weights are ours.
    """

    share: float

    def __init__(self, share: float = 0.5):
        self.share = as_real(share, "share of Adaptive")
        if not 0 < self.share < 1:
            raise BadValueError(f"share of Adaptive must be in (0, 1), got {self.share:g}.")

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` independent cube points of equal weight: there is no residual yet."""
        return Independent().fill(domain, n, key=key)

    def choose(self, candidates: "Draw", squares: Shares, *, key: Key[Array, ""]) -> "Draw":
        """Choose one of 16 candidates by their |r|^2, systematically."""
        assert candidates.cube is not None
        n = len(candidates) // CANDIDATES
        mean = squares.mean()
        even = not (np.isfinite(mean) and mean > 0)
        relative = np.ones(len(squares)) if even else squares / mean
        density = (1 - self.share) + self.share * relative
        ends = np.cumsum(density)
        at = (numpy_generator(key).random() + np.arange(n)) * ends[-1] / n
        index = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
        weights = 1 / density[index]
        share = (weights / weights.sum()).astype(candidates.share.dtype)
        points = jax.tree.map(lambda leaf: leaf[index], candidates.points)
        return Draw(points, share, candidates.cube[index])


class LatinHypercube(AbstractSampler):
    """A randomised Latin hypercube: one point in each of n slices of every coordinate.

    Source:
        McKay, Beckman and Conover, Technometrics 21 (1979) 239; drawn by `scipy.stats.qmc`.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` stratified cube points of equal weight."""
        from scipy.stats import qmc  # slow to import, and most runs do without

        return qmc.LatinHypercube(domain.unit_dim, rng=numpy_generator(key)).random(n), _equal(n)


class Sobol(AbstractSampler):
    """A Sobol sequence under a random scrambling; best with a power of two of points.

    Source:
        Owen, J. Complexity 14 (1998) 466; drawn by `scipy.stats.qmc`.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw the first `n` points of the scrambled sequence, of equal weight."""
        from scipy.stats import qmc  # slow to import, and most runs do without

        if domain.unit_dim > SOBOL_DIMENSIONS:
            raise BadValueError(
                f"Sobol has at most {SOBOL_DIMENSIONS} dimensions, but {shown(domain)} has "
                f"{domain.unit_dim}. Use Independent()."
            )
        # Never unscrambled: such sequences nest, so held-out points would repeat training points.
        engine = qmc.Sobol(domain.unit_dim, scramble=True, bits=32, rng=numpy_generator(key))
        return engine.random_base2(max(n - 1, 0).bit_length())[:n], _equal(n)


class Grid(AbstractSampler):
    """A uniform grid of cell midpoints, equal weights; up to three dimensions.

    Midpoints rather than end points: they have an image in every domain, unbounded ones too.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Return the midpoints of n^(1/d) cells along each coordinate."""
        del key
        per_axis = _points_per_axis(self, domain, n)
        nodes = (np.arange(per_axis) + 0.5) / per_axis
        return _tensor([nodes] * domain.unit_dim), _equal(n)

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


SAMPLERS = (Independent, Adaptive, LatinHypercube, Sobol, Grid, GaussQuadrature)


class Draw(eqx.Module):
    """Points of one constraint with their cube coordinates and weights.

    Attributes:
        points: The points, stacked along the first axis.
        share: Weights that sum to one.
        cube: Cube coordinates, or None for a finite set.
    """

    points: PyTree[np.ndarray]
    share: Float[np.ndarray, " n"]
    cube: Float[np.ndarray, "n unit_dim"] | None

    def __len__(self) -> int:
        return len(self.share)


def draw(domain: AbstractDomain, n: int, sampler: AbstractSampler, *, key: Key[Array, ""]) -> Draw:
    """Fill the cube of `domain` and place the points.

    Raises:
        ValueError: If the sampler breaks its contract (count, width, NaN, weights), or the domain
            places a point at NaN or infinity, or so many points do not fit in memory.
    """
    # Cube coordinates, points, weights, and copies of them on the way.
    refuse_too_large(8 * n * (4 * domain.unit_dim + 2), f"{n} points", "Ask for fewer")
    filled = sampler.fill(domain, n, key=key)
    if not (isinstance(filled, tuple) and len(filled) == 2):
        raise BadValueError(
            f"{shown(sampler)} must return cube points (n, {domain.unit_dim}) and weights (n,), "
            f"got {type(filled).__name__}."
        )
    name = type(sampler).__name__  # the whole of it takes longer to write than points to draw
    cube = as_reals(filled[0], f"cube points of {name}")
    share = as_reals(filled[1], f"weights of {name}")
    expected = (n, domain.unit_dim)
    if cube.shape != expected or share.shape != (n,):
        raise BadValueError(
            f"{shown(sampler)} must return cube points of shape {expected} and weights of shape "
            f"({n},), got {cube.shape} and {share.shape}."
        )
    if not (np.isfinite(cube).all() and (cube >= 0).all() and (cube <= 1).all()):
        raise BadValueError(f"{shown(sampler)} returned cube points outside [0, 1] or NaN.")
    if not (np.isfinite(share).all() and (share >= 0).all() and abs(share.sum() - 1) < 1e-5):
        raise BadValueError(
            f"{shown(sampler)} must return weights >= 0 that sum to one, got sum {share.sum()}."
        )
    dtype = jnp.result_type(float)
    eps = float(jnp.finfo(dtype).eps)
    # Unbounded domains have no image at 0 and 1.
    cube = np.clip(cube, eps, 1 - eps).astype(dtype)
    points = in_blocks(domain.place, cube)
    for leaf in jax.tree.leaves(points):
        bad = np.flatnonzero(~np.isfinite(leaf.reshape(n, -1)).all(axis=1))
        if bad.size:
            raise BadValueError(
                f"{shown(domain)} places {bad.size} of {n} points at NaN or infinity, first for "
                f"cube point {cube[bad[0]].tolist()}. Check the function that maps them."
            )
    return Draw(points, share.astype(dtype), cube)


def whole(points: PyTree[np.ndarray]) -> Draw:
    """Use rows of a finite set, all with equal weight; whole numbers become real ones."""
    dtype = jnp.result_type(float)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), points)
    return Draw(cast, _equal(len(jax.tree.leaves(cast)[0])), None)


def parts_of_rows(data: Data, *, key: Key[Array, ""]) -> Int[np.ndarray, " n"]:
    """Split data rows at random: 0 for a training row, 1 to monitor, 2 held out."""
    order = numpy_generator(key).permutation(len(data))
    if data.fold is not None:
        i, k = data.fold
        order = np.concatenate([order[i::k], *(order[j::k] for j in range(k) if j != i)])
    part = np.zeros(len(data), int)
    held = data.heldout_rows
    part[order[:held]] = 2
    part[order[held : held + data.monitor_rows]] = 1
    # Rows without any value go now: before the split they would change that of other data.
    part[missing_values(data.rows)[1]] = -1
    if not (part == 0).any():
        raise BadValueError(f"{data} leaves no row with a value for training: most are missing.")
    return part


def pick_rows(data: Data, part: Int[np.ndarray, " n"]) -> tuple[Draw, Draw | None, Draw | None]:
    """Training, monitor and held-out rows; None for no rows."""
    kept, watched, held = (np.flatnonzero(part == which) for which in range(3))
    pick = lambda index: whole(jax.tree.map(lambda leaf: leaf[index], data.rows))  # noqa: E731
    return pick(kept), pick(watched) if len(watched) else None, pick(held) if len(held) else None


def finite_points(points: Points) -> Draw:
    """All of a finite set."""
    return whole(points.points)


def _equal(n: int) -> np.ndarray:
    return np.full(n, 1 / max(n, 1), jnp.result_type(float))


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
