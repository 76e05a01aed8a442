"""What is seen of a window at monitor places, and what it ends with."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.discretisation import (
    Discretisation,
    Span,
    at_boundary,
    at_time,
    derivatives_of_u,
    points_of,
)
from constrainednn._pde.elements.mesh import State


class Watched(NamedTuple):
    """What is seen of a window at monitor places, in units of u, root mean square.

    Attributes:
        residual: Of each element, without what may be round-off.
        start: How far the start of the window is missed.
        boundary: How far the conditions at the ends are missed.
        tail_t: Share of the last two polynomials in time.
        tail_x: The same in space.
    """

    residual: Float[np.ndarray, " E"]
    start: Float[np.ndarray, " E"]
    boundary: float
    tail_t: Float[np.ndarray, " E"]
    tail_x: Float[np.ndarray, " E"]


# A residual of so many times its estimated round-off is round-off.
_NOISE = 3.0


def watched(disc: Discretisation, span: Span, start: State, c: np.ndarray) -> Watched:
    """Look at a window at the monitor places."""
    eqs, table, h, lengths = disc.equations, disc.monitor, span.h, start.lengths
    scales = disc.in_units_of_u(h)
    p = points_of(table, span, start.edges).reshape(-1, 2)

    def residuals(c: np.ndarray) -> np.ndarray:
        v = derivatives_of_u(c, table, eqs.interior, h, lengths)
        r = eqs.interior.values(v.reshape(-1, *v.shape[3:]), p)
        return r.reshape(len(c), -1, r.shape[1]) * scales

    rms = lambda r: np.sqrt((r**2).sum(axis=2).mean(axis=1))  # noqa: E731
    r = residuals(c)
    noise = rms(residuals(c * _rounded(c.shape)) - r)
    first, missed = at_time(-1.0, disc, eqs.order), 0.0
    for o in range(eqs.order):
        jump = np.einsum("i,eijd->ejd", first[o] * 2.0**o, c) - start.S[:, o] * h**o
        missed = missed + (jump**2).sum(axis=(1, 2)) / 2
    ends = []
    for side in (0, 1):
        at = at_boundary(disc, span, start.edges, c, side, table)
        if at is not None:
            ends.append((at.r**2).sum(axis=1).mean())
    squares = (c**2).sum(axis=3)
    whole = squares.sum(axis=(1, 2)) + np.finfo(float).tiny
    return Watched(
        np.maximum(0.0, rms(r) - _NOISE * noise),
        np.sqrt(missed),
        float(np.sqrt(sum(ends))),
        np.sqrt(squares[:, -2:].sum(axis=(1, 2)) / whole),
        np.sqrt(squares[:, :, -2:].sum(axis=(1, 2)) / whole),
    )


def _rounded(shape: tuple[int, ...]) -> np.ndarray:
    """Factors that change coefficients by two units in the last place, up and down in turn."""
    signs = 1 - 2 * (np.indices(shape).sum(axis=0) % 2)
    return 1 + 2 * float(jnp.finfo(jnp.result_type(float)).eps) * signs


def state_at_end(disc: Discretisation, h: float, edges: np.ndarray, c: np.ndarray) -> State:
    """The state at the end of a window."""
    last = at_time(1.0, disc, disc.equations.order)
    parts = [
        np.einsum("i,eijd->ejd", last[o] / (h / 2) ** o, c) for o in range(disc.equations.order)
    ]
    return State(edges, np.stack(parts, axis=1))


def size_of(c: np.ndarray, lengths: Float[np.ndarray, " E"]) -> float:
    """Root mean square over a window."""
    return float(np.sqrt((lengths / lengths.sum()) @ (c**2).sum(axis=(1, 2, 3)) / 4))
