"""Marching: an evolution problem solved window after window, each as long as its residual allows.

The driver is independent of the equation: the state may be a few numbers or a function of space.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.pytrees import arrays_to_tree, tree_to_arrays
from constrainednn._pieces.window_control import (
    AbstractEvolution,
    Carry,
    Goal,
    Kept,
    kept_of,
    shortest,
    try_windows,
)
from constrainednn._problem.scheme import PieceHistory, Resumable, Watch, counters_of
from constrainednn.errors import StoreError

# Attempts before the first look at the clock, and seconds between two looks.
_FIRST_TRIES = 64
_LOOK_EVERY = 0.3


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
    """
    start, end = stops[0], stops[-1]
    dtype = jax.tree.leaves(state)[0].dtype
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    goal = Goal(_padded(stops[1:], dtype), number(end), number(tolerance), number(longest))
    t, h = number(start), number(math.copysign(min(abs(end - start) / 20, longest), end - start))
    if abs(float(h)) <= float(shortest(t, goal.end)):
        h = goal.end - t
    so_far = _Marched(state, t, h)
    if resumed is not None:
        so_far.resume(resumed, kept_of(evolution, state, t, h))

    def advance(tries: int, steps: int) -> Carry:
        limits = jnp.asarray(tries), jnp.asarray(steps)
        found = try_windows(evolution, so_far.state, so_far.t, so_far.h, goal, limits)
        return jax.block_until_ready(found)

    began = time.perf_counter()
    advance(0, 0)
    compiling = time.perf_counter() - began
    ending, tries = "steps", _FIRST_TRIES
    while so_far.taken < steps:
        began = time.perf_counter()
        carry = advance(tries, steps - so_far.taken)
        elapsed = time.perf_counter() - began
        last = so_far.add(carry, elapsed)
        tries = max(1, min(2 * tries, int(_LOOK_EVERY * int(carry.tries) / (elapsed + 1e-9))))
        done = (float(so_far.t) - start) / (end - start)
        stopped = watch(so_far.taken, done, last, so_far.resumable)
        if so_far.t == goal.end:
            ending = "end"
        elif abs(float(so_far.h)) <= float(shortest(so_far.t, goal.end)):
            ending = "shrunk"
        elif stopped:
            ending = "stopped"
        else:
            continue
        break
    return March(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *so_far.blocks),
        so_far.state,
        start,
        float(so_far.h),
        so_far.rejected,
        ending,
        compiling,
        so_far.running,
    )


class _Marched:
    """What a march did so far.

    Attributes:
        state: State where the windows end, at `t`.
        h: Length of the next window.
        blocks: What was kept of the windows, some at a time.
        accepted: Number of windows.
        rejected: Attempts that were given up.
        taken: Newton steps.
        running: Seconds of running.
    """

    def __init__(self, state: PyTree[Array], t: Float[Array, ""], h: Float[Array, ""]):
        self.state, self.t, self.h = state, t, h
        self.blocks: list[Kept] = []
        self.accepted = self.rejected = self.taken = 0
        self.running = 0.0

    def add(self, carry: Carry, elapsed: float) -> float:
        """Add the windows of a call; the last monitor residual, or NaN if there are none."""
        self.running += elapsed
        self.state, self.t, self.h = carry.state, carry.t, carry.h
        count = int(carry.accepted)
        self.blocks.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:count], carry.kept))
        self.accepted += count
        self.rejected += int(carry.tries) - count
        self.taken += int(carry.taken)
        return float(carry.kept.errors[count - 1]) if count else np.nan

    def resumable(self) -> Resumable:
        """What `resume` takes."""
        join = lambda *leaves: jnp.asarray(np.concatenate(leaves))  # noqa: E731
        block = jax.tree.map(join, *self.blocks)
        counters = [self.taken, self.rejected, self.accepted, round(1e3 * self.running)]
        return tree_to_arrays(((self.state, self.t, self.h), block)), {"counters": counters}

    def resume(self, resumed: Resumable, shape: Kept) -> None:
        """Go on from where a run was; `shape` is that of what is kept of a window."""
        arrays, _ = resumed
        self.taken, self.rejected, self.accepted, milliseconds = counters_of(resumed, 4)
        if not 0 <= self.accepted <= max((array.size for array in arrays.values()), default=0):
            raise StoreError(f"the checkpoint is damaged: it counts {self.accepted} windows.")
        self.running = milliseconds / 1e3
        stack = lambda a: jnp.zeros((self.accepted, *a.shape), a.dtype)  # noqa: E731
        blank = (self.state, self.t, self.h), jax.tree.map(stack, shape)
        (self.state, self.t, self.h), block = arrays_to_tree(blank, arrays, "the run")
        self.blocks = [jax.tree.map(np.asarray, block)]


def _padded(stops: Sequence[float], dtype: jnp.dtype) -> Float[Array, " m"]:
    """Stops with the last of them repeated: a few more or less need no compilation."""
    count = max(4, 1 << (len(stops) - 1).bit_length())
    return jnp.asarray([*stops, *[stops[-1]] * (count - len(stops))], dtype)
