"""The defect of a model in pieces, as the right-hand side of the equation for its error.

Symbols (others in `error_equation.py`)::

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
from jaxtyping import Array, Bool, Float

from constrainednn._common.batched import in_blocks
from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.linearised.error_equation import (
    NEGLIGIBLE,
    Conditions,
    ErrorEquation,
    through_nodes,
)
from constrainednn._ode.linearised.sampled_solution import Path, groups, locate, states_at
from constrainednn.models.pieces import Pieces

# Random realisations of rounding, as further right-hand sides besides the residual.
REALISATIONS = 8
# Interpolation errors of the residual below this many rounding errors of its terms are rounding.
_ROUNDED = 100
_CHUNK = 16384  # points per interpolation matrix
# A residual between nodes this many times that at the nodes of its piece left no trace at them.
_GLIMPSED = 10


class Equations(NamedTuple):
    """What a solution satisfies: `field(t, y, *p)`, and boundary conditions unless None."""

    field: Callable[..., Array]
    conditions: Callable[[Array, Array, Array], Array] | None


class OnStates(eqx.Module):
    """The field of a boundary value problem with the signature of an initial value problem's."""

    field: Callable[[Array, Array, Array], Array]

    def __call__(
        self, x: Float[Array, ""], y: Float[Array, "1 d"], *p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate at one state; without `p` where there are no parameters."""
        return self.field(x, y[0], *(p or (jnp.zeros(0, y.dtype),)))


class Linearised(NamedTuple):
    """The field along a path and its derivatives with respect to time, state and parameters.

    Attributes:
        F: Value.
        F_t: Derivative with respect to time.
        A: Derivative with respect to the state of the first-order system, for e / S.
        B: Derivative with respect to the parameters, for e / S.
    """

    F: Float[np.ndarray, "N n d"]
    F_t: Float[np.ndarray, "N n d"]
    A: Float[np.ndarray, "N n D D"]
    B: Float[np.ndarray, "N n D q"]


def _linearise_point(field: Callable[..., Array], point: tuple) -> tuple[Array, tuple]:
    # Time separately: if its slope is infinite, zero times that would make the others NaN.
    by_time = jax.jacfwd(field)(*point)
    by_others = jax.jacfwd(lambda *point: field(*point), argnums=tuple(range(1, len(point))))
    return field(*point), (by_time, *by_others(*point))


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
    """Boundary conditions of the states `Y`, and derivatives in e(a) / S, e(b) / S and p."""
    dtype = jnp.result_type(float)
    given = tuple(jnp.asarray(part, dtype) for part in (Y[0, 0, 0], Y[-1, -1, 0], p))
    value, slopes = _conditions_at(conditions, given)
    left, right, by_p = (np.asarray(part, float) for part in slopes)
    return np.asarray(value, float), [left * path.size, right * path.size, by_p]


@compiled
def _conditions_at(conditions: Callable[..., Array], given: tuple) -> tuple[Array, tuple]:
    return conditions(*given), jax.jacfwd(conditions, argnums=(0, 1, 2))(*given)


class Missed(NamedTuple):
    """A kink, jump or pulse of the field that interpolation from the nodes misses.

    Attributes:
        size: Error of interpolating r from the nodes, at probes between them, assigned to the
            neighbouring nodes.
        glimpsed: Pieces where it leaves no trace at the nodes, so that its size is unknown.
    """

    size: Float[np.ndarray, "N n D"]
    glimpsed: Bool[np.ndarray, " N"]


def error_equation(
    field: Callable[..., Array], path: Path, model: Pieces, probes: Float[np.ndarray, " m"]
) -> tuple[ErrorEquation, Missed]:
    """The equation for e / S: the first column for the residual, the others for its noise.

    The noise consists of realisations of rounding and, if something was missed, as many of that.

    Args:
        field: `field(t, y, *p)`.
        path: The model at the nodes.
        model: The model.
        probes: Times at which the residual is evaluated besides the nodes.
    """
    (N, n, d), S, eps = path.top.shape, path.size, path.eps
    at = linearise(field, path.t, path.Y[:, 1:], path.p, S)
    rounding = _rounding_of(path, path.t, path.top, at, np.arange(N)[:, None])
    r = (path.top - at.F) / S[-d:]
    missed = _missed(field, path, model, probes, r, rounding)
    columns = 1 + REALISATIONS * (2 if missed.size.any() else 1)
    normal = np.random.default_rng(0).normal
    g, jumps = np.zeros((*at.A.shape[:3], columns)), np.zeros((N - 1, len(S), columns))
    of_rounding = slice(1, 1 + REALISATIONS)
    g[:, :, -d:, 0] = -r
    g[:, :, -d:, of_rounding] = eps * rounding[..., None] * normal(size=(N, n, d, REALISATIONS))
    jumps[..., 0] = -path.jumps / S
    jump_rounding = path.gained / S
    # If the field jumps at an edge, the rounding of the edge itself matters.
    at_start = np.tensordot(through_nodes(np.asarray([-1.0]), n)[0], at.F, axes=(0, 1))
    abrupt = np.abs(at_start[1:] - at.F[:-1, -1]) / S[-d:]
    jump_rounding[:, -d:] += np.abs(path.ends[1:-1])[:, None] * np.nan_to_num(abrupt)
    jump_rounding = eps * jump_rounding[..., None]
    jumps[..., of_rounding] = jump_rounding * normal(size=(N - 1, len(S), REALISATIONS))
    # One sign in each piece, as for a pulse.
    signs = normal(size=(N, 1, len(S), columns - of_rounding.stop))
    g[..., of_rounding.stop :] = missed.size[..., None] * signs
    return ErrorEquation(path.half, at.A, at.B, g, jumps), missed


def _rounding_of(
    path: Path, t: np.ndarray, top: np.ndarray, at: Linearised, part: np.ndarray
) -> Float[np.ndarray, "N n d"]:
    """Rounding of the residual, in units of eps: of the field's terms, the state and time."""
    d = top.shape[-1]
    # The rounding of a sum over features is that of its largest value in the part.
    state = np.abs(path.Y).max(axis=1).reshape(len(path.half), -1, 1) / path.size[:, None]
    rounding = (np.abs(at.A[:, :, -d:]) @ state[part])[..., 0]
    rounding += np.abs(at.B[:, :, -d:]) @ np.abs(path.p)
    terms = (
        np.abs(top)
        + np.abs(at.F)
        + np.abs(t[..., None] * np.nan_to_num(at.F_t, posinf=0, neginf=0))
    )
    return rounding + terms / path.size[-d:]


def _missed(
    field: Callable[..., Array],
    path: Path,
    model: Pieces,
    probes: Float[np.ndarray, " m"],
    at_nodes: Float[np.ndarray, "N n d"],
    rounding: Float[np.ndarray, "N n d"],
) -> Missed:
    """Where the residual at `probes` differs from its interpolation from the nodes."""
    part, s = locate(path.ends, probes)
    Y, top = states_at(model, probes)
    S, (N, n, d) = path.size, at_nodes.shape
    at = linearise(field, probes[None], Y[None], path.p, S)
    rounding_here = _rounding_of(path, probes[None], top[None], at, part[None])[0]
    r = (top - at.F[0]) / S[-d:]
    interpolated, hidden = np.empty_like(r), np.empty_like(r)
    for chunk in np.array_split(np.arange(len(probes)), 1 + len(probes) // _CHUNK):
        from_nodes = through_nodes(s[chunk], n)
        for j, mine in groups(part[chunk]):
            here, matrix = chunk[mine], from_nodes[mine]
            interpolated[here] = matrix @ at_nodes[j]
            hidden[here] = np.abs(matrix) @ rounding[j] + rounding_here[here]
    hidden *= _ROUNDED * path.eps
    off = np.abs(r - interpolated)
    largest_at_nodes = np.abs(at_nodes).max(axis=1)
    largest = largest_at_nodes.copy()
    np.maximum.at(largest, part, np.nan_to_num(np.abs(r)))
    off[off < np.maximum(hidden, NEGLIGIBLE * largest[part])] = 0
    off[~np.isfinite(hidden)] = 0  # the field may be singular at an end
    size, glimpsed = np.zeros((N, n, len(S))), np.zeros(N, bool)
    after = np.clip(np.searchsorted(path.s, s), 0, n - 1)
    for beside in (after, np.maximum(after - 1, 0)):
        np.maximum.at(size[:, :, -d:], (part, beside), off)
    glimpsed[part[(off > _GLIMPSED * largest_at_nodes[part]).any(axis=1)]] = True
    return Missed(size, glimpsed)


def error_conditions(
    conditions: Callable[[Array, Array, Array], Array], path: Path, columns: int
) -> Conditions:
    """The boundary conditions for e / S, with their rounding; columns as in `error_equation`."""
    value, slopes = linearise_conditions(conditions, path, path.Y, path.p)
    ends = path.Y[0, 0, 0] / path.size, path.Y[-1, -1, 0] / path.size, path.p
    terms = zip(slopes, ends, strict=True)
    rounding = np.sum([np.abs(slope) @ np.abs(size) for slope, size in terms], axis=0)
    signs = np.random.default_rng(1).normal(size=(len(value), REALISATIONS))
    rhs = np.zeros((len(value), columns))
    rhs[:, 0], rhs[:, 1 : 1 + REALISATIONS] = -value, path.eps * rounding[:, None] * signs
    left, right, by_p = slopes
    return Conditions(left, right, by_p, rhs)
