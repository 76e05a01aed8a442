"""All pieces of a boundary value problem solved together: damped Gauss-Newton by block QR.

Each element has its own head; neighbours share the value at their common edge. The residual of all
elements is minimised in least squares, with the boundary conditions as additional rows. The head
of an element couples to no other, so it is eliminated locally by QR; a small problem remains for
the values at the edges and the unknown parameters.

Symbols (others in `models/pieces.py`)::

    symbol  shape          meaning
    N       int            elements; those that pad have length zero and hold a constant
    y       (N + 1, d)     values at the edges
    b       (N, K - 1, d)  heads without their first row, which is (y_right - y_left) / sqrt(2):
                           only the first feature has an integral over the whole element
    p       (q,)           unknown parameters
    r       (m, d)         residual of an element in scaled time
    A, B    (m, d, .)      Jacobians of the scaled field for the state and the parameters

Source:
    Least-squares collocation: Ascher, SIAM J. Numer. Anal. 15 (1978) 478. Elimination of interior
    unknowns before the edges: de Boor and Weiss, ACM TOMS 6 (1980) 80. Damping added as rows, as in
    More, LNM 630 (1977) 105.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.linearised.element_step import (
    BoundaryProblem,
    Unknowns,
    largest_sizes,
    linearised_rows,
    monitor_residual,
    newton_step,
    residual_rows,
    states_at,
    stiffness,
)
from constrainednn._pieces.gauss_newton import Step, begun, minimise
from constrainednn.models.pieces import Features


class Newton(NamedTuple):
    """The state of Newton's method after some steps.

    Attributes:
        unknowns: The best so far.
        steps: Steps tried.
        damping: Damping of the next step.
        unfinished: False if further steps would change nothing.
        solved: True if the last step was at rounding level.
        condition: Smallest over largest singular value of the last undamped system.
        error: Size of the monitor residual of each element, relative to the solution.
        noise: The part of it that may be rounding.
        moved: Largest change of the solution and the parameters in the last step, relative to
            their sizes; infinite if the step was rejected.
        slopes: Jacobian of the scaled field for the relative state, averaged over each element.
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


class _Notes(NamedTuple):
    """Results of a step besides the unknowns; see `Newton`.

    Attributes:
        sizes: Largest sizes so far of components and parameters. If they followed the unknowns
            down, every step would weight the rows differently.
        scale: What the residual is relative to.
        condition: As in `Newton`.
        moved: As in `Newton`, for a step that may still be rejected.
        slopes: As in `Newton`.
    """

    sizes: tuple[Float[Array, " d"], Float[Array, " q"]]
    scale: Float[Array, "N d"]
    condition: Float[Array, ""]
    moved: Float[Array, ""]
    slopes: Float[Array, "N d d"]


@compiled
def solve_elements(
    statement: BoundaryProblem,
    nodes: Features,
    weights: Float[Array, " m"],
    monitor: Features,
    edges: Float[Array, " N_1"],
    start: Unknowns,
    least: tuple[Float[Array, " d"], Float[Array, " q"]],
    damping: Float[Array, ""],
    limit: Int[Array, ""],
) -> Newton:
    """Minimise the residual of all elements and the boundary conditions.

    Args:
        statement: The equations.
        nodes: Features at the Gauss nodes.
        weights: Gauss weights.
        monitor: Features at the monitor points.
        edges: Ends of the elements; the last may repeat, as padding.
        start: Initial unknowns.
        least: Sizes of components and parameters below which nothing is resolved.
        damping: Damping of the first step.
        limit: Largest number of steps.
    """
    system = _Elements(statement, nodes, jnp.sqrt(weights)[:, None], edges)
    blank = jnp.zeros((*start.y[1:].shape, start.y.shape[1]))
    number = lambda value: jnp.asarray(value, edges.dtype)  # noqa: E731
    notes = _Notes(least, jnp.ones_like(start.y[1:]), number(1.0), number(jnp.inf), blank)
    end = minimise(system.propose, begun(start, notes, damping), limit)
    last = end.notes
    error, noise = monitor_residual(statement, monitor, edges, end.unknowns, last.scale)
    return Newton(
        end.unknowns,
        end.steps,
        end.damping,
        end.unfinished,
        end.solved,
        last.condition,
        error,
        noise,
        jnp.where(end.accepted, last.moved, jnp.inf),
        last.slopes,
    )


class _Elements(eqx.Module):
    """All elements and the conditions, linearised and condensed for a step."""

    statement: BoundaryProblem
    nodes: Features
    root: Float[Array, "m 1"]
    edges: Float[Array, " N_1"]

    def propose(self, unknowns: Unknowns, damping: Float[Array, ""], notes: _Notes) -> Step:
        """The damped step in scaled unknowns."""
        nodes, conditions = self.nodes, self.statement.conditions
        sizes = jax.tree.map(jnp.maximum, notes.sizes, largest_sizes(unknowns, nodes))
        r, A, B = linearised_rows(self.statement, nodes, self.edges, unknowns)
        G = jax.jacfwd(conditions, argnums=(0, 1, 2))(unknowns.y[0], unknowns.y[-1], unknowns.p)
        by_left, by_right, by_p = (jnp.abs(part) for part in G)
        of_condition = by_left @ sizes[0] + by_right @ sizes[0] + by_p @ sizes[1]
        scale = sizes[0][None] * stiffness(A), of_condition + jnp.finfo(r.dtype).tiny
        rows = self._scaled(r, unknowns, scale)
        elements = jnp.sum(self.edges[:-1] != self.edges[-1])
        change, condition = newton_step(
            nodes, self.root, (A, B), rows, G, scale, sizes, damping, elements
        )
        trial = jax.tree.map(jnp.add, unknowns, change)
        r = residual_rows(self.statement, nodes, self.edges, trial)
        losses = _sum_of_squares(rows), _sum_of_squares(self._scaled(r, trial, scale))
        inside = jnp.max(jnp.abs(states_at(nodes, change)), axis=(0, 1))
        moved = jnp.max(jnp.maximum(inside, jnp.max(jnp.abs(change.y), axis=0)) / sizes[0])
        moved = jnp.maximum(moved, jnp.max(jnp.abs(change.p) / sizes[1], initial=0))
        heads = jnp.max(jnp.abs(change.b) / sizes[0][None, None], initial=0)
        notes = _Notes(
            sizes,
            scale[0],
            jnp.where(damping == 0, condition, notes.condition),
            moved,
            jnp.mean(A, axis=1) * (sizes[0][None] / sizes[0][:, None])[None],
        )
        return Step(change, jnp.maximum(moved, heads), losses, notes)

    def _scaled(self, r: Array, unknowns: Unknowns, scale: tuple) -> tuple[Array, Array]:
        of_state, of_condition = scale
        g = self.statement.conditions(unknowns.y[0], unknowns.y[-1], unknowns.p)
        return r * self.root[None] / of_state[:, None], g / of_condition


def _sum_of_squares(rows: tuple[Array, Array]) -> Float[Array, ""]:
    r, g = rows
    return jnp.sum(r**2) + jnp.sum(g**2)
