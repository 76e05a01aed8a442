"""Marching: an evolution problem solved window after window, each as long as its residual allows.

The driver knows windows, not equations: the state may be a few numbers or a function of space.
"""

import abc
import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._files import StoreError
from constrainednn._scheme import PieceHistory, Resumable, Watch, counters_of
from constrainednn._trees import arrays_to_tree, tree_to_arrays

# Windows in one call of the compiled loop at most; attempts before the first look at the clock, and
# seconds between two looks.
_BLOCK = 64
_FIRST_TRIES = 64
_LOOK_EVERY = 0.3


class Window(NamedTuple):
    """One attempt.

    Attributes:
        piece: What is kept of an accepted window.
        end: State at its end.
        error: Size of the monitor residual, relative to the state.
        noise: How much of `error` may be rounding.
        steps: Newton steps taken.
        solved: False if Newton's method failed; the other fields then mean nothing.
    """

    piece: PyTree[Array]
    end: PyTree[Array]
    error: Float[Array, ""]
    noise: Float[Array, ""]
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


class March(NamedTuple):
    """Where a march got to.

    Attributes:
        pieces: What was kept of the windows, stacked.
        history: Lengths, monitor residuals, Newton steps.
        ending: "end", "steps", "stopped" or "shrunk", where windows became shorter than rounding.
        compile: Seconds of the first call.
        run: Seconds of the others.
    """

    pieces: PyTree[np.ndarray]
    history: PieceHistory
    ending: str
    compile: float
    run: float


class _Carry(NamedTuple):
    state: PyTree[Array]
    t: Float[Array, ""]
    h: Float[Array, ""]
    accepted: Int[Array, ""]
    tries: Int[Array, ""]
    taken: Int[Array, ""]
    pieces: PyTree[Array]
    ends: Float[Array, " block"]
    errors: Float[Array, " block"]
    steps: Int[Array, " block"]


def march(
    evolution: AbstractEvolution,
    state: PyTree[Array],
    span: tuple[float, float],
    *,
    tolerance: float,
    steps: int,
    watch: Watch,
    resumed: Resumable | None = None,
) -> March:
    """Go from `span[0]` to `span[1]`; backwards if that is less.

    A window is accepted when its monitor residual is below the tolerance or at rounding; the next
    length follows from it as a step size does.

    Source:
        The controller is the elementary one of Hairer, Norsett and Wanner, Solving Ordinary
        Differential Equations I, II.4, eq. 4.13, with the residual in place of a local error.
    """
    start, end = span
    dtype = jax.tree.leaves(state)[0].dtype
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    goal = number(end), number(tolerance)
    t, h = number(start), number((end - start) / 20)
    if abs(float(h)) <= float(_shortest(t, goal[0])):
        h = goal[0] - t

    blocks, running, tries, taken, rejected, accepted = [], 0.0, _FIRST_TRIES, 0, 0, 0
    if resumed is not None:
        arrays, _ = resumed
        taken, rejected, accepted, milliseconds = counters_of(resumed, 4)
        if not 0 <= accepted <= max((array.size for array in arrays.values()), default=0):
            raise StoreError(f"the checkpoint is damaged: it counts {accepted} windows.")
        running = milliseconds / 1e3
        window = jax.eval_shape(evolution.window, state, t, h)
        shapes = window.piece, t, window.error, window.steps
        stack = lambda a: jnp.zeros((accepted, *a.shape), a.dtype)  # noqa: E731
        blank = (state, t, h), jax.tree.map(stack, shapes)
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
        blocks.append(
            jax.tree.map(
                lambda leaf: np.asarray(leaf)[:count],  # noqa: B023
                (carry.pieces, carry.ends, carry.errors, carry.steps),
            )
        )
        accepted += count
        rejected += int(carry.tries) - count
        taken += int(carry.taken)
        tries = max(1, min(2 * tries, int(_LOOK_EVERY * int(carry.tries) / (elapsed + 1e-9))))
        last = float(carry.errors[count - 1]) if count else np.nan
        stopped = watch(taken, (float(t) - start) / (end - start), last, to_go_on)
        if t == goal[0]:
            ending = "end"
        elif abs(float(h)) <= float(_shortest(t, number(end))):
            ending = "shrunk"
        elif stopped:
            ending = "stopped"
        else:
            continue
        break
    pieces, ends, errors, per_window = jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)
    history = PieceHistory(np.concatenate([[start], ends]), errors, per_window, rejected)
    return March(pieces, history, ending, compiling, running)


