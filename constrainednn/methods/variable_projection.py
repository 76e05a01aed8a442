"""Variable projection: the head of a network eliminated, as it enters linearly or nearly so.

Symbols::

    symbol  shape   meaning
    r       (m,)    residual, with the head fitted
    Phi     (m, h)  its derivative by the head
    B       (m, q)  its derivative by everything else
    P       (m, m)  what a damped step of the head leaves of the residual: nearly a projector
    A       (m, q)  P B / D, of columns scaled by their largest norms so far
    rest    (m,)    P r
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._common.arguments import as_positive
from constrainednn.methods.base import RUNNING, AbstractMethod, AbstractResidual, StepInfo
from constrainednn.methods.damped_steps import column_norms, factored
from constrainednn.methods.gram_steps import ACCURATE, GROWTH, KEPT, TRIES, largest, next_damping
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt, LevenbergMarquardtState
from constrainednn.models.networks import head_of
from constrainednn.models.recipes import trainable_mask

# Damping of the head's steps, relative to its largest singular value squared. Heads of 1e8 whose
# terms cancel leave less at one step, and the inner weights get nowhere from there: measured on
# Poisson's equation, 1e-7 without and 1e-9 with it. Never below so many eps squared, which is
# rounding.
_DAMPING, _ROUNDING = 1e-18, 500.0
# The head alone takes a step where that promises to leave less than this share of the loss.
_UNFITTED = 0.5


class VariableProjectionState(eqx.Module):
    """What a step hands on.

    Attributes:
        damping: Relative to the largest eigenvalue of A^T A.
        scale: Largest norm of each column of A so far.
        projects: Whether the head is eliminated still.
        then: The state of the method that ends the run.
    """

    damping: Float[Array, ""]
    scale: Float[Array, " q"]
    projects: Bool[Array, ""]
    then: LevenbergMarquardtState


class VariableProjection(AbstractMethod[VariableProjectionState]):
    """Gauss-Newton steps of the inner weights, with the head of a network fitted at each.

    The residual is lowered over the inner weights alone, as if the head were always the best one:
    a damped step takes from the derivative by the inner weights what the head can undo, and the
    head takes a least-squares step, lightly damped, wherever the residual is tried. Where it does
    not fit yet, it is fitted first. Once a step of the inner weights lowers the loss no more,
    or rows are fewer than parameters, `LevenbergMarquardt` goes on with everything, and ends.

    Args:
        damping: First damping, relative to the largest eigenvalue.

    Source:
        Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) 413; the derivative is that of Kaufman,
        BIT 15 (1975) 49. Damping: Nielsen, IMM-REP-1999-05. A step is bent along the geodesic where
        that lowers the loss further: Transtrum and Sethna, arXiv:1201.5885, eq. 15.
    """

    damping: float = 3e-5

    def __init__(self, damping: float = 3e-5):
        self.damping = as_positive(damping, "damping of VariableProjection")

    def init(self, residual: AbstractResidual, params: PyTree) -> VariableProjectionState:
        """Start with the head eliminated."""
        theta, _ = ravel_pytree(params)
        then = LevenbergMarquardt().init(residual, params)
        scale = jnp.zeros(np.count_nonzero(~_is_head(params)), theta.dtype)
        damping = jnp.asarray(self.damping, theta.dtype)
        return VariableProjectionState(damping, scale, jnp.array(True), then)

    def step(
        self, residual: AbstractResidual, params: PyTree, state: VariableProjectionState
    ) -> tuple[PyTree, VariableProjectionState, StepInfo]:
        """Take a step of the inner weights, or of everything."""
        rows = jax.eval_shape(lambda params: residual(params), params).size
        if rows < sum(leaf.size for leaf in jax.tree.leaves(params)):
            return _together(residual, params, state)
        return lax.cond(
            state.projects,
            lambda: _projected(residual, params, state),
            lambda: _together(residual, params, state),
        )

    def explain(
        self, params: PyTree, state: VariableProjectionState
    ) -> tuple[str, PyTree[Array] | None]:
        """What Levenberg-Marquardt says."""
        return LevenbergMarquardt().explain(params, state.then)

    def unseen(self, params: PyTree, state: VariableProjectionState) -> str:
        """What Levenberg-Marquardt says."""
        return LevenbergMarquardt().unseen(params, state.then)


class Fitted(NamedTuple):
    """Parameters with the head fitted, and the loss there."""

    params: PyTree
    loss: Float[Array, ""]


def head_fitted(residual: AbstractResidual, params: PyTree, damping: float) -> Fitted:
    """One Gauss-Newton step of the head; none where it does not lower the loss.

    Args:
        residual: The residual.
        params: Parameters with a network among them.
        damping: Relative to the largest singular value squared, in scaled columns.
    """
    head, rest = eqx.partition(params, trainable_mask(params, head_of))
    theta, unravel = ravel_pytree(head)
    r, Phi = residual.beside(rest).jacobian(head)
    loss = r @ r
    # The factorisations must not see NaN: some LAPACK drivers do not return from it.
    finite = jnp.all(jnp.isfinite(Phi)) & jnp.isfinite(loss)
    Phi, r = jnp.where(finite, Phi, 0), jnp.where(finite, r, 0)
    norms = column_norms(Phi)
    D = jnp.where(norms > 0, norms, 1)
    at = factored(Phi / D[None], r)
    new = theta + at.steps(damping * jnp.max(at.s, keepdims=True) ** 2)[0] / D
    fitted = eqx.combine(unravel(new), rest)
    again = residual(fitted)
    better = again @ again < loss
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), fitted, params)
    return Fitted(kept, jnp.where(better, again @ again, loss))


def _head_damping(x: Array) -> float:
    return max(_DAMPING, (_ROUNDING * float(jnp.finfo(x.dtype).eps)) ** 2)


def _is_head(params: PyTree) -> np.ndarray:
    """Which of the raveled parameters are those of the head."""
    chosen = jax.tree.leaves(trainable_mask(params, head_of))
    return np.repeat(chosen, [leaf.size for leaf in jax.tree.leaves(params)])


def _together(
    residual: AbstractResidual, params: PyTree, state: VariableProjectionState
) -> tuple[PyTree, VariableProjectionState, StepInfo]:
    params, then, info = LevenbergMarquardt().step(residual, params, state.then)
    off = jnp.array(False)
    return params, VariableProjectionState(state.damping, state.scale, off, then), info


class _Trial(NamedTuple):
    """The search so far."""

    theta: Float[Array, " P"]
    loss: Float[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    tries: Int[Array, ""]
    taken: Bool[Array, ""]
    sound: Bool[Array, ""]


class _Reduced(NamedTuple):
    """The residual near some parameters, as a function of the inner weights.

    Attributes:
        residual: The residual.
        unravel: From a vector to parameters.
        theta: The parameters.
        inner: Places of inner weights in them.
        head: Places of the head.
        head_step: From a change of the inner weights to that of the head that goes with it.
        A: Derivative by scaled inner weights, without what the head can undo.
        D: Their scales.
        rest: The residual, likewise.
        loss: The loss.
    """

    residual: AbstractResidual
    unravel: Callable[[Array], PyTree]
    theta: Float[Array, " P"]
    inner: np.ndarray
    head: np.ndarray
    head_step: Callable[[Array], Array]
    A: Float[Array, "m q"]
    D: Float[Array, " q"]
    rest: Float[Array, " m"]
    loss: Float[Array, ""]

    def fitted(self, step: Float[Array, " q"]) -> Fitted:
        """Raveled parameters after a step of scaled inner weights, with the head fitted."""
        theta = self.theta.at[self.inner].add(step / self.D)
        found = head_fitted(self.residual, self.unravel(theta), _head_damping(theta))
        return found._replace(params=ravel_pytree(found.params)[0])

    def curvature(self, step: Float[Array, " q"]) -> Float[Array, " m"]:
        """Second derivative of the residual along a step, the head going with it."""
        change = step / self.D
        none = jnp.zeros_like(self.theta)
        along = none.at[self.inner].set(change).at[self.head].set(self.head_step(change))
        flat = lambda change: self.residual(self.unravel(self.theta + change))  # noqa: E731
        slope = lambda change: jax.jvp(flat, (change,), (along,))[1]  # noqa: E731
        return jax.jvp(slope, (none,), (along,))[1]


def _projected(
    residual: AbstractResidual, params: PyTree, state: VariableProjectionState
) -> tuple[PyTree, VariableProjectionState, StepInfo]:
    """A step of the inner weights; where it is not good, nothing but that is found out."""
    theta, unravel = ravel_pytree(params)
    is_head = _is_head(params)
    inner, head = np.flatnonzero(~is_head), np.flatnonzero(is_head)
    r, J = residual.jacobian(params)
    loss = r @ r
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(J))
    J, r = jnp.where(finite, J, 0), jnp.where(finite, r, 0)
    without, undone = _head_columns(J[:, head])
    B, rest = J[:, inner], without(r)
    head_step = lambda change: -undone(r + B @ change)  # noqa: E731
    A = without(B)
    scale = jnp.maximum(state.scale, column_norms(A))
    D = jnp.where(scale > 0, scale, 1)
    here = _Reduced(residual, unravel, theta, inner, head, head_step, A / D[None], D, rest, loss)
    # Beside a head that does not fit yet, any inner weights at all would lower the loss.
    found = lax.cond(
        rest @ rest < _UNFITTED * loss,
        lambda: _of_head(here, state.damping, finite),
        lambda: _searched(here, state.damping, finite),
    )
    eps = jnp.finfo(theta.dtype).eps
    # The last digits, and whether they are the last, are left to the other method.
    goes_on = found.taken & (loss - found.loss > 10 * eps * loss)
    damping = jnp.clip(found.damping, eps**2, 1 / eps)
    new_state = VariableProjectionState(damping, scale, goes_on, state.then)
    return unravel(found.theta), new_state, StepInfo(loss, jnp.asarray(RUNNING))


def _of_head(here: _Reduced, damping: Float[Array, ""], finite: Bool[Array, ""]) -> _Trial:
    """A step of the head alone."""
    found = here.fitted(jnp.zeros_like(here.D))
    taken, one = found.loss < here.loss, jnp.asarray(1)
    growth = jnp.asarray(GROWTH, here.loss.dtype)
    return _Trial(found.params, found.loss, damping, growth, one, taken, finite)


def _searched(here: _Reduced, damping: Float[Array, ""], finite: Bool[Array, ""]) -> _Trial:
    """Try dampings until a step lowers the loss."""
    A, rest, loss = here.A, here.rest, here.loss
    G, g = A.T @ A, A.T @ rest
    peak = largest(G)

    def trial(search: _Trial) -> _Trial:
        weight = search.damping * peak
        L = jnp.linalg.cholesky(G + weight * jnp.eye(len(G), dtype=G.dtype))
        solved = lambda right: -jax.scipy.linalg.cho_solve((L, True), right)  # noqa: E731
        step = solved(g)
        linear = rest + A @ step
        missed = jnp.linalg.norm(A.T @ linear + weight * step)
        sound = missed <= ACCURATE * jnp.linalg.norm(g)
        step = jnp.where(sound, step, 0)
        bend = solved(A.T @ here.curvature(step)) / 2
        small = 2 * jnp.linalg.norm(bend) <= 0.75 * jnp.linalg.norm(step)
        both = lax.map(here.fitted, jnp.stack([step, step + jnp.where(small, bend, 0)]))
        best = jnp.argmin(jnp.where(jnp.isfinite(both.loss), both.loss, jnp.inf))
        found = jax.tree.map(lambda leaf: leaf[best], both)
        promised = rest @ rest - linear @ linear
        lower = loss - found.loss
        taken = sound & (lower > KEPT * promised) & (lower > 0)
        return _Trial(
            jnp.where(taken, found.params, here.theta),
            jnp.where(taken, found.loss, loss),
            search.damping * jnp.where(taken, next_damping(lower / promised), search.growth),
            2 * search.growth,
            search.tries + 1,
            taken,
            sound,
        )

    def unfinished(search: _Trial) -> Bool[Array, ""]:
        return search.sound & ~search.taken & (search.tries < TRIES)

    no, growth = jnp.array(False), jnp.asarray(GROWTH, loss.dtype)
    begun = _Trial(here.theta, loss, damping, growth, jnp.array(0), no, finite)
    return lax.while_loop(unfinished, trial, begun)


def _head_columns(
    Phi: Float[Array, "m h"],
) -> tuple[Callable[[Array], Array], Callable[[Float[Array, " m"]], Float[Array, " h"]]]:
    """What a damped step of the head leaves of residuals, and that step.

    The step is the one that `head_fitted` takes.
    """
    norms = column_norms(Phi)
    D = jnp.where(norms > 0, norms, 1)
    U, s, Vt = jnp.linalg.svd(Phi / D[None], full_matrices=False)
    damped = s**2 + jnp.where(s[0] > 0, _head_damping(s) * s[0] ** 2, 1)
    kept, inverse = s**2 / damped, s / damped
    return lambda x: x - (U * kept[None]) @ (U.T @ x), lambda x: Vt.T @ (inverse * (U.T @ x)) / D
