"""Damped Gauss-Newton: one loop for all problems that are solved in pieces.

The loop is independent of equation and mesh: a function proposes a step of the unknowns with the
given damping, and reports its effect. The loop decides whether the step is accepted, how much the
next one is damped, and when to stop. It runs compiled, by `minimise`, or step by step on the host,
by `advance`.

Source:
    Damping added as rows, in scaled unknowns: More, LNM 630 (1977) 105.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

_DAMPING = 1e-3  # first one tried after a step failed, in scaled unknowns
_LARGEST_DAMPING = 1e8
# Steps on trust are looked at after so many, and end where one is twice as long as that before.
_TRUSTED, _GROWN = 3, 2


class Step(NamedTuple):
    """A step that is proposed.

    Attributes:
        change: Of the unknowns.
        size: The largest of it, relative to the unknowns.
        losses: Sum of squares before and after it, in the same weights; None where steps are taken
            on trust, since a smaller piece is better than a damped step.
        notes: What the next proposal is given.
    """

    change: PyTree[Array]
    size: Float[Array, ""]
    losses: tuple[Float[Array, ""], Float[Array, ""]] | None
    notes: PyTree[Array]


class Iteration(NamedTuple):
    """Where the loop got to.

    Attributes:
        unknowns: The best found.
        damping: Of the next step.
        size: Of the last step; the largest number where there was none, or damped or refused.
        steps: Steps tried.
        before: Size of the step before, where steps are taken on trust; else the largest number.
        accepted: False if the last one was refused.
        notes: What the last proposal left.
    """

    unknowns: PyTree[Array]
    damping: Float[Array, ""]
    size: Float[Array, ""]
    steps: Int[Array, ""]
    before: Float[Array, ""]
    accepted: Bool[Array, ""]
    notes: PyTree[Array]

    @property
    def unfinished(self) -> Bool[Array, ""]:
        """False if further steps would change nothing.

        Computed where the loop asks: a flag that its body carries cost a march a tenth of its time.
        """
        # Convergence is quadratic: after a step of eps^0.6 the next would be rounding.
        far = self.size > jnp.finfo(self.size.dtype).eps ** 0.6
        grown = (self.steps > _TRUSTED) & (self.size > _GROWN * self.before)
        return far & (self.damping < _LARGEST_DAMPING) & ~grown

    @property
    def solved(self) -> Bool[Array, ""]:
        """True if the last step was as good as rounding."""
        return self.size < jnp.finfo(self.size.dtype).eps ** 0.4


Propose = Callable[[PyTree[Array], Float[Array, ""], PyTree[Array]], Step]


def begun(
    unknowns: PyTree[Array], notes: PyTree[Array] = (), damping: Float[Array, ""] | None = None
) -> Iteration:
    """Before the first step."""
    dtype = jnp.result_type(*jax.tree.leaves(unknowns))
    far = jnp.asarray(jnp.finfo(dtype).max, dtype)
    damping = jnp.zeros((), dtype) if damping is None else damping
    return Iteration(unknowns, damping, far, jnp.asarray(0), far, jnp.asarray(True), notes)


def advance(propose: Propose, at: Iteration) -> Iteration:
    """Try one step."""
    step = propose(at.unknowns, at.damping, at.notes)
    trial, steps = jax.tree.map(jnp.add, at.unknowns, step.change), at.steps + 1
    if step.losses is None:
        # What does not change costs nothing in a compiled loop.
        return Iteration(trial, at.damping, step.size, steps, at.size, at.accepted, step.notes)
    before, after = step.losses
    limits = jnp.finfo(step.size.dtype)
    # Near the minimum losses differ by rounding only; a small step is then taken on trust.
    better = (after < before) | (jnp.isfinite(after) & (step.size < limits.eps**0.5))
    keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
    lower = jnp.where(at.damping > 1e-3 * _DAMPING, at.damping / 10, 0.0)
    damping = keep(lower, jnp.maximum(10 * at.damping, _DAMPING))
    # A damped step is short without being near the end.
    size = jnp.where(better & (at.damping == 0), step.size, limits.max)
    unknowns = jax.tree.map(keep, trial, at.unknowns)
    return Iteration(unknowns, damping, size, steps, at.before, better, step.notes)


def minimise(propose: Propose, start: Iteration, limit: Int[Array, ""] | int) -> Iteration:
    """Take steps until none is left to take, or `limit` of them."""
    unfinished = lambda at: at.unfinished & (at.steps < limit)  # noqa: E731
    return lax.while_loop(unfinished, lambda at: advance(propose, at), start)
