"""The driver for problems that are solved in pieces: windows in time, or elements."""

import signal
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from constrainednn._check import check_pieces
from constrainednn._gap import gap_report, monitor_loss, problem_streams
from constrainednn._keys import stream
from constrainednn._problem import Problem
from constrainednn._provenance import record_settings
from constrainednn._solution import History, Solution, Status, Timings
from constrainednn._watching import Progress, collected_signals, interrupted_late


def solve_pieces(
    problem: Problem,
    *,
    steps: int,
    seed: int,
    tolerance: float,
    heldout: int,
    monitor: int,
    progress: Callable[[Progress], None] | None,
    caught: list[int],
) -> Solution:
    """Solve all pieces by the problem's scheme and measure the gap on what they cover."""
    scheme = problem.scheme
    assert scheme is not None
    show = progress or (lambda _: None)
    key = jax.random.key(seed)
    model = problem.build_model(key=key)
    show(Progress("compiling", 0, 100, np.nan, np.nan))
    check_pieces(problem, model)

    def watch(taken: int, done: float, residual: float) -> bool:
        del taken
        show(Progress("solving, %", round(100 * done), 100, np.nan, residual))
        return bool(caught)

    found = scheme.solve(
        model, tolerance=tolerance, steps=steps, key=stream(key, "monitor/pieces"), watch=watch
    )
    status, reason = Status(found.status), found.reason
    if status is Status.INTERRUPTED and caught:
        reason = f"{signal.Signals(caught[0]).name} {reason}"
    with collected_signals(caught):
        show(Progress("measuring the gap", 100, 100, np.nan, np.nan))
        started = time.perf_counter()
        streams = problem_streams(problem, found.model, key=key, monitor=monitor, heldout=heldout)
        gap = gap_report(problem, found.model, streams)
    if caught and status is not Status.INTERRUPTED:
        reason = interrupted_late(caught, status, reason)
        status = Status.INTERRUPTED
    train, watching = [item.train for item in streams], [item.monitor for item in streams]
    watched = monitor_loss(problem, found.model, train, watching)
    taken = found.steps
    history = History(
        np.asarray([gap.loss]),
        np.asarray([taken]),
        np.asarray([watched]),
        ((taken, found.model),),
        taken,
        pieces=found.pieces,
    )
    return Solution(
        problem,
        found.model,
        gap,
        status,
        reason,
        taken,
        found.model.count * found.model.head[0].size + found.model.parameters.size,
        history,
        Timings(found.compile, found.run, time.perf_counter() - started),
        record_settings(
            repr(scheme),
            steps=steps,
            seed=seed,
            tolerance=tolerance,
            heldout=heldout,
            monitor=monitor,
            redraw=None,
            dtype=str(jnp.result_type(float)),
        ),
        streams,
    )
