"""From the outcome of a driver to a solution: the only place where the gap of a run is measured."""

import math
import time

from constrainednn._gap.measure import gap_report
from constrainednn._gap.residuals import monitor_loss
from constrainednn.results.solution import Solution
from constrainednn.runs.history import Timings
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Run


def measured(run: Run, outcome: Outcome) -> Solution:
    """Measure the gap: no residual is evaluated at held-out points before."""
    problem, model, steps = run.problem, outcome.model, outcome.steps
    history = outcome.history
    with run.measuring(steps):
        last = (float(v[-1]) if len(v) else math.nan for v in (history.loss, history.monitor))
        run.tell("measuring the gap", 100, 100, *last)
        started = time.perf_counter()
        gap = gap_report(problem, model, outcome.streams, looked=outcome.settings.looked)
        train, monitor = zip(*((item.train, item.monitor) for item in outcome.streams), strict=True)
        watched = monitor_loss(problem, model, train, monitor)
        return Solution(
            problem,
            model,
            gap,
            outcome.status,
            outcome.reason,
            steps,
            outcome.parameters,
            history.ended(steps, gap.loss, watched, model),
            Timings(outcome.compile, outcome.run, time.perf_counter() - started),
            outcome.settings,
            outcome.streams,
        )
