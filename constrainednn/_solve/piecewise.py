"""The driver for problems that are solved in pieces: windows in time, or elements."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Key

from constrainednn._checks.check import check_pieces
from constrainednn._common.random_keys import stream
from constrainednn._fitting.observations import observations
from constrainednn._gap.streams import problem_streams, streams_of_all
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import AbstractPieceScheme, Observed, Resumable
from constrainednn.domains.finite import Data
from constrainednn.runs.history import History, Status
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Run


def solve_pieces(run: Run, scheme: AbstractPieceScheme, steps: int) -> Outcome:
    """Solve all pieces by the problem's scheme."""
    problem = run.problem
    key = jax.random.key(run.seed)
    model = problem.build_model(key=key)
    run.tell("compiling", 0, 100, np.nan, np.nan)
    sizes = check_pieces(problem, scheme, model)
    settings = run.begin(repr(scheme), steps)

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
    found = scheme.solve(
        model,
        tolerance=run.tolerance,
        steps=steps,
        key=stream(key, "monitor/pieces"),
        watch=watch,
        resumed=None if checkpoint is None else (checkpoint.arrays, checkpoint.facts),
        observed=_observed(problem, key),
    )
    status, reason = Status(found.status), found.reason
    if status is Status.INTERRUPTED:
        status, reason = Status(run.stop.status), f"{run.stop.name} {reason}"
    taken = max(tried, found.steps)
    nothing = np.zeros(0)
    return Outcome(
        model=found.model,
        status=status,
        reason=reason,
        steps=taken,
        parameters=found.model.numbers,
        history=History(nothing, nothing.astype(int), nothing, (), taken, pieces=found.pieces),
        compile=found.compile,
        run=found.run,
        settings=settings,
        streams=problem_streams(problem, found.model, key=key, **run.counts),
    )


def _observed(problem: Problem, key: Key[Array, ""]) -> tuple[Observed, ...]:
    """The training rows of all data, each with its residual."""
    items = [item for item in problem.constraints if isinstance(item.over, Data)]
    split = zip(items, streams_of_all(items, key=key), strict=True)
    return observations([(item, points.train) for item, points in split if len(points.train)])
