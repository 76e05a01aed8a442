"""Chunks of training steps, compiled."""

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._common.memory import bytes_computed
from constrainednn._gap.objectives.lagrangian import Minimised
from constrainednn._gap.residuals import monitor_loss
from constrainednn._problem.problem import Problem
from constrainednn.domains.samplers.base import Draw
from constrainednn.methods.base import CONVERGED, NONFINITE, RUNNING, AbstractMethod
from constrainednn.runs.outcome import Outcome

# Steps in one call of the compiled chunk at most, and seconds between two looks at the clock.
CHUNK = 1024


@compiled
def begin(method: AbstractMethod, residual: Minimised, params: PyTree) -> PyTree:
    """The state before the first step, all of it arrays."""
    return jax.tree.map(jnp.asarray, method.init(residual, params))


@compiled
def advance(
    method: AbstractMethod,
    residual: Minimised,
    params: PyTree,
    state: PyTree,
    best: tuple[PyTree, Array],
    least_loss: Float[Array, ""],
    steps: Int[Array, ""],
) -> tuple[PyTree, PyTree, tuple[PyTree, Array], Float[Array, " block"], Int[Array, ""], Array]:
    """Advance at most `steps` steps; a step count that is traced never recompiles.

    Returns parameters, method state, best parameters with their loss, the losses seen at the
    parameters before each step, the number of steps taken, and the last verdict.
    """

    def running(carry):
        *_, count, verdict = carry
        return (count < steps) & (verdict == RUNNING)

    def body(carry):
        params, state, (best_params, best_loss), losses, count, _ = carry
        new_params, new_state, info = method.step(residual, params, state)
        better = info.loss < best_loss
        best = (
            jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best_params),
            jnp.where(better, info.loss, best_loss),
        )
        reached = info.loss <= least_loss
        keep = jax.tree.map(lambda old, new: jnp.where(reached, old, new), params, new_params)
        verdict = jnp.where(reached, CONVERGED, info.verdict)
        # A step that only found that nothing is left to do is not a completed step.
        done = (verdict == RUNNING) | ~reached & (verdict != NONFINITE)
        losses = losses.at[count].set(info.loss)
        return keep, new_state, best, losses, count + jnp.where(done, 1, 0), verdict

    losses = jnp.zeros(CHUNK, least_loss.dtype)
    carry = (params, state, best, losses, jnp.asarray(0), jnp.asarray(RUNNING))
    return lax.while_loop(running, body, carry)


class Chunk(NamedTuple):
    """A request for steps: the arguments of `advance`."""

    method: AbstractMethod
    residual: Minimised
    params: PyTree
    state: PyTree
    best: tuple[PyTree, Array]
    least_loss: Float[Array, ""]
    steps: int


class Raised(Exception):  # noqa: N818  (it says what happened)
    """What a residual asked for raised while it was evaluated: a callback, or eqx.error_if."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class MonitorRequest(NamedTuple):
    """A request for a monitor loss: the arguments of `monitor_loss`."""

    problem: Problem
    model: PyTree
    train: list[Draw]
    monitor: list[Draw | None]


# A run is a generator of requests, so that one engine can serve many runs together.
# Answers are what `advance` and `monitor_loss` return, the former with the seconds it took, and
# this run's share of them.
RunRequests = Generator[Chunk | MonitorRequest, Any, Outcome]
StageRequests = Generator[Chunk | MonitorRequest, Any, Any]
# From problem, model as drawn, points, unit and rows to the model to train, seconds of compilation
# and of what is computed.
Start = Callable[..., tuple[PyTree, float, float]]


def is_out_of_memory(error: Exception) -> bool:
    """True for an exception that says so, of Python or of XLA."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def alone(going: RunRequests) -> Outcome:
    """Serve one run."""
    answer, failure = None, None
    while True:
        try:
            asked = going.send(answer) if failure is None else going.throw(failure)
        except StopIteration as end:
            return end.value
        failure = None
        try:
            answer = _answer(asked)
        except Exception as error:  # noqa: BLE001  (a residual may raise anything)
            failure = error if is_out_of_memory(error) else Raised(error)


def _answer(asked: Chunk | MonitorRequest) -> Any:
    if isinstance(asked, MonitorRequest):
        return monitor_loss(*asked)
    started = time.perf_counter()
    found = jax.block_until_ready(advance(*asked[:-1], jnp.asarray(asked.steps)))
    elapsed = time.perf_counter() - started
    return found, elapsed, elapsed


def step_bytes(chunk: Chunk) -> int:
    """What a step computes, in bytes: more than it holds at once."""
    step = lambda params, state: chunk.method.step(chunk.residual, params, state)  # noqa: E731
    return bytes_computed(jax.make_jaxpr(step)(chunk.params, chunk.state).jaxpr)


def on_device(leaf: Any) -> Any:
    """An engine for many runs answers with arrays of NumPy."""
    return jnp.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf
