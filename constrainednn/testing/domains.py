"""The contracts of domains and samplers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from constrainednn._common.random_keys import numpy_generator, stream
from constrainednn._gap.streams import shared_points
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import AbstractSampler
from constrainednn.testing.promises import close, finite, kind, promise, same

# 64 is a power of two, a square and a cube: it suits every sampler in one to three dimensions.
POINTS = 64


def check_domain(domain: AbstractDomain, *, key: Key[Array, ""]) -> None:
    """Check that a domain is a map from the unit cube as samplers and the gap report need it.

    Args:
        domain: The domain.
        key: Random key of the cube points that are tried.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    promise(isinstance(domain, AbstractDomain), f"{domain!r} is a cx.domains.AbstractDomain")
    dim = domain.unit_dim
    promise(
        isinstance(dim, int) and not isinstance(dim, bool) and dim >= 1,
        f"unit_dim of {domain!r} is an int of at least 1, got {dim!r}",
    )
    rules = domain.gauss_rules
    promise(
        isinstance(rules, tuple) and len(rules) == dim,
        f"gauss_rules of {domain!r} is a tuple with one entry a cube coordinate, got {rules!r}",
    )
    promise(
        all(rule in (None, "legendre", "hermite") for rule in rules),
        f"gauss_rules of {domain!r} are 'legendre', 'hermite' or None, got {rules!r}",
    )
    promise(isinstance(domain.unbounded, bool), f"unbounded of {domain!r} is a bool")

    dtype = jnp.result_type(float)
    cube = numpy_generator(key).uniform(0.01, 0.99, (8, dim)).astype(dtype)
    first, second = domain.place(jnp.asarray(cube[0])), domain.place(jnp.asarray(cube[1]))
    for leaf in jax.tree.leaves(first):
        promise(
            hasattr(leaf, "dtype") and hasattr(leaf, "shape"),
            f"place of {domain!r} returns arrays, got {type(leaf).__name__}",
        )
    promise(bool(jax.tree.leaves(first)), f"place of {domain!r} returns at least one array")
    promise(
        kind(first) == kind(second),
        f"place of {domain!r} gives every point the same shape and dtype, "
        f"got {kind(first)} and {kind(second)}",
    )
    promise(
        same(first, domain.place(jnp.asarray(cube[0]))),
        f"place of {domain!r} is deterministic: the same cube point gives the same point",
    )
    many = jax.vmap(domain.place)(jnp.asarray(cube))
    one = jax.tree.map(lambda leaf: leaf[0], many)
    promise(close(one, first), f"place of {domain!r} under jax.vmap agrees with one point")
    jitted = jax.jit(domain.place)(jnp.asarray(cube[0]))
    promise(close(jitted, first), f"place of {domain!r} under jax.jit agrees with one point")
    _check_faces(domain, cube)


def _check_faces(domain: AbstractDomain, cube: Float[np.ndarray, "n d"]) -> None:
    """Finite wherever samplers go; for a bounded domain on the faces of the cube themselves."""
    eps = float(jnp.finfo(cube.dtype).eps)
    place = jax.vmap(domain.place)
    promise(
        finite(place(jnp.asarray(cube))), f"{domain!r} places inner cube points at finite points"
    )
    lowest, highest = (eps, 1 - eps) if domain.unbounded else (0.0, 1.0)
    faces = []
    for axis, end in itertools.product(range(cube.shape[1]), (lowest, highest)):
        face = cube.copy()
        face[:, axis] = end
        faces.append(face)
    where = "near the faces" if domain.unbounded else "on the faces"
    promise(
        finite(place(jnp.asarray(np.concatenate(faces)))),
        f"{domain!r}, whose unbounded is {domain.unbounded}, places cube points {where} of the "
        "cube at finite points",
    )


def check_sampler(sampler: AbstractSampler, domain: AbstractDomain, *, key: Key[Array, ""]) -> None:
    """Check that a sampler fills the cube of a domain with weighted points of its measure.

    Args:
        sampler: The sampler.
        domain: A domain it suits, of at most three cube dimensions for a grid.
        key: Random key of the draws.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    promise(isinstance(sampler, AbstractSampler), f"{sampler!r} is a cx.domains.AbstractSampler")
    promise(isinstance(sampler.random, bool), f"random of {sampler!r} is a bool")
    fills = [
        sampler.fill(domain, POINTS, key=stream(key, f"fill/{i}"))
        for i in range(16 if sampler.random else 2)
    ]
    for cube, share in fills:
        promise(
            np.shape(cube) == (POINTS, domain.unit_dim) and np.shape(share) == (POINTS,),
            f"{sampler!r} returns cube points of shape (n, unit_dim) and weights of shape (n,), "
            f"got {np.shape(cube)} and {np.shape(share)}",
        )
        promise(
            bool(np.all(np.isfinite(cube)) and np.all(cube >= 0) and np.all(cube <= 1)),
            f"{sampler!r} keeps cube points in [0, 1]",
        )
        promise(
            bool(np.all(share >= 0)) and abs(float(np.sum(share)) - 1) < 1e-5,
            f"{sampler!r} returns weights >= 0 that sum to one, got sum {np.sum(share)}",
        )
    again = sampler.fill(domain, POINTS, key=stream(key, "fill/0"))
    promise(same(fills[0], again), f"{sampler!r} returns the same points for the same key")
    if sampler.random:
        promise(
            shared_points(fills[0][0], fills[1][0]) <= 1,
            f"{sampler!r}, which says it is random, returns other points for another key",
        )
    else:
        promise(
            same(fills[0], fills[1]),
            f"{sampler!r}, which says it is not random, returns the same points for every key",
        )
    _check_means(sampler, fills)


def _check_means(sampler: AbstractSampler, fills: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """First and second moments of the cube, pooled over the fills."""
    # Five standard errors of as many independent points; a rule is expected to be better.
    total = POINTS * (len(fills) if sampler.random else 1)
    dim = fills[0][0].shape[1]
    mean = np.mean([np.asarray(share) @ np.asarray(cube) for cube, share in fills], axis=0)
    allowed = 5 * np.sqrt(1 / 12 / total)
    promise(
        bool(np.all(np.abs(mean - 1 / 2) < allowed)),
        f"{sampler!r} integrates cube coordinates to 1/2 within {allowed:.2g}, got {mean}",
    )
    second = np.mean(
        [np.asarray(cube).T @ (np.asarray(share)[:, None] * cube) for cube, share in fills], axis=0
    )
    expected = np.full((dim, dim), 1 / 4) + np.eye(dim) / 12
    # Variance of z^2 is 4/45, that of a product of two coordinates 7/144: the larger one.
    allowed = 5 * np.sqrt(4 / 45 / total)
    promise(
        bool(np.all(np.abs(second - expected) < allowed)),
        f"{sampler!r} integrates products of cube coordinates to 1/4 and squares to 1/3 within "
        f"{allowed:.2g}, got {second.tolist()}",
    )
