"""All pieces of a boundary value problem solved together: damped Gauss-Newton by block QR.

Each element has its own head; neighbours share the value between them. The residual of all
elements is minimised in least squares, with the boundary conditions as further rows. The head of
an element meets no other, so it is eliminated there by QR; what is left is a small problem for the
values at the edges and the unknown parameters.

Symbols (others in `_pieces.py`)::

    symbol  shape          meaning
    N       int            elements; a padded one has length zero and holds a constant
    y       (N + 1, d)     values at the edges
    b       (N, K - 1, d)  heads without their first row, which is (y_right - y_left) / sqrt(2):
                           only the first feature has an integral over the whole element
    p       (q,)           unknown parameters
    r       (m, d)         residual of an element in scaled time
    A, B    (m, d, .)      derivatives of the scaled field by the state and the parameters

Source:
    Least-squares collocation: Ascher, SIAM J. Numer. Anal. 15 (1978) 478. Elimination of interior
    unknowns before the edges: de Boor and Weiss, ACM TOMS 6 (1980) 80. Damping added as rows, as in
    More, LNM 630 (1977) 105.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.linearised.element_step import (
    Statement,
    Unknowns,
    largest_sizes,
    linearised_rows,
    monitor_residual,
    newton_step,
    residual_rows,
    states_at,
    stiffness,
)
from constrainednn.models.pieces import Features

_DAMPING = 1e-3  # first one tried after a step failed, in scaled unknowns
_LARGEST_DAMPING = 1e8


class Newton(NamedTuple):
    """Where Newton's method got to.

    Attributes:
        unknowns: The best found.
        steps: Steps tried.
        damping: Of the next step.
        unfinished: False if further steps would change nothing.
        solved: True if the last step was rounding.
        condition: Smallest over largest singular value of the last undamped system.
        error: Size of the monitor residual of each element, relative to the solution.
        noise: How much of it may be rounding.
        moved: How far the last step moved the solution and the parameters, relative to their
            sizes; infinite where it was refused.
        slopes: Derivative of the scaled field by the state, in relative units: mean of an element.
    """

    unknowns: Unknowns
    steps: Int[Array, ""]
    damping: Float[Array, ""]
    unfinished: Array
    solved: Array
    condition: Float[Array, ""]
    error: Float[Array, " N"]
    noise: Float[Array, " N"]
    moved: Float[Array, ""]
    slopes: Float[Array, "N d d"]


class _Carry(NamedTuple):
    unknowns: Unknowns
    damping: Float[Array, ""]
    size: Float[Array, ""]
    steps: Int[Array, ""]
    condition: Float[Array, ""]
    sizes: tuple[Float[Array, " d"], Float[Array, " q"]]
    scale: Float[Array, "N d"]
    moved: Float[Array, ""]
    slopes: Float[Array, "N d d"]


@compiled
def solve_elements(
    statement: Statement,
    nodes: Features,
    weights: Float[Array, " m"],
    monitor: Features,
    edges: Float[Array, " N_1"],
    start: Unknowns,
    least: tuple[Float[Array, " d"], Float[Array, " q"]],
    damping: Float[Array, ""],
    limit: Int[Array, ""],
) -> Newton:
    """Minimise the residual of all elements and the boundary conditions from a start.

    Args:
        statement: The equations.
        nodes: Features at the Gauss nodes.
        weights: Gauss weights.
        monitor: Features at the monitor points.
        edges: Ends of the elements; the last may repeat, as padding.
        start: First unknowns.
        least: Sizes of components and parameters below which nothing is resolved.
        damping: Of the first step.
        limit: Largest number of steps.
    """
    eps = jnp.finfo(edges.dtype).eps
    root = jnp.sqrt(weights)[:, None]
    elements = jnp.sum(edges[:-1] != edges[-1])

    def scaled(r: Array, unknowns: Unknowns, scale: tuple) -> tuple[Array, Array]:
        of_state, of_condition = scale
        g = statement.conditions(unknowns.y[0], unknowns.y[-1], unknowns.p)
        return r * root[None] / of_state[:, None], g / of_condition

    def loss_of(unknowns: Unknowns, scale: tuple) -> Array:
        r, g = scaled(residual_rows(statement, nodes, edges, unknowns), unknowns, scale)
        return jnp.sum(r**2) + jnp.sum(g**2)

    def newton(carry: _Carry) -> _Carry:
        unknowns, damping = carry.unknowns, carry.damping
        # Sizes that may fall again as the unknowns do would weigh the rows anew in every step.
        size = jax.tree.map(jnp.maximum, carry.sizes, largest_sizes(unknowns, nodes))
        r, A, B = linearised_rows(statement, nodes, edges, unknowns)
        G = jax.jacfwd(statement.conditions, argnums=(0, 1, 2))(
            unknowns.y[0], unknowns.y[-1], unknowns.p
        )
        by_left, by_right, by_p = (jnp.abs(part) for part in G)
        of_condition = by_left @ size[0] + by_right @ size[0] + by_p @ size[1]
        scale = size[0][None] * stiffness(A), of_condition + jnp.finfo(edges.dtype).tiny
        r, g = scaled(r, unknowns, scale)
        loss = jnp.sum(r**2) + jnp.sum(g**2)
        step, condition = newton_step(
            nodes, root, (A, B), (r, g), G, scale, size, damping, elements
        )
        trial = jax.tree.map(jnp.add, unknowns, step)
        trial_loss = loss_of(trial, scale)
        inside = jnp.max(jnp.abs(states_at(nodes, step)), axis=(0, 1))
        outer = jnp.max(jnp.maximum(inside, jnp.max(jnp.abs(step.y), axis=0)) / size[0])
        outer = jnp.maximum(outer, jnp.max(jnp.abs(step.p) / size[1], initial=0))
        moved = jnp.maximum(outer, jnp.max(jnp.abs(step.b) / size[0][None, None], initial=0))
        # Near the minimum losses differ by rounding only; a small step is then taken on trust.
        better = (trial_loss < loss) | (jnp.isfinite(trial_loss) & (moved < eps**0.5))
        keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        lower = jnp.where(damping > 1e-3 * _DAMPING, damping / 10, 0.0)
        return _Carry(
            jax.tree.map(keep, trial, unknowns),
            jnp.where(better, lower, jnp.maximum(10 * damping, _DAMPING)),
            # A damped step is short without being near the end.
            jnp.where(better & (damping == 0), moved, far),
            carry.steps + 1,
            jnp.where(damping == 0, condition, carry.condition),
            size,
            scale[0],
            jnp.where(better, outer, jnp.inf),
            jnp.mean(A, axis=1) * (size[0][None] / size[0][:, None])[None],
        )

    def unfinished(carry: _Carry) -> Array:
        return (carry.size > eps**0.6) & (carry.damping < _LARGEST_DAMPING)

    number = lambda value: jnp.asarray(value, edges.dtype)  # noqa: E731
    zero = jnp.asarray(0)
    far = number(jnp.finfo(edges.dtype).max)
    end = lax.while_loop(
        lambda carry: unfinished(carry) & (carry.steps < limit),
        newton,
        _Carry(
            start,
            damping,
            far,
            zero,
            number(1.0),
            least,
            jnp.ones_like(start.y[1:]),
            far,
            jnp.zeros((*start.y[1:].shape, start.y.shape[1])),
        ),
    )
    error, noise = monitor_residual(statement, monitor, edges, end.unknowns, end.scale)
    return Newton(
        end.unknowns,
        end.steps,
        end.damping,
        unfinished(end),
        end.size <= eps**0.4,
        end.condition,
        error,
        noise,
        end.moved,
        end.slopes,
    )
