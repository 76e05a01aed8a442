"""Control of window lengths by the residual, in one compiled loop over attempted windows.

Source:
    The controller is the elementary one of Hairer, Norsett and Wanner, Solving Ordinary
    Differential Equations I, II.4, eq. 4.13, with the residual in place of a local error.
"""

import abc
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._common.compilation.closures import compiled

# Windows in one call of the compiled loop at most.
_BLOCK = 64
# A residual of this many times its noise is allowed, and so much noise at most: near a pole of the
# vector field all is noise.
_NOISE, _MOST_NOISE = 4, 0.01


class Window(NamedTuple):
    """One attempt.

    Attributes:
        piece: What is kept of an accepted window.
        end: State at its end.
        error: Size of the monitor residual of each equation, relative to `scale`.
        noise: How much of `error` may be rounding.
        scale: What the residuals are relative to.
        steps: Newton steps taken.
        solved: False if Newton's method failed; the other fields then mean nothing.
    """

    piece: PyTree[Array]
    end: PyTree[Array]
    error: Float[Array, " d"]
    noise: Float[Array, " d"]
    scale: Float[Array, " d"]
    steps: Int[Array, ""]
    solved: Bool[Array, ""]


class AbstractEvolution(eqx.Module):
    """An equation that carries a state from one time to another."""

    @property
    @abc.abstractmethod
    def convergence(self) -> int:
        """The error of a window falls as its length to this power."""

    @abc.abstractmethod
    def window(self, state: PyTree[Array], t: Float[Array, ""], h: Float[Array, ""]) -> Window:
        """Solve from `t` to `t + h`, starting at `state`."""


class Kept(NamedTuple):
    """What is kept of accepted windows, stacked.

    Attributes:
        starts: States at their starts.
        pieces: Their pieces.
        ends: Times at their ends.
        errors: Largest relative monitor residual of each.
        allowed: Residual that was allowed in each equation, in the units of `Window.scale`.
        steps: Newton steps of each.
    """

    starts: PyTree[Array]
    pieces: PyTree[Array]
    ends: Float[Array, " n"]
    errors: Float[Array, " n"]
    allowed: Float[Array, "n d"]
    steps: Int[Array, " n"]


class Goal(NamedTuple):
    """Where to stop on the way, where in the end, the tolerance and the longest window."""

    stops: Float[Array, " m"]
    end: Float[Array, ""]
    tolerance: Float[Array, ""]
    longest: Float[Array, ""]


class Carry(NamedTuple):
    state: PyTree[Array]
    t: Float[Array, ""]
    h: Float[Array, ""]
    accepted: Int[Array, ""]
    tries: Int[Array, ""]
    taken: Int[Array, ""]
    kept: Kept


def kept_of(evolution: AbstractEvolution, state: PyTree, t: Array, h: Array) -> Kept:
    """Shapes of what is kept of a window."""
    window = jax.eval_shape(evolution.window, state, t, h)
    return Kept(state, window.piece, t, t, window.scale, window.steps)


@functools.partial(jax.jit, inline=True)
def shortest(t: Float[Array, ""], end: Float[Array, ""]) -> Float[Array, ""]:
    """Windows below this length have no room between two floating-point numbers."""
    eps = jnp.finfo(t.dtype).eps
    return 16 * eps * jnp.maximum(jnp.abs(t), 1e-8 * jnp.abs(end - t))


