"""The augmented Lagrangian: constraints that are met in the limit, by multipliers.

f       objective;  c (m,) rows of the soft constraints, scaled by the root of their weights
w (m,)  multipliers
s       penalty: a round lowers f + w^T c + s |c|^2
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from constrainednn._common.arguments import as_count
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.methods.base import (
    NONFINITE,
    AbstractLagrangian,
    AbstractMethod,
    AbstractResidual,
    StepInfo,
)
from constrainednn.methods.first_order import Optax

# Where a round does not lower the violation to this share of it, the penalty grows.
_LESS, _GROWS, _MOST = 0.1, 10.0, 1e8


class _Augmented(AbstractLagrangian):
    lagrangian: AbstractLagrangian
    multipliers: Float[Array, " m"]
    penalty: Float[Array, ""]

    def parts(self, params: PyTree) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        """The objective with the multipliers, and the rows with the penalty."""
        objective, rows = self.lagrangian.parts(params)
        return objective + jnp.vdot(self.multipliers, rows), jnp.sqrt(self.penalty) * rows

    def components(self) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
        """Those of what is augmented."""
        return self.lagrangian.components()


class _State(NamedTuple):
    """Where the method is: `violation` is |c| at the end of the last round."""

    multipliers: Float[Array, " m"]
    penalty: Float[Array, ""]
    violation: Float[Array, ""]
    taken: Int[Array, ""]
    inner: PyTree


class AugmentedLagrangian(AbstractMethod[_State]):
    """Lower an objective under constraints that no projection enforces.

    A weight alone would trade a violation for a lower objective. Here rounds of steps lower the
    objective with multipliers and a penalty, and after each round the multipliers take over what
    the penalty had to hold. The parameters after the last step are the result.

    Residuals of inequalities, `at_most` and `at_least`, have multipliers that only grow, up to
    where the penalty is exact.

    Args:
        inner: Method of the rounds. Default: `Optax(optax.lbfgs())`.
        every: Steps of a round.
        multipliers: "point" has one for each entry of a residual at each training point, for
            constraints that are to hold at each of them; "component" one for each entry and all
            points. The penalty presses every point in both, so that in the end "component" does
            not solve the problem of a constraint on the mean alone.

    Raises:
        TypeError, ValueError: If a setting cannot be right.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), framework 17.3, with rounds of a fixed
        number of steps instead of a tolerance for each.
    """

    inner: Optax
    every: int
    multipliers: Literal["point", "component"]

    def __init__(
        self,
        inner: AbstractMethod | None = None,
        *,
        every: int = 50,
        multipliers: Literal["point", "component"] = "point",
    ):
        inner = Optax(optax.lbfgs()) if inner is None else inner
        if not isinstance(inner, Optax):
            raise BadTypeError(
                "the inner method of AugmentedLagrangian lowers a loss that is no sum of squares: "
                f"write cx.Optax(...), got {shown(inner)}."
            )
        self.inner, self.every = inner, as_count(every, "every of AugmentedLagrangian")
        if multipliers not in ("point", "component"):
            raise BadValueError(
                'multipliers of AugmentedLagrangian is "point" or "component", got '
                f"{shown(multipliers)}."
            )
        self.multipliers = multipliers

    def init(self, residual: AbstractResidual | AbstractLagrangian, params: PyTree) -> _State:
        """No multipliers yet, and the weights of the constraints as the penalty."""
        if not isinstance(residual, AbstractLagrangian):
            raise BadTypeError(
                "AugmentedLagrangian is for problems with an objective. To meet constraints alone "
                "take cx.LevenbergMarquardt(), or leave method= out."
            )
        f, rows = residual.parts(params)
        start = jnp.zeros_like(rows), jnp.ones_like(f), jnp.full_like(f, jnp.inf)
        inner = self.inner.init(_Augmented(residual, start[0], start[1]), params)
        return _State(*start, jnp.asarray(0), inner)

    def step(self, residual: Any, params: PyTree, state: _State) -> tuple[PyTree, _State, StepInfo]:
        """A step of the inner method and, at the end of a round, new multipliers."""
        augmented = _Augmented(residual, state.multipliers, state.penalty)
        params, inner, info = self.inner.step(augmented, params, state.inner)
        state = state._replace(inner=inner, taken=state.taken + 1)
        if state.multipliers.size:
            due = (state.taken % self.every == 0) & (info.verdict != NONFINITE)
            after = lambda: self._next_round(residual, params, state)  # noqa: E731
            state = jax.lax.cond(due, after, lambda: state)
        return params, state, info

    def _next_round(self, residual: AbstractLagrangian, params: PyTree, state: _State) -> _State:
        _, rows = residual.parts(params)
        multipliers = state.multipliers + 2 * state.penalty * rows
        if self.multipliers == "component":
            multipliers = _in_the_mean(multipliers, *residual.components())
        violation = jnp.linalg.norm(rows)
        grown = jnp.minimum(_GROWS * state.penalty, _MOST)
        penalty = jnp.where(violation > _LESS * state.violation, grown, state.penalty)
        # What the inner method has learned is of another function.
        inner = self.inner.init(_Augmented(residual, multipliers, penalty), params)
        return _State(multipliers, penalty, violation, state.taken, inner)


def _in_the_mean(
    multipliers: Float[Array, " m"], numbers: Int[Array, " m"], scales: Float[Array, " m"]
) -> Float[Array, " m"]:
    """The nearest multipliers that are one number for each component, times the rows' scales."""
    sums = lambda values: jnp.zeros_like(values).at[numbers].add(values)  # noqa: E731
    return scales * (sums(scales * multipliers) / jnp.maximum(sums(scales**2), 1e-300))[numbers]
