"""Stationary equations by collocation: values at Chebyshev nodes of the interval or rectangle.

Symbols (others in `_pde`)::

    symbol  shape      meaning
    N       int        nodes along each coordinate
    D       (N, N)     derivative of what has these values at the nodes
    U       (M, d)     values at all M = N^dim nodes
    T_a     (M, M)     derivative of order a at all nodes, a product of powers of D
"""

import functools
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.scheme import StationaryScheme
from constrainednn.errors import BadValueError
from constrainednn.models.space import SpacePieces
from constrainednn.results.comparison.classical_run import ClassicalRun
from constrainednn.results.comparison.space_time import chebyshev

# Nodes, and those of a coarser solve that tells how exact the first one is, by dimension.
_NODES = {1: (192, 128), 2: (40, 28)}
# Newton steps at most, and the relative size of one that ends them.
_STEPS, _SMALL = 30, 1e-12


class _Found(NamedTuple):
    """What collocation found: nodes, values there, seconds, Newton steps."""

    x: Float[np.ndarray, "M dim"]
    U: Float[np.ndarray, "M d"]
    seconds: float
    steps: int


def by_collocation(
    guess: SpacePieces, model: SpacePieces, scheme: StationaryScheme
) -> ClassicalRun:
    """Solve by collocation from the same guess, and compare at its nodes.

    Raises:
        ValueError: If conditions and components do not match node by node.
    """
    equations, d = scheme.equations, len(scheme.equations.smooth)
    given = [0 if face is None else face.equations for face in equations.faces]
    mesh = scheme.first_mesh
    box = (mesh.high.max(axis=0) - mesh.low.min(axis=0)).prod()
    whole = math.isclose(mesh.area.sum(), box, rel_tol=1e-9)
    if (
        scheme.curved
        or not whole
        or equations.order > 2
        or equations.at_points
        or set(given) != {d}
    ):
        raise BadValueError(
            "compare needs an equation of order two at most on an interval or one rectangle, with "
            "as many conditions on each side as u has components, and none at points."
        )
    fine, coarse = (_solved(scheme, nodes, guess) for nodes in _NODES[scheme.dim])
    values = jax.jit(jax.vmap(lambda p: model.derivatives(p, [(0,) * scheme.dim])[0]))
    ours = [np.asarray(values(jnp.asarray(run.x))) for run in (fine, coarse)]
    difference, own = (
        float(np.linalg.norm(u - run.U) / (np.linalg.norm(u) or 1.0))
        for u, run in zip(ours, (fine, coarse), strict=True)
    )
    shape = " x ".join([str(_NODES[scheme.dim][0])] * scheme.dim)
    less = " x ".join([str(_NODES[scheme.dim][1])] * scheme.dim)
    return ClassicalRun(
        difference,
        f"collocation at {shape} Chebyshev nodes with LAPACK (at {less}: {own:.1e})",
        f"{fine.steps} Newton steps",
        fine.steps,
        "compiled by jax",
        fine.seconds,
        float("nan"),
    )


def _solved(scheme: StationaryScheme, nodes: int, guess: SpacePieces) -> _Found:
    equations, dim = scheme.equations, scheme.dim
    low, high = scheme.first_mesh.low.min(axis=0), scheme.first_mesh.high.max(axis=0)
    s = -np.cos(np.pi * np.arange(nodes) / (nodes - 1))
    grid = np.stack(np.meshgrid(*[s] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    x = low + (high - low) * (grid + 1) / 2
    groups, free = [], np.ones(len(x), bool)
    for number, face in enumerate(equations.faces):  # a corner belongs to the first side
        here = free & (grid[:, number // 2] == 2.0 * (number % 2) - 1)
        groups.append((face, here))
        free = free & ~here
    groups.append((equations.interior, free))
    U = np.asarray(jax.vmap(lambda p: guess.derivatives(p, [(0,) * dim])[0])(jnp.asarray(x)))

    def whole() -> _Found:
        began = time.perf_counter()
        D = [chebyshev(s) * 2 / (b - a) for a, b in zip(low, high, strict=True)]
        found, steps = _newton(scheme, groups, D, x, U)
        return _Found(x, found, time.perf_counter() - began, steps)

    whole()  # compiles
    return whole()


def _newton(
    scheme: StationaryScheme,
    groups: list[tuple[LocalResidual, Bool[np.ndarray, " M"]]],
    D: list[Float[np.ndarray, "N N"]],
    x: Float[np.ndarray, "M dim"],
    U: Float[np.ndarray, "M d"],
) -> tuple[Float[np.ndarray, "M d"], int]:
    """Newton's method for the values at the nodes."""
    M, d = U.shape
    kron = functools.partial(functools.reduce, np.kron)

    @functools.cache
    def table(order: tuple[int, ...]) -> np.ndarray:
        powers = [np.linalg.matrix_power(E, a) for E, a in zip(D, order, strict=True)]
        return kron(powers)

    step = 0
    while step < _STEPS:
        step += 1
        J, r = np.zeros((M, d, M, d)), np.zeros((M, d))
        for residual, here in groups:
            T = [table(order)[here] for order in residual.orders]
            v = np.stack([t @ U for t in T], axis=1)
            r[here], G = residual.linearised(v, x[here])
            J[here] = sum(np.einsum("med,mn->mend", G[:, :, a], t) for a, t in enumerate(T))
        change = np.linalg.solve(J.reshape(M * d, M * d), -r.ravel()).reshape(M, d)
        U = U + change
        if not np.isfinite(U).all() or np.abs(change).max() <= _SMALL * np.abs(U).max():
            break
        if scheme.linear and step == 2:
            break
    return U, step
