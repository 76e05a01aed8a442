"""The driver for problems that are solved in pieces: windows in time, or elements."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from constrainednn._checks.check import check_pieces
from constrainednn._common.random_keys import stream
from constrainednn._gap.measure import gap_report
from constrainednn._gap.residuals import monitor_loss
from constrainednn._gap.streams import problem_streams, streams_of_all
from constrainednn._ode.fitting.observations import observations
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.scheme import Resumable
from constrainednn.domains.finite import Data
from constrainednn.results.solution import Solution
from constrainednn.runs.history import History, Status, Timings
from constrainednn.runs.run import Run


def solve_pieces(run: Run, steps: int) -> Solution:
    """Solve all pieces by the problem's scheme and measure the gap on what they cover."""
    problem = run.problem
    scheme = problem.scheme
    assert scheme is not None
    key = jax.random.key(run.seed)
    model = problem.build_model(key=key)
    run.tell("compiling", 0, 100, np.nan, np.nan)
    sizes = check_pieces(problem, model)
    settings = run.begin(repr(scheme), steps, str(jnp.result_type(float)))

    tried = 0  # Newton steps, of pieces that were given up too: what the limit is on

    def watch(
        taken: int, done: float, residual: float, state: Callable[[], Resumable] | None
    ) -> bool:
        nonlocal tried
        tried = max(tried, taken)  # a march within a fit counts its own
        run.tell_share("solving, %", done, tried, residual)
        stopped, folder = bool(run.stop), run.folder
        ending = stopped or done > 1 - 1e-6
        if state is not None and folder is not None and (folder.due or ending):
            arrays, facts = state()
            folder.save(taken, arrays, facts | {"statement": run.statement(sizes)})
        return stopped

    checkpoint = run.checkpoint
    if checkpoint is not None:
        checkpoint.check({"counters": list, "statement": str}, {})
        run.refuse_another(checkpoint.facts["statement"], sizes)
    observed = [item for item in problem.constraints if isinstance(item.over, Data)]
    split = streams_of_all(observed, key=key)
    data = [
        (item, points.train)
        for item, points in zip(observed, split, strict=True)
        if len(points.train)
    ]
    found = scheme.solve(
        model,
        tolerance=run.tolerance,
        steps=steps,
        key=stream(key, "monitor/pieces"),
        watch=watch,
        resumed=None if checkpoint is None else (checkpoint.arrays, checkpoint.facts),
        observed=observations(data),
    )
    status, reason = Status(found.status), found.reason
    if status is Status.INTERRUPTED:
        status, reason = Status(run.stop.status), f"{run.stop.name} {reason}"
    with run.measuring(max(tried, found.steps)):
        run.tell("measuring the gap", 100, 100, np.nan, np.nan)
        started = time.perf_counter()
        streams = problem_streams(problem, found.model, key=key, **run.counts)
        gap = gap_report(problem, found.model, streams)
        train, watching = [item.train for item in streams], [item.monitor for item in streams]
        watched = monitor_loss(problem, found.model, train, watching)
    taken = max(tried, found.steps)
    parts = found.model.parts if isinstance(found.model, Experiments) else [found.model]
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
        sum(part.count * part.head[0].size for part in parts) + found.model.parameters.size,
        history,
        Timings(found.compile, found.run, time.perf_counter() - started),
        settings,
        streams,
    )
