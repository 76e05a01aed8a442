"""The linear equation for the error of a solution in pieces, solved by collocation.

With e = true - computed and the residual r = u' - f(t, u) of a first-order system, to first order

    e' = A e + B dp - r,        e = 0 at the start, or linearised boundary conditions,

where A and B are the Jacobians of f for the state and for unknown parameters, and e jumps by -J
where u jumps by +J between pieces. Everything here is in arrays, without models or fields.

Symbols::

    symbol  shape         meaning
    N, n    int           pieces; nodes in each
    D, q    int           components of the state, of a first-order system; unknown parameters
    k       int           right-hand sides solved for at once
    half    (N,)          half the length of each piece, negative backwards in time
    A, B    (N, n, D, .)  derivatives of f at the nodes
    g       (N, n, D, k)  right-hand sides: -r, or realisations of its rounding
    W       (n, n)        integrals of the Lagrange polynomials from s = -1 to each node
    E       (N, n+1, D, k)  the error at the start of each piece and at its nodes
"""

import dataclasses
import functools
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._pieces.condensation import condense, recover
from constrainednn._pieces.coupling import Rows, couple
from constrainednn.models.legendre import gauss, integrals

# Entries of the matrices of those pieces that are solved at once.
_ENTRIES = 1_000_000
# Interpolation errors of the residual below this fraction of it do not matter.
NEGLIGIBLE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorEquation:
    """The equation on all pieces.

    Attributes:
        half: Half the length of each piece.
        A: Derivative with respect to the state at `radau(n).nodes`.
        B: Derivative with respect to the parameters.
        g: Right-hand sides.
        jumps: Jumps of e from each piece to the next: minus those of the model.
    """

    half: Float[np.ndarray, " N"]
    A: Float[np.ndarray, "N n D D"]
    B: Float[np.ndarray, "N n D q"]
    g: Float[np.ndarray, "N n D k"]
    jumps: Float[np.ndarray, "N_less_1 D k"]


class Conditions(NamedTuple):
    """Linearised boundary conditions: left e(a) + right e(b) + parameter dp = rhs."""

    left: Float[np.ndarray, "D_q D"]
    right: Float[np.ndarray, "D_q D"]
    parameter: Float[np.ndarray, "D_q q"]
    rhs: Float[np.ndarray, "D_q k"]


class Radau(NamedTuple):
    """Nodes in (-1, 1], their weights and W."""

    nodes: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    W: Float[np.ndarray, "n n"]


@functools.cache
def radau(n: int) -> Radau:
    """The right Radau rule, which damps modes that decay within a piece."""
    from scipy.special import roots_jacobi  # slow to import, and most runs do not need it

    inner, _ = roots_jacobi(n - 1, 1.0, 0.0)
    nodes = np.append(inner, 1.0)
    features, integral = integrals(nodes, n, 1)
    W = integral @ np.linalg.inv(features)
    return Radau(nodes, W[-1], W)


def through_nodes(s: Float[np.ndarray, " m"], n: int) -> Float[np.ndarray, "m n"]:
    """Interpolation from the nodes of a piece to its scaled points `s`."""
    return integrals(s, n, 0)[0] @ _features_from(n, 0)


def interpolation(s: Float[np.ndarray, " m"], n: int) -> Float[np.ndarray, "m n_1"]:
    """Interpolation from the start and the nodes of a piece to its scaled points `s`."""
    return integrals(s, n + 1, 0)[0] @ _features_from(n, 1)


@functools.cache
def _features_from(n: int, start: int) -> Float[np.ndarray, "n_start n_start"]:
    """Coefficients from values at the nodes, preceded by that at the start if `start` is one."""
    nodes = np.append(np.full(start, -1.0), radau(n).nodes)
    return np.linalg.inv(integrals(nodes, n + start, 0)[0])


class _Gauss(NamedTuple):
    """Collocation at Gauss nodes, of values at the start and the Radau nodes of a piece.

    Attributes:
        across: From the Radau nodes to the Gauss nodes.
        at: From the start and the Radau nodes to the Gauss nodes.
        W: From the slope at the Gauss nodes to its integrals up to each Radau node.
    """

    across: Float[np.ndarray, "n n"]
    at: Float[np.ndarray, "n n_1"]
    W: Float[np.ndarray, "n n"]


