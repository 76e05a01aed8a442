"""Samplers: which points of the unit cube there are, with what weights."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from constrainednn._common.arguments import as_reals
from constrainednn._common.batched import in_blocks
from constrainednn._common.memory import refuse_too_large
from constrainednn._common.messages import shown
from constrainednn._common.random_keys import numpy_generator
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.missing import missing_values
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.domains.samplers.base import AbstractSampler, Draw, equal
from constrainednn.domains.samplers.grids import GaussQuadrature, Grid
from constrainednn.domains.samplers.random import Independent, LatinHypercube, Sobol
from constrainednn.errors import BadValueError

SAMPLERS = (Independent, Adaptive, LatinHypercube, Sobol, Grid, GaussQuadrature)


def draw(domain: AbstractDomain, n: int, sampler: AbstractSampler, *, key: Key[Array, ""]) -> Draw:
    """Fill the cube of `domain` and place the points.

    Raises:
        ValueError: If the sampler breaks its contract (count, width, NaN, weights), or the domain
            places a point at NaN or infinity, or so many points do not fit in memory.
    """
    # Cube coordinates, points, weights, and copies of them on the way.
    refuse_too_large(8 * n * (4 * domain.unit_dim + 2), f"{n} points", "Ask for fewer")
    if domain.by_rejection and sampler.fills_cube:
        raise BadValueError(
            f"{type(sampler).__name__} fills the unit cube, but points of {shown(domain)} are "
            "drawn from a box around it by rejection. Use cx.domains.Independent() or "
            "cx.domains.Adaptive()."
        )
    filled = sampler.fill(domain, n, key=key)
    if not (isinstance(filled, tuple) and len(filled) == 2):
        raise BadValueError(
            f"{shown(sampler)} must return cube points (n, {domain.unit_dim}) and weights (n,), "
            f"got {type(filled).__name__}."
        )
    name = type(sampler).__name__  # the whole of it takes longer to write than points to draw
    cube = as_reals(filled[0], f"cube points of {name}")
    weights = as_reals(filled[1], f"weights of {name}")
    expected = (n, domain.unit_dim)
    if cube.shape != expected or weights.shape != (n,):
        raise BadValueError(
            f"{shown(sampler)} must return cube points of shape {expected} and weights of shape "
            f"({n},), got {cube.shape} and {weights.shape}."
        )
    if not (np.isfinite(cube).all() and (cube >= 0).all() and (cube <= 1).all()):
        raise BadValueError(f"{shown(sampler)} returned cube points outside [0, 1] or NaN.")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-5):
        raise BadValueError(
            f"{shown(sampler)} must return weights >= 0 that sum to one, got sum {weights.sum()}."
        )
    dtype = jnp.result_type(float)
    eps = float(jnp.finfo(dtype).eps)
    # Unbounded domains have no image at 0 and 1.
    cube = np.clip(cube, eps, 1 - eps).astype(dtype)
    if domain.by_rejection and not np.all(in_blocks(domain.accepts, cube)):
        raise BadValueError(
            f"{shown(sampler)} returned cube points that {shown(domain)} does not accept."
        )
    points = in_blocks(domain.place, cube)
    for leaf in jax.tree.leaves(points):
        bad = np.flatnonzero(~np.isfinite(leaf.reshape(n, -1)).all(axis=1))
        if bad.size:
            raise BadValueError(
                f"{shown(domain)} places {bad.size} of {n} points at NaN or infinity, first for "
                f"cube point {cube[bad[0]].tolist()}. Check the function that maps them."
            )
    return Draw(points, weights.astype(dtype), cube)


def whole(points: PyTree[np.ndarray]) -> Draw:
    """Use rows of a finite set, all with equal weight; whole numbers become real ones."""
    dtype = jnp.result_type(float)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), points)
    return Draw(cast, equal(len(jax.tree.leaves(cast)[0])), None)


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
