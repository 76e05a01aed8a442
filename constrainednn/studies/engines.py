"""Engines: seeds one after another, or as one vectorised computation."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from constrainednn._checks.check import ProblemError
from constrainednn._common.arguments import as_count
from constrainednn._gap.residuals import monitor_loss
from constrainednn._problem.problem import Problem
from constrainednn._solve.solve import solve, training_of
from constrainednn._solve.training.side_by_side import Unlike, faster_together, together
from constrainednn._solve.training.steps import Chunk, step_bytes
from constrainednn._solve.training.trainer import Training
from constrainednn.errors import BadValueError, LoadError
from constrainednn.methods.first_order import Optax
from constrainednn.results.saving import plain, report_dict
from constrainednn.results.solution import Solution, SolveFailed
from constrainednn.runs.history import Status, Timings
from constrainednn.runs.run import Arguments, Run
from constrainednn.runs.signals import Stop
from constrainednn.studies.ensembles.ensemble import Ensemble, ensemble
from constrainednn.studies.tasks import Task

# Runs in one computation at most, and what they may hold in memory together: numbers of the study
# alone, since it decides which run has which place.
LANES, _BYTES = 32, 1 << 30
_FEW = 4
# What a setting that cannot be right ends in: a row that says so.
REFUSALS = (ProblemError, LoadError, TypeError, ValueError)


def begun_training(
    problem: Problem, method: Any, arguments: dict[str, Any], stop: Stop, seed: int, checked: bool
) -> Training:
    run = Run(problem, Arguments(**arguments, seed=seed))
    run.stop = stop
    return training_of(run, method, checked=checked)


def chosen_engine(start: Callable[..., Training], problem: Problem, task: Task) -> tuple[str, int]:
    """How to run a combination of settings: decided by a trial where both are possible.

    First-order methods only: batches of factorisations are no faster than one after the other on a
    CPU (measured: 0.9 times the time), and XLA's may wait for each other for ever.
    """
    fits = not problem.scheme.in_pieces
    if fits and (task.engine or task.runs >= _FEW):
        with contextlib.suppress(*REFUSALS, StopIteration):  # each run says for itself why
            training = start(next(iter(task.places.values())), checked=False)
            fits = all(isinstance(stage.method, Optax) for stage in training.stages)
            if fits:
                going, answer = training.go(), None
                while not isinstance(chunk := going.send(answer), Chunk):
                    answer = np.nan
                lanes = min(LANES, _BYTES // (step_bytes(chunk) + 1))
                if task.engine:
                    return "vmap", max(lanes, 1)
                if lanes >= _FEW and faster_together(chunk, training.limit, lanes):
                    return "vmap", lanes
    if task.engine and not fits:
        raise BadValueError(
            'engine="vmap" is for cx.Optax methods on problems that are trained step by step: '
            "leave it out."
        )
    return "loop", 0


def vmapped(
    start: Callable[..., Training], places: dict[int, int], lanes: int
) -> dict[int, Solution | Exception]:
    """Solutions by seed; none where the runs do not fit together, or not in memory."""
    try:
        # The first one is checked as a whole: the others differ in their numbers only.
        trainings = {
            place % lanes: start(seed, checked=number > 0)
            for number, (place, seed) in enumerate(places.items())
        }
        ended = together(trainings, lanes, REFUSALS)
    except (Unlike, MemoryError):
        return {}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {}
    return {seed: ended[place % lanes] for place, seed in places.items()}


def solved(
    problem: Problem,
    method: Any,
    seed: int,
    arguments: dict[str, Any],
    *,
    time_limit: float | None,
    members: int | None,
) -> dict[str, Any] | None:
    """The row of a run, or of an ensemble; None if it was interrupted."""
    arguments = arguments | {"time_limit": time_limit}
    try:
        if members is None or as_count(members, "members") == 1:
            return row_of(solve(problem, method, seed=seed, progress=False, **arguments))
        # The first one sees what a single run of this seed sees, and judges by its held-out points.
        others = [((seed + 1) * 1_000_003 + i) % 2**32 for i in range(members - 1)]
        found = ensemble(problem, method, seeds=[seed, *others], progress=False, **arguments)
        return _row_of_mean(found)
    except SolveFailed as failure:
        return row_of(failure.solution)
    except REFUSALS as error:
        return refused(error)


def _row_of_mean(found: Ensemble) -> dict[str, Any] | None:
    """The row of an ensemble: its own gap, and what its members took together."""
    first = found.members[0]
    if any(member.status is Status.INTERRUPTED for member in found.members):
        return None
    train, monitor = zip(*((points.train, points.monitor) for points in found.streams), strict=True)
    times = zip(*(dataclasses.astuple(member.timings) for member in found.members), strict=True)
    steps = max(member.steps for member in found.members)
    watched = plain(monitor_loss(first.problem, found.model, train, monitor))
    curves = {"steps": [steps], "train": [plain(found.gap.loss)], "monitor": [watched]}
    return report_dict(first, first.verdict) | {
        "reason": f"mean of {len(found.members)} solutions",
        "steps": steps,
        "parameters": sum(member.parameters for member in found.members),
        "timings": dataclasses.asdict(Timings(*map(sum, times))),
        "gap": plain(dataclasses.asdict(found.gap)),
        "history": curves,
    }


def row_of(found: Solution | Exception) -> dict[str, Any] | None:
    """The report of a run as plain data; None if it was interrupted."""
    if isinstance(found, Exception):
        return refused(found)
    if found.status is Status.INTERRUPTED:
        return None
    history = found.history
    steps = history.monitor_steps
    losses = history.loss[np.minimum(steps, len(history.loss) - 1)]
    curves = {"steps": steps.tolist()}
    for name, values in (("train", losses), ("monitor", history.monitor)):
        # Six digits, since curves are for the eye.
        curves[name] = [plain(float(f"{value:.5e}")) for value in values]
    row = report_dict(found, found.verdict) | {"history": curves}
    scheme, equation = found.problem.scheme, found.problem.statements[0]
    cut = not scheme.in_pieces and scheme.covered(found.model, equation) is not None
    if cut or (scheme.in_pieces and found.status is not Status.CONVERGED):
        row["covered"] = False  # the gap is that of the part that was reached
    return row


def refused(error: Exception) -> dict[str, Any]:
    return {"status": "error", "reason": str(error)[:1000]}
