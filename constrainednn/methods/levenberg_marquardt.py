"""Levenberg-Marquardt by orthogonal factorisation: the default method.

Symbols::

    symbol  shape     meaning
    r       (m,)      residual; the loss is |r|^2
    J       (m, P)    its Jacobian
    D       (P,)      column scale, the largest column norm of J since it was forgotten last
    A       (m, P)    J / D
    step    (P,)      -W (s g / (s^2 + damping)) / D, with factors of A as in `damped_steps.py`
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._common.arguments import as_positive
from constrainednn.methods.base import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    STALLED,
    AbstractMethod,
    AbstractResidual,
    StepInfo,
)
from constrainednn.methods.damped_steps import Factored, column_norms, factored
from constrainednn.methods.endings import is_ended, is_stationary, some_of, vanished_columns
from constrainednn.methods.gram_steps import gram_step

# Dampings tried in one step, relative to the last accepted one; the undamped step is tried too.
_FACTORS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
# A step that keeps this share of the decrease that the linear model promised is trusted.
_TRUSTED = 0.25
# From so many rows and parameters on the Gram matrix is tried first.
_LEAST_GRAM = 100
# All of them failed: the next step starts this much higher.
_RETREAT = 1e4


class LevenbergMarquardtState(eqx.Module):
    """What a step hands on.

    Attributes:
        damping: Relative to the largest singular value squared.
        scale: Largest norm of each column since the scales were forgotten last.
        largest: Largest norm of each column since the first step.
        gram: Whether steps are found by the Gram matrix still.
        vanished: Whether the residual no longer saw a parameter at the last step.
        tiny_decreases: Accepted steps in a row that lowered the loss by less than 10 eps.
        ahead: From the parameters of the last step to the nearest of those tried where the
            residual was NaN or infinite; zero if it was finite at all of them.
    """

    damping: Float[Array, ""]
    scale: Float[Array, " P"]
    largest: Float[Array, " P"]
    gram: Bool[Array, ""]
    vanished: Bool[Array, " P"]
    tiny_decreases: Int[Array, ""]
    ahead: Float[Array, " P"]


class LevenbergMarquardt(AbstractMethod[LevenbergMarquardtState]):
    """Damped Gauss-Newton steps in scaled columns; reaches rounding where the model can.

    Where rows and parameters are a hundred and more, first by the Gram matrix J^T J (J J^T when
    parameters outnumber rows) and Cholesky, one damping after the other until one lowers the loss,
    bent along the geodesic where that helps. J^T J squares the condition number: once the normal
    equations of a step hold no longer for J itself, or no step lowers the loss, factors take over.

    Then, and from the start for fewer, J is factored by QR (its transpose when parameters outnumber
    rows) and only the small triangle by SVD. Every damping then costs O(P); several are tried in
    one batched residual evaluation, each with and without the second-order correction of the
    geodesic. The best decrease is taken of those that keep a quarter of what the linear model
    promised, if there are any. This phase alone can end.

    Ends when |A^T r| <= 10 eps |A| |r|; when no step is predicted to lower the loss by a relative
    10 eps, or by more than the rounding error of evaluating it (measured at every step by
    perturbing the parameters in their last digits); when no step lowers it and the predicted
    decrease is below the rounding error of summing m squares; when three accepted steps in a row
    lowered it by less than 10 eps; when the damping passes |A|^2 / eps.

    The end is converged if it is stationary by the column norms of J as they are there: the cosine
    between r and every column is below 100 sqrt(eps), the smallest that the digits of a loss show,
    or promises no more than its rounding error. Otherwise the scales are forgotten once, since
    larger ones hide a gradient. If that does not help the end is stalled; so it is on a plateau,
    where a column fell to 1e-8 of its largest norm and its parameter no longer shows in r.

    Args:
        damping: First damping, relative to the largest singular value squared. It adapts by orders
            of magnitude in a step, so it hardly matters.

    Source:
        More, Numerical Analysis (Dundee 1977), LNM 630, p. 105 (scaled steps by QR);
        Transtrum and Sethna, arXiv:1201.5885, eq. 15 (acceleration; their a is twice ours here,
        so that their bound 2|a|/|v| <= 0.75 reads as below).
    """

    damping: float = 1e-3

    def __init__(self, damping: float = 1e-3):
        self.damping = as_positive(damping, "damping of LevenbergMarquardt")

    def init(self, residual: AbstractResidual, params: PyTree) -> LevenbergMarquardtState:
        """Start from the given damping and no column scales."""
        del residual
        theta, _ = ravel_pytree(params)
        none = jnp.zeros_like(theta)
        damping = jnp.asarray(self.damping, theta.dtype)
        gram = jnp.array(True)
        return LevenbergMarquardtState(damping, none, none, gram, none > 0, jnp.asarray(0), none)

    def step(
        self, residual: AbstractResidual, params: PyTree, state: LevenbergMarquardtState
    ) -> tuple[PyTree, LevenbergMarquardtState, StepInfo]:
        """Linearise once, try dampings until one is good."""
        theta, unravel = ravel_pytree(params)
        flat = lambda theta: residual(unravel(theta))  # noqa: E731
        r, J = residual.jacobian(params)
        loss = r @ r
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(J))
        # The factorisations must not see NaN: some LAPACK drivers do not return from it.
        J, r = jnp.where(finite, J, 0), jnp.where(finite, r, 0)
        here = _Linearised(flat, theta, r, J, column_norms(J), loss, finite)
        if min(J.shape) < _LEAST_GRAM:
            new_theta, new_state, verdict = self._by_factors(here, state)
        else:
            new_theta, new_state, verdict = lax.cond(
                state.gram & finite,
                lambda state: _by_gram(here, state),
                lambda state: self._by_factors(here, state),
                state,
            )
        return unravel(new_theta), new_state, StepInfo(loss, verdict)

    def _by_factors(
        self, here: "_Linearised", state: LevenbergMarquardtState
    ) -> tuple[Float[Array, " P"], LevenbergMarquardtState, Int[Array, ""]]:
        """Factor once, try several dampings, keep the best."""
        flat, theta, r, J, present, loss, finite = here
        eps = jnp.finfo(theta.dtype).eps
        scale = jnp.maximum(state.scale, present)
        D = jnp.where(scale > 0, scale, 1)
        A = J / D[None]
        at = factored(A, r)
        peak = jnp.max(at.s) ** 2
        # Zero: the step that is damped only where singular values are rounding themselves.
        factors = jnp.asarray((0.0, *_FACTORS), theta.dtype)
        dampings = jnp.clip(state.damping * peak * factors, eps**2 * peak, peak / eps)
        steps = _candidates(flat, theta, A, D, at, dampings)
        jitter = 4 * eps * jnp.where(jnp.arange(theta.size) % 2 == 0, theta, -theta)
        others = jnp.stack([jitter, jnp.zeros_like(theta)])
        trials = jax.vmap(flat)(theta[None] + jnp.concatenate([steps, others]))
        noise = jnp.linalg.norm(trials[-2] - r - J @ jitter)
        # A batch is rounded in its own way: to be lower than r by that alone is no decrease.
        losses, unmoved = jnp.sum(trials[:-2] ** 2, axis=1), trials[-1] @ trials[-1]
        abyss = ~jnp.isfinite(losses)
        losses = jnp.where(abyss, jnp.inf, losses)
        best = _best_of(losses, loss, at.promised(dampings))
        accepted = finite & (losses[best] < jnp.minimum(loss, unmoved))

        # Of the undamped step we learn only that damping is not needed now; forgetting the last
        # damping altogether would cost many rejections where the problem turns curved again.
        chosen = jnp.maximum(factors[best % factors.size], _FACTORS[0])
        damping = state.damping * jnp.where(accepted, chosen, _RETREAT)
        tiny = accepted & (loss - losses[best] < 10 * eps * loss)
        count = jnp.where(accepted, 0, state.tiny_decreases)
        count = jnp.where(tiny, state.tiny_decreases + 1, count)
        largest = jnp.maximum(state.largest, present)
        vanished = vanished_columns(theta, present, largest, jnp.sqrt(loss))
        stationary = is_stationary(J, r, present, vanished, noise)
        ended = is_ended(at, dampings, loss, noise, (r.size, accepted)) | (count >= 3)
        ended |= ~accepted & (state.damping >= 1 / eps)
        # Scales that are larger than the columns now may hide a gradient: once more without.
        again = ended & ~stationary & jnp.any(scale > 10 * present)
        verdict = jnp.select(
            [~finite, ~ended | again, stationary], [NONFINITE, RUNNING, CONVERGED], STALLED
        )
        nearest = jnp.argmin(jnp.where(abyss, jnp.linalg.norm(D[None] * steps, axis=1), jnp.inf))
        ahead = jnp.where(finite & jnp.any(abyss), steps[nearest], 0)
        new_state = LevenbergMarquardtState(
            jnp.where(again, self.damping, jnp.clip(damping, eps**2, 1 / eps)),
            jnp.where(again, 0, scale),
            largest,
            # Away from the end, as after a redraw, digits are not what is lacking.
            accepted & (losses[best] < 0.99 * loss) & (damping > 1e3 * theta.size * eps),
            vanished,
            jnp.where(again, 0, count),
            jnp.where(jnp.isfinite(ahead), ahead, 0),
        )
        new_theta = jnp.where(accepted, theta + steps[best], theta)
        return new_theta, new_state, verdict

    def explain(
        self, params: PyTree, state: LevenbergMarquardtState
    ) -> tuple[str, PyTree[Array] | None]:
        """Name the columns that vanished, and where the residual ceases to be finite."""
        theta, unravel = ravel_pytree(params)
        gone = np.flatnonzero(state.vanished)
        ahead = unravel(theta + state.ahead) if np.any(state.ahead) else None
        if not gone.size:
            return "", ahead
        return (
            "a plateau and no minimum: the residual no longer depends on "
            f"{some_of(params, gone)}. Start elsewhere"
        ), ahead

    def unseen(self, params: PyTree, state: LevenbergMarquardtState) -> str:
        """Name the parameters that the residual never depended on; empty if there are none.

        A change by their own size, or by one, has been rounding beside that of another.
        """
        theta, _ = ravel_pytree(params)
        effect = np.asarray(state.largest) * np.maximum(np.abs(theta), 1)
        never = np.flatnonzero(effect <= np.finfo(effect.dtype).eps * effect.max(initial=0.0))
        return some_of(params, never) if never.size else ""


class _Linearised(NamedTuple):
    """The residual near some parameters.

    Attributes:
        flat: The residual of raveled parameters.
        theta: The parameters.
        r: The residual there.
        J: Its Jacobian.
        present: The norms of its columns.
        loss: The square of the residual.
        finite: Whether residual and Jacobian are; if not, both are replaced by zeros.
    """

    flat: Callable[[Array], Array]
    theta: Float[Array, " P"]
    r: Float[Array, " m"]
    J: Float[Array, "m P"]
    present: Float[Array, " P"]
    loss: Float[Array, ""]
    finite: Bool[Array, ""]


def _by_gram(
    here: _Linearised, state: LevenbergMarquardtState
) -> tuple[Float[Array, " P"], LevenbergMarquardtState, Int[Array, ""]]:
    """A step by the Gram matrix; where it is not good, nothing but that is found out."""
    scale = jnp.maximum(state.scale, here.present)
    D = jnp.where(scale > 0, scale, 1)
    at = lambda step: here.flat(here.theta + step / D)  # noqa: E731
    found = gram_step(at, here.r, here.J / D[None], state.damping)
    eps = jnp.finfo(here.loss.dtype).eps
    # The last digits, and whether they are the last, are left to the factors.
    goes_on = found.sound & (here.loss - found.loss > 10 * eps * here.loss)
    new_state = dataclasses.replace(
        state,
        damping=jnp.where(found.sound, jnp.clip(found.damping, eps**2, 1 / eps), state.damping),
        scale=scale,
        largest=jnp.maximum(state.largest, here.present),
        gram=goes_on,
        ahead=found.abyss / D,
    )
    return here.theta + found.step / D, new_state, jnp.asarray(RUNNING)


def _candidates(
    flat: Callable[[Array], Array],
    theta: Float[Array, " P"],
    A: Float[Array, "m P"],
    D: Float[Array, " P"],
    at: Factored,
    dampings: Float[Array, " k"],
) -> Float[Array, "twice_k P"]:
    """Steps for all dampings, then the same bent along the geodesic where that is not too far."""
    plain = at.steps(dampings) / D[None]
    bend = lambda step, damping: _bend(flat, theta, step, A, at, damping) / D  # noqa: E731
    bends = jax.vmap(bend)(plain, dampings)
    length = lambda steps: jnp.linalg.norm(D[None] * steps, axis=1)  # noqa: E731
    small = length(bends) <= 0.75 * length(plain)
    return jnp.concatenate([plain, plain + jnp.where(small[:, None], bends / 2, 0)])


def _best_of(
    losses: Float[Array, " twice_k"], loss: Float[Array, ""], promised: Float[Array, " k"]
) -> Int[Array, ""]:
    """The step with the least loss of those that keep what the linear model promised.

    The greatest decrease of all may lead far away, to a plateau: it is taken only where no step
    does what was promised.
    """
    kept = jnp.where(loss - losses >= _TRUSTED * jnp.tile(promised, 2), losses, jnp.inf)
    return jnp.argmin(jnp.where(jnp.min(kept) < loss, kept, losses))


def least_numbers(m: int, P: int) -> int:
    """Numbers that a step holds at once, at least.

    J, A, its factors and their workspace; by the account of XLA 7.1 to 8.9 m P where the residual
    has no derivatives of the model, and 16 to 39 m P with second ones.
    """
    return 7 * m * P


def operations(m: int, P: int) -> float:
    """Of a factorisation: Householder's QR, then singular values with both sets of vectors.

    Source:
        Golub and Van Loan, Matrix Computations (4th ed.), sections 5.2.2 and 8.6.3.
    """
    q = min(m, P)
    return 2.0 * m * P * q + 22.0 * q**3


def _bend(
    flat: Callable[[Array], Array],
    theta: Float[Array, " P"],
    step: Float[Array, " P"],
    A: Float[Array, "m P"],
    at: Factored,
    damping: Float[Array, ""],
) -> Float[Array, " P"]:
    """Second derivative of the geodesic along `step`, in scaled columns.

    The residual curves by r'' = d^2/dh^2 r(theta + h step); the damped system that gave the step
    is solved once more for -r''.
    """
    slope = lambda theta: jax.jvp(flat, (theta,), (step,))[1]  # noqa: E731
    curvature = jax.jvp(slope, (theta,), (step,))[1]
    # A^T r'' squares the condition number of this correction only, never of the step.
    return -at.W @ ((at.W.T @ (A.T @ curvature)) / (at.s**2 + damping))
