"""Marching: an evolution problem solved window after window, each as long as its residual allows.

The driver knows windows, not equations: the state may be a few numbers or a function of space.
"""

import abc
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._common.pytrees import arrays_to_tree, tree_to_arrays
from constrainednn._problem.scheme import PieceHistory, Resumable, Watch, counters_of
from constrainednn.errors import StoreError

# Windows in one call of the compiled loop at most; attempts before the first look at the clock, and
# seconds between two looks.
_BLOCK = 64
_FIRST_TRIES = 64
_LOOK_EVERY = 0.3
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


class March(NamedTuple):
    """Where a march got to.

    Attributes:
        kept: What was kept of the windows.
        state: State where they end.
        start: Where they begin.
        h: Length that the next window would have.
        rejected: Attempts that were given up.
        ending: "end", "steps", "stopped" or "shrunk", where windows became shorter than rounding.
        compile: Seconds of the first call.
        run: Seconds of the others.
    """

    kept: Kept
    state: PyTree[Array]
    start: float
    h: float
    rejected: int
    ending: str
    compile: float
    run: float

    @property
    def edges(self) -> Float[np.ndarray, " n_1"]:
        """Ends of the windows."""
        return np.concatenate([[self.start], self.kept.ends])

    @property
    def history(self) -> PieceHistory:
        """Lengths, monitor residuals, Newton steps."""
        errors, steps = np.asarray(self.kept.errors), np.asarray(self.kept.steps)
        return PieceHistory(self.edges, errors, steps, self.rejected)

    def before(self, window: int) -> Resumable:
        """What to go on from, without this window and all after it."""
        head = jax.tree.map(lambda leaf: jnp.asarray(leaf[:window]), self.kept)
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf[window]), self.kept.starts)
        t, end = (jnp.asarray(edge, head.ends.dtype) for edge in self.edges[window : window + 2])
        counters = [int(head.steps.sum()), self.rejected, window, round(1e3 * self.run)]
        return tree_to_arrays(((state, t, end - t), head)), {"counters": counters}


class _Goal(NamedTuple):
    """Where to stop on the way, where in the end, the tolerance and the longest window."""

    stops: Float[Array, " m"]
    end: Float[Array, ""]
    tolerance: Float[Array, ""]
    longest: Float[Array, ""]


class _Carry(NamedTuple):
    state: PyTree[Array]
    t: Float[Array, ""]
    h: Float[Array, ""]
    accepted: Int[Array, ""]
    tries: Int[Array, ""]
    taken: Int[Array, ""]
    kept: Kept


def march(
    evolution: AbstractEvolution,
    state: PyTree[Array],
    stops: Sequence[float],
    *,
    tolerance: float,
    steps: int,
    watch: Watch,
    longest: float = np.inf,
    resumed: Resumable | None = None,
) -> March:
    """Go from the first of `stops` to the last, backwards if that is less.

    Windows end at each of `stops`. One is accepted when its monitor residual is below the
    tolerance or at rounding; the next length follows from it as a step size does, up to `longest`.

    Source:
        The controller is the elementary one of Hairer, Norsett and Wanner, Solving Ordinary
        Differential Equations I, II.4, eq. 4.13, with the residual in place of a local error.
    """
    start, end = stops[0], stops[-1]
    dtype = jax.tree.leaves(state)[0].dtype
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    goal = _Goal(_padded(stops[1:], dtype), number(end), number(tolerance), number(longest))
    t, h = number(start), number(math.copysign(min(abs(end - start) / 20, longest), end - start))
    if abs(float(h)) <= float(_shortest(t, goal.end)):
        h = goal.end - t

    blocks, running, tries, taken, rejected, accepted = [], 0.0, _FIRST_TRIES, 0, 0, 0
    if resumed is not None:
        arrays, _ = resumed
        taken, rejected, accepted, milliseconds = counters_of(resumed, 4)
        if not 0 <= accepted <= max((array.size for array in arrays.values()), default=0):
            raise StoreError(f"the checkpoint is damaged: it counts {accepted} windows.")
        running = milliseconds / 1e3
        stack = lambda a: jnp.zeros((accepted, *a.shape), a.dtype)  # noqa: E731
        blank = (state, t, h), jax.tree.map(stack, _kept(evolution, state, t, h))
        (state, t, h), block = arrays_to_tree(blank, arrays, "the run")
        blocks = [jax.tree.map(np.asarray, block)]

    def to_go_on() -> Resumable:
        join = lambda *leaves: jnp.asarray(np.concatenate(leaves))  # noqa: E731
        block = jax.tree.map(join, *blocks)
        counters = [taken, rejected, accepted, round(1e3 * running)]
        return tree_to_arrays(((state, t, h), block)), {"counters": counters}

    began = time.perf_counter()
    limits = lambda tries, steps: (jnp.asarray(tries), jnp.asarray(steps))  # noqa: E731
    jax.block_until_ready(_advance(evolution, state, t, h, goal, limits(0, 0)))
    compiling = time.perf_counter() - began

    ending = "steps"
    while taken < steps:
        began = time.perf_counter()
        carry = jax.block_until_ready(
            _advance(evolution, state, t, h, goal, limits(tries, steps - taken))
        )
        elapsed = time.perf_counter() - began
        running += elapsed
        state, t, h = carry.state, carry.t, carry.h
        count = int(carry.accepted)
        blocks.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:count], carry.kept))  # noqa: B023
        accepted += count
        rejected += int(carry.tries) - count
        taken += int(carry.taken)
        tries = max(1, min(2 * tries, int(_LOOK_EVERY * int(carry.tries) / (elapsed + 1e-9))))
        last = float(carry.kept.errors[count - 1]) if count else np.nan
        stopped = watch(taken, (float(t) - start) / (end - start), last, to_go_on)
        if t == goal.end:
            ending = "end"
        elif abs(float(h)) <= float(_shortest(t, goal.end)):
            ending = "shrunk"
        elif stopped:
            ending = "stopped"
        else:
            continue
        break
    kept = jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)
    return March(kept, state, start, float(h), rejected, ending, compiling, running)