@compiled
def try_windows(
    evolution: AbstractEvolution,
    state: PyTree[Array],
    t: Float[Array, ""],
    h: Float[Array, ""],
    goal: Goal,
    limits: tuple[Int[Array, ""], Int[Array, ""]],
) -> Carry:
    """Try windows until their number or that of Newton steps is enough, or nothing is left.

    Nothing is left when a block is full, the end is reached or h vanishes.
    """
    tries, steps = limits
    shape = kept_of(evolution, state, t, h)
    block = lambda leaf: jnp.zeros((_BLOCK, *leaf.shape), leaf.dtype)  # noqa: E731

    def going(carry: Carry) -> Bool[Array, ""]:
        return (
            (carry.tries < tries)
            & (carry.taken < steps)
            & (carry.accepted < _BLOCK)
            & (carry.t != goal.end)
            & (jnp.abs(carry.h) > shortest(carry.t, goal.end))
        )

    zero = jnp.asarray(0)
    start = Carry(state, t, h, zero, zero, jnp.zeros_like(shape.steps), jax.tree.map(block, shape))
    way = jnp.sign(h)
    return lax.while_loop(going, lambda carry: _attempted(evolution, goal, way, carry), start)


def _attempted(
    evolution: AbstractEvolution, goal: Goal, way: Float[Array, ""], carry: Carry
) -> Carry:
    """Try a window, and keep it if it is accepted."""
    ahead = way * (goal.stops - carry.t)
    to_stop = jnp.min(jnp.where(ahead > 0, ahead, jnp.inf))
    # A last window a little longer than planned is better than a sliver after it.
    last = jnp.abs(carry.h) * (1 + 1e-6) >= to_stop
    # The difference of the two rounded times: the model knows no other length.
    next_stop = goal.stops[jnp.argmin(jnp.where(ahead > 0, ahead, jnp.inf))]
    stop = jnp.where(last, next_stop, carry.t + carry.h)
    length = stop - carry.t
    window = evolution.window(carry.state, carry.t, length)
    judged = _judged(window, goal.tolerance, carry.t, length, evolution.convergence)
    accepted = judged.accepted
    longer = judged.factor * way * length
    # What a stop cut short says nothing against the length that was planned.
    h = jnp.where(accepted & last, jnp.maximum(longer, way * carry.h), 0.0)
    h = jnp.minimum(jnp.maximum(h, longer), goal.longest)
    n = carry.accepted
    keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
    new = Kept(
        carry.state,
        window.piece,
        stop,
        jnp.max(window.error),
        judged.limit * window.scale,
        window.steps,
    )
    return Carry(
        state=jax.tree.map(keep, window.end, carry.state),
        t=keep(stop, carry.t),
        h=way * h,
        accepted=n + accepted,
        tries=carry.tries + 1,
        taken=carry.taken + window.steps,
        kept=jax.tree.map(lambda all_, new: all_.at[n].set(new), carry.kept, new),
    )


class _Judged(NamedTuple):
    """Residual that is allowed in each equation, whether it is met, and how much longer is next."""

    limit: Float[Array, " d"]
    accepted: Bool[Array, ""]
    factor: Float[Array, ""]


def _judged(
    window: Window,
    tolerance: Float[Array, ""],
    t: Float[Array, ""],
    length: Float[Array, ""],
    convergence: int,
) -> _Judged:
    noise = jnp.minimum(window.noise, _MOST_NOISE)
    limit = jnp.maximum(tolerance, _NOISE * noise)
    accepted = window.solved & jnp.all(window.error <= limit)
    limits = jnp.finfo(tolerance.dtype)
    # Where the residual is noise, or rounding of times in a window that is hardly longer, what is
    # left without it says how long a window may be: shorter ones are as noisy, for ever.
    hardly = jnp.abs(length) <= limits.eps**0.5 * jnp.abs(t)
    noisy = (limit > tolerance) | (hardly & (window.error <= _NOISE * noise))
    smooth = jnp.maximum(window.error - _NOISE / 2 * noise, 1e-4 * limit)
    smooth = jnp.where(noisy, smooth, window.error)
    factor = 0.85 * jnp.min(limit / jnp.maximum(smooth, limits.tiny)) ** (1 / convergence)
    # Newton's method failing says only "shorter"; an accepted window never shrinks the next by
    # much, since its error may be rounding.
    rejected = jnp.where(window.solved, jnp.clip(factor, 0.1, 0.8), 0.25)
    return _Judged(limit, accepted, jnp.where(accepted, jnp.clip(factor, 0.5, 4), rejected))
