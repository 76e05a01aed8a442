"""Damped least-squares steps by the Gram matrix, while its accuracy suffices.

A^T A costs less than the QR of A with its singular values, and squares the condition number: a
step is taken only where the normal equations hold for A itself.

Symbols::

    symbol  shape   meaning
    r       (m,)    residual
    A       (m, P)  its derivative by scaled parameters
    G       (q, q)  A^T A, or A A^T where rows are fewer, q = min(m, P)
    step    (P,)    minimises |A step + r|^2 + damping |step|^2
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Dampings tried in one step at most.
TRIES = 8
# A trial that keeps this share of the promised decrease is taken.
KEPT = 1e-3
# The damping falls to this share at most in one step, and grows by this factor after a failed
# trial, and twice as fast after the next.
_LEAST_FACTOR, GROWTH = 0.1, 4.0
# The normal equations must hold to this share of the gradient.
ACCURATE = 1e-2
# Products that the largest eigenvalue is estimated by.
_PRODUCTS = 8


class GramStep(NamedTuple):
    """The step that was found.

    Attributes:
        step: In scaled parameters; zero if no trial was taken.
        loss: There.
        damping: For the next step, relative to the largest eigenvalue of G.
        sound: False where a trial failed for want of digits, or none was taken.
        abyss: The last trial at which the residual was not finite; zero if there was none.
    """

    step: Float[Array, " P"]
    loss: Float[Array, ""]
    damping: Float[Array, ""]
    sound: Bool[Array, ""]
    abyss: Float[Array, " P"]


class _Trial(NamedTuple):
    """The search so far."""

    found: GramStep
    growth: Float[Array, ""]
    tries: Int[Array, ""]
    taken: Bool[Array, ""]


def gram_step(
    at: Callable[[Float[Array, " P"]], Float[Array, " m"]],
    r: Float[Array, " m"],
    A: Float[Array, "m P"],
    damping: Float[Array, ""],
) -> GramStep:
    """Try dampings until a step lowers the loss.

    Args:
        at: From a step in scaled parameters to the residual after it.
        r: Residual.
        A: Its derivative.
        damping: First damping, relative to the largest eigenvalue of G.

    Source:
        Control of the damping: Nielsen, IMM-REP-1999-05. The step is bent along the geodesic where
        that lowers the loss further: Transtrum and Sethna, arXiv:1201.5885, eq. 15.
    """
    dual = A.shape[0] < A.shape[1]
    G = A @ A.T if dual else A.T @ A
    peak, loss, gradient = largest(G), r @ r, A.T @ r
    none = jnp.zeros_like(gradient)

    def trial(search: _Trial) -> _Trial:
        weight = search.found.damping * peak
        L = jnp.linalg.cholesky(G + weight * jnp.eye(len(G), dtype=G.dtype))
        solve = lambda right: jax.scipy.linalg.cho_solve((L, True), right)  # noqa: E731
        solved = lambda v: -(A.T @ solve(v) if dual else solve(A.T @ v))  # noqa: E731
        step = solved(r)
        # G has A's digits squared: whether they suffice is seen in A.
        linear = r + A @ step
        missed = jnp.linalg.norm(A.T @ linear + weight * step)
        accurate = missed <= ACCURATE * jnp.linalg.norm(gradient)
        step = jnp.where(accurate, step, 0)
        slope = lambda h: jax.jvp(at, (h,), (step,))[1]  # noqa: E731
        bend = solved(jax.jvp(slope, (none,), (step,))[1]) / 2
        small = 2 * jnp.linalg.norm(bend) <= 0.75 * jnp.linalg.norm(step)
        steps = jnp.stack([step, step + jnp.where(small, bend, 0)])
        losses = jnp.sum(jax.vmap(at)(steps) ** 2, axis=1)
        finite = jnp.isfinite(losses)
        losses = jnp.where(finite, losses, jnp.inf)
        best = jnp.argmin(losses)
        promised = loss - linear @ linear
        taken = accurate & (loss - losses[best] > KEPT * promised) & (losses[best] < loss)
        lower = next_damping((loss - losses[best]) / promised)
        found = GramStep(
            jnp.where(taken, steps[best], 0),
            jnp.where(taken, losses[best], loss),
            search.found.damping * jnp.where(taken, lower, search.growth),
            accurate,
            jnp.where(finite[0], search.found.abyss, step),
        )
        return _Trial(found, 2 * search.growth, search.tries + 1, taken)

    def unfinished(search: _Trial) -> Bool[Array, ""]:
        return search.found.sound & ~search.taken & (search.tries < TRIES)

    first = GramStep(none, loss, damping, jnp.array(True), none)
    begun = _Trial(first, jnp.asarray(GROWTH, r.dtype), jnp.array(0), jnp.array(False))
    search = lax.while_loop(unfinished, trial, begun)
    return search.found._replace(sound=search.taken)


def next_damping(kept: Float[Array, ""]) -> Float[Array, ""]:
    """What the damping is multiplied by after a step that kept a share of what was promised."""
    return jnp.maximum(_LEAST_FACTOR, 1 - (2 * jnp.minimum(kept, 1.0) - 1) ** 3)


def largest(G: Float[Array, "q q"]) -> Float[Array, ""]:
    """The largest eigenvalue, to some percent; one for a matrix of zeros."""
    norm = lambda v: jnp.linalg.norm(v) + jnp.finfo(G.dtype).tiny  # noqa: E731
    v = jnp.diagonal(G) + 1e-3
    for _ in range(_PRODUCTS):
        v = G @ (v / norm(v))
    size = jnp.linalg.norm(v)
    return jnp.where(size > 0, size, 1)
