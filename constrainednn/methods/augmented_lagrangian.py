"""The augmented Lagrangian: constraints that are met in the limit, by multipliers.

f       objective;  c (m,) rows of the soft constraints, scaled by the root of their weights
w (m,)  multipliers
s       penalty: a round lowers f + w^T c + s |c|^2
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from constrainednn._common.arguments import as_count
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError
from constrainednn.methods.base import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    STALLED,
    AbstractLagrangian,
    AbstractMethod,
    AbstractResidual,
    StepInfo,
    loss_of,
)
from constrainednn.methods.first_order import Optax

# A round that does not lower the violation to this share of it has the next one press harder,
# and for longer: the harder the penalty, the more steps its minimum takes.
_LESS, _HARDER, _LONGER = 0.25, 4.0, 1.5
# So many times the first penalty no harder one would help; the share of the first gradient that is
# none.
_HARDEST, _FLAT = 1e8, 1e-6


class _Augmented(AbstractLagrangian):
    lagrangian: AbstractLagrangian
    multipliers: Float[Array, " m"]
    penalty: Float[Array, ""]

    def parts(self, params: PyTree) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        """The objective with the multipliers, and the rows with the penalty."""
        objective, rows = self.lagrangian.parts(params)
        return objective + jnp.vdot(self.multipliers, rows), jnp.sqrt(self.penalty) * rows


class _State(NamedTuple):
    """Where the method is.

    Attributes:
        violation: |c| at the end of the last round that lowered it enough.
        largest: The largest |c| at the end of a round, or before the first.
        slope: Length of the gradient before the first round.
        hardest: The largest penalty that is tried.
        length: Steps of the round.
        left: Steps of the round that are still to be taken.
    """

    multipliers: Float[Array, " m"]
    penalty: Float[Array, ""]
    violation: Float[Array, ""]
    largest: Float[Array, ""]
    slope: Float[Array, ""]
    hardest: Float[Array, ""]
    length: Int[Array, ""]
    left: Int[Array, ""]
    verdict: Int[Array, ""]
    inner: PyTree


class AugmentedLagrangian(AbstractMethod[_State]):
    """Lower an objective under constraints that no projection enforces.

    A weight alone would trade a violation for a lower objective. Here rounds of steps lower the
    objective with a penalty and a multiplier for each entry of a residual at each training point.
    After a round that quartered the violation the multipliers take over what the penalty had to
    hold; after another the penalty grows fourfold, and rounds are half as long again. A run is
    converged when its violation has fallen to the root of the rounding unit and its gradient by
    1e6, and stalled when no penalty lowers the violation, as where the model cannot meet the
    constraints at all training points. The parameters after the last step are the result.

    Residuals of inequalities, `at_most` and `at_least`, have multipliers that only grow, up to
    where the penalty is exact.

    Args:
        inner: Method of the rounds. Default: `Optax(optax.lbfgs())`.
        every: Steps of the first round.

    Raises:
        TypeError, ValueError: If a setting cannot be right.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), algorithm 17.4, with rounds of given
        numbers of steps instead of a tolerance for each.
    """

    inner: Optax
    every: int

    def __init__(self, inner: AbstractMethod | None = None, *, every: int = 50):
        inner = Optax(optax.lbfgs()) if inner is None else inner
        if not isinstance(inner, Optax):
            raise BadTypeError(
                "the inner method of AugmentedLagrangian lowers a loss that is no sum of squares: "
                f"write cx.Optax(...), got {shown(inner)}."
            )
        self.inner, self.every = inner, as_count(every, "every of AugmentedLagrangian")

    def __repr__(self) -> str:
        return f"AugmentedLagrangian({self.inner!r}, every={self.every})"

    def init(self, residual: AbstractResidual | AbstractLagrangian, params: PyTree) -> _State:
        """No multipliers yet, and a penalty whose gradient is no smaller than the objective's."""
        if not isinstance(residual, AbstractLagrangian):
            raise BadTypeError(
                "AugmentedLagrangian is for problems with an objective. To meet constraints alone "
                "take cx.LevenbergMarquardt(), or leave method= out."
            )
        f, rows = residual.parts(params)
        multipliers, penalty = jnp.zeros_like(rows), jnp.ones_like(f)
        if rows.size:
            objective = _length(lambda params: residual.parts(params)[0], params)
            pressed = _length(lambda params: jnp.sum(residual.parts(params)[1] ** 2), params)
            penalty = jnp.where(pressed > 0, jnp.maximum(objective / pressed, 1.0), 1.0)
        every = jnp.asarray(self.every)
        augmented = _Augmented(residual, multipliers, penalty)
        return _State(
            multipliers,
            penalty,
            violation=jnp.full_like(f, jnp.inf),
            largest=jnp.linalg.norm(rows),
            slope=_slope(augmented, params),
            hardest=_HARDEST * penalty,
            length=every,
            left=every,
            verdict=jnp.asarray(RUNNING),
            inner=self.inner.init(augmented, params),
        )

    def step(self, residual: Any, params: PyTree, state: _State) -> tuple[PyTree, _State, StepInfo]:
        """A step of the inner method and, at the end of a round, new multipliers.

        The loss is that of the problem, without multipliers. The verdict is that of the last round.
        """
        augmented = _Augmented(residual, state.multipliers, state.penalty)
        moved, inner, info = self.inner.step(augmented, params, state.inner)
        loss, finite = loss_of(residual, params), info.verdict != NONFINITE
        ended = state.verdict != RUNNING
        params = jax.tree.map(lambda old, new: jnp.where(ended, old, new), params, moved)
        verdict = jnp.where(finite, state.verdict, NONFINITE)
        state = state._replace(inner=inner, left=state.left - 1)
        after = lambda: self._next_round(residual, params, state)  # noqa: E731
        state = jax.lax.cond((state.left == 0) & finite & ~ended, after, lambda: state)
        return params, state, StepInfo(loss, verdict)

    def _next_round(self, residual: AbstractLagrangian, params: PyTree, state: _State) -> _State:
        _, rows = residual.parts(params)
        violation = jnp.linalg.norm(rows)
        largest = jnp.maximum(violation, state.largest)
        met = violation <= jnp.finfo(rows.dtype).eps ** 0.5 * largest
        lowered = met | (violation <= _LESS * state.violation)
        taken_over = state.multipliers + 2 * state.penalty * rows
        multipliers = jnp.where(lowered, taken_over, state.multipliers)
        penalty = jnp.where(lowered, state.penalty, _HARDER * state.penalty)
        longer = (_LONGER * state.length).astype(state.length.dtype)
        length = jnp.where(lowered, state.length, longer)
        flat = _slope(_Augmented(residual, multipliers, penalty), params) <= _FLAT * state.slope
        verdict = jnp.where(
            penalty > state.hardest, STALLED, jnp.where(met & flat, CONVERGED, RUNNING)
        )
        # What the inner method has learned is of another function, if there are multipliers.
        inner = state.inner
        if rows.size:
            inner = self.inner.init(_Augmented(residual, multipliers, penalty), params)
        return _State(
            multipliers,
            penalty,
            jnp.where(lowered, violation, state.violation),
            largest,
            state.slope,
            state.hardest,
            length,
            length,
            verdict.astype(state.verdict.dtype),
            inner,
        )

    @property
    def why_converged(self) -> str:
        """What is known of a run that converged."""
        return (
            f"the gradient with multipliers fell to {_FLAT:g} of its first, violations to rounding"
        )

    def explain(self, params: PyTree, state: _State) -> tuple[str, PyTree | None]:
        """Say that the constraints cannot be met."""
        del params
        share = float(state.violation / state.largest)
        return (
            f"no penalty lowered the violation below {share:.1g} of its largest. Either the model "
            "cannot meet the constraints at all training points, and a wider one may, or "
            "with_projection; or rounds are too short for the method: every="
        ), None


def _slope(lagrangian: AbstractLagrangian, params: PyTree) -> Float[Array, ""]:
    """Length of the gradient of a loss."""
    return _length(lambda params: loss_of(lagrangian, params), params)


def _length(fn: Callable[[PyTree], Array], params: PyTree) -> Float[Array, ""]:
    return jnp.linalg.norm(ravel_pytree(jax.grad(fn)(params))[0])
