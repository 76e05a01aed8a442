"""The residual of a solution in pieces, relative to the terms of its equation.

Symbols (others in `models/pieces.py`)::

    symbol  shape         meaning
    n       int           times
    r       (n, d)        residual of the equation, M u^(p) - f
    A       (n, d, p, d)  derivative of f with respect to the state
    size    (N, p, d)     size of the state in each piece
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from constrainednn._common.batched import in_blocks
from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.linearised.defect import linearise
from constrainednn._ode.linearised.sampled_solution import locate, states_at
from constrainednn.models.pieces import Pieces

# Numbers in the derivatives that are held at once.
_AT_ONCE = 1 << 22


def relative_residual(
    field: Callable[..., Array],
    mass: Float[Array, "d d"] | None,
    model: Pieces,
    t: Float[np.ndarray, " n"],
    *,
    p: Float[np.ndarray, " q"],
    everywhere: bool,
) -> float:
    """Size of a residual at some times, relative to the terms of the equation.

    Each entry is divided by |M| |u^(p)| + |A| |u|, so that the units of time, of the solution and
    of the equation do not matter. The size of a derivative is that of the next lower one over half
    the length of the piece. A component that has decayed need not be resolved: its size is at least
    a rounding error of its largest value so far.

    Args:
        field: `field(t, y, *p)`, the highest derivative for a state of shape (p, d).
        mass: Mass matrix; None for the identity.
        model: The solution.
        t: Times that were not used in the solve.
        p: Unknown parameters that the field takes, if there are any.
        everywhere: Take sizes over all pieces, as for elements that are solved together, instead of
            in each piece.

    Returns:
        The root mean square over the times, of the entry where that is largest; infinite if one of
        them is not finite.
    """
    edges, eps = model.ends.astype(float), float(jnp.finfo(model.head.dtype).eps)
    (Y, top), (piece, _) = states_at(model, t), locate(edges, t)
    order, d = Y.shape[1:]
    half = np.abs(np.diff(edges))[:, None] / 2
    size = _sizes(model, Y, piece, eps * half**-1, everywhere=everywhere)
    M = np.eye(d) if mass is None else np.asarray(mass, float)
    squares = np.zeros(d)
    chunks = np.array_split(np.arange(len(t)), 1 + len(t) * (order * d) ** 2 // _AT_ONCE)
    for here in chunks:
        at = linearise(field, t[None, here], Y[None, here], p, np.ones(order * d))
        A = np.abs(at.A[0, :, -d:]).reshape(-1, d, order, d)
        own = size[piece[here]]
        terms = np.einsum("nijk,njk->ni", A, own)
        terms += (own[:, -1] / half[piece[here]]) @ np.abs(M).T
        r = top[here] @ M.T - at.F[0]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            squares += np.sum(np.where(r == 0, 0.0, np.abs(r) / terms) ** 2, axis=0)
    worst = np.sqrt(squares / len(t)).max()
    return float(worst) if np.isfinite(worst) else np.inf


def _sizes(
    model: Pieces,
    Y: Float[np.ndarray, "n p d"],
    piece: np.ndarray,
    least: Float[np.ndarray, "N 1"],
    *,
    everywhere: bool,
) -> Float[np.ndarray, "N p d"]:
    """Sizes of the state in each piece, at its ends and at the times in it."""
    size = np.abs(np.asarray(model.states, float)[: model.count])
    np.maximum.at(size, piece, np.abs(Y))
    size = np.maximum(size, np.append(size[1:], size[-1:], axis=0))
    if everywhere:
        size = np.broadcast_to(size.max(axis=0), size.shape)
    size = np.maximum(
        size, float(jnp.finfo(model.head.dtype).eps) * np.maximum.accumulate(size, axis=0)
    )
    for j in range(1, size.shape[1]):  # a velocity that passes through zero has a size too
        size[:, j] = np.maximum(size[:, j], least * size[:, j - 1])
    return size


def relative_conditions(conditions: Callable[[Array, Array, Array], Array], model: Pieces) -> float:
    """Largest residual of the boundary conditions, relative to their terms.

    Args:
        conditions: `conditions(y_left, y_right, p)`, zero where they hold.
        model: The solution; sizes are those of its components over all pieces.
    """
    edges = model.ends[[0, -1]]
    left, right = in_blocks(eqx.Partial(_flat, model), edges)
    p = np.asarray(model.parameters)
    g, slopes = _linearised(conditions, (left, right, p))
    inside = np.asarray(model.states, float)[: model.count, 0]
    size = np.abs(np.vstack([inside, left, right])).max(axis=0)
    terms = sum(
        np.abs(slope) @ part for slope, part in zip(slopes, (size, size, np.abs(p)), strict=True)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = np.where(g == 0, 0.0, np.abs(g) / terms)
    return float(np.max(np.nan_to_num(missed, nan=np.inf), initial=0.0))


@compiled
def _linearised(conditions: Callable[..., Array], ends: tuple) -> tuple[Array, tuple]:
    return conditions(*ends), jax.jacfwd(conditions, argnums=(0, 1, 2))(*ends)


def _flat(model: Pieces, t: Float[Array, ""]) -> Float[Array, " d"]:
    return ravel_pytree(model(t))[0]
