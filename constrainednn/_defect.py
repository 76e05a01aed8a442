"""The defect of a model in pieces, as the right-hand side of the equation its error obeys.

Symbols (others in `_error_equation.py`)::

    symbol  shape       meaning
    Y       (p, d)      state: value and, for order two, velocity; D = p d
    F       (N, n, d)   field at the nodes; the defect is u^(p) - F
    S       (D,)        size of each component over the whole solution; the equation is for e / S
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._blocks import in_blocks
from constrainednn._error_equation import (
    Conditions,
    ErrorEquation,
    interpolation,
    radau,
    through_nodes,
)
from constrainednn._legendre import integrals
from constrainednn._pieces import Pieces

# Realisations of rounding that are carried along with the residual.
_REALISATIONS = 8
# A difference between the residual and what its nodes tell is rounding below this many times the
# rounding of its terms, or too small to matter below this share of it.
_ROUNDED = 100
_SEEN = 1e-2
# Nodes times components above which pieces are cut.
_LARGE = 250


class Path(NamedTuple):
    """A model at the start and at the Radau nodes of each piece, or of each part of it.

    Attributes:
        s: Scaled places of the nodes.
        ends: Edges of the parts.
        Y: States.
        top: Highest derivative at the nodes.
        jumps: Of the state, from each part to the next.
        gained: What the state gains on each part; a jump is known to the last digits of that.
        p: Unknown parameters.
        size: Size of each component of the state.
        eps: Rounding of the model's arithmetic.
    """

    s: Float[np.ndarray, " n"]
    ends: Float[np.ndarray, " N_1"]
    Y: Float[np.ndarray, "N n_1 p d"]
    top: Float[np.ndarray, "N n d"]
    jumps: Float[np.ndarray, "N_less_1 D"]
    gained: Float[np.ndarray, "N_less_1 D"]
    p: Float[np.ndarray, " q"]
    size: Float[np.ndarray, " D"]
    eps: float

    @property
    def half(self) -> Float[np.ndarray, " N"]:
        """Half the length of each part."""
        return np.diff(self.ends) / 2

    @property
    def t(self) -> Float[np.ndarray, "N n"]:
        """Times of the nodes."""
        return self.ends[:-1, None] + self.half[:, None] * (self.s + 1)


def sample(
    model: Pieces, *, between: bool = False, least: Float[np.ndarray, " D"] | float = 0.0
) -> Path:
    """Evaluate the model on the host, in double precision.

    Args:
        model: The model.
        between: Take the start and the middles between the nodes of the Radau rule instead; the
            jumps then mean nothing.
        least: Sizes below which the solver resolved nothing.
    """
    N, (K, d), order = model.count, model.head.shape[1:], model.states.shape[1]
    # Nodes enough for a residual of higher degree than the features; the cost is cubic in nodes
    # times components, so large systems have each piece cut into parts.
    n, parts = 2 * K + 8, 1
    if n * order * d > _LARGE:
        n, parts = n // 4 + 4, 4
    nodes = radau(n).nodes
    if between:
        nodes = np.append(-1.0, (nodes[:-1] + nodes[1:]) / 2)
    cuts = np.linspace(-1.0, 1.0, parts + 1)
    s = cuts[:-1, None] + (np.append(-1.0, nodes) + 1) / parts
    s[:, -1] = np.where(nodes[-1] == 1, cuts[1:], s[:, -1])
    edges = model.ends.astype(float)
    half = np.diff(edges)[:, None, None] / 2
    head, start = (np.asarray(a, float)[:N] for a in (model.head, model.states))
    tables = integrals(s.ravel(), K, order)
    Q = [np.tensordot(head, table, axes=(1, 1)).swapaxes(1, 2) for table in tables]
    dt = half * (s.reshape(-1, 1) + 1)
    rows = []
    for j in range(order):
        rows.append(Q[order - j] / half**j)
        for i in range(j + 1, order):
            rows[j] += start[:, None, i] * dt ** (i - j) / math.factorial(i - j)
    gained = np.stack(rows, axis=2)
    Y = (start[:, None] + gained).reshape(N * parts, n + 1, order, d)
    size, eps = np.abs(Y).max(axis=(0, 1)).ravel(), float(jnp.finfo(model.head.dtype).eps)
    # A component that is zero throughout has no size of its own; one that the solver did not
    # resolve, or whose square would underflow beside the others, is as good as that.
    zero = size <= np.maximum(least, 1e-100 * size.max())
    starts = np.append(edges[:-1, None] + half[:, 0] * (cuts[:-1] + 1), edges[-1])
    # In this order of subtraction a jump is known to better than the last digit of the state.
    jumps, lost = np.zeros((2, N * parts - 1, order * d))
    shape = (N - 1, order * d)
    jumps[parts - 1 :: parts] = ((start[1:] - start[:-1]) - gained[:-1, -1]).reshape(shape)
    lost[parts - 1 :: parts] = np.abs(gained[:-1, -1]).reshape(shape)
    return Path(
        nodes,
        starts,
        Y,
        (Q[0] / half**order).reshape(N * parts, n + 1, d)[:, 1:],
        jumps,
        lost,
        np.asarray(model.parameters, float),
        np.where(zero, size[~zero].max() if not zero.all() else np.max(least) / eps or 1.0, size),
        eps,
    )


class Equations(NamedTuple):
    """What a solution satisfies: `field(t, y, *p)`, and boundary conditions unless None."""

    field: Callable[..., Array]
    conditions: Callable[[Array, Array, Array], Array] | None


class OnRows(eqx.Module):
    """A boundary value problem's field, called like that of an initial value problem."""

    field: Callable[[Array, Array, Array], Array]

    def __call__(
        self, x: Float[Array, ""], y: Float[Array, "1 d"], *p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate at one state; without `p` where there are no parameters."""
        return self.field(x, y[0], *(p or (jnp.zeros(0, y.dtype),)))


class Linearised(NamedTuple):
    """The field along a path and its derivatives by time, state and parameters.

    Attributes:
        F: Value.
        F_t: Derivative by time.
        A: Derivative by the state of the first-order system, for e / S.
        B: Derivative by the parameters, for e / S.
    """

    F: Float[np.ndarray, "N n d"]
    F_t: Float[np.ndarray, "N n d"]
    A: Float[np.ndarray, "N n D D"]
    B: Float[np.ndarray, "N n D q"]


def _linearise_point(field: Callable[..., Array], point: tuple) -> tuple[Array, tuple]:
    by_all = jax.jacfwd(lambda *point: field(*point), argnums=tuple(range(len(point))))
    return field(*point), by_all(*point)


def linearise(
    field: Callable[..., Array],
    path: Path,
    Y: Float[np.ndarray, "N n p d"],
    p: Float[np.ndarray, " q"],
) -> Linearised:
    """Linearise at the times of a path and the states `Y`."""
    N, n, order, d = Y.shape
    D, S, dtype = order * d, path.size, jnp.result_type(float)
    points = (
        path.t.ravel(),
        Y.reshape(-1, order, d),
        *([np.tile(p, (N * n, 1))] if p.size else []),
    )
    value, slopes = in_blocks(
        eqx.Partial(_linearise_point, field), tuple(part.astype(dtype) for part in points)
    )
    F, F_t, by_state, *by_p = (
        np.asarray(part, float).reshape(N, n, d, -1) for part in (value, *slopes)
    )
    A, B = np.zeros((N, n, D, D)), np.zeros((N, n, D, p.size))
    A[:, :, np.arange(D - d), np.arange(d, D)] = 1.0  # the velocity is the slope of the value
    A[:, :, D - d :] = by_state
    if by_p:
        B[:, :, D - d :] = by_p[0]
    return Linearised(F[..., 0], F_t[..., 0], A * S / S[:, None], B / S[:, None])


def linearise_conditions(
    conditions: Callable[[Array, Array, Array], Array],
    path: Path,
    Y: Float[np.ndarray, "N n_1 p d"],
    p: Float[np.ndarray, " q"],
) -> tuple[Float[np.ndarray, " D_q"], list[Float[np.ndarray, "D_q columns"]]]:
    """Boundary conditions of the states `Y`, and derivatives by e(a) / S, e(b) / S and p."""
    dtype = jnp.result_type(float)
    given = tuple(jnp.asarray(part, dtype) for part in (Y[0, 0, 0], Y[-1, -1, 0], p))
    slopes = jax.jacfwd(conditions, argnums=(0, 1, 2))(*given)
    left, right, by_p = (np.asarray(part, float) for part in slopes)
    return np.asarray(conditions(*given), float), [left * path.size, right * path.size, by_p]


def error_equation(
    field: Callable[..., Array],
    path: Path,
    between: Path | None = None,
    worst: tuple[float, float] | None = None,
) -> ErrorEquation:
    """The equation for e / S: the first column for the residual, the others for what hides it.

    That is rounding and, where more is known than the nodes tell, a kink, jump or pulse of the
    field that interpolation from them misses.

    Args:
        field: `field(t, y, *p)`.
        path: The model at the nodes.
        between: The model between the nodes.
        worst: Time and size of the largest residual that was found anywhere.
    """
    (N, n, d), S, eps = path.top.shape, path.size, path.eps
    Y = path.Y[:, 1:]
    F, F_t, A, B = linearise(field, path, Y, path.p)
    # Digits are lost in the field's own terms, in the state it is given, and in time.
    lost = np.abs(A) @ np.abs(Y.reshape(N, n, -1, 1) / S[:, None])
    lost = lost[:, :, -d:, 0] + np.abs(B[:, :, -d:]) @ np.abs(path.p)
    lost += (np.abs(path.top) + np.abs(F) + np.abs(path.t[..., None] * np.nan_to_num(F_t))) / S[-d:]
    normal = np.random.default_rng(0).normal
    g = np.zeros((*A.shape[:3], 1 + _REALISATIONS))
    g[:, :, -d:, 0] = (F - path.top) / S[-d:]
    g[:, :, -d:, 1:] = eps * lost[..., None] * normal(size=(N, n, d, _REALISATIONS))
    missed = np.zeros(A.shape[:3])
    if between is not None:
        r = (between.top - linearise(field, between, between.Y[:, 1:], path.p).F) / S[-d:]
        known = np.tensordot(through_nodes(between.s, n), g[:, :, -d:, 0], axes=(1, 1))
        off = np.abs(r + known.swapaxes(0, 1))
        off[:, 0] = np.nan_to_num(off[:, 0])  # an end may be singular
        # Sums over the features round like their largest value in the piece, and interpolation
        # amplifies it; and a hundredth of the residual is no matter.
        hidden = _ROUNDED * eps * lost.max(axis=1, keepdims=True)
        off[off < np.maximum(hidden, _SEEN * np.nanmax(np.abs(r), axis=1, keepdims=True))] = 0
        missed[:, :, -d:] = np.maximum(off, np.append(off[:, 1:], off[:, -1:], axis=1))
        seen = max(np.nanmax(np.linalg.norm(part, axis=-1)) for part in (r * S[-d:], F - path.top))
        if worst is not None and worst[1] > 10 * max(seen, (hidden * S[-d:]).max()):
            piece, _ = locate(path.ends, np.asarray([worst[0]]))
            missed[piece, :, -d:] = np.maximum(missed[piece, :, -d:], worst[1] / S[-d:])
        # Of one sign in a piece, as a pulse is.
        g[:, :, -d:, 1:] += missed[:, :, -d:, None] * normal(size=(N, 1, d, _REALISATIONS))
    jumps = np.zeros((N - 1, len(S), 1 + _REALISATIONS))
    jumps[..., 0] = -path.jumps / S
    jumps[..., 1:] = eps * (path.gained / S)[..., None] * normal(size=jumps[..., 1:].shape)
    return ErrorEquation(path.half, A, B, g, jumps, missed)


def error_conditions(conditions: Callable[[Array, Array, Array], Array], path: Path) -> Conditions:
    """The boundary conditions for e / S, with their rounding."""
    value, slopes = linearise_conditions(conditions, path, path.Y, path.p)
    ends = path.Y[0, 0, 0] / path.size, path.Y[-1, -1, 0] / path.size, path.p
    terms = zip(slopes, ends, strict=True)
    lost = np.sum([np.abs(slope) @ np.abs(size) for slope, size in terms], axis=0)
    signs = np.random.default_rng(1).normal(size=(len(value), _REALISATIONS))
    known = np.concatenate([-value[:, None], path.eps * lost[:, None] * signs], axis=1)
    left, right, by_p = slopes
    return Conditions(left, right, by_p, known)


def locate(ends: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The piece of each time and the scaled time within it, as the model has them."""
    way = np.sign(ends[1] - ends[0])
    index = np.clip(np.searchsorted(way * ends, way * t, side="right") - 1, 0, len(ends) - 2)
    return index, 2 * (t - ends[index]) / (ends[index + 1] - ends[index]) - 1


def interpolate(values: np.ndarray, index: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Interpolate from the start and the nodes of the pieces."""
    matrix = interpolation(s, values.shape[1] - 1)
    found = np.empty((len(s), *values.shape[2:]))
    for j in np.unique(index):  # piece by piece, to hold no copy of all nodes for each place
        mine = index == j
        found[mine] = np.tensordot(matrix[mine], values[j], axes=1)
    return found