def _padded(stops: Sequence[float], dtype: jnp.dtype) -> Float[Array, " m"]:
    """Stops with the last of them repeated: a few more or less need no compilation."""
    count = max(4, 1 << (len(stops) - 1).bit_length())
    return jnp.asarray([*stops, *[stops[-1]] * (count - len(stops))], dtype)


def _kept(evolution: AbstractEvolution, state: PyTree, t: Array, h: Array) -> Kept:
    """Shapes of what is kept of a window."""
    window = jax.eval_shape(evolution.window, state, t, h)
    return Kept(state, window.piece, t, t, window.scale, window.steps)


def _shortest(t: Float[Array, ""], end: Float[Array, ""]) -> Float[Array, ""]:
    """Windows below this length have no room between two floating-point numbers."""
    eps = jnp.finfo(t.dtype).eps
    return 16 * eps * jnp.maximum(jnp.abs(t), 1e-8 * jnp.abs(end - t))


@compiled
def _advance(
    evolution: AbstractEvolution,
    state: PyTree[Array],
    t: Float[Array, ""],
    h: Float[Array, ""],
    goal: _Goal,
    limits: tuple[Int[Array, ""], Int[Array, ""]],
) -> _Carry:
    """Try windows until their number or that of Newton steps is enough, or nothing is left.

    Nothing is left when a block is full, the end is reached or h vanishes.
    """
    tries, steps = limits
    shape = _kept(evolution, state, t, h)
    block = lambda leaf: jnp.zeros((_BLOCK, *leaf.shape), leaf.dtype)  # noqa: E731
    way = jnp.sign(h)

    def going(carry: _Carry) -> Bool[Array, ""]:
        return (
            (carry.tries < tries)
            & (carry.taken < steps)
            & (carry.accepted < _BLOCK)
            & (carry.t != goal.end)
            & (jnp.abs(carry.h) > _shortest(carry.t, goal.end))
        )

    def attempt(carry: _Carry) -> _Carry:
        ahead = way * (goal.stops - carry.t)
        to_stop = jnp.min(jnp.where(ahead > 0, ahead, jnp.inf))
        # A last window a little longer than planned is better than a sliver after it.
        last = jnp.abs(carry.h) * (1 + 1e-6) >= to_stop
        # The difference of the two rounded times: the model knows no other length.
        next_stop = goal.stops[jnp.argmin(jnp.where(ahead > 0, ahead, jnp.inf))]
        stop = jnp.where(last, next_stop, carry.t + carry.h)
        length = stop - carry.t
        window = evolution.window(carry.state, carry.t, length)
        noise = jnp.minimum(window.noise, _MOST_NOISE)
        limit = jnp.maximum(goal.tolerance, _NOISE * noise)
        accepted = window.solved & jnp.all(window.error <= limit)
        power = 1 / evolution.convergence
        tiny = jnp.finfo(goal.tolerance.dtype).tiny
        # Where the residual is noise, or rounding of times in a window that is hardly longer, what
        # is left without it says how long a window may be: shorter ones are as noisy, for ever.
        eps = jnp.finfo(goal.tolerance.dtype).eps
        hardly = jnp.abs(length) <= eps**0.5 * jnp.abs(carry.t)
        noisy = (limit > goal.tolerance) | (hardly & (window.error <= _NOISE * noise))
        smooth = jnp.maximum(window.error - _NOISE / 2 * noise, 1e-4 * limit)
        smooth = jnp.where(noisy, smooth, window.error)
        factor = 0.85 * jnp.min(limit / jnp.maximum(smooth, tiny)) ** power
        # Newton's method failing says only "shorter"; an accepted window never shrinks the next
        # by much, since its error may be rounding.
        factor = jnp.where(
            accepted,
            jnp.clip(factor, 0.5, 4),
            jnp.where(window.solved, jnp.clip(factor, 0.1, 0.8), 0.25),
        )
        # What a stop cut short says nothing against the length that was planned.
        h = jnp.where(accepted & last, jnp.maximum(factor * way * length, way * carry.h), 0.0)
        h = jnp.minimum(jnp.maximum(h, factor * way * length), goal.longest)
        n = carry.accepted
        keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
        new = Kept(
            carry.state,
            window.piece,
            stop,
            jnp.max(window.error),
            limit * window.scale,
            window.steps,
        )
        return _Carry(
            state=jax.tree.map(keep, window.end, carry.state),
            t=keep(stop, carry.t),
            h=way * h,
            accepted=n + accepted,
            tries=carry.tries + 1,
            taken=carry.taken + window.steps,
            kept=jax.tree.map(lambda all_, new: all_.at[n].set(new), carry.kept, new),
        )

    zero = jnp.asarray(0)
    kept = jax.tree.map(block, shape)
    return lax.while_loop(
        going, attempt, _Carry(state, t, h, zero, zero, jnp.zeros_like(shape.steps), kept)
    )
