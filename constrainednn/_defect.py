"""The defect of a model in pieces, as the right-hand side of the equation its error obeys.

Symbols (others in `_error_equation.py`)::

    symbol  shape       meaning
    Y       (p, d)      state: value and, for order two, velocity; D = p d
    F       (N, n, d)   field at the nodes; the defect is u^(p) - F
    S       (D,)        size of each component over the whole solution; the equation is for e / S
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._blocks import in_blocks
from constrainednn._error_equation import Conditions, ErrorEquation, through_nodes
from constrainednn._path import Path, groups, locate, states_at
from constrainednn._pieces import Pieces

# Realisations of rounding that are carried along with the residual.
_REALISATIONS = 8
# A difference between the residual and what its nodes tell is rounding below this many times the
# rounding of its terms, or too small to matter below this share of it.
_ROUNDED = 100
_SEEN = 1e-2


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
    t: Float[np.ndarray, "N n"],
    Y: Float[np.ndarray, "N n p d"],
    p: Float[np.ndarray, " q"],
    S: Float[np.ndarray, " D"],
) -> Linearised:
    """Linearise at times `t` and states `Y`, in units of `S`."""
    N, n, order, d = Y.shape
    D, dtype = order * d, jnp.result_type(float)
    points = (
        t.ravel(),
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
    field: Callable[..., Array], path: Path, model: Pieces, looks: Float[np.ndarray, " m"]
) -> ErrorEquation:
    """The equation for e / S: the first column for the residual, the others for what hides it.

    That is rounding and a kink, jump or pulse of the field that interpolation from the nodes
    misses, where looks elsewhere tell of one.

    Args:
        field: `field(t, y, *p)`.
        path: The model at the nodes.
        model: The model.
        looks: Times to look at besides the nodes.
    """
    (N, n, d), S, eps = path.top.shape, path.size, path.eps
    at = linearise(field, path.t, path.Y[:, 1:], path.p, S)
    lost = _lost(path, path.t, path.top, at, np.arange(N)[:, None])
    normal = np.random.default_rng(0).normal
    g = np.zeros((*at.A.shape[:3], 1 + _REALISATIONS))
    g[:, :, -d:, 0] = (at.F - path.top) / S[-d:]
    g[:, :, -d:, 1:] = eps * lost[..., None] * normal(size=(N, n, d, _REALISATIONS))
    missed = np.zeros(at.A.shape[:3])
    missed[:, :, -d:] = _missed(field, path, model, looks, g[:, :, -d:, 0], lost)
    # Of one sign in a piece, as a pulse is.
    g[..., 1:] += missed[..., None] * normal(size=(N, 1, len(S), _REALISATIONS))
    jumps = np.zeros((N - 1, len(S), 1 + _REALISATIONS))
    jumps[..., 0] = -path.jumps / S
    jumps[..., 1:] = eps * (path.gained / S)[..., None] * normal(size=jumps[..., 1:].shape)
    return ErrorEquation(path.half, at.A, at.B, g, jumps, missed)


def _lost(
    path: Path, t: np.ndarray, top: np.ndarray, at: Linearised, part: np.ndarray
) -> Float[np.ndarray, "N n d"]:
    """What the residual loses by one rounding: of the field's terms, its state, and time."""
    d = top.shape[-1]
    # A sum over features rounds like its largest value in the part.
    state = np.abs(path.Y).max(axis=1).reshape(len(path.half), -1, 1) / path.size[:, None]
    lost = (np.abs(at.A[:, :, -d:]) @ state[part])[..., 0]
    lost += np.abs(at.B[:, :, -d:]) @ np.abs(path.p)
    terms = np.abs(top) + np.abs(at.F) + np.abs(t[..., None] * np.nan_to_num(at.F_t))
    return lost + terms / path.size[-d:]


def _missed(
    field: Callable[..., Array],
    path: Path,
    model: Pieces,
    looks: Float[np.ndarray, " m"],
    g: Float[np.ndarray, "N n d"],
    lost: Float[np.ndarray, "N n d"],
) -> Float[np.ndarray, "N n d"]:
    """How much the residual at `looks` differs from what the nodes tell, at the nodes beside."""
    part, s = locate(path.ends, looks)
    Y, top = states_at(model, looks)
    S, (_, n, d) = path.size, g.shape
    at = linearise(field, looks[None], Y[None], path.p, S)
    lost_here = _lost(path, looks[None], top[None], at, part[None])[0]
    r = (top - at.F[0]) / S[-d:]
    told, hidden = np.empty((2, *r.shape))
    for j, mine in groups(part):
        from_nodes = through_nodes(s[mine], n)
        told[mine] = -from_nodes @ g[j]
        hidden[mine] = _ROUNDED * path.eps * (np.abs(from_nodes) @ lost[j] + lost_here[mine])
    off = np.abs(r - told)
    largest = np.abs(g).max(axis=1)
    np.maximum.at(largest, part, np.nan_to_num(np.abs(r)))
    off[off < np.maximum(hidden, _SEEN * largest[part])] = 0
    off[~np.isfinite(hidden)] = 0  # an end may be singular
    found, after = np.zeros_like(g), np.clip(np.searchsorted(path.s, s), 0, n - 1)
    for beside in (after, np.maximum(after - 1, 0)):
        np.maximum.at(found, (part, beside), off)
    return found


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
