"""The one driver: Python over compiled chunks of steps.

Everything that steers (monitor evaluations, snapshots, redraws, stage ends) happens at step
numbers fixed by the settings, and chunks end there. The clock only decides how many steps lie
between two looks at signals and progress; splitting a run into chunks changes no bit of it.
"""

import dataclasses
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from constrainednn._check import (
    check_before_solve,
    check_finite,
    check_gradient,
    check_trained,
)
from constrainednn._domains import AbstractDomain
from constrainednn._gap import (
    Streams,
    draw_streams,
    draw_training,
    gap_report,
    holds_already,
    loss_at,
    monitor_loss,
)
from constrainednn._methods._abstract import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    STALLED,
    AbstractMethod,
)
from constrainednn._methods._levenberg_marquardt import LevenbergMarquardt
from constrainednn._models import trainable_mask
from constrainednn._problem import Constraint, Problem
from constrainednn._provenance import record_settings
from constrainednn._residuals import ResidualVector, residual_vector, rows
from constrainednn._samplers import Draw
from constrainednn._solution import (
    History,
    Solution,
    SolveFailed,
    Status,
    Timings,
)
from constrainednn._solve_pieces import solve_pieces
from constrainednn._stages import Stage, as_stages, described
from constrainednn._validate import ProblemError, as_count, as_seed
from constrainednn._watching import Progress, collected_signals, interrupted_late