def _shortest(t: Float[Array, ""], end: Float[Array, ""]) -> Float[Array, ""]:
    """Windows below this length have no room between two floating-point numbers."""
    eps = jnp.finfo(t.dtype).eps
    return 16 * eps * jnp.maximum(jnp.abs(t), 1e-8 * jnp.abs(end - t))


@eqx.filter_jit
def _advance(
    evolution: AbstractEvolution,
    state: PyTree[Array],
    t: Float[Array, ""],
    h: Float[Array, ""],
    goal: tuple[Float[Array, ""], Float[Array, ""]],
    limits: tuple[Int[Array, ""], Int[Array, ""]],
) -> _Carry:
    """Try windows until their number or that of Newton steps is enough, or nothing is left.

    Nothing is left when a block is full, the end is reached or h vanishes.
    """
    end, tolerance = goal
    tries, steps = limits
    shape = jax.eval_shape(evolution.window, state, t, h)
    block = lambda leaf: jnp.zeros((_BLOCK, *leaf.shape), leaf.dtype)  # noqa: E731

    def going(carry: _Carry) -> Bool[Array, ""]:
        return (
            (carry.tries < tries)
            & (carry.taken < steps)
            & (carry.accepted < _BLOCK)
            & (carry.t != end)
            & (jnp.abs(carry.h) > _shortest(carry.t, end))
        )

    def attempt(carry: _Carry) -> _Carry:
        # A last window a little longer than planned is better than a sliver after it.
        last = jnp.abs(carry.h) * (1 + 1e-6) >= jnp.abs(end - carry.t)
        # The difference of the two rounded times: the model knows no other length.
        stop = jnp.where(last, end, carry.t + carry.h)
        length = stop - carry.t
        window = evolution.window(carry.state, carry.t, length)
        limit = jnp.maximum(tolerance, 2 * window.noise)
        accepted = window.solved & (window.error <= limit)
        power = 1 / evolution.convergence
        tiny = jnp.finfo(tolerance.dtype).tiny
        factor = 0.85 * (limit / jnp.maximum(window.error, tiny)) ** power
        # Newton's method failing says only "shorter"; an accepted window never shrinks the next
        # by much, since its error may be rounding.
        factor = jnp.where(
            accepted,
            jnp.clip(factor, 0.5, 4),
            jnp.where(window.solved, jnp.clip(factor, 0.1, 0.8), 0.25),
        )
        n = carry.accepted
        keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
        return _Carry(
            state=jax.tree.map(keep, window.end, carry.state),
            t=keep(stop, carry.t),
            h=length * factor,
            accepted=n + accepted,
            tries=carry.tries + 1,
            taken=carry.taken + window.steps,
            pieces=jax.tree.map(lambda all_, new: all_.at[n].set(new), carry.pieces, window.piece),
            ends=carry.ends.at[n].set(stop),
            errors=carry.errors.at[n].set(window.error),
            steps=carry.steps.at[n].set(window.steps),
        )

    zero = jnp.asarray(0)
    return lax.while_loop(
        going,
        attempt,
        _Carry(
            state,
            t,
            h,
            zero,
            zero,
            jnp.zeros_like(shape.steps),
            jax.tree.map(block, shape.piece),
            block(t),
            block(shape.error),
            block(shape.steps),
        ),
    )
