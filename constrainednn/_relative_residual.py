"""The residual of a solution in pieces, relative to what the terms of its equation amount to.

Symbols (others in `_pieces.py`)::

    symbol  shape            meaning
    n       int              times
    r       (n, d)           residual of the equation
    G       (n, d, p + 1, d) its derivative by the j-th derivative of the solution, j = 0 ... p
    size    (n, p + 1, d)    size of these derivatives: that of the state in the piece, and for the
                             highest that of the one below divided by half the length of the piece
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._blocks import flat_value, in_blocks
from constrainednn._calculus import taylor
from constrainednn._path import locate
from constrainednn._pieces import Pieces


class _Moved(eqx.Module):
    """A model whose value and derivatives at one time are changed."""

    model: Pieces
    at: Float[Array, ""]
    by: Float[Array, "p_1 d"]

    def __call__(self, t: Float[Array, ""]) -> PyTree[Array]:
        """Evaluate at one time."""
        change, power = self.by[0], 1.0
        for j in range(1, len(self.by)):
            power = power * (t - self.at) / j
            change = change + power * self.by[j]
        return self.model.unravel(ravel_pytree(self.model(t))[0] + change)

    @property
    def args(self) -> PyTree:
        """Those of the model."""
        return self.model.args

    @property
    def parameters(self) -> Float[Array, " q"]:
        """Those of the model."""
        return self.model.parameters


def _at(
    residual: Callable[[Any, Any], Any], model: Pieces, t: Float[Array, ""]
) -> tuple[Float[Array, " d"], Float[Array, "d p_1 d"], Float[Array, "p d"]]:
    """Residual, its derivatives by those of the solution, and the state."""
    p, d = model.states.shape[1:]

    def moved(by: Float[Array, "p_1 d"]) -> Float[Array, " d"]:
        return flat_value(eqx.Partial(residual, _Moved(model, t, by)), t)

    unmoved = jnp.zeros((p + 1, d), model.head.dtype)
    *state, _ = taylor(eqx.Partial(_flat, model), t, order=p)
    return moved(unmoved), jax.jacfwd(moved)(unmoved), jnp.stack(state)


def relative_residual(
    residual: Callable[[Any, Any], Any],
    model: Pieces,
    t: Float[np.ndarray, " n"],
    *,
    everywhere: bool,
) -> float:
    """Size of a residual at some times, relative to the terms of the equation.

    Each entry is divided by sum |G| size, which follows a change of units of time, of the solution
    and of the equation. A component that has died away need not be resolved: it is as large as a
    rounding error of the largest it was.

    Args:
        residual: `residual(u, t)` of shape (d,).
        model: The solution.
        t: Times that had no say in it.
        everywhere: Take the sizes over all pieces, as for elements that are solved together, and
            not in each.

    Returns:
        The largest over the entries of their root mean square over the times; infinite where one
        of them is not finite.
    """
    r, G, states = in_blocks(eqx.Partial(_at, residual, model), t)
    edges, eps = model.ends.astype(float), float(jnp.finfo(model.head.dtype).eps)
    piece, _ = locate(edges, t)
    size = np.abs(np.asarray(model.states, float)[: model.count])  # at the starts
    np.maximum.at(size, piece, np.abs(states))
    size = np.maximum(size, np.append(size[1:], size[-1:], axis=0))  # and at the ends
    if everywhere:
        size = np.broadcast_to(size.max(axis=0), size.shape)
    size = np.maximum(size, eps * np.maximum.accumulate(size, axis=0))
    half = np.abs(np.diff(edges))[:, None] / 2
    for j in range(1, size.shape[1]):  # a velocity that passes through zero has a size, too
        size[:, j] = np.maximum(size[:, j], eps * size[:, j - 1] / half)
    size = np.concatenate([size, size[:, -1:] / half[:, None]], axis=1)
    terms = np.einsum("nijk,njk->ni", np.abs(G), size[piece])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        relative = np.where(r == 0, 0.0, np.abs(r) / terms)
        worst = np.sqrt(np.mean(relative**2, axis=0)).max()
    return float(worst) if np.isfinite(worst) else np.inf


def relative_conditions(conditions: Callable[[Array, Array, Array], Array], model: Pieces) -> float:
    """What is missed of boundary conditions, relative to their terms: the largest of them.

    Args:
        conditions: `conditions(y_left, y_right, p)`, zero where they hold.
        model: The solution; sizes are those of its components over all pieces.
    """
    edges = model.ends[[0, -1]]
    left, right = in_blocks(eqx.Partial(_flat, model), edges)
    p = np.asarray(model.parameters)
    g, slopes = _linearised(conditions, (left, right, p))
    size = np.abs(np.asarray(model.states, float)[: model.count, 0]).max(axis=0)
    sizes = (np.maximum(size, np.abs(left)), np.maximum(size, np.abs(right)), np.abs(p))
    terms = sum(np.abs(slope) @ part for slope, part in zip(slopes, sizes, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = np.where(g == 0, 0.0, np.abs(g) / terms)
    return float(np.max(np.nan_to_num(missed, nan=np.inf), initial=0.0))


@eqx.filter_jit
def _linearised(conditions: Callable[..., Array], ends: tuple) -> tuple[Array, tuple]:
    return conditions(*ends), jax.jacfwd(conditions, argnums=(0, 1, 2))(*ends)


def _flat(model: Pieces, t: Float[Array, ""]) -> Float[Array, " d"]:
    return ravel_pytree(model(t))[0]