@functools.cache
def _at_gauss(n: int) -> _Gauss:
    nodes, _ = gauss(n)
    W = integrals(radau(n).nodes, n, 1)[1] @ np.linalg.inv(integrals(nodes, n, 0)[0])
    return _Gauss(through_nodes(nodes, n), interpolation(nodes, n), W)


def _rows(equation: ErrorEquation) -> Iterator[Float[np.ndarray, "nD columns"]]:
    """Rows of each piece in the inner nodes, the end, the start, dp and the right-hand sides.

    The collocation polynomial of degree n satisfies the equation at the n Gauss nodes, with A, B
    and g interpolated from the Radau nodes. A symmetric rule grows where the equation grows and
    decays where it decays, however fast. Radau's rule damps both, which does not match conditions
    at both ends. Elimination of the interior by QR couples start and end in a form that is scaled
    alike for growing and decaying modes; the map from start to end would lose the latter where
    both are fast.

    Source:
        Dichotomy of symmetric rules: Ascher, Mattheij and Russell, Numerical Solution of Boundary
        Value Problems for Ordinary Differential Equations (SIAM 1995), section 10.2.
    """
    n, D = equation.A.shape[1:3]
    rule, unit = _at_gauss(n), np.tile(np.eye(D), (n, 1))
    for half, *parts in zip(equation.half, equation.A, equation.B, equation.g, strict=True):
        A, B, g = (np.tensordot(rule.across, part, axes=1) for part in parts)
        by_state = half * np.einsum("im,mjk,ml->ijlk", rule.W, A, rule.at, optimize=True)
        by_state = by_state.reshape(n * D, (n + 1) * D)
        within = np.eye(n * D) - by_state[:, D:]
        over = lambda b, half=half: half * np.tensordot(rule.W, b, axes=1).reshape(n * D, -1)  # noqa: E731
        yield np.hstack([within, -unit - by_state[:, :D], -over(B), -over(g)])


