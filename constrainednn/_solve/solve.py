"""Solving a problem: the entry point for all drivers."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from constrainednn._common.arguments import as_count, as_path
from constrainednn._common.memory import keep_below_map_limit
from constrainednn._common.messages import NOT_TRACED, shown
from constrainednn._ode.trained.scheme import (
    TrainedEquation,
    TrainedWindows,
    default_stages,
)
from constrainednn._problem.constraint import is_drawn_again
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import AbstractPieceScheme
from constrainednn._solve.in_windows import TrainingInWindows
from constrainednn._solve.measure import measured
from constrainednn._solve.piecewise import solve_pieces
from constrainednn._solve.right_start import applies, is_affine, right_start
from constrainednn._solve.training.steps import alone
from constrainednn._solve.training.trainer import Training
from constrainednn._storage.folders import check_folder
from constrainednn._storage.run_folder import RunFolder
from constrainednn.domains.base import AbstractDomain
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.stages import Stage, as_stages
from constrainednn.methods.variable_projection import VariableProjection
from constrainednn.results.saving import result_files
from constrainednn.results.solution import Solution, SolveFailed
from constrainednn.runs.display import displayed, of_run
from constrainednn.runs.history import Status
from constrainednn.runs.listeners import Progress, Sink
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Arguments, Run
from constrainednn.runs.signals import collected_signals, interrupted_late


def solve(
    problem: Problem,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    tolerance: float = 0.0,
    heldout: int | None = None,
    monitor: int | None = None,
    redraw: int | None = None,
    early_stopping: bool = False,
    time_limit: float | None = None,
    out: str | Path | None = None,
    sinks: Sequence[Sink] = (),
    progress: bool | Callable[[Progress], None] | None = None,
) -> Solution:
    """Train the problem's model to satisfy its constraints and measure the gap.

    Args:
        problem: What to solve.
        method: A method, a stage, or a sequence of stages. Default: Levenberg-Marquardt; for a
            network drawn for a differential equation from a start of its own (inner weights of a
            scale at which the head alone, by least squares, leaves little), and by variable
            projection if all constraints are linear in the model;
            with an objective, L-BFGS on an augmented Lagrangian. Problems made by `ivp` and `bvp`
            bring their own.
        steps: Largest number of steps, for each window where `ivp` trains a model in several; 0
            evaluates the untrained model. Default: the stages' own,
            1,000 for a bare method, 100,000 Newton steps for `ivp` and `bvp`.
        seed: Seed of the model, of the training points and of the held-out points, in streams
            that do not depend on each other.
        tolerance: Stop as converged when the root of the loss is at most this. For `ivp` and `bvp`
            the largest residual of a piece at its monitor points, times its length and relative to
            the solution; default 1e-12. Not with an objective, whose least value is not known:
            `Constraint(tolerance=)` says there how well a constraint should hold.
        heldout: Held-out points per constraint, drawn independently from its domain; one point
            gives no interval. Default: 4,096. Rows of `Data` are split by its `holdout` instead.
        monitor: Monitor points per constraint, likewise; shown during the run. Default: 1,024.
        redraw: Draw new training points every `redraw` steps, and also whenever the method
            converged on the present ones. The best parameters are then those of the last draw,
            and "train" is the last draw.
        early_stopping: Return the parameters with the lowest monitor loss of those at the
            log-spaced steps where it is taken (ten per decade), and end the run once four times the
            steps that led there, and a hundred, brought no lower one.
        time_limit: Seconds after which the run ends with status "time_limit".
        out: New folder to save to: checkpoints while it runs, from which `resume` continues, and
            model, history, report and figures in the end.
        sinks: Where the numbers of the run go besides, such as `TensorBoard`.
        progress: A function that is called a few times a second with a `Progress`; True for a
            bar, False for silence. Default: a bar in a terminal and in a notebook.

    Returns:
        The solution with the best parameters, by training loss unless `early_stopping`. Ctrl-C or
        SIGTERM (in the main thread) ends the run after the current chunk with status "interrupted";
        a second one while it trains raises KeyboardInterrupt. While the gap is measured a signal
        waits for its end, the second one only where nothing is saved.

    Raises:
        ProblemError: If a constraint cannot be solved as stated; see `check`.
        SolveFailed: If the residual becomes NaN or infinite; the best solution is attached.
        StoreError: If `out` cannot be used. What fails later costs a `RunWarning` and never the
            result.
        TypeError, ValueError: If a setting cannot be right, or the problem does not fit in memory.
    """
    if not isinstance(problem, Problem):
        raise BadTypeError(f"problem of solve must be a cx.Problem, got {shown(problem)}.")
    # Inside of jit every new array is traced; inside of grad and vmap, what was handed in is.
    given = (*jax.tree.leaves(problem), seed, steps, jnp.zeros(()))
    if any(isinstance(item, Tracer) for item in given):
        raise BadTypeError(NOT_TRACED)
    folder = None if out is None else as_path(out, "out")
    if folder is not None:
        check_folder(folder)
    with displayed(progress, of_run) as display:
        run = Run(
            problem,
            Arguments(steps, seed, tolerance, heldout, monitor, redraw, early_stopping),
            folder=None if folder is None else RunFolder(folder),
            time_limit=time_limit,
            sinks=sinks,
            progress=display,
        )
        return drive(run, method)


def drive(run: Run, method: AbstractMethod | Stage | Sequence[Stage] | None) -> Solution:
    """Take a run to its end and save what it finds. Arguments and errors as in `solve`."""
    keep_below_map_limit(every=8)
    try:
        # Numbers that are not finite are judged, not warned of.
        with np.errstate(over="ignore", invalid="ignore"), collected_signals(run.stop):
            solution = measured(run, _driver(run, method)())
            if run.stop.signals and solution.status is not Status.INTERRUPTED:
                reason = interrupted_late(run.stop.name, solution.status, solution.reason)
                solution = dataclasses.replace(solution, status=Status.INTERRUPTED, reason=reason)
            if run.folder is not None:
                run.folder.write(result_files(solution, solution.verdict))
    finally:
        run.listeners.close()
        if run.folder is not None:
            run.folder.close()
    if solution.status is Status.NONFINITE:
        raise SolveFailed(solution.reason, solution)
    return solution


def _driver(
    run: Run, method: AbstractMethod | Stage | Sequence[Stage] | None
) -> Callable[[], Outcome]:
    scheme, steps = run.problem.scheme, run.arguments.steps
    if isinstance(scheme, AbstractPieceScheme):
        _refuse(method=method, redraw=run.redraw)
        return lambda: solve_pieces(run, scheme, 100_000 if steps is None else steps)
    training = training_of(run, method)
    return lambda: alone(training.go())


def training_of(
    run: Run, method: AbstractMethod | Stage | Sequence[Stage] | None, *, checked: bool = False
) -> Training:
    """The driver of a problem that is trained step by step; arguments as in `Training`."""
    run.redraw = _as_redraw(run.redraw, run.problem)
    scheme, steps = run.problem.scheme, run.arguments.steps
    windows = isinstance(scheme, TrainedWindows) and scheme.windows > 1
    driver = TrainingInWindows if windows else Training
    if method is None and isinstance(scheme, TrainedEquation):
        model = run.problem.build_model(key=jax.random.key(run.seed))
        return driver(run, default_stages(model, steps), checked=checked)
    start = None
    if method is None and applies(run.problem, run.seed):
        method, start = LevenbergMarquardt(), right_start
        # Measured at equal seconds: errors 160 times smaller to twice as large where the rows are
        # affine in the last layer, and up to 80 times larger elsewhere.
        if is_affine(run.problem, run.seed):
            method = VariableProjection()
    stages = as_stages(method, steps, objective=run.problem.objective is not None)
    return driver(run, stages, checked=checked, start=start)


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise BadValueError(
                "a problem made by ivp, bvp or pde is solved by its own Gauss-Newton steps, piece "
                f"by piece: leave out {name}=."
            )


def _why_fixed(problem: Problem) -> str:
    """Why no training point can be drawn again, and what to write."""
    if isinstance(problem.scheme, TrainedEquation):
        return (
            "models of ivp and bvp are trained on the nodes of Gauss's rule. Leave it out; "
            "points= of ivp and bvp sets their number."
        )
    for item in problem.constraints:
        if isinstance(item.over, AbstractDomain) and not item.names_sampler:
            return (
                f"the points of constraint {item.name!r} are those of {item.sampler!r}, the "
                "default where a residual differentiates the model over an interval. Leave it out, "
                "or write sampler=cx.domains.Sobol() in the constraint."
            )
    return (
        "the training points of every constraint are given or those of a rule. Leave it out, or "
        "use a random sampler such as cx.domains.Sobol()."
    )


def _as_redraw(value: Any, problem: Problem) -> int | None:
    if value is None:
        return None
    if not any(map(is_drawn_again, problem.statements)):
        raise BadValueError(f"redraw={shown(value)} has nothing to draw: {_why_fixed(problem)}")
    return as_count(value, "redraw")
