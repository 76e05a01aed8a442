"""The start of a window: what is given at first, then the end of the window before."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.compilation.closures import compiled
from constrainednn._pde.conditions import FlatStart, flat
from constrainednn._pde.stationary.discretisation import gauss_cube, tables
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pieces.mesh import places
from constrainednn.models.space import SpacePieces

# Places in one call of a compiled state.
_CHUNK = 1024


class GivenState(eqx.Module):
    """What the user's start gives, as a function of a point (t, x, y)."""

    start: FlatStart

    def __call__(self, p: Float[Array, "3"]) -> Float[Array, "o d"]:
        """Values and derivatives by time."""
        return self.start(p[1:])


class LastState(eqx.Module):
    """The end of a window that has been solved.

    Attributes:
        boxes: Its elements.
        order: Derivatives by time, the value among them.
    """

    boxes: SpacePieces
    order: int = eqx.field(static=True)

    def __call__(self, p: Float[Array, "3"]) -> Float[Array, "o d"]:
        """Values and derivatives by time."""
        return self.boxes.derivatives(p, [(k, 0, 0) for k in range(self.order)])


class StartCondition(eqx.Module):
    """What u and, for order two, its derivative by time miss of a state."""

    state: Callable[[Array], Array]
    order: int = eqx.field(static=True)

    def __call__(self, u: Callable, p: Float[Array, "3"]) -> Float[Array, " n"]:
        """The differences at a point of the start."""
        along = jnp.zeros_like(p).at[0].set(1)
        value, slope = jax.jvp(u, (p,), (along,))
        found = (value, slope)[: self.order]
        return jnp.concatenate([flat(part) for part in found]) - self.state(p).ravel()


@compiled
def _states(state: Callable, p: Array) -> Array:
    return jax.vmap(state)(p)


def states_at(state: Callable, p: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n o d"]:
    """A state at many points: compiled once, however many there are."""
    chunks = np.pad(p, [(0, -len(p) % _CHUNK), (0, 0)], mode="edge").reshape(-1, _CHUNK, 3)
    found = [np.asarray(_states(state, jnp.asarray(chunk)), float) for chunk in chunks]
    return np.concatenate(found)[: len(p)]


def held_in_time(state: Callable, mesh: Mesh, width: int) -> Float[np.ndarray, "N n d"]:
    """Coefficients of what keeps the value of a state, on the elements of a window."""
    s, weights = gauss_cube(width, 2)
    p = places(mesh.low[:, 1:], mesh.high[:, 1:], s)
    at = np.broadcast_to(mesh.low[:, None, :1], (*p.shape[:2], 1))
    points = np.concatenate([at, p], axis=2)
    values = states_at(state, points.reshape(-1, 3))[:, 0].reshape(*p.shape[:2], -1)
    table = tables(s, width, ((0, 0),))[0] * weights[:, None] * 4
    c = np.zeros((len(p), width, width**2, values.shape[2]))
    c[:, 0] = np.sqrt(2) * np.einsum("mk,nmd->nkd", table, values)
    return c.reshape(len(p), -1, values.shape[2])


def from_state(equations: Any, state: Callable, order: int) -> Any:
    """Equations whose start is a state."""
    first = equations.faces[0]
    first = dataclasses.replace(first, fn=StartCondition(state, order))
    return dataclasses.replace(equations, faces=(first, *equations.faces[1:]))