def from_start(equation: ErrorEquation) -> Float[np.ndarray, "N n_1 D k"]:
    """Solve with e = 0 at the start, piece after piece."""
    (N, n, D, k), W = equation.g.shape, radau(equation.g.shape[1]).W
    unit, start, found = np.tile(np.eye(D), (n, 1)), np.zeros((D, k)), np.empty((N, n + 1, D, k))
    jumps = [*equation.jumps, np.zeros((D, k))]
    at_once = max(1, _ENTRIES // (n * D) ** 2)
    for first in range(0, N, at_once):
        part = slice(first, first + at_once)
        half, A, g = equation.half[part], equation.A[part], equation.g[part]
        within = -np.einsum("c,nm,cmij->cnimj", half, W, A).reshape(-1, n * D, n * D)
        within[:, np.arange(n * D), np.arange(n * D)] += 1
        rhs = np.einsum("c,nm,cmik->cnik", half, W, g).reshape(-1, n * D, k)
        # LU suffices: a march need not scale growing and decaying modes alike.
        starts = np.broadcast_to(unit, (len(half), *unit.shape))
        solved = np.linalg.solve(within, np.concatenate([starts, rhs], axis=2))
        for j, piece in enumerate(solved, first):
            found[j, 0] = start
            found[j, 1:] = (piece[:, :D] @ start + piece[:, D:]).reshape(n, D, k)
            start = found[j, -1] + jumps[j]
    return found


def between_ends(
    equation: ErrorEquation, conditions: Conditions
) -> tuple[Float[np.ndarray, "N n_1 D k"], Float[np.ndarray, "q k"]]:
    """Solve with linearised boundary conditions: all pieces coupled at their ends.

    Returns:
        The error at the nodes, and that of the parameters. NaN where the system is singular.
    """
    (N, n, D, k), q = equation.g.shape, equation.B.shape[3]
    inner, shared = (n - 1) * D, ("dp",) * bool(q)
    jumps = [*equation.jumps, np.zeros((D, k))]
    insides, rows = [], []
    for j, (table, jump) in enumerate(zip(_rows(equation), jumps, strict=True)):
        inside, outside = condense(table, inner)
        outside[:, -k:] -= outside[:, :D] @ jump  # each end is the next start without the jump
        insides.append(inside)
        rows.append(Rows((j + 1, j, *shared), outside))
    outer = np.hstack([conditions.left, conditions.right, conditions.parameter])
    size = np.abs(outer).max(axis=1, keepdims=True)
    rows.append(Rows((0, N, *shared), np.hstack([outer, -conditions.rhs]) / size))
    sizes: dict[Hashable, int] = {**dict.fromkeys(range(N + 1), D), **dict.fromkeys(shared, q)}
    try:
        x = couple(rows, sizes, k)
    except np.linalg.LinAlgError:
        return np.full((N, n + 1, D, k), np.nan), np.full((q, k), np.nan)
    dp, found = x.get("dp", np.zeros((0, k))), np.empty((N, n + 1, D, k))
    for j, (inside, jump) in enumerate(zip(insides, jumps, strict=True)):
        found[j, 0], found[j, n] = x[j], x[j + 1] - jump
        others = np.concatenate([found[j, n], found[j, 0], dp])
        found[j, 1:n] = recover(inside, others).reshape(n - 1, D, k)
    return found, dp


def logarithmic_bound(
    equation: ErrorEquation, weights: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "N n_1"]:
    """Bound |e / weights| from zero at the start, by the logarithmic norm of A.

    |e|' <= mu |e| + |r| with mu the largest eigenvalue of the symmetric part, in these weights.
    Between two nodes mu is taken as the larger of the two, and |r| as its maximum over a fine grid,
    since r does not cancel here as it does in e. Three standard deviations of its noise, from all
    columns of `g` and `jumps` but the first, are added.

    Source:
        Dahlquist's logarithmic norm: Hairer, Norsett and Wanner, Solving Ordinary Differential
        Equations I, section I.10, theorem 10.6.
    """
    n = equation.A.shape[1]
    nodes = np.append(-1.0, radau(n).nodes)
    sign = np.sign(equation.half[0])
    A = sign * equation.A * (weights / weights[:, None])
    # There is no node at the start: the first one stands for the interval before it.
    mu = np.linalg.eigvalsh((A + A.swapaxes(-1, -2)) / 2)[..., -1]
    mu = np.maximum(mu, np.concatenate([mu[:, :1], mu[:, :-1]], axis=1))
    fine = 8
    places = nodes[:-1, None] + np.diff(nodes)[:, None] * np.linspace(0, 1, fine + 1)
    to_fine = through_nodes(places.ravel(), n)
    r = np.linalg.norm(np.tensordot(to_fine, equation.g[..., 0] / weights, axes=(1, 1)), axis=-1)
    r = (1 + NEGLIGIBLE) * r.reshape(n, fine + 1, -1).max(axis=1).T
    hidden = _spread(equation.g, weights)
    r += 3 * np.maximum(hidden, np.concatenate([hidden[:, :1], hidden[:, :-1]], axis=1))
    h = np.abs(equation.half)[:, None] * np.diff(nodes)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        growth = np.exp(mu * h)
        gain = r * np.where(np.abs(mu * h) < 1e-8, h, np.expm1(mu * h) / mu)
        jumps = np.linalg.norm(equation.jumps[..., 0] / weights, axis=1)
        jumps += 3 * _spread(equation.jumps, weights)
        found, value = np.zeros((len(h), n + 1)), 0.0
        for j in range(len(h)):
            found[j, 0] = value
            for i in range(n):
                value = growth[j, i] * value + gain[j, i]
                found[j, i + 1] = value
            value += jumps[j] if j < len(jumps) else 0.0
    return np.where(np.isnan(found), np.inf, found)


def _spread(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root mean square, over all columns but the first, of the norm over components."""
    others = columns[..., 1:] / weights[:, None]
    return np.sqrt(np.sum(others**2, axis=(-1, -2)) / max(others.shape[-1], 1))