# Steps in one call of the compiled chunk at most, and seconds between two looks at the clock.
_CHUNK = 1024
_LOOK_EVERY = 0.3


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
    progress: Callable[[Progress], None] | None = None,
) -> Solution:
    """Train the problem's model to satisfy its constraints and measure the gap.

    Args:
        problem: What to solve.
        method: A method, a stage, or a sequence of stages. Default: Levenberg-Marquardt. Problems
            made by `ivp` and `bvp` bring their own.
        steps: Largest number of steps; 0 evaluates the untrained model. Default: the stages' own,
            1,000 for a bare method, 100,000 Newton steps for `ivp` and `bvp`.
        seed: Seed of the model, of the training points and of the held-out points, in streams
            that do not depend on each other.
        tolerance: Stop as converged when the root of the loss is at most this. For `ivp` and `bvp`
            the largest residual of a piece at its monitor points, times its length and relative to
            the solution; default 1e-12.
        heldout: Held-out points a constraint, drawn independently from its domain; one point gives
            no interval. Default: 4,096. Rows of `Data` are split by its own `holdout` instead.
        monitor: Monitor points a constraint, likewise; shown during the run. Default: 1,024.
        redraw: Draw new training points every so many steps, and at once where the method
            converged on the present ones. The best parameters are then those of the last draw,
            and "train" is the last draw.
        progress: Called a few times a second with a `Progress`.

    Returns:
        The solution with the best parameters by training loss. Ctrl-C or SIGTERM (in the main
        thread) ends the run after the current chunk with status "interrupted"; a second one while
        it trains raises KeyboardInterrupt. While the gap is measured a signal waits for its end.

    Raises:
        ProblemError: If a constraint cannot be solved as stated; see `check`.
        SolveFailed: If the residual becomes NaN or infinite; the best solution is attached.
        TypeError, ValueError: If a setting cannot be right.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"solve takes a cx.Problem, got {problem!r}.")
    counts = {
        "heldout": _as_drawn(heldout, "heldout", problem, default=4096),
        "monitor": _as_drawn(monitor, "monitor", problem, default=1024),
    }
    if problem.scheme is not None:
        _refuse(method=method, redraw=redraw)
        with np.errstate(over="ignore", invalid="ignore"), collected_signals() as caught:
            return solve_pieces(
                problem,
                steps=100_000 if steps is None else as_count(steps, "steps"),
                seed=as_seed(seed),
                tolerance=_as_tolerance(tolerance),
                **counts,
                progress=progress,
                caught=caught,
            )
    stages = as_stages(method, steps)
    run = _Run(
        problem,
        stages,
        seed=as_seed(seed),
        tolerance=_as_tolerance(tolerance),
        counts=counts,
        redraw=_as_redraw(redraw, problem),
        progress=progress,
    )
    # Numbers that are not finite are judged, not warned of.
    with np.errstate(over="ignore", invalid="ignore"), collected_signals() as caught:
        return run.go(caught)


@eqx.filter_jit
def _advance(
    method: AbstractMethod,
    residual: ResidualVector,
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

    losses = jnp.full(_CHUNK, jnp.nan, least_loss.dtype)
    carry = (params, state, best, losses, jnp.asarray(0), jnp.asarray(RUNNING))
    return lax.while_loop(running, body, carry)


class _Run:
    """The state of one solve; `go` takes it from the first trial to the report."""

    def __init__(self, problem, stages, *, seed, tolerance, counts, redraw, progress):
        self.problem: Problem = problem
        self.stages: list[Stage] = stages
        self.seed, self.tolerance, self.redraw = seed, tolerance, redraw
        self.counts: dict[str, int] = counts
        self.progress = progress or (lambda _: None)
        self.limit = sum(stage.steps for stage in stages)
        self.key = jax.random.key(seed)
        # Completed steps, those at the last redraw, and those that led to the returned parameters.
        self.step = self.drawn_at = self.best_step = 0
        self.losses: list[np.ndarray] = []
        self.watched: list[tuple[int, float]] = []
        self.snapshots: list[tuple[int, PyTree]] = []
        self.redraws: list[int] = []
        self.compile_seconds = self.run_seconds = 0.0
        self.train_loss = np.nan

    def go(self, caught: list[int]) -> Solution:
        started = time.perf_counter()
        self.show("compiling")
        constraints = self.problem.constraints
        self.model = self.problem.build_model(key=self.key)
        for stage in self.stages:
            check_trained(self.model, stage.trainable or self.problem.trainable)
        streams = [draw_streams(item, key=self.key, **self.counts) for item in constraints]
        # What judges is kept apart until the end: nothing that trains or steers is handed it.
        self.train_points = [points.train for points in streams]
        self.monitor_points = [points.monitor for points in streams]
        self.heldout_points = [points.heldout for points in streams]
        holds = _lazy(lambda: holds_already(self.problem, self.model, *self.seen()))
        check_before_solve(self.problem, self.model, self.train_points, at_rounding=holds)
        _warn_of_float32(self.stages)
        self.watch()
        self.compile_seconds += time.perf_counter() - started

        if self.limit and holds():
            status, reason = Status.CONVERGED, "the constraints hold before training"
        else:
            status, reason = self.train(caught)
        with collected_signals(caught):
            self.show("measuring the gap")
            started = time.perf_counter()
            solution = self.finish(status, reason, started)
        if status is Status.NONFINITE:
            raise SolveFailed(reason, solution)
        if caught and status is not Status.INTERRUPTED:
            reason = interrupted_late(caught, status, reason)
            return dataclasses.replace(solution, status=Status.INTERRUPTED, reason=reason)
        return solution

    def seen(self) -> tuple[list[Draw], list[Draw | None]]:
        """All points that may steer, one of each kind a constraint."""
        return self.train_points, self.monitor_points

    def train(self, caught: list[int]) -> tuple[Status, str]:
        status, reason = Status.MAX_STEPS, f"the limit of {self.limit} steps is reached"
        for index, stage in enumerate(self.stages):
            verdict = self.run_stage(stage, caught)
            if caught:
                name = signal.Signals(caught[0]).name
                return Status.INTERRUPTED, f"{name} at step {self.step}"
            if verdict == NONFINITE:
                return Status.NONFINITE, self.diagnose(stage)
            last = index == len(self.stages) - 1
            if last and verdict == CONVERGED:
                status, reason = Status.CONVERGED, "no step can lower the loss further"
            elif last and verdict == STALLED:
                status = Status.STALLED
                reason = "no step lowers the loss, although its gradient is not zero"
        if self.tolerance and self.total_loss(self.model) <= self.tolerance**2:
            reason = f"the root of the loss is below the tolerance {self.tolerance:g}"
            return Status.CONVERGED, reason
        return status, reason

    def run_stage(self, stage: Stage, caught: list[int]) -> int:
        """Take the steps of one stage and return its last verdict."""
        params, static = eqx.partition(
            self.model, trainable_mask(self.model, stage.trainable or self.problem.trainable)
        )
        residual = self.residual(static)
        init = eqx.filter_jit(stage.method.init)
        state = init(residual, params)
        dtype = jax.tree.leaves(params)[0].dtype
        least, unseen = jnp.asarray(self.tolerance**2, dtype), jnp.asarray(jnp.inf, dtype)
        best, first = (params, unseen), self.step
        started = time.perf_counter()
        _advance(stage.method, residual, params, state, best, least, jnp.asarray(0))
        self.compile_seconds += time.perf_counter() - started

        end, verdict, pace = self.step + stage.steps, RUNNING, 1
        while self.step < end and not caught:
            if verdict != RUNNING and not self.only_on_this_draw(verdict):
                break
            if self.redraw and (verdict != RUNNING or self.step >= self.drawn_at + self.redraw):
                residual = self.redraw_points(static)
                # Losses on different draws do not compare.
                best, first = (params, unseen), self.step
            if verdict != RUNNING:
                state, verdict = init(residual, params), RUNNING
            stop = min(end, self.step + pace, self.next_event())
            started = time.perf_counter()
            params, state, best, losses, taken, verdict = jax.block_until_ready(
                _advance(
                    stage.method,
                    residual,
                    params,
                    state,
                    best,
                    least,
                    jnp.asarray(stop - self.step),
                )
            )
            elapsed = time.perf_counter() - started
            taken, verdict = int(taken), int(verdict)
            self.run_seconds += elapsed
            self.losses.append(np.asarray(losses)[:taken])
            self.step += taken
            self.model = eqx.combine(params, static)
            if taken:
                self.train_loss = float(losses[taken - 1])
                # At most a doubling, since the first steps of a chunk may be untypical.
                pace = min(_CHUNK, 2 * pace, max(1, int(_LOOK_EVERY * taken / (elapsed + 1e-9))))
                if _log_place(self.step) is not None:
                    self.watch()
            self.show("training")
        self.last_model = eqx.combine(params, static)
        self.model = eqx.combine(self.better(best, params, static, first), static)
        return RUNNING if self.only_on_this_draw(verdict) else verdict

    def only_on_this_draw(self, verdict: int) -> bool:
        """True for a method that converged on training points which are to be drawn again.

        Converged on fresh points, with no more than the step that found it, is converged.
        """
        return bool(self.redraw) and verdict == CONVERGED and self.step > self.drawn_at + 1

    def better(
        self, best: tuple[PyTree, Array], params: PyTree, static: PyTree, first: int
    ) -> PyTree:
        """The last parameters, or the best seen since step `first` if their loss is truly lower.

        Near a minimum losses differ by rounding only, while the parameters still converge.
        """
        last = self.total_loss(eqx.combine(params, static))
        best_params, best_loss = best
        slack = 1 + float(jnp.finfo(best_loss.dtype).eps) ** 0.5
        if last <= slack * float(best_loss):
            self.best_step = self.step
            return params
        seen = np.concatenate([[np.inf], *self.losses])[1 + first :]
        self.best_step = first + int(np.argmin([*np.nan_to_num(seen, nan=np.inf), np.inf]))
        return best_params

    def residual(self, static: PyTree) -> ResidualVector:
        constraints = self.problem.constraints
        return residual_vector(constraints, static, rows(constraints, self.train_points))

    def redraw_points(self, static: PyTree) -> ResidualVector:
        self.redraws.append(self.step)
        self.drawn_at = self.step
        for i, item in enumerate(self.problem.constraints):
            if _drawn_again(item):
                number = len(self.redraws)
                self.train_points[i] = draw_training(item, key=self.key, redraw=number)
        return self.residual(static)

    def next_event(self) -> int:
        """The next step at which something other than stepping happens."""
        events = [_next_log_spaced(self.step)]
        if self.redraw:
            events.append(self.drawn_at + self.redraw)
        return min(events)

    def watch(self) -> None:
        """Take the monitor loss, and a snapshot at some of the steps that are log-spaced."""
        self.watched.append((self.step, monitor_loss(self.problem, self.model, *self.seen())))
        place = _log_place(self.step)
        if self.step == 0 or (place is not None and place % 5 == 0):
            self.snapshots.append((self.step, self.model))

    def losses_at(self, model: PyTree) -> dict[str, float]:
        pairs = zip(self.problem.constraints, self.train_points, strict=True)
        return {item.name: loss_at(item, model, points) for item, points in pairs}

    def total_loss(self, model: PyTree) -> float:
        return sum(self.losses_at(model).values())

    def diagnose(self, stage: Stage) -> str:
        """Say how NaN came about: steps too long, or a constraint and a point where it began."""
        where = f"at step {self.step}"
        seen = np.concatenate([[np.inf], *self.losses])[1:]
        parts = self.losses_at(self.last_model)
        largest = max(parts, key=lambda name: np.nan_to_num(parts[name], nan=np.inf))
        # A loss on its way to infinity is no fault of the residual.
        if seen.size and seen[-1] > 1e3 * seen[0]:
            return (
                f"{where}: the loss grew from {seen[0]:.3g} to {seen[-1]:.3g}, most of it in "
                f"constraint {largest!r}. The steps are too long: lower the learning rate."
            )
        select = stage.trainable or self.problem.trainable
        pairs = list(zip(self.problem.constraints, self.train_points, strict=True))
        try:
            for item, points in pairs:
                check_finite(item, self.last_model, points)
            for item, points in pairs:
                problem = Problem(item, self.model, trainable=select)
                check_gradient(problem, item, self.last_model, points, thorough=True)
        except ProblemError as error:
            if self.step == 0:
                raise
            return f"{where}: {error}"
        return (
            f"{where}: the step itself was NaN or infinite, with a loss of {parts[largest]:.3g} in "
            f"constraint {largest!r}. A smaller learning rate may help."
        )

    def finish(self, status: Status, reason: str, started: float) -> Solution:
        points = zip(self.train_points, self.monitor_points, self.heldout_points, strict=True)
        streams = tuple(Streams(*each) for each in points)
        gap = gap_report(self.problem, self.model, streams)
        # The last entries belong to what is returned, which may not be what was reached last.
        for entries in (self.watched, self.snapshots):
            if entries[-1][0] == self.step:
                entries.pop()
        self.watched.append((self.step, monitor_loss(self.problem, self.model, *self.seen())))
        self.snapshots.append((self.step, self.model))
        monitor_steps, monitor = zip(*self.watched, strict=True)
        select = self.stages[-1].trainable or self.problem.trainable
        params = eqx.filter(self.model, trainable_mask(self.model, select))
        history = History(
            np.concatenate([*self.losses, [gap.loss]]),
            np.asarray(monitor_steps),
            np.asarray(monitor),
            tuple(self.snapshots),
            self.best_step,
            tuple(self.redraws),
        )
        timings = Timings(self.compile_seconds, self.run_seconds, time.perf_counter() - started)
        return Solution(
            self.problem,
            self.model,
            gap,
            status,
            reason,
            self.step,
            sum(leaf.size for leaf in jax.tree.leaves(params)),
            history,
            timings,
            record_settings(
                described(self.stages, self.model),
                steps=self.limit,
                seed=self.seed,
                tolerance=self.tolerance,
                **self.counts,
                redraw=self.redraw,
                dtype=str(jax.tree.leaves(params)[0].dtype),
            ),
            streams,
        )

    def show(self, phase: str) -> None:
        monitor = self.watched[-1][1] if self.watched else np.nan
        self.progress(Progress(phase, self.step, self.limit, float(self.train_loss), monitor))


def _log_place(step: int) -> int | None:
    """The index of `step` among the ten log-spaced steps a decade, or None."""
    if step < 1:
        return None
    place = round(10 * np.log10(step))
    return place if round(10 ** (place / 10)) == step else None


def _next_log_spaced(step: int) -> int:
    place = int(np.floor(10 * np.log10(max(step, 1))))
    while round(10 ** (place / 10)) <= step:
        place += 1
    return round(10 ** (place / 10))


def _lazy(fn: Callable[[], bool]) -> Callable[[], bool]:
    known: list[bool] = []

    def once() -> bool:
        if not known:
            known.append(fn())
        return known[0]

    return once


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"a problem made by ivp or bvp is solved by its own Gauss-Newton steps, piece by "
                f"piece: leave out {name}=."
            )


def _drawn_again(constraint: Constraint) -> bool:
    return isinstance(constraint.over, AbstractDomain) and constraint.sampler.random


def _as_drawn(value: Any, name: str, problem: Problem, *, default: int) -> int:
    """A number of held-out or monitor points, refused where no constraint has a domain."""
    if value is None:
        return default
    count = as_count(value, name)
    if not any(isinstance(item.over, AbstractDomain) for item in problem.constraints):
        raise ValueError(
            f"{name}={value!r} has nothing to draw: every constraint is over given points or rows. "
            "Leave it out; the rows that cx.Data holds out are set there, as in "
            "cx.Data(rows, holdout=0.2)."
        )
    return count


def _as_redraw(value: Any, problem: Problem) -> int | None:
    if value is None:
        return None
    if not any(map(_drawn_again, problem.constraints)):
        raise ValueError(
            f"redraw={value!r} has nothing to draw: the training points of every constraint are "
            "given or those of a rule. Leave it out, or use a random sampler such as cx.Sobol()."
        )
    return as_count(value, "redraw")


def _as_tolerance(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
        raise ValueError(f"tolerance must be a finite number of at least 0, got {value!r}.")
    return float(value)


def _warn_of_float32(stages: Sequence[Stage]) -> None:
    second_order = any(isinstance(stage.method, LevenbergMarquardt) for stage in stages)
    if second_order and jnp.result_type(float) == jnp.float32:
        warnings.warn(
            "Levenberg-Marquardt in float32 stops near a relative residual of 1e-7. For float64 "
            "write jax.config.update('jax_enable_x64', True) before the first array.",
            stacklevel=4,
        )
